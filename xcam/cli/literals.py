"""Values on the command line: Python literals, words, and names with settings."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["parse_calls", "parse_indices", "parse_literal", "parse_value"]

T = TypeVar("T")

_TRUTHS = {"true": True, "false": False}  # as in recipes
_QUOTED = re.compile(r"""("[^"]*"|'[^']*')""")
_COMPOUND = re.compile(r"(?<![\w.])[A-Za-z_]\w*(?:[.-]\w+)+")  # layer4.1, my-cam


def parse_literal(node: ast.expr) -> Any:  # noqa: ANN401 - whatever a literal is
    """Return the value of an expression; a word is text, except `true` and `false`.

    Raises:
        ValueError: It is neither a literal nor a word.
    """
    if isinstance(node, ast.Name):
        return _TRUTHS.get(node.id, node.id)
    return ast.literal_eval(node)


def parse_value(text: str) -> Any:  # noqa: ANN401 - whatever a literal is
    """Return the value of a text; a text that is no Python literal is returned as it is."""
    try:
        return parse_literal(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError):
        return text


def parse_calls(option: str, text: str, make: Callable[[str, dict[str, Any]], T]) -> list[T]:
    """Parse `a,b(setting=1)` and make objects; a setting is a Python literal, or else a word."""
    if "(" not in text:
        return [make(name.strip(), {}) for name in text.split(",") if name.strip()]
    try:
        entries = ast.parse(f"[{_quote_compounds(text)}]", mode="eval").body
        found = [_parse_call(node) for node in getattr(entries, "elts", [])]
    except (SyntaxError, ValueError) as error:
        raise ValueError(
            f'{option} takes names, with settings as in "a,b(setting=1)", got {text!r}'
        ) from error
    return [make(name, settings) for name, settings in found]


def parse_indices(text: str) -> list[int]:
    """Return the numbers in a text, or in the file that it names, apart by commas or blanks.

    Raises:
        ValueError: There are none, or something else is among them.
    """
    path = Path(text)
    words = (path.read_text("utf-8") if path.is_file() else text).replace(",", " ").split()
    wrong = next((word for word in words if not (word.isascii() and word.isdigit())), None)
    if not words or wrong is not None:
        found = f"{wrong!r} in {text!r}" if words else repr(text)
        raise ValueError(
            f"--indices takes numbers from 0, such as 3,5,8, or a file of them, got {found}"
        )
    return [int(word) for word in words]


def _quote_compounds(text: str) -> str:
    """Put words that Python would read as several, such as `layer4.1`, in quotes."""
    parts = _QUOTED.split(text)
    parts[::2] = [_COMPOUND.sub(lambda match: repr(match[0]), part) for part in parts[::2]]
    return "".join(parts)


def _parse_call(node: ast.expr) -> tuple[str, dict[str, Any]]:
    name = node.func if isinstance(node, ast.Call) else node
    words = node.keywords if isinstance(node, ast.Call) else []
    if isinstance(node, ast.Call) and node.args:
        raise ValueError(ast.unparse(node))
    if isinstance(name, ast.Constant) and isinstance(name.value, str):
        found = name.value
    elif isinstance(name, ast.Name):
        found = name.id
    else:
        raise ValueError(ast.unparse(node))
    return found, {str(word.arg): parse_literal(word.value) for word in words}
