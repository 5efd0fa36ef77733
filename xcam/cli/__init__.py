"""The command line: it parses, calls xcam, prints.

Everything that imports torch is imported inside a command, so that `xcam --help` answers at once.
"""

from __future__ import annotations

from xcam.cli import (
    citing,
    comparing,
    cues,
    evaluating,
    explaining,
    fitting,
    listing,
    reporting,
    retraining,
)
from xcam.cli.application import app

__all__ = [
    "app",
    "citing",
    "comparing",
    "cues",
    "evaluating",
    "explaining",
    "fitting",
    "listing",
    "reporting",
    "retraining",
]
