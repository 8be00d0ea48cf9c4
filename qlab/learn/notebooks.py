"""The notebook tools of an author: `python -m qlab.learn.notebooks execute|lint|edges FILES…`

`execute` runs lessons in place and removes what changes from run to run, `lint` states where they break the
lesson policy, `edges` shows printed numbers that another processor could round differently.
Exit codes: 0 nothing to say, 1 findings (or a cell that fails), 2 bad input.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from .execute import TIMEOUT, NotebookError, execute, read


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one tool over the files, print what it found, and return the exit code."""
    options = _parser().parse_args(arguments)
    for path in options.files:
        try:
            read(path)  # every file, before the first of them is run for a minute
        except NotebookError as error:
            print(error, file=sys.stderr)
            return 2
    found = 0
    for path in options.files:
        try:
            for finding in options.tool(path, options):
                print(f"{path}: {finding}")
                found += 1
        except NotebookError as error:
            print(error, file=sys.stderr)
            found += 1
    return 1 if found else 0


def _execute(path: Path, options: argparse.Namespace) -> Iterator[str]:
    print(f"{path}: running", flush=True)
    execute(path, options.timeout)
    return iter(())


def _lint(path: Path, _options: argparse.Namespace) -> Iterator[str]:
    from .lint import lint

    return map(str, lint(read(path), path))


def _edges(path: Path, options: argparse.Namespace) -> Iterator[str]:
    from .edges import find

    return map(str, find(path, options.tolerance, options.timeout))


def _tolerance(text: str) -> float:
    value = float(text)
    if not 0 < value < 0.5:
        raise argparse.ArgumentTypeError(f"{text} has to lie above 0 and below 0.5")
    return value


def _timeout(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} has to be at least 1 second")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m qlab.learn.notebooks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    tools = parser.add_subparsers(required=True, metavar="execute|lint|edges")
    for name, tool, about in [
        ("execute", _execute, "run notebooks in place, each in its own folder"),
        ("lint", _lint, "state every breach of the lesson policy"),
        ("edges", _edges, "run notebooks and show printed numbers near a rounding edge"),
    ]:
        command = tools.add_parser(name, help=about, description=about)
        command.set_defaults(tool=tool)
        command.add_argument("files", nargs="+", type=Path, metavar="FILE")
        if name != "lint":
            command.add_argument("--timeout", type=_timeout, default=TIMEOUT, help="seconds for a cell (%(default)s)")
        if name == "edges":
            from .edges import TOLERANCE

            about = "how near, in units of the last printed digit (%(default)s)"
            command.add_argument("--tolerance", type=_tolerance, default=TOLERANCE, help=about)
    return parser


if __name__ == "__main__":
    sys.exit(main())
