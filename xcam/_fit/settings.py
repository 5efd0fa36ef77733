"""The settings of a training, which make it this one, and where and how its net runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from xcam._fit.optimization import NamedArguments
from xcam._fit.own_loss import has_own_loss
from xcam.core import TrainableMethod, extract_logits
from xcam.core.instantiate import check_number
from xcam.engine import untouched
from xcam.engine.forward import Precision
from xcam.runs import manifest
from xcam.runs.processes import Processes, get_processes

__all__ = [
    "Criterion",
    "Runtime",
    "TrainingSettings",
    "check_count",
    "describe_structure",
]

Criterion: TypeAlias = Callable[[Tensor, Tensor], Tensor]
_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, eq=False)
class TrainingSettings:
    """Those arguments of `fit` that decide what comes out of a training.

    Attributes:
        batch_size: Images an optimiser step.
        optimizer: Its name and arguments.
        schedule: Those of the schedule.
        groups: Settings of the parameters that a pattern matches.
        criterion: The loss of logits and labels; None is the cross-entropy.
        label_smoothing: Label smoothing of the cross-entropy.
        mix: The α of MixUp and CutMix.
        ema: Of the weights.
        clip: The largest norm of the gradient.
        precision: Of the passes.
        seed: The seed for all random numbers.
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
            raise ValueError(
                "label_smoothing applies only to the default cross-entropy; set it in your "
                "criterion"
            )

    def check_labels(self, has_several: bool) -> None:
        """Refuse settings that several labels an image leave without a meaning.

        Raises:
            ValueError: MixUp, CutMix or label smoothing for such labels.
        """
        if has_several and (self.mix or self.label_smoothing):
            raise ValueError(
                "mix and label_smoothing are for images of one label, and these have several; "
                "leave them out"
            )

    def check_method(self, method: TrainableMethod | None) -> None:
        """Refuse settings that the method determines.

        Raises:
            ValueError: A criterion or label smoothing beside a method with a loss of its own.
        """
        if method is None or not has_own_loss(method):
            return
        if self.criterion is not None or self.label_smoothing:
            raise ValueError(
                f"the loss is that of the method {method.spec.name}; leave out criterion and "
                "label_smoothing"
            )

    def check_own_loss(self, has_own_loss: bool) -> None:
        """Refuse a setting of the cross-entropy for a net that brings its own loss.

        Raises:
            ValueError: Label smoothing, and no criterion.
        """
        if has_own_loss and self.label_smoothing:
            raise ValueError(
                "the loss is the model's own training_loss; leave out label_smoothing, or give a "
                "criterion, such as torch.nn.CrossEntropyLoss(label_smoothing=0.1)"
            )

    def describe(self) -> dict[str, Any]:
        """Return the settings as JSON, as a manifest holds them."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {
            **{name: _to_json(value) for name, value in values.items()},
            "criterion": _describe_criterion(self.criterion),
        }


@dataclass(frozen=True)
class Runtime:
    """How a net is run.

    Attributes:
        processes: This process among those that share the work.
        device: Of the net.
        precision: `"full"` is the net's own; the others run it under autocast.
        memory_format: Of the images: channels_last is faster on a CPU, for nets that take it.
    """

    processes: Processes
    device: torch.device
    precision: Precision
    memory_format: torch.memory_format = torch.contiguous_format

    @classmethod
    def choose(
        cls,
        device: str | torch.device | None,
        precision: Precision,
        default: torch.device | None = None,
    ) -> Runtime:
        """Choose the device: the launcher's, or `device`, or `default`.

        Args:
            device: None leaves it to the launcher of several processes, or else to `default`.
            precision: See the attribute.
            default: None for the accelerator if there is one, or else the CPU.

        Raises:
            ValueError: No such device, another one than the launcher chose, or no such precision.
        """
        if precision not in ("full", *_HALF):
            raise ValueError(f"precision must be 'full', 'bf16' or 'fp16', got {precision!r}")
        processes = get_processes()
        chosen = default or _find_accelerator()
        if processes.count > 1:
            chosen = torch.device(processes.device)
        if device is not None:
            named = _resolve_device(device)
            if processes.count > 1 and named.type != chosen.type:
                raise ValueError(
                    f"the launcher has each process work on its {chosen.type}, got "
                    f"device={device!r}; leave device out, or launch on that kind of device"
                )
            chosen = named if processes.count == 1 else chosen
        torch.empty(0, device=chosen)  # its generator exists from now on, and can be restored
        return cls(processes, chosen, precision)

    def probe(self, net: nn.Module, image: Tensor) -> tuple[Runtime, int]:
        """Run the net on an image; return the memory format that it takes, and its class count.

        Args:
            net: On the device.
            image: (1, C, H, W).

        Raises:
            ValueError: The net fails on the image.
            ModelOutputError: The output is not one (B, K) tensor.
        """
        formats = [torch.contiguous_format]
        if self.device.type == "cpu":
            formats.insert(0, torch.channels_last)
        while True:
            runtime = replace(self, memory_format=formats.pop(0))
            try:
                return runtime, runtime._count_classes(net, image)
            except torch.OutOfMemoryError:
                raise
            except (AssertionError, RuntimeError) as error:  # transformers assert a size
                if formats and "stride" in str(error):
                    continue
                raise ValueError(
                    f"the model fails on images of shape {tuple(image.shape[1:])} and "
                    f"{image.dtype}; give it the channels, the size and the type that it takes "
                    f"({error})"
                ) from error

    def _count_classes(self, net: nn.Module, image: Tensor) -> int:
        with untouched(net), torch.no_grad(), self.autocast():
            logits = extract_logits(net(self.move(image)), len(image))
        return logits.shape[1]

    @property
    def pins_memory(self) -> bool:
        """Return whether images that are pinned in memory reach the device while it works."""
        return self.device.type == "cuda"

    def move(self, images: Tensor) -> Tensor:
        """Return the images on the device, in the memory format."""
        moved = images.to(self.device, non_blocking=True)
        return moved.contiguous(memory_format=self.memory_format)

    def autocast(self) -> AbstractContextManager[object]:
        """Return a block that runs the net in the precision."""
        if self.precision == "full":
            return nullcontext()
        return torch.autocast(self.device.type, _HALF[self.precision])

    def make_scaler(self) -> torch.amp.GradScaler:
        """Return a scaler of losses in half precision; it does nothing in other precisions."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")


def check_count(name: str, value: object, least: int = 1) -> None:
    """Refuse anything but an integer of at least `least`.

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


def _find_accelerator() -> torch.device:
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if found is None:
        return torch.device("cpu")
    return torch.device(found.type, torch.accelerator.current_device_index())


def _resolve_device(device: str | torch.device) -> torch.device:
    try:
        return torch.empty(0, device=device).device  # cuda as cuda:0
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {device!r} cannot be used here: {reason}") from error
