"""Trainings from new weights on masked images, one by one or as a stack."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from xcam._fit import accuracy
from xcam._fit.order import seed_all
from xcam._fit.own_loss import find_training_loss
from xcam._fit.settings import Runtime, TrainingSettings
from xcam._fit.source import Source
from xcam._fit.start import Start
from xcam._fit.trials import check_last_step
from xcam._fit.verb import fit
from xcam._roar.images import PlainImages, read_loader
from xcam._roar.plan import Curve, Outcome, Retraining
from xcam._roar.removal import MaskedImages, Ranking, Removal
from xcam._roar.stacking import STACKABLE, Stack, StackError, count_answers, train_stack
from xcam.core import attached_method
from xcam.core.instantiate import check_names
from xcam.engine import random_states
from xcam.errors import DivergenceError

__all__ = ["BATCH", "OWN_SETTINGS", "Trainer", "check_fit", "describe_fit"]

_DEFAULTS = {name: entry.default for name, entry in inspect.signature(fit).parameters.items()}
OWN_SETTINGS = {
    "model",
    "data",
    "validation",
    "test",
    "out",
    "seed",
    "device",
    "progress",
    "board_path",
    "keep_every",
    "save_minutes",
}
"""The settings of `fit` that each training gets from `roar`."""
BATCH = 128
"""Images a step where neither the settings nor a loader say, as `fit` has it."""


@dataclass(frozen=True, eq=False)
class Trainer:
    """What trains new nets on masked images, and tests them.

    Attributes:
        make_model: Returns a new net, with weights from torch's global generator.
        settings: Of `fit`.
        seed: Of the first repeat; each further one has the next.
        device: Where to train.
        splits: The images by the name of their split.
        masks_test: Whether test and validation images are masked, too.
        removal: How elements are removed.
        channel_mean: Of the training images, (C, 1, 1).
        load_ranking: Returns the ranking of a split by the maps of a curve.
        notes: Collects sentences about the trainings as a whole.
    """

    make_model: Callable[[], nn.Module]
    settings: Mapping[str, Any]
    seed: int
    device: str | torch.device | None
    splits: Mapping[str, PlainImages]
    masks_test: bool
    removal: Removal
    channel_mean: Tensor
    load_ranking: Callable[[Curve, PlainImages], Ranking]
    notes: dict[str, None] = field(default_factory=dict)

    def run(self, retrainings: Sequence[Retraining]) -> list[Outcome]:
        """Train and test: as a stack where that is possible and there are several."""
        if len(retrainings) > 1 and self.find_obstacle() is None:
            try:
                return self._run_stack(retrainings)
            except StackError as error:
                self._note_obstacle(str(error))
        elif len(retrainings) > 1:
            self._note_obstacle(str(self.find_obstacle()))
        return [self._run_one(retraining) for retraining in retrainings]

    def find_obstacle(self) -> str | None:
        """Return why nets cannot be trained as a stack, as far as the settings tell."""
        changed = {name for name, value in self.settings.items() if value != _DEFAULTS.get(name)}
        others = sorted(changed - STACKABLE)
        return f"a stack of them cannot take {' and '.join(others)}" if others else None

    def make_net(self, repeat: int) -> nn.Module:
        """Return a new net with the weights of a repeat.

        Raises:
            TypeError: `make_model` gives no net.
        """
        with random_states():
            seed_all("roar", self.seed + repeat)
            net = self.make_model()
        if not isinstance(net, nn.Module):
            raise TypeError(
                f"make_model must return a new torch.nn.Module, got {type(net).__name__}"
            )
        return net

    def mask(self, retraining: Retraining, split: str) -> MaskedImages:
        """Return the images of a split with what a training removes from them."""
        whole = self.load_whole(split)
        if split != "train" and not self.masks_test:
            return whole
        curve = retraining.curve
        ranking = None if curve is None else self.load_ranking(curve, whole.images)
        return replace(whole, ranking=ranking, mode=retraining.mode, count=self.count(retraining))

    def load_whole(self, split: str) -> MaskedImages:
        """Return the images of a split with nothing removed."""
        images = self.splits[split]
        return MaskedImages(images, self.removal, self.channel_mean, None, "remove", 0)

    def count(self, retraining: Retraining) -> int:
        """Return how many of an image's elements are removed, or kept."""
        return self.removal.count(retraining.fraction, self.elements)

    @property
    def elements(self) -> int:
        """Return how many elements an image has."""
        return self.removal.count_elements(self.splits["train"].size)

    def _run_one(self, retraining: Retraining) -> Outcome:
        begin, seed = time.perf_counter(), self.seed + retraining.repeat
        test, error, correct, unmasked = self.mask(retraining, "test"), None, None, None
        validation = self.mask(retraining, "validation") if "validation" in self.splits else None
        try:
            net = fit(
                self.make_net(retraining.repeat),
                self.mask(retraining, "train"),
                validation=validation,
                seed=seed,
                device=self.device,
                **self.settings,
            )
            same = ("batch_size", "precision", "workers")
            options = {name: self.settings[name] for name in same if name in self.settings}
            correct = unmasked = int(accuracy(net, test, **options)["correct"].iloc[-1])
            if test.removes_any:
                whole = accuracy(net, self.load_whole("test"), **options)
                unmasked = int(whole["correct"].iloc[-1])
        except DivergenceError as failure:
            error = str(failure)
        seconds = time.perf_counter() - begin
        return self._describe(retraining, len(test), (correct, unmasked), seconds, 1, error)

    def _run_stack(self, retrainings: Sequence[Retraining]) -> list[Outcome]:
        begin, count = time.perf_counter(), len(retrainings)
        with random_states():
            begun = [self._begin(retraining) for retraining in retrainings]
            starts, nets = (list(part) for part in zip(*begun, strict=True))
            trained = train_stack(starts, nets, self.settings["epochs"])
            tests = [start.test for start in starts if start.test is not None]
            stack, whole = Stack([one.net for one in trained]), self.load_whole("test")
            correct = unmasked = count_answers(starts, stack, tests).tolist()
            if any(test.dataset.removes_any for test in tests):
                tests = [replace(test, dataset=whole) for test in tests]
                unmasked = count_answers(starts, stack, tests).tolist()
        seconds = (time.perf_counter() - begin) / count
        pairs = zip(correct, unmasked, strict=True)
        return [
            self._describe(
                retraining,
                len(tests[0]),
                (None, None) if each.error else pair,
                seconds,
                count,
                each.error,
            )
            for retraining, each, pair in zip(retrainings, trained, pairs, strict=True)
        ]

    def _begin(self, retraining: Retraining) -> tuple[Start, nn.Module]:
        """Return a training at its beginning, as `fit` begins it, and its net."""
        net = self.make_net(retraining.repeat)
        if attached_method(net) is not None or find_training_loss(net) is not None:
            raise StackError("they bring losses of their own")
        settings, given = _complete(self.settings, self.seed + retraining.repeat)
        sources = {
            split: Source.wrap(self.mask(retraining, split), split, given["workers"])
            for split in self.splits
        }
        train = replace(sources["train"], drop_last=given["drop_last"])
        runtime = Runtime.choose(self.device, settings.precision)
        start = Start(
            settings,
            train,
            sources.get("validation"),
            sources["test"],
            runtime,
            1,
            *train.load_one(settings.seed),
        )
        net, _ = start.attach_head(net, None, {})
        start = start.fit_net(net, None)
        check_last_step(net, start.image, start.order, runtime)
        start.check_all_labels(is_begun=False)
        return start, net

    def _describe(
        self,
        retraining: Retraining,
        images: int,
        correct: tuple[int | None, int | None],
        seconds: float,
        parallel: int,
        error: str | None,
    ) -> Outcome:
        count = self.count(retraining)
        removed = count if retraining.mode == "remove" else self.elements - count
        seed = self.seed + retraining.repeat
        return Outcome(seed, removed, self.elements, images, *correct, seconds, parallel, error)

    def _note_obstacle(self, reason: str) -> None:
        self.notes[f"the nets are trained one by one in spite of parallel: {reason}"] = None


def check_fit(settings: Mapping[str, Any], train: object = None) -> dict[str, Any]:
    """Return the settings of the trainings, checked as far as they can be without a net.

    Args:
        settings: As they are given.
        train: The training images; a loader of them brings settings of its own, as with `fit`.

    Raises:
        TypeError: No mapping, an unknown setting, or one out of its range.
        ValueError: No epochs, a setting that `roar` determines, or a loader that chooses images.
    """
    if not isinstance(settings, Mapping):
        raise TypeError(
            f"fit must be a mapping of settings of xcam.fit, such as {{'epochs': 10}}, "
            f"got {settings!r}"
        )
    taken = [name for name in settings if name in OWN_SETTINGS]
    if taken:
        raise ValueError(
            f"fit may not set {', '.join(taken)}: roar does, for each training; leave it out"
        )
    if "epochs" not in settings:
        raise ValueError("fit must say how long to train, such as {'epochs': 10}")
    if settings.get("method") is None:
        check_names(
            "fit", settings, [name for name in _DEFAULTS if name not in {*OWN_SETTINGS, "params"}]
        )
    loaded = read_loader(train, "train") if isinstance(train, DataLoader) else {}
    return {**loaded, **settings, **{k: loaded[k] for k in loaded.keys() - {"batch_size"}}}


def describe_fit(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return, as JSON, what settings make of a training, however they are spelled.

    Raises:
        TypeError, ValueError: Settings that do not fit.
    """
    chosen, given = _complete(settings, seed=0)
    described = chosen.describe()
    others = given.keys() - described.keys() - OWN_SETTINGS - {"workers", "params"}
    return {
        **{name: value for name, value in described.items() if name != "seed"},
        **{name: _spell(given[name]) for name in sorted(others)},
    }


def _spell(value: Any) -> Any:  # noqa: ANN401 - a setting
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def _complete(settings: Mapping[str, Any], seed: int) -> tuple[TrainingSettings, dict[str, Any]]:
    """Return what decides about a training, and all settings of `fit`, with the defaults."""
    given = {**_DEFAULTS, **settings, "seed": seed}
    given["batch_size"] = given["batch_size"] or BATCH
    names = [entry.name for entry in fields(TrainingSettings)]
    return TrainingSettings(**{name: given[name] for name in names}), given
