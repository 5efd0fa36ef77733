"""The commands that list what is installed, and `check`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from xcam.cli.application import app
from xcam.cli.catalog import read_catalog
from xcam.cli.options import complete_any
from xcam.cli.printing import print_table

if TYPE_CHECKING:
    from xcam.testing import CheckResult

__all__ = ["check", "methods", "metrics", "models", "plugins", "recipes"]


_Json = Annotated[bool, typer.Option("--json", help="Print the list as JSON, for scripts.")]


@app.command()
def methods(as_json: _Json = False) -> None:
    """List the methods."""
    _print_rows("methods", ("name", "title", "family", "cost", "from"), as_json)


@app.command()
def metrics(
    long: Annotated[
        bool, typer.Option("--long", help="Also show formula, source and settings.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """List the metrics."""
    header = ("name", "title", "better", "range", "truth", "cost", "from")
    more = ("formula", "source", "settings")
    _print_rows("metrics", header + more if long else header, as_json)


@app.command()
def models(as_json: _Json = False) -> None:
    """List the nets that --model takes by name.

    It also takes torchvision:NAME and timm:NAME, with any name of a classifier of theirs.
    """
    _print_rows("models", ("name", "from"), as_json)


@app.command()
def recipes(as_json: _Json = False) -> None:
    """List the recipes."""
    _print_rows("recipes", ("name", "title", "source"), as_json)


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
    name: Annotated[
        str,
        typer.Argument(
            help="A method or a metric.",
            autocompletion=complete_any,
        ),
    ],
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


def _print_rows(kind: str, columns: tuple[str, ...], as_json: bool) -> None:
    rows = read_catalog()[kind]
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=1))
    else:
        print_table(columns, [tuple(row[column] for column in columns) for row in rows])


def _join_names(results: Sequence[CheckResult]) -> str:
    """Return the names of the first two checks, and how many more there are."""
    names = [result.check for result in results]
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(names[:2]) + more
