"""Images with several labels: one row for each image and each class that it shows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from xcam._evaluate.batches import Batch, Batches, Groups, Loaded, split_batch
from xcam._evaluate.comparison import Comparison

__all__ = ["has_several", "spread_labels"]


def has_several(batch: Batch) -> bool:
    """Return whether the images of a batch have several labels each, (B, K) bool."""
    return batch.labels is not None and batch.labels.ndim == 2


def spread_labels(batches: Batches, first: Batch, comparison: Comparison) -> Batches:
    """Return batches of a row for each class that an image shows; of none for predicted classes.

    The number of a row is that of its image, times the number of classes, plus the class.

    Args:
        batches: Of images with labels (B, K) bool, and maybe a truth of each class.
        first: The first image alone.
        comparison: What is explained and scored.

    Raises:
        ValueError: A metric needs one label an image, or the truth of a class that is not known
            before it is predicted; or no image has a label.
    """
    _check_metrics(first, comparison)
    if not comparison.explains_labels:
        read = _without_labels(batches)
        return replace(batches, labels=None, read=read)
    assert first.labels is not None
    num_classes = first.labels.shape[1]
    shown = {
        index: [index * num_classes + k for k in classes]
        for index, classes in _list_classes(batches, num_classes)
    }
    groups = [tuple(row for index in group for row in shown[index]) for group in batches.groups]
    if batches.size:
        rows = tuple(itertools.chain.from_iterable(groups))
        groups = [rows[i : i + batches.size] for i in range(0, len(rows), batches.size)]
    groups = [group for group in groups if group]
    if not groups:
        raise ValueError("no image has a label; give a (K,) bool tensor that is true for some")
    numbers = [row for group in groups for row in group]

    def read_rows(groups: Groups) -> Iterator[Loaded]:
        images = [list(dict.fromkeys(row // num_classes for row in group)) for group in groups]
        for group, found, loaded in zip(groups, images, batches.read(images), strict=True):
            yield _spread_batch(loaded, found, group, num_classes)

    return replace(
        batches,
        groups=tuple(groups),
        ids={row: batches.ids[row // num_classes] for row in numbers},
        labels={row: row % num_classes for row in numbers},
        read=read_rows,
    )


def _check_metrics(first: Batch, comparison: Comparison) -> None:
    truth = first.truth
    for name, metric in comparison.metrics.items():
        if metric.spec.truth == "labels":
            raise ValueError(
                f"the metric {name!r} compares with one label an image, and these have several; "
                "leave it out (xcam.accuracy gives their mAP)"
            )
        needs_truth = metric.spec.truth in ("boxes", "masks")
        if needs_truth and truth is not None and truth.ndim == 4 and not comparison.explains_labels:
            raise ValueError(
                f"the metric {name!r} needs the {metric.spec.truth} of the explained class, and "
                "the data has them for its labels; give target='label'"
            )


def _list_classes(batches: Batches, num_classes: int) -> Iterator[tuple[int, list[int]]]:
    """Yield the classes that each image shows; an unreadable image counts as of the first."""
    for index in itertools.chain.from_iterable(batches.groups):
        if batches.labels is not None:
            labels = torch.as_tensor(batches.labels[index])
        else:
            items, errors = next(batches.read([(index,)]))
            found = None if errors else split_batch(items)[1]
            labels = torch.eye(num_classes)[0].bool() if found is None else found[0]
        if labels.shape != (num_classes,) or labels.dtype != torch.bool:
            raise ValueError(
                f"image {index} has the label {tuple(labels.shape)} of {labels.dtype}, and the "
                f"first image's is a ({num_classes},) bool tensor; give all images the same kind"
            )
        yield index, labels.nonzero().flatten().tolist()


def _spread_batch(
    loaded: Loaded, images: Sequence[int], rows: Sequence[int], num_classes: int
) -> Loaded:
    """Return a batch of images as a batch of rows."""
    items, errors = loaded
    failed = {image: errors[place] for place, image in enumerate(images) if place in errors}
    readable = {image: n for n, image in enumerate(i for i in images if i not in failed)}
    row_errors = {
        place: failed[row // num_classes]
        for place, row in enumerate(rows)
        if row // num_classes in failed
    }
    kept = [row for row in rows if row // num_classes in readable]
    if not kept:
        return None, row_errors
    shown, labels, truth = split_batch(items)
    place = torch.tensor([readable[row // num_classes] for row in kept])
    classes = torch.tensor([row % num_classes for row in kept])
    if labels is None or labels.ndim != 2 or not bool(labels[place, classes].all()):
        raise ValueError("the data set lists other labels than its items have; correct `labels`")
    return (shown[place], classes, _pick_truth(truth, place, classes)), row_errors


def _pick_truth(truth: Tensor | None, place: Tensor, classes: Tensor) -> Tensor | None:
    """Return each row's truth: that of its class where there is one for each class, (B, K, …)."""
    if truth is None:
        return None
    return truth[place, classes] if truth.ndim == 4 else truth[place]


def _without_labels(batches: Batches) -> Any:  # noqa: ANN401 - a function of groups
    def read(groups: Groups) -> Iterator[Loaded]:
        for items, errors in batches.read(groups):
            if items is None:
                yield None, errors
                continue
            images, _, truth = split_batch(items)
            yield (images, None, truth), errors

    return read
