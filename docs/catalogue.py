"""Markdown of the registered methods and metrics: tables of the README, lists of the site.

`python docs/catalogue.py README.md` writes the tables between their markers, and what the command
line lists without torch.
"""

from __future__ import annotations

import sys
from pathlib import Path

import xcam
from xcam.cli.catalog import write_catalog
from xcam.core import Method, Metric
from xcam.methods.bridges import counterparts

FAMILIES = {
    "cam": "Class activation maps",
    "perturbation": "Perturbation of image or features",
    "gradient": "Gradients at the pixels",
    "attention": "Attention that the net computes itself",
    "control": "Controls: what a method must beat",
    "trainable": "Trainable heads",
}
QUESTIONS = {
    "faithfulness": "Faithfulness: do the maps say what the model does?",
    "localization": "Localization: do they fall on the object?",
    "shape": "Shape: what do they look like?",
    "sanity": "Sanity: do they depend on what the model has learned?",
    "robustness": "Robustness: do they stay the same where the image hardly changes?",
    "axioms": "Axioms: do they keep the rules that attributions should obey?",
}
NEEDS = {"none": "", "labels": "labels", "boxes": "boxes or masks", "masks": "boxes or masks"}


def group_by_family() -> dict[str, list[type[Method]]]:
    """Return the method classes by family; families of plugins come last."""
    classes = [xcam.get_method(name) for name in xcam.list_methods()]
    families = dict.fromkeys([*FAMILIES, *sorted(cls.spec.family for cls in classes)])
    groups = {family: [cls for cls in classes if cls.spec.family == family] for family in families}
    return {family: group for family, group in groups.items() if group}


def group_by_question() -> dict[str, list[type[Metric]]]:
    """Return the metric classes by question; those of plugins come last."""
    classes = [xcam.get_metric(name) for name in xcam.list_metrics()]
    questions = dict.fromkeys([*QUESTIONS, *sorted(cls.spec.question for cls in classes)])
    groups = {asked: [cls for cls in classes if cls.spec.question == asked] for asked in questions}
    return {asked: group for asked, group in groups.items() if group}


def make_methods_table() -> str:
    """Return the table of methods: name, title, passes per image, source."""
    rows = ["| name | method | passes an image | source |", "|---|---|---|---|"]
    for family, classes in group_by_family().items():
        rows.append(f"| **{FAMILIES.get(family, family)}** | | | |")
        for spec in (cls.spec for cls in classes):
            rows.append(
                f"| `{spec.name}` | {spec.title} | {spec.cost} | {link_paper(spec.paper)} |"
            )
    return "\n".join(rows)


def make_metrics_table() -> str:
    """Return the table of metrics: name, title, direction, range, truth, passes, source."""
    rows = [
        "| name | metric | better | range | needs | passes an image | source |",
        "|---|---|---|---|---|---|---|",
    ]
    for question, classes in group_by_question().items():
        rows.append(f"| **{QUESTIONS.get(question, question)}** | | | | | | |")
        for spec in (cls.spec for cls in classes):
            cells = (
                f"`{spec.name}`",
                spec.title,
                spec.direction,
                spec.interval,
                NEEDS[spec.truth],
                spec.cost,
                link_paper(spec.paper),
            )
            escaped = " | ".join(cell.replace("|", r"\|") for cell in cells)
            rows.append(f"| {escaped} |")
    return "\n".join(rows)


def make_methods_page() -> str:
    """Return the page that lists the methods; each has a page of its own."""
    parts = [
        "# Methods",
        "Every method that `xcam.explain` takes by name, from the registry. A pass is one image "
        "through the model, forward or forward and back; *tail* is the part of the model behind "
        "the layer that is read.",
    ]
    for family, classes in group_by_family().items():
        rows = ["| method | name | passes an image |", "|---|---|---|"]
        for spec in (cls.spec for cls in classes):
            rows.append(f"| [{spec.title}](methods/{spec.name}.md) | `{spec.name}` | {spec.cost} |")
        parts += [f"## {FAMILIES.get(family, family)}", "\n".join(rows)]
    names = [cls.spec.name for classes in group_by_family().values() for cls in classes]
    return "\n\n".join([*parts, make_toctree("methods", names)]) + "\n"


def make_metrics_page() -> str:
    """Return the page that lists the metrics; each has a page of its own."""
    parts = [
        "# Metrics",
        "Every metric by its name, from the registry. A pass is one image through the model; an "
        "explanation takes those of the method that made the maps. How to score with them is told "
        "in [Scoring](../howto/metrics.md).",
    ]
    for question, classes in group_by_question().items():
        rows = [
            "| metric | name | better | range | needs | passes an image |",
            "|---|---|---|---|---|---|",
        ]
        for spec in (cls.spec for cls in classes):
            rows.append(
                f"| [{spec.title}](metrics/{spec.name}.md) | `{spec.name}` | {spec.direction} "
                f"| {spec.interval} | {NEEDS[spec.truth]} | {spec.cost} |"
            )
        parts += [f"## {QUESTIONS.get(question, question)}", "\n".join(rows)]
    names = [cls.spec.name for classes in group_by_question().values() for cls in classes]
    return "\n\n".join([*parts, make_toctree("metrics", names)]) + "\n"


def make_toctree(folder: str, names: list[str]) -> str:
    """Return the list of pages below one, for the navigation alone."""
    pages = "\n".join(f"{folder}/{name}" for name in names)
    return f"```{{toctree}}\n:hidden:\n\n{pages}\n```"


def make_counterparts_page() -> str:
    """Return the page of where each class of captum, grad-cam and torch-cam is."""
    libraries = {
        "captum": counterparts.CAPTUM,
        "grad-cam": counterparts.GRAD_CAM,
        "torch-cam": counterparts.TORCH_CAM,
    }
    parts = [
        "# Coming from captum, grad-cam or torch-cam",
        "Every method of the three is here by name, under the same contract: the model is left as "
        "it was, and a map does not depend on the other images. Captum's `Layer…` classes are the "
        "setting `at` of the method, or a CAM.",
    ]
    for library, classes in libraries.items():
        rows = [f"## {library}\n", f"| {library} | xcam |", "|---|---|"]
        rows += [f"| `{name}` | `{method}` |" for name, method in sorted(classes.items())]
        parts.append("\n".join(rows))
    rows = ["## Left out\n", "| class | reason |", "|---|---|"]
    rows += [f"| `{name}` | {reason} |" for name, reason in counterparts.LEFT_OUT.items()]
    return "\n\n".join([*parts, "\n".join(rows)]) + "\n"


def link_paper(paper: str) -> str:
    """Return the source, with a link if it names an arXiv number."""
    before, sign, number = paper.partition("arXiv:")
    return f"{before}[arXiv:{number}](https://arxiv.org/abs/{number})" if sign else paper


def update_readme(readme: str) -> str:
    """Return the README with up-to-date tables."""
    for kind, table in (("methods", make_methods_table()), ("metrics", make_metrics_table())):
        start, end = f"<!-- {kind}: made by `make readme` -->", f"<!-- end of {kind} -->"
        before, rest = readme.split(start)
        _, after = rest.split(end)
        readme = f"{before}{start}\n{table}\n{end}{after}"
    return readme


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(update_readme(path.read_text(encoding="utf-8")), encoding="utf-8")
    write_catalog()
