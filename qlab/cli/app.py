"""The command line's root, and the types of options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import __version__
from .output import print_json

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Model = Annotated[str, typer.Argument(help="'nano' (the embedded model), a folder, or a name on the Hugging Face hub.")]


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Quantize models, measure the damage, and reckon what a deployment needs."""
    if version:
        print(f"qlab {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine has, and what of the course runs live, interpreted, or from recorded results."""
    from ..learn import doctor

    machine = doctor.examine()
    if as_json:
        return print_json(doctor.to_dict(machine))
    from rich.console import Console
    from rich.table import Table

    found = Table("This machine", "", box=None, pad_edge=False)
    for row in doctor.rows(machine):
        found.add_row(*row)
    runs = Table("The course here", "runs", "how", box=None, pad_edge=False)
    for part in doctor.course(machine):
        runs.add_row(part.name, part.runs, part.why)
    console = Console(highlight=False, markup=False)
    console.print(found)
    console.print()
    console.print(runs)
