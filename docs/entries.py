"""Write the page of each registered method and metric, from its class and its spec."""

from __future__ import annotations

import json
from pathlib import Path

import catalogue
from choices import needs_gradients
from formulas import WIDE, find_formulas, write_latex

import xcam
from xcam.cli.catalog import make_catalog
from xcam.cli.citing import find_entry
from xcam.core import Method, MethodSpec, Metric, MetricSpec

FIGURES = Path(__file__).parent / "figures"
NEEDS = {
    "none": "nothing beside the maps",
    "labels": "labels",
    "boxes": "boxes or masks of the objects",
    "masks": "masks or boxes of the objects",
}


def make_entries() -> dict[str, str]:
    """Return the pages, by their path without the suffix."""
    catalog = make_catalog()
    pages = {}
    for row in catalog["methods"]:
        pages[f"methods/{row['name']}"] = make_method_page(xcam.get_method(row["name"]), row)
    for row in catalog["metrics"]:
        pages[f"metrics/{row['name']}"] = make_metric_page(xcam.get_metric(row["name"]), row)
    return pages


def make_method_page(cls: type[Method], row: dict) -> str:
    """Return a method's page.

    Args:
        cls: The method.
        row: Its row of the catalog, from which BibTeX is made.
    """
    spec = cls.spec
    call = f'xcam.explain(model, images, method="{spec.name}")'
    if spec.family == "trainable":
        fit = f'net = xcam.fit(model, data, method="{spec.name}", epochs=8)'
        call = f"{fit}\nxcam.explain(net, images)"
    return make_page(
        spec.title,
        [
            show_picture(spec),
            f"```python\n{call}\n```",
            show_class(cls),
            show_facts(list_method_facts(cls)),
            cite(spec.paper, row),
        ],
    )


def make_metric_page(cls: type[Metric], row: dict) -> str:
    """Return a metric's page; see `make_method_page`."""
    spec = cls.spec
    truth = ", truth" if spec.truth != "none" else ""
    calls = (
        f'xcam.get_metric("{spec.name}")()(model, images, explanation{truth})\n'
        f'xcam.evaluate(model, data, methods=["gradcam"], metrics=["{spec.name}"])'
    )
    return make_page(
        spec.title,
        [
            write_formula(spec.formula),
            f"```python\n{calls}\n```",
            show_class(cls),
            show_facts(list_metric_facts(spec)),
            cite(spec.paper, row),
        ],
    )


def make_page(title: str, parts: list[str]) -> str:
    return "\n\n".join([f"# {title}", *filter(None, parts)]) + "\n"


def show_picture(spec: MethodSpec) -> str:
    """Return the figure of a method's example, where one is drawn."""
    if not (FIGURES / "methods" / f"{spec.name}.webp").exists():
        return ""
    drawn = json.loads((FIGURES / "methods" / "drawn.json").read_text("utf-8"))[spec.name]
    settings = {name: value for name, value in drawn.items() if name not in ("net", "class")}
    caption = f'{drawn["net"]}, "{drawn["class"]}"' + "".join(
        f", `{name}={value!r}`" for name, value in settings.items()
    )
    return (
        f":::{{figure}} ../../figures/methods/{spec.name}.webp\n"
        f":alt: A photograph under the map of {spec.title}\n:width: 224px\n:class: example\n\n"
        f"{caption}\n:::"
    )


def show_class(cls: type[Method] | type[Metric]) -> str:
    """Return the directive for the class: signature, docstring, parameters with types."""
    return f"```{{eval-rst}}\n.. autoclass:: {find_path(cls)}\n```"


def find_path(cls: type) -> str:
    """Return the public path of a class, or else that of its module."""
    for module in (xcam.methods, xcam.metrics):
        if cls.__name__ in module.__all__ and getattr(module, cls.__name__) is cls:
            return f"{module.__name__}.{cls.__name__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def show_facts(facts: dict[str, str]) -> str:
    """Return facts as a list of terms, which narrow screens can show."""
    rows = [f"{name}\n: {fact}" for name, fact in facts.items() if fact]
    return "\n\n".join(["## Facts", *rows])


def list_method_facts(cls: type[Method]) -> dict[str, str]:
    """Return what the spec and the fields of a method say, in words."""
    spec, fields = cls.spec, cls.__dataclass_fields__
    output = getattr(fields.get("output"), "default", None)
    return {
        "Name": list_names(spec),
        "Family": catalogue.FAMILIES.get(spec.family, spec.family),
        "Passes an image": spec.cost,
        "Takes gradients": "yes" if needs_gradients(cls) else "no",
        "Depends on the class": "yes"
        if spec.class_specific
        else "no: the same map for every class",
        "Reads": " ".join(
            [
                "a layer, `layer`." if "layer" in fields else "",
                f"The class's `{output}`, unless `output` says otherwise." if output else "",
            ]
        ).strip(),
        "Random": "by its `seed`" if spec.stochastic else "no",
        "Sign": "negative where the score is lowered" if spec.signed else "never negative",
        "Range": "[0, 1]" if spec.normalized else "",
        "Works on": "a changed copy of the model" if spec.alters_model else "",
        "Prediction": describe_prediction(spec),
        "Explains": f"nets with such modules alone, as `{spec.net['name']}`" if spec.net else "",
        **list_exceptions(spec),
    }


def describe_prediction(spec: MethodSpec) -> str:
    """Return whether the head of a trainable method changes what the classifier predicts."""
    if spec.family != "trainable":
        return ""
    return "changed by the head" if spec.alters_prediction else "that of the classifier"


def list_metric_facts(spec: MetricSpec) -> dict[str, str]:
    """Return what the spec of a metric says, in words."""
    directions = {"neither": "neither is better"}
    return {
        "Name": list_names(spec),
        "Question": catalogue.QUESTIONS.get(spec.question, spec.question),
        "Direction": directions.get(spec.direction, f"{spec.direction} is better"),
        "Range": spec.interval,
        "Needs": NEEDS[spec.truth],
        "Passes an image": spec.cost,
        "Maps": "" if spec.reads_maps else "not read: it speaks of the model, and ranks no methods",
        "Known failures": "; ".join(
            f"does not put {pair}: {reason}" for pair, reason in spec.known_failures.items()
        ),
        **list_exceptions(spec),
    }


def list_names(spec: MethodSpec | MetricSpec) -> str:
    """Return the name in the registry, and the aliases."""
    return ", ".join(f"`{name}`" for name in (spec.name, *spec.aliases))


def list_exceptions(spec: MethodSpec | MetricSpec) -> dict[str, str]:
    """Return the checks of the contract that a method or metric does not keep."""
    rows = [f"`{check}`: {reason}" for check, reason in spec.exceptions.items()]
    return {"Not kept of the contract": "; ".join(rows)}


def cite(paper: str, row: dict) -> str:
    """Return the section of the paper, with its BibTeX entry."""
    if not paper:
        return ""
    return f"## Paper\n\n{catalogue.link_paper(paper)}\n\n```bibtex\n{find_entry(row)}\n```"


def write_formula(formula: str) -> str:
    """Return a formula as math: a block, or within its sentence where it has words around it."""
    spans = find_formulas(formula)
    if spans == [(0, len(formula))]:
        return show_block(write_latex(formula)).strip()
    parts, at = [], 0
    for begin, end in spans:
        latex = write_latex(formula[begin:end])
        wide = end - begin > WIDE  # inline, it would not break on a narrow screen
        parts += [formula[at:begin], show_block(latex) if wide else f"{{math}}`{latex}`"]
        at = end
    return "".join([*parts, formula[at:].lstrip(" ,") if spans and wide else formula[at:]]).strip()


def show_block(latex: str) -> str:
    """Return a formula in lines of its own."""
    return f"\n\n```{{math}}\n{latex}\n```\n\n"
