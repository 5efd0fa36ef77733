"""The spatial attention of CBAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from xcam.core import Method, MethodSpec, Target
from xcam.methods.attention.gates import read_gate
from xcam.models.whitebox.cbam import SpatialGate

__all__ = ["CBAMAttention"]


@dataclass(frozen=True)
class CBAMAttention(Method):
    """CBAM: the weights that a net's own modules give to positions, whatever the class.

    M = σ(BN(conv([max_k F_k, mean_k F_k]))) of one of the net's `xcam.models.whitebox.cbam.CBAM`
    modules (Woo et al., 2018, arXiv:1807.06521), F being its features weighted by channel. In the
    form of the White Box project M is at least 1/2.

    Attributes:
        stage: Which module, in the order of the net's modules; negative from the end.

    Raises:
        LayerError: The net has no such module.
        ValueError: It has no such stage.
    """

    stage: int = -1

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="cbam",
        title="CBAM",
        paper="Woo et al., 2018, arXiv:1807.06521",
        family="attention",
        cost="1 forward",
        class_specific=False,
        signed=False,
        normalized=True,
        net={"name": "xcam:attention_net", "attention": "cbam"},
    )

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return M, (B, h, w) at the size of the features; see `Method.maps`."""
        example = "xcam.models.load('xcam:simple_cnn', attention='cbam')"
        return read_gate(model, images, target, SpatialGate, self.stage, example)
