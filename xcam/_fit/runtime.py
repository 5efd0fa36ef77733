"""Where and how nets run: device, precision, memory format, and with which other processes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from xcam.core import extract_logits
from xcam.engine import untouched
from xcam.engine.forward import Precision
from xcam.runs.processes import Processes, get_processes

__all__ = ["Runtime", "check_labels"]

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


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


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Refuse labels (B,) on the CPU that are no classes of the net.

    Raises:
        ValueError: A label is out of range.
    """
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"label {low if low < 0 else high} is out of range: the model has {num_classes} "
            f"classes, 0 to {num_classes - 1}"
        )


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
