"""The end of a training that diverged, and its cause."""

from __future__ import annotations

from itertools import islice

from xcam._fit.learner import Learner
from xcam._fit.progress import Progress
from xcam._fit.source import Source
from xcam.errors import DivergenceError
from xcam.runs.folder import RunFolder

__all__ = ["LOOK_EVERY", "make_divergence"]

LOOK_EVERY = 16
"""Steps between two looks at the loss where looking makes a device, or other processes, wait."""


def make_divergence(
    what: str, learner: Learner, progress: Progress, source: Source, folder: RunFolder | None
) -> DivergenceError:
    """Make the error that ends a training.

    Args:
        what: What is not finite.
        learner: What learned.
        progress: How far it is.
        source: The training images.
        folder: Where the training keeps what it has, if it keeps anything.
    """
    image = _find_faulty_image(learner, progress, source)
    if image is not None:
        remedy = f"image {image} of the data holds values that are not finite: repair or remove it"
    else:
        remedy = "lower the learning rate, clip the gradient, or check the images"
        if learner.runtime.precision == "fp16":
            remedy = f"use precision='bf16' or 'full', {remedy}"
    kept = ""
    if folder is not None and progress.epoch:
        kept = f"; {str(folder.path)!r} keeps what was saved up to epoch {progress.epoch}"
    return DivergenceError(
        f"{what} is not finite at epoch {progress.epoch + 1}, step {progress.step} (learning rate "
        f"{progress.lr:g}); {remedy}{kept}"
    )


def _find_faulty_image(learner: Learner, progress: Progress, source: Source) -> int | None:
    """Return the number of an image of this process's last steps that is not finite, if any is."""
    order = learner.order
    steps = range(max(0, progress.step - LOOK_EVERY), progress.step)
    count = sum(len(order.split(order.count_images(step))) for step in steps)
    parts = order.iterate(progress.epoch, steps.start, progress.epoch + 1)
    keys = list(islice(parts, count))
    for part, (images, _) in zip(keys, source.load(keys, order.seed), strict=True):
        faulty = ~images.flatten(1).isfinite().all(1)
        if bool(faulty.any()):
            return part[int(faulty.nonzero()[0])][1]
    return None
