"""Integrated Gradients."""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from xcam import imaging
from xcam.core import Count, Method, MethodSpec, Output, Reduce, Target
from xcam.engine.clean import bind_clean_pass
from xcam.imaging import Fill
from xcam.methods.gradient.input_gradients import iterate_copy_gradients, make_reduction
from xcam.methods.postprocessing import WHITE_BOX_PIXELS, stretch_elements
from xcam.models.normalized import Space, enter_space

__all__ = ["IntegratedGradients", "Rule"]

Rule = Literal["gausslegendre", "trapezoid", "left", "middle", "right", "whitebox"]


@dataclass(frozen=True, eq=False, repr=False)
class IntegratedGradients(Method):
    """Integrated Gradients: the mean gradient on the path from a baseline x' to the image.

    M = (x − x') ⊙ ∫₀¹ ∂y/∂x (x' + a(x − x')) da (Sundararajan et al., 2017, arXiv:1703.01365),
    summed over channels, so that the map adds up to y(x) − y(x'). The integral is Σ_j w_j g(a_j).
    The paper takes `rule="right"`; the default is far closer at the same cost. captum's trapezoid
    has weights that add up to (n − 1)/n, ours to 1; the other rules agree. White Box takes 11
    points, j/10 with weight 1/10, no factor, and stretches the sum: `preset="whitebox"`.

    Attributes:
        n_steps: Points on the path; memory does not grow with them.
        baseline: x': `"zero"`, `"mean"` or `"blur"` of the image, or a tensor that broadcasts to
            the images.
        rule: How the integral is taken: `"gausslegendre"`; `"left"`, `"middle"` or `"right"`
            Riemann sums of n intervals; `"trapezoid"` of n points, both ends included;
            `"whitebox"`, the trapezoid's points with a full weight at both ends.
        multiply_by_inputs: Whether to take the factor x − x'; without, the mean gradient.
        output: What of the output is y.
        reduce: How the channels become one.
        reduce_each: Whether the channels of each gradient become one, before all else, instead of
            those of the result; without the factor x − x'.
        stretched: Whether to scale each map into [0, 1] over all channels and positions, as White
            Box does: a gradient of zero becomes gray.
        space: Where the path lies and gradients are taken: among images as they are given, whose
            zero is black, or as the model normalized them, whose zero is the data set's mean color.
        preset: `"whitebox"` sets rule="whitebox", n_steps=11, multiply_by_inputs=False,
            output="prob", reduce="sum" and stretched=True. `"calm"` sets what CALM's published code
            has: rule="whitebox", n_steps=51, multiply_by_inputs=False, reduce="abs_max",
            reduce_each=True, output="logit" and space="normalized".
    """

    n_steps: Count = 50
    baseline: Fill = "zero"
    rule: Rule = "gausslegendre"
    multiply_by_inputs: bool = True
    output: Output = "logit"
    reduce: Reduce = "sum"
    reduce_each: bool = False
    stretched: bool = False
    space: Space = "input"
    preset: InitVar[str | None] = None

    presets: ClassVar = {
        "whitebox": {
            "rule": "whitebox",
            "n_steps": 11,
            "multiply_by_inputs": False,
            **WHITE_BOX_PIXELS,
        },
        "calm": {
            "rule": "whitebox",
            "n_steps": 51,
            "multiply_by_inputs": False,
            "reduce": "abs_max",
            "reduce_each": True,
            "output": "logit",
            "space": "normalized",
        },
    }
    spec: ClassVar[MethodSpec] = MethodSpec(
        name="integrated_gradients",
        title="Integrated Gradients",
        aliases=("ig",),
        paper="Sundararajan et al., 2017, arXiv:1703.01365",
        family="gradient",
        cost="1 forward + n_steps × (forward + backward)",
    )

    def __post_init__(self, preset: str | None) -> None:
        """Refuse a single point for a rule that takes both ends of the path."""
        super().__post_init__(preset)
        if self.rule in ("trapezoid", "whitebox") and self.n_steps < 2:
            raise ValueError(
                f"n_steps must be at least 2 for the {self.rule} rule, got {self.n_steps}"
            )
        if self.reduce_each and self.multiply_by_inputs:
            raise ValueError(
                "reduce_each=True leaves no channels for the factor x − x'; give "
                "multiply_by_inputs=False, too"
            )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return raw maps, (B, C, H, W), or reduced; see `Method.maps`."""
        bind_clean_pass(model, images, target)
        model, images = enter_space(model, images.detach(), self.space)
        baseline = imaging.make_fill(images, self.baseline)
        difference = images - baseline
        points, weights = (torch.tensor(v).to(images) for v in _quadrature(self.rule, self.n_steps))

        def between(rows: Tensor, steps: list[int]) -> Tensor:
            return baseline[rows] + points[steps, None, None, None] * difference[rows]

        reduction = make_reduction(self.reduce, self.reduce_each)
        exact = torch.promote_types(images.dtype, torch.float32)
        total = torch.zeros_like(reduction(images), dtype=exact)
        for steps, rows, gradient in iterate_copy_gradients(
            model, images, target, self.output, self.n_steps, between
        ):
            reduced = reduction(gradient)
            factors = weights[steps].view(-1, *[1] * (reduced.ndim - 1))
            total.index_add_(0, rows, reduced * factors)
        maps = total * difference if self.multiply_by_inputs else total
        return stretch_elements(maps) if self.stretched else maps


def _quadrature(rule: Rule, n: int) -> tuple[list[float], list[float]]:
    """Return points in [0, 1] and their weights."""
    if rule == "gausslegendre":
        nodes, weights = np.polynomial.legendre.leggauss(n)
        return list((nodes + 1) / 2), list(weights / 2)
    if rule in ("trapezoid", "whitebox"):
        end = 0.5 if rule == "trapezoid" else 1.0
        inner = [1.0] * (n - 2)
        return [j / (n - 1) for j in range(n)], [w / (n - 1) for w in (end, *inner, end)]
    shift = {"left": 0.0, "middle": 0.5, "right": 1.0}[rule]
    return [(j + shift) / n for j in range(n)], [1 / n] * n
