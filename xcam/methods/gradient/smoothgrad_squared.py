"""SmoothGrad-Squared."""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import Annotated, ClassVar

from torch import Tensor, nn

from xcam.core import Count, Method, MethodSpec, NonNegative, Output, Range, Reduce, Target
from xcam.methods.gradient.input_gradients import (
    CALM_NOISE,
    average_noisy_gradients,
    make_reduction,
)

__all__ = ["SmoothGradSquared"]


@dataclass(frozen=True)
class SmoothGradSquared(Method):
    """SmoothGrad-Squared: the mean squared gradient over noisy copies of the image.

    M = 1/n Σ_k (∂y/∂x (x + ε_k))², ε_k ~ N(0, (noise · (max x − min x))²), summed over channels
    (Hooker et al., 2019, arXiv:1806.10758). White Box squares maps stretched to [0, 1] instead,
    so that a gradient of zero counts as a quarter or so; not reproduced.

    Attributes:
        n_samples: Noisy copies; memory does not grow with them.
        noise: σ as a fraction of each image's range.
        seed: Of the noise, which is the same for every image.
        output: What of the output is y.
        reduce: How the channels become one.
        reduce_each: Whether the channels of each gradient become one, before all else, instead of
            those of the result.
        preset: `"calm"` sets what CALM's published code has: n_samples=50, noise=0.25,
            reduce="abs_max", reduce_each=True and output="logit".
    """

    n_samples: Count = 25
    noise: NonNegative = 0.15
    seed: Annotated[int, Range(least=0)] = 0
    output: Output = "logit"
    reduce: Reduce = "sum"
    reduce_each: bool = False
    preset: InitVar[str | None] = None

    presets: ClassVar = {"calm": CALM_NOISE}
    spec: ClassVar[MethodSpec] = MethodSpec(
        name="smoothgrad_squared",
        title="SmoothGrad-Squared",
        aliases=("smoothgrad_sq",),
        paper="Hooker et al., 2019, arXiv:1806.10758",
        family="gradient",
        cost="1 forward + n_samples × (forward + backward)",
        stochastic=True,
        signed=False,
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return raw maps, (B, C, H, W), or reduced, nowhere negative; see `Method.maps`."""
        settings = self.output, self.n_samples, self.noise, self.seed
        reduction = make_reduction(self.reduce, self.reduce_each)
        return average_noisy_gradients(
            model, images, target, *settings, lambda gradient: reduction(gradient).square()
        )
