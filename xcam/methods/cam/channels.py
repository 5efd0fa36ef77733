"""CAMs that add up the weighted channels of a layer."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from xcam.core import Method, Target

__all__ = ["ChannelMethod"]


class ChannelMethod(Method):
    """A method whose map is the sum of a layer's channels, weighted as it sees fit.

    `eigen_smooth` takes their first principal component instead.
    """

    @abstractmethod
    def channels(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return the weighted channels (B, C, h, w), whose sum over C is the map; see `maps`."""
