"""`Note`: something that the reader of an explanation should know."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from xcam import imaging

__all__ = ["Note", "map_notes"]


class Note(NamedTuple):
    """Something that the reader of an explanation should know.

    Attributes:
        image: The index of the image that it is about; None for all of them.
        text: A sentence.
    """

    image: int | None
    text: str

    def __str__(self) -> str:
        """Return the sentence, with the image's index in front if it is about one."""
        return self.text if self.image is None else f"image {self.image}: {self.text}"


def map_notes(maps: Tensor, negative: bool = True) -> list[Note]:
    """Return a note on each map of (B, H, W) that is flat or, if asked for, nowhere positive."""
    flat = imaging.is_flat(maps)
    nowhere = (maps.flatten(1).amax(1) <= 0) & negative
    if not bool((flat | nowhere).any()):
        return []
    notes = []
    for image, kinds in enumerate(zip(flat.tolist(), nowhere.tolist(), strict=True)):
        if kinds[0]:
            notes.append(Note(image, "the map is flat, it points nowhere"))
        elif kinds[1]:
            notes.append(Note(image, "no value is positive, nothing speaks for the target"))
    return notes
