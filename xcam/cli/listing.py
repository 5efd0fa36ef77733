"""The commands `methods`, `metrics` and `plugins`, which list what is installed; and `check`."""

from __future__ import annotations

from typing import Annotated

import typer

from xcam.cli.application import app
from xcam.cli.printing import print_table

__all__ = ["check", "methods", "metrics", "plugins"]


@app.command()
def methods() -> None:
    """List the methods."""
    from xcam.registry import installed

    registry = installed()
    specs = [cls.spec for _, cls in sorted(registry.methods.items())]
    rows = [(s.name, s.title, s.family, s.cost, registry.owners[s.name]) for s in specs]
    print_table(("name", "title", "family", "cost", "from"), rows)


@app.command()
def metrics(
    long: Annotated[bool, typer.Option("--long", help="Also formula, source, settings.")] = False,
) -> None:
    """List the metrics."""
    from xcam.registry import installed

    registry = installed()
    classes = [cls for _, cls in sorted(registry.metrics.items())]
    header: tuple[str, ...] = ("name", "title", "better", "range", "truth", "cost", "from")
    rows: list[tuple[str, ...]] = [
        (s.name, s.title, s.direction, s.interval, s.truth, s.cost, registry.owners[s.name])
        for s in (cls.spec for cls in classes)
    ]
    if long:
        header += ("formula", "source", "settings")
        rows = [
            (*row, cls.spec.formula, cls.spec.paper, repr(cls()))
            for row, cls in zip(rows, classes, strict=True)
        ]
    print_table(header, rows)


@app.command()
def plugins() -> None:
    """List the plugins, and why any failed."""
    from xcam.registry import installed

    registry = installed()
    brought = dict.fromkeys(registry.plugins(), 0)
    for owner in registry.owners.values():
        brought[owner] += 1
    rows = [(owner, f"brings {count}") for owner, count in brought.items()]
    rows += [(owner, f"failed: {why}") for owner, why in registry.failures.items()]
    print_table(("plugin", "state"), rows)


@app.command()
def check(name: Annotated[str, typer.Argument(help="A method or a metric.")]) -> None:
    """Test a method or metric against the contract.

    The exit code is 1 if it breaks one.
    """
    from xcam.registry import find_name, list_metrics
    from xcam.testing import check_method, check_metric

    results = check_metric(name) if find_name(name) in list_metrics() else check_method(name)
    print_table(("check", "outcome", ""), [(r.check, r.outcome, r.message) for r in results])
    if any(result.outcome == "broken" for result in results):
        raise typer.Exit(1)
