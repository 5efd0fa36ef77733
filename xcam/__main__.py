"""`python -m xcam`."""

from __future__ import annotations

from xcam.cli import app

__all__ = ["app"]

if __name__ == "__main__":
    app(prog_name="xcam")
