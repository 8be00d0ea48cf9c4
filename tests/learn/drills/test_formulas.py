"""Every kind against a formula that is written out here, fed with the numbers of the question as a reader sees them.

So each question holds all that it needs, and the library's answer is the one that paper and pencil give.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from itertools import pairwise

import pytest

from qlab.deploy import gpu, spec
from qlab.deploy.claims.ledger import register
from qlab.learn.drills import KINDS, Drill, kind
from qlab.learn.quantities import find

SEEDS = 40
GB, GIB = 1e9, 2.0**30

Numbers = list[float]
Formula = Callable[[Numbers], float]


def numbers(drill: Drill) -> Numbers:
    """The numbers of a question in their order, each in its own unit; of a range its lower end."""
    return [one.low for one in find(drill.text)]


def room(visible_bytes: float) -> float:
    """What is there for weights and cache."""
    return 0.92 * visible_bytes - 1.5 * GB


def first_split(total: float, visible_bytes: float) -> float:
    return next(n for n in (1, 2, 4, 8) if total / n <= room(visible_bytes))


def grouped(bits: float, group: float) -> float:
    return bits + 16 / group


def moved(tokens: float, rows: float, columns: float, bits: float) -> float:
    return rows * columns * bits / 8 + tokens * (rows + columns) * 2


def bound(tokens: float, rows: float, columns: float, bits: float, bandwidth: float, rate: float) -> float:
    return max(moved(tokens, rows, columns, bits) / (bandwidth * 1e9), 2 * tokens * rows * columns / (rate * 1e12))


def symmetric(weights: Numbers, bits: float) -> float:
    return max(map(abs, weights)) / (2 ** (bits - 1) - 1)


def asymmetric(weights: Numbers, bits: float) -> float:
    return (max(0.0, *weights) - min(0.0, *weights)) / (2**bits - 1)


FORMULAS: dict[str, Formula] = {
    "memory.weights 1": lambda v: v[0] * v[1] / 8 / GB,
    "memory.weights 2": lambda v: (v[0] * grouped(v[1], v[3]) + v[4] * 16) / 8 / GB,
    "memory.weights 3": lambda v: (v[0] * (v[1] + (16 + v[3]) / v[4]) + v[5] * 16) / 8 / GIB,
    "memory.gib 1": lambda v: v[0] * GIB / GB,
    "memory.gib 2": lambda v: v[0] * GB / GIB,
    "memory.gib 3": lambda v: 0.92 * v[0] * GIB / GB - v[2],
    "memory.parameters 1": lambda v: 3 * v[1] * v[2],
    "memory.parameters 2": lambda v: 2 * v[0] * v[3] * (v[1] + v[2]),
    "memory.parameters 3": lambda v: v[0] * (2 * v[1] * v[4] * (v[2] + v[3]) + 3 * v[1] * v[5]) + 2 * v[6] * v[1],
    "memory.compression 1": lambda v: 16 / grouped(v[1], v[3]),
    "memory.compression 2": lambda v: (v[0] + v[1]) * 16 / (v[0] * grouped(v[3], v[5]) + v[1] * 16),
    "memory.compression 3": lambda v: 100 - 100 * (v[0] * grouped(v[3], v[5]) + v[1] * 16) / ((v[0] + v[1]) * 16),
    "memory.outside 1": lambda v: 4 * v[0] * v[1] / GB,
    "memory.outside 2": lambda v: 100 * 4 * v[0] * v[1] / (v[6] * GB),
    "memory.matrix 1": lambda v: (v[0] * v[1] + 2 * v[0]) / 1e6,
    "memory.matrix 2": lambda v: v[0] * v[1] * grouped(v[2], v[4]) / 8e6,
    "memory.matrix 3": lambda v: v[0] * v[1] * 4.5 / 8e6,
    "cache.token 1": lambda v: 2 * v[0] * v[2] * v[3] * v[5] / 8,
    "cache.token 2": lambda v: 2 * v[0] * v[2] * v[3] * v[5] / 8,
    "cache.token 3": lambda v: (
        2 * v[0] * v[2] * v[3] * (v[4] + 32 / v[5]) / 8 if len(v) == 8 else v[0] * (v[1] + v[2]) * v[4] / 8
    ),
    "cache.requests 1": lambda v: v[1] * v[2] * v[3] / GB,
    "cache.requests 2": lambda v: 2 * v[0] * v[2] * v[3] * v[6] / 8 * v[4] * v[5] / GB,
    "cache.requests 3": lambda v: 2 * v[0] * v[2] * v[3] * v[6] / 8 * v[4] * v[5] / GIB,
    "cache.bug 1": lambda v: v[1] / v[2],
    "cache.bug 2": lambda v: v[2] * v[4] / v[3],
    "cache.equal 1": lambda v: v[0] * GB / v[2],
    "cache.equal 2": lambda v: v[0] * GB / (2 * v[1] * v[3] * v[4] * v[5] / 8),
    "capacity.left 1": lambda v: room(v[1] * GB) / GB - v[0],
    "capacity.left 2": lambda v: room(v[1] * GIB) / GB - v[0],
    "capacity.tokens 1": lambda v: v[0] * GB / v[2],
    "capacity.tokens 2": lambda v: (room(v[2] * GIB) - v[0] * GB) / v[1],
    "capacity.tokens 3": lambda v: (room(v[5] * GIB) - v[0] * GB) / (2 * v[1] * v[2] * v[3] * v[4] / 8),
    "capacity.batch 1": lambda v: v[0] // v[1],
    "capacity.batch 2": lambda v: v[0] * GB // (v[2] * v[3]),
    "capacity.batch 3": lambda v: (room(v[5] * GIB) - v[0] * GB) // (2 * v[1] * v[2] * v[3] * 2 * v[8]),
    "capacity.context 1": lambda v: v[0] * GB / v[2] / v[3],
    "capacity.context 2": lambda v: (room(v[2] * GIB) - v[0] * GB) / v[1] / v[5],
    "capacity.cards 1": lambda v: first_split(v[0] * GB, v[5] * GIB),
    "capacity.cards 2": lambda v: first_split((v[0] + v[1]) * GB, v[6] * GIB),
    "bits.per_weight 1": lambda v: v[0] + 16 / v[2],
    "bits.per_weight 2": lambda v: v[0] + (16 + v[2]) / v[3],
    "bits.group 1": lambda v: 16 / (v[2] - v[0]),
    "bits.group 2": lambda v: (16 + v[2]) / (v[3] - v[0]),
    "bits.checkpoint 1": lambda v: 8 * v[0] * GB / v[1],
    "bits.checkpoint 2": lambda v: 8 * v[0] * GIB / v[1],
    "bits.overhead 1": lambda v: 100 * (16 / v[2]) / (v[0] + 16 / v[2]),
    "bits.overhead 2": lambda v: v[0] / v[3] * 2 / GB,
    "bits.affordable 1": lambda v: 8 * (room(v[3] * GB) - 2 * v[1]) / v[0],
    "bits.affordable 2": lambda v: 8 * (room(v[3] * GIB) - 2 * v[1]) / v[0],
    "formats.scale 1": lambda v: symmetric(v[:4], v[4]),
    "formats.scale 2": lambda v: symmetric(v[:4], v[4]),
    "formats.scale 3": lambda v: asymmetric(v[:4], v[4]),
    "formats.zero_point 1": lambda v: round(-min(v[:4]) / asymmetric(v[:4], v[4])),
    "formats.zero_point 2": lambda v: round(-min(v[:4]) / asymmetric(v[:4], v[4])),
    "formats.code 1": lambda v: round(v[-1] / symmetric(v[:4], 4)) + 8,
    "formats.code 2": lambda v: round(v[-1] / symmetric(v[:4], 8)) + 128,
    "formats.code 3": lambda v: round(v[-1] / asymmetric(v[:4], 4)) + round(-min(v[:4]) / asymmetric(v[:4], 4)),
    "formats.value 1": lambda v: (v[1] - 8) * v[2],
    "formats.value 2": lambda v: (v[1] - v[3]) * v[2],
    "formats.half_step 1": lambda v: symmetric(v[:4], v[4]) / 2,
    "formats.half_step 2": lambda v: asymmetric(v[:4], v[4]) / 2,
    "roofline.bound 1": lambda v: 1e6 * bound(*v[:4], *v[5:7]),
    "roofline.bound 2": lambda v: 1e6 * bound(*v[:4], *v[5:7]),
    "roofline.bound 3": lambda v: 1e6 * bound(*v[:4], *v[5:7]),
    "roofline.ridge 1": lambda v: v[3] * 1e12 / (v[2] * 1e9) * v[0] / 16,
    "roofline.ridge 2": lambda v: v[3] * 1e12 / (v[2] * 1e9) * v[0] / 16,
    "roofline.intensity 1": lambda v: 2 * v[0] * v[1] * v[2] / moved(*v[:4]),
    "roofline.intensity 2": lambda v: 2 * v[0] * v[1] * v[2] / moved(*v[:4]),
    "roofline.decode 1": lambda v: v[2] / v[0],
    "roofline.decode 2": lambda v: v[2] / v[0],
    "roofline.decode 3": lambda v: v[2] * v[4] * GB / (v[0] * GB + v[2] * v[3] * v[1]),
    "roofline.step 1": lambda v: (v[0] + v[2]) / (v[3] + v[2]),
    "roofline.step 2": lambda v: (v[0] + v[2]) / (v[3] + v[2] / 2),
    "roofline.fraction 1": lambda v: 100 * moved(*v[:4]) / (v[4] * 1e-6) / (v[5] * 1e9),
    "roofline.fraction 2": lambda v: 100 * moved(*v[:4]) / (v[4] * 1e-6) / (v[5] * 1e9),
    "money.million 1": lambda v: v[0] / 3600 / v[1] * 1e6,
    "money.million 2": lambda v: v[0] / 3600 / (v[1] * v[2]) * 1e6,
    "money.million 3": lambda v: v[0] / 3600 / (v[1] * v[2] * v[3] / 100) * 1e6,
    "money.month 1": lambda v: 730 * v[0],
    "money.month 2": lambda v: 730 * v[0] * v[1],
    "money.month 3": lambda v: 730 * v[0] / v[1] * v[2],
    "money.replicas 1": lambda v: math.ceil(v[0] / v[2]),
    "money.replicas 2": lambda v: math.ceil(v[0] / 86400 / v[2]),
    "money.replicas 3": lambda v: math.ceil(v[0] / 86400 / v[2]) * 730 * v[3],
    "money.speed 1": lambda v: v[0] / v[2] * 1e6 / 3600,
    "money.speed 2": lambda v: v[0] / v[3] * 1e6 / 3600 / (v[1] / 100),
    "money.request 1": lambda v: 1000 * v[0] / (3600 * v[1]),
    "money.request 2": lambda v: 1000 * v[0] / (3600 * v[2]),
}
for level in (1, 2, 3):
    FORMULAS[f"roofline.speedup {level}"] = lambda v: (
        bound(v[5], v[0], v[1], 16, v[6], v[7]) / bound(v[5], v[0], v[1], 4.125, v[6], v[7])
    )


def mixed_or_nf4(drill: Drill) -> float:
    if drill.text.startswith("NF4 with double"):
        return 4 + (8 + 32 / 256) / 64
    if drill.text.startswith("NF4"):
        return 4 + 32 / 64
    attention, wide, mlp, narrow, group, _ = numbers(drill)
    return (attention * grouped(wide, group) + mlp * grouped(narrow, group)) / (attention + mlp)


def nf4(drill: Drill) -> float:
    levels = {int(code): float(value) for code, value in re.findall(r"(\d+): (-?\d\.\d{4})", drill.text)}
    found = re.search(r"absmax (\d+(?:\.\d+)?)\. .* weight (-?\d+(?:\.\d+)?)", drill.text)
    assert found and len(levels) == 16 and all(low < high for low, high in pairwise(levels.values()))
    absmax, weight = map(float, found.groups())
    code = min(levels, key=lambda one: abs(levels[one] * absmax - weight))
    return levels[code] * absmax if drill.level == 3 else code


def float8(drill: Drill) -> float:
    found = re.search(r"bias of (\d+).* has 0 ([01]+) ([01]+)\?", drill.text)
    assert found
    bias, exponent, fraction = int(found[1]), int(found[2], 2), int(found[3], 2) / 2 ** len(found[3])
    return fraction * 2.0 ** (1 - bias) if exponent == 0 else (1 + fraction) * 2.0 ** (exponent - bias)


def pack(drill: Drill) -> float:
    if drill.level == 2:
        found = re.search(r"byte is (\d+)", drill.text)
        assert found
        return int(found[1]) % 16
    found = re.search(r"The (\d)-bit codes|Codes of (\d) bits", drill.text)
    assert found
    bits = int(found[1] or found[2])
    words = re.search(r"(?:codes|begins with) ((?:\d+(?:, | and )?)+)", drill.text)
    assert words
    stream = "".join(f"{int(code):0{bits}b}"[::-1] for code in re.findall(r"\d+", words[1]))  # the lowest bit first
    return int(stream[:8][::-1], 2)


BY_TEXT: dict[str, Callable[[Drill], float]] = {
    "bits.per_weight 3": mixed_or_nf4,
    **{f"formats.nf4 {level}": nf4 for level in (1, 2, 3)},
    **{f"formats.float8 {level}": float8 for level in (1, 2, 3)},
    **{f"formats.pack {level}": pack for level in (1, 2, 3)},
}


# Choices

CAPABILITY = {
    "T4": 7.5, "V100-32GB": 7.0, "A10G": 8.6, "L4": 8.9, "L40S": 8.9, "A100-40GB": 8.0, "A100-80GB": 8.0,
    "H100-80GB": 9.0, "H100-PCIe-80GB": 9.0, "H200": 9.0, "B200": 10.0, "RTX-3090": 8.6, "RTX-4090": 8.9,
    "RTX-5090": 12.0,
}  # fmt: skip
REACH = {  # from, up to but not including
    "FP16": (7.0, 99), "BF16": (8.0, 99), "FP8 W8A8": (8.9, 99), "INT8 W8A8": (7.5, 10.0),
    "weight-only (Marlin)": (7.5, 99), "W4A8": (8.0, 10.0), "NVFP4": (10.0, 99),
}  # fmt: skip
KERNELS = {
    "bf16": "BF16", "fp16": "FP16", "fp8": "FP8 W8A8", "w8a8": "INT8 W8A8", "w4a8": "W4A8", "nvfp4": "NVFP4",
    "int4-g128": "weight-only (Marlin)",
}  # fmt: skip
CALIBRATED = {"GPTQ", "AWQ", "SmoothQuant"}
ROUNDS_INPUTS = {
    "W8A8 with one scale a token", "LLM.int8", "SmoothQuant", "FP8 with scales found on the fly",
}  # fmt: skip


def runs(name: str, kernels: str) -> bool:
    first, end = REACH[kernels]
    return first <= CAPABILITY[name] < end


def the_only(drill: Drill, good: Callable[[str], bool]) -> str:
    [found] = [choice for choice in drill.choices if good(choice)]
    return found


def saves(drill: Drill) -> str:
    batch, context, wide, narrow, _, per_token, _ = numbers(drill)
    return drill.choices[(wide - narrow) * GB < batch * context * per_token / 2]


def widest(drill: Drill) -> str:
    v = numbers(drill)
    free = room(v[3] * GIB) - (v[-1] * GB if drill.level == 2 else 0)
    return next((drill.choices[at] for at in range(3) if v[at] * GB <= free), "none of these")


def cheapest(drill: Drill) -> str:
    v = numbers(drill)
    total = (v[0] + v[3]) * GB
    menu = re.findall(r"([a-z0-9]+\.\w+), (\d) x [\w-]+ of ([\d.]+) GiB, ([\d.]+) USD/h", drill.text)
    assert len(menu) == len(drill.choices)
    enough = [
        (float(price), name) for name, count, visible, price in menu if int(count) * room(float(visible) * GIB) >= total
    ]
    return min(enough)[1]


def limit(drill: Drill) -> str:
    v = numbers(drill)
    return drill.choices[2 * v[0] * v[1] * v[2] / (v[5] * 1e12) > moved(*v[:4]) / (v[4] * 1e9)]


def which_gpu(drill: Drill) -> str:
    kernels = next(name for name in sorted(REACH, key=len, reverse=True) if f"fast {name} kernels" in drill.text)
    return the_only(drill, lambda choice: runs(choice, kernels) is (drill.level == 1))


def which_precision(drill: Drill) -> str:
    found = re.search(r"You serve from an? ([\w-]+) ", drill.text)
    assert found
    return the_only(drill, lambda choice: runs(found[1], KERNELS[choice]) is (drill.level == 2))


def fastest(drill: Drill) -> str:
    """By the weights of the layers alone: bytes at the bandwidth against operations at the rate."""
    found = re.match(r"([\w.-]+) (?:reads|decodes).* on an? ([\w-]+),", drill.text)
    assert found
    weights, where = spec(found[1]).linear_parameters, gpu(found[2])
    tokens = numbers(drill)[0]  # of the prompt, or one for each request

    def seconds(choice: str) -> float:
        bits = {"BF16": 16, "INT8": 8, "FP8 ": 8, "INT4": 4.125}[choice[:4]]
        rate = {"INT8": where.int8_tensor_tops, "FP8 ": where.fp8_tensor_tflops}.get(
            choice[:4], where.fp16_tensor_tflops
        )
        assert rate
        return max(weights * bits / 8 / (where.bandwidth_gb_per_s * 1e9), 2 * weights * tokens / (rate * 1e12))

    return min(drill.choices, key=seconds)


def needs(drill: Drill) -> str:
    wanted = {
        "quantizes activations as well as weights": lambda choice: choice in ROUNDS_INPUTS,
        "quantizes weights only": lambda choice: choice not in ROUNDS_INPUTS,
        "looks at calibration data": lambda choice: choice in CALIBRATED,
        "needs no calibration data": lambda choice: choice not in CALIBRATED,
    }[drill.text.removeprefix("Which of these methods ").removesuffix("?")]
    return the_only(drill, wanted)


def on_record(text: str) -> str:
    return next(one.verdict for one in register().values() if one.says == text)


def claim(drill: Drill) -> str:
    if drill.kind == "claims.verdict":
        found = re.search("“(.*)”", drill.text)
        assert found
        verdict = on_record(found[1])
        return "true only under conditions" if verdict == "conditional" else verdict
    return the_only(drill, lambda choice: f"claims.{on_record(choice)}" == drill.kind)


CHOICES: dict[str, Callable[[Drill], str]] = {
    "cache.saves": saves,
    "capacity.precision": widest,
    "capacity.rent": cheapest,
    "roofline.limit": limit,
    "methods.gpu": which_gpu,
    "methods.precision": which_precision,
    "methods.fastest": fastest,
    "methods.needs": needs,
    "claims.false": claim,
    "claims.true": claim,
    "claims.verdict": claim,
}

CASES = [(one.name, level) for one in KINDS for level in one.levels]


@pytest.mark.parametrize(("name", "level"), CASES)
def test_an_independent_formula_agrees(name: str, level: int) -> None:
    for seed in range(SEEDS):
        drill = kind(name).ask(seed, level)
        if drill.choices:
            assert CHOICES[name](drill) == drill.answer, drill.text
            continue
        case = f"{name} {level}"
        truth = BY_TEXT[case](drill) if case in BY_TEXT else FORMULAS[case](numbers(drill))
        # The numbers of the question are rounded to four digits, which has to leave room for rounding on the way.
        assert truth == pytest.approx(drill.answer, rel=drill.tolerance / 2 or 1e-4), drill.text


def test_every_formula_is_of_a_kind() -> None:
    known = {f"{name} {level}" for name, level in CASES}
    assert {*FORMULAS, *BY_TEXT} <= known and set(CHOICES) <= {one.name for one in KINDS}
