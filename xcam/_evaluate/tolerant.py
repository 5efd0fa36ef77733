"""Reading a data set so that an item that cannot be read does not end the reading of others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset

from xcam._evaluate.attempts import says_nothing, sentence

__all__ = ["Collated", "Tolerant"]


@dataclass(frozen=True)
class _Unreadable:
    """What stands for such an item.

    Attributes:
        error: Why.
    """

    error: str


@dataclass(frozen=True, eq=False)
class Tolerant(Dataset[Any]):
    """A data set that gives its errors as items, since in a worker they would end the batch.

    Attributes:
        dataset: By whose items the images are read.
    """

    dataset: Any

    def __getitem__(self, index: int) -> Any:  # noqa: ANN401 - an item is what the data set makes it
        """The item, or what stands for one that cannot be read."""
        try:
            return self.dataset[index]
        except Exception as error:
            if says_nothing(error, alone=True):
                raise
            return _Unreadable(sentence(error))


@dataclass(frozen=True, eq=False)
class Collated:
    """Makes a batch of what can be read.

    Attributes:
        collate: Makes one of items.
    """

    collate: Callable[[list[Any]], Any]

    def __call__(self, items: Sequence[Any]) -> tuple[Any, Mapping[int, str]]:
        """The batch, None if it would be empty, and for each other place what went wrong."""
        errors = {n: item.error for n, item in enumerate(items) if isinstance(item, _Unreadable)}
        read = [item for n, item in enumerate(items) if n not in errors]
        return self._joined(read) if read else None, errors

    def _joined(self, read: list[Any]) -> Any:  # noqa: ANN401 - a batch is what `collate` makes it
        try:
            return self.collate(read)
        except TypeError as error:
            from PIL.Image import Image

            parts = read[0] if isinstance(read[0], list | tuple) else read[:1]
            if not any(isinstance(part, Image) for part in parts):
                raise
            raise TypeError(
                "the data set gives pictures of PIL, and images must be tensors of one size: give "
                "it a transform, such as torchvision.transforms.v2.Compose([v2.ToImage(), "
                "v2.Resize((224, 224)), v2.ToDtype(torch.float32, scale=True)])"
            ) from error
