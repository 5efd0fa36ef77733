"""Notices whatever brings values to the host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["LeftDeviceError", "StayOnDevice"]


class StayOnDevice(TorchFunctionMode):
    """Makes whatever brings values to the host raise.

    Python's `bool`, `int` and `float` of a single value, and lists of integers such as classes,
    are let through: they are small, and control flow needs them.
    """

    _NEVER = frozenset({Tensor.cpu, Tensor.numpy, Tensor.__array__})

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Refuse functions that bring values to the host; call any other."""
        kwargs = kwargs or {}
        leaves = func in self._NEVER
        leaves |= func is Tensor.tolist and args[0].is_floating_point() and args[0].numel() > 1
        leaves |= func is Tensor.to and "cpu" in (*args[1:2], kwargs.get("device"))
        if leaves:
            raise LeftDeviceError(func.__name__)
        return func(*args, **kwargs)


class LeftDeviceError(Exception):
    """Values went to the host; the message is the function that brought them there."""
