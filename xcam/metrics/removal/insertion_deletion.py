"""Insertion and deletion: the score's curve as the map's highest pixels come or go."""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xcam.core import Count, Explanation, Metric, MetricSpec, Output, Positive
from xcam.imaging import Fill
from xcam.metrics.removal.pixels import Step, Ties, compute_area, score_curves
from xcam.models.normalized import Space

__all__ = ["Deletion", "Insertion", "Kernel", "blur_images"]

Kernel = Literal["rise", "gaussian"]

# At 224×224, where both were published, 224 and 1792 pixels.
_STEPS: dict[str, float] = {"rise": 1 / 224, "castream": 1 / 28}
_DELETION = {name: {"step": step} for name, step in _STEPS.items()}
_INSERTION = {
    name: {"step": step, "kernel": "rise", "size": size, "sigma": 5.0}
    for (name, step), size in zip(_STEPS.items(), (11, 5), strict=True)
}


@dataclass(frozen=True, eq=False, repr=False)
class Deletion(Metric):
    """Deletion: the area under the score's curve while the map's highest pixels vanish first.

    AUC = (Σ_k s_k − s_0/2 − s_n/2)/n, s_k = f(x without its k·step highest pixels) (Petsiuk et
    al., 2018, arXiv:1806.07421). All channels of a pixel vanish together. The default is what the
    authors ran over ImageNet, 28 steps; `preset="rise"` makes the 224 steps of their single images,
    `preset="castream"` the 28 of CA-Stream. Their code takes equal values about from the last to
    the first, `ties="reverse"`. They explain the predicted class, and the label: here it is the
    explanation's. Lower is better; in [0, 1] for a probability.

    Attributes:
        step: Pixels from pass to pass; a float is their share of the image, which makes
            ceil(1/step) + 1 passes at any size.
        output: What of the output is f.
        space: Where pixels are replaced; the authors replace normalized ones.
        fill: What replaces them; zero of a normalized image is the data set's mean color.
        ties: How equal values are ordered: in `"scan"` order, in `"reverse"`, or in a `"random"`
            order an image.
        seed: Of that random order.
        preset: `"rise"` sets step=1/224, which is 224 pixels at 224×224, and `"castream"` sets
            step=1/28, which is 1792.
    """

    step: Step = 1 / 28
    output: Output = "prob"
    space: Space = "normalized"
    fill: Fill = "zero"
    ties: Ties = "scan"
    seed: int = 0
    preset: InitVar[str | None] = None

    presets: ClassVar = _DELETION
    spec: ClassVar[MetricSpec] = MetricSpec(
        name="deletion",
        title="Deletion",
        paper="Petsiuk et al., 2018, arXiv:1806.07421",
        formula="AUC of f(x without its k·step highest pixels)",
        higher_is_better=False,
        bounds=(0.0, 1.0),
        cost="1/step + 1",
    )

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return the curves (B, P), from the clean image to the fill; see `Metric.score`."""
        return score_curves(
            model,
            images,
            explanation,
            self.step,
            self.output,
            self.space,
            self.fill,
            label="deletion",
            ties=self.ties,
            seed=self.seed,
        )

    def finish(self, mean: Tensor) -> Tensor:
        """Return the area under the mean curve, which is the mean of the areas."""
        return compute_area(mean)

    def curve(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Return the score over the share of pixels that are removed."""
        return torch.linspace(0, 1, mean.shape[-1], device=mean.device), mean


@dataclass(frozen=True, eq=False, repr=False)
class Insertion(Metric):
    """Insertion: the area under the score's curve while a blurred image gets its pixels back.

    AUC = (Σ_k s_k − s_0/2 − s_n/2)/n, s_k = f(blurred x with its k·step highest pixels sharp)
    (Petsiuk et al., 2018, arXiv:1806.07421). As `Deletion` otherwise. `kernel="rise"` is the
    authors' kernel: a Gaussian whose tails are folded back at the border, nearly a box;
    `"gaussian"` is the one they name, cut off at the border. Both pad the image with zeros.
    Higher is better; in [0, 1] for a probability.

    Attributes:
        step: Pixels from pass to pass; a float is their share of the image, which makes
            ceil(1/step) + 1 passes at any size.
        kernel: Of the blur.
        size: Pixels a side of the kernel, odd.
        sigma: Of the kernel, in pixels.
        output: What of the output is f.
        space: Where the image is blurred; the authors blur the normalized one.
        fill: What is seen at the start in place of the blurred image, if not None.
        ties: How equal values are ordered: in `"scan"` order, in `"reverse"`, or in a `"random"`
            order an image.
        seed: Of that random order.
        preset: `"rise"` sets step=1/224, which is 224 pixels at 224×224, and an 11×11 kernel;
            `"castream"` sets step=1/28, which is 1792, and a 5×5 kernel.
    """

    step: Step = 1 / 28
    kernel: Kernel = "rise"
    size: Count = 11
    sigma: Positive = 5.0
    output: Output = "prob"
    space: Space = "normalized"
    fill: Fill | None = None
    ties: Ties = "scan"
    seed: int = 0
    preset: InitVar[str | None] = None

    presets: ClassVar = _INSERTION
    spec: ClassVar[MetricSpec] = MetricSpec(
        name="insertion",
        title="Insertion",
        paper="Petsiuk et al., 2018, arXiv:1806.07421",
        formula="AUC of f(blurred x with its k·step highest pixels)",
        higher_is_better=True,
        bounds=(0.0, 1.0),
        cost="1/step + 1",
    )

    def __post_init__(self, preset: str | None) -> None:
        """Refuse a kernel without a middle."""
        super().__post_init__(preset)
        if self.size % 2 == 0:
            raise ValueError(f"size must be an odd number of pixels, got {self.size!r}")

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return the curves (B, P), from the blurred image to the clean one; see `Metric.score`."""
        return score_curves(
            model,
            images,
            explanation,
            self.step,
            self.output,
            self.space,
            self._blur if self.fill is None else self.fill,
            insert=True,
            label="insertion",
            ties=self.ties,
            seed=self.seed,
        )

    def _blur(self, images: Tensor) -> Tensor:
        return blur_images(images, self.kernel, self.size, self.sigma)

    def finish(self, mean: Tensor) -> Tensor:
        """Return the area under the mean curve, which is the mean of the areas."""
        return compute_area(mean)

    def curve(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Return the score over the share of pixels that are inserted."""
        return torch.linspace(0, 1, mean.shape[-1], device=mean.device), mean

    @property
    def curve_axes(self) -> tuple[str, str]:
        """Return what the axes of the curve are."""
        return "share of pixels inserted", super().curve_axes[1]


def blur_images(images: Tensor, kernel: Kernel, size: int, sigma: float) -> Tensor:
    """Blur images (B, C, H, W) by a `size` × `size` kernel, padded with zeros."""
    line = make_kernel_line(kernel, size, sigma).to(images)
    channels = images.shape[1]
    row = line.expand(channels, 1, 1, size)
    images = F.conv2d(images, row, padding=(0, size // 2), groups=channels)
    return F.conv2d(images, row.mT, padding=(size // 2, 0), groups=channels)


def make_kernel_line(kernel: Kernel, size: int, sigma: float) -> Tensor:
    """Return the (size,) float64 vector, of sum 1, whose outer product with itself is the kernel.

    The authors filter a single 1 in the middle of `size` zeros by SciPy's Gaussian, which is cut
    off at 4σ and sees the vector mirrored at its ends: `"rise"` adds up what falls on each place.
    """
    radius = size // 2 if kernel == "gaussian" else int(4 * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    weights = (-0.5 * (offsets.double() / sigma) ** 2).exp()
    weights /= weights.sum()
    if kernel == "gaussian":
        return weights
    places = (offsets + size // 2) % (2 * size)
    mirrored = torch.minimum(places, 2 * size - 1 - places)
    return weights.new_zeros(size).index_add_(0, mirrored, weights)
