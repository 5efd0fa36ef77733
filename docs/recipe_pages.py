"""The recipes as Markdown: a page of the site, made from the TOML files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from catalogue import linked

from xcam import recipes

TEXTS = ("title", "source", "command", "notes")


def recipes_page() -> str:
    """A table of all recipes, then a section each."""
    parts = [
        "# The recipes that come along",
        "This page is made from the recipes' files. How they are run, changed and written is told "
        "in [Recipes](../recipes.md).",
        recipes_table(),
        *map(section, recipes.names()),
    ]
    return "\n\n".join(parts) + "\n"


def recipes_table() -> str:
    """A row a recipe: the original's command, ours, what `fit` is told, the source."""
    rows = ["| original command | xcam command | settings | source |", "|---|---|---|---|"]
    for name in recipes.names():
        recipe = recipes.read(name)
        cells = (
            f"`{recipe['command']}`" if recipe["command"] else "none",
            f"`{command(name)}`",
            f"`{', '.join(f'{key}={shown(value)}' for key, value in recipe['fit'].items())}`",
            linked(recipe["source"]),
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def section(name: str) -> str:
    """One recipe: the original's command and ours, what differs, its tables."""
    recipe = recipes.read(name)
    lines = [f"## {recipe['title']}", "", f"`{name}` · {linked(recipe['source'])}", ""]
    if recipe["command"]:
        lines += ["```shell", f"{recipe['command']}  # the original", "```", ""]
    ours, only = command(name), f"{command(name)} --evaluate"
    lines += ["```shell", f"{ours:{len(only)}}  # train, or go on with RUN"]
    lines += [f"{only}  # measure its net on the test images", "```", ""]
    lines += [recipe["notes"].strip(), ""]
    lines += ["```toml", tables(name), "```"]
    return "\n".join(lines)


def command(name: str) -> str:
    """How a recipe is run."""
    return f"xcam fit --recipe {name} --root DATA --out RUN"


def tables(name: str) -> str:
    """The file of a recipe from its first table on."""
    text = (Path(recipes.__file__).parent / f"{name}.toml").read_text(encoding="utf-8")
    return text[text.index("[model]") :].strip()


def shown(value: Any) -> str:
    """A setting as a call: `SGD(lr=0.1, momentum=0.9)`."""
    if isinstance(value, dict):
        rest = (f"{key}={shown(entry)}" for key, entry in value.items() if key != "name")
        return f"{value.get('name', '')}({', '.join(rest)})"
    return f"{value:g}" if isinstance(value, float) else str(value)
