"""The command `cite`: BibTeX of a method or metric, from its paper's entry or from its spec."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Annotated, Any

import typer

from xcam.cli.application import app
from xcam.cli.catalog import read_catalog
from xcam.cli.options import complete_any

__all__ = ["cite", "find_entry", "read_references"]

_FILE = Path(__file__).parents[1] / "references.bib"
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
_DOI = re.compile(r"doi:(\S+)", re.IGNORECASE)
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")


@app.command()
def cite(
    names: Annotated[
        list[str],
        typer.Argument(
            help="Methods or metrics, such as gradcam.",
            show_default=False,
            autocompletion=complete_any,
        ),
    ],
) -> None:
    """Print the BibTeX entries of the papers that methods and metrics come from."""
    catalog = read_catalog()
    rows = [*catalog["methods"], *catalog["metrics"]]
    entries = [find_entry(_find_row(name, rows)) for name in names]
    typer.echo("\n\n".join(dict.fromkeys(entries)))


def find_entry(row: dict[str, Any]) -> str:
    """Return the BibTeX entry of a method or metric.

    Args:
        row: Its row of the catalog.

    Raises:
        ValueError: It comes from no paper.
    """
    paper = row.get("paper", row.get("source", ""))
    if not paper:
        raise ValueError(f"{row['name']} comes from no paper: there is nothing to cite")
    # What comes after a semicolon is another's work.
    first = paper.split(";")[0]
    year, number = _YEAR.search(first), _ARXIV.search(first) or _DOI.search(first)
    key = f"{{{_spell_plainly(first.split()[0])}{year[0] if year else ''}"
    wanted = f"{{{number[1]}}}" if number else key
    matching = [entry for entry in read_references() if wanted in entry]
    return matching[0] if len(matching) == 1 else _make_entry(row["name"], row["title"], paper)


def read_references() -> list[str]:
    """Read the entries of the papers that xcam's own methods and metrics come from."""
    return re.split(r"\n\n(?=@)", _FILE.read_text("utf-8").strip())


def _make_entry(name: str, title: str, paper: str) -> str:
    """Return an entry with what a spec says: of a plugin, of which no more is known."""
    year, arxiv, doi = _YEAR.search(paper), _ARXIV.search(paper), _DOI.search(paper)
    fields = {"title": f"{{{title}}}", "note": paper}
    author = paper[: year.start()].strip(" ,;") if year else ""
    if author and not (arxiv and arxiv.start() < len(author)):
        fields["author"] = author.replace(" et al.", " and others")
    if year and not (arxiv and arxiv.start() < year.start()):
        fields["year"] = year[0]
    elif arxiv:  # the number begins with year and month
        fields["year"] = f"20{arxiv[1][:2]}"
    if arxiv:
        fields |= {"eprint": arxiv[1], "archiveprefix": "arXiv"}
    if doi:
        fields["doi"] = doi[1]
    lines = [f"  {field} = {{{value}}}," for field, value in fields.items()]
    return "\n".join([f"@misc{{{name},", *lines, "}"])


def _spell_plainly(word: str) -> str:
    """Return a word's letters in lower case, without accents, as keys of entries have them."""
    letters = unicodedata.normalize("NFKD", word.lower())
    return "".join(letter for letter in letters if letter.isascii() and letter.isalpha())


def _find_row(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    from xcam.errors import unknown

    def simplify(text: str) -> str:
        return re.sub(r"[-_\s]", "", text.lower())

    for row in rows:
        if simplify(name) in map(simplify, (row["name"], *row["aliases"])):
            return row
    raise unknown("method or metric", name, [row["name"] for row in rows])
