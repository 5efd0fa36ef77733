"""The registered methods as Markdown: the table in the README, and a page of the site.

`python docs/catalogue.py README.md` writes the table between its markers.
"""

from __future__ import annotations

import sys
from pathlib import Path

import xcam
from xcam.core import Method, MethodSpec

FAMILIES = {
    "cam": "Class activation maps",
    "perturbation": "Perturbation of image or features",
    "gradient": "Gradients at the pixels",
    "control": "Controls: what a method must beat",
    "trainable": "Trainable heads",
}
START, END = "<!-- methods: made by `make readme` -->", "<!-- end of methods -->"


def by_family() -> dict[str, list[type[Method]]]:
    """The method classes of each family that has any, in the order of their names."""
    classes = [xcam.get_method(name) for name in xcam.list_methods()]
    groups = {family: [cls for cls in classes if cls.spec.family == family] for family in FAMILIES}
    return {family: group for family, group in groups.items() if group}


def table() -> str:
    """A row a method: name, title, passes an image, source."""
    rows = ["| name | method | passes an image | source |", "|---|---|---|---|"]
    for family, classes in by_family().items():
        rows.append(f"| **{FAMILIES[family]}** | | | |")
        for spec in (cls.spec for cls in classes):
            rows.append(f"| `{spec.name}` | {spec.title} | {spec.cost} | {linked(spec.paper)} |")
    return "\n".join(rows)


def page() -> str:
    """A section a method, with its docstring."""
    parts = [
        "# Methods",
        "This page is made from the registry: every method that `xcam.explain` takes by name, with "
        "its parameters and their defaults. "
        "A pass is one image through the model, forward or forward and back.",
    ]
    for family, classes in by_family().items():
        parts.append(f"## {FAMILIES[family]}")
        parts += [section(cls) for cls in classes]
    return "\n\n".join(parts) + "\n"


def section(cls: type[Method]) -> str:
    """One method: what it is called, costs and promises, then its docstring."""
    spec = cls.spec
    facts = [f"`{spec.name}`", linked(spec.paper), spec.cost, *traits(spec)]
    return "\n".join(
        [
            f"### {spec.title}",
            "",
            " · ".join(fact for fact in facts if fact),
            "",
            "```{eval-rst}",
            f".. autoclass:: {cls.__module__}.{cls.__qualname__}",
            "   :no-index-entry:",
            "```",
        ]
    )


def traits(spec: MethodSpec) -> list[str]:
    """What differs from what one would expect of a method."""
    told = {
        "the same map for every class": not spec.class_specific,
        "random, by its seed": spec.stochastic,
        "never negative": not spec.signed,
        "works on a changed copy of the model": spec.alters_model,
        "in [0, 1]": spec.normalised,
    }
    return [trait for trait, is_so in told.items() if is_so]


def linked(paper: str) -> str:
    """The source, with a link where it names an arXiv number."""
    before, sign, number = paper.partition("arXiv:")
    return f"{before}[arXiv:{number}](https://arxiv.org/abs/{number})" if sign else paper


def updated(readme: str) -> str:
    """The README with the table of today."""
    before, rest = readme.split(START)
    _, after = rest.split(END)
    return f"{before}{START}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(updated(path.read_text(encoding="utf-8")), encoding="utf-8")
