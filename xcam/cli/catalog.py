"""What is installed, as text: read from a file, without torch, where only xcam's own is."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any, TypeAlias

__all__ = ["Catalog", "complete_names", "make_catalog", "read_catalog", "write_catalog"]

Catalog: TypeAlias = "dict[str, list[dict[str, Any]]]"
_FILE = Path(__file__).with_name("catalog.json")
_GROUP = "xcam"  # of entry points, as in xcam.hookspecs, which takes pluggy


def read_catalog() -> Catalog:
    """Read what is installed: the rows of `methods`, `metrics`, `models` and `recipes`.

    Where another package brings plugins, these are loaded, which takes torch and seconds.
    """
    owners = {
        entry_point.dist.name if entry_point.dist else ""
        for entry_point in importlib.metadata.entry_points(group=_GROUP)
    }
    if owners == {"xcam"} and _FILE.is_file():
        found: Catalog = json.loads(_FILE.read_text("utf-8"))
        return found
    return make_catalog()


def make_catalog() -> Catalog:
    """Make the rows from the registry."""
    import xcam
    from xcam.registry import installed

    registry = installed()
    methods = [(cls.spec, cls) for _, cls in sorted(registry.methods.items())]
    metrics = [(cls.spec, cls) for _, cls in sorted(registry.metrics.items())]
    recipes = [(name, xcam.recipes.read(name)) for name in xcam.recipes.names()]
    return {
        "methods": [
            {
                "name": spec.name,
                "title": spec.title,
                "family": spec.family,
                "cost": spec.cost,
                "from": registry.owners[spec.name],
                "paper": spec.paper,
                "aliases": list(spec.aliases),
            }
            for spec, _ in methods
        ],
        "metrics": [
            {
                "name": spec.name,
                "title": spec.title,
                "better": spec.direction,
                "range": spec.interval,
                "truth": spec.truth,
                "cost": spec.cost,
                "from": registry.owners[spec.name],
                "formula": spec.formula,
                "source": spec.paper,
                "settings": repr(cls()),
                "aliases": list(spec.aliases),
            }
            for spec, cls in metrics
        ],
        "models": [
            {"name": name, "from": registry.owners.get(name, "xcam:models")}
            for name in xcam.models.list_models()
        ],
        "recipes": [
            {"name": name, "title": recipe["title"], "source": recipe["source"]}
            for name, recipe in recipes
        ],
    }


def write_catalog() -> None:
    """Write the file anew; with no plugins but xcam's own installed."""
    text = json.dumps(make_catalog(), ensure_ascii=False, indent=1)
    _FILE.write_text(text + "\n", "utf-8")


def complete_names(kind: str, incomplete: str) -> list[str]:
    """Return what a shell may complete a list of names, apart by commas, to.

    Args:
        kind: A key of the catalog.
        incomplete: What was typed.
    """
    before, comma, last = incomplete.rpartition(",")
    names = [row["name"] for row in read_catalog()[kind]]
    return [f"{before}{comma}{name}" for name in names if name.startswith(last)]
