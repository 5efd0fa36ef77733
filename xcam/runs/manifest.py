"""Descriptions of a work as JSON: written before it begins, compared whenever it goes on."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from xcam.errors import FileFormatError

__all__ = [
    "describe_model",
    "describe_settings",
    "digest",
    "encode_manifest",
    "extend",
    "iterate_bytes",
    "list_differences",
    "read_manifest",
]


class HasParameters(Protocol):
    """An object with settings by name, and a repr that holds them all."""

    def parameters(self) -> dict[str, Any]:
        """Return the settings by name."""


def describe_model(net: nn.Module) -> dict[str, str]:
    """Return the class of an unwrapped net, and a hash of its modules, parameters and buffers."""
    kinds = (f"{name} {_kind(module)}".encode() for name, module in net.named_modules())
    weights = iterate_bytes([*net.named_parameters(), *net.named_buffers()])
    return {"class": _kind(net), "sha256": digest([*kinds, *weights])}


def describe_settings(settings: HasParameters, name: str) -> dict[str, Any]:
    """Return the registered name of an object, its settings and its repr."""
    values = {key: _plain(value) for key, value in settings.parameters().items()}
    return {"name": name, "parameters": values, "repr": repr(settings)}


def encode_manifest(content: Mapping[str, Any]) -> bytes:
    """Return the bytes of a manifest's file: JSON, with a checksum of all else in it."""
    signed = {**content, "checksum": _compute_checksum(content)}
    return json.dumps(signed, indent=1, ensure_ascii=False).encode()


def read_manifest(path: Path, work: str) -> dict[str, Any]:
    """Read what `encode_manifest` gave.

    Args:
        path: The file.
        work: What the manifest describes, such as `"training"`; for the message.

    Raises:
        FileFormatError: It is damaged, or is no manifest.
        OSError: It is missing, or cannot be read.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        is_whole = content.pop("checksum") == _compute_checksum(content)
    except (AttributeError, KeyError, TypeError, ValueError):
        is_whole = False
    if not is_whole:
        raise FileFormatError(
            f"{str(path)!r} is damaged, or not by this version of xcam; put a copy of it back, or "
            f"use another folder for the {work}"
        )
    return content


def _compute_checksum(content: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def digest(parts: Iterable[bytes]) -> str:
    """Return the SHA-256 of some contents, each hashed by itself before they are joined."""
    total = hashlib.sha256()
    for part in parts:
        total.update(hashlib.sha256(part).digest())
    return total.hexdigest()


def iterate_bytes(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[bytes]:
    """Yield the bytes to hash of tensors by name."""
    for name, tensor in tensors:
        yield f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
        values = tensor.detach().cpu().contiguous()
        yield values.flatten().view(torch.uint8).numpy().tobytes()


def extend(
    one: Mapping[str, Any], other: Mapping[str, Any], growing: Collection[str]
) -> dict[str, Any]:
    """Return a manifest with what another has beside it, by label, in the entries that may grow.

    What an entry holds under `"on"`, such as a method's settings on each model, grows likewise.
    Where both have a label it is `one`'s, so that two works that extend each other in both ways to
    the same have nothing that differs.

    Args:
        one: A manifest.
        other: Another of the same kind.
        growing: The entries that grow.
    """
    extended = dict(one)
    for key in (key for key in growing if key in one or key in other):
        here, there = one.get(key, {}), other.get(key, {})
        extended[key] = {**there, **here}
        for label in here.keys() & there.keys():
            if all(
                isinstance(part[label], Mapping) and "on" in part[label] for part in (here, there)
            ):
                extended[key][label] = extend(here[label], there[label], ("on",))
    return extended


def list_differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield each entry that differs between two manifests, and what it is in either."""
    for key in dict.fromkeys([*there, *now]):
        old, new = there.get(key), now.get(key)
        if old == new:
            continue
        old, new = _pick_parameters(old, new)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            if old.keys() != new.keys():
                yield f"{key}: {', '.join(old) or 'none'} there, {', '.join(new) or 'none'} now"
            shared = [name for name in old if name in new and old[name] != new[name]]
            for name in shared:
                yield f"{key}, {name}: {_show(old[name])} there, {_show(new[name])} now"
        else:
            yield f"{key}: {_show(old)} there, {_show(new)} now"


def _pick_parameters(old: Any, new: Any) -> tuple[Any, Any]:  # noqa: ANN401 - whatever JSON holds
    """Return the parameters of two objects of one name, where they differ; else what was given."""
    if not (isinstance(old, Mapping) and isinstance(new, Mapping) and "repr" in old):
        return old, new
    settings = old.get("parameters"), new.get("parameters")
    tell = old.get("name") == new.get("name") and settings[0] != settings[1]
    return settings if tell else (old, new)


def _show(value: Any) -> str:  # noqa: ANN401 - whatever JSON holds
    if isinstance(value, Mapping) and "repr" in value:
        return str(value["repr"])
    if isinstance(value, Mapping) and "on" in value:  # settings by model
        return ", ".join(f"{_show(settings)} on {model}" for model, settings in value["on"].items())
    if isinstance(value, str) and len(value) == 64:  # a hash: enough of it to see that it differs
        return value[:8]
    return json.dumps(value, ensure_ascii=False)


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return type(value).__name__  # tensors and objects: the repr tells them apart


def _kind(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"
