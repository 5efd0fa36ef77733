"""The folder of an evaluation: a manifest, and its rows in Parquet parts, one part a batch.

A part is written whole or not at all, so that a part that exists is a batch that is done: nothing
else keeps track of progress, and nothing is lost or doubled whenever the writer dies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from xcam.results.parts import Part, Row, encode_part, read_part
from xcam.runs import files
from xcam.runs.folder import RunFolder
from xcam.runs.manifest import read_manifest
from xcam.sentences import name_folder

__all__ = ["FREE", "GROWING", "Store"]

_ORDER = ("index", "model", "method", "metric")  # of the rows in a part
# Entries of the manifest that grow by label, and those that may change.
GROWING = ("models", "methods", "maps", "metrics", "labels", "contents")
FREE = ("images",)
_PART_NAME = "batch-{:08d}.parquet"
_PART = re.compile(r"batch-(\d{8})\.parquet")


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

        Models, methods, maps, metrics and images that are new are added to the manifest.

        Args:
            content: Of the manifest.
            joining: Another process has started the folder.

        Raises:
            ValueError: The folder is of another evaluation; each difference is named.
            FileFormatError: It holds rows without a manifest, or a damaged one.
        """
        files.create_folder(self._rows)
        self.run.settle(content, joining=joining, growing=GROWING, free=FREE)

    def compare(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """Refuse the folder of another evaluation; return what its manifest will be.

        See `open` for arguments and errors.
        """
        changed = self.run.compare(content, growing=GROWING, free=FREE)
        return self.read_manifest() if changed is None else changed

    def read_manifest(self) -> dict[str, Any]:
        """Return the manifest; an empty one if there is none.

        Raises:
            FileFormatError: It is damaged.
        """
        path = self.folder / "manifest.json"
        return read_manifest(path, "evaluation") if path.exists() else {}

    def clean(self) -> None:
        """Remove the temporary files of writers that were killed, and no other files."""
        inside = [path for path in self.maps_folder().rglob("*") if path.is_dir()]
        self.run.clean(self._rows, self.maps_folder(), *inside)

    def list_done(self) -> list[int]:
        """List the numbers of the batches of which there are rows, ascending."""
        found = (_PART.fullmatch(path.name) for path in self._rows.glob("*"))
        return sorted(int(match[1]) for match in found if match)

    def read_part(self, number: int) -> Part:
        """Return what a batch has rows of.

        Raises:
            FileFormatError: The part is damaged.
        """
        return read_part(self._rows / _PART_NAME.format(number))

    def read_rows(self, number: int) -> list[dict[str, Any]]:
        """Return the rows of a batch by the names of `SCHEMA`; none if it has none yet."""
        path = self._rows / _PART_NAME.format(number)
        return pq.read_table(path).to_pylist() if path.exists() else []

    def write_records(self, number: int, records: list[dict[str, Any]]) -> None:
        """Write the rows of a batch, by the names of `SCHEMA`.

        Raises:
            OSError: The folder cannot be written to.
        """
        ordered = sorted(records, key=lambda row: [row[name] for name in _ORDER])
        files.write(self._rows / _PART_NAME.format(number), encode_part(ordered))

    def write(self, number: int, rows: Iterable[Row]) -> None:
        """Write all rows of a batch, sorted, which marks it as done.

        Raises:
            OSError: The folder cannot be written to.
        """
        self.write_records(number, [vars(row) for row in rows])

    def add(self, number: int, rows: Iterable[Row]) -> None:
        """Write rows of a batch beside those that are there.

        Raises:
            OSError: The folder cannot be written to.
        """
        self.write_records(number, [*self.read_rows(number), *map(vars, rows)])

    def renumber(self, number: int, indices: Mapping[int, int]) -> None:
        """Give the images of a batch the positions that they have in the data now.

        Args:
            number: The batch's.
            indices: The new position by the old one.
        """
        rows = self.read_rows(number)
        self.write_records(number, [{**row, "index": indices[row["index"]]} for row in rows])

    def move_maps(self, model: str) -> None:
        """Move the maps of what was the only model so far to a folder of its own."""
        whole, aside = self.maps_folder(), self.folder / ".maps"
        if whole.exists() and not aside.exists():
            whole.rename(aside)
        if aside.exists():
            files.create_folder(whole)
            aside.rename(self.maps_folder(model))

    def maps_folder(self, *labels: str) -> Path:
        """Return the folder of a method's maps; see `name_folder`."""
        return self.folder.joinpath("maps", *map(name_folder, labels))

    def locate_maps(self, number: int, model: str, label: str) -> Path:
        """Return where a method's maps of a batch are kept; see `maps_folder`."""
        labels = [model, label] if self._has_several_models else [label]
        return self.maps_folder(*labels) / f"batch-{number:08d}.safetensors"

    @cached_property
    def _has_several_models(self) -> bool:
        return len(self.read_manifest()["models"]) > 1

    @property
    def _rows(self) -> Path:
        return self.folder / "rows"
