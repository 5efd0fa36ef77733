"""The work of an evaluation: batch after batch, each done when its rows are written."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from itertools import chain, product
from typing import Any

import torch
from torch import nn

from xcam._evaluate.attempts import Attempts, Outcome
from xcam._evaluate.batches import Batch, Data
from xcam._evaluate.classes import check_classes
from xcam._evaluate.entries import Entries, of_source
from xcam._evaluate.scoring import Case, model_device
from xcam._explain.run import unresized
from xcam._explain.verb import check_images, with_layer
from xcam.core import Explanation, Method
from xcam.engine import unwrap
from xcam.engine.forward import run_settings
from xcam.errors import XcamError
from xcam.explanations.folder import write_maps
from xcam.results.store import Row, Store
from xcam.runs import manifest
from xcam.runs.locks import claimed
from xcam.runs.processes import Processes

__all__ = ["Work"]


@dataclass(frozen=True, eq=False)
class Work:
    """What is to be done.

    Attributes:
        entries: What is compared.
        data: On which images.
        methods: Each model's methods, with the layers that they read.
        ends: A hash of the first and the last image, and of what is known of them.
        seed: Of all that is drawn.
        save_maps: Whether maps are kept.
        notes: Filled with what is to be said of the whole.
    """

    entries: Entries
    data: Data
    methods: Mapping[str, Mapping[str, Method]]
    ends: str
    seed: int
    save_maps: bool
    notes: dict[str, None] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: Entries, data: Data, seed: int, save_maps: bool) -> Work:
        """Looks at the first image: what is missing there is missing everywhere.

        Raises:
            TypeError: Images or labels of the wrong kind.
            ValueError: Images that a model cannot take; labels or truth missing, or labels that
                number other classes than a model's.
        """
        first, last = data.ends()
        _check_truth(first, entries)
        for model in entries.models.values():
            check_images(model, first.images.to(model_device(model, first.images)))
        if entries.asks_labels:
            check_classes(data.classes, entries.models, first.images)
        methods = {
            name: {
                label: _layered(method, model, first, entries)
                for label, method in entries.methods[name].items()
            }
            for name, model in entries.models.items()
        }
        return cls(entries, data, methods, _digest(first, last), seed, save_maps)

    def measure(self) -> tuple[list[Row], float]:
        """The rows of the first batch, and the seconds that it took."""
        begun = time.perf_counter()
        batch = next(self.data.load([0]))
        return self._rows(batch), time.perf_counter() - begun

    def finish(self, store: Store, team: Processes, progress: bool) -> None:
        """Does this process's share of what is not done yet; returns when all have."""
        from tqdm.auto import tqdm

        with claimed(store.folder) if team.main else nullcontext():
            if team.main:
                store.open(self.manifest())
                store.clean()
            team.meet()
            if not team.main:
                store.open(self.manifest(), joining=True)
            done = store.done()
            mine = [n for n in range(len(self.data.groups)) if n not in done][
                team.rank :: team.count
            ]
            team.meet()  # nobody writes before all have seen what was there
            bar = tqdm(mine, desc="batches", disable=not (progress and team.main))
            for batch in self.data.load(mine):
                store.write(batch.number, self._rows(batch, store))
                bar.update()
            bar.close()
            team.meet()

    def manifest(self) -> dict[str, Any]:
        """What the rows depend on, as JSON."""
        entries, data = self.entries, self.data
        images = (  # and, where the caller made the batches, which of them each image is in
            f"{0 if data.size else number} {data.said(index)}".encode()
            for number, group in enumerate(data.groups)
            for index in group
        )
        return {
            "format": 1,
            "versions": {"xcam": version("xcam"), "torch": str(torch.__version__)},
            "models": {
                name: manifest.describe_model(unwrap(net)) for name, net in entries.models.items()
            },
            "methods": {label: self._said(label) for label in chain(*self.methods.values())},
            "maps": {label: of_source(source) for label, source in entries.maps.items()},
            "metrics": {
                label: manifest.describe_settings(metric, metric.spec.name)
                for label, metric in entries.metrics.items()
            },
            "target": "label" if entries.labeled else "predicted",
            "images": {
                "count": len(data),
                "sha256": manifest.digest(images),
                "first and last": self.ends,
            },
            "batch_size": data.size,
            "precision": entries.precision,
            "seed": self.seed,
            "save_maps": self.save_maps,
        }

    def _said(self, label: str) -> dict[str, Any]:
        """What goes by a label, on each model: its own method may have settings of its own."""
        chosen = {model: found[label] for model, found in self.methods.items() if label in found}
        recipes = {
            model: manifest.describe_settings(one, one.spec.name) for model, one in chosen.items()
        }
        return {"name": next(iter(chosen.values())).spec.name, "on": recipes}

    def _rows(self, batch: Batch, store: Store | None = None) -> list[Row]:
        """All rows of a batch; its maps are kept in the store, if there is one to keep them."""
        rows = self._unread(batch)
        if not batch.indices:
            return rows
        for name, model in self.entries.models.items():
            images = batch.images.to(model_device(model, batch.images))
            settings = (self.entries.batch_size, self.entries.precision)
            attempts = Attempts(images.device, *settings, self.notes)
            case = Case(batch, name, model, images, self.entries, self.methods[name], attempts)
            rows += case.rows(partial(self._keep, store) if store and self.save_maps else None)
        return rows

    def _unread(self, batch: Batch) -> list[Row]:
        """A row with the error for all that would have been said of the images that are missing."""
        return [
            Row(one.index, one.id, model, None, None, label, metric, error=one.error)
            for one, (model, methods) in product(batch.unread, self.methods.items())
            for label, metric in product([*methods, *self.entries.maps], self.entries.metrics)
        ]

    def _keep(self, store: Store, case: Case, label: str, told: Outcome[Explanation]) -> None:
        if told.result is None:
            return
        within = [case.name, label] if len(self.entries.models) > 1 else [label]
        path = store.maps(*within) / f"batch-{case.batch.number:08d}.safetensors"
        write_maps(
            path,
            unresized(told.result),
            [case.batch.ids[row] for row in told.rows],
            [case.targets[row] for row in told.rows],
            case.methods[label].spec.class_specific,
        )


def _digest(*batches: Batch) -> str:
    parts = (
        (name, part)
        for batch in batches
        for name, part in (("i", batch.images), ("l", batch.labels), ("t", batch.truth))
        if part is not None
    )
    return manifest.digest(manifest.contents(parts))


def _check_truth(first: Batch, entries: Entries) -> None:
    needy = {metric.spec.truth: name for name, metric in entries.metrics.items()}
    if first.labels is None and entries.asks_labels:
        who = "target='label'" if entries.labeled else f"the metric {needy['labels']!r}"
        raise ValueError(f"{who} needs labels, and the data has none; give (images, labels)")
    for kind in ("boxes", "masks"):
        if first.truth is None and kind in needy:
            raise ValueError(
                f"the metric {needy[kind]!r} needs {kind}, and the data has none; give (images, "
                "labels, truth)"
            )


def _layered(method: Method, model: nn.Module, first: Batch, entries: Entries) -> Method:
    """The method with the layer it reads; as it is if there is none, so that its rows say why."""
    with run_settings(entries.batch_size, entries.precision):
        try:
            images = first.images.to(model_device(model, first.images))
            return with_layer(method, model, images)
        except (XcamError, RuntimeError, TypeError, ValueError):
            return method
