"""How an evaluation goes on in a folder that holds some of it: which batches lack what."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from xcam._evaluate.batches import Batches
from xcam.results.parts import Part, name_images

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """The batches of an evaluation: those that have rows as they are, then the new images.

    Attributes:
        groups: The positions of the images of each batch, by its number.
        parts: What there is of the batches that have rows, at these positions.
        moved: Of batches whose images had other positions, the new ones by the old.
    """

    groups: Mapping[int, Sequence[int]]
    parts: Mapping[int, Part]
    moved: Mapping[int, Mapping[int, int]]

    @classmethod
    def of(cls, batches: Batches, parts: Mapping[int, Part]) -> Plan:
        """Find the images that have rows among those of the data, by their ids.

        Args:
            batches: Of all the images.
            parts: What there is of each batch that has rows.

        Raises:
            ValueError: Images that have rows are not in the data; or of batches that the caller
                made, some are not together in one.
        """
        selected = itertools.chain.from_iterable(batches.groups)
        names = name_images((index, batches.ids[index]) for index in selected)
        positions = {name: index for index, name in names.items()}
        there = sorted(
            (old, number, name) for number, part in parts.items()
            for old, name in part.images.items()
        )  # fmt: skip
        named = name_images(((old, number), name) for old, number, name in there)
        gone = [name for name in named.values() if name not in positions]
        if gone:
            others = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
            raise ValueError(f"images: {gone[0]!r}{others} there, and not among those now")
        new: dict[int, dict[int, int]] = {number: {} for number in parts}
        for (old, number), name in named.items():
            new[number][old] = positions[name]
        groups = {number: tuple(sorted(images.values())) for number, images in new.items()}
        if not batches.size:
            _check_own_batches(batches, groups)
        taken = set(itertools.chain.from_iterable(groups.values()))
        numbers = (number for number in itertools.count() if number not in parts)
        groups |= dict(zip(numbers, _group_rest(batches, taken), strict=False))
        return cls(
            dict(sorted(groups.items())),
            {number: _move(part, new[number]) for number, part in parts.items()},
            {n: images for n, images in new.items() if any(o != i for o, i in images.items())},
        )

    def check_labels(self, labels: Mapping[str, Mapping[int, int]]) -> None:
        """Refuse images that have rows of another label than they have now.

        Args:
            labels: The labels of images by position, as each model numbers them.

        Raises:
            ValueError: There is one.
        """
        for part in self.parts.values():
            for (model, index), label in part.labels.items():
                now = labels.get(model, {}).get(index, label)
                if now != label:
                    raise ValueError(
                        f"image {part.images[index]!r}: label {label} there, {now} now"
                    )


def _group_rest(batches: Batches, taken: set[int]) -> Iterator[tuple[int, ...]]:
    """Yield the images that have no rows in batches of the usual size, or those of the caller."""
    rest = [tuple(index for index in group if index not in taken) for group in batches.groups]
    if not batches.size:
        yield from filter(None, rest)
        return
    joined = tuple(itertools.chain.from_iterable(rest))
    for start in range(0, len(joined), batches.size):
        yield joined[start : start + batches.size]


def _check_own_batches(batches: Batches, groups: Mapping[int, Sequence[int]]) -> None:
    batch_by_image = {i: number for number, group in enumerate(batches.groups) for i in group}
    for group in groups.values():
        if len({batch_by_image[index] for index in group}) > 1:
            raise ValueError(f"images: {group[0]} to {group[-1]} in one batch there, and not now")


def _move(part: Part, indices: Mapping[int, int]) -> Part:
    return replace(
        part,
        images={indices[old]: name for old, name in part.images.items()},
        labels={(model, indices[old]): label for (model, old), label in part.labels.items()},
    )
