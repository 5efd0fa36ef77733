"""The verb `explain`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from xcam._explain.prepared import prepare, run
from xcam.core import Explanation, Method, Target, TargetLike
from xcam.engine import untouched
from xcam.engine.forward import Precision, call, run_settings
from xcam.errors import warn

__all__ = ["check_images", "check_model", "explain"]


def explain(
    model: nn.Module,
    images: Tensor,
    target: TargetLike = None,
    method: str | Method | None = None,
    *,
    batch_size: int | None = None,
    precision: Precision = "full",
    progress: bool = False,
    **params: Any,  # noqa: ANN401
) -> Explanation:
    """Explain a classifier's output for each image by a map.

    The model runs in eval mode and is left exactly as it was, also if the call fails. A map does
    not depend on which other images share the call.

    Args:
        model: From (B, C, H, W) images to (B, K) logits. Wrapped (DataParallel, compiled) or
            frozen models are fine.
        images: (B, C, H, W) floating point, finite, as `model` takes them, on its device.
        target: What to explain: None for the class that the model predicts, an int, a sequence
            or tensor of B ints, or a callable `(output, rows) -> scores`; see `xcam.Target.of`.
        method: A name from `xcam.list_methods()`, or a method object. None means the method whose
            head the model carries, and Grad-CAM if it carries none. The name of that method stands
            for it, too: with the parameters that it was trained with.
        batch_size: How many images go through the model at a time; None chooses by device and
            image size. It changes speed and memory, not the maps.
        precision: `"full"`, or `"bf16"`/`"fp16"` to run the model under autocast.
        progress: Show a progress bar.
        **params: Hyper-parameters of the method, such as `layer="layer3"` or `n_masks=1000`.

    Returns:
        The maps, with all that is needed to make them again.

    Raises:
        TypeError: An argument of the wrong kind, or a parameter that the method does not have.
        ValueError: An argument out of its range, or images that the model fails on.
        UnknownNameError: No such method or layer.
        ModelOutputError: The output is not one finite (B, K) tensor.
        LayerError: The layer gives no map, or no gradient.
        NotFittedError: The method is a trainable one whose head the model lacks, or has untrained.
    """
    check_model(model)
    check_images(model, images)
    aim = Target.of(target, images)
    with run_settings(batch_size=batch_size, precision=precision, progress=progress) as runtime:
        try:
            with untouched(model):
                explanation = run(prepare(model, images, method, params), images, aim)
        except RuntimeError as error:
            _blame_images(error, model, images)
            raise
    for sentence in runtime.notes:
        warn(sentence)
    return explanation


def _blame_images(error: RuntimeError, model: nn.Module, images: Tensor) -> None:
    """Raise a sentence about the images instead of an error if the model alone fails on them."""
    if isinstance(error, torch.OutOfMemoryError):
        return
    try:
        with untouched(model), torch.no_grad():
            call(model, images[:1])
    except RuntimeError as failure:
        raise ValueError(
            f"the model fails on images of shape {tuple(images.shape)}; give it the channels and "
            f"the size that it takes ({failure})"
        ) from error


def check_model(model: nn.Module) -> None:
    """Refuse what is no model, or one whose lazy modules have no shapes yet.

    Raises:
        TypeError: Not a `torch.nn.Module`.
        ValueError: It has lazy modules that have not run yet.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a torch.nn.Module, got {type(model).__name__}; wrap a function in one"
        )
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if is_lazy(tensor):
            raise ValueError(f"{name!r} of the model has no shape yet; run the model once first")


def check_images(model: nn.Module, images: Tensor) -> None:
    """Refuse images that the model cannot take.

    Raises:
        TypeError: Not a dense, real floating-point tensor of the model's dtype.
        ValueError: Not (B, C, H, W) with B ≥ 1, not finite, or on another device.
    """
    if not isinstance(images, Tensor):
        raise TypeError(
            f"images must be a torch tensor of shape (B, C, H, W), got {type(images).__name__}; "
            "convert arrays with torch.from_numpy"
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
    weight = next((p for p in model.parameters() if p.is_floating_point()), None)
    if weight is not None:
        _check_fit(images, weight)
    finite = images.flatten(1).isfinite().all(1)
    if not bool(finite.all()):
        raise ValueError(f"image {int((~finite).nonzero()[0])} holds values that are not finite")


def _check_fit(images: Tensor, weight: Tensor) -> None:
    if images.dtype != weight.dtype:
        raise TypeError(
            f"images are {images.dtype} and the model is {weight.dtype}; use "
            f"images.to({weight.dtype})"
        )
    if images.device != weight.device:
        raise ValueError(
            f"images are on {images.device} and the model is on {weight.device}; use "
            f"images.to({str(weight.device)!r})"
        )
