"""The pictures in and below a folder, by class, and what is left out there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from xcam.errors import warn
from xcam.sentences import escape_name, pluralize, quote_path

__all__ = ["Search", "find_class_folders"]

# What Pillow names but cannot read everywhere, or what holds other things than photographs.
_OTHER_FORMATS = {
    "BUFR",
    "CUR",
    "EPS",
    "FITS",
    "GRIB",
    "HDF5",
    "ICNS",
    "ICO",
    "IPTC",
    "MPEG",
    "WMF",
}
_SYSTEM_FOLDERS = {"__macosx", "lost+found", "$recycle.bin", "system volume information"}
_SYSTEM_FILES = {"thumbs.db", "desktop.ini"}
# Notes, archives and weights lie beside many data sets; to leave them out is no news.
_NOTES = """
    .cfg .csv .doc .docx .htm .html .ini .ipynb .json .jsonl .log .md .md5 .py .rst .sha256 .sh
    .toml .tsv .txt .url .xls .xlsx .xml .yaml .yml
    .7z .bz2 .gz .rar .tar .tgz .xz .zip .ckpt .onnx .pt .pth .safetensors
""".split()  # noqa: SIM905
_NOTES_WITHOUT_ENDING = {"readme", "license", "makefile"}

# Folders, and what this process warned of there: they are often opened again.
_reported: set[tuple[str, str]] = set()


def find_class_folders(root: Path) -> dict[str, Path]:
    """Find the folders in a folder by name, without hidden ones, systems' own, and circles."""
    here = os.path.realpath(root)
    return {
        escape_name(entry.name): entry
        for entry in sorted(root.iterdir())
        if entry.is_dir() and _is_visible(entry.name) and not _encloses(entry, here)
    }


def list_endings() -> frozenset[str]:
    """List the endings of picture files that Pillow can read, also by plugins of others."""
    from PIL import Image

    Image.init()
    known = Image.registered_extensions().items()
    return frozenset(
        ending for ending, name in known if name in Image.OPEN and name not in _OTHER_FORMATS
    )


@dataclass
class Search:
    """A search for pictures in a folder.

    Attributes:
        root: The folder.
        endings: Of the files that count as pictures, in lower case.
        left_out: How many files of each other ending were met, notes and hidden ones not counted.
        example: The first of them.
        cycles: Links to folders that hold them, which are not followed.
    """

    root: Path
    endings: frozenset[str] = field(default_factory=list_endings)
    left_out: Counter[str] = field(default_factory=Counter)
    example: Path | None = None
    cycles: list[Path] = field(default_factory=list)

    def find_in(self, folder: Path) -> list[Path]:
        """Find the pictures in a folder itself, sorted by name."""
        here = os.path.realpath(folder)
        entries = sorted(folder.iterdir())
        self.cycles += [path for path in entries if path.is_dir() and _encloses(path, here)]
        return self._choose(folder, [path.name for path in entries if not path.is_dir()])

    def find_below(self, folder: Path) -> list[Path]:
        """Find the pictures in and below a folder in torchvision's order; links are followed."""
        walked = sorted(self._walk(str(folder), (os.path.realpath(self.root),)))
        return [path for inside, names in walked for path in self._choose(Path(inside), names)]

    def warn_of_left_out(self) -> None:
        """Warn, once, of files that may be pictures and were left out, and of links in a circle."""
        if text := self.describe_left_out():
            key = os.path.realpath(self.root), text
            if key not in _reported:
                _reported.add(key)
                warn(f"{quote_path(self.root)}: {text}")

    def describe_left_out(self) -> str:
        """Describe what was left out and why, in a sentence; empty if nothing was."""
        parts = []
        if self.left_out:
            kinds = ", ".join(f"{count} {ending}" for ending, count in self.left_out.most_common(5))
            more = ", …" if len(self.left_out) > 5 else ""
            parts.append(
                f"left out {pluralize(self.left_out.total(), 'file')} that Pillow does not read as "
                f"pictures ({kinds}{more}; such as {quote_path(self.example or '')}): convert "
                "those that are pictures to PNG or JPEG"
            )
        if self.cycles:
            parts.append(
                f"did not follow {pluralize(len(self.cycles), 'link')} to a folder around it, such "
                f"as {quote_path(self.cycles[0])}"
            )
        return "; ".join(parts)

    def _choose(self, folder: Path, names: Sequence[str]) -> list[Path]:
        """Return the pictures among the files of a folder, sorted by name; count the others."""
        chosen = []
        for name in sorted(filter(_is_visible, names)):
            ending = Path(name).suffix.lower()
            if ending in self.endings:
                chosen.append(folder / name)
            elif ending not in _NOTES and name.lower() not in _NOTES_WITHOUT_ENDING:
                self.left_out[escape_name(ending) or "without an ending"] += 1
                self.example = self.example or folder / name
        return chosen

    def _walk(self, folder: str, above: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
        """Yield each folder and its files; `above` are the real paths that led here."""
        if any(_encloses(folder, outer) for outer in above):
            self.cycles.append(Path(folder))
            return
        names = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.is_dir():
                    names.append(entry.name)
                elif _is_visible(entry.name):
                    yield from self._walk(entry.path, (*above, os.path.realpath(folder)))
        yield folder, names


def _encloses(folder: str | Path, real: str) -> bool:
    """Return whether a folder is, or holds, a folder of this real path."""
    return Path(real).is_relative_to(os.path.realpath(folder))


def _is_visible(name: str) -> bool:
    is_system = name.lower() in _SYSTEM_FOLDERS | _SYSTEM_FILES
    return not (name.startswith(".") or is_system)
