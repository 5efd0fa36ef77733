"""The pictures of a page: example images under their stored maps, and the worst cases."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from xcam.core import Explanation, Method, Metric
from xcam.core.explanation_page import IMAGE, lay_over
from xcam.core.page import Example, encode_picture
from xcam.data.datasets import list_ids
from xcam.explanations.folder import find_map
from xcam.imaging import stretch
from xcam.results.bootstrap import Sample
from xcam.results.contrasts import score_images
from xcam.results.store import Store

__all__ = [
    "Place",
    "Shown",
    "Source",
    "choose_random",
    "choose_worst",
    "list_columns",
    "list_folders",
    "list_places",
    "make_source",
    "show",
]

_SIDE = 176  # pixels of the longer side of a picture
_PLAIN = 224  # of a map without its image, before it is shrunk

Source = Callable[[int, str], Tensor]
"""Returns the image (C, H, W) at a position, with an id."""


@dataclass(frozen=True)
class Place:
    """Where an image of the evaluation is.

    Attributes:
        index: Its position in the data set.
        image: Its id.
        target: The class that is explained.
        label: The true class, if it is known.
        part: The number of the batch that holds it.
    """

    index: int
    image: str
    target: int
    label: int | None
    part: int


@dataclass(frozen=True)
class Shown:
    """What is shown of a model's methods.

    Attributes:
        folders: Of the stored maps, by the method's label.
        names: Of the columns, by the method's label.
        methods: As they were applied, by label; for how their maps are colored.
    """

    folders: Mapping[str, Path]
    names: Mapping[str, str]
    methods: Mapping[str, Method | str]


def make_source(data: Any) -> Source:  # noqa: ANN401 - what `evaluate` takes
    """Return how to get an image from a data set, or a loader of one, by its id."""
    dataset = data.dataset if isinstance(data, DataLoader) else data
    positions = {name: place for place, name in enumerate(list_ids(dataset))}

    def read(index: int, name: str) -> Tensor:
        if name not in positions:
            raise ValueError(
                f"the data has no image {name!r}; give that which was evaluated, or none"
            )
        image: Tensor = dataset[positions[name]][0]
        return image

    return read


def list_folders(folder: Path, model: str, methods: Sequence[str]) -> dict[str, Path]:
    """Return the folders of the stored maps of a model's methods, by label."""
    store = Store(folder)
    found = {}
    for method in methods:
        both = (store.maps_folder(model, method), store.maps_folder(method))
        inside = [one for one in both if any(one.glob("batch-*.safetensors"))]
        if inside:
            found[method] = inside[0]
    return found


def list_places(folder: Path, model: str) -> list[Place]:
    """Return the images of an evaluation in their order, as far as the model explained them."""
    found: dict[tuple[int, int], Place] = {}
    for path in sorted((folder / "rows").glob("batch-*.parquet")):
        part = int(path.stem.removeprefix("batch-"))
        columns = ["index", "image", "model", "target", "label"]
        chosen = (ds.field("model") == model) & ds.field("target").is_valid()
        table = ds.dataset(path).to_table(columns=columns, filter=chosen)
        for row in table.group_by(columns).aggregate([]).to_pylist():
            place = Place(row["index"], row["image"], row["target"], row["label"], part)
            found.setdefault((place.index, place.target), place)
    return [found[key] for key in sorted(found)]


def choose_random(places: Sequence[Place], count: int, seed: int) -> list[Place]:
    """Return some images, drawn by a seed, in their order."""
    drawn = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed))
    return [places[at] for at in sorted(drawn[:count].tolist())]


def choose_worst(
    places: Sequence[Place],
    samples: Iterator[tuple[str, Metric, str, Sample]],
    images: Sequence[str],
    count: int,
) -> list[tuple[Place, float]]:
    """Return the images on which methods score worst, with their scores, the worst first.

    The score of an image is the mean of its results over metrics and methods, each result less the
    metric's mean over images and methods, in its standard deviations, and higher where better.

    Args:
        places: The images to choose from.
        samples: The label of a metric, the metric, a method, and its statistics.
        images: The id of each image of the samples.
        count: How many to return.
    """
    results: dict[str, list[Tensor]] = {}
    for label, metric, _, sample in samples:
        try:
            values = score_images(label, metric, sample)
        except ValueError:  # a single image has no result
            continue
        results.setdefault(label, []).append(values if metric.spec.higher_is_better else -values)
    scores = []
    for values in map(torch.stack, results.values()):
        known = values[~values.isnan()]
        if len(known) > 1 and float(known.std()) > 0:
            scores.append((values - known.mean()) / known.std())
    if not scores:
        return []
    by_image = dict(zip(images, torch.cat(scores).nanmean(0).tolist(), strict=True))
    scored = [(place, by_image[place.image]) for place in places]
    ranked = sorted((pair for pair in scored if math.isfinite(pair[1])), key=lambda pair: pair[1])
    return ranked[:count]


def show(places: Sequence[Place], shown: Shown, source: Source | None) -> list[Example]:
    """Return images under the maps of each method, on gray where there is no source of images."""
    examples = []
    for place in places:
        image = None if source is None else source(place.index, place.image)
        pictures, notes, category = {}, {}, ""
        if image is not None:
            pictures[IMAGE] = encode_picture(stretch(image[None].float())[0], _SIDE)
        for method, folder in shown.folders.items():
            path = folder / f"batch-{place.part:08d}.safetensors"
            found = find_map(path, place.image, place.target)
            if found is None:
                continue
            stored, name = found
            category = category or name
            overlay, note = _lay(stored, image, place.target, shown.methods[method])
            pictures[shown.names[method]] = encode_picture(overlay, _SIDE)
            if note:
                notes[shown.names[method]] = note
        examples.append(Example(place.image, _caption(place, category), pictures, notes))
    return examples


def _caption(place: Place, category: str) -> str:
    """Return the class that is explained, and the label where it is another."""
    text = category or f"class {place.target}"
    return text if place.label in (None, place.target) else f"{text}\n(label {place.label})"


def list_columns(shown: Shown, has_images: bool) -> list[str]:
    """Return the titles of the columns of `show`."""
    return [*([IMAGE] if has_images else []), *(shown.names[method] for method in shown.folders)]


def _lay(
    found: Tensor, image: Tensor | None, target: int, method: Method | str
) -> tuple[Tensor, str]:
    """Return an image under a map, and what to know of that."""
    if image is None:
        height, width = found.shape
        scale = _PLAIN / max(height, width)
        image = torch.full((3, max(1, round(height * scale)), max(1, round(width * scale))), 0.5)
    batch = image[None].float()
    explanation = Explanation.of(found[None], batch, [target], method=method)
    return lay_over(explanation, batch), " ".join(note.text for note in explanation.notes)
