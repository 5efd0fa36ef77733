"""What happens to docstrings on their way into the site: formulas, papers, defaults."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from formulas import ALONE, PROTECTED, WIDE, find_formulas, write_latex
from sphinx.application import Sphinx

from xcam.core import Method, Metric
from xcam.core.settings import Settings

PAPER = re.compile(r"(?<![/\w`])(?:arXiv:(\d{4}\.\d{4,5})|doi:(10\.\d+/[\w./()-]*\w))")
EQUATION = re.compile(r"(?:[=←]|^.{20})(?!.*= [a-z]+$)", re.DOTALL)
CHECKED = re.compile(r"~?(?:typing\.)?Annotated\[([^\[\],]+), ~?[\w.]*Range\([^()]*\)\]")
INIT_ONLY = re.compile(r"~?(?:dataclasses\.)?InitVar\[(.*)\]")
PUNCTUATION = re.compile(r"\s*([.,;:]?)\s*")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the changes below, and show formulas as MathML, which needs no script."""
    app.connect("autodoc-process-docstring", call_settings_parameters, priority=100)
    app.connect("autodoc-process-docstring", process_docstring, priority=900)  # napoleon is 500
    app.connect("object-description-transform", simplify_types, priority=900)  # merged at 500
    app.connect("doctree-read", set_dashes)
    app.add_html_math_renderer(
        "mathml",
        inline_renderers=(lambda page, node: show_math(page, node, block=False), None),
        block_renderers=(lambda page, node: show_math(page, node, block=True), None),
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def show_math(page: object, node: nodes.Node, block: bool) -> None:
    """Write a formula into the page.

    Raises:
        nodes.SkipNode: Always: the formula is all that the node holds.
    """
    html = re.sub(r">\s+<", "><", str(tex2mathml(node.astext(), as_block=block)))
    page.body.append(f'<div class="math">{html}</div>' if block else html)  # type: ignore[attr-defined]
    raise nodes.SkipNode


def simplify_types(app: Sphinx, domain: str, kind: str, content: nodes.Element) -> None:
    """Leave out of the types of parameters how dataclasses check them."""
    for field in content.findall(nodes.field):
        if field[0].astext().startswith(("type ", "rtype")):
            for text in list(field[1].findall(nodes.Text)):
                plain = INIT_ONLY.sub(r"\1", CHECKED.sub(r"\1", text.astext()))
                if "Literal[" in plain:  # beside which Sphinx does not read ~ as a short name
                    plain = plain.replace("~", "")
                text.parent.replace(text, nodes.Text(plain))


def set_dashes(app: Sphinx, doctree: nodes.document) -> None:
    """Set the hyphens between a parameter and its description as a dash, without smartquotes."""
    for text in list(doctree.findall(nodes.Text)):
        if text.astext() == " -- ":
            text.parent.replace(text, nodes.Text(" – "))


def call_settings_parameters(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Name the attributes of a method or metric what they are: its parameters."""
    if isinstance(obj, type) and issubclass(obj, Settings):
        lines[:] = ["Args:" if line == "Attributes:" else line for line in lines]


def process_docstring(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Change the lines of a docstring in place: reStructuredText that napoleon made."""
    has_formulas = isinstance(obj, type) and issubclass(obj, (Method, Metric))
    if isinstance(obj, type) and dataclasses.is_dataclass(obj):
        add_defaults(lines, obj)
    paragraphs = split_paragraphs(lines)
    changed: list[str] = []
    for number, paragraph in enumerate(paragraphs):
        if has_formulas and not paragraph[0].startswith((".. ", ">>>")):
            changed += write_paragraph("\n".join(paragraph), is_body=number > 0).split("\n")
        else:
            changed += [escape(line) for line in paragraph]
    lines[:] = changed


def split_paragraphs(lines: list[str]) -> list[list[str]]:
    """Return the lines in groups: those between blank ones, and each field's."""
    groups: list[list[str]] = []
    for line in lines:
        starts = not groups or not line.strip() or not groups[-1][-1].strip()
        if starts or line.startswith(":"):
            groups.append([line])
        else:
            groups[-1].append(line)
    return groups


def write_paragraph(text: str, is_body: bool) -> str:
    """Return a paragraph with its formulas as math; one that begins with an equation shows it."""
    if text.startswith("    ") and (block := write_block(text)):
        return block
    is_field = text.startswith((":", " "))
    spans = find_formulas(text)
    is_body = is_body and not is_field
    shown, at = "", 0
    if is_body and spans and spans[0][0] == 0 and EQUATION.search(text[: spans[0][1]]):
        shown, at, spans = show_first(text, spans)
    parts = [shown]
    for begin, end in spans:
        parts.append(write_prose(text[at:begin], is_body))
        if is_body and end - begin > WIDE:
            found = PUNCTUATION.match(text, end)
            parts.append(f"\n\n.. math:: {write_latex(text[begin:end])}{found[1]}\n\n")
            end = found.end()
        else:
            parts.append(write_inline(text[begin:end]))
        at = end
    return "".join([*parts, write_prose(text[at:], is_body)])


def show_first(text: str, spans: list[tuple[int, int]]) -> tuple[str, int, list[tuple[int, int]]]:
    """Return the equation that a paragraph begins with as a block, where it ends, and the others.

    What follows it after "with" is a block as well.
    """
    rows, (_, end), rest = [write_latex(text[: spans[0][1]])], spans[0], spans[1:]
    while rest and re.fullmatch(r",?\s+(with|and)\s+", text[end : rest[0][0]]):
        word = re.sub(r"\W", "", text[end : rest[0][0]])
        rows.append(rf"\text{{{word}}}\quad {write_latex(text[rest[0][0] : rest[0][1]])}")
        end, rest = rest[0][1], rest[1:]
    found = PUNCTUATION.match(text, end)
    assert found
    rows[-1] += found[1]
    return "".join(f".. math:: {row}\n\n" for row in rows), found.end(), rest


def write_block(text: str) -> str:
    """Return lines of formulas as blocks; nothing if they are something else."""
    pieces = [piece for line in text.split("\n") for piece in re.split(r"\s{2,}", line.strip())]
    try:
        rows = [write_latex(piece) for piece in pieces]
    except ValueError:
        return ""
    return "".join(f".. math:: {row}\n\n" for row in rows) if "=" in text or "−" in text else ""


def write_inline(formula: str) -> str:
    """Return a formula within a sentence."""
    return f":math:`{write_latex(formula)}`"


def write_prose(text: str, has_letters: bool) -> str:
    """Return what is between formulas: single letters as math, papers as links, bars escaped."""
    parts, at = [], 0
    for found in PROTECTED.finditer(text):
        parts += [_write_words(text[at : found.start()], has_letters), escape(found[0])]
        at = found.end()
    return "".join([*parts, _write_words(text[at:], has_letters)])


def _write_words(text: str, has_letters: bool) -> str:
    words = re.split(r"(\s+)", text)
    for place, word in enumerate(words):
        after_number = place > 1 and words[place - 2][-1:].isdigit()
        if has_letters and not after_number and (found := ALONE.fullmatch(word)):
            words[place] = word.replace(found[1], write_inline(found[1]))
        else:
            words[place] = escape(word)
    return "".join(words)


def escape(text: str) -> str:
    """Return text with papers as links, and bars that are not read as a substitution."""
    return PAPER.sub(_link, text.replace("|", r"\|"))


def _link(paper: re.Match[str]) -> str:
    address = f"arxiv.org/abs/{paper[1]}" if paper[1] else f"doi.org/{paper[2]}"
    return f"`{paper[0]} <https://{address}>`__"


def add_defaults(lines: list[str], cls: type) -> None:
    """Add its default to each described parameter of a dataclass."""
    defaults = dict(list_defaults(cls))
    fields = [place for place, line in enumerate(lines) if line.startswith(":param ")]
    for place in reversed(fields):
        name = lines[place].split()[1].rstrip(":")
        end = place + 1
        while end < len(lines) and lines[end].startswith(" "):
            end += 1
        if name in defaults:
            lines[end - 1] += f" Default: ``{defaults[name]}``."


def list_defaults(cls: type) -> Iterator[tuple[str, str]]:
    """Yield the name and the default of each parameter of a dataclass that has one."""
    for field in dataclasses.fields(cls):
        if field.default is not dataclasses.MISSING:
            yield field.name, repr(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            yield field.name, repr(field.default_factory())
