"""The work of an evaluation: batch after batch, each done when its rows are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from itertools import chain, product
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xcam._evaluate.batches import Batch, Batches
from xcam._evaluate.classes import Classes
from xcam._evaluate.comparison import Comparison, describe_source
from xcam._evaluate.failures import Outcome, StepRunner
from xcam._evaluate.scoring import BatchScorer, move_to_model
from xcam._evaluate.several import has_several, spread_labels
from xcam._explain.checks import check_dtype, check_images
from xcam._explain.prepared import Prepared, prepare
from xcam.core import Explanation, Method, independent_classes
from xcam.engine import unwrap
from xcam.engine.forward import run_settings
from xcam.errors import XcamError
from xcam.explanations.folder import write_maps
from xcam.models.categories import find_categories
from xcam.results.store import Row, Store
from xcam.runs import manifest
from xcam.runs.processes import Processes
from xcam.runs.terminal import is_live, write_line

__all__ = ["Work"]

_LINE_SECONDS = 30  # between lines of progress in a file


@dataclass(frozen=True, eq=False)
class Work:
    """An evaluation that is ready to run.

    Attributes:
        comparison: What is compared.
        batches: The images that it is compared on.
        prepared: The methods by label, prepared for each model.
        sample_digest: A hash of the first and the last image, their labels and truth.
        seed: The seed of all that is drawn.
        save_maps: Whether to keep the methods' maps.
        classes: How the models number the classes of the data and of the maps.
        is_spread: Whether images have several labels, so that each class has its own probability.
        notes: Collects the warnings about the evaluation as a whole.
    """

    comparison: Comparison
    batches: Batches
    prepared: Mapping[str, Mapping[str, Prepared]]
    sample_digest: str
    seed: int
    save_maps: bool
    classes: Classes
    is_spread: bool = False
    notes: dict[str, None] = field(default_factory=dict)

    @classmethod
    def of(cls, comparison: Comparison, batches: Batches, seed: int, save_maps: bool) -> Work:
        """Check the data by its first image: what is missing there is missing everywhere.

        Raises:
            TypeError: Images or labels of the wrong kind.
            ValueError: Images that a model cannot take; labels or truth missing, or labels that
                number other classes than a model's.
        """
        first, last = batches.load_first_and_last()
        is_spread, labels = has_several(first), first.labels
        if is_spread:
            batches = spread_labels(batches, first, comparison)
            first, last = batches.load_first_and_last()
        _check_truth(first, comparison)
        for model in comparison.models.values():
            images = move_to_model(first.images, model)
            check_images(model, images)
            with run_settings(precision=comparison.precision):
                check_dtype(model, images)
        classes = Classes.match(batches.dataset, comparison, first.images)
        if is_spread and labels is not None:
            classes.check_several(labels, comparison, first.images)
        prepared = {
            name: {
                label: _prepare(method, model, first, comparison)
                for label, method in comparison.methods[name].items()
            }
            for name, model in comparison.models.items()
        }
        sample = _digest(first, last)
        return cls(comparison, batches, prepared, sample, seed, save_maps, classes, is_spread)

    def run(self, store: Store, processes: Processes, progress: bool) -> None:
        """Compute this process's share of the missing batches; return when all have theirs."""
        from tqdm.auto import tqdm

        with store.run.lock() if processes.is_main else nullcontext():
            if processes.is_main:
                store.open(self.describe())
                store.clean()
            processes.wait()
            if not processes.is_main:
                store.open(self.describe(), joining=True)
            done = self._list_done(store)
            missing = [number for number in range(len(self.batches.groups)) if number not in done]
            share = missing[processes.rank :: processes.count]
            processes.wait()  # all must see the same folder before anybody writes
            shown = progress and processes.is_main
            if done and shown:
                sentence = f"{len(done)} of {len(self.batches.groups)} batches are done"
                write_line(sentence)
            images = sum(len(self.batches.groups[number]) for number in share)
            # In a file a bar is a line at a time.
            interval = 0.1 if is_live() else _LINE_SECONDS
            bar = tqdm(total=images, unit="image", mininterval=interval, disable=not shown)
            announce = partial(bar.set_postfix_str, refresh=is_live())
            for batch in self.batches.load(share):
                store.write(batch.number, self.score(batch, store, announce))
                bar.update(len(self.batches.groups[batch.number]))
            bar.close()
            processes.wait()

    def _list_done(self, store: Store) -> set[int]:
        """List the batches that need nothing more: also not a file of maps that was removed."""
        done = store.list_done()
        if not self.save_maps:
            return done
        pairs = [(model, label) for model, known in self.prepared.items() for label in known]
        missing = {
            number: {pair for pair in pairs if not self._locate_maps(store, number, *pair).exists()}
            for number in done
        }
        return {number for number in done if not missing[number] & store.list_explained(number)}

    def _locate_maps(self, store: Store, number: int, model: str, label: str) -> Path:
        """Return where the maps of a method of a batch are kept."""
        labels = [model, label] if len(self.comparison.models) > 1 else [label]
        return store.maps_folder(*labels) / f"batch-{number:08d}.safetensors"

    def describe(self) -> dict[str, Any]:
        """Return what the rows depend on, as JSON."""
        comparison, batches = self.comparison, self.batches
        lines = (line.encode() for line in batches.describe())
        renumbered = self.classes.describe()
        return {
            "format": 1,
            "versions": {"xcam": version("xcam"), "torch": str(torch.__version__)},
            "models": {
                name: manifest.describe_model(unwrap(net))
                for name, net in comparison.models.items()
            },
            "methods": {
                label: self._describe_method(label) for label in chain(*self.prepared.values())
            },
            "maps": {label: describe_source(source) for label, source in comparison.maps.items()},
            "metrics": {
                label: manifest.describe_settings(metric, metric.spec.name)
                for label, metric in comparison.metrics.items()
            },
            "target": "label" if comparison.explains_labels else "predicted",
            "images": {
                "count": len(batches),
                "sha256": manifest.digest(lines),
                "first and last": self.sample_digest,
            },
            "batch_size": batches.size,
            "precision": comparison.precision,
            "seed": self.seed,
            "save_maps": self.save_maps,
            **({"labels": renumbered} if renumbered else {}),
        }

    def _describe_method(self, label: str) -> dict[str, Any]:
        """Return the method of a label on each model: a model's own may have other settings."""
        methods = {
            model: by_label[label].method
            for model, by_label in self.prepared.items()
            if label in by_label
        }
        settings = {
            model: manifest.describe_settings(one, one.spec.name) for model, one in methods.items()
        }
        return {"name": next(iter(methods.values())).spec.name, "on": settings}

    def score(
        self,
        batch: Batch,
        store: Store | None = None,
        announce: Callable[[str], object] | None = None,
        rows: list[Row] | None = None,
    ) -> list[Row]:
        """Return all rows of a batch; write its maps to the store, if there is one.

        Args:
            batch: The images.
            store: Where maps are kept.
            announce: Called with the model's name and the method's label before each.
            rows: A list to add to, which holds what is done if the work is cut short.
        """
        rows = [] if rows is None else rows
        rows += self._make_error_rows(batch)
        with independent_classes() if self.is_spread else nullcontext():
            if batch.indices:
                self._score_rows(batch, store, announce, rows)
        return rows

    def _score_rows(
        self,
        batch: Batch,
        store: Store | None,
        announce: Callable[[str], object] | None,
        rows: list[Row],
    ) -> None:
        for name, model in self.comparison.models.items():
            images = move_to_model(batch.images, model)
            comparison = replace(self.comparison, maps=self.classes.maps[name])
            settings = (comparison.batch_size, comparison.precision)
            runner = StepRunner(images.device, *settings, self.notes)
            scorer = BatchScorer(
                self.classes.number_labels(batch, name),
                name,
                model,
                images,
                comparison,
                self.prepared[name],
                runner,
                announce=partial(_announce, announce, name) if announce else None,
            )
            keep = partial(self._write_maps, store) if store and self.save_maps else None
            rows.extend(scorer.rows(keep))

    def _make_error_rows(self, batch: Batch) -> list[Row]:
        """Return a row with the error for all that the unreadable images would have had."""
        return [
            Row(one.index, one.id, model, None, None, label, metric, error=one.error)
            for one, (model, by_label) in product(batch.unreadable, self.prepared.items())
            for label, metric in product(
                [*by_label, *self.comparison.maps], self.comparison.metrics
            )
        ]

    def _write_maps(
        self, store: Store, scorer: BatchScorer, label: str, explained: Outcome[Explanation]
    ) -> None:
        if explained.result is None:
            return
        targets = [scorer.targets[row] for row in explained.rows]
        logits = explained.result.logits
        names = () if logits is None else find_categories(scorer.model, logits.shape[1])
        write_maps(
            self._locate_maps(store, scorer.batch.number, scorer.name, label),
            explained.result.reduced,
            [scorer.batch.ids[row] for row in explained.rows],
            targets,
            scorer.prepared[label].method.spec.class_specific,
            [names[target] for target in targets] if names else (),
        )


def _announce(show: Callable[[str], object], model: str, method: str) -> None:
    show(f"{model}: {method}")


def _digest(*batches: Batch) -> str:
    parts = (
        (name, part)
        for batch in batches
        for name, part in (("i", batch.images), ("l", batch.labels), ("t", batch.truth))
        if part is not None
    )
    return manifest.digest(manifest.iterate_bytes(parts))


def _check_truth(first: Batch, comparison: Comparison) -> None:
    """Refuse data without the labels, boxes or masks that the target or a metric needs."""
    metric_by_truth = {metric.spec.truth: name for name, metric in comparison.metrics.items()}
    if first.labels is None and comparison.needs_labels:
        metric = f"the metric {metric_by_truth.get('labels')!r}"
        who = "target='label'" if comparison.explains_labels else metric
        raise ValueError(f"{who} needs labels, and the data has none; give (images, labels)")
    for kind in ("boxes", "masks"):
        if first.truth is None and kind in metric_by_truth:
            raise ValueError(
                f"the metric {metric_by_truth[kind]!r} needs {kind}, and the data has none; give "
                "(images, labels, truth)"
            )


def _prepare(method: Method, model: nn.Module, first: Batch, comparison: Comparison) -> Prepared:
    """Prepare a method for a model; where that fails, its rows will hold the error."""
    with run_settings(batch_size=comparison.batch_size, precision=comparison.precision):
        try:
            return prepare(model, move_to_model(first.images, model), method)
        except (XcamError, RuntimeError, TypeError, ValueError):
            return Prepared(model, method)
