"""Drills on which method: what a GPU has kernels for, what is fastest where, what a method needs and writes.

Choices come from the tables that the library itself decides by: `qlab.deploy.planning.support` for kernels,
`qlab.deploy.speed` for bounds, `qlab.models.recipe` for what a method looks at. Exactly one choice is right.
"""

from __future__ import annotations

import random

from qlab.deploy import gpu, spec
from qlab.deploy.planning.support import KERNELS, Kernels, missing
from qlab.deploy.speed.phases import Phase, decode, prefill

from .kind import Drill, Kind, shuffled, with_unit
from .subjects import GPUS, a, card

_CHOOSING, _SPEED = "11_choosing_a_method", "10_speed_on_gpu"
_CANDIDATES = ("bf16", "w8a8", "fp8", "int4-g128")
_WORDS = {
    "bf16": "BF16",
    "w8a8": "INT8 weights and activations (W8A8)",
    "fp8": "FP8 weights and activations",
    "int4-g128": "INT4 weights, 16-bit activations",
}
_AHEAD = 1.15  # by so much the right one has to win


def _reach(kernels: Kernels) -> str:
    until = f" and below {kernels.end:.1f}" if kernels.end < 100 else ""
    return f"compute capability {kernels.first:.1f} and above{until}"


def _gpu_for(rng: random.Random, level: int) -> Drill | None:
    """Which GPU runs a kind of kernel, or which does not."""
    kernels = KERNELS[rng.choice(("BF16", "FP8 W8A8", "INT8 W8A8", "weight-only (Marlin)", "W4A8", "NVFP4"))]
    cards = [gpu(name) for name in GPUS]
    able, unable = ([one for one in cards if one.capability and kernels.run_on(one) is can] for can in (True, False))
    one_can = level == 1
    few, many = (able, unable) if one_can else (unable, able)
    if not few or len(many) < 3:
        return None
    right, wrong = rng.choice(few), rng.sample(many, 3)
    if len({one.architecture for one in (right, *wrong)}) < 3:
        return None  # four cards of one generation are one choice
    choices = shuffled(rng, [one.name for one in (right, *wrong)])
    capabilities = ", ".join(f"{name} {gpu(name).compute_capability}" for name in choices)
    told = f" Compute capabilities: {capabilities}." if level == 2 else ""
    return Drill(
        f"Which of these GPUs has {'' if one_can else 'NO '}fast {kernels.name} kernels in common servers?{told}",
        right.name,
        (
            f"{kernels.name} kernels run at {_reach(kernels)}",
            f"Compute capabilities: {capabilities}",
            f"Only one is {'inside' if one_can else 'outside'} of that: {'ABCD'[choices.index(right.name)]}) "
            f"{right.name}",
        ),
        choices=choices,
    )


def _precision_for(rng: random.Random, level: int) -> Drill | None:
    """The precision that a GPU has no kernels for, or the only one of some that it has."""
    where = card(rng)
    known = ("bf16", "fp16", "fp8", "w8a8", "int4-g128", "w4a8", "nvfp4")
    able = [name for name in known if missing(name, where) is None]
    unable = [name for name in known if name not in able]
    few, many = (unable, able) if level == 1 else (able, unable)
    if not few or len(many) < 3 - (level == 2):
        return None
    right = rng.choice(few)
    choices = shuffled(rng, [right, *rng.sample(many, min(3, len(many)))])
    reason = missing(right, where) if level == 1 else f"{right} runs there, and none of the others does"
    return Drill(
        f"You serve from {a(where.name)} ({where.architecture}). For which of these precisions is there "
        f"{'NO fast kernel' if level == 1 else 'a fast kernel'} in common servers?",
        right,
        (
            f"{where.name} has the compute capability {where.compute_capability}",
            f"In short: {reason}",
            f"So the answer is {'ABCD'[choices.index(right)]}) {right}",
        ),
        choices=choices,
    )


def _fastest(rng: random.Random, level: int) -> Drill | None:
    """Which precision has the shortest bound, in a prompt or in a step of decoding."""
    where, shapes = card(rng), spec(rng.choice(("Llama-3-8B", "Llama-3-70B", "Qwen2.5-7B", "Llama-2-13B")))
    able = [name for name in _CANDIDATES if missing(name, where) is None]
    if len(able) < 3:
        return None
    reading = rng.random() < 0.5

    def phase(name: str) -> Phase:
        if reading:
            return prefill(shapes, name, where, tokens, kernels="datasheet")
        return decode(shapes, name, where, batch, tokens, kernels="datasheet")

    tokens = rng.choice((1024, 2048, 4096)) if reading else rng.choice((128, 512, 1024))
    batch = 1 if level == 1 else rng.choice((64, 128, 256, 512))
    times = {name: phase(name) for name in able}
    first, second = sorted(able, key=lambda name: times[name].seconds)[:2]
    # INT8 and FP8 have the same bytes and mostly the same rate: a tie, unless something else wins.
    if times[second].seconds < _AHEAD * times[first].seconds:
        able = [name for name in able if name != second or {first, second} != {"w8a8", "fp8"}]
        if second in able or len(able) < 3:
            return None
        if sorted(times[name].seconds for name in able)[1] < _AHEAD * times[first].seconds:
            return None
    choices = shuffled(rng, [_WORDS[name] for name in able])
    work = (
        f"reads one prompt of {tokens:,} tokens"
        if reading
        else f"decodes {batch} request{'s' * (batch > 1)} of {tokens:,} tokens at once"
    )
    order = sorted(able, key=lambda name: times[name].seconds)
    timed = ", ".join(f"{_WORDS[name]} {with_unit(1e3 * times[name].seconds, 'ms')}" for name in order)
    bound = "reading" if times["int4-g128"].bound == "memory" else "arithmetic"
    return Drill(
        f"{shapes.name} {work} on {a(where.name)}, were its memory large enough. By the roofline of its data sheet, "
        "which of these takes the least time?",
        _WORDS[first],
        (
            f"With INT4 weights most of the time goes into {bound}",
            "Fewer bits in the weights save bytes; fewer bits in weights and activations raise the rate as well",
            f"Bounds: {timed}",
            f"The shortest: {'ABCD'[choices.index(_WORDS[first])]}) {_WORDS[first]}",
        ),
        choices=choices,
    )  # fmt: skip


_SHOWN = {
    "rtn": "round-to-nearest",
    "nf4": "NF4 (bitsandbytes)",
    "hqq": "HQQ",
    "gptq": "GPTQ",
    "awq": "AWQ",
    "w8a8": "W8A8 with one scale a token",
    "llm_int8": "LLM.int8",
    "smoothquant": "SmoothQuant",
    "fp8": "FP8 with scales found on the fly",
}


def _needs(rng: random.Random, level: int) -> Drill | None:
    """Which method looks at calibration data, or rounds activations."""
    from qlab.models.recipe import METHODS

    inputs = rng.random() < 0.5
    has = {name: METHODS[name].rounds_inputs if inputs else METHODS[name].calibrated for name in _SHOWN}
    wanted = level == 1 or rng.random() < 0.3
    right = rng.choice([name for name in _SHOWN if has[name] is wanted])
    wrong = rng.sample([name for name in _SHOWN if has[name] is not wanted], 3)
    choices = shuffled(rng, [_SHOWN[name] for name in (right, *wrong)])
    does = "quantizes activations as well as weights" if inputs else "looks at calibration data"
    does_not = "quantizes weights only" if inputs else "needs no calibration data"
    of = ", ".join(_SHOWN[name] for name in _SHOWN if has[name] and _SHOWN[name] in choices)
    return Drill(
        f"Which of these methods {does if wanted else does_not}?",
        _SHOWN[right],
        (
            "To multiply in 8 bits both factors must have 8 bits; to store in 4, only the weights"
            if inputs
            else "Calibration data are there to learn which inputs a layer gets, and what an error costs there",
            f"Of the four, what {does}: {of}",
            f"So the answer is {'ABCD'[choices.index(_SHOWN[right])]}) {_SHOWN[right]}",
        ),
        choices=choices,
    )


KINDS = (
    Kind("methods.gpu", "which GPU has the kernels", _SPEED, _gpu_for, levels=(1, 2)),
    Kind("methods.precision", "what a GPU has kernels for", _SPEED, _precision_for, levels=(1, 2)),
    Kind("methods.fastest", "which precision is fastest where", _CHOOSING, _fastest, levels=(1, 2)),
    Kind("methods.needs", "what a method looks at", _CHOOSING, _needs, levels=(1, 2), needs="transformers"),
)
