"""The metadata of weakly supervised object localization (Choe et al., 2020), as it is published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from xcam.core.instantiate import check_names
from xcam.data.files import Box, ImageFiles, Transform, make_transform
from xcam.data.instances import Instances
from xcam.data.lists import read_lines
from xcam.data.splits import Splits
from xcam.errors import FileFormatError
from xcam.sentences import escape_name, pluralize, quote_path

__all__ = ["is_wsol", "open_wsol", "wsol"]

_LABELS, _IDS, _TRUTH = "class_labels.txt", "image_ids.txt", "localization.txt"
_SHOWN = 3  # missing files that an error names
_DIGITS = 18  # of a label, which has to fit in int64


def is_wsol(folder: Path) -> bool:
    """Return whether a folder holds such metadata."""
    return (folder / _LABELS).is_file()


def wsol(
    metadata: str | Path,
    root: str | Path,
    size: int = 224,
    transform: Transform | None = None,
    with_truth: bool = True,
) -> ImageFiles:
    """Return the images of a split that a folder of metadata describes.

    The folder is one such as `metadata/OpenImages/test` of the published code, for CUB and CUBV2,
    ImageNet and ImageNetV2, and OpenImages30k: `class_labels.txt` with lines `file,label`;
    `image_ids.txt`, the order of the images, if there is one; and `localization.txt`, if there is
    one, with lines `file,x0,y0,x1,y1`, a line a box, or `file,mask,ignored`, a line an object. Its
    last column names the mask of what is to be ignored, once an image. Masks may have another size
    than their image, and are resized to it by the nearest pixel.

    Args:
        metadata: The folder.
        root: The folder that files are named from, such as `dataset/OpenImages`.
        size: The side of the images in pixels; see `folder`. The authors resize images to a square
            whatever their proportions: give a transform for that.
        transform: Applied to an image and its truth instead; see `ImageFiles`.
        with_truth: Whether to read boxes or masks.

    Raises:
        FileNotFoundError: There is no such folder or file, or files that it names are missing; the
            first of them are listed.
        FileFormatError: A line in another form; the message has its number. Or an image without a
            label, a box or a mask.
    """
    folder, files = Path(metadata).expanduser(), Path(root).expanduser()
    if not is_wsol(folder):
        raise FileNotFoundError(f"no metadata in {quote_path(folder)}: there is no {_LABELS}")
    labels = _read_labels(folder / _LABELS)
    listed = folder / _IDS
    names = [line.strip() for line in read_lines(listed)] if listed.is_file() else [*labels]
    names = [name for name in names if name]
    if not names:
        empty = listed if listed.is_file() else folder / _LABELS
        raise FileFormatError(f"{quote_path(empty)} names no images; get the metadata again")
    repeated = next((name for name, count in Counter(names).items() if count > 1), None)
    if repeated is not None:
        raise FileFormatError(f"{quote_path(listed)} names {repeated!r} twice; keep one of them")
    for name in names:
        if name not in labels:
            raise FileFormatError(f"{quote_path(folder / _LABELS)} has no label of {name!r}")
    paths = tuple(files / name for name in names)
    _check_files(paths, folder)
    truths: tuple[Path | tuple[Box, ...] | Instances, ...] = ()
    if with_truth and (folder / _TRUTH).is_file():
        truths = _read_truths(folder / _TRUTH, names, files)
    return ImageFiles(
        paths=paths,
        ids=tuple(map(escape_name, names)),
        labels=tuple(labels[name] for name in names),
        truths=truths,
        classes=(),
        transform=transform or make_transform(size),
    )


def open_wsol(root: Path, lists: Mapping[str, str | Path]) -> Splits:
    """Open a folder of metadata for each split; files are in the root."""
    if not lists:
        raise ValueError(
            "WSOL needs a folder of metadata for each split, such as "
            "lists={'train': 'metadata/CUB/train', 'test': 'metadata/CUB/test'}"
        )
    check_names("WSOL by metadata", lists, ["train", "validation", "test"])
    found = {name: wsol(path, root, with_truth=False) for name, path in lists.items()}
    return Splits(found.get("train"), found.get("validation"), found.get("test"), ())


def _read_labels(path: Path) -> dict[str, int]:
    labels = {}
    for number, line in enumerate(read_lines(path), start=1):
        name, comma, label = line.strip().rpartition(",")
        if not line.strip():
            continue
        if not comma or not (label.isascii() and label.isdigit()) or len(label) > _DIGITS:
            raise FileFormatError(
                f"line {number} of {quote_path(path)} must be 'file,label', got {line.strip()!r}"
            )
        if name in labels:
            raise FileFormatError(
                f"line {number} of {quote_path(path)} labels {name!r} again; keep one of the lines"
            )
        labels[name] = int(label)
    return labels


def _check_files(paths: tuple[Path, ...], named_in: Path) -> None:
    missing = [path for path in paths if not path.is_file()]
    if missing:
        some = ", ".join(map(quote_path, missing[:_SHOWN]))
        more = f" and {len(missing) - _SHOWN} more" * (len(missing) > _SHOWN)
        raise FileNotFoundError(
            f"{pluralize(len(missing), 'file')} of {quote_path(named_in)} missing: {some}{more}; "
            "root is the folder that files are named from there"
        )


def _parse_box(words: list[str], place: str) -> Box:
    x0, y0, x1, y1 = map(float, words)
    if x1 < x0 or y1 < y0:
        raise FileFormatError(
            f"{place} has a box that ends before it begins: {','.join(words)}, not x0,y0,x1,y1"
        )
    return x0, y0, x1, y1


def _read_truths(
    path: Path, names: list[str], root: Path
) -> tuple[tuple[Box, ...] | Instances, ...]:
    """Return the boxes, or the masks, of each image."""
    boxes: dict[str, list[Box]] = {}
    masks: dict[str, list[Path]] = {}
    ignored: dict[str, Path] = {}
    for number, line in enumerate(read_lines(path), start=1):
        words = line.strip().split(",")
        if words == [""]:
            continue
        if len(words) == 5 and all(word.isascii() and word.isdigit() for word in words[1:]):
            place = f"line {number} of {quote_path(path)}"
            boxes.setdefault(words[0], []).append(_parse_box(words[1:], place))
        elif len(words) == 3 and words[1]:
            masks.setdefault(words[0], []).append(root / words[1])
            if words[2]:
                ignored[words[0]] = root / words[2]
        else:
            raise FileFormatError(
                f"line {number} of {quote_path(path)} must be 'file,x0,y0,x1,y1' or "
                f"'file,mask,ignored', got {line.strip()!r}"
            )
    known: Mapping[str, object] = boxes or masks
    if boxes and masks:
        raise FileFormatError(f"{quote_path(path)} has lines with boxes and lines with masks")
    for name in names:
        if name not in known:
            raise FileFormatError(f"{quote_path(path)} has no box or mask of {name!r}")
    if boxes:
        return tuple(tuple(boxes[name]) for name in names)
    found = tuple(Instances(tuple(masks[name]), ignored.get(name)) for name in names)
    _check_files(tuple(file for one in found for file in one.files()), path)
    return found
