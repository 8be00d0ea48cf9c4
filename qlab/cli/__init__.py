"""`qlab …`: a thin door to the library. Every command takes --json; then stdout holds one JSON document.

Heavy modules are imported inside the commands, so that `qlab memory` answers at once. Bad input gives one
line on stderr and exit code 2; any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import sys

import typer

from . import deploy, interview, learn, models  # each enters its commands
from .app import app

__all__ = ["app", "deploy", "interview", "learn", "main", "models"]


def main(arguments: list[str] | None = None) -> int:
    """Run `qlab` with these arguments (default: those of the process) and return its exit code."""
    try:
        return app(args=arguments, prog_name="qlab", standalone_mode=False) or 0
    except typer.Abort:
        return 130  # what a shell reports after Ctrl-C
    except (typer.TyperException, ValueError, TypeError, OSError, ImportError) as error:
        text = error.format_message() if hasattr(error, "format_message") else str(error)
        print("error:", " ".join(text.split()) or type(error).__name__, file=sys.stderr)
        return 2
