"""The work of an evaluation: batch after batch, each done when its rows are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import TypeAlias

from torch import nn

from xcam._evaluate.batches import Batch, Batches
from xcam._evaluate.classes import Classes
from xcam._evaluate.comparison import Comparison
from xcam._evaluate.failures import Outcome, StepRunner
from xcam._evaluate.growth import Plan
from xcam._evaluate.identity import check_additions, describe_work
from xcam._evaluate.scoring import BatchScorer, move_to_model
from xcam._evaluate.several import has_several, spread_labels
from xcam._evaluate.sources import recall
from xcam._explain.checks import check_dtype, check_images
from xcam._explain.prepared import Prepared, prepare
from xcam.core import Explanation, Method, independent_classes
from xcam.engine.forward import run_settings
from xcam.errors import XcamError
from xcam.explanations.folder import write_maps
from xcam.models.categories import find_categories
from xcam.results.parts import Row
from xcam.results.store import Store
from xcam.runs.processes import Processes
from xcam.runs.terminal import is_live, write_line

__all__ = ["Work"]

Missing: TypeAlias = "Mapping[tuple[str, str], Sequence[str]]"
"""Metrics by model and method."""

_LINE_SECONDS = 30  # between lines of progress in a file


@dataclass(frozen=True, eq=False)
class Work:
    """An evaluation that is ready to run.

    Attributes:
        comparison: What is compared.
        batches: The images that it is compared on.
        prepared: The methods by label, prepared for each model.
        ends: The first and the last image, each alone, by which the data is recognized.
        seed: The seed of all that is drawn.
        save_maps: Whether to keep the methods' maps.
        classes: How the models number the classes of the data and of the maps.
        is_spread: Whether images have several labels, so that each class has its own probability.
        notes: Collects the warnings about the evaluation as a whole.
    """

    comparison: Comparison
    batches: Batches
    prepared: Mapping[str, Mapping[str, Prepared]]
    ends: tuple[Batch, Batch]
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
        ends = first, last
        return cls(comparison, batches, prepared, ends, seed, save_maps, classes, is_spread)

    def run(self, store: Store, processes: Processes, progress: bool) -> None:
        """Compute this process's share of what is missing; return when all have theirs."""
        with store.run.lock() if processes.is_main else nullcontext():
            if processes.is_main:
                plan = self._open(store)
            processes.wait()
            if not processes.is_main:
                store.open(describe_work(self, store), joining=True)
                plan = self._plan(store)
            missing = {number: self._list_missing(store, plan, number) for number in plan.groups}
            missing = {number: found for number, found in missing.items() if found}
            share = [*missing][processes.rank :: processes.count]
            processes.wait()  # all must see the same folder before anybody writes
            if len(missing) < len(plan.groups) and progress and processes.is_main:
                done = len(plan.groups) - len(missing)
                write_line(f"{done} of {len(plan.groups)} batches are done")
            wanted = {number: missing[number] for number in share}
            self._run_share(store, plan, wanted, progress and processes.is_main)
            processes.wait()

    def _run_share(
        self, store: Store, plan: Plan, missing: Mapping[int, Missing], shown: bool
    ) -> None:
        """Compute what is missing of some batches."""
        from tqdm.auto import tqdm

        groups = {number: plan.groups[number] for number in missing}
        # In a file a bar is a line at a time.
        interval = 0.1 if is_live() else _LINE_SECONDS
        total = sum(map(len, groups.values()))
        bar = tqdm(total=total, unit="image", mininterval=interval, disable=not shown)
        announce = partial(bar.set_postfix_str, refresh=is_live())
        with bar, closing(self.batches.load(groups)) as batches:
            for batch in batches:
                rows = self.score(batch, store, announce, wanted=missing[batch.number])
                store.add(batch.number, rows)
                bar.update(len(groups[batch.number]))

    def _open(self, store: Store) -> Plan:
        """Begin the folder, or check and extend one that holds some of the evaluation."""
        described = describe_work(self, store)
        content = store.compare(described)
        check_additions(content, self.comparison.metrics)
        plan = self._plan(store)
        models = list(store.read_manifest().get("models", {}))
        if len(models) == 1 and len(content["models"]) > 1:
            store.move_maps(models[0])
        store.open(described)
        store.clean()
        for number, indices in plan.moved.items():
            store.renumber(number, indices)
        return plan

    def _plan(self, store: Store) -> Plan:
        """Match the rows that are there with the images.

        Raises:
            ValueError: They are of images that are not here, or of other labels.
        """
        parts = {number: store.read_part(number) for number in store.list_done()}
        try:
            plan = Plan.of(self.batches, parts)
            plan.check_labels(self.classes.number_listed(self.batches) if parts else {})
        except ValueError as error:
            raise ValueError(
                f"{str(store.folder)!r} holds another evaluation ({error}); use another folder, or "
                "the images that are there and more"
            ) from error
        return plan

    def _list_missing(self, store: Store, plan: Plan, number: int) -> Missing:
        """List the metrics that each model's methods lack on a batch.

        There are none of a method that lacks but a file of maps.
        """
        part = plan.parts.get(number)
        if part is None:
            return {pair: [*self.comparison.metrics] for pair in self._list_pairs()}
        missing = {}
        for pair in self._list_pairs():
            metrics = [name for name in self.comparison.metrics if (*pair, name) not in part.rows]
            keeps = self.save_maps and pair in part.explained and pair[1] in self.prepared[pair[0]]
            if metrics or (keeps and not store.locate_maps(number, *pair).exists()):
                missing[pair] = metrics
        return missing

    def _list_pairs(self) -> list[tuple[str, str]]:
        return [
            (model, label)
            for model, by_label in self.prepared.items()
            for label in (*by_label, *self.comparison.maps)
        ]

    def score(
        self,
        batch: Batch,
        store: Store | None = None,
        announce: Callable[[str], object] | None = None,
        rows: list[Row] | None = None,
        wanted: Missing | None = None,
    ) -> list[Row]:
        """Return rows of a batch; write its maps to the store, if there is one.

        Args:
            batch: The images.
            store: Where maps are kept.
            announce: Called with the model's name and the method's label before each.
            rows: A list to add to, which holds what is done if the work is cut short.
            wanted: The metrics of each model and method; None for all.
        """
        if wanted is None:
            wanted = {pair: [*self.comparison.metrics] for pair in self._list_pairs()}
        rows = [] if rows is None else rows
        rows += [
            Row(one.index, one.id, model, None, None, label, metric, error=one.error)
            for one, ((model, label), metrics) in product(batch.unreadable, wanted.items())
            for metric in metrics
        ]
        with independent_classes() if self.is_spread else nullcontext():
            for name in dict.fromkeys(model for model, _ in wanted) if batch.indices else ():
                metrics = {
                    label: found for (model, label), found in wanted.items() if model == name
                }
                scorer = self._make_scorer(batch, name, metrics, store, announce)
                keep = partial(self._write_maps, store) if store and self.save_maps else None
                rows.extend(scorer.rows(keep))
        return rows

    def _make_scorer(
        self,
        batch: Batch,
        name: str,
        wanted: Mapping[str, Sequence[str]],
        store: Store | None,
        announce: Callable[[str], object] | None,
    ) -> BatchScorer:
        model = self.comparison.models[name]
        images = move_to_model(batch.images, model)
        comparison = replace(self.comparison, maps=self.classes.maps[name])
        settings = (comparison.batch_size, comparison.precision)
        runner = StepRunner(images.device, *settings, self.notes)
        stored = [
            label
            for label, names in wanted.items()
            if label in self.prepared[name]
            and not any(comparison.metrics[metric].reads_channels for metric in names)
        ]
        return BatchScorer(
            self.classes.number_labels(batch, name),
            name,
            model,
            images,
            comparison,
            self.prepared[name],
            wanted,
            runner,
            recall(store, batch.number, name, stored) if store else {},
            announce=(lambda label: announce(f"{name}: {label}")) if announce else None,
        )

    def _write_maps(
        self, store: Store, scorer: BatchScorer, label: str, explained: Outcome[Explanation]
    ) -> None:
        if explained.result is None:
            return
        targets = [scorer.targets[row] for row in explained.rows]
        logits = explained.result.logits
        names = () if logits is None else find_categories(scorer.model, logits.shape[1])
        write_maps(
            store.locate_maps(scorer.batch.number, scorer.name, label),
            explained.result.reduced,
            [scorer.batch.ids[row] for row in explained.rows],
            targets,
            scorer.prepared[label].method.spec.class_specific,
            [names[target] for target in targets] if names else (),
        )


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
