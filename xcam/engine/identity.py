"""What the arguments of a call are: calls whose arguments have equal keys give equal results.

Settings count by their value, tensors by their memory and version, models by their structure,
modes, hooks, attributes and weights. Versions miss what is written through `.data`, by batch norm
in train mode, or by numpy, so that values are compared, too: on a CPU all of the tensors that are
given, and some of each weight.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from xcam.core import Target
from xcam.engine import forward
from xcam.engine.structure import remember, walk

__all__ = ["Identity", "Unidentified", "find_storage", "read_version"]

_SAMPLE = 64  # values of a tensor
_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)


class Unidentified(Exception):  # noqa: N818 - no error: the call is just made
    """An argument that may change without notice."""


class Identity:
    """The key of a call.

    Attributes:
        key: Equal keys mean equal results.
        tensors: The tensors among the arguments.
        held: Whatever goes by its address, which holds good as long as this is alive.

    Args:
        function: What is called.
        arguments: By name.
        weights: Keeps the samples of models from call to call.

    Raises:
        Unidentified: An argument may change without notice, such as an array or an inference
            tensor.
    """

    def __init__(
        self, function: object, arguments: Mapping[str, Any], weights: dict[Hashable, Tensor]
    ) -> None:
        self.tensors: list[Tensor] = []
        self.held: list[object] = []
        self._samples: list[Tensor] = []
        self._weights = weights
        parts = [self._refer(function), _describe_settings()]
        parts += [self._refer(mode) for mode in _get_current_function_mode_stack()]  # type: ignore[no-untyped-call]
        parts += [self._refer(mode) for mode in _get_current_dispatch_mode_stack()]
        parts += [self._describe(value) for value in arguments.values()]
        self.key: Hashable = (*parts, _read(self._samples))

    def _describe(self, value: object) -> Hashable:
        """Return the key of an argument."""
        if isinstance(value, _PLAIN):
            return type(value), value
        if isinstance(value, Tensor):
            self.tensors.append(value)
            return self._describe_tensor(value)
        if isinstance(value, nn.Module):
            return self._describe_module(value)
        if isinstance(value, Target):  # unbound and bound ones of the same classes are alike
            classes = None if value.classes is None else tuple(value.classes.tolist())
            rows = None if value.function is None else self._describe(value.rows)
            return Target, classes, self._refer(value.function), rows
        if isinstance(value, tuple | list):
            return type(value), tuple(map(self._describe, value))
        if isinstance(value, Mapping):
            return type(value), tuple((self._describe(k), self._describe(value[k])) for k in value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = (getattr(value, field.name) for field in dataclasses.fields(value))
            return type(value), tuple(map(self._describe, fields))
        if isinstance(value, slice):
            return slice, value.start, value.stop, value.step
        if callable(value):
            return self._refer(value)
        raise Unidentified

    def _describe_tensor(self, tensor: Tensor) -> Hashable:
        self.held.append(tensor)
        content = 0
        if tensor.device.type == "cpu":
            content = _sum_up(tensor)
        else:
            self._samples.append(_select_sample(tensor))
        layout = tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.dtype, tensor.device
        return find_storage(tensor), layout, read_version(tensor), content

    def _describe_module(self, net: nn.Module) -> Hashable:
        # The same object as long as the net is built the same.
        parts: list[Hashable] = [self._refer(remember(net, "identity", object))]
        tensors: list[Tensor] = []
        for module in walk(net):
            parts.append(module.training)
            tensors += [one for one in module._parameters.values() if one is not None]
            tensors += [one for one in module._buffers.values() if one is not None]
            tensors += [one for one in module.__dict__.values() if one.__class__ is Tensor]
        for tensor in tensors:
            # They are not held, for they may be large: the values tell a new one at the same place.
            place = find_storage(tensor), -1 if tensor.is_inference() else tensor._version
            parts += place
            key = id(tensor), place[0]
            if key not in self._weights:
                self._weights[key] = _select_sample(tensor)
            self._samples.append(self._weights[key])
        return tuple(parts)

    def _refer(self, value: object) -> int:
        self.held.append(value)
        return id(value)


def find_storage(tensor: Tensor) -> int:
    """Return the address of a tensor's memory, which its views share; of none its own.

    Raises:
        Unidentified: The tensor's kind does not tell.
    """
    try:
        return tensor.untyped_storage().data_ptr() or id(tensor)
    except (RuntimeError, NotImplementedError) as error:
        raise Unidentified from error


def read_version(tensor: Tensor) -> int:
    """Return a number that grows with each change of a tensor in place.

    Raises:
        Unidentified: It was made under `torch.inference_mode`, where nobody counts.
    """
    if tensor.is_inference():
        raise Unidentified
    return tensor._version


def _describe_settings() -> Hashable:
    """Return what a pass depends on beside its arguments."""
    runtime = forward.current_runtime()
    autocast = [
        (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
        for kind in ("cpu", "cuda")
    ]
    hooks = nn.modules.module._global_forward_hooks, nn.modules.module._global_forward_pre_hooks
    return runtime.batch_size, runtime.precision, *autocast, *(tuple(some) for some in hooks)


def _sum_up(tensor: Tensor) -> int:
    """Return a checksum of the values of a tensor on the CPU.

    Raises:
        Unidentified: A kind of tensor whose values are not at hand.
    """
    try:
        return zlib.crc32(tensor.detach().reshape(-1).view(torch.uint8).numpy().data)
    except (RuntimeError, NotImplementedError, TypeError) as error:
        raise Unidentified from error


def _select_sample(tensor: Tensor) -> Tensor:
    """Return a view of some elements of a tensor, evenly spaced in its memory.

    Raises:
        Unidentified: A kind of tensor without such a view.
    """
    values = tensor.detach()
    try:
        if values.is_meta or values.layout != torch.strided:
            raise Unidentified
        # An expanded tensor has fewer elements than it says.
        inside = values.untyped_storage().nbytes() // values.element_size()
        room = min(values.numel(), inside - values.storage_offset())
        count = min(room, _SAMPLE)
        step = room // max(count, 1)
        return values.as_strided((count,), (step,), values.storage_offset())
    except (RuntimeError, NotImplementedError) as error:
        raise Unidentified from error


def _read(samples: Iterable[Tensor]) -> Hashable:
    """Return the values of samples as bytes."""
    groups: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for sample in samples:
        groups.setdefault((sample.dtype, sample.device), []).append(sample)
    try:
        return tuple(
            torch.cat(group).view(torch.uint8).cpu().numpy().tobytes() for group in groups.values()
        )
    except (RuntimeError, NotImplementedError, TypeError) as error:
        raise Unidentified from error
