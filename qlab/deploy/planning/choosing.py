"""Which method for this GPU, this traffic and this floor of quality: questions in order, each decided by a number.

    What fits?            weights and the cache of all requests at once, in 16, 8 and 4 bits           (deploy.fits)
    Kernels?              what servers have for this GPU                                      (planning.support)
    What takes the time?  with P weights, p tokens of prompt, o of answer and b requests at once, in 16 bits
                              prompt = p · 2P / rate        tokens = o · max(2P / (b · bandwidth), 2P / rate)
                          8-bit arithmetic halves both, 4-bit weights quarter the bytes of the tokens alone:
                          (prompt + tokens) / 2 < prompt + tokens / 4  if and only if  tokens < 2 · prompt
    How many at once?     fewer than the batch from which a whole request takes no longer with 8-bit arithmetic, at
                          what kernels reach                                            (phases.prefill, decode)
    Calibration data?     without it only methods that look at none are left
    Within the floor?     whether the flips rule out that a workload loses more than that       (power.Flips)

Methods of one kind take the same time, so they are tried in a fixed order: 4-bit ones by KL, the least first; FP8
before INT8, which needs smoothing. What is left when these fail is tried by computed time. Each try lets a method
pass that loses more than the floor in at most 2.5 % of all sets of examples, however many workloads there are: it has
to pass on each. With k tries that is at most k · 2.5 %, and `Decision.tried` has them.

`seconds` is the calibrated time of the same request, and `obstacle` what speaks against a method: with them every
decision can be compared with all others. Quality is that of the table of answers that is given. By default it is
nano's, a stand-in: a decision for your model needs the answers of your model.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import inf
from typing import NamedTuple

from ..fits import Fit, fits
from ..hardware import gpu
from ..quality.measured import REFERENCE, Quality, quality
from ..quality.power import flips
from ..roofline import datasheet
from ..serving.traffic import check_count
from ..speed.efficiency import Stack
from ..speed.phases import decode, prefill, weight_bytes
from .support import missing, usual

FOUR_BITS = ("GPTQ INT4 g128", "AWQ INT4 g128", "INT4 g128")
PRECISIONS = {  # how a server computes with the methods of the quality file; for the others it has no fast kernels
    "INT8 channel": "int8-channel",
    "W8A8": "w8a8",
    "FP8": "fp8",
    **dict.fromkeys(FOUR_BITS, "int4-g128"),
}
WIDTHS = {"16 bits": "bf16", "8 bits": "int8-channel", "4 bits": "int4-g128"}  # as they are stored


@dataclass(frozen=True)
class Situation:
    """Who asks for what, where. `workloads` are those that matter; none named: all that were measured.

    Raises:
        TypeError: a field of the wrong kind, such as a text for `calibration` or a single name for `workloads`.
        ValueError: a count below 1, or a floor outside 0 to 0.5.
    """

    gpu: str = "A100-80GB"
    model: str = "Llama-3.1-8B"
    gpus: int = 1  # that share the model
    batch: int = 8  # requests at once
    prompt: int = 512  # tokens of a request
    output: int = 256  # tokens of its answer
    calibration: bool = True  # whether there are texts like those of the traffic
    most_lost: float = 0.02  # accuracy that the worst workload may lose, 0.02 for two points
    workloads: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("gpus", "batch", "prompt", "output"):
            check_count(name, getattr(self, name))
        if not isinstance(self.calibration, bool):
            raise TypeError(f"calibration: got {self.calibration!r}; give True or False")
        check_floor("most_lost", self.most_lost)
        if not isinstance(self.workloads, tuple) or not all(isinstance(name, str) for name in self.workloads):
            raise TypeError(f"workloads: got {self.workloads!r}; give a tuple of names such as ('sql',)")


def check_floor(name: str, value: object) -> None:
    """Raise TypeError or ValueError unless this is a part of one that a workload may lose; a 1 would be 100 points."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: got {value!r}; give a number, 0.02 for two points")
    if not 0 <= value <= 0.5:
        raise ValueError(f"{name}: got {value!r}; allowed is 0 to 0.5, a part of one, 0.02 for two points")


class Step(NamedTuple):
    """A question, its answer in a few words, the numbers behind it, and the number that decides, in short."""

    question: str
    answer: str
    why: str
    number: str = ""


@dataclass(frozen=True)
class Decision:
    """The method, by its name in the quality file, and how it was reached; None where nothing is left."""

    method: str | None
    steps: tuple[Step, ...]
    tried: tuple[str, ...] = ()  # methods that were held against the floor, in order

    def __str__(self) -> str:
        lines = [f"{step.question} {step.answer}: {step.why}" for step in self.steps]
        return "\n".join([*lines, f"-> {self.method or 'nothing is left'}"])


def choose(situation: Situation, measured: Quality | None = None, kernels: str | Stack = "server") -> Decision:
    """Ask the questions of this module in order, and take the first method that nothing speaks against.

    4-bit weights come first where there are few requests at once and the tokens take the time, 8-bit arithmetic
    elsewhere and next. If both fail: 16 bits, 8-bit weights and 4-bit weights by computed time.

    Args:
        kernels: the stack that times are of, see `efficiency.stack`; "datasheet" reaches everything.

    Raises:
        TypeError, ValueError: an unknown GPU, model or workload, or a request that is too long for the model.
    """
    table = quality() if measured is None else measured
    check_workloads(situation.workloads, table)
    widths = [width for width in WIDTHS if _fit(situation, width).fits]
    steps = [fitting(situation)]
    if not widths:
        return Decision(None, tuple(steps))
    steps.append(available(situation))
    if steps[-1].answer == "none":
        return Decision(REFERENCE if "16 bits" in widths else None, tuple(steps))
    steps.append(binding(situation))
    few = steps[-1].answer == "tokens"
    if few:
        steps.append(at_once(situation, kernels))
        few = steps[-1].answer == "few"

    def that_fit(*methods: str) -> tuple[str, ...]:
        return tuple(method for method in methods if _width(method) in widths)

    four, eight = that_fit(*four_bits(situation, table)), that_fit(*arithmetic(situation))
    whole = that_fit("INT8 channel") if four else ()  # the kernels that unpack 4-bit weights unpack 8-bit ones
    first = [kind for kind in ((four, eight) if few else (eight,)) if kind]
    rest = [kind for kind in (four, whole, that_fit(REFERENCE)) if kind and kind not in first]
    rest.sort(key=lambda kind: seconds(situation, kind[0], kernels))
    tried: tuple[str, ...] = ()
    for place, kind in enumerate([*first, *rest]):
        if place == len(first) and len(rest) > 1:
            steps.append(fastest(situation, [one[0] for one in rest], kernels))
        if kind == (REFERENCE,):
            return Decision(REFERENCE, tuple(steps), tried)
        if kind is four:
            steps.append(calibrated(situation, four, table))
        steps.append(within(situation, kind, table))
        if steps[-1].answer in kind:
            tried += kind[: kind.index(steps[-1].answer) + 1]
            return Decision(tried[-1], tuple(steps), tried)
        tried += kind
    return Decision(None, tuple(steps), tried)


def fitting(situation: Situation) -> Step:
    """The widest weights that leave room for the cache of all requests."""
    found = {width: _fit(situation, width) for width in WIDTHS}
    widest = next((width for width, fit in found.items() if fit.fits), None)
    fit = found[widest or "4 bits"]
    left, cache = fit.budget / 1e9, fit.breakdown.kv_cache / 1e9
    why = f"{widest or '4 bits'} leave {left:.1f} GB for a cache of {cache:.1f}"
    return Step("What fits?", widest or "nothing", why, f"{left:.0f} {'≥' if widest else '<'} {cache:.1f} GB")


def available(situation: Situation) -> Step:
    """The kernels for this GPU: weights that are unpacked, and 8-bit arithmetic."""
    where = gpu(situation.gpu)
    named = {"INT4": WIDTHS["4 bits"], "INT8": PRECISIONS["W8A8"], "FP8": PRECISIONS["FP8"]}
    found = [name for name, precision in named.items() if missing(precision, where) is None]
    why = f"what servers have for {where.architecture}, compute capability {where.compute_capability}"
    return Step("Kernels?", ", ".join(found) or "none", why, f"capability {where.compute_capability}")


def binding(situation: Situation) -> Step:
    """Prompt or tokens, by the data sheet; the tokens have to take twice the time of the prompt."""
    prompt, tokens = request_seconds(situation)
    answer = "tokens" if tokens > 2 * prompt else "prompt"
    why = f"tokens {1000 * tokens:,.0f} ms, prompt {1000 * prompt:,.0f} ms (16 bits, data sheet)"
    return Step("What takes the time?", answer, why, f"{tokens / prompt:.2g} × prompt")


def at_once(situation: Situation, kernels: str | Stack = "server") -> Step:
    """The requests at once against the number from which 8-bit arithmetic overtakes 4-bit weights."""
    even = break_even(situation, kernels)
    few = situation.batch < even
    why = f"{situation.batch} at once; 8-bit arithmetic is as fast from {even:.0f} on"
    return Step(
        "How many at once?", "few" if few else "many", why, f"{situation.batch} {'<' if few else '≥'} {even:.0f}"
    )


def break_even(situation: Situation, kernels: str | Stack = "server") -> float:
    """Requests at once from which on a whole request takes no longer with 8-bit arithmetic than with 4-bit weights.

    Prompt and tokens are as `seconds` counts them. inf if it is above 4,096, or where there is no 8-bit arithmetic.
    """
    eight = arithmetic(situation)
    if not eight:
        return inf

    def overtaken(batch: int) -> bool:
        here = replace(situation, batch=batch)
        return seconds(here, eight[0], kernels) <= seconds(here, FOUR_BITS[-1], kernels)

    batches = range(1, 4097)
    first = bisect_left(batches, True, key=overtaken)
    return batches[first] if first < len(batches) else inf


def arithmetic(situation: Situation) -> tuple[str, ...]:
    """The methods that compute in 8 bits on this GPU, FP8 before INT8, which needs smoothing; none if neither can."""
    return tuple(name for name in ("FP8", "W8A8") if missing(PRECISIONS[name], gpu(situation.gpu)) is None)


def four_bits(situation: Situation, measured: Quality | None = None) -> tuple[str, ...]:
    """The 4-bit methods that need no more than there is, the one with the least KL first; none without kernels."""
    table = quality() if measured is None else measured
    if missing(WIDTHS["4 bits"], gpu(situation.gpu)):
        return ()
    known = [table.method(name) for name in FOUR_BITS]
    able = [one for one in known if situation.calibration or "calibration" not in one.arguments]
    return tuple(one.name for one in sorted(able, key=lambda one: one.kl))


def calibrated(situation: Situation, methods: Sequence[str], measured: Quality | None = None) -> Step:
    """Whether there is calibration data, and the methods that are left, in the order in which they are tried."""
    table = quality() if measured is None else measured
    why = ", ".join(f"{name} {table.method(name).kl:.2g}" for name in methods)
    number = f"{len(methods)} to try"
    return Step("Calibration data?", "yes" if situation.calibration else "no", f"KL {why}", number)


def within(situation: Situation, methods: Sequence[str], measured: Quality | None = None) -> Step:
    """The first of some methods for which the examples rule out that a workload loses more than the floor allows."""
    answer, least, tries, floor = "none", inf, [], 100 * situation.most_lost
    for method in methods:
        most, where = most_lost(method, situation.workloads, measured)
        least = min(least, most)
        tries.append(f"{method} {100 * most:.2g} on {where}")
        if most <= situation.most_lost:
            answer = method
            break
    number = f"{100 * least:.2g} {'>' if answer == 'none' else '≤'} {floor:.2g}"
    why = f"points lost, at most: {', '.join(tries)}; allowed {floor:.2g}"
    return Step(f"{_kind(methods[0])} within the floor?", answer, why, number)


def fastest(situation: Situation, methods: Sequence[str], kernels: str | Stack = "server") -> Step:
    """What is left without the kinds that failed, the fastest first."""
    times = {name: 1000 * seconds(situation, name, kernels) for name in methods}
    why = ", ".join(f"{_kind(name)} {time:,.0f} ms" for name, time in times.items())
    number = " < ".join(f"{time:,.0f}" for time in times.values()) + " ms"
    return Step("Fastest of the rest?", ", ".join(map(_kind, times)), f"computed: {why}", number)


def most_lost(method: str, workloads: Sequence[str] = (), measured: Quality | None = None) -> tuple[float, str]:
    """The largest loss of accuracy that the examples do not rule out, and the workload, or how many, that have it.

    It is the largest of the workloads' bounds, each the lower end of a 95 % interval. The largest needs no correction
    for their number: it is too small only if the bound of the worst workload itself is, which is in 2.5 % of all sets.

    Raises ValueError for an unknown method or workload.
    """
    table = quality() if measured is None else measured
    check_workloads(workloads, table)
    if method == REFERENCE:
        return 0.0, "none"
    before, after = table.method(REFERENCE).answers, table.method(method).answers
    bounds = {name: _bound(before[name].correct, after[name].correct) for name in workloads or table.workloads}
    most = max(bounds.values())
    where = [name for name, bound in bounds.items() if bound == most]
    return most, " and ".join(where) if len(where) < 3 else f"{len(where)} workloads alike"


@lru_cache(maxsize=1024)
def _bound(before: tuple[bool, ...], after: tuple[bool, ...]) -> float:
    """What `most_lost` asks of one workload; kept, as every decision asks it of the same few tables again."""
    return -flips(before, after).change_interval()[0]


def check_workloads(workloads: Sequence[str], measured: Quality) -> None:
    """Raise ValueError unless all of them were measured."""
    if unknown := set(workloads) - set(measured.workloads):
        raise ValueError(f"workloads: got {', '.join(sorted(unknown))}; choose from {', '.join(measured.workloads)}")


def request_seconds(situation: Situation) -> tuple[float, float]:
    """Seconds of the GPU for the prompt and the tokens of one request, in 16 bits, by the data sheet alone.

    Decode is shared by the batch, so these are parts of the GPU's time; a user waits `batch` times as long.
    """
    limits, moved = datasheet(situation.gpu), weight_bytes(situation.model, "bf16")  # 2P bytes, and 2P operations
    prompt = situation.prompt * moved / limits.rates["fp16"]
    tokens = situation.output * max(moved / (situation.batch * limits.bandwidth), moved / limits.rates["fp16"])
    return prompt / situation.gpus, tokens / situation.gpus


def seconds(situation: Situation, method: str, kernels: str | Stack = "server") -> float:
    """Seconds of a replica for each request while `batch` are served at once, by the calibrated model of `phases`.

    One of them is done in every such time, and each stays for `batch` of them: that is what a user waits (Little).

    Raises ValueError for a method that servers have no fast kernels for.
    """
    precision, context = _precision(situation, method), situation.prompt + situation.output / 2
    first = prefill(
        situation.model, precision, situation.gpu, situation.prompt, tensor_parallel=situation.gpus, kernels=kernels
    )
    step = decode(
        situation.model, precision, situation.gpu, situation.batch, context,
        tensor_parallel=situation.gpus, kernels=kernels,
    )  # fmt: skip
    return first.seconds + situation.output * step.seconds / situation.batch


def obstacle(situation: Situation, method: str, measured: Quality | None = None) -> str | None:
    """Why a method is no option here, in words, or None: kernels, memory, calibration data, the floor."""
    table = quality() if measured is None else measured
    one = table.method(method)
    if method not in (REFERENCE, *PRECISIONS):
        return "no server kernels"
    if missing(_precision(situation, method), gpu(situation.gpu)):
        return "no kernels on this GPU"
    if not _fit(situation, _width(method)).fits:
        return "does not fit"
    if "calibration" in one.arguments and not situation.calibration:
        return "needs calibration data"
    most, where = most_lost(method, situation.workloads, table)
    if most > situation.most_lost:
        return f"may lose {100 * most:.2g} points on {where}"
    return None


def _kind(method: str) -> str:
    if method in FOUR_BITS:
        return "4 bits"
    return {REFERENCE: "16 bits", "INT8 channel": "8-bit weights"}.get(method, "8-bit arithmetic")


def _width(method: str) -> str:
    return "16 bits" if method == REFERENCE else "4 bits" if method in FOUR_BITS else "8 bits"


def _precision(situation: Situation, method: str) -> str:
    if method == REFERENCE:
        return usual(gpu(situation.gpu))[0]
    if method not in PRECISIONS:
        raise ValueError(f"method: servers have no fast kernels for {method!r}; choose from {', '.join(PRECISIONS)}")
    return PRECISIONS[method]


def _fit(situation: Situation, width: str) -> Fit:
    context = situation.prompt + situation.output
    return fits(
        situation.model, gpu(situation.gpu), precision=WIDTHS[width], batch=situation.batch, context=context,
        tensor_parallel=situation.gpus,
    )  # fmt: skip
