"""The perturbations of captum: one row a method."""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from xcam.core import Count, MethodSpec, Positive, Range, Share
from xcam.imaging import make_fill
from xcam.methods.bridges.captum_calls import CaptumCall
from xcam.methods.bridges.linear import LinearModel
from xcam.methods.bridges.rows import Row, Setting
from xcam.methods.bridges.settings import (
    BASELINE,
    N_SAMPLES,
    OUTPUT,
    SEED,
    SEGMENTS,
    make_segments,
)

__all__ = ["PERTURBATIONS"]

_MOST_ORDERED = 8  # regions: 9 have 362,880 orders, each of 9 passes
_Portion = Annotated[float, Range(above=0, most=1)]
_ORDERS = Setting(
    "n_samples",
    Count | None,
    25,
    f"How many orders are drawn; None for all, of {_MOST_ORDERED} regions at most, since their "
    "number is the factorial of that of the regions: captum's `ShapleyValues`, exact.",
)


def _occlude(method: Any, image: Tensor, rows: int) -> dict[str, Any]:  # noqa: ANN401
    channels, *size = image.shape[1:]
    sides = [max(1, round(method.window * length)) for length in size]
    steps = [max(1, round(method.stride * side)) for side in sides]
    return {
        "sliding_window_shapes": (channels, *sides),
        "strides": (channels, *steps),
        "baselines": make_fill(image, method.baseline),
        "perturbations_per_eval": rows,
    }


def _remove_segments(method: Any, image: Tensor, rows: int) -> dict[str, Any]:  # noqa: ANN401
    return {
        "feature_mask": make_segments(method, image),
        "baselines": make_fill(image, method.baseline),
        "perturbations_per_eval": rows,
    }


def _permute_segments(method: Any, image: Tensor, rows: int) -> dict[str, Any]:  # noqa: ANN401
    # Captum gives each image the region of another one of its batch, of two that of the other.
    order = torch.randperm(image[0, 0].numel()).to(image.device)
    drawn = image.flatten(2)[:, :, order].view_as(image)
    return {
        "inputs": torch.cat([image, drawn]),
        "feature_mask": make_segments(method, image),
        "perturbations_per_eval": rows,
    }


def _sample_segments(method: Any, image: Tensor, rows: int) -> dict[str, Any]:  # noqa: ANN401
    return {**_remove_segments(method, image, rows), "n_samples": method.n_samples}


def _sample_sizes(method: Any, image: Tensor, rows: int) -> dict[str, Any]:  # noqa: ANN401
    arguments = _sample_segments(method, image, rows)
    if _count_regions(arguments) < 2:
        raise ValueError(
            f"kernel_shap draws sets of regions, and n_segments={method.n_segments} divides the "
            "image into 1 region; set n_segments=4 or more"
        )
    return arguments


def _order_segments(method: Any, image: Tensor, rows: int) -> dict[str, Any]:  # noqa: ANN401
    some = _remove_segments(method, image, rows)
    if method.n_samples is not None:
        return {**some, "n_samples": method.n_samples}
    count = _count_regions(some)
    if count > _MOST_ORDERED:
        raise ValueError(
            f"n_samples=None takes all orders of the regions, and {count} regions have "
            f"{math.factorial(count):.2g}; set n_samples=25, or n_segments=4"
        )
    return some


def _count_regions(arguments: dict[str, Any]) -> int:
    return int(arguments["feature_mask"].max()) + 1


def _fit_on_device(explainer: Any, method: object, net: nn.Module) -> None:  # noqa: ANN401
    explainer.interpretable_model = LinearModel()


def _make_lime_options(method: Any) -> dict[str, Any]:  # noqa: ANN401
    from captum.attr._core.lime import get_exp_kernel_similarity_function

    return {
        "interpretable_model": LinearModel(method.alpha),
        "similarity_func": get_exp_kernel_similarity_function("cosine", method.kernel_width),
    }


PERTURBATIONS: tuple[Row, ...] = (
    Row(
        "Occlusion",
        MethodSpec(
            name="occlusion",
            title="Occlusion",
            paper="Zeiler and Fergus, 2013, arXiv:1311.2901",
            family="perturbation",
            cost="2 + windows forwards",
        ),
        "Occlusion: how far the score falls, on average, when a window hides the pixel.\n\n"
        "M_ij = mean over the windows w that cover (i, j) of y(x) − y(x with w hidden) (Zeiler and "
        "Fergus, 2013, arXiv:1311.2901). Computed by captum's `Occlusion`.",
        (
            Setting(
                "window", _Portion, 0.2, "The window's height and width, as a share of the image's."
            ),
            Setting("stride", _Portion, 0.5, "How far the window moves, as a share of its size."),
            BASELINE,
            OUTPUT,
        ),
        CaptumCall("Occlusion", _occlude, gives="pixel"),
    ),
    Row(
        "FeatureAblation",
        MethodSpec(
            name="feature_ablation",
            title="Feature Ablation",
            paper="Kokhlikyan et al., 2020, arXiv:2009.07896",
            family="perturbation",
            cost="2 + n_segments forwards",
        ),
        "Feature Ablation: how far the score falls when the region around the pixel is removed.\n\n"
        "M_ij = y(x) − y(x without the region of (i, j)). Computed by captum's `FeatureAblation` "
        "(Kokhlikyan et al., 2020, arXiv:2009.07896), whose features are here the regions of the "
        "image.",
        (*SEGMENTS, BASELINE, OUTPUT),
        CaptumCall("FeatureAblation", _remove_segments, gives="pixel"),
    ),
    Row(
        "FeaturePermutation",
        MethodSpec(
            name="feature_permutation",
            title="Feature Permutation",
            paper="Breiman, 2001, Machine Learning 45",
            family="perturbation",
            cost="3 + 2 × n_segments forwards",
            stochastic=True,
        ),
        "Feature Permutation: how far the score falls when a region gets pixels from elsewhere.\n\n"
        "M_ij = y(x) − y(x with the pixels of the region of (i, j) drawn from all over the image). "
        "Computed by captum's `FeaturePermutation`, which swaps regions between the images of a "
        "batch: so that no map depends on another image, the batch is here the image and a copy "
        "with its pixels in random order. After Breiman, 2001, Machine Learning 45.",
        (*SEGMENTS, SEED, OUTPUT),
        CaptumCall("FeaturePermutation", _permute_segments, gives="pixel"),
    ),
    Row(
        "ShapleyValueSampling",
        MethodSpec(
            name="shapley_value_sampling",
            title="Shapley Value Sampling",
            paper="Castro et al., 2009, Computers and Operations Research 36",
            family="perturbation",
            cost="2 + n_samples × n_segments forwards",
            stochastic=True,
        ),
        "Shapley Value Sampling: a region's mean effect as regions appear in random orders.\n\n"
        "M_ij = mean over orders of y(with the region of (i, j)) − y(before it), the "
        "regions before it in the order being seen (Castro et al., 2009, Computers and Operations "
        "Research 36). The values of the regions add up to y(x) − y(baseline). Computed by "
        "captum's `ShapleyValueSampling`.",
        (_ORDERS, *SEGMENTS, BASELINE, SEED, OUTPUT),
        CaptumCall(
            lambda method: "ShapleyValues" if method.n_samples is None else "ShapleyValueSampling",
            _order_segments,
            gives="pixel",
        ),
    ),
    Row(
        "KernelShap",
        MethodSpec(
            name="kernel_shap",
            title="Kernel SHAP",
            paper="Lundberg and Lee, 2017, arXiv:1705.07874",
            family="perturbation",
            cost="1 + n_samples forwards",
            stochastic=True,
        ),
        "Kernel SHAP: Shapley values of regions as the weights of a linear model of the score.\n\n"
        "Random sets of regions are seen, their sizes drawn by the Shapley kernel, and "
        "y ≈ b₀ + Σ_r b_r (r is seen) is fitted by least squares, exact for the whole image and "
        "for the baseline (Lundberg and Lee, 2017, arXiv:1705.07874); M_ij = b_r of the region of "
        "(i, j). Computed by captum's `KernelShap`.",
        (N_SAMPLES.replace(500), *SEGMENTS, BASELINE, SEED, OUTPUT),
        CaptumCall("KernelShap", _sample_sizes, gives="pixel", tune=_fit_on_device),
    ),
    Row(
        "Lime",
        MethodSpec(
            name="lime",
            title="LIME",
            paper="Ribeiro et al., 2016, arXiv:1602.04938",
            family="perturbation",
            cost="1 + n_samples forwards",
            stochastic=True,
        ),
        "LIME: the weights of a sparse linear model of the score around the image.\n\n"
        "Each region is seen with probability ½, and y ≈ b₀ + Σ_r b_r (r is seen) is fitted with "
        "the penalty alpha Σ |b_r| and weights exp(−d² / (2 kernel_width²)), d being one minus the "
        "cosine of the two images (Ribeiro et al., 2016, arXiv:1602.04938); M_ij = b_r of the "
        "region of (i, j). Computed by captum's `Lime`, whose kernel_width is 1 and alpha 0.01 in "
        "units of the score.",
        (
            N_SAMPLES.replace(1000),
            *SEGMENTS,
            Setting(
                "alpha",
                Share,
                0.02,
                "The weight of the penalty, as a share of the smallest at which all b_r are 0; 0 "
                "for no penalty.",
            ),
            Setting("kernel_width", Positive, 0.25, "How far from the image samples count."),
            BASELINE,
            SEED,
            OUTPUT,
        ),
        CaptumCall("Lime", _sample_segments, options=_make_lime_options, gives="pixel"),
    ),
)
