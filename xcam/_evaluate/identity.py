"""What identifies an evaluation: its manifest, and what may be added to one that is there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch

from xcam._evaluate.batches import Batch
from xcam._evaluate.comparison import describe_source
from xcam.core import Metric
from xcam.data.categories import list_categories
from xcam.engine import unwrap
from xcam.errors import UnknownNameError
from xcam.results.manifest import make_metrics
from xcam.results.parts import name_images
from xcam.results.store import Store
from xcam.runs import manifest

if TYPE_CHECKING:
    from xcam._evaluate.work import Work

__all__ = ["check_additions", "describe_work"]


def describe_work(work: Work, store: Store) -> dict[str, Any]:
    """Return what the rows depend on, as JSON; of a folder with other images, these, too."""
    comparison, batches = work.comparison, work.batches
    selected = chain(*batches.groups)
    names = name_images((index, batches.ids[index]) for index in selected)
    return {
        "format": 2,
        "versions": {"xcam": version("xcam"), "torch": str(torch.__version__)},
        "models": {
            name: manifest.describe_model(unwrap(net)) for name, net in comparison.models.items()
        },
        "methods": {
            label: _describe_method(work, label) for label in chain(*work.prepared.values())
        },
        "maps": {label: describe_source(source) for label, source in comparison.maps.items()},
        "metrics": {
            label: manifest.describe_settings(metric, metric.spec.name)
            for label, metric in comparison.metrics.items()
        },
        "target": "label" if comparison.explains_labels else "predicted",
        "images": {"count": len(batches)},
        "contents": _describe_contents(work, store, names),
        "precision": comparison.precision,
        "seed": work.seed,
        "labels": work.classes.describe(list_categories(batches.dataset)),
    }


def _describe_contents(work: Work, store: Store, names: Mapping[int, str]) -> dict[str, str]:
    """Return a hash of the first and the last image, and of those that the folder knows."""
    categories = list_categories(work.batches.dataset)
    contents = {names[batch.indices[0]]: _digest(batch, categories) for batch in work.ends}
    known = store.read_manifest().get("contents", {}).keys() - contents.keys()
    for index in (index for index, name in names.items() if name in known):
        batch = work.batches.load_readable(index)
        if batch is not None:
            contents[names[index]] = _digest(batch, categories)
    return contents


def _describe_method(work: Work, label: str) -> dict[str, Any]:
    """Return the method of a label on each model: a model's own may have other settings."""
    methods = {
        model: by_label[label].method
        for model, by_label in work.prepared.items()
        if label in by_label
    }
    settings = {
        model: manifest.describe_settings(one, one.spec.name) for model, one in methods.items()
    }
    return {"name": next(iter(methods.values())).spec.name, "on": settings}


def check_additions(
    content: Mapping[str, Mapping[str, Any]], metrics: Mapping[str, Metric]
) -> None:
    """Refuse a folder whose labels are ambiguous, or whose results could not be computed.

    Raises:
        ValueError: A method and maps from elsewhere have one label; or a metric of the folder is
            not given and cannot be made again.
    """
    for label in content["methods"].keys() & content["maps"].keys():
        raise ValueError(
            f"both a method and maps of the evaluation in `out` are called {label!r}; name one, "
            "{name: …}"
        )
    for label in content["metrics"].keys() - metrics.keys():
        try:
            make_metrics({label: content["metrics"][label]}, metrics)
        except (UnknownNameError, ValueError) as error:
            raise ValueError(
                f"`out` has rows of the metric {label!r}, which cannot be made again here; give it "
                f"among the metrics, too ({error})"
            ) from error


def _digest(batch: Batch, categories: Sequence[str]) -> str:
    """Hash an image, its truth, and its labels: by name, as numbers change with more classes."""
    labels = batch.labels
    if labels is not None and categories:
        numbers = labels.nonzero()[:, 1] if labels.ndim == 2 else labels
        known = [categories[number] for number in numbers.tolist() if number < len(categories)]
        parts = [json.dumps(known).encode()]
    else:
        parts = [] if labels is None else [*manifest.iterate_bytes([("l", labels)])]
    found = (("i", batch.images), ("t", batch.truth))
    parts += manifest.iterate_bytes((name, part) for name, part in found if part is not None)
    return manifest.digest(parts)
