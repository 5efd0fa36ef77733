"""What is registered as Markdown: the tables in the README, and two pages of the site.

`python docs/catalogue.py README.md` writes the tables between their markers.
"""

from __future__ import annotations

import sys
from pathlib import Path

import xcam
from xcam.core import Method, MethodSpec, Metric, MetricSpec

FAMILIES = {
    "cam": "Class activation maps",
    "perturbation": "Perturbation of image or features",
    "gradient": "Gradients at the pixels",
    "control": "Controls: what a method must beat",
    "trainable": "Trainable heads",
}
QUESTIONS = {
    "faithfulness": "Faithfulness: do the maps say what the model does?",
    "localization": "Localisation: do they fall on the object?",
    "shape": "Shape: what do they look like?",
}
NEEDS = {"none": "", "labels": "labels", "boxes": "boxes or masks", "masks": "boxes or masks"}


def by_family() -> dict[str, list[type[Method]]]:
    """The method classes of each family that has any, in the order of their names."""
    classes = [xcam.get_method(name) for name in xcam.list_methods()]
    groups = {family: [cls for cls in classes if cls.spec.family == family] for family in FAMILIES}
    return {family: group for family, group in groups.items() if group}


def by_question() -> dict[str, list[type[Metric]]]:
    """The metric classes of each question that has any, in the order of their names."""
    classes = [xcam.get_metric(name) for name in xcam.list_metrics()]
    groups = {asked: [cls for cls in classes if cls.spec.question == asked] for asked in QUESTIONS}
    return {asked: group for asked, group in groups.items() if group}


def methods_table() -> str:
    """A row a method: name, title, passes an image, source."""
    rows = ["| name | method | passes an image | source |", "|---|---|---|---|"]
    for family, classes in by_family().items():
        rows.append(f"| **{FAMILIES[family]}** | | | |")
        for spec in (cls.spec for cls in classes):
            rows.append(f"| `{spec.name}` | {spec.title} | {spec.cost} | {linked(spec.paper)} |")
    return "\n".join(rows)


def metrics_table() -> str:
    """A row a metric: name, title, direction, range, truth, passes an image, source."""
    rows = [
        "| name | metric | better | range | needs | passes an image | source |",
        "|---|---|---|---|---|---|---|",
    ]
    for question, classes in by_question().items():
        rows.append(f"| **{QUESTIONS[question]}** | | | | | | |")
        for spec in (cls.spec for cls in classes):
            cells = (
                f"`{spec.name}`",
                spec.title,
                spec.direction,
                spec.interval,
                NEEDS[spec.truth],
                spec.cost,
                linked(spec.paper),
            )
            escaped = " | ".join(cell.replace("|", r"\|") for cell in cells)
            rows.append(f"| {escaped} |")
    return "\n".join(rows)


def methods_page() -> str:
    """A section a method, with its docstring."""
    parts = [
        "# Methods",
        "This page is made from the registry: every method that `xcam.explain` takes by name, with "
        "its parameters and their defaults. "
        "A pass is one image through the model, forward or forward and back.",
    ]
    for family, classes in by_family().items():
        parts.append(f"## {FAMILIES[family]}")
        parts += [section(cls, [cls.spec.cost, *traits(cls.spec)]) for cls in classes]
    return "\n\n".join(parts) + "\n"


def metrics_page() -> str:
    """A section a metric, with its docstring."""
    parts = [
        "# Metrics",
        "This page is made from the registry: every metric by its name, with its formula, its "
        "settings and their defaults. A pass is one image through the model; an explanation takes "
        "those of the method that made the maps. How to score with them is told in "
        "[Scoring](../metrics.md).",
    ]
    for question, classes in by_question().items():
        parts.append(f"## {QUESTIONS[question]}")
        parts += [section(cls, claims(cls.spec)) for cls in classes]
    return "\n\n".join(parts) + "\n"


def section(cls: type[Method] | type[Metric], facts: list[str]) -> str:
    """One method or metric: its name, source and what there is to know, then its docstring."""
    line = [f"`{cls.spec.name}`", linked(cls.spec.paper), *facts]
    return "\n".join(
        [
            f"### {cls.spec.title}",
            "",
            " · ".join(fact for fact in line if fact),
            "",
            "```{eval-rst}",
            f".. autoclass:: {cls.__module__}.{cls.__qualname__}",
            "   :no-index-entry:",
            "```",
        ]
    )


def claims(spec: MetricSpec) -> list[str]:
    """Formula, direction, range, truth and passes of a metric, and what it does not tell."""
    return [
        spec.formula,
        "neither is better" if spec.direction == "neither" else f"{spec.direction} is better",
        spec.interval,
        f"needs {NEEDS[spec.truth]}" if NEEDS[spec.truth] else "",
        f"passes an image: {spec.cost}",
        *(f"does not put {pair}: {reason}" for pair, reason in spec.known_failures.items()),
    ]


def traits(spec: MethodSpec) -> list[str]:
    """What differs from what one would expect of a method."""
    told = {
        "the same map for every class": not spec.class_specific,
        "random, by its seed": spec.stochastic,
        "never negative": not spec.signed,
        "works on a changed copy of the model": spec.alters_model,
        "in [0, 1]": spec.normalized,
    }
    return [trait for trait, is_so in told.items() if is_so]


def linked(paper: str) -> str:
    """The source, with a link where it names an arXiv number."""
    before, sign, number = paper.partition("arXiv:")
    return f"{before}[arXiv:{number}](https://arxiv.org/abs/{number})" if sign else paper


def updated(readme: str) -> str:
    """The README with the tables of today."""
    for kind, table in (("methods", methods_table()), ("metrics", metrics_table())):
        start, end = f"<!-- {kind}: made by `make readme` -->", f"<!-- end of {kind} -->"
        before, rest = readme.split(start)
        _, after = rest.split(end)
        readme = f"{before}{start}\n{table}\n{end}{after}"
    return readme


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(updated(path.read_text(encoding="utf-8")), encoding="utf-8")
