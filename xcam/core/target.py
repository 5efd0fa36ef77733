"""`Target`: what of the model's output is explained."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from xcam.core.categories import find_classes
from xcam.core.finite import check_finite, check_logits
from xcam.core.several import has_independent_classes
from xcam.errors import ModelOutputError
from xcam.sentences import pluralize

__all__ = [
    "Output",
    "ScoreFunction",
    "Target",
    "TargetLike",
    "extract_logits",
]

Output = Literal["logit", "prob", "logprob"]
ScoreFunction: TypeAlias = Callable[[object, Tensor], Tensor]
_UNBOUND = "the predicted class is not known yet: call target.bind first"
TargetLike: TypeAlias = (
    "int | str | Sequence[int] | Sequence[str] | Tensor | ScoreFunction | Target | None"
)


class Target:
    """What to explain of each image: a class, or any score that a callable reads off the output.

    Made once a call by `Target.of`; a method sees the part for its chunk of images, binds it with
    the output of a clean pass, and asks it for scores.

    Attributes:
        rows: (B,) int64, which of the caller's images each image of this chunk is.
        classes: (B,) int64; None before `bind` for the predicted class, and always for a callable.
        function: The callable, if one was given.
        logits: (B, K) of the clean pass once bound; None if the output holds no such tensor.
        bound: Whether a clean pass has been seen.
    """

    def __init__(
        self,
        rows: Tensor,
        classes: Tensor | None = None,
        function: ScoreFunction | None = None,
        highest: int | None = None,
        name: str = "target",
    ) -> None:
        """Use `Target.of`, which checks what it is given."""
        self.rows = rows
        self.classes = classes
        self.function = function
        self._highest = highest
        self._name = name
        self.logits: Tensor | None = None
        self.bound = False

    @classmethod
    def of(
        cls,
        target: TargetLike,
        images: Tensor,
        name: str = "target",
        categories: Sequence[str] = (),
    ) -> Target:
        """Make a target for `images` from what a user wrote.

        Args:
            target: None or `"predicted"` for the class that the model predicts, an int or a name
                for one class for all images, a sequence of B ints or names, or a tensor, for one
                class an image, or a callable `(output, rows) -> scores`: the model's output for R
                rows and, as (R,) int64, the number of the image that each row belongs to; it
                returns (R,) scores, higher for more of what is to be explained.
            images: (B, C, H, W).
            name: What errors call it: the argument that it came from.
            categories: The names of the model's classes, in the order of its logits.

        Raises:
            TypeError: `target` is none of these, not of integers, or takes other arguments.
            ValueError: Not one class an image, a negative class, or a name of several classes.
            UnknownNameError: No class has this name; the nearest ones are listed.
        """
        rows = torch.arange(len(images), device=images.device)
        if isinstance(target, Target):
            if len(target.rows) != len(images):
                raise ValueError(
                    f"the target is for {pluralize(len(target.rows), 'image')}, got {len(images)}"
                )
            rows = target.rows.to(images.device)
            return cls(rows, target.classes, target.function, target._highest, target._name)
        if target is None or (isinstance(target, str) and target == "predicted"):
            return cls(rows)
        if callable(target):
            _check_signature(target)
            return cls(rows, function=target)
        if isinstance(target, str | list | tuple):
            target = find_classes(target, categories, name)
        classes = _classes(target, len(images), name)
        lowest, highest = torch.stack(classes.aminmax()).tolist()
        if lowest < 0:
            raise ValueError(f"{name} {lowest} is negative: classes count from 0")
        return cls(rows, classes.to(images.device), highest=highest, name=name)

    def select(self, part: slice | Tensor) -> Target:
        """Return the unbound target of some of the images: a slice, or their numbers (R,)."""
        classes = None if self.classes is None else self.classes[part]
        return Target(self.rows[part], classes, self.function, self._highest, self._name)

    @property
    def highest(self) -> int:
        """Return the highest class of all images, which is read once: a read waits for a GPU."""
        if self.classes is None:
            raise RuntimeError(_UNBOUND)
        if self._highest is None:
            self._highest = int(self.classes.max())
        return self._highest

    def bind(self, prediction: object) -> None:
        """Take over the output of a clean pass over the chunk's images.

        Fixes the predicted class where that is what is explained, and keeps the logits.

        Raises:
            ModelOutputError: No single (B, K) tensor in the output, or one that is not finite.
            ValueError: The target class is out of range.
        """
        try:
            logits = extract_logits(prediction, len(self.rows))
        except ModelOutputError:
            if self.function is None:
                raise
            self.bound = True
            return
        self._check(logits)
        self.logits, self.bound = logits.detach(), True
        if self.function is None and self.classes is None:
            self.classes = self.logits.argmax(1)

    def scores(
        self, prediction: object, rows: Tensor | None = None, output: Output = "logit"
    ) -> Tensor:
        """Return the score of each row of an output, differentiable.

        Args:
            prediction: What the model returned for R rows.
            rows: (R,) int64, which image of this chunk each row belongs to; None for the images
                in their order.
            output: The class's `"logit"`, its `"prob"` or `"logprob"` under a softmax (under a
                sigmoid where the model has a single output, or within `independent_classes`). A
                callable speaks for itself.

        Returns:
            (R,) scores.

        Raises:
            ModelOutputError: No single (R, K) tensor in the output, or a callable's result is
                not (R,), or not finite.
        """
        rows = torch.arange(len(self.rows), device=self.rows.device) if rows is None else rows
        if self.function is not None:
            images = self.rows[rows]
            return _checked_scores(self.function(prediction, images), images)
        if self.classes is None:
            raise RuntimeError(_UNBOUND)
        logits = extract_logits(prediction, len(rows))
        return _transform(logits, output).gather(1, self.classes[rows, None])[:, 0]

    def _check(self, logits: Tensor) -> None:
        check_logits(logits, self.rows)
        if self.classes is not None and self.highest >= logits.shape[1]:
            wrong, count = self.highest, logits.shape[1]
            has = f"{count} classes, 0 to {count - 1}" if count > 1 else "a single score, target 0"
            raise ValueError(f"{self._name} {wrong} is out of range: the model has {has}")


def extract_logits(prediction: object, rows: int) -> Tensor:
    """Return the logits (rows, K) in an output.

    They are the output itself, what it calls `logits` by a key or an attribute, or the only tensor
    of class scores in a dict, tuple or dataclass. If no tensor is (rows, K), then one of
    (rows, K, 1, 1) counts, as a convolution gives it behind global pooling, and else one of
    (rows,), a single score an image. A bare tensor of one image may be squeezed to (K,) or ().

    Raises:
        ModelOutputError: There is none, or more than one.
    """
    tensors = [*_tensors(prediction)]
    for read in (_read_scores, _read_pooled_scores, _read_single_scores):
        found = [logits for tensor in tensors if (logits := read(tensor, rows)) is not None]
        if len(found) == 1:
            half = found[0].dtype in (torch.float16, torch.bfloat16)
            return found[0].float() if half else found[0]
        if found:
            break
    if isinstance(prediction, Tensor) and rows == 1 and prediction.ndim < 2:
        squeezed = _read_scores(prediction.reshape(1, -1), 1)
        if squeezed is not None:
            return extract_logits(squeezed, 1)
    shapes = ", ".join(str(tuple(t.shape)) for t in tensors) or type(prediction).__name__
    raise ModelOutputError(
        f"the model must return one floating-point ({rows}, K) tensor of class scores, got "
        f"{shapes}; pass a callable (output, rows) -> scores as target to explain anything else"
    )


def _read_scores(tensor: Tensor, rows: int) -> Tensor | None:
    """Return a floating-point tensor (rows, K), K ≥ 1, as it is; None for any other."""
    fits = tensor.ndim == 2 and len(tensor) == rows and tensor.shape[1] > 0
    return tensor if fits and tensor.is_floating_point() else None


def _read_pooled_scores(tensor: Tensor, rows: int) -> Tensor | None:
    """Return (rows, K, 1, …) as (rows, K); None for any other."""
    pooled = tensor.ndim > 2 and tensor.shape[2:].numel() == 1
    return _read_scores(tensor.flatten(1), rows) if pooled else None


def _read_single_scores(tensor: Tensor, rows: int) -> Tensor | None:
    """Return (rows,) as (rows, 1); None for any other."""
    return _read_scores(tensor[:, None], rows) if tensor.ndim == 1 else None


def _tensors(prediction: object) -> Iterator[Tensor]:
    """Yield the tensors in an output; of what has `logits`, those of the logits alone."""
    if isinstance(prediction, Tensor):
        yield prediction
        return
    if isinstance(prediction, Mapping):
        parts: Iterable[object] = prediction.values()
        named = prediction.get("logits")
    else:
        parts = prediction if isinstance(prediction, tuple | list) else _field_values(prediction)
        # torchvision's outputs in training name those of auxiliary classifiers, too: no single one.
        auxiliary = any(name.startswith("aux") for name in getattr(prediction, "_fields", ()))
        named = None if auxiliary else getattr(prediction, "logits", None)
    logits = [] if named is None else [*_tensors(named)]
    if logits:
        yield from logits
        return
    for part in parts:
        yield from _tensors(part)


def _field_values(prediction: object) -> Iterator[object]:
    """Yield the values of a dataclass; nothing of any other object."""
    if dataclasses.is_dataclass(prediction):
        for field in dataclasses.fields(prediction):
            yield getattr(prediction, field.name, None)


def _classes(target: object, count: int, name: str) -> Tensor:
    try:
        classes = torch.as_tensor(target)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"{name} must be None, an int, a name, {count} of them, or a callable, got {target!r}"
        ) from error
    if classes.numel() == 0:
        raise ValueError(f"{name} must name one class for each of the {count} images, got none")
    if classes.is_floating_point() or classes.is_complex() or classes.dtype == torch.bool:
        raise TypeError(f"{name} must hold integers, got {classes.dtype}: {target!r}")
    classes = classes.long()
    if classes.ndim == 0:
        classes = classes.expand(count)
    if classes.shape != (count,):
        raise ValueError(
            f"{name} must name one class for each of the {count} images, got shape "
            f"{tuple(classes.shape)}; pass a single int for one class in all of them"
        )
    return classes


def _transform(logits: Tensor, output: Output) -> Tensor:
    if output == "logit":
        return logits
    # One output is a binary classifier: a softmax would be constant.
    single = logits.shape[1] == 1 or has_independent_classes()
    if output == "prob":
        return logits.sigmoid() if single else logits.softmax(1)
    if output == "logprob":
        return F.logsigmoid(logits) if single else logits.log_softmax(1)
    raise ValueError(f"output must be 'logit', 'prob' or 'logprob', got {output!r}")


def _check_signature(function: ScoreFunction) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # builtins may have none
        return
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise TypeError(
            "a target callable takes (output, rows), the model's output and the number of the "
            f"image that each row belongs to, got one that takes {signature}"
        ) from error


def _checked_scores(scores: object, images: Tensor) -> Tensor:
    """Return a callable's scores, or raise if they are not one finite number per row."""
    rows = len(images)
    if isinstance(scores, Tensor) and scores.shape == (rows,) and scores.is_floating_point():
        return check_finite(
            scores,
            lambda image: (
                f"the target callable's score for image {image} is not finite: check what it "
                "computes, and the model's output"
            ),
            images,
        )
    got: object = type(scores).__name__
    if isinstance(scores, Tensor):
        got = f"{tuple(scores.shape)} of {scores.dtype}"
    raise ModelOutputError(
        f"the target callable must return a floating-point tensor of shape ({rows},), a score a "
        f"row, got {got}"
    )
