"""The JSON header of a net's file: all that is said of the net besides its tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from xcam.checkpoints.source import ImageShape, Source, find_source
from xcam.checkpoints.tensors import find_dtype
from xcam.core import attached_method, find_headed
from xcam.models import Normalized
from xcam.models.categories import find_categories
from xcam.runs import files

__all__ = ["FORMAT", "KEY", "Normalization", "Record", "make_header"]

FORMAT = 2
KEY = "xcam.net"
_METHOD = "method"  # before the names of the method's tensors; no net has a module of this name


def make_header(net: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Return the header of a net, and add tensors among its method's parameters to `tensors`.

    Raises:
        TypeError: A parameter of the method that no file can hold.
    """
    method = attached_method(net)
    source = find_source(net)
    parts = {name: part for name, part in net.named_modules() if isinstance(part, Normalized)}
    names = find_categories(net)
    settings = source[1] if source else {}
    number = len(names) or settings.get("num_classes", settings.get("classes"))
    written = None if method is None else (method.spec.name, method.parameters())
    return {
        "format": FORMAT,
        "method": _encode(written, tensors),
        "fitted": bool(getattr(net, "fitted", False)),
        "image_shape": None if method is None else find_headed(net).image_shape,
        "backbone": _encode(source, tensors),
        "classes": {"number": number, "names": names},
        "normalization": {
            name: {
                "mean": part.mean.flatten().tolist(),
                "std": part.std.flatten().tolist(),
                "dtype": _dtype_name(part.mean.dtype),
                "input_size": part.input_size,
            }
            for name, part in parts.items()
        },
        "dtype": _dtype_name(find_dtype(net)),
        "versions": {
            "xcam": version("xcam"),
            "torch": str(torch.__version__),
            "torchvision": str(torchvision.__version__),
        },
    }


@dataclass(frozen=True)
class Normalization:
    """The settings of a `Normalized` that are not in its state.

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
        """Read the entry of a header."""
        dtype = _dtype(entry["dtype"])
        mean, std = (
            torch.tensor(entry[key], dtype=dtype, device="cpu").view(-1, 1, 1)
            for key in ("mean", "std")
        )
        return cls(mean, std, _read_size(entry["input_size"]))


@dataclass(frozen=True, eq=False)
class Record:
    """The contents of a file, parsed.

    Attributes:
        method: The name and parameters of the net's method.
        fitted: Whether the method's head has been trained.
        image_shape: (C, H, W) of the images for which it was attached, if they are known.
        backbone: The name and arguments for `xcam.models.load`.
        categories: The names of the classes.
        normalization: Of each `Normalized` by its name in the net.
        dtype: Of the first floating-point parameter.
        state: The state dict.
        tied: For each second name of a tensor in `state`, its first.
    """

    method: Source | None
    fitted: bool
    image_shape: ImageShape | None
    backbone: Source | None
    categories: tuple[str, ...]
    normalization: Mapping[str, Normalization]
    dtype: torch.dtype | None
    state: Mapping[str, Tensor]
    tied: Mapping[str, str]

    @classmethod
    def of(cls, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Record:
        """Read the header and the tensors of a file.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: The header is damaged.
        """
        tied = {str(name): str(first) for name, first in header["tied"].items()}
        method = _decode(header["method"], tensors)
        state = {
            name: tensor
            for name, tensor in tensors.items()
            if method is None or not name.startswith(f"{_METHOD}.")
        }
        return cls(
            method=method,
            fitted=bool(header["fitted"]),
            image_shape=_read_shape(header["image_shape"]),
            backbone=_decode(header["backbone"], tensors),
            categories=tuple(map(str, header["classes"]["names"])),
            normalization={
                name: Normalization.of(entry) for name, entry in header["normalization"].items()
            },
            dtype=None if header["dtype"] is None else _dtype(header["dtype"]),
            state=state | {name: state[first] for name, first in tied.items()},
            tied=tied,
        )


def _encode(source: Source | None, tensors: dict[str, Tensor]) -> dict[str, Any] | None:
    if source is None:
        return None
    return {"name": source[0], "parameters": files.encode(source[1], _METHOD, tensors)}


def _decode(entry: Mapping[str, Any] | None, tensors: Mapping[str, Tensor]) -> Source | None:
    if entry is None:
        return None
    return str(entry["name"]), dict(files.decode(entry["parameters"], tensors))


def _read_size(entry: Sequence[int] | None) -> tuple[int, int] | None:
    return None if entry is None else (int(entry[0]), int(entry[1]))


def _read_shape(entry: Sequence[int] | None) -> ImageShape | None:
    return None if entry is None else (int(entry[0]), int(entry[1]), int(entry[2]))


def _dtype_name(dtype: torch.dtype | None) -> str | None:
    return None if dtype is None else str(dtype).removeprefix("torch.")


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name)
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"{name!r} is no dtype")
    return dtype
