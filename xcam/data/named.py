"""`load`: well-known data sets by name, split and transformed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xcam.data.arrays import ARRAYS
from xcam.data.layouts import LAYOUTS
from xcam.data.splits import Splits, apply_transforms, hold_out
from xcam.data.transforms import Size, Steps, make_pipeline, make_size_steps
from xcam.errors import unknown

__all__ = ["load"]


def load(
    name: str,
    root: str | Path,
    *,
    input_size: Size | None = None,
    crop_size: Size | None = None,
    train: Steps | None = None,
    test: Steps | None = None,
    validation: Mapping[str, Any] | None = None,
    lists: Mapping[str, str | Path] | None = None,
    download: bool = False,
) -> Splits:
    """Return the splits of a data set by name, as images in [0, 1] with labels.

    - `cifar10`, `cifar100`, `stl10`, `mnist`, `fashion_mnist`: the published files, in the folder
      that torchvision uses, such as `cifar-10-batches-py/`; STL-10's training split is its 5,000
      labeled images. The files of MNIST and Fashion-MNIST may also be in `root` itself, gzipped or
      not. Images are held in memory.
    - `folder`: `train/` and `val/`, with a folder a class. `val/` is the test split, unless there
      is `test/` too: then it is the validation split.
    - `imagenet`: `train/` and `val/`, the test split. Either has a folder a class, or all pictures
      in one folder and their labels in a list.
    - `list`: a list of files and labels for each split.
    - `cub`: CUB-200-2011 as it is published.
    - `imagenetv2`: a test split, with a folder a class that is named by its number.
    - `wsol`: CUB, ImageNet or OpenImages30k by the metadata of weakly supervised localization.
    - `voc`: Pascal VOC of one year, in `VOCdevkit/`. An image has several labels, (20,) bool, of
      the objects that are not marked as difficult. The lists are `trainval` and `test` where there
      is a `test`, as for 2007, or else `train` and `val`, the test split.

    CIFAR's files are pickles: torchvision compares their MD5 with the published one, then
    unpickles them.

    Args:
        name: The name of the data set, one of those above.
        root: The folder of the data set.
        input_size: The size that images are resized to (bilinear, antialiased): the shorter side in
            pixels, or (H, W) whatever their proportions. If neither size is given: 256 and a crop
            of 224 for pictures on disk, no change for images in memory.
        crop_size: The size that is cropped, (H, W) or one number for a square: at random and
            mirrored at random for training, the center for testing. None for `input_size`.
        train: Transforms for training in place of these: of `torchvision.transforms.v2`, by name,
            such as `[{"name": "RandomResizedCrop", "size": 224, "interpolation": "bicubic"}]`.
            They see bytes; the conversion to [0, 1] follows them. They draw from the global random
            generators.
        test: Transforms for validation and testing, likewise.
        validation: Training images to hold out: `{"fraction": 0.2, "seed": 223}`. All indices are
            shuffled by `numpy.random.RandomState(seed)`, and the first fraction of them is held
            out, with the transforms of testing.
        lists: For `list`, a file for any of `"train"`, `"validation"`, `"test"`, with lines of
            `file label` or `file,label`, the files being in `root`; see `listed`. For `imagenet`,
            one for `"train"` or `"test"`, with files in `train/` or `val/`, or with a label a
            line, from 0 to 999, in the order of the files' names. For `wsol`, a folder of metadata
            for any of the splits; see `wsol`.
        download: Whether to fetch published files that are missing.

    Returns:
        The splits, None for those that the data set does not have, and the names of the classes:
        torchvision's, or those of the folders; none for `list`.

    Raises:
        TypeError: A setting of the wrong kind, or an unknown name in it.
        ValueError: A setting out of its range, or for another data set than this one.
        UnknownNameError: There is no such data set or transform; the nearest are named.
        FileNotFoundError: The data set is missing; the message says what was looked for.
        FileFormatError: A file is damaged.
        ConnectionError: It cannot be downloaded.
    """
    use_default_size = name in LAYOUTS and input_size is None and crop_size is None
    steps = (
        make_size_steps(256, 224) if use_default_size else make_size_steps(input_size, crop_size)
    )
    training, testing = (
        make_pipeline(default if given is None else given)
        for default, given in zip(steps, (train, test), strict=True)
    )
    bare = _open(name, Path(root).expanduser(), lists or {}, download)
    splits = apply_transforms(bare, training, testing)
    return splits if validation is None else hold_out(splits, validation, testing)


def _open(name: str, root: Path, lists: Mapping[str, str | Path], download: bool) -> Splits:
    """Return the splits without transforms, their images as bytes."""
    if name not in (*ARRAYS, *LAYOUTS):
        raise unknown("data set", name, [*ARRAYS, *LAYOUTS])
    if lists and name not in ("imagenet", "list", "wsol"):
        raise ValueError(
            f"lists are for 'imagenet', 'list' and 'wsol', {name!r} has its own labels"
        )
    if name in ARRAYS:
        return ARRAYS[name](root, download)
    if download:
        raise ValueError(f"{name!r} cannot be downloaded; give the folder that holds it as root")
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {str(root)!r}")
    return LAYOUTS[name](root, lists)
