"""ImageNet's validation set as it lies on people's disks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from xcam.data.files import ImageFiles, Transform, folder

__all__ = ["imagenet_val"]


def imagenet_val(
    root: str | Path,
    labels: str | Path | None = None,
    size: int = 224,
    transform: Transform | None = None,
) -> ImageFiles:
    """ImageNet's validation images in the order of their numbers, whatever their layout.

    `root` holds either a folder a class (`n01440764/ILSVRC2012_val_00000293.JPEG`), or all images
    (`ILSVRC2012_val_00000001.JPEG`). Both give the same images at the same index, so that "the
    first 10,000" means one thing. Ids are the files' names.

    Args:
        root: The folder.
        labels: For images in one folder: a text file with a number from 0 a line, in the order of
            the images' names, where class 0 is n01440764, as in torchvision and timm. None for
            images without labels. The devkit's own numbers, 1 to 1000 in another order, are not
            these. For lines of `file label` there is `listed`.
        size: As of `folder`.
        transform: As of `folder`.

    Raises:
        FileNotFoundError: There is no such folder or file, or no picture in it.
        ValueError: Not one label an image, or labels out of range; labels for images that lie in
            folders of their classes.
    """
    found = folder(root, size, transform)
    order = sorted(range(len(found)), key=lambda index: found.paths[index].name)
    if labels is not None and found.labels:
        raise ValueError(f"{str(root)!r} has a folder a class, so there is no use for {labels!r}")
    own = tuple(found.labels[index] for index in order) if found.labels else ()
    return dataclasses.replace(
        found,
        paths=tuple(found.paths[index] for index in order),
        ids=tuple(found.paths[index].name for index in order),
        labels=own if labels is None else _numbers(Path(labels), len(found)),
    )


def _numbers(path: Path, images: int) -> tuple[int, ...]:
    if not path.is_file():
        raise FileNotFoundError(f"no list of labels at {str(path)!r}")
    words = path.read_text("utf-8-sig").split()
    for number, word in enumerate(words, start=1):
        if not (word.isascii() and word.isdigit()) or int(word) > 999:
            raise ValueError(
                f"line {number} of {str(path)!r} must be a class from 0 to 999, got {word!r}; the "
                "devkit's numbers, 1 to 1000, are in another order and must be mapped first"
            )
    if len(words) != images:
        raise ValueError(f"{str(path)!r} has {len(words)} labels for {images} images")
    return tuple(map(int, words))
