"""`Explanation`: the frozen result of explaining a batch."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from xcam import imaging
from xcam.core import drawing, figures
from xcam.core.captions import make_captions
from xcam.core.explanation_file import write_explanation
from xcam.core.explanation_page import write_explanation_page
from xcam.core.maps import check_maps, check_place, find_positions, reduce_channels
from xcam.core.method import Method, SavedMethod
from xcam.core.notes import Note, join_notes, map_notes, select_notes
from xcam.core.target import Target, TargetLike
from xcam.errors import warn
from xcam.imaging import Pictures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Explanation"]

_MAX_SHOWN = 8  # targets in a repr


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """Maps of a batch of images, and everything needed to make them again.

    Attributes:
        raw: (B, h, w) float32 at the layer's size, or (B, C, H, W) with a value for each channel
            of a pixel: what the method returned, signed.
        size: (H, W) of the images.
        target: (B,) int64, the class explained; None if a callable chose the score.
        logits: (B, K) of the clean images; None if the output holds no such tensor.
        method: The method with the layer that was really used: its repr is the recipe.
        run_notes: What was noted while the maps were made; `notes` adds those on the maps.
        contrast: (B,) int64, the class whose map was subtracted, at one value a pixel; None if none
            was.
        categories: The names of the model's classes, in the order of the logits; empty if it names
            none.
    """

    raw: Tensor
    size: tuple[int, int]
    target: Tensor | None
    logits: Tensor | None
    method: Method | SavedMethod
    run_notes: tuple[Note, ...] = ()
    contrast: Tensor | None = None
    categories: tuple[str, ...] = ()

    @staticmethod
    def of(
        maps: Tensor | np.ndarray[Any, Any] | Sequence[Any],
        images: Tensor,
        target: TargetLike = None,
        logits: Tensor | None = None,
        method: Method | SavedMethod | str = "maps",
    ) -> Explanation:
        """Return an explanation with maps that were made elsewhere.

        Args:
            maps: (B, h, w) of any resolution, or (B, C, h, w), whose channels are summed (or
                reduced as the method's `reduce` says): a tensor, an array, or a sequence of B maps
                of one shape. A copy is kept, as float32, on the images' device.
            images: (B, C, H, W), the images that the maps belong to.
            target: The class that each map explains, as in `xcam.explain`; None for the predicted
                class if there are `logits`, else for an unknown one.
            logits: (B, K), the model's output for the images.
            method: What made the maps: a `Method`, or any name.

        Raises:
            TypeError: The maps are not numeric, or the images are not a tensor.
            ValueError: There is not one finite map for each image, or the target does not fit.
        """
        made_by = SavedMethod(method, is_foreign=True) if isinstance(method, str) else method
        if not isinstance(images, Tensor) or images.ndim != 4:
            got = getattr(images, "shape", type(images).__name__)
            raise TypeError(f"images must be a (B, C, H, W) torch tensor, got {got}")
        raw = check_maps(maps, len(images), made_by.spec.name)
        aim = Target.of(target, images)
        if logits is not None:
            aim.bind(logits)
        size = (images.shape[2], images.shape[3])
        return Explanation(raw.to(images.device), size, aim.classes, aim.logits, made_by)

    @cached_property
    def maps(self) -> Tensor:
        """Return the maps at the images' size: (B, H, W) float32, signed."""
        return imaging.resize(self.reduced, self.size)

    @property
    def reduced(self) -> Tensor:
        """Return the maps at their own resolution, (B, h, w), one value a pixel."""
        reduce = self.method.parameters().get("reduce", "sum")
        return reduce_channels(self.raw, "sum" if self.contrast is not None else reduce)

    @cached_property
    def notes(self) -> tuple[Note, ...]:
        """Return the notes of the run, and one on each map that is flat or nowhere positive."""
        return (*self.run_notes, *map_notes(self.maps))

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that it holds, with a row an image, by their fields."""
        held = {name: getattr(self, name) for name in ("raw", "target", "logits", "contrast")}
        return {name: one for name, one in held.items() if one is not None}

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return the notes as sentences."""
        return tuple(map(str, self.notes))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.raw)

    def __iter__(self) -> Iterator[Explanation]:
        """Iterate over the images, each as an explanation of a batch of one."""
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Explanation:
        """Return the explanation of some of the images, always a batch.

        Args:
            index: An int (negative from the end), a slice, or a sequence, array or tensor of
                either ints or booleans.

        Raises:
            IndexError: There is no such image.
        """
        chosen = find_positions(index, len(self))
        found = {name: one[chosen.to(one.device)] for name, one in self.tensors().items()}
        notes = select_notes(self.run_notes, chosen.tolist())
        part = replace(self, run_notes=notes, **found)  # type: ignore[arg-type]  # as in `to`
        return _with_maps(part, self.maps[chosen.to(self.maps.device)])

    @staticmethod
    def cat(parts: Sequence[Explanation]) -> Explanation:
        """Join explanations of the same method over more images.

        Raises:
            ValueError: No parts, parts of different methods, or maps of different sizes.
        """
        if not parts:
            raise ValueError("no explanations to join")
        first = parts[0]
        for part in parts[1:]:
            if repr(part.method) != repr(first.method):
                raise ValueError(f"cannot join {part.method!r} to {first.method!r}")
            if part.size != first.size:
                raise ValueError(f"cannot join maps of size {part.size} to {first.size}")
            if (part.contrast is None) != (first.contrast is None):
                raise ValueError("cannot join maps of a class to maps with a contrast")

        def join(name: str) -> Tensor | None:
            values = [getattr(part, name) for part in parts]
            return None if any(value is None for value in values) else torch.cat(values)

        whole = Explanation(
            raw=torch.cat([part.raw for part in parts]),
            size=first.size,
            target=join("target"),
            logits=join("logits"),
            method=first.method,
            run_notes=join_notes([(len(part), part.run_notes) for part in parts]),
            contrast=join("contrast"),
            categories=first.categories if len({part.categories for part in parts}) == 1 else (),
        )
        return _with_maps(whole, torch.cat([part.maps for part in parts]))

    def to(self, place: torch.device | str | torch.dtype) -> Explanation:
        """Return a copy on another device, or of another floating-point type.

        Args:
            place: A device, or the dtype of maps and logits; the target stays int64.

        Raises:
            TypeError: A dtype that is not floating point, or neither a device nor a dtype.
            ValueError: Torch knows no such device.
        """
        check_place(place)
        kept = ("target", "contrast") if isinstance(place, torch.dtype) else ()
        found = {name: one.to(place) for name, one in self.tensors().items() if name not in kept}
        moved = replace(self, **found)  # type: ignore[arg-type]  # each a tensor, by its field
        return _with_maps(moved, self.maps.to(place))

    def normalized(self, relu: bool | None = None) -> Tensor:
        """Return maps for pictures: in [0, 1] an image, with a contrast in [−1, 1].

        m = (r − min r) / (max r − min r) with r = max(map, 0), or r = map if not `relu`. With a
        contrast both signs matter, and m = map / max |map|, so that zero stays zero, unless `relu`.
        A map that is flat then (or negative everywhere) becomes zeros, with a warning.

        Args:
            relu: Whether to cut what is negative; None for True, and False with a contrast.

        Returns:
            (B, H, W) float32.
        """
        cuts = self.contrast is None if relu is None else relu
        for note in map_notes(self.maps, negative=cuts):
            warn(str(note))
        if cuts:
            return imaging.normalize(self.maps.clamp(min=0))
        scale = imaging.normalize if self.contrast is None else imaging.normalize_signed
        return scale(self.maps)

    def overlay(
        self,
        images: Tensor | Pictures,
        alpha: float = 0.6,
        colors: str | None = None,
        *,
        relu: bool | None = None,
        background: imaging.Background = "color",
        contours: Sequence[float] = (),
    ) -> Tensor:
        """Return the images under their normalized maps in color, opaque where the map is high.

        Colors diverge around zero, which is transparent, with a contrast (red speaks for the
        target, blue for the contrast) and for methods that give a signed value for each pixel, such
        as Integrated Gradients. The map of a pixel method, a few bright dots, is smoothed and
        brightened first. Any other map is shown where it is positive.

        Args:
            images: (B, C, H, W), C of 1 or 3, the images that were explained; one that leaves
                [0, 1] is stretched into it. Or the photographs themselves as `xcam.explain` takes
                them, each of any resolution: the map is laid on the part that the model saw, and
                the rest is faded. All must then be of one size; see `__iter__` for single ones.
            alpha: Opacity at the map's maximum, with both signs at its largest magnitude, in
                [0, 1].
            colors: A matplotlib color map; None for `"turbo"`, with both signs for `"RdBu_r"`.
            relu: Whether to cut what is negative; None for the rule above, False to show the range
                from the lowest value to the highest of maps that do not diverge.
            background: `"gray"` takes the images without their colors.
            contours: Shares of the maximum at which lines are drawn, such as (0.25, 0.5, 0.75).

        Returns:
            (B, 3, H, W) float32 in [0, 1], of the size of `images`.

        Raises:
            ValueError: Other images than those explained, photographs of several sizes, or an
                argument out of its range.
        """
        style = drawing.Style(alpha, colors, relu, background, tuple(contours))
        return drawing.overlay(self, images, style)

    def captions(self, categories: Sequence[str] = ()) -> list[str]:
        """Return for each image, in a few lines, the class explained and its probability.

        Where the model predicts another class than the one explained, that class is named too, and
        so is the contrast.

        Args:
            categories: Names of the classes, in place of the model's own; classes without a name
                go by their numbers.
        """
        if self.target is None:
            return ["a score of\nthe output"] * len(self)
        names = categories or self.categories
        return make_captions(self.target, self.logits, names, self.contrast)

    def plot(
        self,
        images: Tensor | Pictures,
        path: str | Path | None = None,
        categories: Sequence[str] = (),
        *,
        titles: Sequence[str] = (),
        labels: Sequence[int] | Sequence[str] | Tensor | None = None,
        alpha: float = 0.6,
        colors: str | None = None,
        background: imaging.Background = "color",
        contours: Sequence[float] = (),
        dpi: int = figures.DPI,
    ) -> Figure:
        """Draw each image beside its overlay, with a scale of the colors.

        The figure shows itself in a notebook; more than eight images stand side by side. A map that
        is flat or nowhere positive says so.

        Args:
            images: The images that were explained, or photographs; see `overlay`. Photographs are
                drawn as fine as the picture, and may be of several sizes.
            path: Where to write the picture, in the format of its suffix (.png, .pdf, .svg …);
                None to only return it.
            categories: Names of the classes for the captions, in place of the model's own.
            titles: A line above the caption of each image; by default the names of the files, where
                `images` are files.
            labels: (B,), the true class of each image by number or name, for the captions.
            alpha: See `overlay`.
            colors: See `overlay`.
            background: See `overlay`.
            contours: See `overlay`.
            dpi: Pixels an inch; a picture is 2.6 inches wide.

        Raises:
            ValueError: Other images than those explained, not B titles or labels, or matplotlib
                does not write the format.
            OSError: The folder is missing or cannot be written to.
        """
        style = drawing.Style(alpha, colors, None, background, tuple(contours))
        rows = drawing.make_rows(self, images, categories or self.categories, titles, labels)
        figure = drawing.draw_explanation(self, images, rows, style, path, dpi)
        vars(self)["_figure"] = figure  # which a notebook shows from now on
        return figure

    def to_html(
        self,
        path: str | Path,
        images: Tensor | Pictures,
        categories: Sequence[str] = (),
        *,
        titles: Sequence[str] = (),
        labels: Sequence[int] | Sequence[str] | Tensor | None = None,
    ) -> None:
        """Write one page of HTML that holds all that it shows: each image beside its overlay.

        Beside each image stand its class and its notes, below all of them the method with its
        settings. Of more than 100 images the first 100 are shown, and the page says so.

        Args:
            path: The file, such as `"page.html"`; one that exists is replaced.
            images: The images that were explained, or photographs; see `overlay`.
            categories: See `plot`.
            titles: See `plot`.
            labels: See `plot`.

        Raises:
            ValueError: Other images than those explained, or not B titles or labels.
            OSError: The folder is missing or cannot be written to.
        """
        rows = drawing.make_rows(self, images, categories or self.categories, titles, labels)
        write_explanation_page(self, images, rows, titles, path)

    def _repr_png_(self) -> bytes:
        """Return the picture that was plotted last for notebooks, else the maps by themselves."""
        plotted: Figure | None = vars(self).get("_figure")
        return figures.render(plotted or drawing.draw_maps(self))

    def _repr_html_(self) -> str:
        """Return that picture for notebooks, beneath the line that `repr` gives."""
        picture = base64.b64encode(self._repr_png_()).decode("ascii")
        described = html.escape(repr(self))
        return (
            f"<p><code>{described}</code></p>"
            f'<img alt="{described}" style="max-width: 100%" src="data:image/png;base64,{picture}">'
        )

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, which `xcam.load` reads; a file that exists is replaced.

        Raises:
            TypeError: A parameter of the method that no file can hold, such as a module.
            OSError: The folder is missing or cannot be written to.
        """
        write_explanation(self, path)

    def __repr__(self) -> str:
        """Return one line: how many images of which size, the method and the target."""
        size = "×".join(map(str, self.size))
        images = f"{len(self)} image{'s' * (len(self) != 1)} of {size}"
        target = "unknown" if self.target is None else _list_classes(self.target)
        contrast = "" if self.contrast is None else f", contrast {_list_classes(self.contrast)}"
        return f"<Explanation of {images} by {self.method!r}, target {target}{contrast}>"


def _list_classes(classes: Tensor) -> str:
    shown = ", ".join(map(str, classes[:_MAX_SHOWN].tolist()))
    return f"[{shown}{', …' * (len(classes) > _MAX_SHOWN)}]"


def _with_maps(explanation: Explanation, maps: Tensor) -> Explanation:
    """Fill in `maps` where they are known: a resize of other batches may round differently."""
    vars(explanation)["maps"] = maps
    return explanation
