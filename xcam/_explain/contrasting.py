"""Counterfactual maps, why one class rather than another: the map of the one less the other's."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypeAlias

from torch import Tensor

from xcam._explain.prepared import Prepared, run
from xcam.core import Explanation, Method, Note, Target
from xcam.engine.shared import share_passes

__all__ = ["Contrast", "check_class_specific", "explain_contrast", "make_contrast"]

Contrast: TypeAlias = "int | str | Sequence[int] | Sequence[str] | Tensor | None"


def make_contrast(
    contrast: Contrast, target: Target, images: Tensor, categories: Sequence[str] = ()
) -> Target | None:
    """Return the classes that the target is contrasted with, (B,); None for none.

    Raises:
        TypeError: No class, or a target that is none: a callable.
        ValueError: Not one class an image, a negative class, or the target itself.
        UnknownNameError: No class of the model, of these categories, has this name.
    """
    if contrast is None:
        return None
    wanted = f"contrast must be the number or name of a class, or one an image, got {contrast!r}"
    if callable(contrast) or isinstance(contrast, Target):
        raise TypeError(wanted)
    if target.function is not None:
        raise TypeError(
            "a contrast needs a class as the target, got a callable: let it return the difference "
            "of two scores instead, and leave the contrast out"
        )
    try:
        made = Target.of(contrast, images, "contrast", categories)
    except TypeError as error:  # which speaks of what a target may be
        raise TypeError(wanted) from error
    if target.classes is not None and made.classes is not None:
        same = (target.classes == made.classes).nonzero()
        if len(same):
            image = int(same[0])
            raise ValueError(
                f"the contrast of image {image} is its target, class {int(made.classes[image])}; "
                "give another class"
            )
    return made


def check_class_specific(method: Method) -> None:
    """Refuse a method whose maps of two classes are the same.

    Raises:
        ValueError: It is one.
    """
    if not method.spec.class_specific:
        raise ValueError(
            f"{method.spec.name}, as it is set, gives the same map for every class, so that there "
            "is nothing to contrast; give a class-specific method, such as 'gradcam'"
        )


def explain_contrast(
    prepared: Prepared, images: Tensor, target: Target, contrast: Target
) -> Explanation:
    """Explain a batch by the maps of the target less those of the contrast; see `run`.

    Passes that the two have in common are made once. Channels of a pixel are reduced first, as the
    method says: the difference of two magnitudes is none.
    """
    check_class_specific(prepared.method)
    with share_passes(images):
        explained, other = (run(prepared, images, aim) for aim in (target, contrast))
    difference = explained.reduced - other.reduced
    notes = [*dict.fromkeys((*explained.run_notes, *other.run_notes))]
    if explained.target is not None and other.target is not None:
        is_same = (explained.target == other.target).to(difference.device)
        is_zero = (difference == 0).flatten(1).all(1) & ~is_same
        notes += [
            Note(image, sentence)
            for found, sentence in (
                (is_same, "the predicted class is the contrast itself"),
                (is_zero, "the target's map and the contrast's are the same"),
            )
            for image in found.nonzero()[:, 0].tolist()
        ]
    return dataclasses.replace(
        explained,
        raw=difference[:, None] if explained.raw.ndim == 4 else difference,
        contrast=other.target,
        run_notes=tuple(notes),
    )
