"""The data set of a command: a folder of pictures, a list of them, or a published set by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from torch.utils.data import DataLoader, Dataset

    from xcam.data.transforms import Pipeline
    from xcam.models import Normalized

__all__ = ["make_loader", "make_test_transform"]


def make_loader(
    path: Path,
    root: Path | None,
    size: int | None,
    resize: str | None,
    nets: Mapping[str, Normalized],
    load: int,
    workers: int,
) -> DataLoader[Any]:
    """Return the pictures in batches, of the size that all models take.

    `resize`, if any, is the shorter side from which that size is cropped, or height x width.
    """
    from torch.utils.data import DataLoader

    pictures = _open(path, root, _find_side(nets) if size is None else size, resize)
    return DataLoader(pictures, batch_size=load, num_workers=workers)


def make_test_transform(resize: str, size: int | tuple[int, int]) -> Pipeline:
    """Return the recipes' test transform: resized, bilinear, center cropped."""
    from xcam.data.transforms import make_pipeline, make_size_steps

    side = size if isinstance(size, int) else max(size)
    sides = _parse_resize(resize)
    if min(sides) < side:
        raise ValueError(f"--resize {resize} is less than the {side} pixels to crop from it")
    return make_pipeline(make_size_steps(sides, size)[1])


def _parse_resize(text: str) -> list[int]:
    """Return the shorter side, or height and width."""
    words = text.split("x")
    if len(words) > 2 or not all(word.isascii() and word.isdigit() for word in words):
        raise ValueError(
            f"--resize takes the shorter side, 256, or height and width, 224x224, got {text!r}"
        )
    return [int(word) for word in words]


def _open(path: Path, root: Path | None, side: int, resize: str | None) -> Dataset[Any]:
    """Open a data set; a path that exists is a folder or a list, whatever its name."""
    from xcam import data
    from xcam.data.arrays import ARRAYS
    from xcam.data.wsol_metadata import is_wsol

    transform = None if resize is None else make_test_transform(resize, side)
    if path.is_dir() and is_wsol(path):
        if root is None:
            raise ValueError(
                f"--data {path} needs --root, the folder that its files are named from"
            )
        return data.wsol(path, root, side, transform)
    if path.is_dir():
        return data.folder(path, side, transform)
    if str(path) not in (*ARRAYS, "voc") or path.exists():
        return data.listed(path, root, side, transform, allow_missing=True)
    if root is None:
        raise ValueError(f"--data {path} needs --root, the folder that holds the set")
    input_size = (side, side) if resize is None else _parse_resize(resize)
    found = data.load(str(path), root, input_size=input_size, crop_size=side)
    return cast("Dataset[Any]", found.test)


def _find_side(nets: Mapping[str, Normalized]) -> int:
    """Return the side of the square images that all models take."""
    sides = {side for net in nets.values() for side in net.input_size or (224,)}
    if len(sides) > 1:
        raise ValueError(
            f"the models take pictures of different sides, {sorted(sides)}; give one --size"
        )
    return sides.pop()
