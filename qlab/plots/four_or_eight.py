"""Pictures of a decision between 16, 8 and 4 bits: memory of machines, seconds of answers, a queue, and the bill."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import nan

from matplotlib.ticker import NullLocator

from qlab.deploy.cost import machines
from qlab.deploy.fits import fits
from qlab.deploy.instances import HOURS_PER_MONTH, Instance, instance, instances
from qlab.deploy.memory import memory
from qlab.deploy.models import spec
from qlab.deploy.planning.options import Key
from qlab.deploy.planning.plan import best_split
from qlab.deploy.planning.replica import Assumptions, Replica
from qlab.deploy.planning.support import missing, served, usual
from qlab.deploy.serving.served import Served
from qlab.deploy.serving.workloads import duration, workload

from .style import BLUE, GRAY, GREEN, INK, ORANGE, RED, Figure, new_figure, styled

WIDTHS = {16: (GREEN, ":"), 8: (BLUE, "-"), 4: (ORANGE, "--")}  # bits of a weight: color, line
TWO = ((BLUE, "-", "o"), (ORANGE, "--", "s"))  # color, line, marker of the first and of the second
KERNELS = {"4-bit": "int4-g128", "INT8": "w8a8", "FP8": "fp8"}  # what a server computes with, as a precision
MODEL = "Llama-3.1-70B"
SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)  # marks on an axis
LOADS = tuple(10 ** (exponent / 40) for exponent in range(-12, 121))  # requests per second, 0.5 to 1,000


@styled
def on_instances(names: Sequence[str], model: str, precisions: Mapping[str, str], utilization: float = 0.92) -> Figure:
    """The memory that servers may use on rented machines, against the weights of a model: {label: precision}.

    Beside each machine stand, in words, the kernels that servers have for its GPUs.
    """
    rented = [instance(name) for name in names]
    usable = [_usable(name, model, utilization) for name in names]
    weights = {label: memory(model, precision).weights / 1e9 for label, precision in precisions.items()}
    low, high = min(*usable, *weights.values()) / 1.6, max(*usable, *weights.values()) * 1.25
    figure, axis = new_figure(8.4, 1.5 + 0.3 * len(rented))
    axis.barh(range(len(rented)), usable, left=0, color="#D5D5D5", height=0.66)
    words = []
    for y, (one, room) in enumerate(zip(rented, usable, strict=True)):
        found = [name for name, precision in KERNELS.items() if missing(precision, one.gpu) is None]
        text = ", ".join(found) or "none of these"
        axis.text(high * 1.06, y, text, va="center", fontsize=9, color=INK if found else RED)
        words.append(f"{one.name} {room:,.0f} GB, kernels: {text}")
    for label, size in weights.items():
        axis.axvline(size, color=INK, linewidth=1.2)
        axis.text(size, -0.75, f"{label}\n{size:.1f} GB", ha="center", va="bottom", fontsize=8)
    axis.text(high * 1.06, -0.75, "kernels", va="bottom", fontsize=9)
    axis.set_yticks(range(len(rented)), [f"{one.name}, {one.count} x {one.gpu.name}" for one in rented])
    axis.set_ylim(len(rented) - 0.4, -0.6)
    axis.set(xscale="log", xlim=(low, high))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axis.set_xlabel(f"GB for weights and cache: {utilization:.0%} of what CUDA shows, less 1.5 GB a GPU (log scale)")
    axis.set_title(f"{model}: a bar that ends before a line does not hold those weights", pad=34)
    figure.alt = (
        "Usable memory of rented machines. "
        + "; ".join(words)
        + ". Weights: "
        + ", ".join(f"{label} {size:.1f} GB" for label, size in weights.items())
        + "."
    )
    return figure


@styled
def answer_times(lines: Mapping[str, tuple[float, float]], most: int, title: str) -> Figure:
    """Seconds of an answer against its tokens, for a request alone: {name: (to the first token, each further one)}.

    Two names. Where their lines cross, the other one begins to be sooner; a dotted line stands there.
    """
    figure, axis = new_figure(7.0, 3.4)
    tokens = [1, most]
    for (name, (first, each)), (color, style, _) in zip(lines.items(), TWO, strict=True):
        seconds = [first + (count - 1) * each for count in tokens]
        axis.plot(tokens, seconds, color=color, linestyle=style, linewidth=2, label=name)
    said = []
    (first, each), (first_other, each_other) = lines.values()
    if (first - first_other) * (each - each_other) < 0:
        even = 1 + (first_other - first) / (each - each_other)
        axis.axvline(even, color=INK, linestyle=":", linewidth=1)
        axis.annotate(f"equal at {even:.0f} tokens", (even, 0), (6, 6), textcoords="offset points", fontsize=9)
        said.append(f"equal at {even:.0f} tokens")
    axis.set(xlim=(1, most), ylim=(0, None))
    axis.set_xlabel("tokens of the answer")
    axis.set_ylabel("seconds until the last one")
    axis.set_title(title)
    axis.legend(loc="upper left")
    said += [f"{name}: {first:.3g} s to the first token, {1e3 * each:.3g} ms for each further one"
             for name, (first, each) in lines.items()]  # fmt: skip
    figure.alt = f"{title}. {'; '.join(said)}."
    return figure


@styled
def timeline(run: Served, title: str) -> Figure:
    """A few requests of a simulated server: when each waits, when its prompt is computed, when its tokens come."""
    figure, axis = new_figure(7.6, 1.3 + 0.42 * len(run.timings))
    words = []
    for y, timing in enumerate(run.timings):
        arrival = timing.request.arrival
        axis.barh(y, timing.wait, left=arrival, height=0.5, color="#D5D5D5", label="waits" if not y else None)
        axis.barh(y, timing.first_token - timing.admitted, left=timing.admitted, height=0.5, color=ORANGE,
                  label="prompt computed" if not y else None)  # fmt: skip
        axis.barh(y, timing.finished - timing.first_token, left=timing.first_token, height=0.5, color=BLUE,
                  label="answer written" if not y else None)  # fmt: skip
        axis.plot(run.token_times(y), [y] * timing.request.output, "|", color=INK, markersize=14, markeredgewidth=2,
                  label="a token" if not y else None)  # fmt: skip
        words.append(
            f"request {y + 1} arrives at {arrival:g} s, is let in at {timing.admitted:g} s, has its first token at "
            f"{timing.first_token:g} s and its last at {timing.finished:g} s"
        )
    for step in run.steps:
        axis.axvline(step.end, color=GRAY, linewidth=0.6, zorder=0)
    names = [f"request {y + 1}: {one.request.prompt} in, {one.request.output} out" for y, one in enumerate(run.timings)]
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set_xlim(0, run.steps[-1].end + 0.1)
    axis.set_xlabel("seconds; a gray line ends each step")
    axis.set_title(title)
    figure.legend(loc="outside lower center", ncols=4)
    figure.alt = f"{title}: {'; '.join(words)}."
    return figure


@styled
def answers_against_load(runs: Mapping[str, Sequence[Served]], limit: float, percent: float = 95) -> Figure:
    """Seconds to the last token, median and a high percentile, against requests per second: one server each.

    Args:
        runs: by name the runs of two servers, each at several finite loads.
        limit: seconds that the percentile is to stay below.
    """
    figure, axis = new_figure(7.6, 3.8)
    words = []
    for (name, given), (color, _, marker) in zip(runs.items(), TWO, strict=True):
        ordered = sorted(given, key=lambda run: run.offered)
        load = [run.offered for run in ordered]
        middle, tail = [run.latency(50) for run in ordered], [run.latency(percent) for run in ordered]
        axis.plot(load, tail, "-", marker=marker, color=color, markersize=4, label=f"{name}: {percent:g} % are faster")
        axis.plot(load, middle, ":", marker=marker, color=color, markersize=4, label=f"{name}: half are faster")
        words.append(
            f"{name} from {load[0]:.2g} to {load[-1]:.2g} requests per second: median {middle[0]:.2g} to "
            f"{middle[-1]:.2g} s, percentile {percent:g} {tail[0]:.2g} to {tail[-1]:.2g} s"
        )
    axis.axhline(limit, color=INK, linewidth=1)
    axis.text(1, limit, f"limit {duration(limit)} ", transform=axis.get_yaxis_transform(), ha="right", va="bottom",
              fontsize=9)  # fmt: skip
    axis.set(yscale="log", xlim=(0, None))
    axis.set_yticks(SECONDS, [f"{value:g}" for value in SECONDS])
    axis.yaxis.set_minor_locator(NullLocator())
    lowest, highest = axis.dataLim.intervaly
    axis.set_ylim(lowest / 1.2, highest * 1.2)
    axis.set_xlabel("requests per second that arrive")
    axis.set_ylabel("seconds to the last token (log scale)")
    axis.set_title("The wait grows long before the server is full")
    axis.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=2)
    figure.alt = f"Seconds of answers against load, limit {duration(limit)}. {'; '.join(words)}."
    return figure


@dataclass(frozen=True)
class Machine:
    """A way to serve: its name, USD per hour, and the requests per second that it bears within the target."""

    name: str
    usd_per_hour: float
    rate: float

    def usd_per_month(self, load: float) -> float:
        """USD for as many of them as a load takes."""
        return machines(load, self.rate) * self.usd_per_hour * HOURS_PER_MONTH


def cheapest(ways: Iterable[Machine], load: float) -> Machine | None:
    """The way that costs least at a load, or None where there is none."""
    return min(ways, key=lambda way: way.usd_per_month(load), default=None)


@styled
def bills(ways: Mapping[int, Sequence[Machine]], at: float, title: str, note: str = "") -> Figure:
    """USD per month against the load, by bits of a weight: each line takes the cheapest of its ways at every load.

    Args:
        ways: by bits, 16, 8 or 4, the ways to serve; none where no way meets the target.
        at: requests per second at which the ways are compared in words, with a line drawn there.
    """
    figure, axis = new_figure(7.8, 4.4)
    words = []
    for bits, (color, style) in WIDTHS.items():
        given = ways.get(bits, ())
        usd = [best.usd_per_month(load) if (best := cheapest(given, load)) else nan for load in LOADS]
        if given:
            axis.plot(LOADS, usd, color=color, linestyle=style, linewidth=2, drawstyle="steps-post")
        said = "nothing meets the target"
        if (best := cheapest(given, at)) is not None:
            said = f"{best.usd_per_month(at):,.0f} USD, {machines(at, best.rate)} x {best.name}"
        axis.plot([], [], color=color, linestyle=style, linewidth=2, label=f"{bits} bits: {said}")
        words.append(f"{bits} bits: {said}")
    axis.axvline(at, color=INK, linewidth=1)
    axis.set(xscale="log", yscale="log", xlim=(LOADS[0], LOADS[-1]))
    if not any(ways.values()):  # no line sets the axis
        axis.set_ylim(1e3, 1e6)
        axis.text(0.5, 0.5, "nothing meets the target", transform=axis.transAxes, ha="center")
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axis.set_xlabel("requests per second (log scale)")
    axis.set_ylabel("USD per month (log scale)")
    axis.set_title(title)
    axis.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=1, title=note or None, title_fontsize=9)
    figure.alt = f"{title}. At {at:g} per second: {'; '.join(words)}. {note}".strip()
    return figure


def bill_by_load(
    latency: float = 0.2, load: float = 50, prompt: int = 1024, answer: int = 8, nvfp4: bool = False
) -> Figure:
    """`bills` of Llama-3.1-70B on every machine that is known, with what the analytic estimate says that it bears.

    Args:
        latency: seconds within which 95 % of the answers are to be whole.
        load: requests per second at which the precisions are compared.
        prompt, answer: mean tokens; prompts vary, answers do not.
        nvfp4: whether 4 bits may also be multiplied in 4 bits, where the GPU can.
    """
    ways: dict[int, list[Machine]] = {bits: [] for bits in WIDTHS}
    for precision, given in ways_to_serve(latency, prompt, answer).items():
        if nvfp4 or precision != "nvfp4":
            ways[served(precision).weights.bits] += given
    usd = {bits: best.usd_per_month(load) for bits, given in ways.items() if (best := cheapest(given, load))}
    winners = " and ".join(f"{bits} bits" for bits, price in usd.items() if price == min(usd.values()))
    title = f"{MODEL}, {prompt:,} tokens in, {answer} out, within {duration(latency)}"
    title += f"\ncheapest at {load:g} per second: {winners or 'nothing'}"
    return bills(ways, load, title, "estimated, not simulated: most servers bear less, and cost more")


@lru_cache(maxsize=256)
def ways_to_serve(latency: float, prompt: int, answer: int) -> dict[str, list[Machine]]:
    """By precision, what machines bear of `recommend` requests within a limit, by `engine.estimate`.

    Of machines with the same GPUs the cheapest is taken.
    """
    shape, model, given = workload("recommend", prompt, answer), spec(MODEL), Assumptions()
    target = shape.target(latency)
    kinds: dict[tuple[str, int], Instance] = {}
    priced = [one for one in instances().values() if one.price_usd_per_hour and one.gpu.memory_visible_gib]
    for rented in sorted(priced, key=lambda one: one.price_usd_per_hour or 0.0):
        kinds.setdefault((rented.gpu.name, rented.count), rented)
    replicas: dict[Key, Replica] = {}
    found: dict[str, list[Machine]] = {}
    for rented in kinds.values():
        for precision in (*usual(rented.gpu), "nvfp4"):
            one = best_split(model, precision, rented, shape, target, given, known=replicas)
            if one.possible:
                way = Machine(f"{rented.name}, {precision}", rented.price_usd_per_hour or 0.0, one.rate)
                found.setdefault(precision, []).append(way)
    return found


def _usable(name: str, model: str, utilization: float) -> float:
    """GB for weights and cache on all GPUs of a machine together; `fits` sets 1.5 GB aside on each."""
    fit = fits(model, name, precision="int4-g128", utilization=utilization)
    return fit.gpus * (fit.budget + fit.breakdown.weights) / 1e9
