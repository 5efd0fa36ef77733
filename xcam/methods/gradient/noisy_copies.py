"""Statistics of maps over noisy copies of the image: of the gradient, or of any other method."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import InitVar, dataclass
from typing import Annotated, ClassVar, Literal, TypeAlias, cast

import torch
from torch import Tensor, nn

from xcam.core import Count, Method, NonNegative, Output, Range, Reduce, Target
from xcam.core.settings import OptionalPreset
from xcam.engine.clean import bind_clean_pass
from xcam.engine.shared import keep_nothing
from xcam.imaging import make_generator
from xcam.methods.gradient.input_gradients import (
    compute_input_gradients,
    iterate_copies,
    make_reduction,
)
from xcam.methods.postprocessing import stretch_elements
from xcam.methods.wrapping import Base, check_base, describe_wrapper, require_base
from xcam.models.normalized import Space, enter_space

__all__ = ["NoiseEnsemble", "Spread", "draw_noise"]

Spread: TypeAlias = Literal["range", "whitebox"]


@dataclass(frozen=True)
class NoiseEnsemble(Method):
    """A method that combines the maps of noisy copies of the image.

    The noise of the k-th copy depends on the seed and on k alone, and is the same for every image
    up to σ. `SmoothGrad` documents the fields.
    """

    n_samples: Count = 25
    noise: NonNegative = 0.15
    seed: Annotated[int, Range(least=0)] = 0
    output: Output = "logit"
    reduce: Reduce = "sum"
    reduce_each: bool = False
    base: Base | None = None
    spread: Spread = "range"
    stretched: bool = False
    space: Space = "input"
    preset: InitVar[str | None] = None

    presets: ClassVar = {
        "calm": {
            "n_samples": 50,
            "noise": 0.25,
            "reduce": "abs_max",
            "reduce_each": True,
            "output": "logit",
            "space": "normalized",
        },
        "whitebox": {
            "n_samples": 50,
            "noise": 2.0,
            "spread": "whitebox",
            "reduce": "sum",
            "stretched": True,
        },
    }

    def __post_init__(self, preset: str | None) -> None:
        """Refuse a base that cannot be one; let the spec tell what the base's tells."""
        super().__post_init__(preset)
        if preset == "whitebox" and (self.base is None or isinstance(self.base, str)):
            named = self.base or "saliency"
            object.__setattr__(self, "base", (named, OptionalPreset(preset=preset)))
        name = self.spec.name
        if self.base is not None:
            check_base(name, self.base)
        if isinstance(self.base, NoiseEnsemble):
            raise ValueError(
                f"{name}: the base is {self.base.spec.name}, which averages over noisy copies by "
                "itself; take its own base, and raise n_samples"
            )
        if self.base is not None and self.output != "logit":
            raise ValueError(
                f"{name}: output={self.output!r} is that of the plain gradient, and the base has "
                f"its own; give it there, as in base=('saliency', {{'output': {self.output!r}}})"
            )
        if self.base is not None and self.space != "input":
            if preset is None:
                raise ValueError(
                    f"{name}: space={self.space!r} is that of the plain gradient, and a base "
                    "explains the images as they are given; leave space out"
                )
            object.__setattr__(self, "space", "input")
        if isinstance(self.base, Method):
            cost = f"1 forward + n_samples × ({self.base.spec.cost})"
            spec = describe_wrapper(type(self).spec, self.base.spec, cost)
            object.__setattr__(self, "spec", spec)

    def iterate(
        self, model: nn.Module, images: Tensor, target: Target, first: int = 0
    ) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """Yield the maps of `n_samples` noisy copies of each image, a chunk at a time.

        Args:
            model: The classifier.
            images: (B, C, H, W).
            target: Bound by a clean pass if it is not yet.
            first: The number of the first copy.

        Yields:
            Copy numbers, counted from 0, image numbers (R,) int64, and maps (R, …) in at least
            float32, with their channels reduced if `reduce_each`.
        """
        if not target.bound:
            bind_clean_pass(model, images, target)
        model, images = enter_space(model, images.detach(), self.space)
        sigma = self._find_sigma(images)
        reduction = make_reduction(self.reduce, self.reduce_each)

        def change(rows: Tensor, copies: list[int]) -> Tensor:
            drawn = {k: draw_noise(images.shape[1:], self.seed, first + k) for k in set(copies)}
            noises = torch.stack([drawn[copy] for copy in copies]).to(images)
            return images[rows] + sigma[rows] * noises

        def explain(changed: Tensor, rows: Tensor) -> Tensor:
            if self.base is None:
                return compute_input_gradients(model, changed, target, self.output, rows)
            with keep_nothing():  # since nobody else explains this copy
                return require_base(self.base).maps(model, changed, target.select(rows))

        label = "gradients" if self.base is None else require_base(self.base).spec.name
        for copies, rows, maps in iterate_copies(images, self.n_samples, change, explain, label):
            yield copies, rows, reduction(maps)

    def average(
        self,
        model: nn.Module,
        images: Tensor,
        target: Target,
        transform: Callable[[Tensor], Tensor] = torch.clone,
        first: int = 0,
    ) -> Tensor:
        """Return the mean of the transformed maps of noisy copies; see `iterate`."""
        total: Tensor | None = None
        for _, rows, maps in self.iterate(model, images, target, first):
            transformed = transform(maps)
            if total is None:
                total = transformed.new_zeros(len(images), *transformed.shape[1:])
            total.index_add_(0, rows, transformed)
        return cast(Tensor, total) / self.n_samples

    def finish(self, maps: Tensor) -> Tensor:
        """Return the combined maps, stretched where that is asked for."""
        return stretch_elements(maps) if self.stretched else maps

    def _find_sigma(self, images: Tensor) -> Tensor:
        """Return the noise's σ for each image, (B, 1, 1, 1)."""
        lowest, highest = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
        span = highest - lowest
        if self.spread == "range":
            return self.noise * span
        return (self.noise / span.where(span > 0, torch.inf)).square()


def draw_noise(shape: torch.Size, seed: int, index: int) -> Tensor:
    """Return the standard normal noise of a copy, by its number."""
    return torch.randn(shape, generator=make_generator(seed, index))
