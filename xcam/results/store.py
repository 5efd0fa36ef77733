"""The folder of an evaluation: a manifest, and its rows in Parquet parts, one part a batch.

A part is written whole or not at all, so that a part that exists is a batch that is done: nothing
else keeps track of progress, and nothing is lost or doubled whenever the writer dies.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from xcam.runs import files
from xcam.runs.folder import RunFolder
from xcam.sentences import name_folder

__all__ = ["ADDED", "SCHEMA", "Row", "Store", "check_part", "encode_part"]

SCHEMA = pa.schema(
    [
        pa.field("index", pa.int64(), nullable=False),
        pa.field("image", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("target", pa.int64()),
        pa.field("label", pa.int64()),
        pa.field("method", pa.string(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("values", pa.list_(pa.float32())),
        pa.field("shape", pa.list_(pa.int32())),
        pa.field("seconds", pa.float64()),
        pa.field("passes", pa.float64()),
        pa.field("explain_seconds", pa.float64()),
        pa.field("explain_passes", pa.float64()),
        pa.field("passes_spent", pa.float64()),
        pa.field("explain_passes_spent", pa.float64()),
        pa.field("seconds_spent", pa.float64()),
        pa.field("explain_seconds_spent", pa.float64()),
        pa.field("flat", pa.bool_()),
        pa.field("error", pa.string()),
    ]
)
ADDED = ("seconds_spent", "explain_seconds_spent")
"""Columns that parts of the first versions lack; they are null there."""

_UNSIGNED = b"crc32=--------"
_SIGNED = re.compile(rb"crc32=[0-9a-f]{8}")
_PART_NAME = "batch-{:08d}.parquet"
_PART = re.compile(r"batch-(\d{8})\.parquet")


@dataclass(frozen=True)
class Row:
    """The statistic of one metric for one method's map of one image.

    Attributes:
        index: The image's position in the data set.
        image: The image's id.
        model: The model's name.
        target: The class that was explained; None if the model, or the reading of the image, failed
            before there was one.
        label: The true class, if the data has one and the image could be read.
        method: The method's label.
        metric: The metric's label.
        values: The statistic of this image, flattened, float32; None if there was an error.
        shape: The statistic's shape, `()` for a single number; None likewise.
        seconds: What scoring this image takes by itself, its share of the batch; None likewise.
        passes: Images through the model to score this one by itself; None likewise.
        explain_seconds: What explaining it takes by itself; None if that failed.
        explain_passes: Images through the model to explain it by itself; None likewise.
        passes_spent: Of `passes`, how many were made here: the others were those of an earlier
            method or metric on the batch.
        explain_passes_spent: Of `explain_passes`, likewise.
        seconds_spent: What scoring took here; less than `seconds` where passes were shared.
        explain_seconds_spent: What explaining took here, likewise.
        flat: Whether the map is the same everywhere, and points nowhere; None likewise.
        error: Why there are no values; None if there are.
    """

    index: int
    image: str
    model: str
    target: int | None
    label: int | None
    method: str
    metric: str
    values: NDArray[np.float32] | None = None
    shape: tuple[int, ...] | None = None
    seconds: float | None = None
    passes: float | None = None
    explain_seconds: float | None = None
    explain_passes: float | None = None
    passes_spent: float | None = None
    explain_passes_spent: float | None = None
    seconds_spent: float | None = None
    explain_seconds_spent: float | None = None
    flat: bool | None = None
    error: str | None = None

    def sort_key(self) -> tuple[int, str, str, str]:
        """Return the key by which rows are sorted in their part."""
        return self.index, self.model, self.method, self.metric


@dataclass(frozen=True)
class Store:
    """The folder of an evaluation.

    Attributes:
        folder: Holds `manifest.json`, `rows/batch-00000017.parquet` and, where maps are kept,
            `maps/`.
    """

    folder: Path

    @property
    def run(self) -> RunFolder:
        """Return the folder as that of a resumable work."""
        return RunFolder(self.folder, "evaluation", ("rows/batch-*.parquet", "maps"))

    def open(self, content: Mapping[str, Any], joining: bool = False) -> None:
        """Start the folder with a manifest, or resume one that holds the same.

        Args:
            content: Of the manifest.
            joining: Another process has started the folder.

        Raises:
            ValueError: The folder is of another evaluation; each difference is named.
            FileFormatError: It holds rows without a manifest, or a damaged one.
        """
        files.create_folder(self._rows)
        self.run.settle(content, joining=joining)

    def clean(self) -> None:
        """Remove the temporary files of writers that were killed, and no other files."""
        inside = [path for path in self.maps_folder().rglob("*") if path.is_dir()]
        self.run.clean(self._rows, self.maps_folder(), *inside)

    def list_done(self) -> set[int]:
        """List the numbers of the batches whose rows are here."""
        found = (_PART.fullmatch(path.name) for path in self._rows.iterdir())
        return {int(match[1]) for match in found if match}

    def list_explained(self, number: int) -> set[tuple[str, str]]:
        """List the models and methods that have a map of any image of a batch that is done.

        None of a part that is damaged, which is said where its rows are read.
        """
        columns = ["model", "method", "explain_seconds"]
        try:
            rows = pq.read_table(self._rows / _PART_NAME.format(number), columns=columns)
        except (pa.ArrowException, OSError):
            return set()
        lines = rows.to_pylist()
        return {(x["model"], x["method"]) for x in lines if x["explain_seconds"] is not None}

    def write(self, number: int, rows: Iterable[Row]) -> None:
        """Write all rows of a batch, sorted, which marks it as done.

        Raises:
            OSError: The folder cannot be written to.
        """
        records = [vars(row) for row in sorted(rows, key=Row.sort_key)]
        files.write(self._rows / _PART_NAME.format(number), encode_part(records))

    def maps_folder(self, *labels: str) -> Path:
        """Return the folder of a method's maps; see `name_folder`."""
        return self.folder.joinpath("maps", *map(name_folder, labels))

    @property
    def _rows(self) -> Path:
        return self.folder / "rows"


def encode_part(records: list[dict[str, Any]]) -> bytes:
    """Return the content of a part with these rows, by the names of `SCHEMA`."""
    content = io.BytesIO()
    schema = SCHEMA.with_metadata({"xcam": _UNSIGNED})
    pq.write_table(pa.Table.from_pylist(records, schema), content, compression="zstd")
    return _sign(content.getvalue())


def check_part(path: Path) -> bool:
    """Return whether a part is what was written: its CRC-32, in its metadata, is of all else.

    Parquet's own checksums leave out the metadata, in which a flipped bit moves rows elsewhere.
    """
    content = memoryview(path.read_bytes())
    found = _SIGNED.search(content)
    if found is None:
        return False
    total = zlib.crc32(_UNSIGNED, zlib.crc32(content[: found.start()]))
    return found[0] == b"crc32=%08x" % zlib.crc32(content[found.end() :], total)


def _sign(content: bytes) -> bytes:
    """Return the content of a part with its CRC-32 in place of what stands for it."""
    return content.replace(_UNSIGNED, b"crc32=%08x" % zlib.crc32(content), 1)
