"""The moving average of a net's weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from xcam.core.instantiate import check_names, check_number

__all__ = ["Averaging"]

Tensors: TypeAlias = "tuple[Tensor, ...] | list[Tensor]"

_LARGE = 0.5  # a share of the average that the first weights should not keep
_SMALL = 0.01  # one that they may
_FEW = 5  # updates, of which no decay makes much of an average


class Averaging:
    """The exponential moving average a ← d · a + (1 − d) · w of a net's weights.

    It is updated every few steps and starts at the first w. Update n, counted from 0, is by d =
    decay or, with a warm-up, by d = min(decay, (1 + n) / (10 + n)): the first weights, which have
    learned little, are forgotten sooner. Buffers such as running statistics are averaged, too;
    those of whole numbers, such as indices and counts, are the net's.

    Args:
        net: Whose parameters and buffers w are averaged.
        settings: `"decay"`, in [0, 1), `"every"`, in steps (1), and `"warmup"` (False).

    Raises:
        TypeError: Settings of other names or kinds.
        ValueError: Values out of their range.
    """

    def __init__(self, net: nn.Module, settings: Mapping[str, Any]) -> None:
        if not isinstance(settings, Mapping):
            raise TypeError(f"ema must be a mapping such as {{'decay': 0.999}}, got {settings!r}")
        check_names("ema", settings, ["decay", "every", "warmup"])
        decay, every = settings.get("decay", 0.999), settings.get("every", 1)
        check_number("ema: decay", decay)
        if not 0 <= decay < 1:
            raise ValueError(f"ema: decay must be at least 0 and below 1, got {decay!r}")
        if not isinstance(every, int) or every < 1:
            raise ValueError(f"ema: every must be a positive number of steps, got {every!r}")
        warmup = settings.get("warmup", False)
        if not isinstance(warmup, bool):
            raise TypeError(f"ema: warmup must be True or False, got {warmup!r}")
        self.decay, self.every, self.warmup = float(decay), every, warmup
        self._current = self.decay
        self.average = AveragedModel(net, multi_avg_fn=self._mix, use_buffers=True)

    def update(self, step: int, net: nn.Module) -> None:
        """Include the net's weights after a step, counted from 1, if it is one of those."""
        if step % self.every == 0:
            self._current = self._compute_decay(step // self.every - 1, self.decay, self.warmup)
            self.average.update_parameters(net)
            # AveragedModel averages whole numbers as well, and rounds them.
            for mean, buffer in zip(self.average.module.buffers(), net.buffers(), strict=True):
                if not (buffer.is_floating_point() or buffer.is_complex()):
                    mean.copy_(buffer)

    def get_net(self, net: nn.Module) -> nn.Module:
        """Return the averaged net; before the first update, the net itself."""
        averaged: nn.Module = self.average.module
        return averaged if int(self.average.n_averaged) else net

    def describe_slowness(self, steps: int) -> str | None:
        """Describe that the first weights make up much of the average after so many steps.

        None if they do not.
        """
        updates = steps // self.every
        share = self._compute_share(updates, self.decay, self.warmup)
        if share <= _LARGE or updates < _FEW:
            return None
        highest = math.floor(1000 * _SMALL ** (1 / (updates - 1))) / 1000
        remedy = f"give a decay of at most {highest:g}"
        if not self.warmup and self._compute_share(updates, self.decay, True) <= _SMALL:
            remedy += ", or 'warmup': True"
        return (
            f"ema: with a decay of {self.decay:g} the weights after the first update, which have "
            f"learned little, are {share:.0%} of the average after {updates} updates; {remedy}"
        )

    @staticmethod
    def _compute_decay(update: int, decay: float, warmup: bool) -> float:
        """Return the decay of an update, counted from 0."""
        return min(decay, (1 + update) / (10 + update)) if warmup else decay

    @classmethod
    def _compute_share(cls, updates: int, decay: float, warmup: bool) -> float:
        """Return the share of the first weights, which begin the average, after some updates."""
        share = 1.0
        for update in range(1, updates):
            share *= cls._compute_decay(update, decay, warmup)
            if share < _SMALL:
                break
        return share

    def _mix(self, averaged: Tensors, current: Tensors, count: Tensor | int) -> None:
        get_ema_multi_avg_fn(self._current)(averaged, current, count)  # type: ignore[no-untyped-call]
