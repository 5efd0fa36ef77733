"""A pass of the model, and the run settings that a verb scopes to its call.

The engine decides in which memory layout and precision a pass is made; `xcam.engine.chunks`, how
many images go through the model at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from xcam.engine.wrappers import find_batch_size
from xcam.errors import warn

if TYPE_CHECKING:
    from xcam.engine.paths import RepeatedLayer

__all__ = [
    "OutOfTime",
    "Precision",
    "RunSettings",
    "call",
    "current_runtime",
    "ensure_run",
    "limit_time",
    "match_layout",
    "note",
    "note_repeated_layers",
    "out_of_memory",
    "record_repeated_layer",
    "run_settings",
]

Precision = Literal["full", "bf16", "fp16"]

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class RunSettings:
    """The settings of one verb's call, and what the engine finds out during it.

    Attributes:
        batch_size: Images through the model at a time; None lets the engine choose. Halved when
            memory runs out.
        precision: `"full"` is the model's own; the others run it under autocast.
        progress: Whether to show progress bars.
        notes: Sentences for the result's `warnings`.
        repeated_layers: Captured layers that are called several times in a pass.
        contiguous: Whether the model fails on channels_last images; None before its first pass.
        passes: Images through the model so far, as far as the work by itself needs them.
        shared_passes: How many of them were taken from earlier work; see `xcam.engine.shared`.
        shared_seconds: What these would have taken.
    """

    batch_size: int | None = None
    precision: Precision = "full"
    progress: bool = False
    notes: list[str] = field(default_factory=list)
    repeated_layers: dict[str, RepeatedLayer] = field(default_factory=dict)
    contiguous: bool | None = None
    passes: int = 0
    shared_passes: int = 0
    shared_seconds: float = 0.0

    def __post_init__(self) -> None:
        """Refuse settings that cannot be run."""
        size = self.batch_size
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            raise ValueError(f"batch_size must be a positive int or None, got {size!r}")
        if self.precision not in ("full", *_AUTOCAST):
            raise ValueError(f"precision must be 'full', 'bf16' or 'fp16', got {self.precision!r}")


_runtime: ContextVar[RunSettings | None] = ContextVar("xcam_runtime", default=None)
_deadline: ContextVar[float | None] = ContextVar("xcam_deadline", default=None)


class OutOfTime(BaseException):
    """A pass was asked for after the time of `limit_time`; no handler of errors catches it."""


@contextmanager
def limit_time(seconds: float) -> Iterator[None]:
    """Raise `OutOfTime` from the first pass inside a block that begins after so many seconds."""
    token = _deadline.set(monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def current_runtime() -> RunSettings:
    """Return the settings of the running verb; the defaults outside of any."""
    return _runtime.get() or RunSettings()


@contextmanager
def run_settings(
    *, batch_size: int | None = None, precision: Precision = "full", progress: bool = False
) -> Iterator[RunSettings]:
    """Set the run settings inside a block, and restore the earlier ones whatever happens."""
    runtime = RunSettings(batch_size, precision, progress)
    token = _runtime.set(runtime)
    try:
        yield runtime
    finally:
        _runtime.reset(token)


@contextmanager
def ensure_run() -> Iterator[RunSettings]:
    """Use the run around a block, or else one for the block, and tell at its end what was noted."""
    runtime = _runtime.get()
    if runtime is not None:
        yield runtime
        return
    with run_settings() as runtime:
        yield runtime
    for sentence in runtime.notes:
        note(sentence)
    for layer, calls in runtime.repeated_layers.items():
        record_repeated_layer(layer, calls)


def note(sentence: str) -> None:
    """Tell the user something: in the result's `warnings`, or at once outside of a verb."""
    runtime = _runtime.get()
    if runtime is None:
        warn(sentence)
    elif sentence not in runtime.notes:
        runtime.notes.append(sentence)


def record_repeated_layer(layer: str, repeated: RepeatedLayer) -> None:
    """Record that a captured layer is called several times in a pass; outside of a verb, warn."""
    runtime = _runtime.get()
    if runtime is not None:
        runtime.repeated_layers[layer] = repeated
        return
    sentence = repeated.describe(layer, is_default=False)
    if sentence is not None:
        warn(sentence)


def note_repeated_layers(default: str | None) -> None:
    """Note the layers that were called several times in a pass, if the user should know.

    Args:
        default: The layer that `default_layer` has chosen; None if the user has named one.
    """
    for layer, repeated in current_runtime().repeated_layers.items():
        sentence = repeated.describe(layer, is_default=layer == default)
        if sentence is not None:
            note(sentence)


def call(model: Callable[[Tensor], Any], images: Tensor, may_overwrite: bool = False) -> Any:  # noqa: ANN401
    """Run the model on some images, in the fastest memory layout and the run's precision.

    On a CPU images are passed as channels_last, on which convolutions are up to 1.5 times faster
    with the same numbers (to 1e-5). A model that calls `.view` on its features fails on those; it
    gets contiguous images from then on. The model may work in place on its input, so it gets a
    copy of the caller's images. One that was exported, and fails, gets as many at a time as it was
    exported with.

    Args:
        model: The model, or anything that runs it.
        images: (R, C, H, W).
        may_overwrite: The images were made for this pass, and nobody needs them afterwards.
    """
    deadline = _deadline.get()
    if deadline is not None and monotonic() > deadline:
        raise OutOfTime
    current_runtime().passes += len(images)
    try:
        return _run(model, images, may_overwrite)
    except (AssertionError, RuntimeError):
        size = find_batch_size(model)
        if size in (None, len(images)):
            raise
    return _run_in_groups(model, images, size)


def _run_in_groups(model: Callable[[Tensor], Any], images: Tensor, size: int) -> Any:  # noqa: ANN401
    """Run an exported model on as many images at a time as it takes, the last ones filled up."""
    missing = -len(images) % size
    filled = torch.cat([images, images[-1:].expand(missing, -1, -1, -1)])
    outputs = [_run(model, group, False) for group in torch.split(filled, size)]

    def join(*parts: Any) -> Any:  # noqa: ANN401
        is_batch = isinstance(parts[0], Tensor) and parts[0].shape[:1] == (size,)
        return torch.cat(parts)[: len(images)] if is_batch else parts[0]

    return tree_map(join, *outputs)


def _run(model: Callable[[Tensor], Any], images: Tensor, may_overwrite: bool) -> Any:  # noqa: ANN401
    """Run the model in the memory layout that it takes."""
    runtime = current_runtime()

    def run(layout: torch.memory_format, may_overwrite: bool) -> Any:  # noqa: ANN401
        copy = images.contiguous if may_overwrite else images.clone
        with _autocast(images.device, runtime.precision):
            return model(copy(memory_format=layout))

    if images.device.type != "cpu" or runtime.contiguous:
        return run(torch.contiguous_format, may_overwrite)
    # Until a pass has succeeded, work on a copy: if this pass fails, the images are needed again.
    may_overwrite = may_overwrite and runtime.contiguous is False
    try:
        output = run(torch.channels_last, may_overwrite)
    except RuntimeError as error:
        if may_overwrite or "stride" not in str(error):
            raise
        runtime.contiguous = True
        return run(torch.contiguous_format, may_overwrite)
    runtime.contiguous = False
    return output


def match_layout(images: Tensor) -> Tensor:
    """Return the images in the layout in which `call` runs the model, as far as it is known."""
    last = images.device.type == "cpu" and current_runtime().contiguous is False
    return images.contiguous(memory_format=torch.channels_last) if last else images


def _autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    if precision == "full":
        return nullcontext()
    return torch.autocast(device.type, _AUTOCAST[precision])


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on the device or on the host."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
