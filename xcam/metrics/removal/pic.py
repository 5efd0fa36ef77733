"""Performance information curves: what the model makes of an image that is shown bit by bit."""

from __future__ import annotations

import io
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from xcam.core import Count, Explanation, Metric, MetricSpec, Share, Target
from xcam.engine import forward, untouched
from xcam.engine.chunks import collect
from xcam.engine.shared import shareable
from xcam.forks import importing
from xcam.imaging import hash_images
from xcam.metrics.inputs import read_maps, read_target
from xcam.metrics.precision import to_finest, to_result
from xcam.metrics.reading import check_changed, make_score_and_hit_reader
from xcam.metrics.removal.imputation import impute
from xcam.metrics.removal.pixels import (
    Fractions,
    check_ascending,
    compute_area,
    count_at_fractions,
    rank_values,
)

__all__ = ["AIC", "SIC", "draw_pixels"]

_FRACTIONS = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.13, 0.21, 0.34, 0.5, 0.75)
_PAPER = "Kapishnikov et al., 2019, arXiv:1906.02825"
_NOISE = {"random above inverse": "scattered pixels take more bytes than a region of as many does"}
_ON_THE_HOST = {"stays_on_device": "images are compressed by Pillow, on the host"}


@dataclass(frozen=True, eq=False, repr=False)
class _InformationCurve(Metric):
    """The area under the model's output over the information in the image."""

    fractions: Fractions = _FRACTIONS
    visible: Share = 0.01
    least: Share = 0.0
    monotonic: bool = True
    points: Count = 100
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse fractions that do not ascend."""
        super().__post_init__()
        check_ascending(self.fractions)

    def score(
        self,
        model: nn.Module,
        images: Tensor,
        explanation: Explanation,
        truth: Tensor | None = None,
    ) -> Tensor:
        """Return (B, points + 2), the curve and 1, or zeros where none is; see `Metric.score`."""
        maps = read_maps(explanation, images, order=True)
        target = read_target(explanation, images)
        found = _measure_information(
            model, images, maps, target, self.fractions, self.visible, self.seed
        )
        outputs, sizes = self._choose(found), found[..., 2]
        has_curve = (outputs[:, -1] > outputs[:, 0]) & (sizes[:, -1] > sizes[:, 0])
        has_curve &= outputs[:, -1] >= self.least
        y = _relate_to_ends(outputs)
        if self.monotonic:
            y = y.cummax(1).values
        x, order = _relate_to_ends(sizes).sort(dim=1, stable=True)
        curves = _interpolate(x, y.gather(1, order), self.points)
        rows = torch.cat([curves, torch.ones_like(curves[:, :1])], 1) * has_curve[:, None]
        return to_result(rows, images)

    def finish(self, mean: Tensor) -> Tensor:
        """Return the area under the mean curve of the images that have one; NaN if none has."""
        return compute_area(self.curve(mean)[1]).where(mean[..., -1] > 0, torch.nan)

    def curve(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output over the information, as shares of the image's own."""
        count = mean[..., -1:]
        abscissae = torch.linspace(0, 1, self.points + 1, device=mean.device)
        return abscissae, mean[..., :-1] / count.where(count > 0, 1)

    @property
    def curve_axes(self) -> tuple[str, str]:
        """Return what the axes of the curve are."""
        return "share of the image's information", self.spec.title

    @abstractmethod
    def _choose(self, found: Tensor) -> Tensor:
        """Return the output (B, P) that is followed, of probabilities, hits and sizes (B, P, 3)."""


@dataclass(frozen=True, eq=False, repr=False)
class SIC(_InformationCurve):
    """Softmax information curve: the probability over the information in the image shown.

    The image is blurred but for its highest pixels. x = (size − size of the blurred image) /
    (size of the image − size of the blurred image), size in bytes of lossless WebP; y likewise, of
    the explained class's probability; AUC of y over x (Kapishnikov et al., 2019, arXiv:1906.02825).
    An image has no curve, and does not count, if blurring makes it no smaller or the class no less
    probable; with none that has, the result is NaN. The blurred image is interpolated between the
    pixels shown and a random share of pixels, here by weighted means of neighbors, in the authors'
    code by Delaunay triangles, whose corners of the image are shown, too. That code skips images
    below a probability of 0.8, `least=0.8`; the paper joins the curves by their median, here it is
    the mean. In [0, 1], higher is better.

    Attributes:
        fractions: Shares of the pixels that are shown, from pass to pass, the highest first.
        visible: Share of the pixels that are shown at random from the start.
        least: Images whose output is lower than this do not count.
        monotonic: Whether y never falls, as published, but stays at its highest so far.
        points: Steps of the curve, on which x is equally divided.
        seed: Of the random pixels, which are drawn for each image.
    """

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="sic",
        title="Softmax information curve",
        aliases=("softmax_information_curve",),
        paper=_PAPER,
        formula="AUC of the normalized probability over the normalized size of the image",
        higher_is_better=True,
        bounds=(0.0, 1.0),
        cost="len(fractions) + 2",
        known_failures=_NOISE,
        exceptions=_ON_THE_HOST,
    )

    def _choose(self, found: Tensor) -> Tensor:
        return found[..., 0]


@dataclass(frozen=True, eq=False, repr=False)
class AIC(_InformationCurve):
    """Accuracy information curve: accuracy over the information in the image shown.

    As `SIC`, with y = 1 where the explained class is predicted and 0 where it is not (Kapishnikov
    et al., 2019, arXiv:1906.02825). An image has a curve, and counts, if the class is predicted for
    it, and is not once it is blurred. In [0, 1], higher is better.

    Attributes:
        fractions: Shares of the pixels that are shown, from pass to pass, the highest first.
        visible: Share of the pixels that are shown at random from the start.
        least: Images whose output is lower than this do not count.
        monotonic: Whether y never falls, as published, but stays at its highest so far.
        points: Steps of the curve, on which x is equally divided.
        seed: Of the random pixels, which are drawn for each image.
    """

    spec: ClassVar[MetricSpec] = MetricSpec(
        name="aic",
        title="Accuracy information curve",
        aliases=("accuracy_information_curve",),
        paper=_PAPER,
        formula="AUC of accuracy over the normalized size of the image",
        higher_is_better=True,
        bounds=(0.0, 1.0),
        cost="len(fractions) + 2",
        known_failures=_NOISE,
        exceptions=_ON_THE_HOST,
    )

    def _choose(self, found: Tensor) -> Tensor:
        return found[..., 1]


@shareable
def _measure_information(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    target: Target,
    fractions: tuple[float, ...],
    visible: float,
    seed: int,
) -> Tensor:
    """Return the probability, whether it is a hit, and the bytes of each image shown: (B, P, 3).

    The first of the P points is the blurred image, the last one the image.
    """
    pixels = maps[0].numel()
    points = len(fractions) + 2
    counts = count_at_fractions([0, *fractions, 1], pixels).to(images.device)
    ranks = rank_values(maps)
    first = torch.stack([draw_pixels(s, pixels, visible) for s in hash_images(images, seed)])
    hidden = ~first.view(maps.shape).to(images.device)
    read = make_score_and_hit_reader(target)
    low = images.amin((1, 2, 3), keepdim=True).clamp(max=0)
    high = images.amax((1, 2, 3), keepdim=True).clamp(min=1)

    def step(part: slice) -> Tensor:
        pairs = torch.arange(part.start, part.stop, device=images.device)
        rows = pairs // points
        removed = hidden[rows] & (ranks[rows] >= counts[pairs % points, None, None])
        shown = impute(images[rows], removed)
        sizes = _compress((shown - low[rows]) / (high - low)[rows])
        values = to_finest(read(forward.call(model, shown), rows))
        return torch.cat([values, values.new_tensor(sizes)[:, None]], 1)

    with untouched(model), torch.no_grad():
        found = collect(len(images) * points, step, images, "information curve")
    return check_changed(found.view(len(images), points, 3))


def draw_pixels(state: int, pixels: int, share: float) -> Tensor:
    """Draw a share of an image's pixels: (pixels,) bool."""
    generator = torch.Generator().manual_seed(state)
    return torch.randperm(pixels, generator=generator) < int(share * pixels + 1e-6)


def _compress(images: Tensor) -> list[int]:
    """Return the bytes of images (R, C, H, W) in [0, 1] as lossless WebP.

    Of one or three channels; any other channels are compressed one by one.
    """
    with importing():
        from PIL import Image

    pictures = (images * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    found = []
    for picture in pictures:
        planes = [picture] if picture.shape[2] == 3 else list(picture.transpose(2, 0, 1))
        total = 0
        for plane in planes:
            buffer = io.BytesIO()
            Image.fromarray(plane).save(buffer, format="webp", lossless=True, quality=100)
            total += buffer.tell()
        found.append(total)
    return found


def _relate_to_ends(values: Tensor) -> Tensor:
    """Return values (B, P) as shares of the way from the first to the last, in [0, 1]."""
    first, last = values[:, :1], values[:, -1:]
    way = last - first
    shares = ((values - first) / way.where(way != 0, 1)).clamp(0, 1)
    shares[:, 0], shares[:, -1] = 0, 1  # also where there is no way between them
    return shares


def _interpolate(x: Tensor, y: Tensor, points: int) -> Tensor:
    """Return curves (B, P) over ascending x (B, P), 0 to 1, at points + 1 equal distances."""
    wanted = torch.linspace(0, 1, points + 1, device=x.device, dtype=x.dtype)
    wanted = wanted.expand(len(x), -1).contiguous()
    after = torch.searchsorted(x, wanted, right=True).clamp(1, x.shape[1] - 1)
    x0, x1 = x.gather(1, after - 1), x.gather(1, after)
    share = (wanted - x0) / (x1 - x0).where(x1 > x0, 1)
    return torch.lerp(y.gather(1, after - 1), y.gather(1, after), share.where(x1 > x0, 1))
