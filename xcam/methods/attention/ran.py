"""The attention of residual attention nets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from xcam.core import Method, MethodSpec, Target
from xcam.methods.attention.gates import read_gate
from xcam.models.whitebox.ran import SoftMask

__all__ = ["RANAttention"]


@dataclass(frozen=True)
class RANAttention(Method):
    """RAN: the mean mask of one of the net's attention modules, whatever the class.

    M = mean_k M_k, where the net multiplies channel k of its features by 1 + M_k (Wang et al.,
    2017, arXiv:1704.06904), of `xcam.models.whitebox.ran.RAN` or any net with
    modules `AttentionModule`.

    Attributes:
        stage: Which module, in the order of the net's modules; negative from the end.

    Raises:
        LayerError: The net has no such module.
        ValueError: It has no such stage.
    """

    stage: int = -1

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="ran",
        title="RAN",
        paper="Wang et al., 2017, arXiv:1704.06904",
        family="attention",
        cost="1 forward",
        class_specific=False,
        signed=False,
        normalized=True,
        net={"name": "xcam:attention_net", "attention": "ran"},
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return M, (B, h, w) at the size of the features; see `Method.maps`."""
        example = "xcam.models.load('xcam:ran')"
        return read_gate(model, images, target, SoftMask, self.stage, example)
