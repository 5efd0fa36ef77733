"""Checks of the model and the images that a verb is given."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from xcam.core import check_finite
from xcam.engine import untouched, unwrap
from xcam.engine.forward import call, out_of_memory
from xcam.engine.structure import list_tensors

__all__ = ["check_dtype", "check_images", "check_model", "check_pass"]


def check_model(model: object) -> None:
    """Refuse a model that takes more than images or has no weights yet.

    Raises:
        TypeError: Not a `torch.nn.Module`, or one that does not take a single argument.
        ValueError: It has lazy modules that have not run yet, or is on the meta device.
    """
    if not isinstance(model, nn.Module):
        kind = type(model).__name__
        remedy = "give its .module()" if kind == "ExportedProgram" else "wrap a function in one"
        raise TypeError(f"model must be a torch.nn.Module, got {kind}; {remedy}")
    if any(tensor.is_meta or is_lazy(tensor) for tensor in list_tensors(model)):
        _refuse_without_values(model)
    _check_signature(unwrap(model))


def _refuse_without_values(model: nn.Module) -> None:
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if is_lazy(tensor):
            raise ValueError(f"{name!r} of the model has no shape yet; run the model once first")
        if tensor.is_meta:
            raise ValueError(
                f"{name!r} of the model is on the meta device, which holds no values; make the "
                "model on a real device and load its weights there"
            )


def _check_signature(net: nn.Module) -> None:
    """Refuse a net whose forward cannot be called with the images alone."""
    try:
        signature = inspect.signature(net.forward)
    except (TypeError, ValueError):  # what is compiled may have none
        return
    try:
        signature.bind(None)
    except TypeError as error:
        raise TypeError(
            f"the model must take the images alone, and forward of {type(net).__name__} takes "
            f"{signature}; wrap it in a module whose forward(images) calls it with the other "
            "inputs fixed, expanded to len(images)"
        ) from error


def check_images(model: nn.Module, images: Tensor) -> None:
    """Refuse images that the model cannot take.

    Raises:
        TypeError: Not a dense, real floating-point tensor.
        ValueError: Not (B, C, H, W) with B ≥ 1, not finite, or on another device.
    """
    if not isinstance(images, Tensor):
        raise TypeError(
            "images must be a torch tensor of shape (B, C, H, W), got "
            f"{type(images).__name__}{_describe_parts(images)}"
        )
    if images.layout != torch.strided:
        raise TypeError(f"images must be dense, got {images.layout}; use images.to_dense()")
    shape = tuple(images.shape)
    if images.ndim == 3:
        raise ValueError(f"images must be (B, C, H, W), got {shape}; add the batch: images[None]")
    if images.ndim != 4:
        raise ValueError(f"images must be (B, C, H, W), got {shape}")
    if images.numel() == 0:
        raise ValueError(f"images must hold at least one image, got shape {shape}")
    if images.is_complex():
        raise TypeError(
            f"images must be real floating point, got {images.dtype}; give the magnitude, "
            "images.abs(), or a model that takes the real and imaginary parts as channels"
        )
    if not images.is_floating_point():
        raise TypeError(f"images must be floating point, got {images.dtype}; use images.float()")
    weight = next(_list_weights(model), None)
    if weight is not None:
        _check_device(images, weight)
    if not bool(images.sum().isfinite()):  # finite values may sum up to infinity
        check_finite(
            images,
            lambda image: f"image {image} holds values that are not finite",
            error=ValueError,
        )


def _describe_parts(images: object) -> str:
    """Return what a sequence given as images holds, and how to make one tensor of it."""
    tensors = [*images] if isinstance(images, tuple | list) else []
    if not tensors or not all(isinstance(part, Tensor) for part in tensors):
        return (
            "; a file, PIL image or array is taken by a model that says its input size, "
            "xcam.models.Normalized(model, mean, std, input_size=224); to others give a tensor, as "
            "xcam.read_image(file, 224)[None]"
        )
    shapes = [tuple(part.shape) for part in tensors]
    remedy = "resize them to one size and use torch.stack(images)"
    if any(len(shape) == 4 for shape in shapes):
        remedy = "for a model of several inputs, wrap it in a module that takes one of them alone"
    elif len(set(shapes)) == 1:
        remedy = "use torch.stack(images)"
    return f" of tensors {', '.join(map(str, shapes))}; {remedy}"


def _check_device(images: Tensor, weight: Tensor) -> None:
    if images.device != weight.device:
        raise ValueError(
            f"images are on {images.device} and the model is on {weight.device}; use "
            f"images.to({str(weight.device)!r})"
        )


def check_pass(model: nn.Module, images: Tensor) -> None:
    """Refuse images that the model fails on; the first one is tried.

    Which dtype a model takes is only known by trying: one in mixed precision has several.

    Raises:
        TypeError: The model takes them in another dtype.
        ValueError: It fails on them for another reason.
    """
    failure = _try_pass(model, images)
    if failure is None:
        return
    for dtype in _list_dtypes(model):
        if dtype != images.dtype and _try_pass(model, images[:1].to(dtype)) is None:
            raise TypeError(
                f"images are {images.dtype} and the model takes {dtype}; use images.to({dtype})"
            ) from failure
    raise ValueError(
        f"the model fails on images of shape {tuple(images.shape)}; give it the channels and "
        f"the size that it takes ({' '.join(str(failure).split())})"
    ) from failure


def check_dtype(model: nn.Module, images: Tensor) -> None:
    """Refuse images by `check_pass`, which takes a pass, if the model has another dtype, too."""
    if any(parameter.dtype != images.dtype for parameter in _list_weights(model)):
        check_pass(model, images)


def _try_pass(model: nn.Module, images: Tensor) -> Exception | None:
    """Return the error that the model raises on the first image; None if it runs."""
    try:
        with untouched(model), torch.no_grad():
            call(model, images[:1])
    except Exception as error:
        if out_of_memory(error):
            raise
        return error
    return None


def _list_weights(model: nn.Module) -> Iterator[Tensor]:
    """Yield the floating-point parameters of a model, some of them several times."""
    for tensor in list_tensors(model):
        if isinstance(tensor, nn.Parameter) and tensor.is_floating_point():
            yield tensor


def _list_dtypes(model: nn.Module) -> list[torch.dtype]:
    """Return the dtypes that a model may take: first those of its weights, in their order."""
    common = (torch.float32, torch.bfloat16, torch.float16)
    return [*dict.fromkeys([*(weight.dtype for weight in _list_weights(model)), *common])]
