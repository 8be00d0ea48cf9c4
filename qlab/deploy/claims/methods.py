"""Claims on methods, people and process: what GPTQ, AWQ, NF4 and the others are, who made them, what they take."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from statistics import NormalDist, mean

from ..fits import fits
from ..hardware import gpu
from ..instances import instance, instances
from ..memory import memory
from ..models import spec
from ..results import result, results
from .gaussian import Levels, integers, nf4, sqnr, sqnr_asymmetric
from .ledger import NONE_FOUND, Assumptions, Evidence, claim, over, said, value
from .rows import lost, several
from .support import VLLM, VLLM_TABLE, runs

GPTQ_PAPER = "Frantar et al. 2022, GPTQ, arXiv 2210.17323"
AWQ_PAPER = "Lin et al. 2023, AWQ, arXiv 2306.00978"
SERVERS = "support tables of vLLM, TensorRT-LLM, Hugging Face TGI and SageMaker's LMI containers"
NO_USAGE = "no statistics of usage were found"

# Where the authors worked, by the papers' first pages and the repositories.
ORIGINS = {
    "GPTQ": ("IST Austria", "ETH Zurich", "Neural Magic"),
    "AWQ": ("MIT", "Shanghai Jiao Tong University", "Tsinghua University"),
}
# Weights and bytes of a block of GGUF formats, as in the library gguf.
GGUF_BLOCKS = {
    "Q1_0": (128, 18),
    "IQ1_S": (256, 50),
    "IQ1_M": (256, 56),
    "Q2_K": (256, 84),
    "Q4_0": (32, 18),
    "Q8_0": (32, 34),
}
LORA_QAT_HOURS = 2.0  # one H100, a run of Phi-3.5 with LoRA and QAT, 1.5 to 2 h; seen in secondary text alone
LORA_QAT = "secondary text on a LoRA-QAT run of Phi-3.5 (1.5 to 2 hours on one H100); not in the published rows"


def weights() -> list[float]:
    """4,096 numbers like the weights of a row: quantiles of a normal distribution that is a little off centre."""
    row = NormalDist(0.003, 0.02)
    return [row.inv_cdf((i + 0.5) / 4096) for i in range(4096)]


def _exact(xs: list[float], step: float, code: Callable[[float], int], back: Callable[[int], float]) -> bool:
    """Whether every number comes back within half a step, but for rounding in the last digits."""
    return max(abs(back(code(x)) - x) for x in xs) <= step / 2 * (1 + 1e-9)


@claim(
    "C091",
    sources=("000:17", "001:10"),
    says="Quantization is linear: multiply W by the scale, add zero_point, round.",
    verdict="conditional",
    instead="q = clamp(round(x / s) + z) and x = s (q - z). Say whether the scale multiplies or divides.",
)
def c091(given: Assumptions) -> Evidence:
    row = weights()
    top = max(map(abs, row))
    step, times = top / 127, 127 / top
    numbers = {
        "multiplier": len({round(times * w) for w in row}),
        "divisor": len({round(step * w) for w in row}),
        "beyond": round(times * 1.5 * top),
    }
    because = (
        "With 127 / absmax as the scale, 4,096 weights take {multiplier} codes and come back within half a step. With "
        "absmax / 127, as most libraries define it, the formula gives {divisor} code for all of them. There is no "
        "clamp, so a value beyond the range gets a code such as {beyond}. An integer zero-point may stand inside "
        "round() or outside."
    )
    cases = (
        _exact(row, step, lambda w: round(times * w), lambda q: q / times),
        _exact(row, step, lambda w: round(step * w), lambda q: q / step),
        all(round(times * w + 7) == round(times * w) + 7 for w in row),
    )
    return Evidence(over(*cases), because, numbers)


@claim(
    "C092",
    sources=("002:49",),
    says="The simple scheme is q = round((x - z) / s), with x = s q + z to go back.",
    verdict="conditional",
    instead="State the convention. Here z is an offset and no code, so 0 is not exact, which matters for padding and "
    "ReLU. An integer zero-point keeps it.",
)
def c092(given: Assumptions) -> Evidence:
    row = weights()
    offset = min(row)
    step = (max(row) - offset) / 255

    def code(w: float) -> int:
        return round((w - offset) / step)

    def back(q: int) -> float:
        return step * q + offset

    codes = {code(w) for w in row}
    numbers = {"low": min(codes), "high": max(codes), "zero": back(code(0.0))}
    because = (
        "4,096 weights take codes from {low} to {high} and come back within half a step. But 0 comes back as "
        "{zero:.1e}; an integer zero-point is itself the code of 0."
    )
    cases = (min(codes) >= 0 and max(codes) <= 255, _exact(row, step, code, back), numbers["zero"] == 0)
    return Evidence(over(*cases), because, numbers)


@claim(
    "C093",
    sources=("000:23", "001:13"),
    says="4 bits means NF4, which is not linear.",
    verdict="conditional",
    instead="Most 4-bit models that are served are uniform (GPTQ, AWQ, Q4_0). NF4 belongs to bitsandbytes and to "
    "fine-tuning.",
)
def c093(given: Assumptions) -> Evidence:
    levels: dict[str, Levels] = {"nf4": nf4(), "int4": integers(4)}
    four = [row for row in results() if row.method and (row.bits == "W4A16" or "NF4" in row.method)]
    table = {"qlora_int4": "qlora-t2-Int4", "qlora_nf4": "qlora-t2-NF4 + double quantization"}
    numbers = {
        "rows": len(four),
        "nf4_rows": sum("NF4" in (row.method or "") for row in four),
        "nf4": sqnr(levels["nf4"], 64),
        "symmetric": sqnr(levels["int4"], 64),
        "asymmetric": sqnr_asymmetric(4, 64),
    }
    numbers |= {name: value(row) for name, row in table.items()}
    because = (
        "Of {rows} published results with 4-bit weights {nf4_rows} are NF4. On normally distributed weights in blocks "
        "of 64 NF4 keeps {nf4:.1f} dB, uniform INT4 {asymmetric:.1f} with zero-points and {symmetric:.1f} without. "
        "QLoRA's own table has a perplexity of {qlora_nf4:.2f} for NF4 and {qlora_int4:.2f} for its Int4."
    )
    return Evidence(
        over(*(not _uniform(found) for found in levels.values())), because, numbers, cites=tuple(table.values())
    )


def _uniform(levels: Levels) -> bool:
    """Whether all steps between levels are the same."""
    steps = [high - low for low, high in pairwise(levels)]
    return max(steps) - min(steps) < 1e-9


@claim(
    "C094",
    sources=("000:55",),
    says="GPTQ and AWQ were made at UC Berkeley and MIT.",
    verdict="false",
    instead="GPTQ is from {gptq}. MIT is right for AWQ alone.",
)
def c094(given: Assumptions) -> Evidence:
    numbers = {"gptq": ", ".join(ORIGINS["GPTQ"]), "awq": ", ".join(ORIGINS["AWQ"])}
    because = "GPTQ: {gptq} (Frantar, Ashkboos, Hoefler, Alistarh). AWQ: {awq} (Lin, Tang and others, Han)."
    places = {place for found in ORIGINS.values() for place in found}
    both = {"UC Berkeley", "MIT"} <= places  # one wrong place makes the sentence wrong
    return Evidence(over(both), because, numbers, "cited", references=(GPTQ_PAPER, AWQ_PAPER))


@claim(
    "C095",
    sources=("000:23",),
    says="LLaMA is Google's.",
    verdict="false",
    instead="LLaMA is Meta's; Google has Gemma.",
)
def c095(given: Assumptions) -> Evidence:
    because = "LLaMA's paper and licence are Meta's."
    return Evidence(
        "false", because, {}, "cited", references=("Touvron et al. 2023, LLaMA, arXiv 2302.13971 (Meta AI)",)
    )


@claim(
    "C096",
    sources=("000:23", "000:104"),
    says="Google and Meta use 4 bits more than others, for they can afford to validate it.",
    verdict="contested",
    instead="Both publish 4-bit models with QAT. How much they use them, I know no source for.",
)
def c096(given: Assumptions) -> Evidence:
    because = (
        "No source was found for how much either uses 4 bits, and why. Google publishes Gemma 3 and 4 in int4 with "
        "QAT, Meta publishes Llama 3.2 in 4 bits with QAT and SpinQuant."
    )
    cites = ("gemma3-qat", "gemma4-qat", "l32-qat-cost")
    return Evidence("contested", because, {}, "cited", cites, (NONE_FOUND,))


@claim(
    "C097",
    sources=("000:55", "001:33"),
    says="At 4 bits GPTQ together with AWQ is what industry uses as a standard.",
    verdict="true",
    instead="Yes for INT4 on servers, if a standard is what every server supports. How much each is used, no source "
    "was found for.",
)
def c097(given: Assumptions) -> Evidence:
    served = ("T4", "A10G", "A100-80GB", "L4", "L40S", "H100-80GB")
    four = [row for row in results(bits="W4A16") if row.method]
    numbers = {"rows": len(four), "named": sum(any(m in (row.method or "") for m in ("GPTQ", "AWQ")) for row in four)}
    because = (
        "Judged by support: vLLM runs both from T4 to H100, and TensorRT-LLM (NVIDIA's library for serving), TGI and "
        "SageMaker have both. {named} of the {rows} results of W4A16 that the ledger cites name one of them."
    )
    cases = (runs(method, gpu(name)) for method in ("GPTQ", "AWQ") for name in served)
    return Evidence(over(*cases), because, numbers, "cited", references=(VLLM_TABLE, SERVERS, NO_USAGE))


@claim(
    "C098",
    sources=("000:55", "001:32", "004:11"),
    says="GPTQ and AWQ quantize weights only, and need calibration.",
    verdict="true",
    instead="Yes: the weights in few bits, the activations in 16, and data to calibrate on.",
)
def c098(given: Assumptions) -> Evidence:
    named = [row for row in results() if row.bits and (row.method or "").startswith(("GPTQ", "AWQ", "INT4 AWQ"))]
    numbers = {"rows": len(named), "wide": sum(row.bits.endswith("A16") for row in named if row.bits)}
    because = (
        "In {wide} of {rows} published results under these names the activations have 16 bits. GPTQ needs the second "
        "moments of a layer's inputs and AWQ their mean magnitudes, and both come from calibration data."
    )
    verdict = over(numbers["rows"] > 0 and numbers["wide"] == numbers["rows"])
    return Evidence(verdict, because, numbers, "cited", references=(GPTQ_PAPER, AWQ_PAPER))


@claim(
    "C099",
    sources=("002:56", "004:9"),
    says="For its important channels AWQ has higher precision, or scaling.",
    verdict="conditional",
    instead="AWQ protects them by scaling alone: all weights are INT4, so one plain kernel runs them.",
)
def c099(given: Assumptions) -> Evidence:
    stored = {row.bits for row in results(method="AWQ g128")} | {row.bits for row in results(method="AWQ")}
    mixed = {bits for bits in stored if bits and "+" in bits}  # as LLM.int8()'s "W8A8 + FP16 outliers"
    numbers = {"mixed": len(mixed)}
    because = (
        "The paper begins with an experiment that keeps 1 % of the channels in FP16. Its method then scales channels "
        "and stores all of them in INT4; of the published results of AWQ, {mixed} have a second precision."
    )
    return Evidence(over(bool(mixed), True), because, numbers, "cited", ("awq-int4-70b",), (f"{AWQ_PAPER}, section 3",))


@claim(
    "C100",
    sources=("002:56", "002:100"),
    says="AWQ is mostly a little ahead of GPTQ.",
    verdict="contested",
    instead="Published tests go both ways, so run both on your evaluation.",
)
def c100(given: Assumptions) -> Evidence:
    pairs = {
        size: (f"qserve-ppl-Llama-2-{size}-AWQ g128-W4A16", f"qserve-ppl-Llama-2-{size}-GPTQ-R g128-W4A16")
        for size in ("7B", "70B")
    }
    pairs |= {test: (f"kurtic-8b-awq-{test}", f"kurtic-8b-gptq-{test}") for test in ("v1", "v2", "ah", "he")}
    numbers = {f"awq_{name}": value(awq) for name, (awq, _) in pairs.items()}
    numbers |= {f"gptq_{name}": value(gptq) for name, (_, gptq) in pairs.items()}
    because = (
        "AWQ is ahead in perplexity (Llama-2-7B {awq_7B:.2f} against {gptq_7B:.2f}, 70B {awq_70B:.2f} against "
        "{gptq_70B:.2f}) and, with an 8B, on the Open LLM leaderboard's version 2 ({awq_v2:.2f} against "
        "{gptq_v2:.2f}). GPTQ is ahead on its version 1 ({gptq_v1:.2f} against {awq_v1:.2f}), on Arena-Hard "
        "({gptq_ah:.1f} against {awq_ah:.1f}) and on HumanEval ({gptq_he:.1f} against {awq_he:.1f})."
    )
    ahead = over(*(lost(awq) < lost(gptq) for awq, gptq in pairs.values()))
    cites = tuple(row for pair in pairs.values() for row in pair)
    return Evidence("contested" if ahead == "conditional" else ahead, because, numbers, "cited", cites)


@claim(
    "C101",
    sources=("002:55", "004:8"),
    says="GPTQ works layer by layer with approximate second-order information.",
    verdict="true",
    instead="Yes: the Hessian of a layer's squared output error is 2 X X^T, and its steps are read from the Cholesky "
    "factor of its inverse.",
)
def c101(given: Assumptions) -> Evidence:
    because = (
        "It takes the layer's inputs X, their second moments as the Hessian, and a Cholesky factor of the damped "
        "inverse."
    )
    return Evidence("true", because, {}, "cited", references=(f"{GPTQ_PAPER}, section 3",))


@claim(
    "C102",
    sources=("002:57", "004:10"),
    says="In SmoothQuant a part of the scale of activations goes over to the weights.",
    verdict="true",
    instead="Yes, and exactly so in real arithmetic: (X / s) (s W) = X W with s = max|X|^a / max|W|^(1 - a).",
)
def c102(given: Assumptions) -> Evidence:
    x = [[Fraction(64), Fraction(1), Fraction(-2)], [Fraction(-100), Fraction(3), Fraction(4)]]  # (tokens, in)
    w = [[Fraction(1), Fraction(-1, 4)], [Fraction(1, 2), Fraction(1)], [Fraction(1), Fraction(3, 4)]]  # (in, out)
    top = [max(map(abs, channel)) for channel in zip(*x, strict=True)]  # (in,)
    # With a = 1/2 and max|W| = 1 in every row, s is the square root of max|X|. Any s is exact; this one is rounded.
    s = [Fraction(round(float(one) ** 0.5)) for one in top]
    smooth = [[number / scale for number, scale in zip(token, s, strict=True)] for token in x]
    scaled = [[number * scale for number in row] for row, scale in zip(w, s, strict=True)]
    left = [one / scale for one, scale in zip(top, s, strict=True)]
    numbers = {
        "before": float(max(top) / min(top)),
        "after": float(max(left) / min(left)),
        "weights": float(max(max(map(abs, row)) for row in scaled)),
    }
    because = (
        "In a small example, computed in fractions, both products are equal to the last digit. The largest channel of "
        "X is {before:.0f} times the smallest before and {after:.0f} times after; the largest weight grows from 1 to "
        "{weights:.0f}."
    )
    cases = (_product(smooth, scaled) == _product(x, w), numbers["after"] < numbers["before"])
    return Evidence(over(*cases), because, numbers)


def _product(a: list[list[Fraction]], b: list[list[Fraction]]) -> list[list[Fraction]]:
    columns = list(zip(*b, strict=True))
    return [[sum((x * y for x, y in zip(row, column, strict=True)), Fraction()) for column in columns] for row in a]


@claim(
    "C103",
    sources=("002:58",),
    says="GGUF goes from 2 to 8 bits, block by block.",
    verdict="conditional",
    instead="From {least:.1f} to {most:.1f} bits per weight, scales included.",
)
def c103(given: Assumptions) -> Evidence:
    bits = {name: 8 * size / count for name, (count, size) in GGUF_BLOCKS.items()}
    files = {f"file_{name}": float(result(f"llamacpp-tg-{name}").bits or 0) for name in ("Q2_K", "Q8_0")}
    numbers = bits | files | {"least": min(bits.values()), "most": max(bits.values())}
    because = (
        "A block of IQ1_S has {IQ1_S:.2f} bits per weight, of IQ1_M {IQ1_M:.2f}, of the recent Q1_0 {Q1_0:.2f}; of "
        "Q2_K {Q2_K:.2f}, of Q4_0 {Q4_0:.2f}, of Q8_0 {Q8_0:.2f}. Whole files of an 8B, which keep some tensors wider: "
        "{file_Q2_K:.2f} in Q2_K, {file_Q8_0:.2f} in Q8_0."
    )
    cases = (2 <= int(found) <= 8 for found in bits.values())  # whole bits: scales take the rest
    return Evidence(over(*cases), because, numbers, cites=("llamacpp-tg-Q2_K", "llamacpp-tg-Q8_0"))


@claim(
    "C104",
    sources=("004:10",),
    says="SpQR, AQLM and QuIP are for stronger compression.",
    verdict="conditional",
    instead="AQLM and QuIP# are the methods for 2 bits. SpQR is about quality at {spqr:.0f} bits and above.",
)
def c104(given: Assumptions) -> Evidence:
    named = {"aqlm": "aqlm-ppl-Llama-2-7B AQLM 1x16", "quip": "quip-7b-2"}
    mmlu = result("aqlm-mmlu-Llama-3-70B")
    numbers = {name: value(row) for name, row in named.items()}
    numbers |= {
        "before": result("quip-7b-2").baseline or 0.0,
        "mmlu": value(mmlu.id),
        "mmlu_before": mmlu.baseline or 0.0,
    }
    numbers |= {"spqr": said("spqr", r"^(\d)-\d bit"), "kept": said("spqr", r"less than (\d)%")}
    because = (
        "SpQR reports a loss of less than {kept:.0f} % at {spqr:.0f} to 4 bits. At 2 bits Llama-2-7B goes from a "
        "perplexity of {before:.2f} to {aqlm:.2f} with AQLM and {quip:.2f} with QuIP#, and Llama-3-70B from "
        "{mmlu_before:.2f} to {mmlu:.2f} of MMLU with AQLM."
    )
    widths = (numbers["spqr"], _bits(result(named["quip"]).bits), _bits(mmlu.bits))
    return Evidence(
        over(*(width < 3 for width in widths)), because, numbers, "cited", ("spqr", *named.values(), mmlu.id)
    )


def _bits(label: str | None) -> int:
    """The bits of the weights in a label such as "W2A16"."""
    return int((label or "W16").removeprefix("W").partition("A")[0])


@claim(
    "C105",
    sources=("002:53",),
    says="For INT8 one scale per output channel is the standard.",
    verdict="true",
    instead="Yes, if a standard is what tools and published models do by default. How much it is used, no source was "
    "found for.",
)
def c105(given: Assumptions) -> Evidence:
    # All results with INT8 weights alone whose method says how large a piece shares a scale.
    said_so = [row for row in results(kind="accuracy", bits="W8A16") if _PIECE.search(row.method or "")]
    by_channel = [row for row in said_so if "per-tensor" not in (row.method or "")]
    numbers = {
        "rows": len(said_so),
        "by_channel": len(by_channel),
        "gain_small": sqnr(integers(8), 4096) - sqnr(integers(8), 256 * 4096),
        "gain": sqnr(integers(8), 4096) - sqnr(integers(8), 4096**2),
    }
    because = (
        "Judged by defaults: of the {rows} results with INT8 weights that the ledger cites and that say what shares a "
        "scale, from torchao and from Red Hat's models, {by_channel} have one per channel. It is cheap, too: in place "
        "of one for the whole matrix it gains {gain_small:.1f} dB with 256 x 4,096 weights and {gain:.1f} dB with "
        "4,096 x 4,096."
    )
    cases = (row in by_channel for row in said_so)
    cites = tuple(row.id for row in said_so)
    return Evidence(over(*cases), because, numbers, "cited", cites, (NO_USAGE,))


_PIECE = re.compile("per-channel|rowwise|per-tensor")


@claim(
    "C106",
    sources=("000:53", "001:28"),
    says="PTQ takes hours, perhaps a day.",
    verdict="conditional",
    instead="It takes from minutes to some GPU hours, by method and size.",
)
def c106(given: Assumptions) -> Evidence:
    _, _, small, larger = several("l32-qat-cost")
    guide = result("trtllm-guide").statement or ""
    numbers = {"gptq": value("gptq-time"), "spin_1b": small, "spin_3b": larger}
    because = (
        "NVIDIA's guide says minutes for INT8 SmoothQuant and FP8, tens of minutes for AWQ and GPTQ. GPTQ took about "
        "{gptq:.0f} GPU hours for a 175B, SpinQuant {spin_1b:.1f} for a 1B and {spin_3b:.1f} for a 3B."
    )
    cases = (*(1 <= hours <= 24 for hours in numbers.values()), "minutes" not in guide)
    return Evidence(over(*cases), because, numbers, "cited", ("gptq-time", "l32-qat-cost", "trtllm-guide"))


@claim(
    "C107",
    sources=("000:59", "001:36"),
    says="QAT needs days or weeks of GPU time.",
    verdict="conditional",
    instead="It has taken from {lora:.0f} GPU hours to {qat_3b:,.0f}, both with LoRA. Say which model and how many "
    "steps.",
)
def c107(given: Assumptions) -> Evidence:
    qat_1b, qat_3b, ptq_1b, _ = several("l32-qat-cost")
    price = instance("p5.4xlarge").price_usd_per_hour or 0.0
    numbers = {
        "qat": qat_1b,
        "qat_3b": qat_3b,
        "days": qat_1b / 24,
        "ptq": ptq_1b,
        "times": qat_1b / ptq_1b,
        "usd": qat_1b * price,
        "usd_ptq": ptq_1b * price,
        "price": price,
        "steps": said("gemma3-qat", r"about ([\d,]+) steps"),
        "lora": LORA_QAT_HOURS,
    }
    because = (
        "QAT with LoRA took {qat:,.0f} H100 hours for Llama 3.2 1B ({days:.0f} days of one GPU, {usd:,.0f} USD at "
        "{price:.2f} an hour) and {qat_3b:,.0f} for the 3B; SpinQuant, a PTQ, took {ptq:.1f} hours ({usd_ptq:.2f} USD) "
        "for the 1B, {times:.0f} times fewer. Gemma 3 took about {steps:,.0f} steps. A run of Phi-3.5 with LoRA is "
        "said to have taken {lora:.0f} hours on one H100."
    )
    cases = (hours >= 24 for hours in (qat_1b, qat_3b, LORA_QAT_HOURS))
    return Evidence(over(*cases), because, numbers, "cited", ("l32-qat-cost", "gemma3-qat"), (LORA_QAT,))


@claim(
    "C108",
    sources=("000:59",),
    says="For Phi, Microsoft leans on QAT.",
    verdict="contested",
    instead="Cite Llama 3.2 or Gemma 3, whose QAT is documented.",
)
def c108(given: Assumptions) -> Evidence:
    because = (
        "No source was found. The published Phi models in INT4 for ONNX are rounded to nearest or AWQ, and the one QAT "
        "of Phi-3.5 that was found is not Microsoft's."
    )
    return Evidence("contested", because, {}, "cited", references=(NONE_FOUND,))


@claim(
    "C109",
    sources=("001:37",),
    says="Where it is critical, 4 bits call for QAT.",
    verdict="conditional",
    instead="A 70B in W4A16 does without it. It pays at 1B, and where PTQ fails your evaluation.",
)
def c109(given: Assumptions) -> Evidence:
    ptq = {
        "gptq": "nm-70b-w4a16",
        "tuned": "kurtic-70b-int4",
        "w4a8": "modelopt-mmlu-loss-Llama-3.1-70B-Instruct-W4A8 AWQ",
    }
    small = {"vanilla": "vanilla P", "spin": "SpinQuant", "qat": "QAT + LoR"}
    tasks = {name: f"l32-Llama-3.2-1B-GSM8K-{method}" for name, method in small.items()}
    numbers = {name: lost(row) for name, row in ptq.items()} | {name: value(row) for name, row in tasks.items()}
    numbers |= {"bf16": result(tasks["qat"]).baseline or 0.0}
    for name, place in (("loss", 0), ("loss_ptq", 1), ("loss_qat", 2)):
        numbers[name] = said("modelopt-qat", rf"W4A8: (?:[\d.]+, ){{{place}}}([\d.]+)")
    because = (
        "A 70B with PTQ lost {gptq:.2f} to {tuned:.2f} % of the Open LLM leaderboard in W4A16 and {w4a8:.1f} % of MMLU "
        "in W4A8. But Llama-3.2-1B in W4A8 has {bf16:.1f} of GSM8K in 16 bits, {vanilla:.1f} with plain PTQ, "
        "{spin:.1f} with SpinQuant, the better PTQ, and {qat:.1f} with QAT; and the validation loss of Llama-2-7B in "
        "W4A8 goes from {loss:.3f} to {loss_ptq:.3f} with PTQ and to {loss_qat:.3f} with QAT."
    )
    # It calls for QAT where PTQ loses more than noise: a 70B in W4A16, twice, and in W4A8; a 1B; a 7B in W4A8.
    losses = (*(numbers[name] for name in ptq), lost(tasks["spin"]), 100 * (numbers["loss_ptq"] / numbers["loss"] - 1))
    cases = (loss > given.noise_percent for loss in losses)
    return Evidence(over(*cases), because, numbers, "cited", (*ptq.values(), *tasks.values(), "modelopt-qat"))


@claim(
    "C110",
    sources=("000:61",),
    says="If there is a budget do QAT, if not take 8 bits.",
    verdict="contested",
    instead="Begin with what needs no training: FP8 from Ada on, W8A8 or W4A16 on older GPUs, by batch size. Train "
    "only when your evaluation rejects them.",
)
def c110(given: Assumptions) -> Evidence:
    named = {f"fp8_{size}": f"modelopt-mmlu-loss-Llama-3.1-{size}-Instruct-FP8" for size in ("70B", "8B")}
    numbers = {name: value(row) for name, row in named.items()}
    because = (
        "The advice names no goal by which it could be checked, and it leaves out other choices that need no training: "
        "FP8, which costs Llama-3.1 {fp8_70B:.2f} (70B) to {fp8_8B:.2f} % (8B) of MMLU, and 4 bits with GPTQ or AWQ, "
        "which take tens of minutes."
    )
    return Evidence("contested", because, numbers, "cited", (*named.values(), "trtllm-guide"))


@claim(
    "C111",
    sources=("002:45",),
    says="QAT is more accurate than PTQ, and INT8 needs it less.",
    verdict="true",
    instead="Yes, on average over tasks. A good PTQ can win one: {exceptions}.",
)
def c111(given: Assumptions) -> Evidence:
    tasks = {
        size: [row.id.removesuffix("QAT + LoR") for row in results(model=f"Llama-3.2-{size}", method="QAT + LoRA")]
        for size in ("1B", "3B")
    }
    means = {
        (size, method): mean(lost(task + method) for task in found)
        for size, found in tasks.items()
        for method in ("QAT + LoR", "SpinQuant", "vanilla P")
    }
    every = [task for found in tasks.values() for task in found]
    won = [task for task in every if lost(task + "QAT + LoR") < lost(task + "SpinQuant")]
    names = [task.removeprefix("l32-").removesuffix("-") for task in every if task not in won]
    numbers: dict[str, float | str] = {
        "tasks": len(every),
        "won": len(won),
        "exceptions": ", ".join(names) or "none here",
        "qat": means["1B", "QAT + LoR"],
        "spin": means["1B", "SpinQuant"],
        "vanilla": means["1B", "vanilla P"],
        "low": said("ao-qat", r"recovers (\d+)-"),
        "high": said("ao-qat", r"recovers \d+-(\d+)%"),
        "gemma": value("gemma3-qat"),
        "int8": lost("ao-ppl-int8 rowwise weight-onlyW8A16"),
    }
    because = (
        "Llama 3.2 1B loses {qat:.1f} % on average with QAT, {spin:.1f} % with SpinQuant and {vanilla:.1f} % with "
        "plain PTQ; QAT is ahead of SpinQuant in {won} of {tasks} tasks of 1B and 3B. It takes back {low:.0f} to "
        "{high:.0f} % of what PTQ lost in torchao, {gemma:.0f} % of the rise of perplexity in Gemma 3. INT8 weights "
        "cost an 8B {int8:.2f} % of perplexity without any training."
    )
    ahead = (means[size, "QAT + LoR"] < means[size, other] for size in tasks for other in ("SpinQuant", "vanilla P"))
    cites = ("l32-Llama-3.2-1B-IFEval-QAT + LoR", "l32-Llama-3.2-1B-IFEval-SpinQuant", "ao-qat", "gemma3-qat", _INT8)
    return Evidence(over(*ahead, lost(_INT8) <= given.noise_percent), because, numbers, "cited", cites)


_INT8 = "ao-ppl-int8 rowwise weight-onlyW8A16"


@claim(
    "C112",
    sources=("002:102", "000:120"),
    says="Very few bits call for QAT or for fine-tuning.",
    verdict="true",
    instead="Yes at 2 bits. At 4 bits a 70B lost {four:.2f} % without it.",
)
def c112(given: Assumptions) -> Evidence:
    quip, plain, tuned = "quip-7b-2", "aqlm-ppl-Llama-2-7B AQLM 1x16", "aqlm-ppl-Llama-2-7B AQLM+PV"
    base = result(quip).baseline or 0.0
    numbers = {"before": base, "quip": value(quip), "plain": value(plain), "tuned": value(tuned)}
    numbers |= {"llama3": value("llama3-70b-quip2"), "llama3_before": result("llama3-70b-quip2").baseline or 0.0}
    numbers |= {"four": lost("nm-70b-w4a16")}
    because = (
        "At 2 bits Llama-2-7B goes from a perplexity of {before:.2f} to {quip:.2f} with QuIP#, to {plain:.2f} with "
        "AQLM and to {tuned:.2f} with AQLM and fine-tuning; Llama-3-70B goes from {llama3_before:.1f} to {llama3:.0f} "
        "with QuIP, which does not train."
    )
    untrained = [numbers["quip"] / base, numbers["plain"] / base, numbers["llama3"] / numbers["llama3_before"]]
    cases = (
        *(rise > 1 + given.tolerance for rise in untrained),
        numbers["tuned"] < min(numbers["quip"], numbers["plain"]),
    )
    return Evidence(over(*cases), because, numbers, "cited", (quip, plain, tuned, "llama3-70b-quip2", "nm-70b-w4a16"))


@claim(
    "C113",
    sources=("000:120",),
    says="Who has nothing but g4dn takes GPTQ at 4 bits.",
    verdict="conditional",
    instead="The right method, but only on {large}, and in FP16: a T4 has neither BF16 nor FP8 arithmetic.",
)
def c113(given: Assumptions) -> Evidence:
    found = [one for name, one in instances().items() if name.startswith("g4dn.") and one.gpu.memory_visible_gib]
    held = [one.name for one in found if given.fit(one.name, given.int4).tokens > 0]
    numbers: dict[str, float | str] = {
        "weights": given.gb(given.int4),
        "sizes": len(found),
        "large": " and ".join(held) or "no size of it",
        "visible": gpu("T4").visible_bytes / 1e9,
        "has": gpu("T4").capability,
        "gptq_from": VLLM["GPTQ"][0],
        "awq_from": VLLM["AWQ"][0],
        "fp8_from": VLLM["FP8 W8A8"][0],
    }
    because = (
        "vLLM runs GPTQ on a T4, whose compute capability is {has} ({gptq_from} is needed, for AWQ {awq_from}, for FP8 "
        "arithmetic {fp8_from}). A 70B in INT4 has {weights:.1f} GB and one T4 shows {visible:.1f}: of the {sizes} "
        "sizes of g4dn, {large} can hold it."
    )
    cases = (runs("GPTQ", one.gpu) and one.name in held for one in found)
    return Evidence(over(*cases), because, numbers, references=(VLLM_TABLE,))


@claim(
    "C114",
    sources=("002:30",),
    says="vLLM, TGI, llama.cpp and their like serve models of which only the weights are quantized.",
    verdict="true",
    instead="Yes. By secondary copies of its README TGI has only been maintained since December 2025.",
)
def c114(given: Assumptions) -> Evidence:
    seen = {"vllm": "qwen25-7b-vllm-1-AWQ", "llama_cpp": "llamacpp-tg-Q4_K_M"}
    numbers = {name: value(row) for name, row in seen.items()}
    because = (
        "Speeds with 4-bit weights are published for vLLM ({vllm:.0f} tokens/s with a 7B) and for llama.cpp "
        "({llama_cpp:.0f} with an 8B). TGI's documentation lists GPTQ and AWQ."
    )
    cases = (speed > 0 for speed in numbers.values())
    return Evidence(over(*cases), because, numbers, "cited", tuple(seen.values()), (VLLM_TABLE, SERVERS))


@claim(
    "C115",
    sources=("002:92",),
    says="Distillation and quantization are two things, and can be combined.",
    verdict="true",
    instead="Yes: distillation that recovers a quantized model is called QAD.",
)
def c115(given: Assumptions) -> Evidence:
    because = (
        "NVIDIA's Model Optimizer has both, and quantization-aware distillation, where the 16-bit model is the teacher."
    )
    references = ("NVIDIA Model Optimizer documentation: quantization-aware distillation",)
    return Evidence("true", because, {}, "cited", references=references)


@claim(
    "C116",
    sources=("000:118",),
    says="Most examples for SageMaker are in 8 bits, and 4 bits take weeks of work.",
    verdict="contested",
    instead="What takes time is the evaluation, and that is the same for both.",
)
def c116(given: Assumptions) -> Evidence:
    because = (
        "AWQ and SmoothQuant entered SageMaker's containers in the same month, November 2023. To calibrate AWQ takes "
        "tens of minutes, and ready checkpoints exist. No count of examples was found."
    )
    references = (NONE_FOUND, "mit-han-lab/llm-awq README, news of 2023-11")
    return Evidence("contested", because, {}, "cited", ("trtllm-guide",), references)


@claim(
    "C117",
    sources=("004:5",),
    says="The architecture of a model is the same after quantization.",
    verdict="true",
    instead="Yes: the same graph, stored in another way. Rotations at run time (QuIP#, SpinQuant) add products, but no "
    "layer.",
)
def c117(given: Assumptions) -> Evidence:
    wide, narrow = memory(given.model, "bf16"), memory(given.model, given.int4)
    numbers = {
        "layers": narrow.spec.layers,
        "parameters": spec(given.model).parameters,
        "shrinks": wide.weights / narrow.weights,
    }
    because = (
        "There are {layers} layers and {parameters:,} parameters before and after; what shrinks by {shrinks:.2f}x is "
        "their storage. SmoothQuant and AWQ fold their scales into norms and weights that are there already."
    )
    references = (GPTQ_PAPER, AWQ_PAPER, "Xiao et al. 2022, SmoothQuant, arXiv 2211.10438")
    return Evidence("true", because, numbers, "cited", references=references)


@claim(
    "C118",
    sources=("002:98",),
    says="On a small GPU the first step is INT8 for the weights.",
    verdict="conditional",
    instead="Do the sum first: on {l40s:.0f} GB a 70B runs in 4 bits only.",
)
def c118(given: Assumptions) -> Evidence:
    usual = {
        "utilization": given.gpu_memory_utilization,
        "overhead_gb": given.overhead_gb,
        "context": given.context,
        "extended": True,
    }
    small = fits("Llama-3-8B", "T4", precision="int8", kv_bits=given.kv_bits, **usual)
    large, narrow = (given.fit("L40S", precision) for precision in ("int8", given.int4))
    numbers = {
        "large": large.breakdown.weights / 1e9,
        "narrow": narrow.breakdown.weights / 1e9,
        "small": small.breakdown.weights / 1e9,
        "tokens": narrow.tokens,
        "l40s": large.gpu.memory_gb,
        "t4": small.gpu.memory_gb,
    }
    because = (
        "A 70B in INT8 has {large:.1f} GB and does not load on one L40S ({l40s:.0f} GB); in INT4 it has {narrow:.1f}, "
        "with {tokens:,} tokens left. An 8B in INT8 has {small:.1f} GB, which a T4 ({t4:.0f} GB) holds."
    )
    return Evidence(over(small.tokens > 0, large.tokens > 0), because, numbers)
