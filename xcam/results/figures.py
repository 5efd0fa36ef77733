"""Methods side by side on images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from xcam._explain.prepared import label_settings, resolve_method
from xcam._explain.verb import Methods, explain
from xcam.core import Explanation, Method
from xcam.core.figures import draw_grid
from xcam.data.categories import list_categories, number_classes
from xcam.data.datasets import list_labels
from xcam.data.joining import number_parts_alike
from xcam.metrics import AverageDrop, IncreaseInConfidence
from xcam.models import Normalized
from xcam.models.categories import find_categories

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_coherence", "draw_comparison", "draw_samples"]

_SAMPLES = 6


def draw_comparison(
    model: nn.Module,
    images: Tensor,
    explanations: Mapping[str, Explanation],
    path: str | Path | None = None,
    categories: Sequence[str] = (),
) -> Figure:
    """Draw methods side by side, with the effect of what each map shows on the model.

    Beneath each overlay stand AD, the drop in percent of the explained class's probability on the
    image masked by the map, as in L-CAM's tables, and IC, 100 % where that probability rises and
    0 % where not. Overlays show maps as they are scored, min-maxed: also what is negative; but
    those of pixel methods as `Explanation.overlay` shows them, since min-maxed they are a few dots,
    or a haze. Where the columns explain several classes, each overlay names its own.

    Args:
        model: The classifier that was explained; left as it was.
        images: (B, C, H, W), the images that were explained; C of 1 or 3.
        explanations: Of these images, by the title of the column.
        path: Where to write the picture, in the format of its suffix.
        categories: Names of the model's classes.

    Raises:
        ValueError: No explanations, or of other images; or matplotlib does not write the format.
        OSError: The folder is missing or cannot be written to.
    """
    if not explanations:
        raise ValueError("there is nothing to compare; give explanations by title")
    captions = {title: one.captions(categories) for title, one in explanations.items()}
    rows = next(iter(captions.values()))
    differ = any(others != rows for others in captions.values())
    beneath = {}
    for title, explanation in explanations.items():
        drops = AverageDrop().score(model, images, explanation).tolist()
        rises = IncreaseInConfidence(strict=True).score(model, images, explanation).tolist()
        pairs = zip(drops, rises, strict=True)
        beneath[title] = [f"AD {drop:.0f} %, IC {rise:.0f} %" for drop, rise in pairs]
        if differ:
            lines = zip(captions[title], beneath[title], strict=True)
            beneath[title] = ["\n".join(each) for each in lines]
    overlays = {title: one.overlay(images, relu=False) for title, one in explanations.items()}
    return draw_grid(images, overlays, () if differ else rows, path, beneath=beneath)


def draw_coherence(
    model: nn.Module,
    data: Any,  # noqa: ANN401 - a data set of (image, label, …)
    methods: Methods,
    layers: str | Sequence[str] = (),
    path: str | Path | None = None,
    **settings: Any,  # noqa: ANN401
) -> Figure:
    """Draw the first image of each class beside its maps, a column a method and layer.

    The figure by which White Box judges coherence (TooTouch, 2020, WhiteBox-Part1): whether a map
    falls on the object. Each map explains the image's label; a row says with which probability the
    model gives it, and what it predicts instead. `metrics.Coherency` is another matter.

    Args:
        model: The classifier; left as it was.
        data: A data set of (image, label, …), the images as the model takes them.
        methods: Names and objects, or a dict with their titles.
        layers: A method whose layer is left open gets a column for each; by default one, for the
            model's default layer.
        path: Where to write the picture, in the format of its suffix.
        **settings: Of `xcam.explain`, such as `batch_size`.

    Raises:
        ValueError: No methods, no images, or images of several sizes; or matplotlib does not write
            the format.
        OSError: The folder is missing or cannot be written to.
    """
    if isinstance(layers, str):
        layers = [layers]
    data = number_parts_alike(data)
    listed = list_labels(data) or [data[number][1] for number in range(len(data))]
    labels = [int(label) for label in listed]  # type: ignore[call-overload]  # or tensors of one
    columns = _spread_layers(methods, layers)
    if not columns or not labels:
        raise ValueError(f"there is nothing to draw: {len(columns)} methods, {len(labels)} images")
    items = [data[labels.index(label)] for label in sorted(set(labels))]
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    shapes = sorted({tuple(item[0].shape) for item in items})
    if len(shapes) > 1:
        raise ValueError(
            f"the images must be of one size to be explained together, got {shapes[0]} and "
            f"{shapes[-1]}; resize them, as xcam.data.folder does"
        )
    images = torch.stack([item[0] for item in items]).to(device)
    classes = _read_labels(model, data, items)
    found = explain(model, images, classes, columns, **settings)
    overlays = {title: one.overlay(images) for title, one in found.items()}
    names = find_categories(model) or list_categories(data)
    return draw_grid(images, overlays, next(iter(found.values())).captions(names), path)


def _spread_layers(methods: Methods, layers: Sequence[str]) -> dict[str, Method]:
    """Return methods by title, those with an open layer once for each layer."""
    titled: dict[str, Method] = {}
    for label, method in label_settings(methods, lambda one: resolve_method(one, {})).items():
        title = label if isinstance(methods, Mapping) else _shorten(label, method)
        is_open = "layer" in method.parameters() and method.parameters()["layer"] is None
        if is_open and layers:
            titled |= {f"{title} {one}": resolve_method(method, {"layer": one}) for one in layers}
        else:
            titled[title] = method
    return titled


def _shorten(label: str, method: Method) -> str:
    """Return a method's title, if its name is its label."""
    return method.spec.title if label == method.spec.name else label


def draw_samples(
    model: Normalized,
    data: Any,  # noqa: ANN401 - a data set of xcam.data
    methods: Iterable[Method],
    path: str | Path | None = None,
    *,
    target: Literal["predicted", "label"] = "predicted",
    **settings: Any,  # noqa: ANN401
) -> Figure:
    """Explain six images from all over a data set by each method, and draw the comparison.

    Args:
        model: The classifier; left as it was.
        data: A data set with (image, label, …) items.
        methods: Each gets a column.
        path: Where to write the picture; see `draw_comparison`.
        target: The class that is explained.
        **settings: Of `xcam.explain`, such as `batch_size`.

    Raises:
        ValueError: No methods, or see `draw_comparison`.
    """
    data = number_parts_alike(data)
    count = min(_SAMPLES, len(data))  # of a folder of classes, the first ones are of one class
    items = [data[number * len(data) // count] for number in range(count)]
    images = torch.stack([item[0] for item in items]).to(model.mean.device)
    classes = _read_labels(model, data, items) if target == "label" else None
    methods = list(methods)
    titles = [method.spec.title for method in methods]
    explanations = {
        repr(method) if titles.count(title) > 1 else title: explain(
            model, images, classes, method, **settings
        )
        for title, method in zip(titles, methods, strict=True)
    }
    return draw_comparison(model, images, explanations, path, model.categories)


def _read_labels(model: nn.Module, data: object, items: Sequence[Any]) -> Tensor:
    """Return the labels of some items as the model numbers its classes."""
    labels = torch.tensor([int(item[1]) for item in items])
    names, reference = list_categories(data), find_categories(model)
    # `evaluate` has compared numbers with numbers.
    numbering = number_classes(names, reference, lambda: len(names)) if reference else None
    return labels if numbering is None else numbering.translate(labels)
