"""Right answers by class: of the validation images each epoch, and as a table."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn

from xcam._explain.verb import check_model
from xcam._fit.counters import whole
from xcam._fit.place import Place, check_labels
from xcam._fit.settings import check_count
from xcam._fit.source import Images, Source
from xcam._fit.sums import Means, runner_up, summed
from xcam.core import extract_logits
from xcam.engine import random_states, untouched, unwrap
from xcam.engine.forward import Precision

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Counts", "Run", "accuracy", "count", "names"]

Run: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
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
    """How often a classifier is right, by class; the model is left as it was.

    Under `accelerate launch` or `torchrun` the processes share the images, and each gets the table.

    Args:
        model: From images (B, C, H, W) to logits (B, K).
        data: A map-style data set of `(image, label)`, or a `DataLoader` of one.
        batch_size: Images through the model at a time; None takes the loader's, or 128.
        precision: `"full"`, or `"bf16"`/`"fp16"` to run the model under autocast.
        workers: Processes that load images, where no loader says how many.
        device: Where to run a copy of the model; None runs the model where it is.
        progress: Show a progress bar.

    Returns:
        A row a class, and a last one, `"all"`, of all images: `class` (its name where the data set
        or model knows it, else its number), `n` images, `correct` of them, `accuracy`, their
        share, and `top5`, the share whose label is among the five highest logits (`top2` for
        five classes or fewer).

    Raises:
        TypeError: An argument of the wrong kind, or items that are not `(image, label)`.
        ValueError: No images, labels that are no classes of the model, images that it fails on.
        ModelOutputError: The output is not one (B, K) tensor.
    """
    check_model(model)
    if batch_size is not None:
        check_count("batch_size", batch_size)
    check_count("workers", workers, least=0)
    source = Source.of(data, "data", workers)
    with random_states():
        return _accuracy(model, source, batch_size, precision, device, progress)


def _accuracy(
    model: nn.Module,
    source: Source,
    batch_size: int | None,
    precision: Precision,
    device: str | torch.device | None,
    progress: bool,
) -> pd.DataFrame:
    own = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    place = Place.of(device, precision, default=own)
    net = model if place.device == own else copy.deepcopy(unwrap(model)).to(place.device)
    place, classes = place.tried(net, source.first(0)[0])
    size = batch_size or source.batch_size or _BATCH
    return count(net, source, classes, size, place, progress=progress).table(
        names(source, net, classes)
    )


@dataclass(frozen=True, eq=False)
class Counts:
    """What an evaluation of some images gives.

    Attributes:
        classes: (K, 3) int64: images, right answers, and those among the first k, of each class.
        loss: The sum over the images; 0 where none was asked for.
    """

    classes: Tensor
    loss: float

    @property
    def means(self) -> Means:
        """Over all images."""
        images, top1, topk = self.classes.sum(0).tolist()
        return Means(self.loss / images, top1 / images, topk / images, images)

    def table(self, names: Sequence[object]) -> pd.DataFrame:
        """See `accuracy`."""
        import pandas as pd

        rows = torch.cat([self.classes, self.classes.sum(0, keepdim=True)])
        images, top1, topk = rows.double().T
        return pd.DataFrame(
            {
                "class": [*names, "all"],
                "n": rows[:, 0].tolist(),
                "correct": rows[:, 1].tolist(),
                "accuracy": (top1 / images).tolist(),
                f"top{runner_up(len(self.classes))}": (topk / images).tolist(),
            }
        )


def count(
    net: nn.Module,
    source: Source,
    classes: int,
    batch_size: int,
    place: Place,
    run: Run | None = None,
    progress: bool = False,
    mixed: bool = False,
) -> Counts:
    """Runs a net on all images, in eval mode, and counts; the processes share them.

    Args:
        net: On the place's device.
        source: Of the images.
        classes: The number K of logits.
        batch_size: Images through the net at a time.
        place: How it runs.
        run: From images and labels to a loss, the mean over the images, and the logits; None gives
            the net's logits, and measures no loss.
        progress: Show a progress bar.
        mixed: Put images of all classes into a batch, for losses that look across it.

    Raises:
        ValueError: Labels that are no classes of the net.
    """
    from tqdm.auto import tqdm

    found = torch.zeros(classes, 3, dtype=torch.int64, device=place.device)
    loss = torch.zeros((), dtype=torch.float32, device=place.device)
    if place.device.type != "mps":
        loss = loss.double()
    groups = whole(len(source), batch_size, place.team.rank, place.team.count, mixed)
    shown = progress and place.team.main
    with (
        untouched(net),
        torch.no_grad(),
        tqdm(total=len(groups), leave=False, disable=not shown) as bar,
    ):
        for images, labels in source.batches(groups, seed=0, pinned=place.pinned):
            check_labels(labels, classes)
            images, labels = place.images(images), labels.to(place.device)
            with place.autocast():
                if run is None:
                    logits = extract_logits(net(images), len(images))
                else:
                    part, logits = run(images, labels)
                    loss += part * len(labels)
            found += _found(logits, labels, classes)
            bar.update()
    return Counts(summed(found, place.team).cpu(), float(summed(loss, place.team)))


def _found(logits: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(K, 3): of each class the images, those answered right, and among the first k."""
    ranks = logits.topk(runner_up(classes), dim=1).indices.eq(labels[:, None])  # (B, k)
    kinds = torch.stack([torch.ones_like(ranks[:, 0]), ranks[:, 0], ranks.any(1)], dim=1)  # (B, 3)
    of_class = labels[:, None].eq(torch.arange(classes, device=labels.device))  # (B, K)
    return torch.einsum("bk,bj->kj", of_class.float(), kinds.float()).long()


def names(source: Source, net: nn.Module, classes: int) -> Sequence[object]:
    """What the classes are called: as the data set says, or the model, or by their numbers."""
    for owner in (source.dataset, unwrap(net)):
        for attribute in ("classes", "categories"):
            found = getattr(owner, attribute, ())
            if isinstance(found, list | tuple) and len(found) == classes:
                return list(found)
    return range(classes)
