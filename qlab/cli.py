"""`qlab …`: a thin door to the library. Every command takes --json; then stdout holds one JSON document.

Heavy modules are imported inside the commands, so that `qlab memory` answers at once. Bad input gives one
line on stderr and exit code 2; any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer

from . import __version__

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Model = Annotated[str, typer.Argument(help="'nano' (the embedded model), a folder, or a name on the Hugging Face hub.")]
Examples = Annotated[int, typer.Option(help="Held-out examples of each workload.")]


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
    from .learn import doctor

    machine = doctor.examine()
    if as_json:
        return _print_json(doctor.to_dict(machine))
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


@app.command()
def memory(
    model: Annotated[str, typer.Argument(help="A model's name (Llama-3-70B), a folder, or a config.json.")] = "nano",
    precision: Annotated[str, typer.Option(help="bf16, fp8, int8, int4-g128, int4-channel, nf4, …")] = "int4-g128",
    batch: Annotated[int, typer.Option(help="Requests held at once.")] = 1,
    context: Annotated[int, typer.Option(help="Tokens of each request, prompt and answer together.")] = 4096,
    kv_bits: Annotated[int, typer.Option(help="Bits per number in the KV cache.")] = 16,
    as_json: Json = False,
) -> None:
    """Break down the memory that serving a model takes: weights, scales, embeddings, KV cache."""
    from . import deploy

    breakdown = deploy.memory(model, precision=precision, batch=batch, context=context, kv_bits=kv_bits)
    if as_json:
        return _print_json(breakdown.to_dict())
    print(breakdown)


@app.command()
def quantize(
    model: Model = "nano",
    method: Annotated[str, typer.Option(help="How the codes are chosen: rtn.")] = "rtn",
    bits: Annotated[int, typer.Option(help="Bits per weight, 2 to 8.")] = 4,
    group_size: Annotated[str, typer.Option(help="Weights per scale: a number, 'channel' or 'tensor'.")] = "128",
    asymmetric: Annotated[bool, typer.Option("--asymmetric", help="With zero-points.")] = False,
    skip: Annotated[
        list[str] | None, typer.Option(help="Layers left alone, by name or pattern; may be repeated. Default: lm_head.")
    ] = None,
    examples: Examples = 200,
    as_json: Json = False,
) -> None:
    """Quantize a model in memory; print its size and what it lost against the model as it was."""
    import qlab

    from .models.quantize import report

    group: Any = int(group_size) if group_size.lstrip("-").isdecimal() else group_size
    progress = _wants_progress(as_json)
    # In the type in which it is stored, so that the bytes before are those that people download.
    quantized, tokenizer = qlab.load(model, dtype="auto")
    qlab.quantize_model(
        quantized,
        method=method,
        bits=bits,
        group_size=group,
        symmetric=not asymmetric,
        skip=("lm_head",) if skip is None else tuple(skip),
        progress=progress,
    )
    size = report(quantized)
    # Both are measured in float32; the codes and the scales stay as they are.
    reference, _ = qlab.load(model)
    evaluation = qlab.evaluate(quantized.float(), reference, tokenizer=tokenizer, examples=examples, progress=progress)
    if as_json:
        return _print_json({"model": model, "quantization": asdict(size), "evaluation": evaluation.to_dict()})
    print(f"{size}\n\n{evaluation}")


@app.command("eval")
def evaluate(model: Model = "nano", examples: Examples = 200, as_json: Json = False) -> None:
    """Measure a model: perplexity on held-out text, accuracy by workload."""
    import qlab

    opened, tokenizer = qlab.load(model)
    evaluation = qlab.evaluate(opened, tokenizer=tokenizer, examples=examples, progress=_wants_progress(as_json))
    if as_json:
        return _print_json({"model": model, "evaluation": evaluation.to_dict()})
    print(evaluation)


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


def _wants_progress(as_json: bool) -> bool:
    """Bars are for people who watch: not for JSON, a pipe or a file."""
    return not as_json and sys.stdout.isatty()


def _print_json(document: dict[str, Any]) -> None:
    print(json.dumps(_finite(document), indent=2, ensure_ascii=False, allow_nan=False))


def _finite(value: Any) -> Any:
    """The same document with null for NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    sys.exit(main())
