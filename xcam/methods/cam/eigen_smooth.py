"""The first principal component of a CAM's weighted channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from xcam.core import Method, MethodSpec, Target
from xcam.methods.cam.channels import ChannelMethod
from xcam.methods.cam.projection import project_on_principal_axis
from xcam.methods.wrapping import Base, check_base, describe_wrapper, require_base

__all__ = ["EigenSmooth"]


@dataclass(frozen=True)
class EigenSmooth(Method):
    """Eigen smoothing: the first principal component of a CAM's weighted channels, not their sum.

    M = X v, X being the (h·w × C) matrix of the channels that the base adds up, centered over the
    positions, and v its first right singular vector: `eigen_smooth=True` of grad-cam (Gildenblat et
    al., 2021, the library grad-cam). Of the two signs, which grad-cam leaves to its SVD, it is the
    one that correlates positively with the base's own map. Over HiResCAM this is Eigen-Grad-CAM.

    Attributes:
        base: A CAM that adds up weighted channels: an object, its name, or name and settings, as in
            `("gradcam", {"layer": "layer3"})`.
        relu: Whether to cut the map at zero.
    """

    base: Base = "gradcam"
    relu: bool = False

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="eigen_smooth",
        title="Eigen smoothing",
        aliases=("eigen_smoothing",),
        paper="Gildenblat et al., 2021, grad-cam",
        family="cam",
        cost="1 forward + tail backward",
    )

    def __post_init__(self) -> None:
        """Refuse a base that adds up no channels; let the spec tell what the base's tells."""
        super().__post_init__()
        check_base(self.spec.name, self.base)
        if isinstance(self.base, Method):
            if not isinstance(self.base, ChannelMethod):
                raise ValueError(
                    f"{self.spec.name}: the base {self.base.spec.name} adds up no weighted "
                    "channels of a layer; give a CAM, such as 'gradcam' or 'layercam'"
                )
            spec = describe_wrapper(type(self).spec, self.base.spec, self.base.spec.cost)
            object.__setattr__(self, "spec", spec)

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return raw maps, (B, h, w) at the layer's size; see `Method.maps`."""
        base = require_base(self.base)
        assert isinstance(base, ChannelMethod)  # as was checked when it was made
        channels = base.channels(model, images, target)
        maps = project_on_principal_axis(channels, channels.mean(1))
        return maps.relu() if self.relu else maps
