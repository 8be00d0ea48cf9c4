"""What commands print, and what they keep in the learner's progress."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def print_json(document: dict[str, Any]) -> None:
    print(json.dumps(_finite(document), indent=2, ensure_ascii=False, allow_nan=False))


def _finite(value: Any) -> Any:
    """The same document with null for NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(table: tuple[tuple[str, ...], list[tuple[str, ...]]]) -> None:
    """Columns whose cells are numbers to the right; never so narrow that a number is cut off."""
    from typing import Literal

    from rich.console import Console
    from rich.table import Table

    names, rows = table
    shown = Table(box=None, pad_edge=False)
    for name, *cells in zip(names, *rows, strict=True):
        numbers = all(cell == "-" or cell.lstrip("~")[:1].isdecimal() for cell in cells)
        side: Literal["left", "right"] = "right" if numbers and name != names[0] else "left"
        shown.add_column(name, justify=side, no_wrap=name != names[-1])
    for row in rows:
        shown.add_row(*row)
    Console(highlight=False, markup=False, width=max(180, Console().width)).print(shown)


def wants_progress(as_json: bool) -> bool:
    """Bars are for people who watch: not for JSON, a pipe or a file."""
    return not as_json and sys.stdout.isatty()


@contextmanager
def bar(count: int, unit: str, shown: bool) -> Iterator[Callable[[Any], None]]:
    """A bar on stderr; gives the function that each finished piece is handed to."""
    from tqdm import tqdm

    with tqdm(total=count, unit=f" {unit}", disable=not shown) as bar:
        yield lambda _: bar.update() and None


def note(event: Any, as_json: bool = False) -> None:
    """Keep an event in the learner's progress, or say that it was not kept."""
    from contextlib import redirect_stdout

    from ..learn.progress import record

    try:
        with redirect_stdout(sys.stderr if as_json else sys.stdout):  # it may have something to say
            record(event)
    except OSError as error:
        print(f"This was not noted in your progress: {error}", file=sys.stderr)


def history() -> list[Any]:
    """The events of the progress file; none where it cannot be read, which `progress` says."""
    from ..learn import progress

    try:
        return progress.events()
    except OSError:
        return []
