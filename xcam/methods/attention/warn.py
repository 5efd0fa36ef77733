"""The attention of wide residual nets that attend and rectify."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from xcam.core import Method, MethodSpec, Target
from xcam.methods.attention.gates import read_gate
from xcam.models.whitebox.warn import AttentionMasks

__all__ = ["WARNAttention"]


@dataclass(frozen=True)
class WARNAttention(Method):
    """WARN: the mean mask of one of the net's attention modules, whatever the class.

    M = mean_k M_k of K masks, each a softmax over the positions (Rodríguez et al., 2018,
    arXiv:1807.07320), so that M sums to 1, of `xcam.models.whitebox.warn.WARN` or any net with
    modules `AttentionOutput`.

    Attributes:
        stage: Which module, in the order of the net's modules; negative from the end.

    Raises:
        LayerError: The net has no such module.
        ValueError: It has no such stage.
    """

    stage: int = -1

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="warn",
        title="WARN",
        paper="Rodríguez et al., 2018, arXiv:1807.07320",
        family="attention",
        cost="1 forward",
        class_specific=False,
        signed=False,
        normalized=True,
        net={"name": "xcam:attention_net", "attention": "warn"},
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return M, (B, h, w) at the size of the features; see `Method.maps`."""
        example = "xcam.models.load('xcam:warn')"
        return read_gate(model, images, target, AttentionMasks, self.stage, example)
