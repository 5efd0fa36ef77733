"""The one chunked forward engine, and the run settings that a verb scopes to its call.

A method says how many rows it needs and what to do with a few of them; the engine decides how many
go through the model at a time, in which memory layout and precision, backs off when memory runs
out, and shows progress.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from xcam.errors import XcamWarning

__all__ = [
    "Precision",
    "Runtime",
    "call",
    "chunks",
    "collect",
    "current_runtime",
    "match_layout",
    "note",
    "note_repeated_layers",
    "out_of_memory",
    "record_repeated_layer",
    "run_settings",
]

Precision = Literal["full", "bf16", "fp16"]
T = TypeVar("T")

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Runtime:
    """The settings of one verb's call, and what the engine learns during it.

    Attributes:
        batch_size: Images through the model at a time; None lets the engine choose. Halved when
            memory runs out.
        precision: `"full"` is the model's own; the others run it under autocast.
        progress: Whether to show progress bars.
        notes: Sentences for the result's `warnings`.
        repeated_layers: Captured layers that are called several times in a pass, and how often.
        contiguous: Whether the model cannot take channels_last images; None before its first pass.
        passes: Images that went through the model so far.
    """

    batch_size: int | None = None
    precision: Precision = "full"
    progress: bool = False
    notes: list[str] = field(default_factory=list)
    repeated_layers: dict[str, int] = field(default_factory=dict)
    contiguous: bool | None = None
    passes: int = 0

    def __post_init__(self) -> None:
        """Refuses settings that cannot be run."""
        size = self.batch_size
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            raise ValueError(f"batch_size must be a positive int or None, got {size!r}")
        if self.precision not in ("full", *_AUTOCAST):
            raise ValueError(f"precision must be 'full', 'bf16' or 'fp16', got {self.precision!r}")


_run: ContextVar[Runtime | None] = ContextVar("xcam_run", default=None)


def current_runtime() -> Runtime:
    """The settings in force; defaults outside of any verb."""
    return _run.get() or Runtime()


@contextmanager
def run_settings(
    batch_size: int | None = None, precision: Precision = "full", progress: bool = False
) -> Iterator[Runtime]:
    """Scopes run settings to a block, restored whatever happens."""
    run = Runtime(batch_size, precision, progress)
    token = _run.set(run)
    try:
        yield run
    finally:
        _run.reset(token)


def note(sentence: str) -> None:
    """Tells the user something: in the result's `warnings`, or at once outside of a verb."""
    run = _run.get()
    if run is None:
        warnings.warn(sentence, XcamWarning, stacklevel=3)
    elif sentence not in run.notes:
        run.notes.append(sentence)


def record_repeated_layer(layer: str, calls: int) -> None:
    """Record that a captured layer is called several times in a pass; outside of a verb, warn."""
    run = _run.get()
    if run is None:
        warnings.warn(_repeated(layer, calls), XcamWarning, stacklevel=3)
    else:
        run.repeated_layers[layer] = calls


def note_repeated_layers(but: str | None) -> None:
    """Note the layers that were called several times in a pass.

    Args:
        but: A layer whose last call is what was meant, since `default_layer` has chosen it.
    """
    for layer, calls in current_runtime().repeated_layers.items():
        if layer != but:
            note(_repeated(layer, calls))


def _repeated(layer: str, calls: int) -> str:
    return f"layer {layer!r} is called {calls} times in a forward pass; the map is of the last call"


def call(model: Callable[[Tensor], Any], images: Tensor, may_overwrite: bool = False) -> Any:  # noqa: ANN401
    """Runs the model on a few images, in the fastest layout and the run's precision.

    On a CPU images go in as channels_last, which convolutions run up to 1.5 times faster on with
    the same numbers (to 1e-5). A model that calls `.view` on its features cannot take that; it
    gets contiguous images from then on. The model may work in place on its input, so that it
    gets a copy of images that are the caller's.

    Args:
        model: The model, or anything that runs it.
        images: (R, C, H, W).
        may_overwrite: The images were made for this pass, and nobody needs them after it.
    """
    run = current_runtime()
    run.passes += len(images)
    if images.device.type != "cpu" or run.contiguous:
        return _autocast(
            model, _given(images, torch.contiguous_format, may_overwrite), run.precision
        )
    # Until a pass has gone well a copy: if this one fails the images are needed once more.
    may_overwrite = may_overwrite and run.contiguous is False
    try:
        output = _autocast(model, _given(images, torch.channels_last, may_overwrite), run.precision)
    except RuntimeError as error:
        if may_overwrite or "stride" not in str(error):
            raise
        run.contiguous = True
        return _autocast(
            model, _given(images, torch.contiguous_format, may_overwrite), run.precision
        )
    run.contiguous = False
    return output


def match_layout(images: Tensor) -> Tensor:
    """The images in the layout in which `call` runs the model, as far as that is known."""
    last = images.device.type == "cpu" and current_runtime().contiguous is False
    return images.contiguous(memory_format=torch.channels_last) if last else images


def _given(images: Tensor, layout: torch.memory_format, may_overwrite: bool) -> Tensor:
    return (
        images.contiguous(memory_format=layout)
        if may_overwrite
        else images.clone(memory_format=layout)
    )


def _autocast(model: Callable[[Tensor], Any], images: Tensor, precision: Precision) -> Any:  # noqa: ANN401
    if precision == "full":
        return model(images)
    with torch.autocast(images.device.type, _AUTOCAST[precision]):
        return model(images)


def chunks(
    rows: int, step: Callable[[slice], T], like: Tensor, label: str = "", group_size: int = 1
) -> Iterator[tuple[slice, T]]:
    """Works through many rows, as many at a time as pays and fits.

    Args:
        rows: How many there are: images, or pairs of image and mask, step, noise sample.
        step: Makes the rows of a slice, runs them, returns what is worth keeping. It may be
            called again with half of the slice if memory runs out, so the caller accumulates.
        like: Images of the size and on the device of the rows.
        label: What the progress bar counts.
        group_size: How many rows in a row are never parted, whatever the batch size.

    Yields:
        Each slice with what `step` returned for it.
    """
    run = current_runtime()
    start = 0
    with _bar(rows, label, run.progress) as bar:
        while start < rows:
            size = run.batch_size or default_batch_size(like)
            size = max(group_size, size - size % group_size)
            part = slice(start, min(rows, start + size))
            result = _attempt(step, part, group_size)
            if result is None:
                half = (part.stop - part.start) // 2
                run.batch_size = min(half, run.batch_size or half)  # a loop inside may be at less
                continue
            yield part, result[0]
            start = part.stop
            bar.update(part.stop - part.start)


def collect(
    rows: int, step: Callable[[slice], Tensor], like: Tensor, label: str = "", group_size: int = 1
) -> Tensor:
    """What `step` gives for every row, (rows, …), worked through as by `chunks`.

    The results lie in one tensor from the start: small ones kept from every chunk would pin the
    memory that large ones leave between them.
    """
    found = like.new_zeros(0)
    for part, values in chunks(rows, step, like, label, group_size):
        if part.start == 0:
            found = values.new_empty(rows, *values.shape[1:])
        found[part] = values
    return found


def _bar(rows: int, label: str, show: bool) -> Any:  # noqa: ANN401
    from tqdm.auto import tqdm

    return tqdm(total=rows, desc=label, disable=not show, leave=False)


def _attempt(step: Callable[[slice], T], part: slice, least: int) -> tuple[T] | None:
    try:
        return (step(part),)
    except RuntimeError as error:
        if part.stop - part.start <= least or not out_of_memory(error):
            raise
    # Outside of the handler: there the traceback would keep the failed chunk's tensors alive.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the device or, as torch says it, on the host."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def default_batch_size(like: Tensor) -> int:
    """How many images of (…, H, W) pay at a time, from their size and device alone.

    A CPU is fastest on about eight 224-pixel images, an accelerator on hundreds. A rule rather
    than a trial, so that the same call gives the same bits.
    """
    at_224 = 8 if like.device.type == "cpu" else 256
    pixels = max(1, like.shape[-2] * like.shape[-1])
    return max(1, min(at_224 * 224 * 224 // pixels, 32 * at_224))
