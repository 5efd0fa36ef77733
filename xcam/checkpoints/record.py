"""What a file says of its net, besides the tensors: written as a JSON header, and read again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from xcam._explain.run import attached_method
from xcam.checkpoints.backbone import Source, named_backbone
from xcam.checkpoints.tensors import checksum, dtype_of
from xcam.models import Normalized
from xcam.runs import files

__all__ = ["FORMAT", "KEY", "Normalization", "Record", "header_of"]

FORMAT = 1
KEY = "xcam.net"
_METHOD = "method"  # a net that carries a method under this name has no module of this name


def header_of(net: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The header; parameters of the net's method that are tensors join `tensors`.

    Raises:
        TypeError: A parameter of the method that no file can hold.
    """
    method = attached_method(net)
    source = named_backbone(net, method)
    parts = {name: part for name, part in net.named_modules() if isinstance(part, Normalized)}
    names = next((part.categories for part in parts.values() if part.categories), ())
    settings = source[1] if source else {}
    number = len(names) or settings.get("num_classes", settings.get("classes"))
    recipe = None if method is None else (method.spec.name, method.parameters())
    return {
        "format": FORMAT,
        "method": _written(recipe, tensors),
        "fitted": bool(getattr(net, "fitted", False)),
        "input_size": None if method is None else _made_for(net),
        "backbone": _written(source, tensors),
        "classes": {"number": number, "names": names},
        "normalisation": {
            name: {
                "mean": part.mean.flatten().tolist(),
                "std": part.std.flatten().tolist(),
                "dtype": _name(part.mean.dtype),
                "input_size": part.input_size,
            }
            for name, part in parts.items()
        },
        "dtype": _name(dtype_of(net)),
        "versions": {
            "xcam": version("xcam"),
            "torch": str(torch.__version__),
            "torchvision": str(torchvision.__version__),
        },
    }


@dataclass(frozen=True)
class Normalization:
    """What of a `Normalized` is not in its state.

    Attributes:
        mean: (C, 1, 1).
        std: (C, 1, 1).
        input_size: (H, W), or None.
    """

    mean: Tensor
    std: Tensor
    input_size: tuple[int, int] | None

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Normalization:
        """Read from the header."""
        dtype = _dtype(entry["dtype"])
        mean, std = (
            torch.tensor(entry[key], dtype=dtype, device="cpu").view(-1, 1, 1)
            for key in ("mean", "std")
        )
        return cls(mean, std, _size(entry["input_size"]))


@dataclass(frozen=True, eq=False)
class Record:
    """A whole file, each entry of the right kind.

    Attributes:
        method: The name and parameters of the net's method.
        fitted: Whether the method's head has been trained.
        input_size: (H, W) of the images for which it was attached, as far as that is known.
        backbone: What `xcam.models.load` builds.
        categories: The names of the classes.
        normalisation: Of each `Normalized` by its name in the net.
        dtype: Of the first floating-point parameter.
        state: The state dict.
        tied: For each second name of a tensor in `state`, its first.
    """

    method: Source | None
    fitted: bool
    input_size: tuple[int, int] | None
    backbone: Source | None
    categories: tuple[str, ...]
    normalization: Mapping[str, Normalization]
    dtype: torch.dtype | None
    state: Mapping[str, Tensor]
    tied: Mapping[str, str]

    @classmethod
    def of(cls, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Record:
        """Read from a file.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: The header is damaged.
        """
        signed = {key: value for key, value in header.items() if key != "checksum"}
        if checksum(signed, tensors) != header["checksum"]:
            raise ValueError("the checksum is that of other contents")
        tied = {str(name): str(first) for name, first in header["tied"].items()}
        method = _read(header["method"], tensors)
        state = {
            name: tensor
            for name, tensor in tensors.items()
            if method is None or not name.startswith(f"{_METHOD}.")
        }
        return cls(
            method=method,
            fitted=bool(header["fitted"]),
            input_size=_size(header.get("input_size")),
            backbone=_read(header["backbone"], tensors),
            categories=tuple(map(str, header["classes"]["names"])),
            normalization={
                name: Normalization.of(entry) for name, entry in header["normalisation"].items()
            },
            dtype=None if header["dtype"] is None else _dtype(header["dtype"]),
            state=state | {name: state[first] for name, first in tied.items()},
            tied=tied,
        )


def _written(recipe: Source | None, tensors: dict[str, Tensor]) -> dict[str, Any] | None:
    if recipe is None:
        return None
    return {"name": recipe[0], "parameters": files.encode(recipe[1], _METHOD, tensors)}


def _read(entry: Mapping[str, Any] | None, tensors: Mapping[str, Tensor]) -> Source | None:
    if entry is None:
        return None
    return str(entry["name"]), dict(files.decode(entry["parameters"], tensors))


def _made_for(net: nn.Module) -> tuple[int, int] | None:
    """The `input_size` of a net that carries a head; a net's own may be anything else."""
    size = getattr(net, "input_size", None)
    return size if isinstance(size, tuple) and len(size) == 2 else None


def _size(entry: Sequence[int] | None) -> tuple[int, int] | None:
    return None if entry is None else (int(entry[0]), int(entry[1]))


def _name(dtype: torch.dtype | None) -> str | None:
    return None if dtype is None else str(dtype).removeprefix("torch.")


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name)
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"{name!r} is no dtype")
    return dtype
