"""Reading a layer's output as a map: as the model says, or else from its shape."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn

from xcam.engine.hints import LayoutHints, Size, misfit, read_hints
from xcam.engine.wrappers import Layer, find_module
from xcam.errors import LayerError

__all__ = [
    "Layout",
    "describe_readings",
    "find_layout",
    "list_layouts",
    "list_token_layouts",
    "read_map",
    "require_layout",
]

_MOST_PREFIX_TOKENS = 16
_LIKELY = 8
_PLANES = (nn.Conv2d, nn.BatchNorm2d, nn.GroupNorm, nn.MaxPool2d, nn.AvgPool2d)


@dataclass(frozen=True)
class Layout:
    """Where the map is in a layer's output.

    Attributes:
        order: `"NCHW"` (B, C, h, w), `"NHWC"` (B, h, w, C), `"tokens"` (B, prefix + h·w, C), or
            `"NCL"` (B, C, h·w).
        grid: (h, w).
        prefix: Number of class and register tokens before the patches.
        positions: For each cell of the grid, row by row, which of the patches it is; None if they
            are in that order.
    """

    order: Literal["NCHW", "NHWC", "tokens", "NCL"]
    grid: Size
    prefix: int = 0
    positions: tuple[int, ...] | None = None

    @classmethod
    def of(
        cls, shape: Sequence[int], images: Sequence[int], widths: Collection[int] = ()
    ) -> Layout | None:
        """Return the layout of an output, from shapes alone; None if it is no map or ambiguous.

        A 4-D output has its channels first, unless its last axis is as wide as one of the model's
        layer norms, or its grid would be larger than the image: then the order is the one whose h/w
        is nearer to H/W. A model with layer norms also has 4-D outputs such as attention matrices,
        so there a map must fit the aspect ratio. Tokens form the grid (H/p, W/p), rounded down or
        up, of the patch size p that leaves the fewest prefix tokens, at most 16.

        Args:
            shape: Of the output.
            images: Of the images, (B, C, H, W).
            widths: Of the model's layer norms.
        """
        return find_layout(shape, images, LayoutHints(norm_widths=frozenset(widths)))

    def read(self, tensor: Tensor) -> Tensor:
        """Return an output of this layout, or its gradient, as (B, C, h, w).

        It is a view, but where tokens have an order of their own.
        """
        cells = self.channels(tensor)
        return cells if self.positions is None else self._arrange(cells)

    def channels(self, tensor: Tensor) -> Tensor:
        """Return a view of an output as (B, C, h, w), with its patches in any order."""
        if self.order == "NCHW":
            return tensor
        if self.order == "NHWC":
            return tensor.movedim(3, 1)
        if self.order == "NCL":
            return tensor.reshape(*tensor.shape[:2], *self.grid)
        patches = tensor[:, self.prefix :].transpose(1, 2)
        return patches.reshape(*patches.shape[:2], *self.grid)

    def spread(self, mask: Tensor) -> Tensor:
        """Return a mask (B, 1, h, w) in this layout, to be multiplied; it leaves prefix tokens."""
        if self.order == "NCHW":
            return mask
        if self.order == "NHWC":
            return mask.movedim(1, 3)
        cells = mask.flatten(2)
        if self.order == "NCL":
            return cells
        if self.positions is not None:
            cells = cells[..., torch.tensor(self.positions).argsort().tolist()]
        return torch.cat([cells.new_ones(len(cells), self.prefix, 1), cells.transpose(1, 2)], 1)

    def _arrange(self, cells: Tensor) -> Tensor:
        return cells.flatten(2)[..., list(self.positions or ())].reshape(cells.shape)

    def __str__(self) -> str:
        """Return the reading in words."""
        h, w = self.grid
        if self.order == "tokens":
            return f"{h}x{w} tokens behind {self.prefix} others, channels last"
        axes = {"NCHW": "channels first", "NHWC": "channels last", "NCL": "channels first"}
        return f"a {h}x{w} map, {axes[self.order]}"


def find_layout(
    shape: Sequence[int], images: Sequence[int], hints: LayoutHints, module: nn.Module | None = None
) -> Layout | None:
    """Return the layout of an output; None if it is not a map, or is ambiguous.

    Args:
        shape: Of the output.
        images: Of the images, (B, C, H, W).
        hints: What the model says of its layouts.
        module: What returned it.
    """
    found = list_layouts(shape, images, hints, module)
    return found[0] if len(found) == 1 else None


def list_layouts(
    shape: Sequence[int], images: Sequence[int], hints: LayoutHints, module: nn.Module | None
) -> list[Layout]:
    """List the readings of an output between which nothing decides; see `find_layout`."""
    size = (images[2], images[3])
    if shape[0] == images[0] and len(shape) == 4:
        return _find_planes(shape, size, hints, module)
    if shape[0] == images[0] and len(shape) == 3:
        return _find_sequences(shape, size, hints, module)
    return []


def describe_readings(layouts: Sequence[Layout]) -> str | None:
    """Describe an output that can be read in several ways; None if it is none."""
    if len(layouts) < 2:
        return None
    return f"can be read as {layouts[0]}, or as {layouts[1]}"


def _find_planes(
    shape: Sequence[int], size: Size, hints: LayoutHints, module: nn.Module | None
) -> list[Layout]:
    """List the readings of a 4-D output, see `Layout.of`."""
    first, last = (shape[2], shape[3]), (shape[1], shape[2])
    ambiguous = shape[3] in hints.norm_widths or first[0] > size[0] or first[1] > size[1]
    ambiguous = ambiguous or (hints.channels_last and shape[3] in hints.widths)
    found = [Layout("NCHW", first), Layout("NHWC", last)] if ambiguous else [Layout("NCHW", first)]
    misses = {layout: max(misfit(layout.grid, size), 1.0) for layout in found}
    found = [layout for layout in found if misses[layout] == min(misses.values())]
    if len(found) > 1:
        found = _decide_by_module(found, hints, module)
    strict = ambiguous or hints.norm_widths
    return [
        layout
        for layout in found
        if math.prod(layout.grid) > 1 and (misfit(layout.grid, size) <= 2 or not strict)
    ]


def _decide_by_module(
    found: list[Layout], hints: LayoutHints, module: nn.Module | None
) -> list[Layout]:
    """Keep the reading that the module's parts work on, where they tell."""
    parts = [] if module is None else list(module.modules())
    if any(isinstance(part, _PLANES) for part in parts):
        return found[:1]
    # Subclasses of LayerNorm may be for channels that come first.
    if hints.channels_last or any(type(part) in (nn.LayerNorm, nn.Linear) for part in parts):
        return found[1:]
    return found


def _find_sequences(
    shape: Sequence[int], size: Size, hints: LayoutHints, module: nn.Module | None
) -> list[Layout]:
    """List the readings of a 3-D output: tokens, or maps that are flattened."""
    _, first, last = shape
    tokens = [*list_token_layouts(first, size, hints)]
    flattened = [Layout("NCL", grid) for grid in _exact_grids(last, size)[:1]]
    channels_last, channels_first = (width in hints.norm_widths for width in (last, first))
    if channels_last == channels_first:
        channels_last, channels_first = (width in hints.widths for width in (last, first))
    if isinstance(module, nn.Flatten | nn.Conv1d | nn.BatchNorm1d) or (
        channels_first and not channels_last
    ):
        return flattened
    if not tokens and not channels_first:
        return []
    # Of a transformer whose channels are unknown it is more likely that they come last.
    unknown = not channels_first and (hints.norm_widths or hints.patches)
    return tokens if channels_last != channels_first or unknown else [*tokens, *flattened]


@lru_cache(maxsize=1024)  # a transformer's layers give few shapes
def list_token_layouts(count: int, size: Size, hints: LayoutHints) -> Sequence[Layout]:
    """List the readings of a number of tokens, as the model says or else from their number."""
    for grid, positions in hints.orders:
        if count == math.prod(grid):
            return [Layout("tokens", grid, 0, positions)]
    said = [grid for grid in hints.list_grids(size) if math.prod(grid) > 1]
    if hints.prefixes:
        for grids in (said, _patch_grids(size)):
            for prefix in sorted(hints.prefixes | {0}, reverse=True):
                exact = [grid for grid in grids if count - math.prod(grid) == prefix]
                if exact:
                    best = min(exact, key=lambda grid: misfit(grid, size))
                    return [Layout("tokens", best, prefix)]
        return []
    fitting = _fit_prefixes(count, said)
    if fitting:
        return fitting[:1]
    fitting = _fit_prefixes(count, _patch_grids(size))
    # None or one, the class token, is what most have; between larger numbers nothing decides.
    certain = not fitting or fitting[0].prefix <= 1
    return fitting[:1] if certain else [one for one in fitting if one.prefix <= _LIKELY] or fitting


def _fit_prefixes(count: int, grids: Iterable[Size]) -> list[Layout]:
    """List the grids that leave few prefix tokens, the fewest first, each number once."""
    prefixes = {count - math.prod(grid): grid for grid in reversed([*grids])}
    return [
        Layout("tokens", prefixes[prefix], prefix)
        for prefix in sorted(prefixes)
        if 0 <= prefix <= _MOST_PREFIX_TOKENS
    ]


@lru_cache(maxsize=1024)
def _exact_grids(count: int, size: Size) -> tuple[Size, ...]:
    return tuple(grid for grid in _patch_grids(size) if math.prod(grid) == count)


@lru_cache(maxsize=64)
def _patch_grids(size: Size) -> tuple[Size, ...]:
    """List the grids of more than one cell that patches of any size give."""
    return tuple(
        grid
        for patch in range(1, max(size))
        for grid in (
            (size[0] // patch, size[1] // patch),
            (-(-size[0] // patch), -(-size[1] // patch)),
        )
        if math.prod(grid) > 1
    )


def read_map(
    tensor: Tensor, images: Tensor, model: nn.Module, layer: Layer | None = None
) -> Tensor:
    """Return a layer's output, or the gradient there, as a map.

    Args:
        tensor: (B, C, h, w), (B, h, w, C), flattened (B, C, h·w), or tokens (B, T, C) after up to
            16 prefix tokens (class token, registers), which are dropped.
        images: The images (B, C, H, W) that were passed; only their shape is read.
        model: The net, which may say how it lays out its outputs.
        layer: The layer, whose parts decide where two readings fit.

    Returns:
        (B, C, h, w), a view of `tensor` but where tokens have an order of their own.

    Raises:
        LayerError: The output is a vector, a map of one cell, of no shape that fits the images, or
            of one that can be read in two ways.
    """
    return require_layout(tensor, images, model, layer).read(tensor)


def require_layout(
    tensor: Tensor, images: Tensor, model: nn.Module, layer: Layer | None = None
) -> Layout:
    """Return the layout of a layer's output; see `read_map`."""
    module = None if layer is None else find_module(model, layer)[1]
    found = list_layouts(tensor.shape, images.shape, read_hints(model, images.shape[1]), module)
    if len(found) == 1:
        return found[0]
    shapes = f"{tuple(tensor.shape)}", f"images of shape {tuple(images.shape)}"
    readings = describe_readings(found)
    if readings:
        raise LayerError(
            f"the layer's output of shape {shapes[0]} {readings}, for {shapes[1]}; choose a layer "
            "that gives a map (B, C, h, w)"
        )
    raise LayerError(
        f"the layer's output of shape {shapes[0]} is not a map of more than one cell for "
        f"{shapes[1]}; choose a layer further from the output, before pooling and flattening"
    )
