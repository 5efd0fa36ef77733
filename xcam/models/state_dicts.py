"""Reading state dicts from files, and comparing them with a model's."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from xcam.errors import FileFormatError
from xcam.models.normalized import Normalized
from xcam.runs import files
from xcam.runs.archives import check_archive

__all__ = ["describe_mismatch", "load_state", "read_state_dict"]


class _Skipped:
    """A stand-in for an object in a file whose content is not read."""

    def __new__(cls, *_args: object) -> _Skipped:
        return super().__new__(cls)

    def __setstate__(self, _state: object) -> None:
        pass


# Where trainings keep the state dict in what they save.
_ENTRIES = ("state_dict", "model_state_dict", "model")

# Under the names of numpy's own classes, so that no code of numpy sees the bytes of a file.
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


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return a file's state dict, on the CPU, without running code in the file.

    The file is a state dict, or has one under `state_dict`, `model_state_dict` or `model` beside
    other entries of a training, such as epochs and accuracies; numpy's numbers and arrays there are
    skipped. The prefix that `DataParallel` adds to names is removed.

    Args:
        path: A `.safetensors` file, or one that `torch.save` wrote.

    Raises:
        FileNotFoundError: There is no such file.
        FileFormatError: It is damaged, holds no state dict, or holds other Python objects.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file of weights at {str(path)!r}")
    with path.open("rb") as file:
        try:
            content = _read_safetensors(path) if path.suffix == ".safetensors" else _unpickle(file)
        except Exception as error:  # damaged bytes may raise any error
            raise FileFormatError(_describe_error(str(path), error)) from error
    state: Any = content
    if isinstance(content, Mapping):
        inner = (content[name] for name in _ENTRIES if isinstance(content.get(name), Mapping))
        state = next(inner, content)
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise FileFormatError(
            f"{str(path)!r} holds no state dict, alone or under 'state_dict', 'model_state_dict' "
            "or 'model'; torch.save(model.state_dict(), path) writes one"
        )
    prefix = "module." if all(str(name).startswith("module.") for name in state) else ""
    return {str(name).removeprefix(prefix): tensor for name, tensor in state.items()}


def _read_safetensors(path: Path) -> object:
    kind = files.read_kind(path)
    return load_file(path) if kind is None else files.read_tensors(path, kind)[1]


def _unpickle(file: BinaryIO) -> object:
    if zipfile.is_zipfile(file):  # not before torch 1.6
        check_archive(file)
    file.seek(0)
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # not at once: the caller may have allowed numpy's classes
        file.seek(0)
        with torch.serialization.safe_globals(_NUMPY):
            return torch.load(file, map_location="cpu", weights_only=True)


def _describe_error(path: str, error: Exception) -> str:
    named = re.search(r"GLOBAL ([\w.]+) (?:was|whose)", str(error))
    if named and isinstance(error, pickle.UnpicklingError):
        return (
            f"{path!r} holds Python objects other than tensors, such as {named[1]}, which can run "
            "any code; where you trust it, load it with weights_only=False and save its state "
            "dict alone: torch.save(checkpoint['state_dict'], path)"
        )
    write = "torch.save(model.state_dict(), path)"
    if path.endswith(".safetensors"):
        write = "safetensors.torch.save_file(model.state_dict(), path)"
    return f"{path!r} is damaged or is no file of weights; {write} writes one"


def load_state(net: nn.Module, path: Path) -> None:
    """Load a state dict that fits exactly, without running code from the file.

    Raises:
        FileNotFoundError: There is no such file.
        FileFormatError: It is damaged, or does not hold this net's weights.
    """
    state = read_state_dict(path)
    if isinstance(net, Normalized) and state.keys() != net.state_dict().keys():
        net = net.model  # saved from the model itself
    mismatch = describe_mismatch(net.state_dict(), state)
    if mismatch:
        raise FileFormatError(
            f"the weights in {str(path)!r} are not those of this {type(net).__name__}: {mismatch}"
        )
    net.load_state_dict(state)


def describe_mismatch(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str | None:
    """Return why a state dict cannot be loaded, in words; None if it can.

    Floating-point dtypes may differ, others not.

    Args:
        expected: The model's own state dict.
        given: The state dict to load.

    Returns:
        A clause such as `"they lack 'fc.bias' (1 such)"`, with the first three names of each kind.
    """
    faults = []
    if missing := expected.keys() - given.keys():
        faults.append(f"lack {_join_names(missing)}")
    if unexpected := given.keys() - expected.keys():
        faults.append(f"have, beyond the model, {_join_names(unexpected)}")
    shared = expected.keys() & given.keys()
    changed = {name for name in shared if _show(expected[name]) != _show(given[name])}
    if changed:
        shapes = f"{_show(given[min(changed)])} instead of {_show(expected[min(changed)])}"
        faults.append(f"have another shape in {_join_names(changed)}, the first {shapes}")
    return f"they {'; '.join(faults)}" if faults else None


def _show(tensor: Tensor) -> str:
    shape = str(tuple(tensor.shape))
    return shape if tensor.is_floating_point() else f"{shape} {str(tensor.dtype)[6:]}"


def _join_names(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = ", …" if len(ordered) > 3 else ""
    return f"{', '.join(map(repr, ordered[:3]))}{more} ({len(ordered)} such)"
