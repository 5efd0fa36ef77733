"""Write the recipes as Markdown: a page of the site, made from the TOML files."""

from __future__ import annotations

import json
import re
from typing import Any

from catalogue import link_paper

from xcam import recipes

TEXTS = ("title", "source", "command", "notes")


def recipes_page() -> str:
    """Return a table of all recipes, then a section each."""
    parts = [
        "# The recipes that come along",
        "This page is made from the recipes' files. [Recipes](../howto/recipes.md) shows how to "
        "run, change and write one.",
        recipes_table(),
        *map(section, recipes.names()),
    ]
    return "\n\n".join(parts) + "\n"


def recipes_table() -> str:
    """Return a row for each recipe: the original's command, ours, the settings, the source."""
    rows = ["| original command | xcam command | settings | source |", "|---|---|---|---|"]
    for name in recipes.names():
        recipe = recipes.read(name)
        cells = (
            f"`{recipe['command']}`" if recipe["command"] else "none",
            f"`{command(name)}`",
            f"`{', '.join(f'{key}={shown(value)}' for key, value in recipe['fit'].items())}`",
            link_paper(recipe["source"]),
        )
        escaped = " | ".join(cell.replace("|", r"\|") for cell in cells)
        rows.append(f"| {escaped} |")
    return "\n".join(rows)


def section(name: str) -> str:
    """Return one recipe: the original's command and ours, what differs, its tables."""
    recipe = recipes.read(name)
    lines = [f"## {recipe['title']}", "", f"`{name}` · {link_paper(recipe['source'])}", ""]
    if recipe["command"]:
        lines += ["```shell", f"{recipe['command']}  # the original", "```", ""]
    ours, only = command(name), f"{command(name)} --evaluate"
    lines += ["```shell", f"{ours:{len(only)}}  # train, or go on with RUN"]
    lines += [f"{only}  # measure its net on the test images", "```", ""]
    lines += [recipe["notes"].strip(), ""]
    lines += ["```toml", tables(name), "```"]
    return "\n".join(lines)


def command(name: str) -> str:
    """Return the command that trains by a recipe."""
    return f"xcam fit --recipe {name} --root DATA --out RUN"


def tables(name: str) -> str:
    """Return the tables of a recipe as TOML."""
    recipe = recipes.read(name)
    parts = []
    for table in ("model", "data", "fit"):
        lines = [assignment(key, value) for key, value in recipe[table].items()]
        parts.append("\n".join([f"[{table}]", *lines]))
    return "\n\n".join(parts)


def assignment(key: str, value: Any) -> str:
    """Return a key and its value as TOML; a key that is no word, such as a pattern, is quoted."""
    name = key if re.fullmatch(r"[\w-]+", key, re.ASCII) else json.dumps(key)
    return f"{name} = {toml(value)}"


def toml(value: Any) -> str:
    """Return a setting as TOML, in one line, or a line an entry in a long list."""
    if isinstance(value, dict):
        return f"{{ {', '.join(assignment(*item) for item in value.items())} }}"
    if isinstance(value, list):
        line = f"[{', '.join(map(toml, value))}]"
        several = "".join(f"    {toml(entry)},\n" for entry in value)
        return line if len(line) < 90 else f"[\n{several}]"
    return json.dumps(value, ensure_ascii=False)


def shown(value: Any) -> str:
    """Return a setting as a call: `SGD(lr=0.1, momentum=0.9)`."""
    if isinstance(value, dict):
        rest = (f"{key}={shown(entry)}" for key, entry in value.items() if key != "name")
        return f"{value.get('name', '')}({', '.join(rest)})"
    return f"{value:g}" if isinstance(value, float) else str(value)
