"""The names of classes: read from a file, and looked up whatever their spelling."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from xcam.errors import FileFormatError, unknown
from xcam.sentences import quote_path

__all__ = ["Categories", "find_classes", "fold_name", "read_categories"]

Categories: TypeAlias = "Sequence[str] | str | Path"
"""The names of classes, in the order of the logits; or a file of them, see `read_categories`."""


def fold_name(name: str) -> str:
    """Return a name without case, blanks, `_`, `-`, and zeros before a number.

    `Great_White-shark` and `great white shark` are one name, and so are `007` and `7`.
    """
    folded = re.sub(r"[\s_-]+", "", unicodedata.normalize("NFC", name).casefold())
    return str(int(folded)) if folded.isdecimal() else folded


def find_classes(
    names: str | Sequence[Any], categories: Sequence[str], argument: str = "target"
) -> int | list[Any]:
    """Return the number of a class by its name, or of several; what is no name is left as it is.

    Names are the same as they stand; without case, blanks, `_` and `-`; or as one of several that
    commas separate, as `tabby` and `tabby cat` of ImageNet's `tabby, tabby cat`.

    Args:
        names: Of the class, or of several.
        categories: The names of the model's classes, in the order of its logits.
        argument: Where the names come from, for messages.

    Raises:
        UnknownNameError: No class has this name; the nearest ones are listed.
        ValueError: Several have it, or the model names none.
    """
    if isinstance(names, str):
        return _find_class(names, categories, argument)
    return [
        _find_class(name, categories, argument) if isinstance(name, str) else name for name in names
    ]


def _find_class(name: str, categories: Sequence[str], argument: str) -> int:
    if not categories:
        raise ValueError(
            f"{argument} {name!r} is the name of a class, and the model names none: give its "
            "number, or the names, as in xcam.models.Normalized(model, mean, std, categories=[…])"
        )
    wanted = fold_name(name)
    matches: tuple[Callable[[str], bool], ...] = (
        lambda category: category == name,
        lambda category: fold_name(category) == wanted,
        lambda category: wanted in map(fold_name, category.split(",")),
    )
    for is_match in matches:
        found = [number for number, category in enumerate(categories) if is_match(category)]
        if len(found) > 1:
            raise ValueError(
                f"{argument} {name!r} is the name of the classes {', '.join(map(str, found))}; "
                "give the number of one"
            )
        if found:
            return found[0]
    raise unknown("class of the model", name, categories)


def read_categories(categories: Categories) -> tuple[str, ...]:
    """Return the names of classes, given or read from a file.

    Args:
        categories: Names in the order of the logits, or a file: of text with a name a line, or
            JSON (`.json`): a list of names, a dict of names by number, of pairs of an id and a
            name by number (Keras's `imagenet_class_index.json`), or of numbers by name
            (`class_to_idx`).

    Raises:
        TypeError: They are no strings.
        FileNotFoundError: There is no such file.
        FileFormatError: The file does not name the classes 0, 1, …
    """
    if isinstance(categories, str | Path):
        return _read_file(Path(categories))
    if not isinstance(categories, Iterable) or isinstance(categories, Mapping):
        raise TypeError(f"categories must be names or a file of them, got {categories!r}")
    names = tuple(categories)
    wrong = next((name for name in names if not isinstance(name, str)), None)
    if wrong is not None:
        raise TypeError(f"categories must be names of classes, strings, got {wrong!r}")
    return names


def _read_file(path: Path) -> tuple[str, ...]:
    try:
        text = path.read_text("utf-8-sig")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise FileNotFoundError(
            f"no file of categories at {quote_path(path)}; give a list, or a file of names"
        ) from error
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{quote_path(path)} is no text in UTF-8: {error}") from error
    if path.suffix.lower() == ".json":
        names = _parse_json(text, path)
    else:
        names = [line.strip() for line in text.rstrip().splitlines()]
    if not names or not all(names):
        empty = f"line {names.index('') + 1} is empty" if names else "it is empty"
        raise FileFormatError(f"{quote_path(path)} must name a class a line, and {empty}")
    return tuple(names)


def _parse_json(text: str, path: Path) -> list[str]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise FileFormatError(f"{quote_path(path)} is no JSON: {error}") from error
    if isinstance(found, dict):
        found = _order_names(found)
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise FileFormatError(
            f"{quote_path(path)} must hold a list of names, or a dict between the names and the "
            "numbers of all classes, from 0"
        )
    return found


def _order_names(found: dict[str, Any]) -> list[Any] | None:
    """Return the names of a dict by number, or of one by name; None if numbers are missing."""
    if all(type(number) is int for number in found.values()):
        found = {str(number): name for name, number in found.items()}
    if {*found} != {*map(str, range(len(found)))}:
        return None
    names = [found[str(number)] for number in range(len(found))]
    return [name[-1] if isinstance(name, list) and name else name for name in names]
