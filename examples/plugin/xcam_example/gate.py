"""A gate: a trainable head."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from xcam import MethodSpec, Target, TrainableMethod
from xcam.core import Headed
from xcam.methods.trainable import Backbone, Place, read_head, tapped


@dataclass(frozen=True)
class Gate(TrainableMethod):
    """A layer's features times a learned gate (B, 1, h, w) in (0, 1), which is the map."""

    layer: str | None = None

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="gate",
        title="Gate",
        paper="xcam's example of a plugin",
        family="trainable",
        cost="1 forward",
        class_specific=False,
        signed=False,
        normalized=True,
        alters_prediction=True,
    )

    def attach(self, model: nn.Module, like: Tensor | None = None) -> nn.Module:
        """Return the net with a gate, not yet fitted; see `TrainableMethod.attach`."""
        backbone = Backbone(model, like)
        layer = backbone.layer(self.layer) if self.layer else backbone.default_layer()
        head = nn.Sequential(nn.Conv2d(backbone.shape(Place(layer))[1], 1, 1), nn.Sigmoid())
        return backbone.with_head(head, replace(self, layer=layer))

    def logits(self, net: Headed, images: Tensor) -> Tensor:
        """Return the logits of the gated features; see `TrainableMethod.logits`."""
        layer = net.method.parameters()["layer"]
        return tapped(net, images, {Place(layer): lambda found: found * net.head(found)})

    def loss(self, net: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy; see `TrainableMethod.loss`."""
        logits = net(images)
        return F.cross_entropy(logits, labels), logits

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return the gate, (B, h, w); see `Method.maps`."""
        return read_head(model, images, target)[:, 0]
