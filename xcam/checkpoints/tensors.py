"""The tensors of a net as a file can hold them: deduplicated, in separate memory."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

__all__ = ["copy_to_own_memory", "find_dtype", "find_ties", "get_state"]


def get_state(net: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and persistent buffers themselves, by name.

    Raises:
        TypeError: Something else is in the net's state, or a tensor that is not a plain one.
        ValueError: A tensor without values.
    """
    found = net.state_dict(keep_vars=True)
    for name, tensor in found.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"{name!r} of the net is a {type(tensor).__name__}, which no file can hold; keep "
                "such state out of get_extra_state"
            )
        if is_lazy(tensor) or tensor.is_meta:
            raise ValueError(
                f"{name!r} of the net has no values: run a lazy net once, and "
                "fill one that is on the meta device"
            )
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise TypeError(
                f"{name!r} of the net is sparse or quantized, which no file can hold; make it a "
                "dense, plain tensor first"
            )
    return dict(found)


def find_ties(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return, for each second name of a tensor, its first."""
    first: dict[object, str] = {}
    tied: dict[str, str] = {}
    for name, tensor in tensors.items():
        place = (str(tensor.device), tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and first.setdefault(place, name) != name:
            tied[name] = first[place]
    return tied


def copy_to_own_memory(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors on the CPU, contiguous, no two in the same memory; copy where needed."""
    held: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        values = tensor.detach().cpu().contiguous()
        storage = values.untyped_storage().data_ptr()
        held[name] = values.clone() if storage in storages else values
        storages.add(storage)
    return held


def find_dtype(net: nn.Module) -> torch.dtype | None:
    """Return the type of the first parameter or buffer that is floating point, if there is any."""
    for tensor in [*net.parameters(), *net.buffers()]:
        if tensor.is_floating_point():
            return tensor.dtype
    return None
