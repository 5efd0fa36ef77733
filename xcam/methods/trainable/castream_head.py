"""The stream of CA-Stream: blocks of cross-attention from one token to feature maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xcam.methods.trainable.taps import Place

__all__ = ["Family", "Stream", "StreamBlock", "Variant", "average_project", "make_stream"]

Family = Literal["ConvNeXt", "EfficientNet"]
Variant = Literal["final", "shared", "v2", "v3", "v4"]


class StreamBlock(nn.Module):
    """Cross-attention of a query to the positions of a feature map, without residual or norm.

    Args:
        key: From features (B, positions, channels) to keys (B, positions, d).
        value: Likewise to values; as the keys it is an identity unless the variant learns it.
        project: From what is attended to, (B, d), to the query of the next block.
        heads: Into how many parts channels are split.
        feedforward: What follows the projection.
    """

    def __init__(
        self,
        key: nn.Module,
        value: nn.Module,
        project: nn.Module,
        heads: int = 1,
        feedforward: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.key, self.value, self.project = key, value, project
        self.feedforward = feedforward or nn.Identity()

    def forward(self, features: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scores (B, heads, h, w) before the softmax, and the next query (B, d').

        Args:
            features: (B, channels, h, w).
            query: (B, d).
        """
        cells = features.flatten(2).transpose(1, 2)
        keys, values = (self._split(part(cells)) for part in (self.key, self.value))
        # Of all channels, also with several heads, as in the published code. The query is scaled
        # first: in half precision the products of a thousand channels may overflow.
        scaled = query[:, None] * query.shape[1] ** -0.5
        scores = self._split(scaled) @ keys.transpose(2, 3)
        attended = (scores.softmax(3) @ values).flatten(1)
        following: Tensor = self.feedforward(self.project(attended))
        return scores.reshape(len(scores), self.heads, *features.shape[2:]), following

    def _split(self, tokens: Tensor) -> Tensor:
        """Return tokens (B, n, d) as (B, heads, n, d / heads)."""
        return tokens.reshape(*tokens.shape[:2], self.heads, -1).transpose(1, 2)


class Stream(nn.Module):
    """A learned token, and a block for each feature map that it attends to, one after another.

    Attributes:
        token: The first query, (1, 1, d).
        blocks: In the order of the maps.
        pooled: Where in the classifier the last query stands for the pooled features.
        convolutions: Names of the convolutions whose averaged weights project the query of each
            block, for the variant that learns no projection.
    """

    def __init__(
        self,
        token: Tensor,
        blocks: Sequence[StreamBlock],
        pooled: Place,
        convolutions: Sequence[Sequence[str]],
    ) -> None:
        super().__init__()
        self.token = nn.Parameter(token)
        self.blocks = nn.ModuleList(blocks)
        self.pooled = pooled
        self.convolutions = tuple(tuple(names) for names in convolutions)


@dataclass(frozen=True)
class _Shape:
    """What the blocks of a variant are made of.

    Attributes:
        is_learned: Whether keys and values are linear in the features, instead of the features.
        has_fixed_width: Whether every query is as wide as the pooled features.
        projection: What gives the next query.
        feedforward: How wide the hidden layer behind it is, as a multiple; 0 for none.
    """

    is_learned: bool = False
    has_fixed_width: bool = False
    projection: Literal["linear", "norm", "none"] = "linear"
    feedforward: float = 0.0


_SHAPES: dict[str | None, _Shape] = {
    None: _Shape(),
    "final": _Shape(),
    "shared": _Shape(projection="none"),
    "v2": _Shape(feedforward=2.0),
    "v3": _Shape(is_learned=True),
    "v4": _Shape(is_learned=True, has_fixed_width=True, projection="norm", feedforward=0.5),
}
_FINAL_OF_CONVNEXT = _Shape(is_learned=True, projection="norm")


def make_stream(
    variant: Variant | None,
    widths: Sequence[int],
    last: int,
    heads: int = 1,
    family: Family | None = None,
) -> tuple[Tensor, list[StreamBlock]]:
    """Return a new token (1, 1, d) and new blocks, drawn from torch's global generator.

    Args:
        variant: See `CAStream`.
        widths: The channels of each map.
        last: The width of the pooled features.
        heads: Of each block.
        family: Whose published constructor draws the weights; None for that of ResNets.
    """
    is_convnext = variant == "final" and family == "ConvNeXt"
    shape = _FINAL_OF_CONVNEXT if is_convnext else _SHAPES[variant]
    queries = [last if shape.has_fixed_width else width for width in widths]
    blocks = [
        _make_block(shape, channels, width, following, heads)
        for channels, width, following in zip(widths, queries, [*queries[1:], last], strict=True)
    ]
    for block in blocks:
        _initialize(block, family)
    return torch.empty(1, 1, queries[0]).normal_(0.0 if variant == "v4" else 1.0, 1.0), blocks


def _make_block(
    shape: _Shape, channels: int, width: int, following: int, heads: int
) -> StreamBlock:
    key, value = (
        nn.Linear(channels, width) if shape.is_learned else nn.Identity() for _ in range(2)
    )
    projections: dict[str, Callable[[], nn.Module]] = {
        "linear": lambda: nn.Linear(width, following),
        "norm": lambda: nn.LayerNorm(following),
        "none": nn.Identity,
    }
    hidden = int(shape.feedforward * following)
    feedforward = None
    if hidden:
        layers = [nn.Linear(following, hidden), nn.GELU(), nn.Linear(hidden, following)]
        feedforward = nn.Sequential(*layers)
    return StreamBlock(key, value, projections[shape.projection](), heads, feedforward)


def _initialize(block: StreamBlock, family: Family | None) -> None:
    """Draw weights as the published constructors do: two of them draw all linear layers anew."""
    for linear in (block.key, block.value, block.project):
        if isinstance(linear, nn.Linear):
            nn.init.xavier_uniform_(linear.weight)
    for linear in block.modules() if family else ():
        if isinstance(linear, nn.Linear):
            bound = linear.out_features**-0.5
            if family == "ConvNeXt":
                nn.init.trunc_normal_(linear.weight, std=0.02)
            else:
                nn.init.uniform_(linear.weight, -bound, bound)
            nn.init.zeros_(linear.bias)


def average_project(convolutions: Sequence[nn.Conv2d], query: Tensor) -> Tensor:
    """Project a query by convolutions whose weights are averaged over the kernel, without biases.

    They are applied one after another. One that does not take the channels at hand is a shortcut:
    it is applied to the query as it was before, and the two are added.

    Raises:
        ValueError: It takes the channels of neither.
    """
    found = identity = query[:, :, None, None]
    for convolution in convolutions:
        weight = convolution.weight.detach().mean((2, 3), keepdim=True).to(found.dtype)
        groups, channels = convolution.groups, convolution.in_channels
        if found.shape[1] == channels:
            found = F.conv2d(found, weight, groups=groups)
            continue
        if identity.shape[1] != channels:
            raise ValueError(f"a convolution takes {channels} channels, got {found.shape[1]}")
        identity = F.conv2d(identity, weight, groups=groups)
        found = found + identity
    return found[:, :, 0, 0]
