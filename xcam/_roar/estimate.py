"""How long a ROAR evaluation takes, from a few steps of its training."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property

import torch

from xcam._roar.images import CACHED_VALUES, PlainImages
from xcam._roar.maps import MapMaker
from xcam._roar.plan import Curve, Retraining
from xcam._roar.removal import MaskedImages, Ranking
from xcam._roar.training import BATCH, Trainer
from xcam.sentences import pluralize

__all__ = ["Estimate"]

_STEPS = 4  # of training that are timed
_IMAGES = 2  # that a method explains to be timed


@dataclass(frozen=True)
class Estimate:
    """What takes how long, as measured.

    Attributes:
        trainer: What trains.
        masked: The splits whose images are masked.
        parallel: How many nets are trained at once.
    """

    trainer: Trainer
    masked: Sequence[PlainImages]
    parallel: int

    def describe(
        self, missing: Sequence[Retraining], every: int, makers: Sequence[MapMaker], curves: int
    ) -> str:
        """Describe how long trainings, maps and their ranks take.

        Args:
            missing: The trainings to be done.
            every: How many there are.
            makers: Of the maps that they need.
            curves: How many rankings of an image they need.
        """
        maps = sum(self._time_maps(maker, images) for maker in makers for images in self.masked)
        if self._keeps_ranks:
            maps += self._rank_seconds * curves * sum(map(len, self.masked))
        masked, end = self._time_trainings()
        seconds = sum(end if one.curve is None else masked for one in missing)
        total = timedelta(seconds=math.ceil(maps + seconds))
        at_once = f", {self.parallel} at once" if self.parallel > 1 else ""
        steps = pluralize(math.ceil(self._size / self._batch), "step")
        return (
            f"{pluralize(len(missing), 'training')} of {every}{at_once}: about {total} in one "
            f"process ({seconds / len(missing):.1f} s each, and {maps:.0f} s for the maps), "
            f"measured on {steps}"
        )

    def _time_maps(self, maker: MapMaker, images: PlainImages) -> float:
        """Return the seconds that the maps of a split take."""
        count = min(_IMAGES, len(images))
        store = maker.open_store(images)
        left = sum(len(store.list_indices(job)) for job in store.jobs if not job.is_done)
        if not left:
            return 0.0
        maker.explain(images, range(count))  # finds its layer, and warms up
        begin = time.perf_counter()
        maker.explain(images, range(count))
        return (time.perf_counter() - begin) / count * left

    def _time_trainings(self) -> tuple[float, float]:
        """Return the seconds that a training and its tests take: of a curve, and of an end of it.

        The trials are short trainings on masked images, of one epoch and of two. What a split has
        beyond them is added by the image: a pass without a gradient is a third of a step. An end
        has no pixels to rank, and none to impute.
        """
        self._run(1)  # warms up
        first, both = self._run(1), self._run(2)
        masked, whole = self._time_loading(is_masked=True), self._time_loading(is_masked=False)
        step = max(0.0, both - first) / self._size
        measure = max(0.0, step - masked) / 3
        epochs = int(self.trainer.settings["epochs"])
        train, test, validation = (
            len(self.trainer.splits.get(name, ())) for name in ("train", "test", "validation")
        )
        passes = test - min(self._size, test)  # beyond those of the trials
        seconds = first + step * (epochs * train - self._size) + passes * (measure + whole)
        seconds += epochs * validation * (measure + whole)
        changed = epochs * train
        if self.trainer.masks_test:
            seconds += passes * (measure + masked) + epochs * validation * (masked - whole)
            changed += test + epochs * validation
        end = max(0.0, seconds - changed * (masked - whole))
        return seconds + (0.0 if self._keeps_ranks else self._rank_seconds * changed), end

    def _run(self, epochs: int) -> float:
        """Return the seconds of a short training, of so many epochs."""
        settings = {**self.trainer.settings, "epochs": epochs, "schedule": None}
        found = replace(self._short, settings=settings, notes={}).run(self._trials)
        return sum(outcome.seconds for outcome in found) / len(found)

    def _time_loading(self, is_masked: bool) -> float:
        """Return the seconds that an image takes to be loaded."""
        data: MaskedImages = self._short.load_whole("train")
        if is_masked:
            data = self._short.mask(self._trials[0], "train")
        indices = range(min(self._batch, len(data)))
        begin = time.perf_counter()
        if data.load_batch is None:
            for index in indices:
                data[index]
        else:
            data.load_batch(indices)
        return (time.perf_counter() - begin) / len(indices)

    @cached_property
    def _short(self) -> Trainer:
        """Return what trains on the first images, whose ranks are drawn and held."""
        splits = {
            name: images.take(self._size)
            for name, images in self.trainer.splits.items()
            if name != "validation"
        }
        held = {name: self._draw_ranking(images) for name, images in splits.items()}
        return replace(
            self.trainer,
            splits=splits,
            load_ranking=lambda _, images: held[images.name],
            notes={},
        )

    @cached_property
    def _trials(self) -> list[Retraining]:
        curve = Curve(None, "trial", "trial", control=True)
        return [Retraining(curve, "remove", 0.5, repeat) for repeat in range(self.parallel)]

    def _draw_ranking(self, images: PlainImages) -> Ranking:
        size = images.size[1:]
        ranking = Ranking(self.trainer.removal, images, lambda found: torch.rand(len(found), *size))
        ranking.load([0])
        return ranking

    @cached_property
    def _rank_seconds(self) -> float:
        """Return the seconds that the ranks of an image take."""
        images = self.trainer.splits["train"].take(self._size)
        begin = time.perf_counter()
        self._draw_ranking(images)
        return (time.perf_counter() - begin) / len(images)

    @property
    def _keeps_ranks(self) -> bool:
        """Return whether the ranks of all images fit into memory."""
        return max(map(len, self.masked)) * self.trainer.elements <= CACHED_VALUES

    @property
    def _batch(self) -> int:
        return self.trainer.settings.get("batch_size") or BATCH

    @property
    def _size(self) -> int:
        """Return how many images the trials train on."""
        return min(_STEPS * self._batch, len(self.trainer.splits["train"]))
