"""The work of a ROAR evaluation: maps first, then trainings that processes claim one by one."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xcam._fit.order import seed_item
from xcam._fit.settings import describe_structure
from xcam._roar.estimate import Estimate
from xcam._roar.images import PlainImages, check_range
from xcam._roar.maps import MapMaker
from xcam._roar.plan import Curve, Retraining, RetrainingJob, list_retrainings
from xcam._roar.protocol import Protocol
from xcam._roar.removal import Ranking
from xcam._roar.training import Trainer, describe_fit
from xcam.data.items import read_item
from xcam.engine import random_states
from xcam.runs import files, manifest
from xcam.runs.folder import RunFolder
from xcam.runs.sharing import share_folder, share_jobs
from xcam.sentences import name_folder

__all__ = ["Work", "locate_maps"]

_HELD = 2**30  # ranks in memory, of all curves together
_CHECKED = 8  # images whose transform is tried
_SLACK = 0.5  # beyond [0, 1], where a transform may add noise


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

    def check(self) -> None:
        """Refuse what cannot be evaluated, and warn of nets that all have the same weights.

        Raises:
            TypeError: `make_model` gives no net.
            ValueError: It gives one that it gave before; maps that lack a split; fractions of no
                element; or a transform whose images are not in [0, 1].
        """
        self.protocol.removal.check_fractions(self.protocol.fractions, self.splits["train"].size)
        for maker in self.makers.values():
            maker.check(self._masked_splits)
        self._check_nets()
        for name, images in self.splits.items():
            if not images.is_fixed:
                self._check_transform(name)

    def _check_nets(self) -> None:
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

    def run(self, folder: RunFolder, progress: bool, shows_estimate: bool) -> None:
        """Make what is missing of the maps, and do what is missing of the trainings."""
        folder.create()
        with share_folder(folder.path, partial(self.settle, folder), ("maps", "trainings")):
            if shows_estimate:
                sys.stdout.write(self.estimate(folder.path) + "\n")
            self._make_maps(folder.path, progress)
            self._train(folder.path, progress)
        self.notes.update(self.trainer.notes)

    def settle(self, folder: RunFolder, is_shared: bool, writes: bool = True) -> None:
        """Write the manifests of the folder and of its maps, or compare them with what is there.

        Args:
            folder: Of the evaluation.
            is_shared: Whether others work there.
            writes: Only compare without it.

        Raises:
            ValueError: The folder is of another evaluation, or its maps are others.
        """
        settings = {
            "format": 2,
            **self.protocol.describe(),
            "net": describe_structure(self.trainer.make_net(0)),
            "fit": describe_fit(self.fit),
            **{name: images.describe() for name, images in self.splits.items()},
        }
        joining = is_shared and (folder.path / "manifest.json").exists()
        if writes:
            folder.settle(settings, joining=joining)
        else:
            folder.compare(settings, joining=joining)
        for pair, maker in self.makers.items():
            curves = [one for one in self.curves if (one.model, one.maps) == pair]
            paths = [one.locate(folder.path) for one in curves]
            is_used = any(any(path.rglob("repeat-*.json")) for path in paths)
            maker.settle(is_shared or is_used, writes)

    def _make_maps(self, folder: Path, progress: bool) -> None:
        from tqdm.auto import tqdm

        needed = {training.curve for training in self._list_missing(folder)} - {None}
        pairs = dict.fromkeys((c.model, c.maps) for c in self.curves if c in needed)
        # None: on terminals alone
        for pair in tqdm(pairs, desc="maps", disable=None if progress else True):
            for images in self._masked_splits:
                self.makers[pair].make(images)

    def _train(self, folder: Path, progress: bool) -> None:
        from tqdm.auto import tqdm

        jobs = [RetrainingJob(one.locate(folder), one) for one in self.retrainings]
        bar = tqdm(total=len(jobs), desc="trainings", disable=None if progress else True)
        bar.update(sum(job.is_done for job in jobs))

        def train(claimed: list[RetrainingJob]) -> None:
            trainings = [job.retraining for job in claimed]
            for job, outcome in zip(claimed, self.trainer.run(trainings), strict=True):
                files.write(job.product, outcome.encode(job.retraining))
            bar.update(len(claimed))

        with bar:
            share_jobs(jobs, train, self.parallel, others=self.shard is None)

    def estimate(self, folder: Path) -> str:
        """Describe how many trainings are missing, and how long they and the maps will take."""
        missing = self._list_missing(folder)
        if not missing:
            return "all trainings are done"
        used = {one.curve for one in missing}
        pairs = dict.fromkeys((c.model, c.maps) for c in self.curves if c in used)
        estimate = Estimate(self.trainer, self._masked_splits, self.parallel)
        return estimate.describe(
            missing,
            len(self.retrainings),
            [self.makers[pair] for pair in pairs],
            len(used - {None}),
        )

    @property
    def trainer(self) -> Trainer:
        """Return what trains; the mean of the channels is computed at the first time."""
        if self._trainer is None:
            mean = self.splits["train"].compute_channel_mean()
            if any(one.has_bytes and not one.is_fixed for one in self.splits.values()):
                mean = (mean * 255).round() / 255  # of all splits alike, also where floats are kept
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
            store.open_all()
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

    def _check_transform(self, split: str) -> None:
        """Refuse a transform that gives images far outside of [0, 1], from a few of them."""
        whole = self.trainer.load_whole(split)
        with random_states():
            for index in range(min(_CHECKED, len(whole))):
                seed_item("check", index)
                image, *_ = read_item(whole, index, split)
                if isinstance(image, Tensor):
                    check_range(image, index, f"{split}, after its transform,", _SLACK)


def locate_maps(folder: Path, labels: Iterable[str]) -> Path:
    """Return the folder of the maps of a model and a method."""
    return folder.joinpath("maps", *map(name_folder, labels))
