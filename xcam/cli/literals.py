"""Values on the command line: Python's literals, and words."""

from __future__ import annotations

import ast
from typing import Any

__all__ = ["literal", "literal_or_text"]

_TRUTHS = {"true": True, "false": False}  # as in recipes


def literal(node: ast.expr) -> Any:  # noqa: ANN401 - whatever a literal is
    """What an expression says; a word is text, but for `true` and `false`.

    Raises:
        ValueError: It is neither a literal nor a word.
    """
    if isinstance(node, ast.Name):
        return _TRUTHS.get(node.id, node.id)
    return ast.literal_eval(node)


def literal_or_text(text: str) -> Any:  # noqa: ANN401 - whatever a literal is
    """What a text says; one that says nothing in Python is itself."""
    try:
        return literal(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError):
        return text
