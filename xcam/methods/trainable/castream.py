"""CA-Stream: a token that attends to the features of a frozen classifier, instead of pooling."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from xcam.core import (
    Headed,
    MethodSpec,
    Target,
    TrainableMethod,
    find_headed,
)
from xcam.core.settings import Count
from xcam.errors import LayerError
from xcam.methods.trainable.backbone import Backbone
from xcam.methods.trainable.castream_head import (
    Stream,
    Variant,
    average_project,
    make_stream,
)
from xcam.methods.trainable.castream_places import (
    choose_layers,
    find_convolutions,
    find_pooled,
    read_family,
)
from xcam.methods.trainable.heads import check_same_head, read_head
from xcam.methods.trainable.taps import Change, Place, check_map, tapped

__all__ = ["CAStream"]

Placement = Literal["stages", "released"]

_MOST_BLOCKS = {"final": 1, "v2": 2}


@dataclass(frozen=True)
class CAStream(TrainableMethod):
    """CA-Stream: cross-attention to the features of a frozen classifier, instead of pooling them.

    A token q, the query, attends to the maps F (d, positions) of the stem and of each stage, one
    after another (Torres Figueroa et al., 2024, arXiv:2404.14996):

        s = F^T q / √d,   a = softmax(s) over the positions,   q' = W F a + b

    The last q' goes to the classifier in place of the pooled features. With q = 0 that is average
    pooling, followed by W. Blocks have no learned keys or values, no residuals and no norms,
    except in some variants. Only the token, drawn from N(1, 1), and the projections W, b are
    trained, by the cross-entropy, or by `xcam.fit`'s `criterion`; the classifier keeps its weights,
    its statistics and its mode. A Grad-CAM, or any other map, of the net explains the new
    prediction; the map of this method is a, of whatever class: `target` is accepted and makes no
    difference.

    A net's blocks follow from the shapes of its maps: one at the stem, and one at the last module
    of each shape (channels, height, width) before the next module changes it. ResNets and ConvNeXts
    have five, EfficientNets and MobileNetV2 nine, torchvision's `inception_v3` ten.

    Attributes:
        layers: The modules whose outputs are attended to, by their names in the classifier, in the
            order in which they run. None for those of the placement.
        placement: `"stages"`, the stem and each stage, or `"released"`: in torchvision's ConvNeXts
            the published code attends to the stem, behind the first two downsamplings and to the
            last stage, and loses a block to an error that it hides; other ConvNeXts are refused.
            Other nets have the same either way. None for `"stages"`, unless layers are named.
        variant: Of the published ablations: `"final"`, one block, at the last stage (of
            torchvision's ConvNeXts with learned keys and values, and a layer norm instead of W);
            `"shared"`, W is made of the next stage's convolutions, averaged over their kernels,
            where these alone lead there, as in ResNets, and not in ConvNeXts and EfficientNets;
            `"v2"`, blocks at the last two stages, each followed by a feed-forward net; `"v3"`, with
            learned keys and values; `"v4"`, with these, queries of one width, a layer norm instead
            of W and feed-forward nets. None for the stream as above.
        heads: Into how many parts the channels are split; each has an attention of its own, and the
            map is their mean. None for 1.
        frozen: What of the classifier does not learn: `True`, everything; `"weights"`, as in the
            published code, whose batch norms still update their statistics, and whose dropout is
            active; `False`, nothing. None for `True`.
        map: `"attention"`, a, or `"scores"`, s, which is what the published code stores.
        block: The block whose attention is the map: from 0, at the stem, or from the end, -1 being
            the last.

    Raises:
        LayerError: A layer gives no map; the classifier has no pooled features, one value for each
            channel behind the last map, as all that its logits depend on; or the net does not have
            what the variant or the placement needs.
        ValueError: A parameter out of its range, heads that do not divide the channels, or layers
            that are not those of the variant or the placement.
    """

    layers: tuple[str, ...] | None = None
    placement: Placement | None = None
    variant: Variant | None = None
    heads: Count | None = None
    frozen: bool | Literal["weights"] | None = None
    map: Literal["attention", "scores"] = "attention"
    block: int = -1

    spec: ClassVar[MethodSpec] = MethodSpec(
        name="castream",
        title="CA-Stream",
        paper="Torres Figueroa et al., 2024, arXiv:2404.14996",
        family="trainable",
        cost="1 forward",
        class_specific=False,
        signed=False,
        normalized=True,
        alters_prediction=True,
        aliases=("ca_stream",),
    )

    def __post_init__(self) -> None:
        """Check what belongs together, and set the flags of the map."""
        super().__post_init__()
        if self.variant in ("v3", "v4") and self.heads not in (None, 1):
            raise ValueError(
                f"castream: variant={self.variant!r} learns keys for one head, got "
                f"heads={self.heads}; leave it out"
            )
        if self.layers == ():
            raise ValueError("castream: layers must name at least one layer, got none")
        most = _MOST_BLOCKS.get(self.variant or "")
        if most and len(self.layers or ()) > most:
            raise ValueError(
                f"castream: variant={self.variant!r} has no more blocks than {most}, got layers="
                f"{self.layers}; name no more layers, or leave the variant out"
            )
        if self.map == "scores":  # for this object alone
            flagged = dataclasses.replace(type(self).spec, signed=True, normalized=False)
            object.__setattr__(self, "spec", flagged)

    def attach(self, model: nn.Module, like: Tensor | None = None) -> nn.Module:
        """Return the classifier with the stream around it; see `TrainableMethod.attach`."""
        backbone = Backbone(model, like)
        filled = dataclasses.replace(
            self,
            placement=self.placement or (None if self.layers else "stages"),
            heads=self.heads or 1,
            frozen=True if self.frozen is None else self.frozen,
        )
        if self.layers is None:
            layers = choose_layers(backbone, filled.placement == "released", self.variant)
        else:
            layers = _sort(backbone, self.layers)
            _check_placement(backbone, filled, layers)
        widths = [backbone.shape(Place(layer))[1] for layer in layers]
        pooled, last = find_pooled(backbone, layers[-1])
        _check_heads(self.heads or 1, layers, widths)
        family = read_family(backbone.net)
        token, blocks = make_stream(self.variant, widths, last, self.heads or 1, family)
        convolutions = find_convolutions(backbone, layers) if self.variant == "shared" else ()
        stream = Stream(token, blocks, pooled, convolutions)
        if self.variant == "shared":
            _check_projections(backbone.net, stream, [*widths, last])
        backbone.net.requires_grad_(filled.frozen is False)
        filled = dataclasses.replace(filled, layers=tuple(layers))
        return backbone.with_head(stream, filled, ["classifier"] if filled.frozen is True else [])

    def logits(self, net: Headed, images: Tensor) -> Tensor:
        """Return the logits of the classifier that reads the stream's last query."""
        walk = _Walk(net, len(images))
        places = map(Place, net.method.parameters()["layers"])
        changes: dict[Place, Change] = {
            place: partial(walk.attend, index, place) for index, place in enumerate(places)
        }
        changes[cast(Stream, net.head).pooled] = walk.replace
        return tapped(net, images, changes)

    def maps(self, model: nn.Module, images: Tensor, target: Target) -> Tensor:
        """Return the attention of a block, (B, h, w), at its map's size; see `Method.maps`."""
        check_same_head(self, model, free={"map", "block"})
        blocks = cast(Stream, find_headed(model).head).blocks
        if not -len(blocks) <= self.block < len(blocks):
            raise ValueError(
                f"castream: the stream has {len(blocks)} blocks, got block={self.block}; give one "
                f"from 0 to {len(blocks) - 1}, or from -{len(blocks)} to -1"
            )
        scores = read_head(model, images, target, blocks[self.block])
        if self.map == "attention":
            scores = scores.flatten(2).softmax(2).reshape(scores.shape)
        return scores.mean(1)


class _Walk:
    """The query on its way through the blocks, in one pass."""

    def __init__(self, net: Headed, count: int) -> None:
        self.classifier, self.stream = net.classifier, cast(Stream, net.head)
        self.query = self.stream.token[:, 0].expand(count, -1)

    def attend(self, index: int, place: Place, features: Tensor) -> None:
        """Move the query on by one block."""
        check_map(features, place)
        _, self.query = self.stream.blocks[index](features, self.query)
        if self.stream.convolutions:
            self.query = _project(self.classifier, self.stream, index, self.query)

    def replace(self, pooled: Tensor) -> Tensor:
        """Return the query instead of the pooled features."""
        return self.query.reshape(pooled.shape).to(pooled.dtype)


def _project(classifier: nn.Module, stream: Stream, index: int, query: Tensor) -> Tensor:
    """Project a query by the convolutions of the stage behind a block."""
    names = stream.convolutions[index]
    convolutions = [cast(nn.Conv2d, classifier.get_submodule(name)) for name in names]
    return average_project(convolutions, query)


def _sort(backbone: Backbone, given: Sequence[str]) -> list[str]:
    """Return layers by their names in the net, in the order in which they run."""
    layers = [backbone.layer(layer) for layer in given]
    if len({backbone.net.get_submodule(layer) for layer in layers}) < len(layers):
        raise ValueError(f"castream: layers must differ, got {tuple(given)}; name each once")
    for layer in layers:
        backbone.shape(Place(layer))
    order = [call.module for call in backbone.trace.calls]
    return sorted(layers, key=lambda layer: order.index(backbone.net.get_submodule(layer)))


def _check_placement(backbone: Backbone, method: CAStream, layers: list[str]) -> None:
    if method.placement != "released":
        return
    wanted = choose_layers(backbone, is_released=True, variant=method.variant)
    if layers != wanted:
        raise ValueError(
            f"castream: placement='released' has the layers {tuple(wanted)}, got layers="
            f"{tuple(layers)}; give the one or the other"
        )


def _check_heads(heads: int, layers: Sequence[str], widths: Sequence[int]) -> None:
    for layer, width in zip(layers, widths, strict=True):
        if width % heads:
            raise ValueError(
                f"castream: heads must divide the channels of every map, and layer {layer!r} has "
                f"{width}, got heads={heads}; leave it out"
            )


@torch.no_grad()
def _check_projections(net: nn.Module, stream: Stream, widths: Sequence[int]) -> None:
    """Refuse a net whose convolutions do not project each query to the width of the next."""
    for index, (width, wanted) in enumerate(pairwise(widths)):
        try:
            found = _project(
                net, stream, index, torch.zeros_like(stream.token[0, :, :1]).expand(1, width)
            )
        except ValueError:
            found = None
        if found is None or found.shape[1] != wanted:
            raise LayerError(
                f"variant='shared' needs convolutions that lead one after another from the "
                f"{width} channels of one map to the {wanted} of the next, and those of "
                f"{type(net).__name__} do not; leave it out"
            )
