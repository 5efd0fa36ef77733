"""Where each public class of captum, grad-cam and torch-cam is in xcam, or why it is not."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["CAPTUM", "GRAD_CAM", "LEFT_OUT", "TORCH_CAM"]

CAPTUM: Mapping[str, str] = {
    "DeepLift": "deeplift",
    "DeepLiftShap": "deeplift_shap",
    "Deconvolution": "deconvnet",
    "FeatureAblation": "feature_ablation",
    "FeaturePermutation": "feature_permutation",
    "GradientShap": "gradient_shap",
    "GuidedBackprop": "guided_backprop",
    "GuidedGradCam": "guided_gradcam",
    "InputXGradient": "input_x_gradient",
    "IntegratedGradients": "integrated_gradients",
    "InternalInfluence": "internal_influence",
    "KernelShap": "kernel_shap",
    "LRP": "lrp",
    "LayerActivation": "conv_output",
    "LayerConductance": "layer_conductance",
    "LayerDeepLift": "deeplift",
    "LayerDeepLiftShap": "deeplift_shap",
    "LayerFeatureAblation": "ablationcam",
    "LayerGradCam": "gradcam",
    "LayerGradientShap": "gradient_shap",
    "LayerGradientXActivation": "hirescam",
    "LayerIntegratedGradients": "internal_influence",
    "LayerLRP": "lrp",
    "Lime": "lime",
    "NoiseTunnel": "smoothgrad",
    "Occlusion": "occlusion",
    "Saliency": "saliency",
    "ShapleyValueSampling": "shapley_value_sampling",
    "ShapleyValues": "shapley_value_sampling",
}
"""Attributions of captum: the method that is or holds each."""
GRAD_CAM: Mapping[str, str] = {
    "AblationCAM": "ablationcam",
    "EigenCAM": "eigencam",
    "EigenGradCAM": "eigengradcam",
    "FEM": "fem",
    "FinerCAM": "finercam",
    "FullGrad": "fullgrad",
    "GradCAM": "gradcam",
    "GradCAMElementWise": "gradcam_elementwise",
    "GradCAMPlusPlus": "gradcam_plusplus",
    "GuidedBackpropReLUModel": "guided_backprop",
    "HiResCAM": "hirescam",
    "KPCA_CAM": "kpca_cam",
    "LayerCAM": "layercam",
    "RandomCAM": "random_cam",
    "RefineCAM": "refinecam",
    "SESS": "sess",
    "ScoreCAM": "scorecam",
    "SegEigenCAM": "seg_eigencam",
    "ShapleyCAM": "shapleycam",
    "XGradCAM": "xgradcam",
}
"""CAMs of grad-cam."""
TORCH_CAM: Mapping[str, str] = {
    "CAM": "cam",
    "GradCAM": "gradcam",
    "GradCAMpp": "gradcam_plusplus",
    "ISCAM": "iscam",
    "LeGrad": "legrad",
    "LayerCAM": "layercam",
    "RefineCAM": "refinecam",
    "SSCAM": "sscam",
    "ScoreCAM": "scorecam",
    "SmoothGradCAMpp": "smooth_gradcam_plusplus",
    "XGradCAM": "xgradcam",
    "FinerCAM": "finercam",
}
"""Methods of torch-cam."""

_BASE = "a base class, which explains nothing by itself"
_TEXT = "explains text or embeddings"
_STATISTIC = "a statistic of attributions"
_NEURON = (
    "explains a unit within the net: explain the part of the net up to its layer, with a callable "
    "target that reads the unit, by the method for images: 'saliency' for NeuronGradient, "
    "'layer_conductance' for NeuronConductance, of the same name for the others"
)
_NEURONS = (
    "Conductance", "Deconvolution", "DeepLift", "DeepLiftShap", "FeatureAblation", "Gradient",
    "GradientShap", "GuidedBackprop", "IntegratedGradients",
)  # fmt: skip

LEFT_OUT: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "Attribution",
            "GradientAttribution",
            "LayerAttribution",
            "NeuronAttribution",
            "PerturbationAttribution",
            "InterpretableInput",
            "Summarizer",
            "SummarizerSingleTensor",
            "Stat",
            "LimeBase",
        ),
        _BASE,
    ),
    **dict.fromkeys(
        (
            "LLMAttribution",
            "LLMAttributionResult",
            "LLMGradientAttribution",
            "RemoteLLMAttribution",
            "RemoteLLMProvider",
            "VLLMProvider",
            "InterpretableEmbeddingBase",
            "TextTemplateInput",
            "TextTokenInput",
            "TokenReferenceBase",
        ),
        _TEXT,
    ),
    **dict.fromkeys(
        (
            "ClassSummarizer",
            "Mean",
            "StdDev",
            "MSE",
            "Var",
            "Min",
            "Max",
            "Sum",
            "Count",
            "CommonStats",
            "StatValue",
        ),
        _STATISTIC,
    ),
    **{f"Neuron{name}": _NEURON for name in _NEURONS},
    "DataLoaderAttribution": "attributes a metric over a data set to features, no image",
    "LayerFeaturePermutation": "permutes a layer's features among the images of a batch, on which "
    "a map here never depends; 'ablationcam' removes them",
    "ImageMaskInput": "turns masks into features: regions are superpixels or a grid here",
    "ProductBaselines": "draws baselines of tabular features; the settings baseline and baselines",
    "AblationLayer": "a part of 'ablationcam'",
    "AblationLayerFasterRCNN": "a part of 'ablationcam', for detectors",
    "AblationLayerVit": "a part of 'ablationcam', which reads layouts by itself",
    "ActivationsAndGradients": "hooks: xcam.engine.capture",
    "DeepFeatureFactorization": "gives heat maps of a number of concepts, shared by a batch, none "
    "of which is of the class",
}
"""Public classes without a method here, each with the reason."""
