"""Where and how nets run: device, precision, memory layout, and with which other processes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from xcam.core import extract_logits
from xcam.engine import untouched
from xcam.engine.forward import Precision
from xcam.runs.processes import Processes, launched

__all__ = ["Place", "check_labels"]

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Place:
    """How a net is run.

    Attributes:
        team: This process among those that share the work.
        device: Of the net.
        precision: `"full"` is the net's own; the others run it under autocast.
        layout: Of the images: channels_last is faster on a CPU, for nets that take it.
    """

    team: Processes
    device: torch.device
    precision: Precision
    layout: torch.memory_format = torch.contiguous_format

    @classmethod
    def of(
        cls,
        device: str | torch.device | None,
        precision: Precision,
        default: torch.device | None = None,
    ) -> Place:
        """Where to work: where the launcher says, or on `device`.

        Args:
            device: None leaves it to the launcher of several processes, or else to `default`.
            precision: See the attribute.
            default: None for the accelerator if there is one, or else the CPU.

        Raises:
            ValueError: No such device, another one than the launcher chose, or no such precision.
        """
        if precision not in ("full", *_HALF):
            raise ValueError(f"precision must be 'full', 'bf16' or 'fp16', got {precision!r}")
        team = launched()
        chosen = default or _accelerator()
        if team.count > 1:
            chosen = torch.device(team.device)
        if device is not None:
            named = _device(device)
            if team.count > 1 and named.type != chosen.type:
                raise ValueError(
                    f"the launcher has each process work on its {chosen.type}, got "
                    f"device={device!r}; leave device out, or launch on that kind of device"
                )
            chosen = named if team.count == 1 else chosen
        torch.empty(0, device=chosen)  # its generator exists from now on, and can be restored
        return cls(team, chosen, precision)

    def tried(self, net: nn.Module, image: Tensor) -> tuple[Place, int]:
        """The place with a layout that the net can take, and the number of its classes.

        Args:
            net: On the device.
            image: (1, C, H, W).

        Raises:
            ValueError: The net fails on the image.
            ModelOutputError: The output is not one (B, K) tensor.
        """
        layouts = [torch.contiguous_format]
        if self.device.type == "cpu":
            layouts.insert(0, torch.channels_last)
        while True:
            place = replace(self, layout=layouts.pop(0))
            try:
                return place, place._classes(net, image)
            except torch.OutOfMemoryError:
                raise
            except (AssertionError, RuntimeError) as error:  # transformers assert a size
                if layouts and "stride" in str(error):
                    continue
                raise ValueError(
                    f"the model fails on images of shape {tuple(image.shape[1:])} and "
                    f"{image.dtype}; give it the channels, the size and the type that it takes "
                    f"({error})"
                ) from error

    def _classes(self, net: nn.Module, image: Tensor) -> int:
        with untouched(net), torch.no_grad(), self.autocast():
            logits = extract_logits(net(self.images(image)), len(image))
        return logits.shape[1]

    @property
    def pinned(self) -> bool:
        """Whether images that are pinned in memory reach the device while it works."""
        return self.device.type == "cuda"

    def images(self, images: Tensor) -> Tensor:
        """Images where and as the net takes them."""
        moved = images.to(self.device, non_blocking=True)
        return moved.contiguous(memory_format=self.layout)

    def autocast(self) -> AbstractContextManager[object]:
        """Runs the net in the precision."""
        if self.precision == "full":
            return nullcontext()
        return torch.autocast(self.device.type, _HALF[self.precision])

    def scaler(self) -> torch.amp.GradScaler:
        """Of losses in half precision; one that does nothing in the others."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")


def check_labels(labels: Tensor, classes: int) -> None:
    """Refuses labels (B,) on the CPU that are no classes of the net.

    Raises:
        ValueError: A label is out of range.
    """
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ValueError(
            f"label {low if low < 0 else high} is out of range: the model has {classes} classes, "
            f"0 to {classes - 1}"
        )


def _accelerator() -> torch.device:
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if found is None:
        return torch.device("cpu")
    return torch.device(found.type, torch.accelerator.current_device_index())


def _device(device: str | torch.device) -> torch.device:
    try:
        return torch.empty(0, device=device).device  # cuda as cuda:0
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {device!r} cannot be used here: {reason}") from error
