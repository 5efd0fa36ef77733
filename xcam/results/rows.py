"""The rows of an evaluation, read from Parquet parts a portion at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import torch
from pyarrow import acero
from torch import Tensor

from xcam.errors import FileFormatError
from xcam.results.bootstrap import Sample
from xcam.results.parts import ADDED, SCHEMA, check_part, describe_damaged_part

__all__ = ["Batch", "Group", "Rows"]

Group: TypeAlias = tuple[str, str]
"""A model and a method."""

_BUDGET = 2**26  # numbers of a statistic that are held at a time: 256 MB
_AHEAD = {"batch_readahead": 1, "fragment_readahead": 1}  # parts that Arrow reads in advance
_COSTS = ("seconds", "passes", "explain_seconds", "explain_passes")


@dataclass(frozen=True, eq=False)
class Batch:
    """One metric's statistics of some groups.

    Attributes:
        groups: The models and methods.
        samples: The statistics of each group, over the images of the whole evaluation.
        present: (G, N) bool, the rows that each sample holds, of all N.
    """

    groups: list[Group]
    samples: list[Sample]
    present: Tensor


class Rows:
    """The rows in a folder.

    Attributes:
        folder: The evaluation's folder; its `rows/` holds the parts.
        summary: A line for each model, method and metric: `rows` that worked, `errors`, rows of a
            `flat` map, and the mean seconds and passes of a row.
    """

    def __init__(self, folder: Path) -> None:
        """Open the parts and count their rows.

        Raises:
            FileNotFoundError: There are none.
            FileFormatError: A part is damaged, or they are not those of one evaluation.
        """
        self.folder = folder
        self._shapes: dict[tuple[str, str], tuple[int, ...]] = {}
        parts = sorted((folder / "rows").glob("batch-*.parquet"))
        if not parts:
            raise FileNotFoundError(
                f"no rows in {str(folder)!r}: its rows/batch-*.parquet are what `evaluate` writes"
            )
        for part in parts:
            if not check_part(part):
                raise describe_damaged_part(part)
        with self._translate_errors():
            data = ds.dataset([str(part) for part in parts], format="parquet")
            self._data = data.replace_schema(SCHEMA)
            missing = [name for name in SCHEMA.names if name not in {*data.schema.names, *ADDED}]
            if missing:
                raise FileFormatError(f"the rows in {str(folder)!r} lack {', '.join(missing)}")
            self.summary = self._summarize()
        doubled = self.summary["rows"] + self.summary["errors"] > len(self.index)
        if self._ids.index.has_duplicates or doubled.any():
            raise FileFormatError(f"{str(folder)!r} holds several evaluations, or rows twice")

    @cached_property
    def index(self) -> Tensor:
        """Return (N,) int64: the position in the data set of each row of a group, ascending."""
        return torch.from_numpy(self._ids.index.to_numpy(copy=True))

    @cached_property
    def images(self) -> Tensor | None:
        """Return (N,) int64: the number of each row's image; None if each row has its own."""
        codes, ids = pd.factorize(self._ids)
        return None if len(ids) == len(codes) else torch.from_numpy(codes.astype(np.int64))

    @cached_property
    def image_ids(self) -> list[str]:
        """Return the id of each image, in the order of the statistics of `Sample`."""
        return [str(name) for name in pd.factorize(self._ids)[1]]

    def list_groups(self, metric: str) -> list[Group]:
        """List the models and methods that have a row of this metric without an error."""
        found = self.summary[(self.summary["metric"] == metric) & (self.summary["rows"] > 0)]
        return list(zip(found["model"], found["method"], strict=True))

    def split_groups(
        self, wanted: Mapping[str, Sequence[Group]]
    ) -> Iterator[dict[str, list[Group]]]:
        """Split groups into portions whose statistics fit the memory budget.

        Args:
            wanted: Groups of each metric, such as `list_groups` returns.
        """
        portion: dict[str, list[Group]] = {}
        room = _BUDGET
        pairs = [(metric, group) for metric, groups in wanted.items() for group in groups]
        for metric, group in pairs:
            numbers = len(self.index) * max(math.prod(self._read_shape(metric, group[0])), 1)
            if portion and numbers > room:
                yield portion
                portion, room = {}, _BUDGET
            portion.setdefault(metric, []).append(group)
            room -= numbers
        if portion:
            yield portion

    def read_batches(
        self, portion: Mapping[str, Sequence[Group]], only: Tensor | None = None
    ) -> dict[str, Batch]:
        """Read the statistics of some metrics, by label, in one pass over the parts.

        Args:
            portion: Groups of each metric with a row that worked, such as `split_groups` yields.
            only: (N,) bool, the rows to take; all that worked by default.

        Raises:
            FileFormatError: A part is damaged, or holds statistics of another shape.
        """
        values, found = self._read_statistics(portion), {}
        for metric, groups in portion.items():
            read = [values[metric, group] for group in groups]
            if only is not None:
                for statistics, present in read:
                    present &= only
                    statistics[~only] = 0  # as of rows that failed
            samples = [Sample.of(rows, self.images, present) for rows, present in read]
            found[metric] = Batch(list(groups), samples, torch.stack([flags for _, flags in read]))
        return found

    def to_frame(self, metric: str | None = None, failed: bool = False) -> pd.DataFrame:
        """Return the rows of one metric, or all; or only those that failed."""
        chosen = pc.scalar(True)
        if metric is not None:
            chosen &= ds.field("metric") == metric
        if failed:
            chosen &= ds.field("error").is_valid()
        with self._translate_errors():
            return self._data.to_table(filter=chosen).to_pandas()

    def find_first_errors(self) -> dict[Group, str]:
        """Find the first error of each model and method that has any."""
        failed = self.summary[self.summary["errors"] > 0]
        found: dict[Group, str] = {}
        for model, method in dict.fromkeys(zip(failed["model"], failed["method"], strict=True)):
            chosen = ds.field("error").is_valid() & (ds.field("model") == model)
            with self._translate_errors():
                first = self._data.head(
                    1, columns=["error"], filter=chosen & (ds.field("method") == method)
                )
            found[model, method] = first["error"][0].as_py()
        return found

    @cached_property
    def _ids(self) -> pd.Series[str]:
        """Return the image id of each position in the data set."""
        with self._translate_errors():
            found = self._aggregate(["index", "image"], [("image", "hash_count", None, "rows")])
        return found.set_index("index")["image"].sort_index()

    def _summarize(self) -> pd.DataFrame:
        keys = ["model", "method", "metric"]
        valid = pc.CountOptions(mode="only_valid")
        counts = [
            ("shape", "hash_count", valid, "rows"),  # there where values are, and much smaller
            ("error", "hash_count", valid, "errors"),
            ("flat", "hash_sum", None, "flat"),
        ]
        means = [(name, "hash_mean", None, name) for name in _COSTS]
        found = self._aggregate(keys, [*counts, *means]).sort_values(keys, ignore_index=True)
        return found.assign(flat=found["flat"].fillna(0).astype(int))  # null of no map at all

    def _aggregate(
        self, keys: list[str], aggregates: list[tuple[str, str, object, str]]
    ) -> pd.DataFrame:
        """Compute a line for each value of the keys, in one pass over the parts."""
        names = dict.fromkeys([*keys, *(column for column, *_ in aggregates)])
        columns = {name: ds.field(name) for name in names}
        scan = acero.Declaration("scan", acero.ScanNodeOptions(self._data, columns=columns))
        named = acero.ProjectNodeOptions([*columns.values()], [*columns])
        chosen = acero.Declaration("project", named)
        total = acero.Declaration("aggregate", acero.AggregateNodeOptions(aggregates, keys))
        return acero.Declaration.from_sequence([scan, chosen, total]).to_table().to_pandas()

    def _read_shape(self, metric: str, model: str) -> tuple[int, ...]:
        """Read the shape of a metric's statistic from a model's first row."""
        if (metric, model) not in self._shapes:
            chosen = _has_worked([metric]) & (ds.field("model") == model)
            with self._translate_errors():
                first = self._data.head(1, columns=["shape"], filter=chosen)
            self._shapes[metric, model] = tuple(first["shape"][0].as_py())
        return self._shapes[metric, model]

    def _read_statistics(
        self, portion: Mapping[str, Sequence[Group]]
    ) -> dict[tuple[str, Group], tuple[Tensor, Tensor]]:
        """Read each group's (N, *shape) float32 statistics, and (N,) bool: which rows there are."""
        blocks, found = {}, {}
        for metric, groups in portion.items():
            for model in dict.fromkeys(model for model, _ in groups):
                methods = [method for other, method in groups if other == model]
                room = len(methods), len(self.index)
                values = torch.zeros(*room, *self._read_shape(metric, model))
                present = torch.zeros(*room, dtype=torch.bool)
                blocks[metric, model] = methods, values, present
                views = zip(methods, values, present, strict=True)
                found.update({(metric, (model, name)): (v, p) for name, v, p in views})
        wanted = sorted({method for methods, *_ in blocks.values() for method in methods})
        chosen = _has_worked(list(portion)) & ds.field("method").isin(wanted)
        columns = ["index", "model", "method", "metric", "values"]
        with self._translate_errors():
            for part in self._data.to_batches(columns=columns, filter=chosen, **_AHEAD):
                for (metric, model), block in blocks.items():
                    of_metric = pc.equal(part["metric"], metric)
                    rows = part.filter(pc.and_(of_metric, pc.equal(part["model"], model)))
                    self._copy_statistics(rows, metric, *block)
        return found

    def _copy_statistics(
        self,
        rows: pa.RecordBatch,
        metric: str,
        methods: Sequence[str],
        values: Tensor,
        present: Tensor,
    ) -> None:
        """Copy the statistics of some rows of a metric and a model to their places."""
        position = {method: number for number, method in enumerate(methods)}
        names = rows["method"].to_pylist()
        method = torch.tensor([position.get(name, -1) for name in names], dtype=torch.int64)
        is_wanted = method >= 0
        shape = values.shape[2:]
        flat = rows["values"].flatten().to_numpy(zero_copy_only=False)
        if len(flat) != len(rows) * math.prod(shape):
            raise FileFormatError(f"the values of {metric!r} are not all of shape {tuple(shape)}")
        statistics = torch.from_numpy(flat.copy()).reshape(len(rows), *shape)[is_wanted]
        index = torch.from_numpy(rows["index"].to_numpy().copy())
        at = method[is_wanted], torch.searchsorted(self.index, index[is_wanted])
        values[at], present[at] = statistics, True

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Turn errors of Arrow into a sentence, and release the memory that it read into."""
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise FileFormatError(
                f"a part in {str(self.folder / 'rows')!r} cannot be read: {error}"
            ) from error
        finally:
            pa.default_memory_pool().release_unused()  # the bootstrap needs the room


def _has_worked(metrics: list[str]) -> ds.Expression:
    return ds.field("metric").isin(metrics) & ds.field("error").is_null()
