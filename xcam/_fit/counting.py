"""Right answers: summed over an epoch's steps, and counted by class, as a table."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn

from xcam._explain.checks import check_model
from xcam._fit.average_precision import compute_average_precisions, gather_rows
from xcam._fit.counted import Counted, second_k, tabulate
from xcam._fit.items import check_labels
from xcam._fit.order import list_evaluation_batches
from xcam._fit.settings import Runtime, check_count
from xcam._fit.source import Images, Source
from xcam.core import extract_logits, find_unreadable, is_multi_label
from xcam.engine import random_states, untouched, unwrap
from xcam.engine.forward import Precision
from xcam.models.categories import find_categories
from xcam.runs.processes import Processes

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "MeasureLoss",
    "accuracy",
    "add_batch",
    "count_correct",
    "new_sums",
    "sum_over_processes",
]

# From images and labels to a loss, the logits, and what divides the loss; None for the images.
MeasureLoss: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor | None]]
_BATCH = 128


def accuracy(
    model: nn.Module,
    data: Images,
    *,
    batch_size: int | None = None,
    precision: Precision = "full",
    workers: int = 0,
    device: str | torch.device | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Compute a classifier's accuracy for each class; the model is left as it was.

    Of images with several labels, the average precision of each class. Classes are compared by name
    where both the data set and the model name them. Under `accelerate
    launch` or `torchrun` the processes share the images, and each gets the table.

    Args:
        model: From images (B, C, H, W) to logits (B, K).
        data: A map-style data set of `(image, label)`, or a `DataLoader` of one; a label is an int,
            or (K,) bool of an image that may show several classes.
        batch_size: Images through the model at a time; None takes the loader's, or 128.
        precision: `"full"`, or `"bf16"`/`"fp16"` to run the model under autocast.
        workers: Processes that load images, where no loader says how many.
        device: Where to run a copy of the model; None runs the model where it is.
        progress: Show a progress bar.

    Returns:
        A row a class, and a last one, `"all"`, of all images: `class` (its name where the data set
        or model knows it, else its number), `n` images, `correct` of them, `accuracy`, their
        share, and `top5`, the share whose label is among the five highest logits (`top2` for
        five classes or fewer). Of images with several labels `class`, `n` images that show it, and
        `average_precision`, Σ_i P_i (R_i − R_{i−1}) over the images by falling logit, NaN of a
        class that none shows; the last row has the mean of the others, the mAP, and all images. The
        accuracy of such images, in `fit`'s log, is the share of which the highest logit is that of
        one of their labels; `top5` or `top2`, that of which one of as many highest is.

    Raises:
        TypeError: An argument of the wrong kind, or items that are not `(image, label)`.
        ValueError: No images, labels that are no classes of the model, images that it fails on.
        ModelOutputError: The output is not one (B, K) tensor, or not finite for an image.
    """
    check_model(model)
    if batch_size is not None:
        check_count("batch_size", batch_size)
    check_count("workers", workers, least=0)
    source = Source.wrap(data, "data", workers)
    own = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    with random_states():
        runtime = Runtime.choose(device, precision, default=own)
        same = runtime.device == own
        net = model if same else copy.deepcopy(unwrap(model)).to(runtime.device)
        image, label = source.load_one(0)
        runtime, num_classes = runtime.probe(net, image)
        source = replace(source, has_several=is_multi_label(label))
        source = source.match(find_categories(net, num_classes), num_classes)
        size = batch_size or source.batch_size or _BATCH
        counted = count_correct(
            net, source, num_classes, runtime, batch_size=size, progress=progress
        )
        return tabulate(counted, source.categories)


def count_correct(
    net: nn.Module,
    source: Source,
    num_classes: int,
    runtime: Runtime,
    *,
    batch_size: int,
    measure_loss: MeasureLoss | None = None,
    progress: bool = False,
    shuffle: bool = False,
) -> Counted:
    """Run a net on all images, in eval mode, and count; the processes share them.

    Args:
        net: On the runtime's device.
        source: Of the images.
        num_classes: The number K of logits.
        runtime: How it runs.
        batch_size: Images through the net at a time.
        measure_loss: Gives the loss and the logits; None takes the net's logits, and no loss.
        progress: Show a progress bar.
        shuffle: Put images of all classes into a batch, for losses that look across it.

    Raises:
        ValueError: Labels that are no classes of the net.
    """
    from tqdm.auto import tqdm

    processes = runtime.processes
    counts = torch.zeros(num_classes, 3, dtype=torch.int64, device=runtime.device)
    ranked: list[tuple[Tensor, Tensor]] = []  # logits and several labels, (B, K) each
    # The loss, and what divides it, summed over the batches.
    losses = torch.zeros(2, dtype=_exact_dtype(runtime.device), device=runtime.device)
    batches = list_evaluation_batches(
        len(source), batch_size, processes.rank, processes.count, shuffle
    )
    # The number of the first image whose logits are unreadable, read at the end: an argmax of NaN
    # is a class like any other, and a process that raised here would leave the others waiting.
    unreadable = torch.full((), len(source), device=runtime.device)
    is_cheap = processes.count == 1 and runtime.device.type == "cpu"
    bar = tqdm(total=len(batches), leave=False, disable=not (progress and processes.is_main))
    loading = source.load(batches, seed=0, pin_memory=runtime.pins_memory)
    with untouched(net), torch.no_grad(), bar, closing(loading) as loaded:
        for keys, (images, labels) in zip(batches, loaded, strict=True):
            check_labels(labels, num_classes)
            images, labels = runtime.move(images), labels.to(runtime.device)
            with runtime.autocast():
                if measure_loss is None:
                    logits = extract_logits(net(images), len(images))
                else:
                    loss, logits, divisor = measure_loss(images, labels)
                    weight = torch.tensor(len(labels)) if divisor is None else divisor
                    losses += torch.stack([loss * weight.to(loss.device), weight.to(loss)])
            if is_multi_label(labels):
                ranked.append((logits.detach().float(), labels))
            else:
                counts += _count_batch(logits, labels, num_classes)
            numbers = torch.tensor([index for _, index in keys], device=runtime.device)
            faulty = numbers.where(find_unreadable(logits), len(source)).amin()
            unreadable = torch.minimum(unreadable, faulty)
            bar.update()
            if is_cheap and int(unreadable) < len(source):
                break
    if processes.count > 1:
        torch.distributed.all_reduce(unreadable, torch.distributed.ReduceOp.MIN)
    total, divided_by = sum_over_processes(losses, processes).tolist()
    precisions, k = None, second_k(num_classes)
    if source.has_several:
        scores, shown = gather_rows(ranked, num_classes, runtime)
        precisions = compute_average_precisions(scores, shown)
        hits = shown.gather(1, scores.topk(k, dim=1).indices)
        counts = torch.tensor([[len(hits), int(hits[:, 0].sum()), int(hits.any(1).sum())]])
    else:
        counts = sum_over_processes(counts, processes).cpu()
    return Counted(
        counts,
        total / divided_by if divided_by else total,
        int(unreadable) if int(unreadable) < len(source) else None,
        precisions,
        k,
    )


def _count_batch(logits: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return per-class counts of images, correct answers and top-k correct answers, (K, 3)."""
    ranks = logits.topk(second_k(num_classes), dim=1).indices.eq(labels[:, None])  # (B, k)
    kinds = torch.stack([torch.ones_like(ranks[:, 0]), ranks[:, 0], ranks.any(1)], dim=1)  # (B, 3)
    is_class = labels[:, None].eq(torch.arange(num_classes, device=labels.device))  # (B, K)
    return torch.einsum("bk,bj->kj", is_class.float(), kinds.float()).long()


def sum_over_processes(values: Tensor, processes: Processes) -> Tensor:
    """Return the sum over the processes, on each of them."""
    if processes.count > 1:
        torch.distributed.all_reduce(values)
    return values


def new_sums(device: torch.device) -> Tensor:
    """Return zero sums (4,) of loss, right answers, those among the first k, and images.

    They stay on the device, and are read only now and then: reading makes the device wait.
    """
    return torch.zeros(4, dtype=_exact_dtype(device), device=device)


@torch.no_grad()
def add_batch(
    sums: Tensor, loss: Tensor, logits: Tensor | None, labels: Tensor, count: int, k: int
) -> None:
    """Add a batch's mean loss, and the answers for the first `count` of its images, in place.

    A loss counts as NaN where logits are unreadable, whatever the criterion makes of them.

    Args:
        sums: See `new_sums`.
        loss: A scalar.
        logits: (B, K), or None where there are none: what is right is not known then.
        labels: (B,) int64, or (B, K) bool: an answer is right that is one of them.
        count: 0 for a batch that only keeps other processes company.
        k: Of the second accuracy.
    """
    sums[0] += loss.detach() * count if count else 0.0
    sums[3] += count
    if logits is None:
        sums[1:3] += torch.nan
    elif count:
        sums[0] += torch.where(find_unreadable(logits).any(), torch.nan, 0.0)
        first = logits.topk(k, dim=1).indices
        ranks = labels.gather(1, first) if is_multi_label(labels) else first.eq(labels[:, None])
        sums[1] += ranks[:, 0].sum()
        sums[2] += ranks.any(1).sum()


def _exact_dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64
