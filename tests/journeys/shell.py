"""Run what a user would type, and look at what it prints."""

import shlex

import commands


def type_in(line):
    """Run a command line in this process; return its output, which must be no error."""
    program, *words = shlex.split(line)
    assert program == "xcam"
    done = commands.run(*words)
    assert done.exit_code == 0, f"{line}\n{done.output}{done.stderr}"
    return done.stdout


def fail(line, code):
    """Run a command line that must end with an exit code; return what it says on stderr."""
    done = commands.run(*shlex.split(line)[1:])
    assert done.exit_code == code, done.output
    return done.stderr
