"""The trainings of a ROAR evaluation: which there are, what each has cost, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from xcam._roar.removal import Mode
from xcam.runs.manifest import encode_manifest
from xcam.runs.sharing import Job
from xcam.sentences import name_folder

__all__ = [
    "CONTROLS",
    "Curve",
    "Outcome",
    "Retraining",
    "RetrainingJob",
    "check_fractions",
    "list_retrainings",
]

CONTROLS = "(controls)"
"""What stands for the model in the paths of controls."""


@dataclass(frozen=True)
class Curve:
    """What gives a curve of the results.

    Attributes:
        model: The name of the network that was explained; None of a control that needs none.
        method: Its label in the table.
        maps: The label of the maps that it ranks by.
        control: Whether it is a control.
        sigma: Of a Gaussian, in pixels, that blurs the maps first.
    """

    model: str | None
    method: str
    maps: str
    control: bool
    sigma: float = 0.0

    def locate(self, folder: Path) -> Path:
        """Return the folder of its outcomes in the folder of the evaluation."""
        names = name_folder(self.model or CONTROLS), name_folder(self.method)
        return folder.joinpath("trainings", *names)


@dataclass(frozen=True)
class Retraining:
    """One training from new weights.

    Attributes:
        curve: Whose maps rank the elements; None for an endpoint, which all curves share.
        mode: Whether the highest elements are removed, or kept.
        fraction: How much of the elements; at an endpoint 0, which removes nothing, or 1, all.
        repeat: Its number among those that differ in the seed alone.
    """

    curve: Curve | None
    mode: Mode
    fraction: float
    repeat: int

    def locate(self, folder: Path) -> Path:
        """Return the file of the outcome in the folder of the evaluation."""
        name = f"repeat-{self.repeat}.json"
        if self.curve is None:
            return folder / "trainings" / f"removed-{self.fraction:.15g}" / name
        return self.curve.locate(folder) / f"{self.mode}-{self.fraction:.15g}" / name


@dataclass(frozen=True)
class RetrainingJob(Job):
    """A training to do."""

    retraining: Retraining


@dataclass(frozen=True)
class Outcome:
    """What came of a training.

    Attributes:
        seed: Of the weights, the order of the images, and all else that was drawn.
        removed: How many of an image's elements were replaced.
        elements: How many there are.
        images: How many test images there are.
        correct: How many of them the new net classifies right, masked as the protocol has it; None
            where the training failed.
        correct_unmasked: How many of them it classifies right as they are, not masked.
        seconds: What the training and the test took; of several at once, its share.
        parallel: How many were trained at once.
        error: Why there is no net.
    """

    seed: int
    removed: int
    elements: int
    images: int
    correct: int | None
    correct_unmasked: int | None
    seconds: float
    parallel: int
    error: str | None = None

    def encode(self, retraining: Retraining) -> bytes:
        """Return the content of the file, with what the training was."""
        curve = retraining.curve
        which: dict[str, Any] = {
            "model": None if curve is None else curve.model,
            "method": None if curve is None else curve.method,
            "control": curve is not None and curve.control,
            "mode": None if curve is None else retraining.mode,
            "fraction": retraining.fraction,
            "repeat": retraining.repeat,
        }
        return encode_manifest({**which, **asdict(self)})


def list_retrainings(
    curves: Iterable[Curve], modes: Sequence[Mode], fractions: Sequence[float], repeats: int
) -> list[Retraining]:
    """List all trainings: a repeat of everything before the next one, endpoints first."""
    return list(_iterate(list(curves), modes, fractions, repeats))


def _iterate(
    curves: list[Curve], modes: Sequence[Mode], fractions: Sequence[float], repeats: int
) -> Iterator[Retraining]:
    for repeat in range(repeats):
        for end in (0.0, 1.0):
            yield Retraining(None, "remove", end, repeat)
        for curve in curves:
            for mode in modes:
                for fraction in fractions:
                    yield Retraining(curve, mode, fraction, repeat)


def check_fractions(fractions: float | Sequence[float]) -> tuple[float, ...]:
    """Return fractions in ascending order, each once.

    Raises:
        TypeError: They are no numbers.
        ValueError: There are none, or one is not between 0 and 1.
    """
    given: list[Any] = [fractions] if isinstance(fractions, Real) else list(fractions)  # type: ignore[arg-type]
    for one in given:
        if isinstance(one, bool) or not isinstance(one, Real):
            raise TypeError(f"fractions must be numbers, such as (0.1, 0.5, 0.9), got {one!r}")
        if not 0 < float(one) < 1:
            raise ValueError(
                f"fractions must be between 0 and 1, got {one!r}; both ends are measured anyway"
            )
    if not given:
        raise ValueError("fractions must hold one at least, such as (0.1, 0.5, 0.9)")
    return tuple(sorted({_round(one) for one in given}))


def _round(fraction: Any) -> float:  # noqa: ANN401 - a number
    """Return a fraction without the error of its type or sum: 0.3 of 0.1 + 0.2."""
    # float32(0.1) is 0.1, and prints as that.
    return round(float(str(fraction) if isinstance(fraction, np.floating) else fraction), 15)
