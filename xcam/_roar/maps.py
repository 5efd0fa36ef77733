"""The maps of a method: made once, on the images as they are, and stored for all trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xcam import imaging
from xcam._evaluate.comparison import MapSource, describe_source
from xcam._evaluate.scoring import move_to_model
from xcam._explain.verb import explain
from xcam._roar.images import PlainImages
from xcam.core import Explanation, Method, extract_logits
from xcam.core.maps import check_maps
from xcam.data.categories import number_classes
from xcam.engine import forward, untouched
from xcam.errors import XcamError
from xcam.explanations.folder import StoredMaps, read_maps, write_maps
from xcam.imaging import hash_images
from xcam.models.categories import find_categories
from xcam.runs import manifest
from xcam.runs.folder import RunFolder
from xcam.runs.sharing import Job, share_jobs

__all__ = ["MapMaker", "MapStore", "draw_elements"]

_STORED = 256  # images a file
_REMEDY = "remove it, and make the same call of xcam.roar again"


@dataclass(frozen=True, eq=False)
class MapStore:
    """The maps of a method for the images of a split, in files that are mapped into memory.

    Attributes:
        folder: Of the files, as `xcam.evaluate(…, save_maps=True)` writes them.
        count: How many images there are.
        size: (H, W) of the images.
    """

    folder: Path
    count: int
    size: tuple[int, int]
    _parts: dict[int, Tensor] = field(default_factory=dict, repr=False)

    @property
    def jobs(self) -> list[Job]:
        """Return a job for each file."""
        return [Job(self._locate(number)) for number in range(-(-self.count // _STORED))]

    def list_indices(self, job: Job) -> range:
        """Return the images whose maps a job makes."""
        start = _STORED * int(job.product.stem.rpartition("-")[2])
        return range(start, min(start + _STORED, self.count))

    def load(self, indices: Sequence[int]) -> Tensor:
        """Return the maps of some images, (B, h, w) or (B, C, h, w), divided by their scale.

        Raises:
            FileFormatError: A file is damaged.
        """
        maps = [self._open(index // _STORED)[index % _STORED] for index in indices]
        if len({one.shape for one in maps}) > 1:
            maps = [imaging.resize(one[None].float(), self.size)[0] for one in maps]
        return torch.stack(maps)

    def open_all(self) -> None:
        """Open all files.

        Raises:
            FileFormatError: One is damaged.
        """
        for number in range(len(self.jobs)):
            self._open(number)

    def _open(self, number: int) -> Tensor:
        if number not in self._parts:
            self._parts[number], _ = read_maps(self._locate(number), _REMEDY)
        return self._parts[number]

    def _locate(self, number: int) -> Path:
        return self.folder / f"batch-{number:08d}.safetensors"


@dataclass(frozen=True, eq=False)
class MapMaker:
    """Where the maps of a model and a label in the table come from.

    Attributes:
        label: In the table.
        model: The classifier that is explained.
        source: A method, what gives maps for (images, ids, target), or such a one for each split.
        target: `"predicted"`, or `"label"`.
        keeps_channels: Whether a value for each channel of a pixel is kept, where there is one.
        folder: Of the maps, with one for each split in it.
        identity: What tells the model from others; None where the maps depend on none.
    """

    label: str
    model: nn.Module
    source: Method | MapSource | Mapping[str, MapSource]
    target: str
    keeps_channels: bool
    folder: Path
    identity: Mapping[str, str] | None

    def open_store(self, images: PlainImages) -> MapStore:
        """Return the store of a split's maps, made or not."""
        return MapStore(self.folder / images.name, len(images), images.size[1:])

    def check(self, splits: Sequence[PlainImages]) -> None:
        """Refuse maps from elsewhere that lack a split, or do not tell one from another.

        Raises:
            ValueError: They do.
        """
        if isinstance(self.source, Mapping):
            for name in (images.name for images in splits if images.name not in self.source):
                given = " and ".join(self.source)
                raise ValueError(
                    f"the maps {self.label!r} have a folder for {given}, but none for {name}; add "
                    f"{name}" + (", or give mask_eval=False" if name != "train" else "")
                )
        elif isinstance(self.source, StoredMaps):
            owners: dict[str, str] = {}
            for images in splits:
                for one in images.ids:
                    if owners.setdefault(one, images.name) != images.name:
                        raise ValueError(
                            f"{owners[one]} and {images.name} both have an image {one!r}, and the "
                            f"maps {self.label!r} are found by id: put them into folders "
                            f"{' and '.join(x.name for x in splits)} of "
                            f"{str(self.source.folder)!r}, or give the data sets `ids` that differ"
                        )

    def settle(self, is_used: bool, writes: bool = True) -> None:
        """Write the manifest of the maps, or compare it with the one that is there.

        Args:
            is_used: Whether trainings by such maps may be there.
            writes: Only compare without it.

        Raises:
            ValueError: The folder has maps of another method, model or target.
        """
        run = RunFolder(self.folder, "set of maps", ("*/batch-*.safetensors",))
        has_manifest = (self.folder / "manifest.json").exists()
        settings, joining = self._describe(), is_used and has_manifest
        if not writes:
            run.compare(settings, joining=joining)
            return
        run.create()
        run.settle(settings, joining=joining)

    def make(self, images: PlainImages) -> None:
        """Make the maps that are missing, with all who share the folder.

        Raises:
            ValueError: The method fails on an image, or the labels are of other classes than the
                model's.
        """
        store = self.open_store(images)
        share_jobs(store.jobs, partial(self._make_part, images, store))

    def explain(self, images: PlainImages, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the maps of some images, and the class of each."""
        pixels = move_to_model(images.load(indices), self.model)
        given = self._number(images, indices)
        try:
            if isinstance(self.source, Method):
                found: Explanation = explain(self.model, pixels, given, self.source)
                maps = found.raw if self.keeps_channels else found.reduced
                self._check_channels(maps, images)
                return maps, self._predict(pixels) if found.target is None else found.target
            target = self._predict(pixels) if given is None else given
            ids = [images.ids[index] for index in indices]
            source = self.source[images.name] if isinstance(self.source, Mapping) else self.source
            return self._check(source(pixels, ids, target), images, len(indices)), target
        except (LookupError, RuntimeError, TypeError, ValueError, XcamError) as error:
            name = f"{type(error).__name__}: " if isinstance(error, LookupError) else ""
            raise ValueError(
                f"{self.label!r} has no maps of images {indices[0]} to {indices[-1]} of "
                f"{images.name}: {name}{error}"
            ) from error

    def _make_part(self, images: PlainImages, store: MapStore, jobs: list[Job]) -> None:
        for job in jobs:
            indices = store.list_indices(job)
            maps, target = self.explain(images, indices)
            ids = [images.ids[index] for index in indices]
            write_maps(job.product, maps, ids, target.tolist(), self._is_of_class)

    def _check(self, given: Any, images: PlainImages, count: int) -> Tensor:  # noqa: ANN401
        """Return maps from elsewhere, in equal sizes, with channels only if they are kept."""
        if isinstance(given, list | tuple) and len({tuple(one.shape) for one in given}) > 1:
            size = images.size[1:]
            given = [imaging.resize(torch.as_tensor(one)[None].float(), size)[0] for one in given]
        maps = check_maps(given, count, self.label)
        if maps.ndim == 4 and not self.keeps_channels:
            return maps.sum(1)
        self._check_channels(maps, images)
        return maps

    def _check_channels(self, maps: Tensor, images: PlainImages) -> None:
        channels = images.size[0]
        if maps.ndim == 4 and maps.shape[1] not in (1, channels):
            raise ValueError(
                f"maps must have one channel, or each of an image's {channels}, got "
                f"{maps.shape[1]}; give unit='pixel', which adds them up"
            )

    @property
    def _is_of_class(self) -> bool:
        return not isinstance(self.source, Method) or self.source.spec.class_specific

    def _number(self, images: PlainImages, indices: Sequence[int]) -> Tensor | None:
        """Return the labels as the model numbers them, if they are what is explained."""
        if self.target != "label":
            return None
        labels = images.labels[torch.as_tensor(indices)]
        reference = find_categories(self.model)
        first = move_to_model(images.load([0]), self.model)
        numbering = number_classes(
            images.categories, reference, lambda: self._count(first), images.name
        )
        return labels if numbering is None else numbering.translate(labels)

    def _count(self, image: Tensor) -> int:
        return self._classify(image).shape[1]

    def _predict(self, pixels: Tensor) -> Tensor:
        return self._classify(pixels).argmax(1)

    def _classify(self, pixels: Tensor) -> Tensor:
        with untouched(self.model), torch.no_grad():
            return extract_logits(forward.call(self.model, pixels), len(pixels))

    def _describe(self) -> dict[str, Any]:
        source: Any
        if isinstance(self.source, Method):
            source = manifest.describe_settings(self.source, self.source.spec.name)
        elif isinstance(self.source, Mapping):
            source = {split: describe_source(one) for split, one in self.source.items()}
        else:
            source = describe_source(self.source)
        return {
            "maps": source,
            "model": None if self.identity is None else dict(self.identity),
            "target": self.target if self._is_of_class and self.identity is not None else None,
            "channels": self.keeps_channels,
        }


def draw_elements(images: Tensor, ids: Sequence[str], target: Tensor) -> Tensor:
    """Draw a number for each element of images (B, C, H, W): the random control of elements."""
    drawn = [
        torch.rand(images.shape[1:], generator=torch.Generator().manual_seed(state))
        for state in hash_images(images, 0)
    ]
    return torch.stack(drawn)
