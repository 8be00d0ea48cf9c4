"""Commands that run a model: quantize, generate, eval, bench."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from .app import Json, Model, app
from .output import print_json, wants_progress

Examples = Annotated[int, typer.Option(help="Held-out examples of each workload.")]


@app.command()
def quantize(
    model: Model = "nano",
    method: Annotated[
        str, typer.Option(help="Weights: rtn, nf4, fp4, hqq, gptq, awq. Inputs, too: w8a8, llm_int8, smoothquant, fp8.")
    ] = "rtn",
    bits: Annotated[
        list[str] | None, typer.Option(help="Bits per weight, 2 to 8; or PATTERN=BITS for some layers. Default: 4.")
    ] = None,
    group_size: Annotated[
        str | None, typer.Option(help="Weights per scale: a number, 'channel' or 'tensor'. Default: the method's.")
    ] = None,
    asymmetric: Annotated[bool, typer.Option("--asymmetric", help="With zero-points.")] = False,
    calibration: Annotated[
        str | None,
        typer.Option(
            help="What gptq, awq and smoothquant look at: a workload, prose, code, or a text file. Default: mix."
        ),
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="Of the method, may be repeated: act_order=true, activations=tensor, …")
    ] = None,
    skip: Annotated[
        list[str] | None, typer.Option(help="Layers left alone, by name or pattern; may be repeated. Default: lm_head.")
    ] = None,
    out: Annotated[str | None, typer.Option(help="A new folder to write the quantized model to.")] = None,
    format: Annotated[
        str | None,
        typer.Option(help="Of --out: compressed-tensors, gptq, gptq_v2, awq or bitsandbytes. Default: what fits."),
    ] = None,
    stream: Annotated[
        bool,
        typer.Option("--stream", help="From disk to disk, a layer at a time, without measuring: rtn, nf4, hqq, fp8."),
    ] = False,
    examples: Examples = 200,
    as_json: Json = False,
) -> None:
    """Quantize a model; print its size and what it lost against the model as it was; write it with --out.

    A run with --out that is killed goes on where it stopped when the same command is given again.
    """
    from ..models import jobs

    recipe: dict[str, Any] = {
        "method": method,
        "bits": _bits(bits),
        "group_size": int(group_size) if group_size and group_size.lstrip("-").isdecimal() else group_size,
        "symmetric": False if asymmetric else None,
        "skip": ("lm_head",) if skip is None else tuple(skip),
        **_options(option),
    }
    progress = wants_progress(as_json)
    if stream:
        if out is None:
            raise ValueError("out: --stream writes from disk to disk; give the folder with --out")
        streamed = jobs.stream(model, out, format, recipe, progress)
        return print_json(streamed.to_dict()) if as_json else print(streamed)
    result = jobs.quantize(model, recipe, calibration, out, format, examples, progress)
    return print_json(result.to_dict()) if as_json else print(result)


def _bits(given: list[str] | None) -> int | dict[str, int] | None:
    """--bits 4, or --bits '*.down_proj=8' as often as wanted."""
    if not given:
        return None
    if len(given) == 1 and given[0].isdecimal():
        return int(given[0])
    pairs = [entry.rpartition("=") for entry in given]
    if not all(pattern and width.isdecimal() for pattern, _, width in pairs):
        raise ValueError(f"bits: got {', '.join(given)}; give one number, or PATTERN=BITS for some layers")
    return {pattern: int(width) for pattern, _, width in pairs}


def _options(given: list[str] | None) -> dict[str, Any]:
    """--option name=value, where the value is true, false, a number or a word."""
    found: dict[str, Any] = {}
    for entry in given or []:
        name, _, value = entry.partition("=")
        try:
            found[name] = json.loads(value)
        except ValueError:
            if not value.isidentifier():
                raise ValueError(f"option: got {entry!r}; give NAME=VALUE: true, false, a number or a word") from None
            found[name] = value
    return found


@app.command()
def generate(
    model: Model = "nano",
    prompt: Annotated[str | None, typer.Option(help="Text to continue. Default: a held-out question for nano.")] = None,
    bits: Annotated[str, typer.Option(help="Widths to compare; 16 is the model as it came.")] = "16,8,4,3",
    method: Annotated[str, typer.Option(help="rtn, gptq, awq or hqq.")] = "rtn",
    group_size: Annotated[str | None, typer.Option(help="A number, 'channel' or 'tensor'.")] = None,
    calibration: Annotated[str | None, typer.Option(help="For gptq and awq. Default: mix.")] = None,
    tokens: Annotated[int, typer.Option(help="At most this many new tokens.")] = 48,
    as_json: Json = False,
) -> None:
    """Show how one prompt is continued at several widths, side by side."""
    from ..models import jobs

    widths = bits.split(",")
    if not all(width.strip().isdecimal() for width in widths):
        raise ValueError(f"bits: got {bits!r}; give widths with commas between them, such as 16,8,4,3")
    group: Any = int(group_size) if group_size and group_size.isdecimal() else group_size
    recipe = {"method": method, "group_size": group}
    shown = jobs.generate(model, prompt, [int(width) for width in widths], recipe, calibration, tokens)
    if as_json:
        return print_json(shown.to_dict())
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    console.print(f"prompt: {shown.prompt}\n")
    table = Table("", "MB", "continuation", "against the first", show_lines=True)
    for answer in shown.answers:
        differs = "the same" if answer.same is None else f"differs from token {answer.same + 1} on"
        first = answer is shown.answers[0]
        table.add_row(answer.label, f"{answer.bytes_held / 1e6:,.1f}", answer.text, "" if first else differs)
    console.print(table)


@app.command("eval")
def evaluate(model: Model = "nano", examples: Examples = 200, as_json: Json = False) -> None:
    """Measure a model: perplexity on held-out text, accuracy by workload."""
    import qlab

    opened, tokenizer = qlab.load(model)
    evaluation = qlab.evaluate(opened, tokenizer=tokenizer, examples=examples, progress=wants_progress(as_json))
    if as_json:
        return print_json({"model": model, "evaluation": evaluation.to_dict()})
    print(evaluation)


@app.command()
def bench(
    device: Annotated[str | None, typer.Option(help="cuda or cpu. Default: cuda, where there is one.")] = None,
    shapes: Annotated[
        str | None, typer.Option(help="8b, 70b, a model's name, 8192, 4096x14336 (out x in); commas between them.")
    ] = None,
    tokens: Annotated[str | None, typer.Option(help="Tokens at once: 1,16,128.")] = None,
    kernels: Annotated[
        str | None, typer.Option(help="Names, commas between them. Default: all that choose their path.")
    ] = None,
    context: Annotated[int, typer.Option(help="Tokens in the KV cache, for the estimate of decoding.")] = 4096,
    out: Annotated[str | None, typer.Option(help="A JSON file to write; one of the same kind is continued.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few shapes and tokens, fewer repetitions.")] = False,
    compare: Annotated[
        tuple[str, str] | None, typer.Option(help="Two files of --out to compare; nothing is measured.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure kernels for quantized weights against the plain product in 16 bits, and against what the device can do.

    A run with --out that is killed goes on where it stopped when the same command is given again.
    """
    from pathlib import Path

    from rich.console import Console

    from ..bench import kernels as measurements
    from ..bench import report, results

    wide = max(160, Console().width)  # numbers that are cut off say something else
    console = Console(highlight=False, markup=False, soft_wrap=True, width=wide)
    if compare is not None:
        found = report.compare(*(results.load(Path(name)) for name in compare))
        if as_json:
            return print_json(found.to_dict())
        console.print(report.comparison_table(found.changes))
        return console.print(*report.comparison_notes(found), sep="\n")
    if context < 1:
        raise ValueError(f"context: got {context}; give a number from 1 up")
    asked = measurements.settings(device, _list(shapes), _counts(tokens), _list(kernels), quick)
    printer = report.Printer((lambda text: None) if as_json else console.print)
    done = measurements.run(
        asked, Path(out) if out else None, context=context, started=printer.start, measured=printer.entry
    )
    if as_json:
        return print_json(done.to_dict())
    for title, table in report.summary(done):
        console.print(f"\n{title}")
        console.print(table)
    goals = report.goals(done) if asked.device == "cuda" else []
    console.print("", *report.decoding(done), *report.paths(done), *goals, sep="\n")
    return console.print(f"Written to {out}.") if out else None


def _list(given: str | None) -> tuple[str, ...]:
    """a,b,c"""
    return tuple(part.strip() for part in given.split(",") if part.strip()) if given else ()


def _counts(given: str | None) -> tuple[int, ...]:
    parts = _list(given)
    if not all(part.isdecimal() for part in parts):
        raise ValueError(f"tokens: got {given!r}; give numbers with commas between them, such as 1,16,128")
    return tuple(map(int, parts))
