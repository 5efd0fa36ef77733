"""The exponential moving average of a net's weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from xcam.core.instantiate import check_names, check_number

__all__ = ["Averaging"]


class Averaging:
    """The average a ← decay · a + (1 − decay) · w, taken every few steps; it starts at the first w.

    Buffers such as running statistics are averaged, too; those of whole numbers, such as indices
    and counts, are the net's.

    Args:
        net: Whose parameters and buffers w are averaged.
        settings: `"decay"`, in [0, 1), and `"every"`, in steps (1).

    Raises:
        TypeError: Settings of other names or kinds.
        ValueError: Values out of their range.
    """

    def __init__(self, net: nn.Module, settings: Mapping[str, Any]) -> None:
        if not isinstance(settings, Mapping):
            raise TypeError(f"ema must be a mapping such as {{'decay': 0.999}}, got {settings!r}")
        check_names("ema", settings, ["decay", "every"])
        decay, every = settings.get("decay", 0.999), settings.get("every", 1)
        check_number("ema: decay", decay)
        if not 0 <= decay < 1:
            raise ValueError(f"ema: decay must be at least 0 and below 1, got {decay!r}")
        if not isinstance(every, int) or every < 1:
            raise ValueError(f"ema: every must be a positive number of steps, got {every!r}")
        self.every = every
        update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self.average = AveragedModel(net, multi_avg_fn=update, use_buffers=True)

    def passed(self, step: int, net: nn.Module) -> None:
        """Takes the net's weights in after a step, counted from 1, if it is one of those."""
        if step % self.every == 0:
            self.average.update_parameters(net)
            for mean, buffer in zip(self.average.module.buffers(), net.buffers(), strict=True):
                if not (buffer.is_floating_point() or buffer.is_complex()):
                    mean.copy_(buffer)

    def of(self, net: nn.Module) -> nn.Module:
        """The averaged net; before the first step that counts, the net itself."""
        averaged: nn.Module = self.average.module
        return averaged if int(self.average.n_averaged) else net
