"""Results as the text that a command prints, and what a command says when it is done."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import pandas as pd

    from xcam.results import Results

__all__ = ["Csv", "Format", "Json", "Latex", "Long", "Quiet", "Strict", "print_frame", "silence"]

_WIDTH = 80  # letters of a line where there is no terminal

Long = Annotated[
    bool,
    typer.Option(
        "--long", help="Print a line for each model, metric and method, with its interval."
    ),
]
Csv = Annotated[bool, typer.Option("--csv", help="Print those lines as CSV, for a spreadsheet.")]
Json = Annotated[bool, typer.Option("--json", help="Print those lines as JSON, for scripts.")]
Latex = Annotated[bool, typer.Option("--latex", help="Print the table in LaTeX, for a paper.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", help="Print the results alone: neither progress nor warnings.")
]
Strict = Annotated[
    bool, typer.Option("--strict", help="End with exit code 1 if anything could not be scored.")
]


@dataclass(frozen=True)
class Format:
    """How results are printed; one of these at most, else as a wide table.

    Attributes:
        long: A line for each result.
        csv: Those lines as CSV.
        json: Those lines as JSON.
        latex: The table in LaTeX.
    """

    long: bool = False
    csv: bool = False
    json: bool = False
    latex: bool = False

    def __post_init__(self) -> None:
        """Refuse several."""
        given = [f"--{name}" for name, value in vars(self).items() if value]
        if len(given) > 1:
            raise ValueError(f"give one of {', '.join(given)}")

    def print(self, results: Results) -> None:
        """Print results; what failed goes to stderr where a program reads the rest."""
        if self.csv or self.json:
            print_frame(results.table(), self.csv)
        elif self.latex:
            typer.echo(results.to_latex(), nl=False)
        else:
            typer.echo(str(results) if self.long else results.to_text(find_width()))
            return
        for sentence in (*results.warnings, *results.first_errors):
            typer.echo(f"xcam: {sentence}", err=True)


def print_frame(frame: pd.DataFrame, as_csv: bool) -> None:
    """Print a table as CSV or JSON."""
    text = frame.to_csv(index=False) if as_csv else frame.to_json(orient="records", indent=1)
    typer.echo(text.rstrip("\n"))


def find_width() -> int:
    """Return how many letters fit a line of the terminal; 80 where there is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDTH


@contextmanager
def silence(quiet: bool) -> Iterator[None]:
    """Leave xcam's warnings out of the output inside a block, if asked for."""
    import warnings

    from xcam.errors import XcamWarning

    with warnings.catch_warnings():
        if quiet:
            warnings.simplefilter("ignore", XcamWarning)
        yield
