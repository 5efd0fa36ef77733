"""Values on the command line: Python literals, and words."""

from __future__ import annotations

import ast
from typing import Any

__all__ = ["parse_literal", "parse_value"]

_TRUTHS = {"true": True, "false": False}  # as in recipes


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
