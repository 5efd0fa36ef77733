"""The work of a ROAR evaluation: maps first, then trainings that processes claim one by one."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xcam._fit.settings import describe_structure
from xcam._roar.images import PlainImages
from xcam._roar.maps import MapMaker
from xcam._roar.plan import Curve, Retraining, RetrainingJob, list_retrainings
from xcam._roar.protocol import Protocol
from xcam._roar.removal import Ranking
from xcam._roar.training import Trainer
from xcam.runs import files, manifest
from xcam.runs.folder import RunFolder
from xcam.runs.sharing import claim, share_jobs
from xcam.sentences import name_folder, pluralize

__all__ = ["Work", "locate_maps"]

_HELD = 2**30  # ranks in memory, of all curves together
_TRIAL_STEPS = 3  # that are timed, after a first one that is not
_TRIAL_IMAGES = 2  # that a method explains to be timed


@dataclass(eq=False)
class Work:
    """A ROAR evaluation that is ready to run.

    Attributes:
        protocol: Of the evaluation.
        splits: The images by the name of their split.
        makers: Of the maps, by model and label.
        curves: Of the results.
        make_model: Returns a new net.
        fit: Settings of the trainings.
        device: Where to train.
        parallel: How many nets are trained at once.
        shard: (i, n), to do the i-th part of n alone.
        notes: Collects sentences about the evaluation as a whole.
    """

    protocol: Protocol
    splits: Mapping[str, PlainImages]
    makers: Mapping[tuple[str | None, str], MapMaker]
    curves: Sequence[Curve]
    make_model: Callable[[], nn.Module]
    fit: Mapping[str, Any]
    device: str | torch.device | None
    parallel: int
    shard: tuple[int, int] | None
    notes: dict[str, None] = field(default_factory=dict)
    _rankings: OrderedDict[tuple[Curve, str], Ranking] = field(
        default_factory=OrderedDict, init=False
    )
    _trainer: Trainer | None = field(default=None, init=False)

    @property
    def retrainings(self) -> list[Retraining]:
        """Return the trainings of this call, or of its shard."""
        protocol = self.protocol
        every = list_retrainings(self.curves, protocol.modes, protocol.fractions, protocol.repeats)
        return every if self.shard is None else every[self.shard[0] - 1 :: self.shard[1]]

    def check_nets(self) -> None:
        """Refuse a function that returns the same net again, and warn of the same weights.

        Raises:
            TypeError: It gives no net.
            ValueError: It gives one that it gave before.
        """
        one, other = self.trainer.make_net(0), self.trainer.make_net(1)
        if one is other:
            raise ValueError(
                "make_model returned the same net twice, and each training needs a new one; give a "
                "function that makes it, such as lambda: Net()"
            )
        digests = [manifest.describe_model(net) for net in (one, other)]
        if digests[0] == digests[1]:
            self.notes[
                "make_model gives the same weights whatever torch's seed is, so that repeats "
                "differ in the order of the images alone"
            ] = None

    def run(self, folder: RunFolder, progress: bool) -> None:
        """Make what is missing of the maps, and do what is missing of the trainings."""
        from tqdm.auto import tqdm

        silent = None if progress else True  # None: on terminals alone
        self._settle(folder)
        needed = {training.curve for training in self._list_missing(folder.path)} - {None}
        pairs = [(c.model, c.maps) for c in self.curves if c in needed]
        for pair in tqdm(dict.fromkeys(pairs), desc="maps", disable=silent):
            for images in self._masked_splits:
                self.makers[pair].make(images)
        jobs = [RetrainingJob(one.locate(folder.path), one) for one in self.retrainings]
        bar = tqdm(total=len(jobs), desc="trainings", disable=silent)
        bar.update(sum(job.is_done for job in jobs))

        def train(claimed: list[RetrainingJob]) -> None:
            trainings = [job.retraining for job in claimed]
            for job, outcome in zip(claimed, self.trainer.run(trainings), strict=True):
                files.write(job.product, outcome.encode(job.retraining))
            bar.update(len(claimed))

        with bar:
            share_jobs(jobs, train, self.parallel, others=self.shard is None)
        self.notes.update(self.trainer.notes)

    def estimate(self, folder: Path) -> str:
        """Describe how many trainings are missing, and how long they and the maps will take.

        A few steps of training, one batch of test images and the maps of two images are timed.
        """
        missing = self._list_missing(folder)
        if not missing:
            return "all trainings are done"
        maps = sum(
            self._time_maps(self.makers[pair], images)
            for pair in dict.fromkeys((c.model, c.maps) for c in self.curves)
            for images in self._masked_splits
            if any(t.curve and (t.curve.model, t.curve.maps) == pair for t in missing)
        )
        one = self._time_training()
        total = timedelta(seconds=math.ceil(maps + one * len(missing)))
        at_once = f", {self.parallel} at once" if self.parallel > 1 else ""
        return (
            f"{pluralize(len(missing), 'training')} of {len(self.retrainings)}{at_once}: about "
            f"{total} in one process ({one:.1f} s each, and {maps:.0f} s for the maps), measured "
            f"on {_TRIAL_STEPS} steps"
        )

    @property
    def trainer(self) -> Trainer:
        """Return what trains; the mean of the channels is computed at the first time."""
        if self._trainer is None:
            mean = self.splits["train"].compute_channel_mean()
            self._trainer = self._make_trainer(mean)
        return self._trainer

    def _make_trainer(self, channel_mean: Tensor) -> Trainer:
        return Trainer(
            self.make_model,
            self.fit,
            self.protocol.removal.seed,
            self.device,
            self.splits,
            self.protocol.masks_test,
            self.protocol.removal,
            channel_mean,
            self._load_ranking,
        )

    @property
    def _masked_splits(self) -> list[PlainImages]:
        names = list(self.splits) if self.protocol.masks_test else ["train"]
        return [self.splits[name] for name in names]

    def _list_missing(self, folder: Path) -> list[Retraining]:
        return [one for one in self.retrainings if not one.locate(folder).exists()]

    def _load_ranking(self, curve: Curve, images: PlainImages) -> Ranking:
        """Return the ranking of a split by the maps of a curve; the latest ones stay in memory."""
        key = (curve, images.name)
        if key not in self._rankings:
            store = self.makers[curve.model, curve.maps].open_store(images)
            ranking = Ranking(self.protocol.removal, images, store.load, curve.sigma)
            self._rankings[key] = ranking
        self._rankings.move_to_end(key)
        elements = self.protocol.removal.count_elements(images.size)
        held = [(key, elements * len(one.images)) for key, one in self._rankings.items()]
        excess = sum(size for _, size in held) - _HELD
        for old, size in held[:-1]:
            if excess > 0:
                del self._rankings[old]
                excess -= size
        return self._rankings[key]

    def _settle(self, folder: RunFolder) -> None:
        """Write the manifest, or compare it with that of the trainings that are there."""
        folder.create()
        with claim(folder.path / ".manifest.lock", timeout=-1):
            folder.settle(
                {
                    "format": 1,
                    **self.protocol.describe(),
                    "net": describe_structure(self.trainer.make_net(0)),
                    "fit": {name: repr(value) for name, value in sorted(self.fit.items())},
                    **{name: _describe_images(images) for name, images in self.splits.items()},
                }
            )

    def _time_maps(self, maker: MapMaker, images: PlainImages) -> float:
        """Return the seconds that the maps of a split take."""
        count = min(_TRIAL_IMAGES, len(images))
        store = maker.open_store(images)
        left = sum(len(store.list_indices(job)) for job in store.jobs if not job.is_done)
        maker.explain(images, range(count))  # finds its layer, and warms up
        begin = time.perf_counter()
        maker.explain(images, range(count))
        return (time.perf_counter() - begin) / count * left

    def _time_training(self) -> float:
        """Return the seconds that a training and its test take."""
        batch = self.fit.get("batch_size") or 128
        ends = list_retrainings([], ["remove"], [], self.parallel)[::2]
        short = replace(self.trainer, settings={**self.fit, "epochs": 1}, notes={})
        seconds = []
        for steps in (1, 1, 1 + _TRIAL_STEPS):  # the first one is not counted
            trial = replace(short, stop=steps * batch)
            seconds.append(sum(outcome.seconds for outcome in trial.run(ends)) / len(ends))
        step = max(0.0, seconds[2] - seconds[1]) / _TRIAL_STEPS
        return seconds[1] + step * self._count_steps(batch)

    def _count_steps(self, batch: int) -> float:
        """Return how many steps a training takes; a batch that is only measured is a third."""
        epochs, sizes = self.fit["epochs"], {name: len(one) for name, one in self.splits.items()}
        tests = 2 if self.protocol.masks_test else 1  # masked, and as they are
        measured = tests * sizes["test"] + epochs * sizes.get("validation", 0)
        return float(epochs * sizes["train"] + measured / 3) / batch


def _describe_images(images: PlainImages) -> dict[str, Any]:
    ends = images.load([0, len(images) - 1])
    parts = [("labels", images.labels), ("first and last", ends)]
    ids = "\n".join(images.ids).encode()
    return {
        "images": len(images),
        "size": list(images.size),
        "sha256": manifest.digest([ids, *manifest.iterate_bytes(parts)]),
    }


def locate_maps(folder: Path, labels: Iterable[str]) -> Path:
    """Return the folder of the maps of a model and a method."""
    return folder.joinpath("maps", *map(name_folder, labels))
