"""`Note`: something that the reader of an explanation should know."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import Tensor

from xcam import imaging

__all__ = ["Note", "join_notes", "map_notes", "select_notes"]


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


def select_notes(notes: Iterable[Note], images: Sequence[int]) -> tuple[Note, ...]:
    """Return the notes on all images, and those on some of them, which are numbered anew."""
    notes = tuple(notes)
    chosen = [note for note in notes if note.image is None]
    for new, old in enumerate(images):
        chosen += [Note(new, note.text) for note in notes if note.image == old]
    return tuple(chosen)


def join_notes(parts: Iterable[tuple[int, Iterable[Note]]]) -> tuple[Note, ...]:
    """Join the notes of several batches, given with their numbers of images."""
    general: dict[Note, None] = {}  # which keeps each once, in their order
    numbered, start = [], 0
    for count, notes in parts:
        for note in notes:
            if note.image is None:
                general[note] = None
            else:
                numbered.append(Note(start + note.image, note.text))
        start += count
    return (*general, *numbered)


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
