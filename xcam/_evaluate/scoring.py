"""One batch: each model's images explained by each method once, each map scored by each metric."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from xcam._evaluate.attempts import Attempts, Outcome
from xcam._evaluate.batches import Batch
from xcam._evaluate.entries import Entries, MapSource
from xcam._evaluate.outside import explanations_of
from xcam._explain.run import apply
from xcam._explain.verb import check_images
from xcam.core import Explanation, Method, Metric, Target, extract_logits
from xcam.engine import forward, untouched
from xcam.errors import ModelOutputError
from xcam.imaging import is_flat
from xcam.results.store import Row

__all__ = ["Case", "Keep", "model_device"]

Keep: TypeAlias = Callable[["Case", str, Outcome[Explanation]], None]


@dataclass(frozen=True)
class Case:
    """A model before a batch.

    Attributes:
        batch: As it was loaded.
        name: Of the model.
        model: The classifier.
        images: Those of the batch, on the model's device.
        entries: What is compared.
        methods: The methods, with the layers that they read of this model.
        attempts: How they are run.
        said: Filled with what metrics that read no maps say, by their labels.
    """

    batch: Batch
    name: str
    model: nn.Module
    images: Tensor
    entries: Entries
    methods: Mapping[str, Method]
    attempts: Attempts
    said: dict[str, Outcome[Tensor]] = field(default_factory=dict)

    def rows(self, keep: Keep | None = None) -> Iterator[Row]:
        """Every image × method × metric, with what failed.

        Args:
            keep: Is given each method's label and explanation.
        """
        ways: dict[str, Method | MapSource] = {**self.methods, **self.entries.maps}
        for label, way in ways.items():
            told = self._told(label, way)
            if keep and isinstance(way, Method):
                keep(self, label, told[0])
            for name, metric in self.entries.metrics.items():
                scored = self._scored(name, metric, told)
                yield from self._of_metric(label, name, _explained(told), scored)

    @cached_property
    def targets(self) -> dict[int, int]:
        """The class to explain of each image; none of those that the model fails on."""
        labels = self.batch.labels
        if self.entries.labeled and labels is not None:
            return dict(enumerate(labels.tolist()))
        if self._clean.result is None:
            return {}
        best = self._clean.result.argmax(1).tolist()
        return dict(zip(self._clean.rows, best, strict=True))

    @cached_property
    def _clean(self) -> Outcome[Tensor]:
        """The logits, so that all methods explain one prediction; of no class if nobody asks."""
        asked = not self.entries.labeled or bool(self.entries.maps)

        def step(rows: Sequence[int]) -> Tensor:
            images = _of(self.images, rows)
            check_images(self.model, images)
            if not asked:
                return images.new_zeros(len(images), 0)

            def logits(part: slice) -> Tensor:
                return extract_logits(forward.call(self.model, images[part]), len(images[part]))

            with untouched(self.model), torch.no_grad():
                return _finite(forward.collect(len(images), logits, images), "the model")

        return self.attempts.run(range(len(self.images)), step, torch.cat)

    def _told(self, label: str, way: Method | MapSource) -> list[Outcome[Explanation]]:
        """The explanations of the images, one of each resolution, since none can hold two."""
        clean, layer = self._clean, None
        failed: Outcome[Explanation] = Outcome([], None, {}, clean.errors)
        if not isinstance(way, Method):
            step = partial(self._by_source, label, way)
            return [*_by_resolution(self.attempts.run(clean.rows, step, _chained)), failed]
        if self.entries.methods[self.name][label].parameters().get("layer") is None:
            layer = way.parameters().get("layer")
        by_method = partial(self._by_method, way)
        return [self.attempts.run(clean.rows, by_method, Explanation.cat, layer), failed]

    def _by_method(self, method: Method, rows: Sequence[int]) -> Explanation:
        images = _of(self.images, rows)
        return apply(method, self.model, images, Target.of(self._wanted(rows), images))

    def _by_source(self, label: str, source: MapSource, rows: Sequence[int]) -> list[Explanation]:
        images, wanted, clean = _of(self.images, rows), self._wanted(rows), self._clean
        if clean.result is None:
            raise RuntimeError("maps are asked for only of images that the model has seen")
        logits = clean.result[[clean.rows.index(row) for row in rows]]
        found = source(images, [self.batch.ids[row] for row in rows], wanted)
        return explanations_of(found, label, images, wanted, logits)

    def _wanted(self, rows: Sequence[int]) -> Tensor:
        return torch.tensor([self.targets[row] for row in rows], device=self.images.device)

    def _scored(
        self, name: str, metric: Metric, told: Sequence[Outcome[Explanation]]
    ) -> Outcome[Tensor]:
        """What a metric says of a method's maps; at no cost if it was said and reads no maps."""
        shared = not (metric.spec.reads_maps or any(part.errors for part in told))
        if shared and name in self.said:
            said = self.said[name]
            return replace(said, costs=dict.fromkeys(said.costs, (0.0, 0.0)))
        scored = Outcome.joined([self._scored_part(part, metric) for part in told], torch.cat)
        if shared:
            self.said[name] = scored
        return scored

    def _scored_part(self, told: Outcome[Explanation], metric: Metric) -> Outcome[Tensor]:
        """Float32 statistics on the CPU, of the images that have a map."""
        explanation = told.result
        if explanation is None:
            return Outcome([], None, {}, told.errors)
        truth = self._truth(metric)
        place = {row: number for number, row in enumerate(told.rows)}

        def step(rows: Sequence[int]) -> Tensor:
            images, maps = _of(self.images, rows), explanation
            if len(rows) < len(explanation):
                maps = explanation[[place[row] for row in rows]]
            answer = None if truth is None else _of(truth, rows).to(images.device)
            found = metric.score(self.model, images, maps, answer)
            return _statistic(found, len(rows), metric.spec.name).cpu()

        scored = self.attempts.run(told.rows, step, torch.cat)
        errors = {**told.errors, **scored.errors}
        return Outcome(scored.rows, scored.result, scored.costs, errors)

    def _truth(self, metric: Metric) -> Tensor | None:
        if metric.spec.truth == "none":
            return None
        return self.batch.labels if metric.spec.truth == "labels" else self.batch.truth

    def _of_metric(
        self,
        method: str,
        metric: str,
        explained: Mapping[int, Mapping[str, Any]],
        scored: Outcome[Tensor],
    ) -> Iterator[Row]:
        found = {}
        if scored.result is not None:
            found = dict(zip(scored.rows, scored.result, strict=True))
        for row, index in enumerate(self.batch.indices):
            values = found.get(row)
            seconds, passes = scored.costs.get(row, (None, None))
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
                seconds=seconds,
                passes=passes,
                error=scored.errors.get(row),
                **explained.get(row, {}),
            )


def _by_resolution(found: Outcome[list[Explanation]]) -> list[Outcome[Explanation]]:
    """Single images' explanations, joined where their maps have the same resolution."""
    parts: dict[tuple[int, ...], dict[int, Explanation]] = {}
    for row, single in zip(found.rows, found.result or (), strict=True):
        parts.setdefault(tuple(single.raw.shape[1:]), {})[row] = single
    failed: Outcome[Explanation] = Outcome([], None, {}, found.errors)
    return [
        Outcome([*part], Explanation.cat([*part.values()]), {n: found.costs[n] for n in part}, {})
        for part in parts.values()
    ] + [failed]


def _chained(parts: list[list[Explanation]]) -> list[Explanation]:
    return [single for part in parts for single in part]


def _explained(told: Sequence[Outcome[Explanation]]) -> dict[int, dict[str, Any]]:
    """What rows say of an image's explanation: what it took, and whether the map is flat."""
    return {
        row: {
            "explain_seconds": part.costs[row][0],
            "explain_passes": part.costs[row][1],
            "flat": flat,
        }
        for part in told
        if part.result is not None
        for row, flat in zip(part.rows, is_flat(part.result.maps).tolist(), strict=True)
    }


def model_device(model: nn.Module, images: Tensor) -> torch.device:
    """Where the model is; where the images are if it has no parameters."""
    return next((parameter.device for parameter in model.parameters()), images.device)


def _of(values: Tensor, rows: Sequence[int]) -> Tensor:
    """Some rows, without a copy where they are all."""
    return values if len(rows) == len(values) else values[list(rows)]


def _statistic(found: object, count: int, name: str) -> Tensor:
    if not isinstance(found, Tensor) or found.ndim == 0 or len(found) != count:
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise TypeError(f"{name} must give ({count}, …), a statistic an image, got {got}")
    return _finite(found.detach().float(), name)


def _finite(found: Tensor, what: str) -> Tensor:
    if not bool(found.isfinite().all()):
        raise ModelOutputError(f"{what} gave values that are not finite")
    return found
