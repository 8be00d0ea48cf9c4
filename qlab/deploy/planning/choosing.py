"""Which method for this GPU, this traffic and this floor of quality: questions in order, each decided by a number.

    What fits?            weights and the cache of all requests at once, in 16, 8 and 4 bits           (deploy.fits)
    Kernels?              what servers have for this GPU                                      (planning.support)
    What takes the time?  with P weights, p tokens of prompt, o of answer and b requests at once, in 16 bits
                              prompt = p · 2P / rate        tokens = o · max(2P / (b · bandwidth), 2P / rate)
                          8-bit arithmetic halves both, 4-bit weights quarter the bytes of the tokens alone:
                          (prompt + tokens) / 2 < prompt + tokens / 4  if and only if  tokens < 2 · prompt
    How many at once?     at the data sheet 8-bit arithmetic overtakes 4-bit weights at b = rate / (2 · bandwidth);
                          what kernels reach moves that number                                (phases.crossover, decode)
    Calibration data?     without it only methods that look at none are left
    Within the floor?     whether the flips show that no workload loses more than that        (power.Flips)

`seconds` is the calibrated time of the same request, and `obstacle` what speaks against a method: with them every
decision can be compared with all others. Quality is that of the table of answers that is given. By default it is
nano's, a stand-in: a decision for your model needs the answers of your model.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from ..fits import Fit, fits
from ..hardware import gpu
from ..quality.measured import REFERENCE, Quality, quality
from ..quality.power import flips
from ..roofline import datasheet
from ..serving.traffic import check_count
from ..speed.phases import crossover, decode, prefill, weight_bytes
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

    Raises ValueError for a count below 1, or a floor outside 0 to 1.
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
        if not 0 <= self.most_lost <= 1:
            raise ValueError(f"most_lost: got {self.most_lost!r}; give a part of one, 0.02 for two points")


class Step(NamedTuple):
    """A question, its answer in a few words, and the numbers behind it."""

    question: str
    answer: str
    why: str


@dataclass(frozen=True)
class Decision:
    """The method, by its name in the quality file, and how it was reached; None where nothing is left."""

    method: str | None
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        lines = [f"{step.question} {step.answer}: {step.why}" for step in self.steps]
        return "\n".join([*lines, f"-> {self.method or 'nothing is left'}"])


def choose(situation: Situation, measured: Quality | None = None, kernels: str = "server") -> Decision:
    """Ask the questions of this module in order, and take the first method that nothing speaks against.

    Where bytes are the limit: 4-bit weights, 8-bit arithmetic, 8-bit weights, 16 bits. Where arithmetic is: 8-bit
    arithmetic, 16 bits, and narrower weights only where 16 bits do not fit. Of the 4-bit methods the one with the least
    KL is asked for, and no other if it fails: to try them one after another on the same examples is to wait for a
    lucky draw.

    Args:
        kernels: the stack that the break-even is of, see `break_even`.

    Raises:
        TypeError, ValueError: an unknown GPU, model or workload, or a request that is too long for the model.
    """
    table = quality() if measured is None else measured
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
    narrow = missing(WIDTHS["4 bits"], gpu(situation.gpu)) is None  # the same kernels read 8-bit weights
    four, whole = ([four_bits(situation, table)], ["INT8 channel"]) if narrow else ([], [])
    eight = [name for name in [arithmetic(situation)] if name]
    order = [*four, *eight, *whole, REFERENCE] if few else [*eight, REFERENCE, *whole, *four]
    for method in order:
        if _width(method) not in widths:
            continue
        if method == REFERENCE:
            return Decision(method, tuple(steps))
        if method in FOUR_BITS:
            steps.append(calibrated(situation, method, table))
        steps.append(within(situation, method, table))
        if steps[-1].answer == "yes":
            return Decision(method, tuple(steps))
    return Decision(None, tuple(steps))


def fitting(situation: Situation) -> Step:
    """The widest weights that leave room for the cache of all requests."""
    found = {width: _fit(situation, width) for width in WIDTHS}
    widest = next((width for width, fit in found.items() if fit.fits), None)
    fit = found[widest or "4 bits"]
    answer = widest or "nothing"
    cache = fit.breakdown.kv_cache / 1e9
    why = f"{widest or '4 bits'} leave {fit.budget / 1e9:.1f} GB for a cache of {cache:.1f}"
    return Step("What fits?", answer, why)


def available(situation: Situation) -> Step:
    """The kernels for this GPU: weights that are unpacked, and 8-bit arithmetic."""
    eight = arithmetic(situation)
    found = ["INT4"] if missing(WIDTHS["4 bits"], gpu(situation.gpu)) is None else []
    found += [{"W8A8": "INT8"}.get(eight, eight)] if eight else []
    return Step("Kernels?", ", ".join(found) or "none", f"what servers have for {gpu(situation.gpu).architecture}")


def binding(situation: Situation) -> Step:
    """Prompt or tokens, by the data sheet; the tokens have to take twice the time of the prompt."""
    prompt, tokens = request_seconds(situation)
    answer = "tokens" if tokens > 2 * prompt else "prompt"
    why = f"tokens {1000 * tokens:.3g} ms, prompt {1000 * prompt:.3g} ms (16 bits, data sheet)"
    return Step("What takes the time?", answer, why)


def at_once(situation: Situation, kernels: str = "server") -> Step:
    """The requests at once against the number where 8-bit arithmetic overtakes 4-bit weights."""
    even = break_even(situation, kernels)
    answer = "few" if situation.batch < even else "many"
    return Step("How many at once?", answer, f"{situation.batch} at once, break-even {even:.0f} on {situation.gpu}")


def break_even(situation: Situation, kernels: str = "server") -> float:
    """Requests at once from which on a step of decode takes no longer with 8-bit arithmetic than with 4-bit weights.

    With "datasheet" it is `phases.crossover`, the number for a whiteboard. With another stack of `efficiency.stack` it
    is the smallest such batch; inf if it is above 4,096, or where there is no 8-bit arithmetic.
    """
    if kernels == "datasheet":
        return crossover(situation.gpu, 8)
    eight = arithmetic(situation)
    if eight is None:
        return inf

    def overtaken(batch: int) -> bool:
        wide, narrow = (
            decode(
                situation.model, precision, situation.gpu, batch, situation.prompt + situation.output / 2,
                tensor_parallel=situation.gpus, kernels=kernels,
            ).seconds
            for precision in (PRECISIONS[eight], WIDTHS["4 bits"])
        )  # fmt: skip
        return wide <= narrow

    batches = range(1, 4097)
    first = bisect_left(batches, True, key=overtaken)
    return batches[first] if first < len(batches) else inf


def arithmetic(situation: Situation) -> str | None:
    """The method that computes in 8 bits on this GPU, FP8 before INT8, which needs smoothing; None if neither can."""
    return next((name for name in ("FP8", "W8A8") if missing(PRECISIONS[name], gpu(situation.gpu)) is None), None)


def calibrated(situation: Situation, method: str, measured: Quality | None = None) -> Step:
    """Whether there is calibration data, and the method that follows."""
    kl = (quality() if measured is None else measured).method(method).kl
    return Step("Calibration data?", "yes" if situation.calibration else "no", f"{method}, KL {kl:.2g}")


def within(situation: Situation, method: str, measured: Quality | None = None) -> Step:
    """Whether the examples show that no workload loses more than the floor allows."""
    most, workload = most_lost(method, situation.workloads, measured)
    answer = "yes" if most <= situation.most_lost else "no"
    why = f"{method}: up to {100 * most:.1f} points on {workload}, allowed {100 * situation.most_lost:.1f}"
    kind = "4 bits" if method in FOUR_BITS else "8-bit weights" if method == "INT8 channel" else "8-bit arithmetic"
    return Step(f"{kind} within the floor?", answer, why)


def four_bits(situation: Situation, measured: Quality | None = None) -> str:
    """Of the 4-bit methods that need no more than there is, the one with the least KL."""
    table = quality() if measured is None else measured
    known = [table.method(name) for name in FOUR_BITS]
    return min(
        (one for one in known if situation.calibration or "calibration" not in one.arguments), key=lambda one: one.kl
    ).name


def most_lost(method: str, workloads: tuple[str, ...] = (), measured: Quality | None = None) -> tuple[float, str]:
    """The largest loss of accuracy that the examples do not rule out (95 %, two-sided), and the workload that has it.

    Raises ValueError for an unknown method or workload.
    """
    table = quality() if measured is None else measured
    if unknown := set(workloads) - set(table.workloads):
        raise ValueError(f"workloads: got {', '.join(sorted(unknown))}; choose from {', '.join(table.workloads)}")
    if method == REFERENCE:
        return 0.0, (workloads or table.workloads)[0]
    before, after = table.method(REFERENCE).answers, table.method(method).answers
    bounds = {
        name: -flips(before[name].correct, after[name].correct).change_interval()[0]
        for name in workloads or table.workloads
    }
    worst = max(bounds, key=lambda name: bounds[name])
    return bounds[worst], worst


def request_seconds(situation: Situation) -> tuple[float, float]:
    """Seconds of the prompt and of the tokens of one request, in 16 bits, by the data sheet alone."""
    limits, moved = datasheet(situation.gpu), weight_bytes(situation.model, "bf16")  # 2P bytes, and 2P operations
    prompt = situation.prompt * moved / limits.rates["fp16"]
    tokens = situation.output * max(moved / (situation.batch * limits.bandwidth), moved / limits.rates["fp16"])
    return prompt / situation.gpus, tokens / situation.gpus


def seconds(situation: Situation, method: str) -> float:
    """Seconds of a replica for each request while `batch` are served at once, by the calibrated model of `phases`.

    Raises ValueError for a method that servers have no fast kernels for.
    """
    precision = _precision(situation, method)
    options = {"tensor_parallel": situation.gpus}
    first = prefill(situation.model, precision, situation.gpu, situation.prompt, **options)  # type: ignore[arg-type]
    context = situation.prompt + situation.output / 2
    step = decode(situation.model, precision, situation.gpu, situation.batch, context, **options)  # type: ignore[arg-type]
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
    most, workload = most_lost(method, situation.workloads, table)
    if most > situation.most_lost:
        return f"may lose {100 * most:.1f} points on {workload}"
    return None


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
