"""Commands about what a model costs: memory, claims, plan, compare."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .app import Json, app
from .output import print_json, print_table

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
    from .. import deploy

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
        return print_json(breakdown.to_dict() | found)
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
    from ..deploy import claims as ledger
    from ..deploy.claims.ledger import as_verdict

    given = ledger.Assumptions().set(*change or ())
    if assumptions:
        return print_json(given.to_dict()) if as_json else print(given)
    wanted = None if verdict is None else as_verdict(verdict)
    asked = [ledger.claim(one, given) for text in (*(ids or ()), *(id or ())) for one in text.split(",")]
    judged = list({one.id: one for one in asked}.values()) or ledger.claims(given)
    found = [one for one in judged if wanted in (None, one.verdict)]
    flips = [one for one in found if one.flipped]
    if contradictions:
        topics = [one for one in ledger.CONTRADICTIONS if {one.id for one in found} & set(one.claims)]
        if as_json:
            return print_json({"contradictions": [one.to_dict(given) for one in topics]})
        told = [one.in_words(given) for one in topics]
        return print("\n\n".join(told) or "These claims settle no contradiction.")
    if as_json:
        shown = [one.to_dict() for one in found]
        return print_json({"assumptions": given.to_dict(), "flips": [one.id for one in flips], "claims": shown})
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
    from ..deploy import assumptions
    from ..deploy.planning import advice, replica, tables
    from ..deploy.planning.plan import plan as ranked

    found = ranked(
        model, workload, latency=_seconds("latency", latency), per_token=_seconds("token-latency", token_latency),
        qps=qps, precisions=precision or None, among=instance or None, prompt=prompt, output=output,
        given=assumptions.changed(replica.Assumptions(), *settings or ()),
    )  # fmt: skip
    if as_json:
        return print_json(found.to_dict() | {"paragraph": advice.paragraph(found)})
    print(f"{found.model.name}, {found.workload} (assumed: {found.workload.why})\nTarget: {found.target}.\n")
    print_table(tables.options_table(found, everything))
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
    from ..deploy import assumptions
    from ..deploy.planning import advice, replica, tables
    from ..deploy.planning.compare import compare as compared

    found = compared(
        precisions, model, instance, workload,
        latency=_seconds("latency", latency), per_token=_seconds("token-latency", token_latency),
        prompt=prompt, output=output, given=assumptions.changed(replica.Assumptions(), *settings or ()),
    )  # fmt: skip
    said = [*advice.comparison(found), *advice.remedies(found), *advice.trust(found), found.prices()]
    if as_json:
        return print_json(found.to_dict() | {"sentences": said})
    print(f"{found.model.name} on {instance}, {found.workload} (assumed)\nTarget: {found.target}.\n")
    print_table(tables.comparison_table(found))
    print("", *said, sep="\n")


def _seconds(name: str, text: str | None) -> float | None:
    from ..deploy.serving.workloads import parse_seconds

    return None if text is None else parse_seconds(name, text)
