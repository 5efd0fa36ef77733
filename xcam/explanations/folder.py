"""Maps in a folder: written by an evaluation, or made by anyone and found by image id."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from xcam.core import Explanation, Method, explanation_file
from xcam.errors import FileFormatError
from xcam.explanations.arrays import read_array, write_array
from xcam.explanations.loading import load_explanation
from xcam.runs import files, manifest
from xcam.sentences import escape_name

__all__ = ["StoredMaps", "find_map", "read_batch", "read_maps", "write_array", "write_maps"]

_HEADER = "xcam.maps"
_FORMAT = 2
_REMEDY = "remove it, and call the xcam.evaluate(…, save_maps=True) that wrote it again"


def write_maps(
    path: Path,
    maps: Tensor,
    ids: Sequence[str],
    targets: Sequence[int],
    class_specific: bool = True,
    names: Sequence[str] = (),
) -> None:
    """Write the maps of a batch in half precision, each divided by its largest magnitude.

    Args:
        path: The file; its folder is made where it is missing.
        maps: (B, h, w), at their own resolution, or (B, C, h, w) with channels.
        ids: Of the images.
        targets: The class that each map is of.
        class_specific: Whether the map depends on the class, as the method's spec says; a map that
            does not counts for any class.
        names: Of these classes, one a map, if they are known.
    """
    files.create_folder(path.parent)
    scale = maps.abs().flatten(1).amax(1)
    unit = maps / scale.where(scale > 0, 1).view(-1, *[1] * (maps.ndim - 1))
    tensors = {
        "maps": unit.half().cpu().contiguous(),
        "scale": scale.float().cpu(),
        "target": torch.tensor(targets, dtype=torch.int64),
    }
    header = {"format": _FORMAT, "ids": list(ids), "class_specific": class_specific}
    if names:
        header["names"] = list(names)
    with files.writing(path) as partial:
        files.write_tensors(partial, tensors, _HEADER, header)


def read_maps(path: Path, remedy: str = _REMEDY) -> tuple[Tensor, Tensor]:
    """Read what `write_maps` wrote: the maps, each divided by its scale, and the scales (B,).

    They map the file: what is not used takes no memory.

    Args:
        path: The file.
        remedy: What to do with a damaged file; for the messages.

    Raises:
        FileNotFoundError: There is no such file.
        FileFormatError: It is damaged, or no file of maps.
    """
    _, tensors = files.read_tensors(path, _HEADER, _FORMAT, remedy)
    try:
        return tensors["maps"], tensors["scale"]
    except KeyError as error:
        raise files.describe_damaged_header(path, error, remedy) from error


def find_map(path: Path, name: str, target: int) -> tuple[Tensor, str] | None:
    """Find the map of an image and a class in a file that `write_maps` wrote.

    Args:
        path: The file.
        name: The image's id.
        target: The class.

    Returns:
        The map, (h, w) float32, and the name of the class, empty if the file has none; None if
        there is no such map, or no file.

    Raises:
        FileFormatError: The file is damaged, or holds no maps.
    """
    if not path.exists():
        return None
    maps = read_batch(path)
    found = maps.get((name, target), maps.get((name, None)))
    return None if found is None else (found, _read_keys(path)[1].get(target, ""))


_Key: TypeAlias = tuple[str, "int | None"]  # an image's id, and the class if the map is of one


@dataclass(frozen=True)
class _Place:
    """Where a map is: a file and, where that holds many, which of them."""

    path: Path
    row: int | None = None


def read_batch(path: Path) -> dict[tuple[str, int | None], Tensor]:
    """Read the maps of a batch that `write_maps` wrote, (h, w) float32 each.

    Args:
        path: The file.

    Returns:
        The maps by their image's id and class, None if they count for any.

    Raises:
        FileFormatError: It is damaged, or no file of maps.
    """
    keys = _read_keys(path)[0]
    if keys is None:
        raise FileFormatError(f"{str(path)!r} is no file of maps; {_REMEDY}")
    return dict(zip(keys, _read_tensors(path)[0], strict=True))


class StoredMaps:
    """The maps of a folder by image id.

    They are what an evaluation with `save_maps=True` wrote; an `Explanation` of one image saved as
    `<id>.safetensors`; and arrays in `<id>.npy`. An id may have slashes, and its file may lack the
    suffix of the picture: `n01/cat.jpg` is in `n01/cat.jpg.npy` or `n01/cat.npy`. Maps of a method
    that is not class-specific count for any class, and so do arrays.

    An array is (h, w), or has an axis of channels, first or last: the one of length 1; else the
    last if it is of 3 or 4, refused where another axis is, too, since either may be meant; else the
    first. Channels are summed, also those of stored maps. Those of bytes (uint8) must be equal, a
    grey picture as LFI-CAM's code stores its attention, and any one of them is the map. Bytes of
    several colours are a picture and no map, and refused.

    Args:
        folder: To read from.

    Attributes:
        categories: The names of the classes that the maps are of, by number, where they are stored.

    Raises:
        FileNotFoundError: There is no such folder, or none of these files in it.
        FileFormatError: One of them is damaged.
        ValueError: There are two maps of an image.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise FileNotFoundError(f"no folder of maps at {str(self.folder)!r}")
        self._places: dict[_Key, _Place] = {}
        self.categories: dict[int, str] = {}
        for path in sorted(self.folder.rglob("*")):
            if path.suffix in (".npy", ".safetensors") and not path.name.startswith("."):
                self._add(path)
        if not self._places:
            raise FileNotFoundError(
                f"{str(self.folder)!r} holds no maps; give a folder of .npy or .safetensors files"
            )
        self._held: tuple[Path, list[Tensor], int | None] | None = None

    def __call__(self, images: Tensor, ids: Sequence[str], target: Tensor) -> list[Tensor]:
        """Return the map of each image, (h, w) float32, each at its own resolution.

        Raises:
            FileNotFoundError: An image has no map here.
            ValueError: A map was made for another class than the one that is explained, or is none.
        """
        pairs = zip(ids, target.tolist(), strict=True)
        return [self._find_map(name, wanted).float() for name, wanted in pairs]

    def renumber(self, numbers: Mapping[int, int]) -> StoredMaps:
        """Return these maps with other numbers for the classes that they are of."""
        other = copy.copy(self)
        other._places = {
            (name, number if number is None else numbers.get(number, number)): place
            for (name, number), place in self._places.items()
        }
        return other

    @property
    def ids(self) -> list[str]:
        """Return the ids of the images that have maps, sorted."""
        return sorted({name for name, _ in self._places})

    def load(self, name: str) -> Tensor:
        """Load the map of an image, (h, w), of whatever class.

        Bytes stay uint8, other integers become int64, all else float32.

        Raises:
            FileNotFoundError: The image has no map here.
            ValueError: It has several, of several classes, or one that is no map.
        """
        keys = [key for key in self._places if key[0] == name]
        if not keys:
            raise _make_missing_error(name, 0, [], self.folder)
        if len(keys) > 1:
            classes = ", ".join(str(of) for _, of in keys)
            raise ValueError(
                f"{str(self.folder)!r} holds maps of image {name!r} for the classes {classes}; "
                "give a folder with one map an image"
            )
        place = self._places[keys[0]]
        return _select(place, self._read(place.path)[0])

    def digest(self) -> str:
        """Hash the files' names and sizes, and the content of the first one."""
        paths = sorted({place.path for place in self._places.values()})
        listed = (
            os.fsencode(f"{path.relative_to(self.folder).as_posix()} {path.stat().st_size}")
            for path in paths
        )
        return manifest.digest([*listed, paths[0].read_bytes()])

    def _add(self, path: Path) -> None:
        name = escape_name(path.relative_to(self.folder).with_suffix("").as_posix())
        content, names = _read_keys(path) if path.suffix == ".safetensors" else (None, {})
        for number, category in names.items():
            if self.categories.setdefault(number, category) != category:
                raise ValueError(
                    f"{str(self.folder)!r} holds maps of class {number} of two models, "
                    f"{self.categories[number]!r} and {category!r}; give a folder with those of one"
                )
        keys: list[_Key] = [(name, None)] if content is None else content
        for row, key in enumerate(keys):
            place = _Place(path, None if content is None else row)
            there = self._places.setdefault(key, place)
            # An image may be in a data set twice, but two folders are two methods.
            if there != place and (content is None or there.path.parent != path.parent):
                raise ValueError(
                    f"{str(there.path)!r} and {str(path)!r} both have a map of image {key[0]!r}; "
                    "give a folder with the maps of one method"
                )

    def _find_map(self, name: str, wanted: int) -> Tensor:
        bare = Path(name).with_suffix("").as_posix()
        keys: list[_Key] = [(name, wanted), (name, None), (bare, None)]
        place = next((self._places[key] for key in keys if key in self._places), None)
        if place is None:
            others = sorted(of for image, of in self._places if image == name and of is not None)
            raise _make_missing_error(name, wanted, others, self.folder)
        maps, target = self._read(place.path)
        single = _select(place, maps)
        if target is not None and target != wanted:
            raise _make_missing_error(name, wanted, [target], self.folder)
        return single

    def _read(self, path: Path) -> tuple[list[Tensor], int | None]:
        if self._held is None or self._held[0] != path:  # a batch's maps are mostly in one file
            read = read_array if path.suffix == ".npy" else _read_tensors
            self._held = (path, *read(path))
        return self._held[1:]


def _select(place: _Place, maps: list[Tensor]) -> Tensor:
    if place.row is not None:
        return maps[place.row]
    if len(maps) != 1:
        raise ValueError(f"{str(place.path)!r} must hold the map of one image, got {len(maps)}")
    return maps[0]


def _make_missing_error(name: str, wanted: int, others: Sequence[int], folder: Path) -> Exception:
    if not others:
        return FileNotFoundError(f"no map of image {name!r} in {str(folder)!r}")
    return ValueError(
        f"the map of image {name!r} is of class {', '.join(map(str, others))}, and class {wanted} "
        "is needed; score with the target, 'label' or 'predicted', and the model that maps are of"
    )


def _read_keys(path: Path) -> tuple[list[_Key] | None, dict[int, str]]:
    """Return the image and class of each map in a file of a batch, and the names of the classes.

    There is None of an explanation.
    """
    kind = files.read_kind(path)
    if kind == explanation_file.KEY:
        return None, {}
    if kind != _HEADER:
        raise FileFormatError(f"{str(path)!r} is damaged, or no file of maps; {_REMEDY}")
    # All of it, as a name or a class with a flipped bit would be another's.
    fields, tensors = files.read_tensors(path, _HEADER, _FORMAT, _REMEDY)
    try:
        targets = tensors["target"].tolist()
        ids = list(map(str, fields["ids"]))
        if not fields.get("class_specific", True):
            return [(name, None) for name, _ in zip(ids, targets, strict=True)], {}
        names = dict(
            zip(targets, map(str, fields["names"]), strict=True) if "names" in fields else ()
        )
        return list(zip(ids, targets, strict=True)), names
    except (KeyError, TypeError, ValueError) as error:
        raise files.describe_damaged_header(path, error, _REMEDY) from error


def _read_tensors(path: Path) -> tuple[list[Tensor], int | None]:
    """Read the maps of a file, and the class of the map of an explanation."""
    if _read_keys(path)[0] is None:
        explanation = load_explanation(path)
        return list(explanation.reduced), _find_class(explanation)
    maps, scale = read_maps(path)
    whole = maps.float() * scale.view(-1, *[1] * (maps.ndim - 1))
    return list(whole if whole.ndim == 3 else whole.sum(1)), None


def _find_class(explanation: Explanation) -> int | None:
    """Return the class that the first map explains; None if it counts for any."""
    method, target = explanation.method, explanation.target
    of_any = isinstance(method, Method) and not method.spec.class_specific
    return None if of_any or target is None else int(target[0])
