"""Recipes as TOML files: list them, read one, change settings in it."""

from __future__ import annotations

import copy
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import xcam
from xcam.core.instantiate import check_names
from xcam.errors import FileFormatError, unknown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["check", "names", "parse_value", "read"]

_FOLDER = Path(__file__).parent
_WORD = re.compile(r"[A-Za-z./~_][\w./:~+ -]*")
_TEXTS = ("title", "source", "command", "notes")
_TABLES = ("model", "data", "fit")
_EXAMPLES = {"optimizer": "optimizer.name=SGD", "schedule": "schedule.name=StepLR"}

# What a training is given beside its recipe: data, and settings that leave the weights as they are.
_NOT_OF_DATA = {"root", "download"}
_NOT_OF_FIT = {
    "model", "data", "validation", "test", "criterion",
    "out", "device", "workers", "progress", "board_path",
}  # fmt: skip


def names() -> list[str]:
    """Return the names of xcam's own recipes, sorted."""
    return sorted(_read_own())


def read(recipe: str | Path, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Read a recipe as nested dictionaries.

    Its tables hold arguments by name: `["model"]` those of `xcam.models.load`, `["data"]` those of
    `xcam.data.load` (but `root` and `download`), `["fit"]` those of `xcam.fit` (but the data, and
    `out`, `device`, `workers`, `progress` and `board_path`, which belong to a run). `["title"]`,
    `["source"]`, `["command"]` (the original's) and `["notes"]` (what differs from it) are text.

    Args:
        recipe: A name of `names()`, or a `.toml` file.
        changes: Settings by dotted name: `{"epochs": 2, "optimizer.lr": 0.05,
            "model.num_classes": 5}`. A name that does not start with `model.`, `data.` or `fit.` is
            of `[fit]`. None takes a setting away, so that the function's own default holds.

    Raises:
        UnknownNameError: No such recipe; the nearest names are listed.
        TypeError: No such table or setting; the nearest names are listed.
        FileNotFoundError: There is no such file.
        FileFormatError: The file is no TOML, or lacks a table or the name in one.
        ValueError: A change of what lies inside a setting that is no table.
    """
    if isinstance(recipe, str) and not recipe.endswith(".toml"):
        if recipe not in names():
            raise unknown("recipe", recipe, names())
        found = copy.deepcopy(_read_own()[recipe])
    else:
        path = Path(recipe)
        if not path.is_file():
            raise FileNotFoundError(f"no recipe at {str(path)!r}")
        found = _check_file(_parse(path), path)
    for key, value in (changes or {}).items():
        _change(found, key, value)
    check(found, f"the recipe {str(recipe)!r}")
    return found


def check(recipe: Mapping[str, Any], called: str = "the recipe") -> None:
    """Refuse tables that lack what they must have, or have what their function does not take.

    Raises:
        FileFormatError: `name` is missing in `[model]` or `[data]`, or `epochs` in `[fit]`.
        TypeError: A setting that does not exist; the nearest names are listed.
    """
    for table, needed in (("model", "name"), ("data", "name"), ("fit", "epochs")):
        if needed not in recipe.get(table, {}):
            raise FileFormatError(f"{called} lacks {needed!r} in [{table}]")
    for name in recipe["fit"].keys() - _list_fit_settings(recipe["fit"]):
        tables = {key: own for key, own in recipe["fit"].items() if isinstance(own, Mapping)}
        if inside := [f"{key}.{name}" for key, own in tables.items() if name in own]:
            raise TypeError(
                f"[fit] of {called} has no setting {name!r}: did you mean {', '.join(inside)}?"
            )
    for name in ("optimizer", "schedule"):
        settings = recipe["fit"].get(name)
        if isinstance(settings, Mapping) and "name" not in settings:
            raise TypeError(
                f"{name} of {called} has {', '.join(settings)} and no name; set {name}.name first, "
                f"such as {_EXAMPLES[name]}"
            )
    known = {
        "data": _list_parameters(xcam.data.load) - _NOT_OF_DATA,
        "fit": _list_fit_settings(recipe["fit"]),
    }
    for table, names in known.items():
        check_names(f"[{table}] of {called}", recipe[table], sorted(names))


def parse_value(text: str) -> Any:  # noqa: ANN401 - whatever TOML holds
    """Parse a value of TOML, such as `0.1` or `[1, 2]`; a bare word is text, and `none` is None.

    Raises:
        ValueError: It is neither TOML nor a word.
    """
    try:
        found = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        if _WORD.fullmatch(text):
            return None if text == "none" else text
        found = {}
    if found.keys() != {"value"}:
        raise ValueError(f"{text!r} is neither a value of TOML nor a word; text goes in quotes")
    return found["value"]


@cache
def _read_own() -> dict[str, dict[str, Any]]:
    """Return xcam's own recipes by name: a file each, or a file for several variants of one.

    A variant is the file's recipe with texts, and settings of its tables, added or replaced.
    """
    found = {}
    for path in _FOLDER.glob("*.toml"):
        recipe = _parse(path)
        variants = recipe.pop("variants", None) or {path.stem: {}}
        for name, changes in variants.items():
            tables = {table: {**recipe[table], **changes.get(table, {})} for table in _TABLES}
            found[name] = _check_file({**recipe, **changes, **tables}, path)
    return found


def _parse(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FileFormatError(f"the recipe {str(path)!r} is no TOML: {error}") from error
    return found


def _check_file(found: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the recipe with the texts and tables that its file leaves out."""
    check_names(f"the recipe {str(path)!r}", found, [*_TEXTS, *_TABLES])
    _require(found, path, _TEXTS, str, "text")
    _require(found, path, _TABLES, dict, "a table")
    return found


def _require(
    recipe: dict[str, Any], path: Path, names: Iterable[str], kind: type, what: str
) -> None:
    for name in names:
        if not isinstance(recipe.setdefault(name, kind()), kind):
            raise FileFormatError(f"{name!r} in the recipe {str(path)!r} must be {what}")


def _change(recipe: dict[str, Any], key: str, value: object) -> None:
    """Set what a dotted name stands for, in the recipe itself."""
    table, dot, rest = key.partition(".")
    if not dot or table not in _TABLES:
        table, rest = "fit", key
    *parents, last = rest.split(".")
    inner = recipe[table]
    for parent in parents:
        inner = inner.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise ValueError(
                f"the change of {key!r} finds no table at {parent!r}, but {inner!r}; set "
                f"{parent}.name=… first, and then its arguments"
                if isinstance(inner, str)
                else f"the change of {key!r} finds no table at {parent!r}, but {inner!r}"
            )
    if value is None:
        inner.pop(last, None)
    else:
        inner[last] = value


def _list_parameters(function: Callable[..., Any]) -> set[str]:
    parameters = inspect.signature(function).parameters.values()
    return {each.name for each in parameters if each.kind is not each.VAR_KEYWORD}


def _list_fit_settings(table: Mapping[str, Any]) -> set[str]:
    """Return the settings of `xcam.fit`, and those of the method that is trained."""
    method = table.get("method")
    if not method:
        return _list_parameters(xcam.fit) - _NOT_OF_FIT
    return _list_parameters(xcam.fit) - _NOT_OF_FIT | _list_parameters(xcam.get_method(method))
