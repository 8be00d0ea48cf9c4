"""`qlab …`: a thin door to the library. Every command takes --json; then stdout holds one JSON document.

Heavy modules are imported inside the commands, so that `qlab memory` answers at once. Bad input gives one
line on stderr and exit code 2; any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from . import __version__
from .learn.grade import NOT_DEFENDED

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Model = Annotated[str, typer.Argument(help="'nano' (the embedded model), a folder, or a name on the Hugging Face hub.")]
Examples = Annotated[int, typer.Option(help="Held-out examples of each workload.")]
Workload = Annotated[
    str, typer.Option(help="recommend, signal, classify, chat, summarize, sql or code; their lengths are assumed.")
]
Latency = Annotated[
    str | None,
    typer.Option(help="Limit of the whole answer, with chat of the first token: 200ms, 1.5s. Default: the workload's."),
]
TokenLatency = Annotated[str | None, typer.Option(help="Limit for each token after the first: 50ms.")]
Prompt = Annotated[int | None, typer.Option(help="Mean tokens of a prompt. Default: the workload's.")]
Output = Annotated[int | None, typer.Option(help="Mean tokens of an answer. Default: the workload's.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="An assumption, such as gpu_memory_utilization=0.9 or kernels=vllm; may be repeated."),
]


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
    context: Annotated[
        int | None,
        typer.Option(help="Tokens of each request, prompt and answer. Default: 4096, or what the model can."),
    ] = None,
    kv_bits: Annotated[int, typer.Option(help="Bits per number in the KV cache.")] = 16,
    kv_group_size: Annotated[
        int | None, typer.Option(help="Numbers of the KV cache that share a scale and a minimum, at 2 to 8 bits.")
    ] = None,
    gpu: Annotated[
        str | None, typer.Option(help="Say what fits: a GPU (A100-80GB), or an EC2 instance with all its GPUs.")
    ] = None,
    tensor_parallel: Annotated[
        int | None, typer.Option(help="GPUs to split the model over. Default: 1, or those of the instance.")
    ] = None,
    rent: Annotated[bool, typer.Option("--rent", help="Name the cheapest EC2 instance that holds all of it.")] = False,
    extended: Annotated[
        bool, typer.Option("--extended", help="Take contexts beyond the model's, as after an extension of positions.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Break down the memory that serving a model takes: weights, scales, embeddings, KV cache; say where it fits.

    QLAB_DATA may name a YAML file with GPUs, instances, prices and models of your own.
    """
    from . import deploy

    shapes = deploy.spec(model)
    options: dict[str, Any] = {"precision": precision, "batch": batch, "kv_bits": kv_bits, "extended": extended}
    options |= {"context": context, "kv_group_size": kv_group_size}
    split: dict[str, Any] = {} if tensor_parallel is None else {"tensor_parallel": tensor_parallel}
    fit = None if gpu is None else deploy.fits(shapes, gpu, **options, **split)
    breakdown = fit.breakdown if fit else deploy.memory(shapes, **options, **split)
    placement = deploy.smallest_instance(shapes, **options) if rent else None
    prices = deploy.price_note([placement.instance]) if placement else None
    if as_json:
        found: dict[str, Any] = {"fit": fit.to_dict()} if fit else {}
        if rent:
            found["rent"] = placement.to_dict() if placement else None
        return _print_json(breakdown.to_dict() | found)
    print(breakdown)
    if fit:
        print(f"\n{breakdown.runtime}\n{fit}")
    if rent:
        print(f"\n{placement}\n{prices}" if placement else "\nNone of the instances that are known holds all of it.")


@app.command()
def claims(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Claims in full: C021, or 21.")] = None,
    id: Annotated[list[str] | None, typer.Option(help="The same, as an option; may be repeated.")] = None,
    verdict: Annotated[
        str | None, typer.Option(help="Those with one verdict: true, conditional (true only if), false or contested.")
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="Another assumption, gpu_memory_utilization=0.95; may be repeated."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="With --set, list the verdicts that stay, too.")] = False,
    assumptions: Annotated[bool, typer.Option("--assumptions", help="List the assumptions, nothing else.")] = False,
    contradictions: Annotated[
        bool, typer.Option("--contradictions", help="List where the source texts contradict each other, nothing else.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Judge what is said about quantized models: verdicts from numbers, and what to say instead.

    Without an id all claims are listed, one a line; with --set only those whose verdicts flip, in full.
    """
    from .deploy import claims as ledger
    from .deploy.claims.ledger import as_verdict

    given = ledger.Assumptions().set(*change or ())
    if assumptions:
        return _print_json(given.to_dict()) if as_json else print(given)
    wanted = None if verdict is None else as_verdict(verdict)
    asked = [ledger.claim(one, given) for text in (*(ids or ()), *(id or ())) for one in text.split(",")]
    judged = list({one.id: one for one in asked}.values()) or ledger.claims(given)
    found = [one for one in judged if wanted in (None, one.verdict)]
    flips = [one for one in found if one.flipped]
    if contradictions:
        topics = [one for one in ledger.CONTRADICTIONS if {one.id for one in found} & set(one.claims)]
        if as_json:
            return _print_json({"contradictions": [one.to_dict(given) for one in topics]})
        told = [one.in_words(given) for one in topics]
        return print("\n\n".join(told) or "These claims settle no contradiction.")
    if as_json:
        shown = [one.to_dict() for one in found]
        return _print_json({"assumptions": given.to_dict(), "flips": [one.id for one in flips], "claims": shown})
    parts: list[str] = []
    if change:
        told = [f"{one.id} from {one.claim.verdict} to {one.verdict}" for one in flips]
        parts += [f"{len(flips)} of {len(found)} verdicts flip{': ' if flips else ''}{', '.join(told)}."]
    if asked:
        parts += map(str, found)
        parts += [f"{one.id} is {one.verdict}, not {wanted}." for one in judged if one not in found]
    else:
        parts += map(str, flips)
        if change and not (everything or verdict):
            parts += ["The others stay as they are on record; --all lists them."]
        else:
            parts += ["\n".join(f"{one.id}  {one.verdict:11}  {one.claim.says}" for one in found)]
    print("\n\n".join(parts))


@app.command()
def plan(
    model: Annotated[str, typer.Option(help="A model's name (Llama-3-70B), a folder, or a config.json.")],
    workload: Workload = "chat",
    latency: Latency = None,
    token_latency: TokenLatency = None,
    qps: Annotated[float | None, typer.Option(help="Requests per second in all. Default: one machine's.")] = None,
    prompt: Prompt = None,
    output: Output = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="May be repeated. Default: 16, 8 and 4 bits, as each GPU computes best.")
    ] = None,
    instance: Annotated[list[str] | None, typer.Option(help="EC2 instances; may be repeated. Default: all.")] = None,
    settings: Settings = None,
    everything: Annotated[bool, typer.Option("--all", help="Show every option with its reason.")] = False,
    as_json: Json = False,
) -> None:
    """Say where to serve a model: options ranked by cost at a latency target, and why each of the others lost.

    Ranks by an estimate, then simulates the best. QLAB_DATA may name a YAML file with machines and prices of your own.
    """
    from .deploy import assumptions
    from .deploy.planning import advice, replica, tables
    from .deploy.planning.plan import plan as ranked

    found = ranked(
        model, workload, latency=_seconds("latency", latency), per_token=_seconds("token-latency", token_latency),
        qps=qps, precisions=precision or None, among=instance or None, prompt=prompt, output=output,
        given=assumptions.changed(replica.Assumptions(), *settings or ()),
    )  # fmt: skip
    if as_json:
        return _print_json(found.to_dict() | {"paragraph": advice.paragraph(found)})
    print(f"{found.model.name}, {found.workload} (assumed: {found.workload.why})\nTarget: {found.target}.\n")
    _print_table(tables.options_table(found, everything))
    print(
        f"\nTimes alone are those of requests with a server to themselves, at percentile {found.target.percent:g}. "
        f"Requests/s are what one machine bears within the target.\n"
        f"Replicas simulated: {found.simulated}; ~ marks estimates.\n\n{advice.paragraph(found)}"
    )


@app.command()
def compare(
    precisions: Annotated[list[str], typer.Argument(help="Two to six: int4-g128 w8a8 fp8 bf16 …")],
    model: Annotated[str, typer.Option(help="A model's name (Llama-3-70B), a folder, or a config.json.")],
    instance: Annotated[str, typer.Option(help="An EC2 instance: g6e.12xlarge.")],
    workload: Workload = "chat",
    latency: Latency = None,
    token_latency: TokenLatency = None,
    prompt: Prompt = None,
    output: Output = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Put precisions side by side on one instance: memory, time of a prompt and of a token, load in a target, cost."""
    from .deploy import assumptions
    from .deploy.planning import advice, replica, tables
    from .deploy.planning.compare import compare as compared

    found = compared(
        precisions, model, instance, workload,
        latency=_seconds("latency", latency), per_token=_seconds("token-latency", token_latency),
        prompt=prompt, output=output, given=assumptions.changed(replica.Assumptions(), *settings or ()),
    )  # fmt: skip
    said = [*advice.comparison(found), *advice.remedies(found), *advice.trust(found), found.prices()]
    if as_json:
        return _print_json(found.to_dict() | {"sentences": said})
    print(f"{found.model.name} on {instance}, {found.workload} (assumed)\nTarget: {found.target}.\n")
    _print_table(tables.comparison_table(found))
    print("", *said, sep="\n")


def _seconds(name: str, text: str | None) -> float | None:
    from .deploy.serving.workloads import parse_seconds

    return None if text is None else parse_seconds(name, text)


def _print_table(table: tuple[tuple[str, ...], list[tuple[str, ...]]]) -> None:
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
    from .models import jobs

    recipe: dict[str, Any] = {
        "method": method,
        "bits": _bits(bits),
        "group_size": int(group_size) if group_size and group_size.lstrip("-").isdecimal() else group_size,
        "symmetric": False if asymmetric else None,
        "skip": ("lm_head",) if skip is None else tuple(skip),
        **_options(option),
    }
    progress = _wants_progress(as_json)
    if stream:
        if out is None:
            raise ValueError("out: --stream writes from disk to disk; give the folder with --out")
        streamed = jobs.stream(model, out, format, recipe, progress)
        return _print_json(streamed.to_dict()) if as_json else print(streamed)
    result = jobs.quantize(model, recipe, calibration, out, format, examples, progress)
    return _print_json(result.to_dict()) if as_json else print(result)


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
    from .models import jobs

    widths = bits.split(",")
    if not all(width.strip().isdecimal() for width in widths):
        raise ValueError(f"bits: got {bits!r}; give widths with commas between them, such as 16,8,4,3")
    group: Any = int(group_size) if group_size and group_size.isdecimal() else group_size
    recipe = {"method": method, "group_size": group}
    shown = jobs.generate(model, prompt, [int(width) for width in widths], recipe, calibration, tokens)
    if as_json:
        return _print_json(shown.to_dict())
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
    evaluation = qlab.evaluate(opened, tokenizer=tokenizer, examples=examples, progress=_wants_progress(as_json))
    if as_json:
        return _print_json({"model": model, "evaluation": evaluation.to_dict()})
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

    from .bench import kernels as measurements
    from .bench import report, results

    wide = max(160, Console().width)  # numbers that are cut off say something else
    console = Console(highlight=False, markup=False, soft_wrap=True, width=wide)
    if compare is not None:
        found = report.compare(*(results.load(Path(name)) for name in compare))
        if as_json:
            return _print_json(found.to_dict())
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
        return _print_json(done.to_dict())
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


@app.command()
def start(
    part: Annotated[str, typer.Argument(help="The number of a part of the course: 02.")],
    as_json: Json = False,
) -> None:
    """Copy the lesson and the exercise of one part to work/, where you do not have them; nothing is overwritten."""
    from .learn import workspace

    copies = workspace.start(part)
    _note_start([path.stem for path in copies.copied if path.parent != copies.work], as_json)
    if as_json:
        return _print_json(copies.to_dict())
    print(f"{copies}\nTo open it: make lab, and in its list of files {copies.name(copies.main)}.")


@app.command()
def reset(
    part: Annotated[str, typer.Argument(help="The number of a part of the course: 02.")],
    lesson: Annotated[bool, typer.Option("--lesson", help="The lesson of that number, not the exercise.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Put a fresh copy of an exercise in the place of yours, which is kept beside it under another name."""
    from .learn import workspace

    kind = workspace.LESSON if lesson else workspace.EXERCISE
    path = workspace.find(part, kind, workspace.repository())
    if not yes and not as_json and sys.stdin.isatty():
        typer.confirm(f"A fresh copy of the {kind.word} {path.stem}? Yours will be kept beside it.", abort=True)
    fresh = workspace.reset(part, lesson)
    if as_json:
        return _print_json(fresh.to_dict())
    print(fresh)


@app.command()
def progress(as_json: Json = False) -> None:
    """Show where you stand with the graded questions: outcome, attempts, hints, minutes; and with the drills."""
    from contextlib import redirect_stdout
    from dataclasses import asdict

    from .learn import desk
    from .learn.drills import schedule

    with redirect_stdout(sys.stderr if as_json else sys.stdout):  # it may have to say that the file was damaged
        status = desk.status()
        trends = schedule.trends(_history())
    if as_json:
        return _print_json(status.to_dict() | {"drills": [asdict(one) | {"trend": one.words} for one in trends]})
    from rich.console import Console
    from rich.table import Table

    wide = max(100, Console().width)  # an id that is cut off cannot be copied into check(...)
    console = Console(highlight=False, markup=False, soft_wrap=True, width=wide)
    if status.note:
        console.print(status.note)
    for number, (exercise, rows) in enumerate(status.sets):
        table = Table(box=None, pad_edge=False)
        for name in desk.COLUMNS:
            table.add_column(name, justify="right" if name in desk.NUMBERS else "left", no_wrap=True)
        for row in rows:
            table.add_row(*desk.cells(row))
        console.print(f"{chr(10) if number else ''}{desk.total(exercise, rows)}  {desk.bar(rows)}", style="bold")
        console.print(table)
    if trends:
        right, asked = sum(one.right for one in trends), sum(one.asked for one in trends)
        console.print(f"\nDrills: {right} of {asked} right", style="bold")
        _print_table(schedule.table(trends))


@app.command()
def drill(
    kinds: Annotated[list[str] | None, typer.Argument(metavar="KIND", help="Kinds: memory.weights. --list.")] = None,
    topic: Annotated[list[str] | None, typer.Option(help="All kinds of a topic: memory; may be repeated.")] = None,
    count: Annotated[int, typer.Option(help="How many questions.")] = 10,
    level: Annotated[int | None, typer.Option(help="1, 2 or 3. Default: as your answers call for.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same questions for everybody. Default: what you are weak at comes first.")
    ] = None,
    answers: Annotated[str | None, typer.Option(help="A YAML file with your replies; needs --seed.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the kinds and the topics, nothing else.")] = False,
    solutions: Annotated[bool, typer.Option("--solutions", help="With --json: answers and how to get them.")] = False,
    as_json: Json = False,
) -> None:
    """Ask questions with ever new numbers, and show the way to each answer; an empty line ends it.

    A GB is 10^9 bytes, a GiB 2^30. Your progress keeps every answer. With --json the questions are printed, not asked.
    """
    import random

    from .learn import drills
    from .learn.drills import session

    among = drills.chosen(kinds or (), topic or ())
    if not 1 <= count <= 10_000:
        raise ValueError(f"count: got {count}; give 1 to 10,000")
    if level not in (None, 1, 2, 3):
        raise ValueError(f"level: got {level}; choose from 1, 2, 3")
    if solutions and not as_json:
        raise ValueError("solutions: they are shown after each reply; add --json to print them beforehand")
    if answers is not None and seed is None:
        raise ValueError("answers: without a seed nobody knows which questions they are for; add --seed")
    if listed:
        return _list_kinds(among, as_json)
    if not as_json and answers is None:
        return _ask_drills(among, count, level, seed)
    seed = random.randrange(10**6) if seed is None else seed
    paper = session.fixed(among, count, level, seed)
    if answers is None:
        return _print_json({"seed": seed, "drills": [one.to_dict(solutions) for one in paper]})
    from pathlib import Path

    replies = session.read_replies(Path(answers))
    done = session.marked(paper, replies)
    for one in done:
        _note(one.event, as_json)
    if as_json:
        right = sum(one.marked.right for one in done)
        return _print_json({"seed": seed, "right": right, "drills": [one.to_dict() for one in done]})
    for number, one in enumerate(done, 1):
        print(f"{number}. {one.drill.text}\n   Your reply: {one.reply or 'none'}. {one.marked.why}")
        print(*(f"   | {line}" for line in one.drill.worked), "", sep="\n")
    return print(session.total(done))


def _ask_drills(kinds: Any, count: int, level: int | None, seed: int | None) -> None:
    """A session in a terminal. Whatever ends it, the answers given are kept."""
    import random

    from rich.console import Console
    from rich.padding import Padding

    from .learn.drills import session

    console = Console(highlight=False, markup=False)
    history = _history()
    if seed is None:
        coming = session.adaptive(kinds, count, level, history, random.Random())
    else:
        coming = iter(session.fixed(kinds, count, level, seed))
    done: list[session.Answered] = []
    try:
        for number in range(1, count + 1):
            with console.status("Drawing a question …"):  # the first one may have to load torch
                asked = next(coming)
            console.print(f"\n{number} of {count}: {asked.kind}, level {asked.level}", style="bold")
            console.print(asked.text, *(Padding(choice, (0, 0, 0, 2)) for choice in asked.lettered))
            answered = session.ask(asked, lambda: input("> "), lambda marked: console.print(marked.why))
            if answered is None:
                break
            done.append(answered)
            history.append(answered.event)
            _note(answered.event)
            console.print(answered.marked.why, style="green" if answered.marked.right else "red")
            console.print(*(Padding(line, (0, 0, 0, 4)) for line in asked.worked))
            console.print(f"So far {sum(one.marked.right for one in done)} of {len(done)} right.")
    except KeyboardInterrupt:
        pass
    console.print(f"\n{session.total(done)}")


def _list_kinds(kinds: Any, as_json: bool) -> None:
    if as_json:
        rows = [{"name": one.name, "topic": one.topic, "title": one.title, "lesson": one.lesson} for one in kinds]
        levels = [{"levels": list(one.levels), "needs": one.needs} for one in kinds]
        return _print_json({"kinds": [row | more for row, more in zip(rows, levels, strict=True)]})
    cells: list[tuple[str, ...]] = [(one.name, one.title, one.lesson, ", ".join(map(str, one.levels))) for one in kinds]
    _print_table((("kind", "what it trains", "lesson", "levels"), cells))


def _history() -> list[Any]:
    """The events of the progress file; none where it cannot be read, which `progress` says."""
    from .learn import progress

    try:
        return progress.events()
    except OSError:
        return []


@app.command()
def mutants(
    questions: Annotated[
        list[str] | None, typer.Argument(help="Ids of questions: linear.absmax. Default: all of them.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many sets of numbers each answer is tried on.")] = 3,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="One line for each mutant.")] = False,
    as_json: Json = False,
) -> None:
    """Try how strong the checks are: every wrong answer on record must fail, by its own message.

    Exit code 1 if one survives or is taken for another, or if a right answer fails.
    """
    from .learn.mutants import measure

    table = measure(questions or (), seeds, progress=_wants_progress(as_json))
    if as_json:
        _print_json(table.to_dict())
    else:
        print(table.in_full() if verbose else table)
    if table.problems:
        raise typer.Exit(1)


@app.command(
    epilog="What this does NOT defend against:" + "".join(f"\n\n- {line};" for line in NOT_DEFENDED[:-1])
    + f"\n\n- {NOT_DEFENDED[-1]}."
)  # fmt: skip
def grade(
    files: Annotated[list[str], typer.Argument(help="Submitted notebooks, or folders of a class.")],
    master: Annotated[
        str | None, typer.Option(help="The master notebook. Default: that of each one's set, in solutions/.")
    ] = None,
    out: Annotated[str, typer.Option(help="The folder for the results.")] = "graded",
    isolation: Annotated[str, typer.Option(help="auto, namespaces or watchdog.")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Also as root without namespaces.")] = False,
    seed: Annotated[int | None, typer.Option(help="Of the inputs. Default: a new one, kept in the result.")] = None,
    jobs: Annotated[int | None, typer.Option(help="At the same time. Default: one for each core.")] = None,
    cell_seconds: Annotated[float, typer.Option(help="Limit for one cell.")] = 30.0,
    total_seconds: Annotated[float, typer.Option(help="Limit for one notebook.")] = 180.0,
    memory: Annotated[float, typer.Option(help="Limit for one process, in GiB.")] = 3.0,
    as_json: Json = False,
) -> None:
    """Grade submissions, each in a box of its own: points for each question, a JSON file, a feedback page.

    Exit code 1 if one of them could not be graded.
    """
    from pathlib import Path

    from .learn.grade import report
    from .learn.grade.grader import find, grade_files
    from .learn.grade.isolation import Limits, reach, words

    limits = Limits(cell_seconds=cell_seconds, total_seconds=total_seconds, memory=int(memory * 2**30))
    level, count = reach(isolation, force), len(find(files))
    with _bar(count, "graded", _wants_progress(as_json) and count > 1) as step:
        results = grade_files(
            files, master=master, out=out, isolation=level, force=force, seed=seed, limits=limits, jobs=jobs, done=step
        )
    several = count > 1 or any(map(Path.is_dir, map(Path, files)))
    table = report.write_table(results, Path(out)) if several else None
    if as_json:
        _print_json({"isolation": level, "results": [report.to_dict(result) for result in results]})
    else:
        print(f"Isolation: {words(level)}.")
        for result in results:
            print(report.line(result) if several else report.in_full(result))
        print(f"Written to {table or Path(out) / results[0].name}{'' if several else '.json and .html'}.")
    if any(result.error for result in results):
        raise typer.Exit(1)


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


def _note_start(names: list[str], as_json: bool) -> None:
    """Keep the start of exercise sets in the learner's progress; without it the copies are good all the same."""
    from .learn.progress import Event

    for name in names:
        _note(Event(name, "start"), as_json)


def _note(event: Any, as_json: bool = False) -> None:
    """Keep an event in the learner's progress, or say that it was not kept."""
    from contextlib import redirect_stdout

    from .learn.progress import record

    try:
        with redirect_stdout(sys.stderr if as_json else sys.stdout):  # it may have something to say
            record(event)
    except OSError as error:
        print(f"This was not noted in your progress: {error}", file=sys.stderr)


def _wants_progress(as_json: bool) -> bool:
    """Bars are for people who watch: not for JSON, a pipe or a file."""
    return not as_json and sys.stdout.isatty()


@contextmanager
def _bar(count: int, unit: str, shown: bool) -> Iterator[Callable[[Any], None]]:
    """A bar on stderr; gives the function that each finished piece is handed to."""
    from tqdm import tqdm

    with tqdm(total=count, unit=f" {unit}", disable=not shown) as bar:
        yield lambda _: bar.update() and None


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
