"""The mean of a method's maps of flipped, darker and brighter images."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from xcam import imaging
from xcam.core import Method, MethodSpec, Range, Target
from xcam.engine.clean import bind_clean_pass
from xcam.engine.shared import keep_nothing
from xcam.methods.wrapping import (
    Base,
    check_base,
    describe_wrapper,
    normalize_maps,
    require_base,
)

__all__ = ["AugSmooth"]


@dataclass(frozen=True)
class AugSmooth(Method):
    """Augmentation smoothing: the mean of a method's maps of changed images, each normalized.

    M = 1/n Σ_t t⁻¹(N(up(N(max(M(t(x)), 0))))) over t, the image times each factor, as it is and
    mirrored, N being the min-max scaling into [0, 1]: `aug_smooth=True` of grad-cam (Gildenblat et
    al., 2021, the library grad-cam). The class is that of the clean image. Factors multiply images
    as they are given: grad-cam is given normalized ones, a `Normalized` pixels in [0, 1].

    Attributes:
        base: A method: an object, its name, or name and settings, as in
            `("gradcam", {"layer": "layer3"})`.
        factors: By which images are multiplied.
        mirrored: Whether to mirror them as well.
        normalize_each: Whether maps are cut at zero and scaled before they are averaged, as
            published. False for the mean of the raw maps, which is signed if the base's are.
    """

    base: Base = "gradcam"
    factors: tuple[Annotated[float, Range(above=0)], ...] = (0.9, 1.0, 1.1)
    mirrored: bool = True
    normalize_each: bool = True

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="aug_smooth",
        title="Augmentation smoothing",
        aliases=("augmentation_smoothing",),
        paper="Gildenblat et al., 2021, grad-cam",
        family="cam",
        cost="1 forward + 6 × (1 forward + tail backward)",
        signed=False,
    )

    def __post_init__(self) -> None:
        """Refuse a base that cannot be one; let the spec tell what the base's tells."""
        super().__post_init__()
        check_base(self.spec.name, self.base)
        if not self.factors:
            raise ValueError(f"{self.spec.name}: factors must be at least one number, got none")
        if isinstance(self.base, Method):
            count = len(self.factors) * (1 + self.mirrored)
            cost = f"1 forward + {count} × ({self.base.spec.cost})"
            spec = describe_wrapper(type(self).spec, self.base.spec, cost)
            signed = self.base.spec.signed and not self.normalize_each
            object.__setattr__(self, "spec", dataclasses.replace(spec, signed=signed))

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return raw maps, (B, H, W) in [0, 1], or as the base's; see `Method.maps`."""
        base, size = require_base(self.base), (images.shape[2], images.shape[3])
        if not target.bound:
            bind_clean_pass(model, images, target)
        total: Tensor | float = 0.0
        flips = (False, True) if self.mirrored else (False,)
        for flips_image, factor in itertools.product(flips, self.factors):
            changed = (images.flip(3) if flips_image else images) * factor
            with keep_nothing():  # since nobody else explains this image
                raw = base.maps(model, changed, target.select(slice(None)))
            if self.normalize_each:
                raw = imaging.normalize(normalize_maps(raw, base, size))
            total = total + (raw.flip(-1) if flips_image else raw)
        return torch.as_tensor(total) / (len(flips) * len(self.factors))
