"""The commands `methods`, `metrics` and `plugins`, which list what is installed; and `check`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from xcam.cli.application import app
from xcam.cli.printing import print_table

if TYPE_CHECKING:
    from xcam.testing import CheckResult

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
    long: Annotated[
        bool, typer.Option("--long", help="Also show formula, source and settings.")
    ] = False,
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
def check(
    name: Annotated[str, typer.Argument(help="A method or a metric.")],
    broken: Annotated[bool, typer.Option("--broken", help="Show only failed checks.")] = False,
) -> None:
    """Test a method or metric against the contract.

    Checks that fail for one cause share a line, with file and line of the cause. The exit code is 1
    if any fails.
    """
    from xcam.registry import find_name, list_metrics
    from xcam.testing import check_method, check_metric, group_by_cause

    results = check_metric(name) if find_name(name) in list_metrics() else check_method(name)
    groups = group_by_cause(r for r in results if r.outcome == "broken" or not broken)
    rows = [
        (_join_names(group), g.outcome, g.message, g.where) for group in groups for g in group[:1]
    ]
    if rows:
        print_table(("check", "outcome", "", ""), rows)
    outcomes = [result.outcome for result in results]
    causes = sum(row[1] == "broken" for row in rows)
    counts = [f"{outcomes.count(each)} {each}" for each in ("kept", "excused", "broken")]
    typer.echo(", ".join(counts) + (f" by {causes} cause{'s' * (causes > 1)}" if causes else ""))
    if causes:
        raise typer.Exit(1)


def _join_names(results: Sequence[CheckResult]) -> str:
    """Return the names of the first two checks, and how many more there are."""
    names = [result.check for result in results]
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(names[:2]) + more
