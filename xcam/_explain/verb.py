"""The verb `explain`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, overload

from torch import Tensor, nn

from xcam._explain.checks import check_images, check_model, check_pass
from xcam._explain.contrasting import (
    Contrast,
    check_class_specific,
    explain_contrast,
    make_contrast,
)
from xcam._explain.pictures import Images, load_images
from xcam._explain.prepared import (
    label_settings,
    prepare,
    requested_method,
    resolve_method,
    run,
)
from xcam.core import Explanation, Method, Target, TargetLike
from xcam.engine import untouched
from xcam.engine.forward import Precision, out_of_memory, run_settings
from xcam.engine.shared import share_passes
from xcam.errors import warn
from xcam.models.categories import find_categories

__all__ = ["explain"]

Methods: TypeAlias = "Sequence[str | Method] | Mapping[str, str | Method]"


@overload
def explain(
    model: nn.Module,
    images: Images,
    target: TargetLike = None,
    method: str | Method | None = None,
    *,
    contrast: Contrast = None,
    batch_size: int | None = None,
    precision: Precision = "full",
    progress: bool = False,
    **params: Any,  # noqa: ANN401
) -> Explanation: ...


@overload
def explain(
    model: nn.Module,
    images: Images,
    target: TargetLike = None,
    method: Methods = ...,
    *,
    contrast: Contrast = None,
    batch_size: int | None = None,
    precision: Precision = "full",
    progress: bool = False,
    **params: Any,  # noqa: ANN401
) -> dict[str, Explanation]: ...


def explain(
    model: nn.Module,
    images: Images,
    target: TargetLike = None,
    method: str | Method | Methods | None = None,
    *,
    contrast: Contrast = None,
    batch_size: int | None = None,
    precision: Precision = "full",
    progress: bool = False,
    **params: Any,
) -> Explanation | dict[str, Explanation]:
    """Explain a classifier's output for each image by a map, or by one of each of several methods.

    The model runs in eval mode and is left exactly as it was, also if the call fails. A map does
    not depend on which other images share the call, nor on which other methods do: of several,
    passes that they have in common are made once.

    Args:
        model: From (B, C, H, W) images to (B, K) logits. Wrapped (DataParallel, compiled) or
            frozen models are fine.
        images: (B, C, H, W) floating point, finite, as `model` takes them, on its device. For a
            `Normalized` that says its `input_size`, also a picture, or a list of them: a file, a
            PIL image, an array (H, W) or (H, W, 3) or a tensor (C, H, W), of uint8 or in [0, 1];
            resized to cover that size, its center cropped, as `xcam.read_image` does.
        target: What to explain: None or `"predicted"` for the class that the model predicts, its
            number or name, a sequence or tensor of B of them, or a callable
            `(output, rows) -> scores`; see `xcam.Target.of`. Names are those of the model's
            `categories`.
        method: A name from `xcam.list_methods()`, or a method object. None means the method whose
            head the model carries, and Grad-CAM if it carries none. The name of that method stands
            for it, too: with the parameters that it was trained with. Or several: a sequence of
            names and objects, or a dict that labels them.
        contrast: A class by number or name, or B of them, such as the second best: why the target
            rather than that one? The map is then that of the target less that of the contrast, by
            any class-specific method: positive where pixels speak for the target.
        batch_size: How many images go through the model at a time; None chooses by device, image
            size and, on a CPU, the size of the model's layers. It changes speed and memory, not the
            maps.
        precision: `"full"`, or `"bf16"`/`"fp16"` to run the model under autocast.
        progress: Show a progress bar.
        **params: Hyper-parameters of the method, such as `layer="layer3"` or `n_masks=1000`; of
            several methods, each must have them. Of several layers, `layer=["layer3", "layer4"]`,
            the map is the mean of the normalized maps: see `xcam.methods.LayerFusion`.

    Returns:
        The maps, with all that is needed to make them again. Of several methods, a dict of such
        explanations in their order, by label: the caller's, else the method's name, else, for a
        repeated name, its repr.

    Raises:
        TypeError: An argument of the wrong kind, or a parameter that the method does not have.
        ValueError: An argument out of its range, images that the model fails on, a contrast that
            is the target or of a method that knows no class, or of several methods none, or the
            same one twice.
        UnknownNameError: No such method, layer or class.
        FileNotFoundError: There is no such picture.
        ModelOutputError: The output is not one finite (B, K) tensor.
        LayerError: The layer gives no map, or no gradient.
        NotFittedError: The method is a trainable one whose head the model lacks, or has untrained.
    """
    check_model(model)
    batch, settings = load_images(model, images), (batch_size, precision, progress)
    check_images(model, batch)
    is_named = isinstance(target, Sequence) or isinstance(contrast, Sequence)
    names = find_categories(model) if is_named else ()
    aim = Target.of(target, batch, categories=names)
    other = None if contrast is None else make_contrast(contrast, aim, batch, names)
    if method is None or isinstance(method, str | Method):
        return _explain(model, batch, aim, other, method, params, *settings)

    def resolve(one: str | Method) -> Method:
        return resolve_method(requested_method(model, one), params)

    methods = label_settings(method, resolve)
    if not methods:
        raise ValueError("there are no methods to explain by; see xcam.list_methods()")
    if other is not None:
        for one in methods.values():
            check_class_specific(one)
    with share_passes(batch), untouched(model):
        return {
            label: _explain(model, batch, Target.of(aim, batch), other, one, {}, *settings)
            for label, one in methods.items()
        }


def _explain(
    model: nn.Module,
    images: Tensor,
    target: Target,
    contrast: Target | None,
    method: str | Method | None,
    params: Mapping[str, Any],
    batch_size: int | None,
    precision: Precision,
    progress: bool,
) -> Explanation:
    """Return the explanation by one method, and warn of what was noted on the way."""
    with run_settings(batch_size=batch_size, precision=precision, progress=progress) as runtime:
        try:
            with untouched(model):
                prepared = prepare(model, images, method, params)
                if contrast is None:
                    explanation = run(prepared, images, target)
                else:
                    explanation = explain_contrast(prepared, images, target, contrast)
        except (AssertionError, RuntimeError) as error:  # transformers assert a size
            if not out_of_memory(error):
                check_pass(model, images)
            raise
    for sentence in runtime.notes:
        warn(sentence)
    return explanation
