"""A small data set to evaluate on, and the rows that an evaluation leaves."""

import numpy as np
import pyarrow.parquet as pq
import torch
from torch.utils.data import Dataset

TIMES = ["seconds", "explain_seconds"]


class Pictures(Dataset):
    """Seeded pictures with labels and masks; `loaded` lists which were asked for."""

    def __init__(self, count=11, size=16, truth=False, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.rand(count, 3, size, size, generator=generator)
        self.labels = torch.randint(0, 5, (count,), generator=generator).tolist()
        self.masks = torch.zeros(count, size, size, dtype=torch.bool)
        self.masks[:, : size // 2, : size // 2] = True
        self.truth, self.loaded = truth, []
        self.ids = [f"class{label}/{index}.png" for index, label in enumerate(self.labels)]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.loaded.append(index)
        item = (self.images[index], self.labels[index])
        return (*item, self.masks[index]) if self.truth else item


def parts(folder):
    """The names of the parts that are there."""
    return sorted(path.name for path in (folder / "rows").iterdir())


def rows(folder):
    """All rows of an evaluation in the order of the parts, without what they took."""
    tables = [pq.read_table(path) for path in sorted((folder / "rows").glob("batch-*.parquet"))]
    return [row for table in tables for row in table.drop(TIMES).to_pylist()]


def assert_same_rows(found, expected):
    """Equal rows, numbers to 1e-6."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            if name == "values" and value is not None:
                np.testing.assert_allclose(value, other[name], rtol=1e-6, atol=1e-6)
            else:
                assert value == other[name], name
