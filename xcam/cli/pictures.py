"""The data set of a command: a folder of pictures, a list of them, or a published set by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from xcam.cli.nets import class_count

if TYPE_CHECKING:
    from torch.utils.data import DataLoader, Dataset

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

    pictures = _opened(path, root, size or _side(nets))
    return DataLoader(pictures, batch_size=load, num_workers=workers)


def asks_labels(target: str, metrics: Mapping[str, Metric] | Iterable[Metric]) -> bool:
    """Whether it counts what the labels of the pictures are."""
    chosen = metrics.values() if isinstance(metrics, Mapping) else metrics
    return target == "label" or any(metric.spec.truth == "labels" for metric in chosen)


def check_labels(data: Any, nets: Mapping[str, Normalized]) -> None:  # noqa: ANN401 - of xcam.data
    """Refuses, with a `ValueError`, labels that number other classes than a model's."""
    own = data.classes
    for name, net in nets.items() if own else ():  # a list's labels are the caller's numbers
        count = len(net.categories) or class_count(net, data[0][0])
        reordered = set(own) == set(net.categories) and own != net.categories
        if len(own) != max(count, 2) or reordered:
            some = ", ".join(own[:3]) + (", …" if len(own) > 3 else "")
            raise ValueError(
                f"the labels of --data are the numbers of its {len(own)} classes ({some}), and "
                f"{name!r} has {count} classes{', in another order' * reordered}: give a folder "
                "for each class, in the model's order, or a list with 'file label' a line; or "
                "explain what is predicted, and leave out metrics that need labels"
            )


def _opened(path: Path, root: Path | None, side: int) -> Dataset[Any]:
    """A path that exists is a folder or a list, whatever its name."""
    from xcam import data
    from xcam.data.arrays import ARRAYS

    if path.is_dir():
        return data.folder(path, side)
    if str(path) not in ARRAYS or path.exists():
        return data.listed(path, root, side)
    if root is None:
        raise ValueError(f"--data {path} needs --root, the folder that holds the set")
    return cast("Dataset[Any]", data.load(str(path), root, input_size=(side, side)).test)


def _side(nets: Mapping[str, Normalized]) -> int:
    """The side of the square that all models were made for."""
    sides = {side for net in nets.values() for side in net.input_size or (224,)}
    if len(sides) > 1:
        raise ValueError(f"the models take pictures of sides {sorted(sides)}; give one --size")
    return sides.pop()
