"""What makes a training this one: the same settings, and it goes on; others, and it is another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from torch import nn

from xcam._fit.objective import Criterion
from xcam._fit.optimization import Named
from xcam.core import TrainableMethod
from xcam.core.instantiate import check_number
from xcam.engine.forward import Precision
from xcam.runs import manifest

__all__ = ["Settings", "check_count", "of_net"]


@dataclass(frozen=True, eq=False)
class Settings:
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
    optimizer: Named
    schedule: Named | None
    groups: Mapping[str, Named]
    criterion: Criterion | None
    label_smoothing: float
    mix: Mapping[str, float]
    ema: Mapping[str, Any] | None
    clip: float | None
    precision: Precision
    seed: int

    def __post_init__(self) -> None:
        """Refuses values out of their range; what has a name is checked where it is made."""
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

    def check_for(self, method: TrainableMethod | None) -> None:
        """Refuses what is the method's to decide.

        Raises:
            ValueError: A criterion or label smoothing beside a method.
        """
        if method is not None and (self.criterion is not None or self.label_smoothing):
            raise ValueError(
                f"the loss is that of the method {method.spec.name}; leave out criterion and "
                "label_smoothing"
            )

    def said(self) -> dict[str, Any]:
        """The settings as a manifest holds them."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {
            **{name: _plain(value) for name, value in values.items()},
            "criterion": _called(self.criterion),
        }


def of_net(net: nn.Module) -> dict[str, str]:
    """The class of a net, and a hash of its structure: of what it prints, and of its tensors."""
    tensors = [*net.named_parameters(), *net.named_buffers()]
    lines = [f"{name} {t.dtype} {tuple(t.shape)} {t.requires_grad}" for name, t in tensors]
    kind = f"{type(net).__module__}.{type(net).__qualname__}"
    return {
        "class": kind,
        "structure": manifest.digest(text.encode() for text in [str(net), *lines]),
    }


def check_count(name: str, value: object, least: int = 1) -> None:
    """Refuses what is no whole number of at least so many.

    Raises:
        TypeError: Not an int.
        ValueError: Too small.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int of at least {least}, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be an int of at least {least}, got {value}")


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def _called(criterion: object) -> object:
    """What tells criteria apart: the values of a module, the name of a function.

    The repr of anything else may hold an address.
    """
    if isinstance(criterion, nn.Module):
        return {"repr": repr(criterion), "values": _values(criterion)}
    if isinstance(criterion, partial):
        given = [*enumerate(criterion.args), *criterion.keywords.items()]
        arguments = {str(k): _called(v) if callable(v) else _plain(v) for k, v in given}
        return {"function": _called(criterion.func), **arguments}
    if criterion is None:
        return None
    named = criterion if hasattr(criterion, "__qualname__") else type(criterion)
    return f"{named.__module__}.{named.__qualname__}"


def _values(module: nn.Module) -> str:
    """A hash of a module's tensors, and of the plain values that its repr may leave out."""
    tensors = manifest.contents([*module.named_parameters(), *module.named_buffers()])
    plain = [
        f"{path}.{name} {value!r}".encode()
        for path, part in module.named_modules()
        for name, value in vars(part).items()
        if name != "training" and isinstance(value, bool | int | float | str)
    ]
    return manifest.digest([*tensors, *plain])
