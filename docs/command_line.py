"""Write the page of the command line, from the commands themselves."""

from __future__ import annotations

import re

from typer.main import get_command

from xcam import cli


def make_command_line_page() -> str:
    """Return the page: what each command does, its arguments and its options."""
    program = get_command(cli.app)
    names = sorted(program.commands)
    parts = [
        "# Command line",
        "This page is made from the commands. `xcam --install-completion` sets up completion by "
        "Tab; `xcam --traceback COMMAND` shows where an error comes from. All that a command does "
        "can be done [in Python](api/xcam.md), too.",
        *(make_section(name, program.commands[name]) for name in names),
    ]
    return "\n\n".join(parts) + "\n"


def make_section(name: str, command: object) -> str:
    """Return the section of one command: usage, description, arguments and options."""
    context = command.make_context(name, [], resilient_parsing=True)
    pieces = " ".join(command.collect_usage_pieces(context))
    parts = [f"## xcam {name}", f"```text\nxcam {name} {pieces}\n```", command.help]
    records = [param.get_help_record(context) for param in command.params]
    for usage, text in sorted(filter(None, records), key=lambda record: record[0][0] == "-"):
        parts.append(f"`{usage}`\n: {escape(text)}")
    return "\n\n".join(parts)


def escape(text: str) -> str:
    """Return a help text as Markdown: its default as code, its patterns as they are."""
    text, _, default = text.strip().partition("  [default: ")
    text = re.sub(r"  \[required\]$", " Required.", text)
    pieces = text.split("`")
    pieces[::2] = [re.sub(r"([*_<>\[\]$])", r"\\\1", piece) for piece in pieces[::2]]
    shown = f" Default: `{default[:-1]}`." if default else ""
    return "`".join(pieces) + shown
