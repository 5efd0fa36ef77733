"""The data set of a command: a folder of pictures, or a list of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xcam.cli.nets import class_count

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from xcam.core import Metric
    from xcam.models import Normalized

__all__ = ["asks_labels", "check_labels", "loader_of"]


def loader_of(
    path: Path,
    root: Path | None,
    size: int | None,
    nets: Mapping[str, Normalized],
    load: int,
    workers: int,
) -> DataLoader[Any]:
    """The pictures in batches, of the size that all models take."""
    from torch.utils.data import DataLoader

    from xcam import data

    side = size or _side(nets)
    files = data.folder(path, side) if path.is_dir() else data.listed(path, root, side)
    return DataLoader(files, batch_size=load, num_workers=workers)


def asks_labels(target: str, metrics: Mapping[str, Metric] | Iterable[Metric]) -> bool:
    """Whether it counts what the labels of the pictures are."""
    chosen = metrics.values() if isinstance(metrics, Mapping) else metrics
    return target == "label" or any(metric.spec.truth == "labels" for metric in chosen)


def check_labels(data: Any, nets: Mapping[str, Normalized]) -> None:  # noqa: ANN401 - of xcam.data
    """Refuses, with a `ValueError`, the numbers of folders that are not a model's classes."""
    folders = data.classes
    for name, net in nets.items() if folders else ():  # a list's labels are the caller's numbers
        count = len(net.categories) or class_count(net, data[0][0])
        reordered = set(folders) == set(net.categories) and folders != net.categories
        if len(folders) != max(count, 2) or reordered:
            some = ", ".join(folders[:3]) + (", …" if len(folders) > 3 else "")
            raise ValueError(
                f"the labels of --data are the numbers of its {len(folders)} folders ({some}), and "
                f"{name!r} has {count} classes{', in another order' * reordered}: give a folder "
                "for each class, in the model's order, or a list with 'file label' a line; or "
                "explain what is predicted, and leave out metrics that need labels"
            )


def _side(nets: Mapping[str, Normalized]) -> int:
    """The side of the square that all models were made for."""
    sides = {side for net in nets.values() for side in net.input_size or (224,)}
    if len(sides) > 1:
        raise ValueError(f"the models take pictures of sides {sorted(sides)}; give one --size")
    return sides.pop()
