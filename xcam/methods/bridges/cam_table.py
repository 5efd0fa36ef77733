"""The CAMs of grad-cam and torch-cam that xcam has no file of its own for: one row each."""

from __future__ import annotations

from typing import Literal

from xcam.core import Count, Method, MethodSpec, NonNegative, Positive
from xcam.methods.bridges.cam_formulas import (
    FromActivations,
    FromGradients,
    explain_by_curvature,
    explain_differences,
    explain_highest,
    explain_products,
    explain_segments,
    project_by_kernel,
    weight_at_random,
)
from xcam.methods.bridges.fullgrad import explain_biases
from xcam.methods.bridges.masked_cams import explain_integrated, explain_smoothed
from xcam.methods.bridges.refinecam import explain_product
from xcam.methods.bridges.rows import Row, Setting
from xcam.methods.bridges.sess import explain_windows
from xcam.methods.bridges.settings import LAYER, N_SAMPLES, OUTPUT, SEED
from xcam.methods.bridges.smooth_gradcam import explain_smooth_derivatives

__all__ = ["CAMS"]

_TAIL = "1 forward + tail backward"
_NEEDS_CLASSES = {
    "takes_a_callable": "it compares the class with others, and a callable names no class"
}
_REST = {
    "takes_a_callable": "its score, the logit plus the log-probability, is no single reading of "
    "the output"
}

_BASE = Setting(
    "base",
    str | tuple | Method,
    "gradcam",
    "The method that explains: an object, its name, or name and settings, as in "
    '`("gradcam", {"layer": "layer3"})`.',
)

CAMS: tuple[Row, ...] = (
    Row(
        "GradCAMElementWise",
        MethodSpec(
            name="gradcam_elementwise",
            title="Grad-CAM Element-Wise",
            paper="Gildenblat et al., 2021, grad-cam",
            family="cam",
            cost=_TAIL,
            signed=False,
        ),
        "Grad-CAM Element-Wise: activations times gradients, where that is positive.\n\n"
        "M = Σ_k max(∂y/∂A_k ⊙ A_k, 0), as grad-cam's `GradCAMElementWise` (Gildenblat et al., "
        "2021); `hirescam` without the cut.",
        (LAYER, OUTPUT),
        FromGradients(explain_products),
    ),
    Row(
        "SegEigenCAM",
        MethodSpec(
            name="seg_eigencam",
            title="Seg-Eigen-CAM",
            paper="Chung and Ying, 2025, Applied Sciences 15, doi:10.3390/app15137562",
            family="cam",
            cost=_TAIL,
        ),
        "Seg-Eigen-CAM: what varies most in the products of activations and gradients' "
        "magnitudes.\n\n"
        "M = X v, X being the (h·w × C) values |∂y/∂A| ⊙ A, centered over the positions, and v "
        "their first right singular vector; the value of largest magnitude is positive (Chung and "
        "Ying, 2025, Applied Sciences 15).",
        (LAYER, OUTPUT),
        FromGradients(explain_segments),
    ),
    Row(
        "KPCACAM",
        MethodSpec(
            name="kpca_cam",
            title="KPCA-CAM",
            paper="Karmani et al., 2024, arXiv:2410.00267",
            family="cam",
            cost="1 forward",
            class_specific=False,
        ),
        "KPCA-CAM: the first component of a kernel PCA of a layer's positions.\n\n"
        "Eigen-CAM with a kernel in place of the scalar product (Karmani et al., 2024, "
        "arXiv:2410.00267), as grad-cam's `KPCA_CAM` has it from scikit-learn; the sign, which is "
        "arbitrary, is chosen as in `eigencam`.",
        (
            LAYER,
            Setting(
                "kernel",
                Literal["sigmoid", "rbf", "poly", "cosine", "linear"],
                "sigmoid",
                "The kernel, with scikit-learn's constant 1 and third power.",
            ),
            Setting("gamma", Positive | None, None, "The kernel's scale; None for 1 / channels."),
        ),
        FromActivations(project_by_kernel),
    ),
    Row(
        "FEM",
        MethodSpec(
            name="fem",
            title="FEM",
            paper="Fuad et al., 2020, IPTA",
            family="cam",
            cost="1 forward",
            class_specific=False,
        ),
        "FEM: a layer's channels, weighted by how many of their values stand out.\n\n"
        "M = Σ_k w_k A_k, w_k being the share of positions at which A_k is above its mean by more "
        "than k of its standard deviations (Fuad et al., 2020, IPTA).",
        (LAYER, Setting("k", NonNegative, 2.0, "How many standard deviations.")),
        FromActivations(explain_highest),
    ),
    Row(
        "ShapleyCAM",
        MethodSpec(
            name="shapleycam",
            title="ShapleyCAM",
            paper="Cai, 2025, arXiv:2501.06261",
            family="cam",
            cost="1 forward + tail backward, twice",
            exceptions=_REST,
        ),
        "ShapleyCAM: Grad-CAM with the score's curvature in its weights.\n\n"
        "M = Σ_k w_k A_k with w_k = mean_ij(∂y/∂A − ½ H A)_k,ij, H being the Hessian of y at the "
        "layer (Cai, 2025, arXiv:2501.06261). The paper's y is the logit plus the log-probability.",
        (
            LAYER,
            Setting(
                "output",
                Literal["rest", "logit", "prob", "logprob"],
                "rest",
                'What of the output is y; `"rest"`, published, is the logit plus the '
                "log-probability.",
            ),
        ),
        explain_by_curvature,
    ),
    Row(
        "FinerCAM",
        MethodSpec(
            name="finercam",
            title="Finer-CAM",
            paper="Zhang et al., 2025, arXiv:2501.11309",
            family="cam",
            cost="1 forward + those of the base",
            exceptions=_NEEDS_CLASSES,
        ),
        "Finer-CAM: a CAM of what tells the class from those that it resembles most.\n\n"
        "The base explains Σ_j p_j (y − alpha y_j) / Σ_j p_j, j being the classes with the nearest "
        "logits and p_j their probabilities (Zhang et al., 2025, arXiv:2501.11309), as grad-cam's "
        "`FinerCAM`.",
        (
            Setting("alpha", NonNegative, 1.0, "How much of the other logits is subtracted."),
            Setting("n_classes", Count, 3, "How many classes are compared with, at most."),
            _BASE,
        ),
        explain_differences,
    ),
    Row(
        "RefineCAM",
        MethodSpec(
            name="refinecam",
            title="RefineCAM",
            paper="arXiv:2605.14641",
            family="cam",
            cost="2 forwards + those of the base for each layer",
            signed=False,
            normalized=True,
        ),
        "RefineCAM: the product of a CAM's maps at several layers.\n\n"
        "M = Π_l N(up(N(max(M_l, 0)))), M_l being the base's map at layer l and N the min-max over "
        "positions (arXiv:2605.14641), as grad-cam's `RefineCAM`.",
        (
            Setting(
                "layers",
                tuple[str, ...] | None,
                None,
                "Names of the layers; None for the end of the stem and of each stage of the net.",
            ),
            _BASE.replace("gradcam_plusplus"),
        ),
        explain_product,
    ),
    Row(
        "SESS",
        MethodSpec(
            name="sess",
            title="SESS",
            paper="Tursun et al., 2022, arXiv:2207.01769",
            family="cam",
            cost="1 forward + windows × (1 forward + those of the base)",
            signed=False,
            exceptions={
                "takes_a_callable": "windows count by the probability and are explained by the "
                "logit, and a callable gives one score"
            },
        ),
        "SESS: a CAM of windows of the enlarged image, put together, for small objects.\n\n"
        "The image is enlarged to several scales and cut into windows of its own size; each "
        "window's map, min-maxed, counts by the class's probability there, and a pixel has the "
        "mean over the windows that see it (Tursun et al., 2022, arXiv:2207.01769), as grad-cam's "
        "`SESS`. With a callable as target its score counts instead of the probability, 0 where it "
        "is negative.",
        (
            Setting("n_scales", Count, 12, "How many scales; the first is the image itself."),
            Setting("growth", Positive, 2 / 7, "From scale to scale, as a share of the window."),
            Setting("theta", NonNegative, 0.0, "Values up to this do not count in the mean."),
            Setting("smooth", bool, True, "Whether to blur the result, by a Gaussian of 5 pixels."),
            _BASE,
        ),
        explain_windows,
    ),
    Row(
        "FullGrad",
        MethodSpec(
            name="fullgrad",
            title="FullGrad",
            paper="Srinivas and Fleuret, 2019, arXiv:1905.00780",
            family="gradient",
            cost="1 forward + backward",
            signed=False,
        ),
        "FullGrad: gradients at the image and at the biases of convolutions and batch norms.\n\n"
        "M = ψ(x ⊙ ∂y/∂x) + Σ_l Σ_c ψ(b_c ∂y/∂z_c) over the channels of convolutions and batch "
        "norms, ψ being the magnitude, min-maxed and enlarged (Srinivas and Fleuret, 2019, "
        "arXiv:1905.00780), as grad-cam's `FullGrad`.",
        (OUTPUT,),
        explain_biases,
    ),
    Row(
        "RandomCAM",
        MethodSpec(
            name="random_cam",
            title="Random CAM",
            paper="",
            family="control",
            cost="1 forward",
            class_specific=False,
            stochastic=True,
        ),
        "Random CAM: a layer's channels with random weights, a control for CAMs.\n\n"
        "M = Σ_k w_k A_k with w_k uniform in [−1, 1], the same for all images, as grad-cam's "
        "`RandomCAM`, which draws for each image.",
        (LAYER, SEED),
        FromActivations(weight_at_random),
    ),
    Row(
        "SSCAM",
        MethodSpec(
            name="sscam",
            title="SS-CAM",
            paper="Wang et al., 2020, arXiv:2006.14255",
            family="perturbation",
            cost="1 + n_samples × C forwards, flat channels skipped",
            stochastic=True,
        ),
        "SS-CAM: Score-CAM with masks under noise.\n\n"
        "M = Σ_k w_k A_k, w being the softmax over the channels of the mean score of "
        "x ⊙ (H_k + δ), H_k the channel min-maxed and enlarged and δ normal noise (Wang et al., "
        "2020, arXiv:2006.14255), as torch-cam's `SSCAM`.",
        (
            LAYER,
            N_SAMPLES.replace(35),
            Setting("noise", NonNegative, 2.0, "σ of the noise."),
            SEED,
            OUTPUT,
        ),
        explain_smoothed,
    ),
    Row(
        "ISCAM",
        MethodSpec(
            name="iscam",
            title="IS-CAM",
            paper="Naidu et al., 2020, arXiv:2010.03023",
            family="perturbation",
            cost="1 + n_samples × C forwards, flat channels skipped",
        ),
        "IS-CAM: Score-CAM with the score integrated over the strength of the mask.\n\n"
        "M = Σ_k w_k A_k, w being the softmax over the channels of the mean score over i = 1 … n "
        "of x ⊙ H_k times Σ_{j ≤ i} j / n, H_k the channel min-maxed and enlarged (Naidu et al., "
        "2020, arXiv:2010.03023), as torch-cam's `ISCAM`.",
        (LAYER, N_SAMPLES.replace(10), OUTPUT),
        explain_integrated,
    ),
    Row(
        "SmoothGradCAMPlusPlus",
        MethodSpec(
            name="smooth_gradcam_plusplus",
            title="Smooth Grad-CAM++",
            paper="Omeiza et al., 2019, arXiv:1908.01224",
            family="cam",
            cost="1 forward + n_samples × (forward + tail backward)",
            stochastic=True,
            aliases=("smooth_gradcam_pp", "smooth_gradcam++"),
            exceptions={
                "follows_its_seed": "right before global pooling and a linear head, as in the "
                "check's net, derivatives are the same for all images, and so for noisy copies"
            },
        ),
        "Smooth Grad-CAM++: Grad-CAM++ with its derivatives averaged over noisy copies.\n\n"
        "M = Σ_k w_k A_k with w_k = Σ_ij α_k,ij max(D¹_k,ij, 0) and α = D² / (2 D² + Σ_ab A_k,ab "
        "D³_k,ab), D^p being the mean over copies of (∂y/∂A)^p (Omeiza et al., 2019, "
        "arXiv:1908.01224). α's numerator is torch-cam's; the paper prints D¹. torch-cam takes the "
        "last copy's gradient for D¹.",
        (
            LAYER,
            N_SAMPLES.replace(20),
            Setting("noise", NonNegative, 0.15, "σ as a fraction of each image's range."),
            SEED,
            OUTPUT,
        ),
        explain_smooth_derivatives,
    ),
)
