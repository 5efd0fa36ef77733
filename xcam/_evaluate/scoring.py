"""One batch: a model's images explained by each method once, each map scored by each metric."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from xcam._evaluate.batches import Batch
from xcam._evaluate.comparison import Comparison, MapSource
from xcam._evaluate.failures import Outcome, StepRunner
from xcam._evaluate.sources import Recalled, concatenate, group_by_resolution, wrap_maps
from xcam._explain.checks import check_images
from xcam._explain.prepared import Prepared, run
from xcam.core import Explanation, Method, Metric, Target, check_finite, check_logits
from xcam.engine import untouched
from xcam.engine.clean import clean_logits
from xcam.engine.shared import share_passes
from xcam.imaging import is_flat
from xcam.results.parts import Row

__all__ = ["BatchScorer", "KeepMaps", "move_to_model"]

KeepMaps: TypeAlias = Callable[["BatchScorer", str, Outcome[Explanation]], None]


@dataclass(frozen=True)
class BatchScorer:
    """Scores one model on one batch.

    Attributes:
        batch: The batch as it was loaded.
        name: The model's name.
        model: The classifier.
        images: The batch's images on the model's device.
        comparison: What is compared.
        prepared: The methods, prepared for this model.
        wanted: The labels of the metrics that score each method, by its label.
        runner: Runs each step and records the images that it fails on.
        recalled: The maps of methods that explained the batch before, by label.
        shared_scores: Collects, by label, the scores of metrics that read no maps.
        announce: Called with the label of each method before it explains.
    """

    batch: Batch
    name: str
    model: nn.Module
    images: Tensor
    comparison: Comparison
    prepared: Mapping[str, Prepared]
    wanted: Mapping[str, Sequence[str]]
    runner: StepRunner
    recalled: Mapping[str, Recalled] = field(default_factory=dict)
    shared_scores: dict[str, Outcome[Tensor]] = field(default_factory=dict)
    announce: Callable[[str], object] | None = None

    def rows(self, keep: KeepMaps | None = None) -> Iterator[Row]:
        """Yield a row for each image × method × wanted metric, failures included.

        Args:
            keep: Called with each method's label and explanations.
        """
        sources: dict[str, Prepared | MapSource] = {**self.prepared, **self.comparison.maps}
        with share_passes(self.images), share_passes(self._explained_images):
            for label, metrics in self.wanted.items():
                source = sources[label]
                if self.announce:
                    self.announce(label)
                explained = self._explain(label, source)
                if keep and isinstance(source, Prepared) and label not in self.recalled:
                    keep(self, label, explained[0])
                columns = _explanation_columns(explained)
                with share_passes():  # of the masks of these maps, and all that is read from them
                    for name in metrics:
                        scored = self._score(name, self.comparison.metrics[name], explained)
                        yield from self._make_rows(label, name, columns, scored)

    @cached_property
    def targets(self) -> dict[int, int]:
        """Return the class to explain by image; images that the model fails on have none."""
        labels = self.batch.labels
        if self.comparison.explains_labels and labels is not None:
            return dict(enumerate(labels.tolist()))
        if self._clean.result is None:
            return {}
        predicted = self._clean.result.argmax(1).tolist()
        return dict(zip(self._clean.rows, predicted, strict=True))

    @cached_property
    def _clean(self) -> Outcome[Tensor]:
        """Return the clean logits, so that all methods explain one and the same prediction.

        Where nothing reads them they have no classes, and the model does not run.
        """
        stored = self.recalled or self.comparison.maps
        needed = not self.comparison.explains_labels or bool(stored)

        def step(rows: Sequence[int]) -> Tensor:
            images = _take(self.images, rows)
            check_images(self.model, images)
            if not needed:
                return images.new_zeros(len(images), 0)
            with untouched(self.model):
                found = clean_logits(self.model, images)
            return check_logits(found, torch.tensor([self.batch.indices[row] for row in rows]))

        return self.runner.run(range(len(self.images)), step, torch.cat)

    @cached_property
    def _explained_images(self) -> Tensor:
        """Return the images that the model has not failed on."""
        return _take(self.images, self._clean.rows)

    def _take_images(self, rows: Sequence[int]) -> Tensor:
        """Return some images, as one and the same tensor for all steps that take all of them."""
        if list(rows) == list(self._clean.rows):
            return self._explained_images
        return _take(self.images, rows)

    def _explain(self, label: str, source: Prepared | MapSource) -> list[Outcome[Explanation]]:
        """Return explanations of the images, one for each resolution: one cannot hold two."""
        clean = self._clean
        failed: Outcome[Explanation] = Outcome([], None, {}, clean.errors)
        if isinstance(source, Prepared):
            by_method = partial(self._explain_by_method, source)
            recalled = self._recall(label, source.method)
            rest = [row for row in clean.rows if row not in recalled.rows]
            return [self.runner.run(rest, by_method, Explanation.cat), recalled, failed]
        by_source = partial(self._explain_by_source, label, source)
        outcome = self.runner.run(clean.rows, by_source, concatenate)
        return [*group_by_resolution(outcome), failed]

    def _explain_by_method(self, prepared: Prepared, rows: Sequence[int]) -> Explanation:
        images = self._take_images(rows)
        # Classes that the host knows: those of a tensor on a GPU would be read to be checked.
        return run(prepared, images, Target.of([self.targets[row] for row in rows], images))

    def _recall(self, label: str, method: Method) -> Outcome[Explanation]:
        """Return the explanations of the images whose maps are stored, at their first cost."""
        found, stored = {}, self.recalled.get(label)
        for row in self._clean.rows if stored else ():
            name, index = self.batch.ids[row], self.batch.indices[row]
            one = stored.find(name, index, self.targets[row]) if stored else None
            if one is not None:
                found[row] = one
        if not found or self._clean.result is None:
            return Outcome([], None, {}, {})
        rows = list(found)
        logits = self._clean.result[[self._clean.rows.index(row) for row in rows]]
        maps = torch.stack([one for one, _ in found.values()])
        explanation = Explanation.of(
            maps, self._take_images(rows), self._take_targets(rows), logits, method
        )
        return Outcome(rows, explanation, {row: cost for row, (_, cost) in found.items()}, {})

    def _explain_by_source(
        self, label: str, source: MapSource, rows: Sequence[int]
    ) -> list[Explanation]:
        images, targets, clean = self._take_images(rows), self._take_targets(rows), self._clean
        if clean.result is None:
            raise RuntimeError("maps are asked for only of images that the model has seen")
        logits = clean.result[[clean.rows.index(row) for row in rows]]
        maps = source(images, [self.batch.ids[row] for row in rows], targets)
        return wrap_maps(maps, label, images, targets, logits)

    def _take_targets(self, rows: Sequence[int]) -> Tensor:
        return torch.tensor([self.targets[row] for row in rows], device=self.images.device)

    def _score(
        self, name: str, metric: Metric, explained: Sequence[Outcome[Explanation]]
    ) -> Outcome[Tensor]:
        """Return a metric's statistics; those of a metric that reads no maps are computed once."""
        shared = not (metric.spec.reads_maps or any(part.errors for part in explained))
        if shared and name in self.shared_scores:
            known = self.shared_scores[name]
            costs = known.costs.items()
            free = {"passes_spent": 0.0, "seconds_spent": 0.0}
            return replace(known, costs={row: cost._replace(**free) for row, cost in costs})
        scored = Outcome.join([self._score_part(part, metric) for part in explained], torch.cat)
        if shared:
            self.shared_scores[name] = scored
        return scored

    def _score_part(self, explained: Outcome[Explanation], metric: Metric) -> Outcome[Tensor]:
        """Return float32 statistics on the CPU of the images that have a map."""
        explanation = explained.result
        if explanation is None:
            return Outcome([], None, {}, explained.errors)
        truth = self._select_truth(metric)
        position = {row: number for number, row in enumerate(explained.rows)}

        def step(rows: Sequence[int]) -> Tensor:
            images, maps = self._take_images(rows), explanation
            if len(rows) < len(explanation):
                maps = explanation[[position[row] for row in rows]]
            answer = None if truth is None else _take(truth, rows).to(images.device)
            values = metric.score(self.model, images, maps, answer)
            return _check_statistic(values, len(rows), metric.spec.name)

        scored = self.runner.run(explained.rows, step, torch.cat)
        errors = {**explained.errors, **scored.errors}
        return Outcome(scored.rows, scored.result, scored.costs, errors)

    def _select_truth(self, metric: Metric) -> Tensor | None:
        if metric.spec.truth == "none":
            return None
        return self.batch.labels if metric.spec.truth == "labels" else self.batch.truth

    def _make_rows(
        self,
        method: str,
        metric: str,
        columns: Mapping[int, Mapping[str, Any]],
        scored: Outcome[Tensor],
    ) -> Iterator[Row]:
        statistics = {}
        if scored.result is not None:
            statistics = dict(zip(scored.rows, scored.result, strict=True))
        for row, index in enumerate(self.batch.indices):
            values = statistics.get(row)
            cost = scored.costs.get(row)
            yield Row(
                index=index,
                image=self.batch.ids[row],
                model=self.name,
                target=self.targets.get(row),
                label=None if self.batch.labels is None else int(self.batch.labels[row]),
                method=method,
                metric=metric,
                values=None if values is None else values.flatten().numpy(),
                shape=None if values is None else tuple(values.shape),
                **({} if cost is None else cost._asdict()),
                error=scored.errors.get(row),
                **columns.get(row, {}),
            )


def move_to_model(images: Tensor, model: nn.Module) -> Tensor:
    """Return the images on the model's device; as they are for a model without parameters."""
    parameter = next(model.parameters(), None)
    return images if parameter is None else images.to(parameter.device)


def _explanation_columns(
    explained: Sequence[Outcome[Explanation]],
) -> dict[int, dict[str, Any]]:
    """Return the columns of each image's explanation: its costs, and whether its map is flat."""
    return {
        row: {
            "flat": flat,
            **{f"explain_{name}": amount for name, amount in part.costs[row]._asdict().items()},
        }
        for part in explained
        if part.result is not None
        for row, flat in zip(part.rows, is_flat(part.result.maps).tolist(), strict=True)
    }


def _take(values: Tensor, rows: Sequence[int]) -> Tensor:
    """Return some rows, without a copy where they are all."""
    return values if len(rows) == len(values) else values[list(rows)]


def _check_statistic(values: object, count: int, name: str) -> Tensor:
    if not isinstance(values, Tensor) or values.ndim == 0 or len(values) != count:
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise TypeError(f"{name} must give ({count}, …), a statistic an image, got {got}")
    found = values.detach().float().cpu()
    return check_finite(found, lambda _: f"{name} gave values that are not finite")
