"""Several evaluations in one folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from xcam.results.parts import name_images
from xcam.results.store import FREE, GROWING, Store
from xcam.runs.manifest import extend, list_differences

__all__ = ["merge_folders"]

_Record: TypeAlias = "dict[str, Any]"
_Key: TypeAlias = "tuple[str, str, str]"  # model, method and metric
_FORMAT = 2  # of the manifests that list what identifies images


def merge_folders(folders: Sequence[Path], out: Path) -> None:
    """Write the rows of several evaluations to a new folder; where two have a row, the first's.

    Args:
        folders: Of the evaluations.
        out: The new folder.

    Raises:
        ValueError: They are different evaluations, each difference named, or `out` is not new.
        FileFormatError: One of them is damaged.
        OSError: `out` cannot be written to.
    """
    stores, new = [Store(folder) for folder in folders], Store(out)
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{str(out)!r} is not empty; give a new folder")
    manifest = _merge_manifests(stores)
    images = [_ImagesOf(store) for store in stores]
    _check_labels(images)
    positions = _number_images(images)
    with new.run.lock():
        new.open({**manifest, "images": {"count": len(positions)}})
        for number, records in enumerate(_merge_parts(images, positions)):
            new.write_records(number, records)


class _ImagesOf:
    """The images of an evaluation by name, and the parts that they are in."""

    def __init__(self, store: Store) -> None:
        """Read the parts."""
        self.store = store
        self.parts = {number: store.read_part(number) for number in store.list_done()}
        there = sorted(
            (index, number, name)
            for number, part in self.parts.items()
            for index, name in part.images.items()
        )
        self.names = name_images(((index, number), name) for index, number, name in there)
        self.indices = {name: index for (index, _), name in self.names.items()}
        self.numbers = {name: number for (_, number), name in self.names.items()}

    def list_names(self, number: int) -> list[str]:
        """List the names of the images of a part."""
        return [self.names[index, number] for index in self.parts[number].images]

    def read(self, number: int) -> Iterator[tuple[str, _Record]]:
        """Yield the rows of a part, each with its image's name."""
        for row in self.store.read_rows(number):
            yield self.names[row["index"], number], row

    def list_labels(self) -> dict[tuple[str, str], int]:
        """List the labels by model and image."""
        return {
            (model, self.names[index, number]): label
            for number, part in self.parts.items()
            for (model, index), label in part.labels.items()
        }


def _merge_manifests(stores: Sequence[Store]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for store in stores:
        content = store.read_manifest()
        if content.get("format") != _FORMAT:
            raise ValueError(
                f"{str(store.folder)!r} is no evaluation of format {_FORMAT}, but of "
                f"{content.get('format')}; evaluate anew to merge it"
            )
        merged = merged or content
        one, other = extend(merged, content, GROWING), extend(content, merged, GROWING)
        found = list(list_differences(*({**part, **dict.fromkeys(FREE)} for part in (one, other))))
        if found:
            first = str(stores[0].folder)
            raise ValueError(
                f"{str(store.folder)!r} is another evaluation than {first!r}, where it says "
                f"'there' ({'; '.join(found)}); merge those that share what they have in common"
            )
        merged = one
    for label in merged["methods"].keys() & merged["maps"].keys():
        raise ValueError(
            f"{label!r} is a method in one of the evaluations and maps in another; evaluate anew "
            "under another label"
        )
    return merged


def _check_labels(images: Sequence[_ImagesOf]) -> None:
    known: dict[tuple[str, str], int] = {}
    for one in images:
        for (model, name), label in one.list_labels().items():
            if known.setdefault((model, name), label) != label:
                raise ValueError(
                    f"image {name!r} has label {known[model, name]} in one of the evaluations and "
                    f"{label} in {str(one.store.folder)!r}; merge those of the same images"
                )


def _number_images(images: Sequence[_ImagesOf]) -> dict[str, int]:
    """Return the positions of all images: their own where these agree, else one after the other."""
    names = dict.fromkeys(name for one in images for name in one.indices)
    given = {(name, index) for one in images for name, index in one.indices.items()}
    if len(given) == len(names) == len({index for _, index in given}):
        return dict(given)
    return {name: place for place, name in enumerate(names)}


def _merge_parts(
    images: Sequence[_ImagesOf], positions: Mapping[str, int]
) -> Iterator[list[_Record]]:
    """Yield the rows of batches, in each of which all images have rows of the same."""
    done: set[str] = set()
    for place, one in enumerate(images):
        for number in one.parts:
            names = [name for name in one.list_names(number) if name not in done]
            rows: dict[str, dict[_Key, _Record]] = {name: {} for name in names}
            for other in images[place:]:
                for there in dict.fromkeys(other.numbers.get(name, -1) for name in names):
                    for name, row in other.read(there) if there >= 0 else ():
                        if name in rows:
                            key = row["model"], row["method"], row["metric"]
                            rows[name].setdefault(key, {**row, "index": positions[name]})
            alike: dict[frozenset[_Key], list[_Record]] = {}
            for found in rows.values():
                alike.setdefault(frozenset(found), []).extend(found.values())
            yield from alike.values()
            done.update(names)
