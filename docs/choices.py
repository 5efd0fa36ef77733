"""Tables from the registry for the pages that help to choose, and of what the contract checks."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import catalogue

import xcam
from xcam.core import Method, Metric, TrainableMethod
from xcam.testing import Check, method_checks, metric_checks
from xcam.testing.checks.facets import FACETS

CONVENTIONS = ("output", "space", "fill", "ties", "normalize", "resize", "scaling")


def write_tables(folder: Path) -> None:
    """Write each table into a file of its own; one that is as it was is left alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in make_tables().items():
        path = folder / f"{name}.txt"
        if not path.exists() or path.read_text("utf-8") != table:
            path.write_text(table, "utf-8")


def make_tables() -> dict[str, str]:
    """Return the tables by the names of the files that pages include."""
    method, head = xcam.get_method("random")(), xcam.get_method("abn")()
    metric = xcam.get_metric("max_box_acc")()
    return {
        "choose_method": make_method_choices(),
        "choose_metric": make_metric_choices(),
        "conventions": make_conventions(),
        "presets": make_presets(),
        "method_contract": make_contract(method),
        "head_contract": make_contract(head, beyond=method),
        "metric_contract": make_contract(metric),
    }


def make_method_choices() -> str:
    """Return what each method costs, knows and needs."""
    header = ("method", "passes an image", "class", "gradients", "layer", "random", "trained")
    rows: list[tuple[str, ...]] = []
    for family, classes in catalogue.group_by_family().items():
        rows.append((f"**{catalogue.FAMILIES.get(family, family)}**", *[""] * 6))
        for cls in classes:
            rows.append(
                (
                    f"`{cls.spec.name}`",
                    cls.spec.cost,
                    mark(cls.spec.class_specific),
                    mark(needs_gradients(cls)),
                    mark(reads_layer(cls)),
                    mark(cls.spec.stochastic),
                    mark(issubclass(cls, TrainableMethod)),
                )
            )
    return format_table(header, rows)


def needs_gradients(cls: type[Method]) -> bool:
    """Return whether a map takes a backward pass, of the method or of the one that it wraps."""
    return any("backward" in each.spec.cost for each in follow_bases(cls))


def reads_layer(cls: type[Method]) -> bool:
    """Return whether the map depends on a layer that may be chosen."""
    fields = {each.name for one in follow_bases(cls) for each in dataclasses.fields(one)}
    return bool(fields & {"layer", "layers"})


def follow_bases(cls: type[Method]) -> Iterable[type[Method]]:
    """Yield a method, and the one that it wraps by default."""
    yield cls
    base = getattr(cls, "base", None)
    if isinstance(base, str):
        yield from follow_bases(xcam.get_method(base))


def make_metric_choices() -> str:
    """Return what each metric asks, needs and costs."""
    header = ("metric", "better", "range", "needs", "passes an image", "explains again")
    rows: list[tuple[str, ...]] = []
    for question, classes in catalogue.group_by_question().items():
        rows.append((f"**{catalogue.QUESTIONS.get(question, question)}**", *[""] * 5))
        for spec in (cls.spec for cls in classes):
            rows.append(
                (
                    f"`{spec.name}`",
                    spec.direction,
                    spec.interval,
                    catalogue.NEEDS[spec.truth],
                    spec.cost,
                    mark("explanation" in spec.cost),
                )
            )
    return format_table(header, rows)


def make_conventions() -> str:
    """Return the conventions of each metric that has any: the defaults of these settings."""
    rows = []
    for cls in (xcam.get_metric(name) for name in xcam.list_metrics()):
        defaults = {each.name: each.default for each in dataclasses.fields(cls)}
        cells = [f"`{defaults[name]}`" if name in defaults else "" for name in CONVENTIONS]
        if any(cells):
            rows.append((f"`{cls.spec.name}`", *cells))
    return format_table(("metric", *(f"`{name}`" for name in CONVENTIONS)), rows)


def make_presets() -> str:
    """Return every preset with the settings that it stands for."""
    rows = []
    for cls in [
        *(xcam.get_method(name) for name in xcam.list_methods()),
        *(xcam.get_metric(name) for name in xcam.list_metrics()),
    ]:
        for name, settings in cls.presets.items():
            values = ", ".join(f"`{key}={show(value)}`" for key, value in settings.items())
            rows.append((f'`{cls.spec.name}(preset="{name}")`', values))
    return format_table(("preset", "stands for"), rows)


def show(value: object) -> str:
    """Return a setting's value as it is written in a call."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f'"{value}"' if isinstance(value, str) else str(value)


def make_contract(subject: Method | Metric, beyond: Method | None = None) -> str:
    """Return every check of a method or metric with what it requires, but those of `beyond`."""
    known = {check.name for check in method_checks(beyond)} if beyond else set()
    checks = method_checks(subject) if isinstance(subject, Method) else metric_checks(subject)
    rows = [(f"`{one.name}`", describe_check(one)) for one in checks if one.name not in known]
    return format_table(("check", "what it requires"), rows)


def describe_check(check: Check) -> str:
    """Return what a check requires: the first line of its docstring."""
    facet = check.name.removeprefix("leaves_")
    if facet != check.name:
        looked_at = (FACETS[facet].__doc__ or f"Read {facet}.").splitlines()[0]
        return f"left as they were, in success and failure: {looked_at.removeprefix('Read ')}"
    test = check.test.func if isinstance(check.test, partial) else check.test
    first = inspect.getdoc(test).splitlines()[0]  # type: ignore[union-attr]
    return first.removeprefix("Require ").removeprefix("Check ").removeprefix("that ")


def mark(applies: bool) -> str:
    """Return the cell of a property."""
    return "yes" if applies else ""


def format_table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a table in Markdown."""
    lines = [header, tuple("---" for _ in header), *rows]
    escaped = ([cell.replace("|", r"\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)
