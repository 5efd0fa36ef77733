"""`Explanation`: the frozen result of explaining a batch."""

from __future__ import annotations

import warnings as _warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from xcam import imaging
from xcam.core.method import Method
from xcam.errors import XcamWarning

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Explanation", "SavedMethod"]


@dataclass(frozen=True)
class SavedMethod:
    """The recipe of a method that is not installed where its explanation is loaded."""

    name: str
    values: tuple[tuple[str, Any], ...]

    def parameters(self) -> dict[str, Any]:
        """The hyper-parameters by name, as they were saved."""
        return dict(self.values)


@dataclass(frozen=True, eq=False)
class Explanation:
    """Maps of a batch of images, and everything needed to make them again.

    Attributes:
        maps: (B, H, W) float32 at the images' size, raw and signed.
        raw: What the method gave: (B, h, w) at the layer's size, or (B, C, H, W) an element.
        target: (B,) int64, the class explained; None if a callable chose the score.
        logits: (B, K) of the clean images; None if the output holds no such tensor.
        method: The method with the layer that was really used: its repr is the recipe.
        warnings: What the reader should know, a sentence each.
    """

    maps: Tensor
    raw: Tensor
    target: Tensor | None
    logits: Tensor | None
    method: Method | SavedMethod
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        """The number of images."""
        return len(self.maps)

    def __iter__(self) -> Iterator[Explanation]:
        """One explanation of a single image after the other."""
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Explanation:
        """The explanation of some of the images, always a batch.

        Args:
            index: An int (negative from the end), a slice, or a sequence, array or tensor of
                either ints or booleans.

        Raises:
            IndexError: There is no such image.
        """
        chosen = _positions(index, len(self)).to(self.maps.device)

        def pick(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[chosen.to(values.device)]

        maps = self.maps[chosen]
        return replace(
            self,
            maps=maps,
            raw=self.raw[chosen.to(self.raw.device)],
            target=pick(self.target),
            logits=pick(self.logits),
            warnings=(*self._general_warnings(), *notes_on(maps)),
        )

    @staticmethod
    def cat(parts: Sequence[Explanation]) -> Explanation:
        """Joins explanations of the same method over more images.

        Raises:
            ValueError: No parts, parts of different methods, or maps of different sizes.
        """
        if not parts:
            raise ValueError("no explanations to join")
        first = parts[0]
        for part in parts[1:]:
            if repr(part.method) != repr(first.method):
                raise ValueError(f"cannot join {part.method!r} to {first.method!r}")
            if part.maps.shape[1:] != first.maps.shape[1:]:
                sizes = f"{tuple(part.maps.shape[1:])} to {tuple(first.maps.shape[1:])}"
                raise ValueError(f"cannot join maps of size {sizes}")

        def join(name: str) -> Tensor | None:
            values = [getattr(part, name) for part in parts]
            return None if any(value is None for value in values) else torch.cat(values)

        maps = torch.cat([part.maps for part in parts])
        general = dict.fromkeys(note for part in parts for note in part._general_warnings())
        return Explanation(
            maps=maps,
            raw=torch.cat([part.raw for part in parts]),
            target=join("target"),
            logits=join("logits"),
            method=first.method,
            warnings=(*general, *notes_on(maps)),
        )

    def normalized(self, relu: bool = True) -> Tensor:
        """Maps for pictures, in [0, 1] an image.

        m = (r − min r) / (max r − min r) with r = max(map, 0), or r = map if not `relu`. A map
        that is flat then (or negative everywhere) becomes zeros, with a warning.

        Returns:
            (B, H, W) float32.
        """
        for note in notes_on(self.maps, negative=relu):
            _warnings.warn(note, XcamWarning, stacklevel=2)
        return imaging.normalize(self.maps.clamp(min=0) if relu else self.maps)

    def overlay(self, images: Tensor, alpha: float = 0.6, colors: str = "turbo") -> Tensor:
        """The images under their normalized maps in colour, opaque where the map is high.

        The map of a pixel method, a few bright dots, is smoothed and brightened first.

        Args:
            images: (B, C, H, W), C of 1 or 3; an image that leaves [0, 1] is stretched into it.
            alpha: Opacity at the map's maximum, in [0, 1].
            colors: A matplotlib colour map.

        Returns:
            (B, 3, H, W) float32 in [0, 1].
        """
        self._check(images)
        maps = self.normalized()
        if self.raw.ndim == 4:
            maps = imaging.brighten(maps)
        return imaging.overlay(images, maps, alpha, colors)

    def plot(
        self, images: Tensor, path: str | Path | None = None, categories: Sequence[str] = ()
    ) -> Figure:
        """Draws each image beside its overlay.

        Args:
            images: (B, C, H, W), the images that were explained.
            path: Where to write the picture (PNG, PDF, SVG by suffix); None to only return it.
            categories: Names of the classes, for the titles.
        """
        from xcam.explanations import figures

        self._check(images)
        return figures.plot(self, images, path, categories)

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file; see `xcam.explanations.saving.save_explanation`."""
        from xcam.explanations import saving as explanations

        explanations.save_explanation(self, path)

    @staticmethod
    def load(path: str | Path) -> Explanation:
        """Reads what `save` wrote; see `xcam.explanations.saving.load_explanation`."""
        from xcam.explanations import saving as explanations

        return explanations.load_explanation(path)

    def _general_warnings(self) -> list[str]:
        """The warnings that do not number an image: numbers change when images are chosen."""
        numbered = notes_on(self.maps)
        return [note for note in self.warnings if note not in numbered]

    def _check(self, images: Tensor) -> None:
        if not isinstance(images, Tensor):
            raise TypeError(f"images must be a torch tensor, got {type(images).__name__}")
        expected = (len(self), *self.maps.shape[1:])
        if images.ndim != 4 or (len(images), *images.shape[2:]) != expected:
            raise ValueError(
                f"the explanation is of {expected[0]} images of {expected[1]}×{expected[2]}, "
                f"got images of shape {tuple(images.shape)}"
            )


def notes_on(maps: Tensor, negative: bool = True) -> list[str]:
    """A sentence for each map of (B, H, W) that is flat or, if asked for, nowhere positive."""
    flat = imaging.is_flat(maps)
    nowhere = (maps.flatten(1).amax(1) <= 0) & negative
    if not bool((flat | nowhere).any()):
        return []
    notes = []
    for image, kinds in enumerate(zip(flat.tolist(), nowhere.tolist(), strict=True)):
        if kinds[0]:
            notes.append(f"image {image}: the map is flat, it points nowhere")
        elif kinds[1]:
            notes.append(f"image {image}: no value is positive, nothing speaks for the target")
    return notes


def _positions(index: object, count: int) -> Tensor:
    """What an index of any kind chooses of `count` images, as int64 positions."""
    values: Any = index.cpu().numpy() if isinstance(index, Tensor) else index
    try:
        chosen = np.atleast_1d(
            np.arange(count)[list(values) if isinstance(values, tuple) else values]
        )
    except IndexError as error:
        raise IndexError(f"image {index!r} of an explanation of {count} images") from error
    if chosen.ndim != 1:
        raise IndexError(f"the index of an explanation must be flat, got shape {chosen.shape}")
    return torch.from_numpy(chosen.copy())
