"""Published sets of small images, held in memory: CIFAR, STL-10, MNIST and Fashion-MNIST."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from xcam.data.files import Transform
from xcam.data.splits import Splits
from xcam.data.transforms import Pipeline
from xcam.errors import FileFormatError

__all__ = ["ARRAYS", "ImageArrays"]

_BYTES = b"\0\0\x08"  # how an idx file of unsigned bytes begins


@dataclass(frozen=True, eq=False, repr=False)
class ImageArrays(Dataset[tuple[Any, int]]):
    """A data set of `(image, label)` whose images are in memory.

    Attributes:
        images: (N, C, H, W) uint8.
        labels: The class of each image, from 0.
        classes: The names of the classes, as far as they are known.
        transform: Applied to one image, (C, H, W) uint8.
    """

    images: Tensor
    labels: Sequence[int]
    classes: tuple[str, ...]
    transform: Transform

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return the item `(image, label)`, transformed anew each time.

        Raises:
            IndexError: There is no such item.
        """
        image = self.images[index].clone()  # a transform may write in place
        return self.transform(image), self.labels[index]


def _cifar(name: str, root: Path, download: bool) -> Splits:
    train, test = (_open_published(name, root, download, train=which) for which in (True, False))
    names = tuple(train.classes)
    parts = [_make_arrays(p.data.transpose(0, 3, 1, 2), p.targets, names) for p in (train, test)]
    return Splits(parts[0], None, parts[1], names)


def _stl10(name: str, root: Path, download: bool) -> Splits:
    train, test = (
        _open_published(name, root, download, split=which) for which in ("train", "test")
    )
    names = tuple(getattr(train, "classes", ()))  # of a file that some copies lack
    parts = [_make_arrays(part.data, part.labels, names) for part in (train, test)]
    return Splits(parts[0], None, parts[1], names)


def _mnist(name: str, root: Path, download: bool) -> Splits:
    """Read MNIST's files, also gzipped ones, which torchvision does not find."""
    if download:
        _open_published(name, root, download)
    published = _find_class(name)
    folders = (root / published.__name__ / "raw", root)
    parts, names = [], tuple(published.classes)
    for part in ("train", "t10k"):
        images = _find_idx(folders, f"{part}-images-idx3-ubyte")
        labels = _find_idx(folders, f"{part}-labels-idx1-ubyte")
        pixels, numbers = _read_idx(images, axes=3), _read_idx(labels, axes=1)
        if len(pixels) != len(numbers):
            raise FileFormatError(
                f"{str(images)!r} has {len(pixels)} images, {str(labels)!r} {len(numbers)} labels"
            )
        parts.append(_make_arrays(pixels[:, None], numbers, names))
    return Splits(parts[0], None, parts[1], names)


ARRAYS = {
    "cifar10": partial(_cifar, "cifar10"),
    "cifar100": partial(_cifar, "cifar100"),
    "stl10": partial(_stl10, "stl10"),
    "mnist": partial(_mnist, "mnist"),
    "fashion_mnist": partial(_mnist, "fashion_mnist"),
}
"""Functions (root, download) -> Splits, by the name of the data set."""


def _make_arrays(
    images: np.ndarray[Any, Any], labels: Iterable[int], classes: tuple[str, ...]
) -> ImageArrays:
    numbers = tuple(int(label) for label in labels)
    pixels = torch.from_numpy(np.ascontiguousarray(images))
    return ImageArrays(pixels, numbers, classes, Pipeline())


def _find_class(name: str) -> Any:  # noqa: ANN401 - torchvision is not typed
    from torchvision import datasets

    return {
        "cifar10": datasets.CIFAR10,
        "cifar100": datasets.CIFAR100,
        "stl10": datasets.STL10,
        "mnist": datasets.MNIST,
        "fashion_mnist": datasets.FashionMNIST,
    }[name]


def _open_published(name: str, root: Path, download: bool, **part: Any) -> Any:  # noqa: ANN401
    """Open the data set by torchvision; name the file if one is missing or damaged."""
    published = _find_class(name)
    try:
        return published(root, download=download, **part)
    except (RuntimeError, URLError) as error:
        if download:
            raise ConnectionError(
                f"{name} cannot be downloaded to {str(root)!r} ({' '.join(str(error).split())}); "
                "fetch it where there is a network and give the folder that holds it as root"
            ) from error
        _check_files(name, root / published.base_folder, published)
        raise


def _check_files(name: str, folder: Path, published: Any) -> None:  # noqa: ANN401
    from torchvision.datasets.utils import check_integrity

    files = [*published.train_list, *published.test_list]
    if hasattr(published, "meta"):
        files.append((published.meta["filename"], published.meta["md5"]))
    for file, md5 in files:
        if not (folder / file).is_file():
            raise FileNotFoundError(
                f"no {name} in {str(folder.parent)!r}: there is no {str(folder / file)!r}; give "
                f"the folder that holds {folder.name}/, or download=True to fetch it"
            )
        if not check_integrity(folder / file, md5):
            raise FileFormatError(
                f"{str(folder / file)!r} is not the published file, by its MD5; remove it and give "
                "download=True to fetch it again"
            )


def _find_idx(folders: Iterable[Path], name: str) -> Path:
    """Return the path of a file, or of its gzipped `.gz`, in the first folder that has it.

    Raises:
        FileNotFoundError: No folder has it.
    """
    tried = [folder / file for folder in folders for file in (name, f"{name}.gz")]
    for path in tried:
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"no {name} or {name}.gz in {' or '.join(repr(str(path.parent)) for path in tried[::2])}; "
        "give download=True to fetch it"
    )


def _read_idx(path: Path, axes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Read the array of unsigned bytes of an idx file, gzipped or not.

    An idx file holds two zero bytes, 8 for unsigned bytes, the number of axes, the length of each
    axis as a big-endian int of four bytes, and the values.

    Raises:
        FileFormatError: The file holds something else, or not all of it.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = bytearray(file.read())  # torch warns of arrays that are not writable
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise FileFormatError(f"{str(path)!r} cannot be unzipped: {error}") from error
    start = 4 + 4 * axes
    if content[:4] != _BYTES + bytes([axes]) or len(content) < start:
        raise FileFormatError(f"{str(path)!r} is no idx file of bytes with {axes} axes")
    shape = struct.unpack(f">{axes}I", content[4:start])
    if len(content) != start + math.prod(shape):
        raise FileFormatError(
            f"{str(path)!r} should hold {' × '.join(map(str, shape))} bytes, and holds "
            f"{len(content) - start}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
