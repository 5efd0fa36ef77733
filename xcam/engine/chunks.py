"""Many rows in chunks, each as large as is fast and fits into memory.

A method says how many rows it needs and how to process some of them; the engine decides how many
go through the model at a time, retries with fewer when memory runs out, and shows progress.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor

from xcam.engine.footprint import measure_footprint
from xcam.engine.forward import RunSettings, current_runtime, out_of_memory
from xcam.engine.restore import guarded_model

__all__ = ["choose_batch_size", "chunks", "collect", "default_batch_size"]

T = TypeVar("T")

# Bytes of the largest layer of a chunk, and images of a chunk, at which CPUs were found to be
# fastest: see the table of chunks in benchmarks/RESULTS.md.
_CHUNK_BYTES, _CHUNK_IMAGES = 20_000_000, 64
_FEW_ROWS = 4  # for which finding out about the layers is not worth a search


def chunks(
    rows: int, step: Callable[[slice], T], like: Tensor, label: str = "", group_size: int = 1
) -> Iterator[tuple[slice, T]]:
    """Process many rows in chunks, each as large as is fast and fits into memory.

    Args:
        rows: How many there are: images, or pairs of an image and a mask, step, or noise sample.
        step: Makes the rows of a slice, runs them, and returns what to keep. It may be called again
            with half of the slice if memory runs out, so it must not accumulate anything itself.
        like: Images of the size and on the device of the rows.
        label: What the progress bar counts.
        group_size: How many consecutive rows always share a chunk, whatever the batch size.

    Yields:
        Each slice with what `step` returned for it.
    """
    runtime = current_runtime()
    start = 0
    with _bar(rows, label, runtime.progress) as bar:
        while start < rows:
            size = choose_batch_size(rows, like, runtime)
            size = max(group_size, size - size % group_size)
            part = slice(start, min(rows, start + size))
            result = _attempt(step, part, group_size)
            if result is None:
                half = (part.stop - part.start) // 2
                # A loop inside `step` may have reduced it further.
                runtime.batch_size = min(half, runtime.batch_size or half)
                continue
            yield part, result[0]
            start = part.stop
            if bar is not None:
                bar.update(part.stop - part.start)


def collect(
    rows: int, step: Callable[[slice], Tensor], like: Tensor, label: str = "", group_size: int = 1
) -> Tensor:
    """Return what `step` gives for every row, (rows, …), processed as by `chunks`.

    Results are written into one tensor, allocated with the first chunk: small results kept from
    each chunk would fragment the memory that large intermediate ones are freed from.
    """
    found = like.new_zeros(0)
    for part, values in chunks(rows, step, like, label, group_size):
        if part.start == 0:
            found = values.new_empty(rows, *values.shape[1:])
        found[part] = values
    return found


def _bar(rows: int, label: str, show: bool) -> AbstractContextManager[Any]:
    if not show:  # even a bar that shows nothing takes a lock, which a fork may find taken
        return nullcontext()
    from tqdm.auto import tqdm

    bar: AbstractContextManager[Any] = tqdm(total=rows, desc=label, leave=False)
    return bar


def _attempt(step: Callable[[slice], T], part: slice, least: int) -> tuple[T] | None:
    """Return what `step` gives for a slice, in a tuple; None if memory ran out, and less may do."""
    try:
        return (step(part),)
    except RuntimeError as error:
        if part.stop - part.start <= least or not out_of_memory(error):
            raise
    # Outside of the handler: inside, the traceback would keep the failed chunk's tensors alive.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def choose_batch_size(rows: int, like: Tensor, runtime: RunSettings) -> int:
    """Return how many of some rows to run at a time, by a rule, so that a call repeats its bits.

    A CPU is fastest on chunks whose layers stay in its caches, so that it counts what the largest
    layer of the model held `untouched` holds; where that is not known, and on an accelerator, the
    pixels of an image.
    """
    if runtime.batch_size is not None:
        return runtime.batch_size
    by_pixels = default_batch_size(like)
    model = guarded_model()
    if like.device.type != "cpu" or model is None or rows <= _FEW_ROWS:
        return by_pixels
    footprint = measure_footprint(model, like)
    if not footprint:
        return by_pixels
    return max(1, min(_CHUNK_BYTES // footprint, _CHUNK_IMAGES))


def default_batch_size(like: Tensor) -> int:
    """Return how many images of (…, H, W) to run at a time, from their size and device alone."""
    at_224, most = (4, _CHUNK_IMAGES) if like.device.type == "cpu" else (256, 8192)
    pixels = max(1, like.shape[-2] * like.shape[-1])
    return max(1, min(at_224 * 224 * 224 // pixels, most))
