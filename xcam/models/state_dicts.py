"""State dicts: read from a file, and compared with a model's, key by key."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import load_file
from torch import Tensor

from xcam.errors import FileFormatError

__all__ = ["misfit", "read_state"]


class _Skipped:
    """Stands for an object in a file of which nothing is read."""

    def __new__(cls, *_args: object) -> _Skipped:
        return super().__new__(cls)

    def __setstate__(self, _state: object) -> None:
        pass


# Under the names by which files ask for numpy's own, so that none of its code sees their bytes.
_NUMPY: list[Any] = [
    type(name, (_Skipped,), {"__module__": module})
    for module, name in (
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "scalar"),  # since numpy 2
        ("numpy._core.multiarray", "_reconstruct"),
    )
]


def read_state(path: Path) -> dict[str, Tensor]:
    """A file's state dict, on the CPU; no code in the file is run.

    The file is a state dict, or has one under `state_dict` beside what else a training keeps, such
    as epochs and accuracies; numpy's numbers and arrays there are skipped. Names lose the prefix
    of `DataParallel`.

    Args:
        path: Ends in `.safetensors`, or else is of `torch.save`.

    Raises:
        FileNotFoundError: There is no such file.
        FileFormatError: It is damaged, is no file of weights, or holds other Python objects.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file of weights at {str(path)!r}")
    with path.open("rb") as file:
        try:
            content = load_file(path) if path.suffix == ".safetensors" else _unpickled(file)
        except Exception as error:  # bytes that are no weights may raise whatever there is
            raise FileFormatError(_reason(str(path), error)) from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise FileFormatError(
            f"{str(path)!r} holds no state dict, alone or under 'state_dict'; "
            "torch.save(model.state_dict(), path) writes one"
        )
    prefix = "module." if all(str(name).startswith("module.") for name in state) else ""
    return {str(name).removeprefix(prefix): tensor for name, tensor in state.items()}


def _unpickled(file: BinaryIO) -> object:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # not before: the caller may have allowed numpy's own
        file.seek(0)
        with torch.serialization.safe_globals(_NUMPY):
            return torch.load(file, map_location="cpu", weights_only=True)


def _reason(path: str, error: Exception) -> str:
    named = re.search(r"GLOBAL ([\w.]+) (?:was|whose)", str(error))
    if named and isinstance(error, pickle.UnpicklingError):
        return (
            f"{path!r} holds Python objects other than tensors, such as {named[1]}, which can run "
            "any code; where you trust it, load it with weights_only=False and save its state "
            "dict alone: torch.save(checkpoint['state_dict'], path)"
        )
    return (
        f"{path!r} is damaged or is no file of weights; torch.save(model.state_dict(), path) "
        "writes one"
    )


def misfit(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    """What keeps a state dict from being loaded, in words; None if nothing does.

    Floating-point types may differ, others not.

    Args:
        wanted: The model's own state dict.
        found: The one to load.

    Returns:
        Such as `"they lack 'fc.bias' (1 such)"`; the first three names of each kind of fault.
    """
    faults = []
    if absent := wanted.keys() - found.keys():
        faults.append(f"lack {_some(absent)}")
    if foreign := found.keys() - wanted.keys():
        faults.append(f"have, beyond the model, {_some(foreign)}")
    both = wanted.keys() & found.keys()
    changed = {name for name in both if _form(wanted[name]) != _form(found[name])}
    if changed:
        forms = f"{_form(found[min(changed)])} instead of {_form(wanted[min(changed)])}"
        faults.append(f"have another shape in {_some(changed)}, the first {forms}")
    return f"they {'; '.join(faults)}" if faults else None


def _form(tensor: Tensor) -> str:
    shape = str(tuple(tensor.shape))
    return shape if tensor.is_floating_point() else f"{shape} {str(tensor.dtype)[6:]}"


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = ", …" if len(listed) > 3 else ""
    return f"{', '.join(map(repr, listed[:3]))}{more} ({len(listed)} such)"
