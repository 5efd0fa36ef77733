"""Files written whole or not at all: bytes, and safetensors with a JSON header."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from xcam.errors import FileFormatError

__all__ = [
    "clean",
    "compute_checksum",
    "create_folder",
    "decode",
    "describe_damaged_header",
    "describe_failed_write",
    "encode",
    "read_kind",
    "read_tensors",
    "write",
    "write_tensors",
    "writing",
]

# The keys of headers: what such a file holds, and what reads it.
_KINDS = {
    "xcam.explanation": ("explanation", "xcam.load"),
    "xcam.maps": ("file of maps", "xcam.evaluate, as `maps`,"),
    "xcam.net": ("net", "xcam.load"),
}
_PICKLES = (b"PK\x03\x04", b"\x80\x02")  # how torch.save begins, since torch 1.6 and before it
_PARTIAL = re.compile(r"\..+\.\d+\.\w{8}\.part")  # the folder of `writing`
# The same words for every file system; errno lacks the second on Windows.
_FULL = {
    errno.ENOSPC: "the disk is full; make room, or write to another one",
    getattr(
        errno, "EDQUOT", -1
    ): "your quota of the disk is used up; make room, or write elsewhere",
}
_REMEDY = "make it again"
_BARE = "a file of bare weights is for xcam.models.load(name, weights=…)"


def write(path: str | Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        OSError: The folder is missing or cannot be written to; a sentence that names the file.
    """
    with writing(path) as partial:
        partial.write_bytes(content)


@contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """Give an empty file to write into; it becomes `path` if the block succeeds.

    The content is on the disk before its name is, so that a machine that stops leaves no empty
    file. It lies in a folder of its own beside `path`, because safetensors writes other files
    first, which only their owner may read.

    Raises:
        OSError: The folder is missing, full, or cannot be written to, which is found before the
            block where possible; a sentence that names the file.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        start = f".{path.name[:100]}.{os.getpid()}."  # file systems limit a name to 255 bytes
        folder = Path(tempfile.mkdtemp(prefix=start, suffix=".part", dir=path.parent))
        partial = folder / "content"
        try:
            partial.touch()
            mode = partial.stat().st_mode
            yield partial
            if partial.stat().st_mode != mode:
                partial.chmod(mode)
            with partial.open("r+b") as file:
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise describe_failed_write(path, error) from error


def create_folder(path: Path) -> None:
    """Create a folder, and those above it, if there is none.

    Raises:
        OSError: It cannot be created; a sentence that names it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _describe(f"cannot make the folder {str(path)!r}", error) from error


def describe_failed_write(path: Path, error: OSError) -> OSError:
    """Return the same error with a sentence that names the file."""
    return _describe(f"cannot write {str(path)!r}", error)


def _describe(failure: str, error: OSError) -> OSError:
    reason = _FULL.get(error.errno or 0) or (error.strerror or str(error)).lower()
    found = type(error)(f"{failure}: {reason}")
    found.errno = error.errno
    return found


def clean(folder: Path) -> None:
    """Remove what killed writers left in a folder; nobody may write there meanwhile."""
    for path in folder.glob(".*.part"):
        if _PARTIAL.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)


def write_tensors(
    partial: Path, tensors: Mapping[str, Tensor], key: str, header: Mapping[str, Any]
) -> None:
    """Write a safetensors file whose metadata holds a header as JSON, without copying tensors.

    Args:
        partial: What `writing` gave.
        tensors: On the CPU, contiguous, no two in the same memory.
        key: Of the header in the metadata, such as `"xcam.net"`.
        header: What JSON can hold, with an int `"format"`; a `"checksum"` of all else is added.

    Raises:
        OSError: The file cannot be written.
        TypeError: A tensor of a type that the format does not have.
    """
    try:
        signed = {**header, "checksum": compute_checksum(header, tensors)}
        save_file(dict(tensors), partial, {key: json.dumps(signed)})
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        code = int(number[1]) if number else None
        raise OSError(code, os.strerror(code)) if code else OSError(str(error)) from error
    except KeyError as error:
        raise TypeError(f"no safetensors file can hold {error}; convert such tensors") from error


def read_tensors(
    path: str | Path, key: str, newest: int | None = None, remedy: str = _REMEDY
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what `write_tensors` wrote: the header, and tensors that map the file.

    Args:
        path: The file.
        key: Of the header in the metadata.
        newest: The `"format"` in the header that the caller understands; None takes any.
        remedy: What to do with a damaged file; for the messages.

    Raises:
        FileNotFoundError: There is no such file.
        FileFormatError: It is damaged, truncated, of another kind, or of a newer format.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file at {str(path)!r}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        with path.open("rb") as content:
            pickled = content.read(4).startswith(_PICKLES)
        reason = f"{error}; if xcam wrote it, {remedy}"
        if pickled:
            reason = f"torch.save wrote it; {_BARE}"
        raise FileFormatError(
            f"{str(path)!r} is damaged, truncated, or no safetensors file: {reason}"
        ) from error
    header = _read_header(path, metadata, key, remedy)
    signed = {name: value for name, value in header.items() if name != "checksum"}
    is_whole = header.get("checksum") == compute_checksum(signed, tensors)
    if is_whole or signed.keys() == header.keys():  # else the format may be what is damaged
        _check_format(path, int(header["format"]), newest, remedy)
    if not is_whole:
        raise FileFormatError(
            f"{str(path)!r} is damaged: the checksum is that of other contents; {remedy}"
        )
    return header, tensors


def compute_checksum(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> int:
    """Return the CRC-32 of a header and of the names, types, shapes and bits of tensors."""
    total = zlib.crc32(json.dumps(header, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        total = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), total)
        total = zlib.crc32(tensor.flatten().view(torch.uint8).numpy().data, total)
    return total


def read_kind(path: str | Path) -> str | None:
    """Return the key of the header in a safetensors file by xcam; None of any other file."""
    try:
        with safe_open(path, framework="pt") as file:
            return next((name for name in file.metadata() or {} if name in _KINDS), None)
    except (OSError, SafetensorError):
        return None


def _read_header(path: Path, metadata: Mapping[str, str], key: str, remedy: str) -> dict[str, Any]:
    if key not in metadata:
        other = next((_KINDS[name] for name in metadata if name in _KINDS), None)
        if other is None and any('"checksum"' in value for value in metadata.values()):
            raise describe_damaged_header(path, KeyError(key), remedy)  # its name is damaged
        raise FileFormatError(
            f"{str(path)!r} is a safetensors file, but no {_KINDS[key][0]} by xcam; "
            + (f"it is the {other[0]} that {other[1]} reads" if other else _BARE)
        )
    try:
        header: dict[str, Any] = json.loads(metadata[key])
        int(header["format"])
    except (KeyError, TypeError, ValueError) as error:
        raise describe_damaged_header(path, error, remedy) from error
    return header


def _check_format(path: Path, written: int, newest: int | None, remedy: str) -> None:
    if newest is not None and written > newest:
        raise FileFormatError(
            f"{str(path)!r} has format {written}, this xcam reads up to {newest}; upgrade xcam"
        )
    if newest is not None and written < newest:
        raise FileFormatError(
            f"{str(path)!r} has format {written}, of a version of xcam before the first release, "
            f"and this xcam reads format {newest}; {remedy}"
        )


def describe_damaged_header(path: Path, error: Exception, remedy: str = _REMEDY) -> FileFormatError:
    """Return the error of a file whose header is not what xcam writes."""
    reason = f"lacks {error}" if isinstance(error, KeyError) else f"cannot be read ({error})"
    return FileFormatError(f"{str(path)!r} is damaged: its header {reason}; {remedy}")


def encode(value: object, name: str, tensors: dict[str, Tensor]) -> object:
    """Return a setting as JSON for `decode`; tensors go into `tensors` and leave their names.

    Raises:
        TypeError: It is, or holds, neither None, bool, number, string, tensor, list, tuple nor
            dict with strings for keys.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [encode(item, f"{name}.{i}", tensors) for i, item in enumerate(value)]}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {"dict": {k: encode(item, f"{name}.{k}", tensors) for k, item in value.items()}}
    raise TypeError(
        f"{name} is a {type(value).__name__}, which no file can hold; give a name, number or "
        "tensor there"
    )


def decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:  # noqa: ANN401
    """Return what `encode` was given.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: It did not come from `encode`.
    """
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: decode(item, tensors) for key, item in content.items()}
    return {"list": list, "tuple": tuple}[kind](decode(item, tensors) for item in content)
