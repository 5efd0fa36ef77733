"""Run the command line in this process."""

from typer.testing import CliRunner

from xcam import cli


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def refused(*arguments):
    """The one line on stderr, of a call that must fail with exit code 2."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("xcam: ")
    return line.removeprefix("xcam: ")
