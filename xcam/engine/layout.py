"""Reading a layer's output as a map, from its shape rather than a table of architectures."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from xcam.errors import LayerError

__all__ = ["Layout", "norm_widths", "read_map"]

_MOST_PREFIX_TOKENS = 16


@dataclass(frozen=True)
class Layout:
    """Where the map is in a layer's output.

    Attributes:
        order: `"NCHW"` (B, C, h, w), `"NHWC"` (B, h, w, C), or `"tokens"` (B, prefix + h·w, C).
        grid: (h, w).
        prefix: Number of class and register tokens before the patches.
    """

    order: Literal["NCHW", "NHWC", "tokens"]
    grid: tuple[int, int]
    prefix: int = 0

    @classmethod
    def of(
        cls, shape: Sequence[int], images: Sequence[int], widths: Collection[int] = ()
    ) -> Layout | None:
        """Return the layout of an output, from shapes alone; None if it is no map.

        A 4-D output has its channels first, unless its last axis is as wide as one of the model's
        layer norms, or its grid would be larger than the image: then the order is the one whose h/w
        is nearer to H/W. A model with layer norms also has 4-D outputs such as attention matrices,
        so there a map must fit the aspect ratio. Tokens form the grid (H/p, W/p), rounded down or
        up, of the patch size p that leaves the fewest prefix tokens, at most 16.

        Args:
            shape: Of the output.
            images: Of the images, (B, C, H, W).
            widths: Of the model's layer norms; see `norm_widths`.
        """
        if shape[0] != images[0]:
            return None
        size = (images[2], images[3])
        if len(shape) == 4:
            first, last = (shape[2], shape[3]), (shape[1], shape[2])
            ambiguous = shape[3] in widths or first[0] > size[0] or first[1] > size[1]
            grids = (first, last) if ambiguous else (first,)
            grid = min(grids, key=lambda grid: max(_misfit(grid, size), 1.0))
            fits = _misfit(grid, size) <= 2 or not (ambiguous or widths)
            if math.prod(grid) > 1 and fits:
                return cls("NCHW" if grid is first else "NHWC", grid)
        if len(shape) == 3:
            prefixes = {grid: shape[1] - math.prod(grid) for grid in _patch_grids(size)}
            fitting = [g for g, prefix in prefixes.items() if 0 <= prefix <= _MOST_PREFIX_TOKENS]
            if fitting:
                grid = min(fitting, key=lambda grid: prefixes[grid])
                return cls("tokens", grid, prefixes[grid])
        return None

    def read(self, tensor: Tensor) -> Tensor:
        """Return a view of an output of this layout, or of its gradient, as (B, C, h, w)."""
        if self.order == "NCHW":
            return tensor
        if self.order == "NHWC":
            return tensor.movedim(3, 1)
        patches = tensor[:, self.prefix :].transpose(1, 2)
        return patches.reshape(*patches.shape[:2], *self.grid)


def _misfit(grid: tuple[int, int], size: tuple[int, int]) -> float:
    """Return by how many cells the sides of a grid miss the images' aspect ratio."""
    (h, w), (height, width) = grid, size
    return abs(h * width - w * height) / (height + width)


def _patch_grids(size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Yield the grids of more than one cell that patches of any size give."""
    for patch in range(1, max(size)):
        for grid in (
            (size[0] // patch, size[1] // patch),
            (-(-size[0] // patch), -(-size[1] // patch)),
        ):
            if math.prod(grid) > 1:
                yield grid


def norm_widths(model: nn.Module) -> set[int]:
    """Return the sizes of the last axis that layer norms work on: there it holds channels."""
    shapes = (getattr(module, "normalized_shape", None) for module in model.modules())
    return {int(shape[-1]) for shape in shapes if isinstance(shape, Sequence) and len(shape)}


def read_map(tensor: Tensor, images: Tensor, model: nn.Module) -> Tensor:
    """Return a layer's output, or the gradient there, as a map.

    Args:
        tensor: (B, C, h, w), (B, h, w, C), or tokens (B, T, C) after up to 16 prefix tokens (class
            token, registers), which are dropped.
        images: The images (B, C, H, W) that were passed; only their shape is read.
        model: The net: only one with layer norms may have its channels last.

    Returns:
        (B, C, h, w), a view of `tensor`.

    Raises:
        LayerError: The output is a vector, a map of one cell, or of no shape that fits the images.
    """
    layout = Layout.of(tensor.shape, images.shape, norm_widths(model))
    if layout is None:
        raise LayerError(
            f"the layer's output of shape {tuple(tensor.shape)} is not a map of more than one cell "
            f"for images of shape {tuple(images.shape)}; choose a layer further from the output, "
            "before pooling and flattening, or use larger images"
        )
    return layout.read(tensor)
