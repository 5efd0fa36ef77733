"""The trainings of a ROAR evaluation: which there are, what each has cost, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True)
class Retraining:
    """One training from new weights.

    Attributes:
        curve: Whose maps rank the elements; None for an endpoint, which all curves share.
        mode: Whether the highest elements are removed, or kept.
        fraction: Of them; of an endpoint 0, nothing removed, or 1, everything.
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
            return folder / "trainings" / f"removed-{self.fraction:g}" / name
        parts = name_folder(self.curve.model or CONTROLS), name_folder(self.curve.method)
        return folder.joinpath("trainings", *parts, f"{self.mode}-{self.fraction:g}", name)


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


def check_fractions(fractions: Sequence[float]) -> tuple[float, ...]:
    """Return fractions in ascending order, each once.

    Raises:
        TypeError: They are no numbers.
        ValueError: There are none, or one is not between 0 and 1.
    """
    given = [fractions] if isinstance(fractions, int | float) else list(fractions)
    for one in given:
        if isinstance(one, bool) or not isinstance(one, int | float):
            raise TypeError(f"fractions must be numbers, such as (0.1, 0.5, 0.9), got {one!r}")
        if not 0 < one < 1 or not math.isfinite(one):
            raise ValueError(
                f"fractions must be between 0 and 1, got {one!r}; both ends are measured anyway"
            )
    if not given:
        raise ValueError("fractions must hold one at least, such as (0.1, 0.5, 0.9)")
    return tuple(sorted({round(float(one), 6) for one in given}))
