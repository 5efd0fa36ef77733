"""What makes a training this one: with the same settings it goes on, with others it is another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from torch import nn

from xcam._fit.objective import Criterion
from xcam._fit.optimization import NamedArguments
from xcam.core import TrainableMethod
from xcam.core.instantiate import check_number
from xcam.engine.forward import Precision
from xcam.runs import manifest

__all__ = ["TrainingSettings", "check_count", "describe_structure"]


@dataclass(frozen=True, eq=False)
class TrainingSettings:
    """Those arguments of `fit` that decide what comes out of a training.

    Attributes:
        batch_size: Images an optimiser step.
        optimizer: Its name and arguments.
        schedule: Those of the schedule.
        groups: Settings of the parameters that a pattern matches.
        criterion: The loss of logits and labels; None is the cross-entropy.
        label_smoothing: Of the cross-entropy.
        mix: The α of MixUp and CutMix.
        ema: Of the weights.
        clip: The largest norm of the gradient.
        precision: Of the passes.
        seed: Of everything random.
    """

    batch_size: int
    optimizer: NamedArguments
    schedule: NamedArguments | None
    groups: Mapping[str, NamedArguments]
    criterion: Criterion | None
    label_smoothing: float
    mix: Mapping[str, float]
    ema: Mapping[str, Any] | None
    clip: float | None
    precision: Precision
    seed: int

    def __post_init__(self) -> None:
        """Refuse values out of their range; what has a name is checked where it is made."""
        check_count("batch_size", self.batch_size)
        check_count("seed", self.seed, least=0)
        check_number("label_smoothing", self.label_smoothing)
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"label_smoothing must be at least 0 and below 1, got {self.label_smoothing!r}"
            )
        if self.criterion is not None and not callable(self.criterion):
            raise TypeError(
                "criterion must be a callable (logits, labels) -> scalar, such as "
                f"torch.nn.CrossEntropyLoss(), got {self.criterion!r}"
            )
        if self.criterion is not None and self.label_smoothing:
            raise ValueError("label_smoothing is of the cross-entropy; give the criterion its own")

    def check_method(self, method: TrainableMethod | None) -> None:
        """Refuse what is the method's to decide.

        Raises:
            ValueError: A criterion or label smoothing beside a method.
        """
        if method is not None and (self.criterion is not None or self.label_smoothing):
            raise ValueError(
                f"the loss is that of the method {method.spec.name}; leave out criterion and "
                "label_smoothing"
            )

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON, as a manifest holds them."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {
            **{name: _to_json(value) for name, value in values.items()},
            "criterion": _describe_criterion(self.criterion),
        }


def check_count(name: str, value: object, least: int = 1) -> None:
    """Refuse what is no whole number of at least so many.

    Raises:
        TypeError: Not an int.
        ValueError: Too small.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int of at least {least}, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be an int of at least {least}, got {value}")


def describe_structure(net: nn.Module) -> dict[str, str]:
    """Return the class of a net, and a hash of its structure: what it prints, and its tensors."""
    tensors = [*net.named_parameters(), *net.named_buffers()]
    lines = [f"{name} {t.dtype} {tuple(t.shape)} {t.requires_grad}" for name, t in tensors]
    kind = f"{type(net).__module__}.{type(net).__qualname__}"
    return {
        "class": kind,
        "structure": manifest.digest(text.encode() for text in [str(net), *lines]),
    }


def _to_json(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def _describe_criterion(criterion: object) -> object:
    """Return the class and a hash of the tensors of a module, or the name of a function.

    The repr of a function holds an address, which differs in each process.
    """
    if isinstance(criterion, nn.Module):
        return manifest.describe_model(criterion)
    if isinstance(criterion, partial):
        return _describe_criterion(criterion.func)
    if criterion is None:
        return None
    named = criterion if hasattr(criterion, "__qualname__") else type(criterion)
    return f"{named.__module__}.{named.__qualname__}"
