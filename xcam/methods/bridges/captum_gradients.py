"""The gradients of captum, with rules for layers or without: one row a method."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from xcam.core import MethodSpec, NonNegative, Positive
from xcam.engine.forward import current_runtime
from xcam.imaging import make_fill
from xcam.methods.bridges.captum_calls import CaptumCall
from xcam.methods.bridges.rows import Row, Setting
from xcam.methods.bridges.settings import (
    AT,
    BASELINE,
    BASELINES,
    LAYER,
    N_SAMPLES,
    N_STEPS,
    OUTPUT,
    REDUCE,
    SEED,
    make_baselines,
)
from xcam.methods.bridges.unrolled import ACTIVATIONS, MAX_POOLS, MEANS, SUMS, make_unrouted

__all__ = ["GRADIENTS"]


def _spread_samples(method: Any, image: Tensor, rows: int) -> dict[str, Any]:  # noqa: ANN401
    return {
        "baselines": make_baselines(image, method.baselines),
        "n_samples": method.n_samples,
        "stdevs": method.noise,
    }


def _compare(method: Any, image: Tensor, rows: int) -> dict[str, Any]:  # noqa: ANN401
    return {"baselines": make_fill(image.detach(), method.baseline)}


def _compare_with_several(
    method: Any,  # noqa: ANN401
    image: Tensor,
    rows: int,
) -> list[dict[str, Any]]:
    baselines = make_baselines(image, method.baselines)
    return [{"baselines": baselines[one : one + 1]} for one in range(len(baselines))]


def _find_least(net: nn.Module) -> float:
    """Return what counts as zero in a quotient, in the precision in which a net computes."""
    half = current_runtime().precision == "fp16"
    half |= any(parameter.dtype == torch.float16 for parameter in net.parameters())
    return 1e-3 if half else 1e-10


def _set_least(explainer: Any, method: object, net: nn.Module) -> None:  # noqa: ANN401
    explainer.eps = _find_least(net)


def _walk_path(method: Any, image: Tensor, rows: int) -> dict[str, Any]:  # noqa: ANN401
    return {
        "baselines": make_fill(image.detach(), method.baseline),
        "n_steps": method.n_steps,
        "method": "gausslegendre",
        "internal_batch_size": max(2, rows),  # a difference of two points
    }


def _walk_layer(method: Any, image: Tensor, rows: int) -> dict[str, Any]:  # noqa: ANN401
    if method.path == "layer" and not method.times_activation:
        raise ValueError(
            'times_activation=False has no effect with path="layer", whose factor is the change of '
            'the activation; leave it out, or set path="image"'
        )
    return _walk_path(method, image, rows)


def _set_rules(method: Any, net: nn.Module) -> None:  # noqa: ANN401
    from captum.attr._core.lrp import SUPPORTED_LAYERS_WITH_RULES
    from captum.attr._utils import lrp_rules

    least = _find_least(net)
    makers = {
        "epsilon": lambda: lrp_rules.EpsilonRule(),
        "gamma": lambda: lrp_rules.GammaRule(method.gamma),
        "alpha1_beta0": lrp_rules.Alpha1_Beta0_Rule,
    }
    for module in net.modules():
        if type(module) in SUPPORTED_LAYERS_WITH_RULES:
            weighted = type(module) in (nn.Conv2d, nn.Linear)
            module.rule = rule = makers[method.rule if weighted else "epsilon"]()
            rule.STABILITY_FACTOR = max(least, method.epsilon if weighted else 0)
            # Captum changes weights within the pass: sums of weights are none of features.
            rule._manipulate_weights = make_unrouted(rule._manipulate_weights)


GRADIENTS: tuple[Row, ...] = (
    Row(
        "GradientShap",
        MethodSpec(
            name="gradient_shap",
            title="Gradient SHAP",
            paper="Lundberg and Lee, 2017, arXiv:1705.07874",
            family="gradient",
            cost="1 forward + n_samples × (forward + backward)",
            stochastic=True,
        ),
        "Gradient SHAP: expected gradients between the image and baselines that are drawn.\n\n"
        "M = E[(x − x') ⊙ ∂y/∂x (x' + a (x − x'))] over baselines x' and a uniform in [0, 1], "
        "summed over channels (Lundberg and Lee, 2017, arXiv:1705.07874; Erion et al., 2021, "
        "arXiv:1906.10670). Computed by captum's `GradientShap`, in one pass for all samples.",
        (
            N_SAMPLES.replace(20),
            BASELINES,
            Setting("noise", NonNegative, 0.0, "σ of the noise that is added to the image."),
            SEED,
            OUTPUT,
            AT,
            REDUCE,
        ),
        CaptumCall("GradientShap", _spread_samples, differentiates=True),
    ),
    Row(
        "DeepLift",
        MethodSpec(
            name="deeplift",
            title="DeepLIFT",
            paper="Shrikumar et al., 2017, arXiv:1704.02685",
            family="gradient",
            cost="2 forwards + 2 × (forward + backward)",
            alters_model=True,
        ),
        "DeepLIFT: gradients in which each activation has its slope from the baseline's to its "
        "own.\n\n"
        "M = (x − x') ⊙ m, m being propagated like a gradient, with Δout / Δin in place of the "
        "derivative of each activation and max-pooling (the Rescale rule; Shrikumar et al., 2017, "
        "arXiv:1704.02685). The map adds up to y(x) − y(x') if all else in the net is linear; "
        "where it does not, as with products of features, a warning says so. Computed by captum's "
        "`DeepLift`, on a copy of the net in which each call of an activation is a module of its "
        "own: one that is a function, works in place or is called several times is propagated, "
        "too.",
        (BASELINE.replace("zero"), AT, REDUCE),
        CaptumCall(
            "DeepLift",
            _compare,
            tune=_set_least,
            differentiates=True,
            unrolls={**ACTIVATIONS, **MAX_POOLS},
            adds_up=True,
        ),
    ),
    Row(
        "DeepLiftShap",
        MethodSpec(
            name="deeplift_shap",
            title="DeepLIFT SHAP",
            paper="Lundberg and Lee, 2017, arXiv:1705.07874",
            family="gradient",
            cost="2 forwards + 2 × baselines × (forward + backward)",
            alters_model=True,
        ),
        "DeepLIFT SHAP: the mean of DeepLIFT over several baselines.\n\n"
        "See `deeplift`; the mean over a distribution of baselines approximates SHAP values "
        "(Lundberg and Lee, 2017, arXiv:1705.07874). The mean of captum's "
        "`DeepLift` over them, one by one, as its `DeepLiftShap` takes it in one pass for all.",
        (BASELINES, AT, REDUCE),
        CaptumCall(
            "DeepLift",
            _compare_with_several,
            tune=_set_least,
            differentiates=True,
            unrolls={**ACTIVATIONS, **MAX_POOLS},
            adds_up=True,
        ),
    ),
    Row(
        "LRP",
        MethodSpec(
            name="lrp",
            title="LRP",
            paper="Bach et al., 2015, doi:10.1371/journal.pone.0130140",
            family="gradient",
            cost="3 forwards + forward + backward",
            alters_model=True,
        ),
        "LRP: the score, handed back layer by layer in proportion to what each input added.\n\n"
        "R_i = Σ_j a_i w_ij / (z_j + ε sign z_j) R_j by the ε-rule (Bach et al., 2015, "
        "doi:10.1371/journal.pone.0130140), summed over channels; activations hand on what they "
        "get. Computed by captum's `LRP`, on a copy of the net in which activations, pooling and "
        "sums of features are modules, also where the net calls functions. Layers without a rule "
        "in captum, such as layer norms, are refused.",
        (
            Setting(
                "rule",
                Literal["epsilon", "gamma", "alpha1_beta0"],
                "epsilon",
                "Of convolutions and linear layers; all others have the ε-rule.",
            ),
            Setting("epsilon", Positive, 1e-9, "ε of the ε-rule."),
            Setting("gamma", Positive, 0.25, "How much more the γ-rule favors positive weights."),
            AT,
            REDUCE,
        ),
        CaptumCall(
            "LRP",
            lambda method, image, rows: {},
            differentiates=True,
            unrolls={**ACTIVATIONS, **MAX_POOLS, **MEANS, **SUMS},
            prepare=_set_rules,
        ),
    ),
    Row(
        "InternalInfluence",
        MethodSpec(
            name="internal_influence",
            title="Internal Influence",
            paper="Leino et al., 2018, arXiv:1802.03788",
            family="cam",
            cost="1 forward + n_steps × (forward + backward)",
        ),
        "Internal Influence: a layer's mean gradient on the path from a baseline to the image.\n\n"
        "M = Σ_k A_k ∫₀¹ ∂y/∂A_k (x' + a (x − x')) da (Leino et al., 2018, arXiv:1802.03788). The "
        "paper's influence has no factor A_k; right before global average pooling it is the same "
        "everywhere. Computed by captum's `InternalInfluence`.",
        (
            LAYER,
            N_STEPS,
            BASELINE.replace("zero"),
            Setting(
                "times_activation",
                bool,
                True,
                "Whether to take the factor A_k, which neither the paper nor captum's "
                "`InternalInfluence` has; False only with the path between images.",
            ),
            Setting(
                "path",
                Literal["image", "layer"],
                "image",
                'Where the path lies: `"image"`, between the images, or `"layer"`, between what '
                "the layer gives for them, times their difference: captum's "
                "`LayerIntegratedGradients`, whose map adds up to y(x) − y(x').",
            ),
            OUTPUT,
        ),
        CaptumCall(
            lambda method: (
                "InternalInfluence" if method.path == "image" else "LayerIntegratedGradients"
            ),
            _walk_layer,
            gives="layer",
            differentiates=True,
        ),
    ),
    Row(
        "LayerConductance",
        MethodSpec(
            name="layer_conductance",
            title="Layer Conductance",
            paper="Dhamdhere et al., 2018, arXiv:1805.12233",
            family="cam",
            cost="1 forward + (n_steps + 1) × forward + n_steps × backward",
        ),
        "Layer Conductance: what of Integrated Gradients flows through a layer's positions.\n\n"
        "M = Σ_k ∫₀¹ ∂y/∂A_k · dA_k/da da along the path from a baseline to the image (Dhamdhere "
        "et al., 2018, arXiv:1805.12233); it adds up to y(x) − y(x'). Computed by captum's "
        "`LayerConductance`.",
        (LAYER, N_STEPS, BASELINE.replace("zero"), OUTPUT),
        CaptumCall("LayerConductance", _walk_path, gives="layer", differentiates=True),
    ),
)
