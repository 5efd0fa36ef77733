"""What a net says of the layouts of its layers' outputs, by names that libraries agree on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn

from xcam.engine.structure import remember, walk
from xcam.engine.wrappers import unwrap

__all__ = ["LayoutHints", "Size", "misfit", "read_hints"]

Size: TypeAlias = tuple[int, int]

_HALVINGS = 5  # of the first grid of patches, in nets that merge them


@dataclass(frozen=True)
class LayoutHints:
    """What a net says of its layouts; empty where it says nothing.

    Attributes:
        norm_widths: Sizes of the last axis that layer norms work on: there it holds channels.
        widths: Numbers of channels that convolutions and linear layers give.
        patches: Sizes of patches, in pixels.
        grids: Grids of patches, for images of the size that the net was made for.
        prefixes: Numbers of class and register tokens before the patches.
        channels_last: The net's maps are (B, h, w, C).
        orders: Grids whose tokens are not row by row, with the positions of the cells.
    """

    norm_widths: frozenset[int] = frozenset()
    widths: frozenset[int] = frozenset()
    patches: tuple[Size, ...] = ()
    grids: tuple[Size, ...] = ()
    prefixes: frozenset[int] = frozenset()
    channels_last: bool = False
    orders: tuple[tuple[Size, tuple[int, ...] | None], ...] = ()

    def list_grids(self, size: Size) -> list[Size]:
        """List the grids of patches that images of a size (H, W) give, as far as the net says."""
        found = [grid for grid in self.grids if misfit(grid, size) <= 1]
        for height, width in self.patches:
            for factor in (2**halving for halving in range(_HALVINGS)):
                high, wide = height * factor, width * factor
                found.append((size[0] // high, size[1] // wide))
                found.append((-(-size[0] // high), -(-size[1] // wide)))
        return list(dict.fromkeys(found))


def read_hints(model: nn.Module, channels: int) -> LayoutHints:
    """Return what a net says of its layouts.

    Read are `normalized_shape` of norms; `patch_size` and `grid_size` of embeddings of patches, and
    convolutions of the image whose stride is their size; timm's `num_prefix_tokens`, `output_fmt`
    and Hiera's `reroll`.

    Args:
        model: The net, in any wrapper.
        channels: Of the images.
    """
    net = unwrap(model)
    return remember(net, ("layout hints", channels), lambda: _collect_hints(net, channels))


def _collect_hints(net: nn.Module, channels: int) -> LayoutHints:
    norms: set[int] = set()
    widths: set[int] = set()
    prefixes: set[int] = set()
    formats: set[str] = set()
    patches: list[Size] = []
    grids: list[Size] = []
    orders: list[tuple[Size, tuple[int, ...] | None]] = []
    for module in walk(net):
        shape = _get(module, "normalized_shape")
        if isinstance(shape, Sequence) and len(shape):
            norms.add(int(shape[-1]))
        width = _get(module, "out_channels") or _get(module, "out_features")
        if isinstance(width, int):
            widths.add(width)
        prefix = _get(module, "num_prefix_tokens")
        if isinstance(prefix, int):
            prefixes.add(prefix)
        patches += _read_patch(module, channels)
        grids += _read_size(_get(module, "grid_size"))
        formats.add(str(_get(module, "output_fmt")))
        orders += _read_orders(module)
    return LayoutHints(
        norm_widths=frozenset(norms),
        widths=frozenset(widths),
        patches=tuple(dict.fromkeys(patches)),
        grids=tuple(dict.fromkeys(grids)),
        prefixes=frozenset(prefixes),
        channels_last=any(name.endswith("NHWC") for name in formats),
        orders=tuple(dict.fromkeys(orders)),
    )


def _get(module: nn.Module, name: str) -> Any:  # noqa: ANN401
    """Return an attribute other than a tensor or child; None, without an exception, if missing."""
    if name in module.__dict__:
        return module.__dict__[name]
    return getattr(module, name, None) if hasattr(type(module), name) else None


def _read_patch(module: nn.Module, channels: int) -> list[Size]:
    """Return the size of patches that a module says, or takes from the image."""
    if isinstance(module, nn.Conv2d):
        whole = module.kernel_size == module.stride and module.in_channels == channels
        return _read_size(module.kernel_size) if whole and max(module.stride) > 1 else []
    return _read_size(_get(module, "patch_size"))


def _read_size(value: Any) -> list[Size]:  # noqa: ANN401
    sides = (value, value) if isinstance(value, int) else value
    if isinstance(sides, Sequence) and len(sides) == 2 and all(isinstance(s, int) for s in sides):
        return [(sides[0], sides[1])] if min(sides) > 0 else []
    return []


def _read_orders(module: nn.Module) -> Iterator[tuple[Size, tuple[int, ...] | None]]:
    """Yield the grids of a Hiera, whose tokens lie window by window until the last stage."""
    reroll = getattr(module, "reroll", None)
    schedule = None if reroll is None else _get(reroll, "schedule")
    if reroll is None or not isinstance(schedule, dict):
        return
    first = {tuple(size): block for block, (_, size) in reversed(schedule.items())}
    for size, block in first.items():
        if len(size) == 2:  # and not a video's
            tokens = torch.arange(math.prod(size)).view(1, -1, 1)
            order = tuple(reroll(tokens, block).flatten().tolist())
            yield (size[0], size[1]), None if order == tuple(range(len(order))) else order


def misfit(grid: Size, size: Size) -> float:
    """Return by how many cells the sides of a grid miss the images' aspect ratio."""
    (h, w), (height, width) = grid, size
    return abs(h * width - w * height) / (height + width)
