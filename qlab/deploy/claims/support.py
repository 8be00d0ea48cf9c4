"""Claims on hardware support: which GPU computes in which numbers, and which software uses that."""

from __future__ import annotations

from math import inf

from ..hardware import Gpu, gpu, gpus
from ..instances import instance
from ..memory import memory
from ..planning.support import KERNELS
from ..roofline import datasheet
from ..speed.scheme import scheme
from .gaussian import E4M3, E4M3_TOP, E5M2, E5M2_TOP, sqnr
from .ledger import NONE_FOUND, Assumptions, Evidence, claim, over, value
from .rows import ends, faster, rows

# vLLM's own table, as compute capabilities: from the first up to, not including, the second. GPTQ on 7.0 is in the
# tables to v0.15.1, while the V1 engine is reported failing there.
VLLM = {
    "GPTQ": (7.0, inf),
    "AWQ": (7.5, inf),
    "FP8 weights": (7.5, inf),
    **{name: (KERNELS[name].first, KERNELS[name].end) for name in ("INT8 W8A8", "FP8 W8A8")},
}
VLLM_TABLE = "docs.vllm.ai, quantization: supported hardware, v0.11.2 to v0.15.1 and latest; its int8 and fp8 pages"
TENSORRT_TABLE = "NVIDIA TensorRT support matrix: INT8 tensor cores no for 7.0 (V100), yes for 7.5, 8.0 and 8.6"
FP8_FORMATS = "Micikevicius et al. 2022, FP8 Formats for Deep Learning, arXiv 2209.05433, table 1"


def runs(method: str, where: Gpu) -> bool:
    """Whether vLLM's table has the method for that GPU."""
    first, end = VLLM[method]
    return first <= where.capability < end


def ratio(where: Gpu, kind: str) -> float:
    """The data sheet's matrix rate for this kind of number over that for 16-bit floats; 0 where there is none."""
    rates = datasheet(where).rates
    return rates.get(kind, 0.0) / rates.get("fp16", inf)


def even_batch(where: str) -> float:
    """The batch up to which W4A16 is ahead of W8A8 by the roofline: its arithmetic takes as long as reading 8 bits.

    Tokens · 2 operations / rate of fp16 = 1 byte / bandwidth, for each weight.
    """
    return datasheet(where).ridge("fp16") / 2


def _names(found: list[Gpu]) -> str:
    return ", ".join(one.name for one in found)


@claim(
    "C035",
    sources=("000:67", "000:116"),
    says="The tensor cores of a P3 (V100) compute in INT8.",
    verdict="false",
    instead="INT8 tensor cores begin with Turing (T4). A V100 has {dp4a:.0f} TOPS of INT8 outside its tensor cores, "
    "half of its {fp16:.0f} TFLOPS in FP16: there INT8 is slower.",
)
def c035(given: Assumptions) -> Evidence:
    v100 = instance("p3.8xlarge").gpu
    numbers = {
        "cc": v100.capability,
        "fp16": v100.fp16_tensor_tflops or 0.0,
        "dp4a": 4 * (v100.fp32_cuda_tflops or 0.0),  # four products of 8 bits in place of one of 32
        "least": VLLM["INT8 W8A8"][0],
    }
    because = (
        "The data sheet of a V100 has no INT8 rate for tensor cores. vLLM runs INT8 W8A8 from compute capability "
        "{least} on, which is NVIDIA's number for what a GPU can do, and a V100 has {cc}."
    )
    cases = (v100.int8_tensor_tops is not None, runs("INT8 W8A8", v100))
    return Evidence(over(*cases), because, numbers, references=(TENSORRT_TABLE, VLLM_TABLE))


@claim(
    "C036",
    sources=("000:67", "000:116"),
    says="The tensor cores of a P4d (A100) compute in INT8.",
    verdict="true",
    instead="Yes: {int8:.0f} TOPS, {ratio:.1f}x the FP16 rate.",
)
def c036(given: Assumptions) -> Evidence:
    a100 = instance("p4d.24xlarge").gpu
    numbers = {
        "int8": a100.int8_tensor_tops or 0.0,
        "fp16": a100.fp16_tensor_tflops or 0.0,
        "ratio": ratio(a100, "int8"),
    }
    because = (
        "The data sheet has {int8:.0f} dense TOPS in INT8 and {fp16:.0f} TFLOPS in FP16; vLLM runs INT8 W8A8 on it."
    )
    cases = (numbers["ratio"] > 1, runs("INT8 W8A8", a100))
    return Evidence(over(*cases), because, numbers, references=(TENSORRT_TABLE, VLLM_TABLE))


@claim(
    "C037",
    sources=("001:40",),
    says="8 bits are native to tensor cores.",
    verdict="conditional",
    instead="Ask which 8 bits, which GPU and which software. The units: INT8 from Turing on, all but gone in the B300; "
    "FP8 from Ada on. vLLM uses those for INT8 up to Hopper only.",
)
def c037(given: Assumptions) -> Evidence:
    known = list(gpus().values())
    int8 = [one for one in known if ratio(one, "int8") > 1]
    fp8 = [one for one in known if ratio(one, "fp8") > 1]
    numbers: dict[str, float | str] = {
        "gpus": len(known),
        "int8": len(int8),
        "fp8": len(fp8),
        "without_int8": _names([one for one in known if one not in int8]),
        "unused": _names([one for one in int8 if one.capability >= VLLM["INT8 W8A8"][1]]),
    }
    because = (
        "By data sheet {int8} of {gpus} GPUs are faster in INT8 than in FP16 (not {without_int8}) and {fp8} in FP8. Of "
        "the {int8}, vLLM has no INT8 W8A8 for {unused}."
    )
    cases = (one in found for found in (int8, fp8) for one in known)
    return Evidence(over(*cases), because, numbers, references=(VLLM_TABLE,))


@claim(
    "C038",
    sources=("000:67",),
    says="A gain of 1.5 to 2x is the reason why NVIDIA pushed INT8 in Ampere and Hopper.",
    verdict="contested",
    instead="NVIDIA's units went from INT8 to FP8 to FP4. INT8 came with {first}, before Ampere; Hopper added FP8 at "
    "the same rate; by one secondary source the B300 gives INT8 up again.",
)
def c038(given: Assumptions) -> Evidence:
    first = min((one for one in gpus().values() if one.int8_tensor_tops), key=lambda one: one.capability)
    numbers: dict[str, float | str] = {
        "first": first.architecture,
        "hopper_fp8": gpu("H100-80GB").fp8_tensor_tflops or 0.0,
        "hopper_int8": gpu("H100-80GB").int8_tensor_tops or 0.0,
        "cut": (gpu("B200").int8_tensor_tops or 0.0) / (gpu("B300").int8_tensor_tops or inf),
    }
    because = (
        "No source was found for what moved NVIDIA. INT8 tensor cores came with {first}. Hopper runs FP8 at "
        "{hopper_fp8:,.0f} TFLOPS and INT8 at {hopper_int8:,.0f} TOPS, so speed is no reason to prefer INT8 there; "
        "the B200 has {cut:.0f} times the INT8 rate of the B300 (one secondary source)."
    )
    return Evidence("contested", because, numbers, "cited", references=(NONE_FOUND,))


@claim(
    "C039",
    sources=("000:69", "001:43"),
    says="Hardware mostly has no units for 4 bits.",
    verdict="conditional",
    instead="W4A16 computes in FP16 everywhere, that is true. But 4-bit units exist: INT4 from Turing to Ada (an A100 "
    "has {a100_int4:,.0f} TOPS), FP4 in Blackwell (a B200 {b200_fp4:,.0f} TFLOPS). Hopper has neither.",
)
def c039(given: Assumptions) -> Evidence:
    known = list(gpus().values())
    without = [one for one in known if not (one.int4_tensor_tops or one.fp4_tensor_tflops)]
    numbers: dict[str, float | str] = {
        "gpus": len(known),
        "with_units": len(known) - len(without),
        "without": _names(without),
        "a100_int4": gpu("A100-80GB").int4_tensor_tops or 0.0,
        "b200_fp4": gpu("B200").fp4_tensor_tflops or 0.0,
    }
    because = "By data sheet {with_units} of {gpus} GPUs have a rate for INT4 or FP4. These have none: {without}."
    return Evidence(over(*(one in without for one in known)), because, numbers)


@claim(
    "C040",
    sources=("000:69", "001:44"),
    says="Before anything is computed, 4-bit weights have to become FP16.",
    verdict="conditional",
    instead="True for formats that quantize weights only (GPTQ, AWQ, NF4). W4A8 unpacks to 8 bits, NVFP4 is multiplied "
    "as it is.",
)
def c040(given: Assumptions) -> Evidence:
    tried = {"int4-g128": "A100-80GB", "nf4": "A100-80GB", "w4a8": "A100-80GB", "nvfp4": "B200"}
    rates = {name: scheme(name).rate(datasheet(where)) for name, where in tried.items()}
    numbers = {name.removesuffix("-g128"): rate.upper() for name, rate in rates.items()}
    because = (
        "On an A100 W4A16 is multiplied in {int4}, NF4 in {nf4} and W4A8 in {w4a8}; NVFP4, a 4-bit float with a scale "
        "for every 16 numbers, in {nvfp4} on a B200."
    )
    references = ("QServe, mit-han-lab/qserve README (W4A8)", "pytorch/ao, inference workflows (NVFP4)")
    return Evidence(over(*(rate == "fp16" for rate in rates.values())), because, numbers, references=references)


@claim(
    "C041",
    sources=("003:10", "002:36"),
    says="INT8 tensor cores run at twice the rate of FP16 and BF16.",
    verdict="conditional",
    instead="Twice at the peak where the unit exists. End to end expect {fused_low:.2f} to {fused_high:.2f}x; more "
    "only where 16 bits were short of memory.",
)
def c041(given: Assumptions) -> Evidence:
    known = list(gpus().values())
    fused = ends((*rows(method="INT8 SmoothQuant", metric="speedup"), *rows(method="SmoothQuant-O3", metric="speedup")))
    served = ends(rows(method="TRT-LLM W8A8"))
    numbers = {
        "twice": sum(given.near(ratio(one, "int8"), 2) for one in known),
        "gpus": len(known),
        "a100": ratio(gpu("A100-80GB"), "int8"),
        "rtx_4090": ratio(gpu("RTX-4090"), "int8"),
        "b300": ratio(gpu("B300"), "int8"),
        "fused_low": faster(fused[0]),
        "fused_high": faster(fused[1]),
        "served_low": faster(served[0]),
        "served_high": faster(served[1]),
    }
    because = (
        "By data sheet it is twice on {twice} of {gpus} GPUs, such as an A100 ({a100:.1f}x); an RTX 4090 has "
        "{rtx_4090:.1f}x, a B300 {b300:.2f}x, a V100 no rate at all. Whole models in W8A8 had {served_low:.2f} to "
        "{served_high:.2f}x of the throughput of FP16."
    )
    cases = (given.near(ratio(one, "int8"), 2) for one in known)
    return Evidence(over(*cases), because, numbers, cites=(*fused, *served))


@claim(
    "C042",
    sources=("003:10",),
    says="INT4, packed two to a byte, runs at about the INT8 rate with 4x less memory.",
    verdict="conditional",
    instead="4-bit weights save bandwidth, and make a 70B {saved:.2f}x smaller. To multiply in integers the "
    "activations must have 8 bits as well, as in W4A8.",
)
def c042(given: Assumptions) -> Evidence:
    limits = datasheet("A100-80GB")
    w4a16, w4a8 = scheme("int4-g128").rate(limits), scheme("w4a8").rate(limits)
    wide, narrow = memory(given.model, "bf16"), memory(given.model, given.int4)
    numbers = {
        "w4a16": limits.rates[w4a16] / 1e12,
        "w4a8": limits.rates[w4a8] / 1e12,
        "int4": limits.rates["int4"] / 1e12,
        "saved": wide.weights / narrow.weights,
        "linears": wide.linears / narrow.linears,
    }
    because = (
        "On an A100 W4A16 multiplies at {w4a16:.0f} TFLOPS and W4A8 at {w4a8:.0f} TOPS; products of two INT4 numbers "
        "would run at {int4:,.0f}, and Hopper has no units for them. A 70B shrinks by {saved:.2f}x, its layers alone "
        "by {linears:.2f}x."
    )
    cases = (numbers["w4a16"] >= limits.rates["int8"] / 1e12, numbers["w4a8"] >= limits.rates["int8"] / 1e12)
    return Evidence(over(*cases, given.near(numbers["saved"], 4)), because, numbers)


@claim(
    "C043",
    sources=("003:10",),
    says="With fewer bits, matrices multiply faster.",
    verdict="conditional",
    instead="Only if the kernel and the unit exist, and if what you shrank is what the phase waits for.",
)
def c043(given: Assumptions) -> Evidence:
    tried = rows(kind="speed")
    slower = [row for row in tried if faster(row) < 1]
    examples = {
        "torchao": "ao-h100-dec-int8 weight-only",
        "transformers": "qwen25-7b-hf-GPTQ-Int8",
        "long": "qwen25-7b-vllm-129024-GPTQ-Int8",
        "llm_int8": "bnb-H100 SXM-Llama-3.1-8B-b1-LLM.int8() with decomposition",
        "gpt_fast": "gptfast-int4-Llama-2-7B",
    }
    numbers = {name: faster(row) for name, row in examples.items()} | {"tried": len(tried), "slower": len(slower)}
    because = (
        "Of {tried} published speeds beside one in 16 bits {slower} are slower. INT8 weights ran at {torchao:.2f}x in "
        "torchao (H100), {transformers:.2f}x in transformers, {long:.2f}x in vLLM after 129,024 tokens of prompt, and "
        "LLM.int8() at {llm_int8:.2f}x. INT4 in gpt-fast ran at {gpt_fast:.2f}x."
    )
    return Evidence(over(*(row not in slower for row in tried)), because, numbers, "cited", tuple(examples.values()))


@claim(
    "C044",
    sources=("002:37",),
    says="FP8 belongs to the generation of H100 and B100.",
    verdict="conditional",
    instead="FP8 arithmetic also runs on Ada: L4 (in g6), L40S (in g6e), RTX 4090. From Turing to Ampere FP8 can only "
    "store weights.",
)
def c044(given: Assumptions) -> Evidence:
    found = [one for one in gpus().values() if one.fp8_tensor_tflops]
    younger = ("Hopper", "Blackwell", "Blackwell Ultra")
    numbers: dict[str, float | str] = {
        "elsewhere": _names([one for one in found if one.architecture not in younger]),
        "math_from": VLLM["FP8 W8A8"][0],
        "weights_from": VLLM["FP8 weights"][0],
    }
    because = (
        "H100 (Hopper) and B100 (Blackwell) are two generations, and both have it. So have {elsewhere}, which are of "
        "neither. vLLM computes in FP8 from compute capability {math_from} (Ada) on, and stores weights in it from "
        "{weights_from} (Turing) on."
    )
    cases = (one.architecture in younger for one in found)
    return Evidence(over(*cases), because, numbers, references=(VLLM_TABLE,))


@claim(
    "C045",
    sources=("002:99",),
    says="For the highest throughput take weight-only INT4, or FP8.",
    verdict="conditional",
    instead="With large batches take W8A8 or FP8: by the roofline they are ahead from {a100:.0f} requests on with an "
    "A100, from {h100:.0f} with an H100. Where memory limits the batch, and with small batches, take 4 bits.",
)
def c045(given: Assumptions) -> Evidence:
    fp8, int4 = "mo21-FP8-Llama3.1-70B-64", "mo21-INT4 AWQ-Llama3.1-70B-64"
    served = {f"served_{n}": f"qserve-A100-80GB-Llama-2-70B-TRT-LLM {n.upper()}" for n in ("w4a16", "w8a8")}
    raw = {n: f"mo21-raw-Llama3.1-70B-64/{n}" for n in ("bf16", "fp8", "int4-awq")}
    numbers = {name: even_batch(where) for name, where in _CROSSING.items()}
    numbers |= {"fp8": faster(fp8), "int4": faster(int4)} | {name: value(row) for name, row in served.items()}
    numbers |= {
        "raw_fp8": value(raw["fp8"]) / value(raw["bf16"]),
        "raw_int4": value(raw["int4-awq"]) / value(raw["bf16"]),
    }
    because = (
        "A 70B on H200s, batch 64, 2,048 tokens in and 128 out: per GPU FP8 had {fp8:.2f}x of 16 bits and INT4 (AWQ) "
        "{int4:.2f}x; one GPU against two, {raw_fp8:.2f}x and {raw_int4:.2f}x. On one A100, where the KV cache limits "
        "the batch, W4A16 had {served_w4a16:.0f} tokens/s and W8A8 {served_w8a8:.0f}. By the roofline W4A16 is ahead "
        "up to {a10g:.0f} requests on an A10G and {l40s:.0f} on an L40S."
    )
    cases = (numbers["fp8"] > 1, numbers["int4"] > 1, numbers["served_w4a16"] > numbers["served_w8a8"])
    return Evidence(over(*cases), because, numbers, "cited", (fp8, int4, *served.values(), *raw.values()))


_CROSSING = {"a10g": "A10G", "a100": "A100-80GB", "h100": "H100-80GB", "l40s": "L40S"}


@claim(
    "C046",
    sources=("002:94",),
    says="FP8 is more than a small FP16: there are E4M3 and E5M2, and they differ.",
    verdict="true",
    instead="Inference uses E4M3, with scales, for weights and activations. E5M2 is FP16 cut short, and made "
    "for gradients.",
)
def c046(given: Assumptions) -> Evidence:
    numbers = {
        "e4m3_top": E4M3_TOP,
        "e5m2_top": E5M2_TOP,
        "e4m3": sqnr(E4M3, _ROW),
        "e5m2": sqnr(E5M2, _ROW),
    }
    because = (
        "E4M3 has 3 bits of mantissa and reaches {e4m3_top:.0f}; E5M2 has 2, the 5 bits of exponent of FP16, and "
        "reaches {e5m2_top:,.0f}. With a scale per row the signal of normally distributed weights stays {e4m3:.1f} dB "
        "above the noise in E4M3 and {e5m2:.1f} dB in E5M2."
    )
    cases = (numbers["e4m3_top"] < numbers["e5m2_top"], numbers["e4m3"] > numbers["e5m2"])
    return Evidence(over(*cases), because, numbers, references=(FP8_FORMATS,))


_ROW = 4096  # weights of an output row, as in a 7B or 8B


@claim(
    "C047",
    sources=("002:20",),
    says="By 2026 INT8 is standard in nearly every stack for inference.",
    verdict="conditional",
    instead="On NVIDIA's current GPUs it is FP8: vLLM runs INT8 W8A8 only from Turing to Hopper (compute capability "
    "{first} to below {end}).",
)
def c047(given: Assumptions) -> Evidence:
    known = list(gpus().values())
    supported = [one for one in known if runs("INT8 W8A8", one)]
    first, end = VLLM["INT8 W8A8"]
    numbers: dict[str, float | str] = {
        "gpus": len(known),
        "supported": len(supported),
        "without": _names([one for one in known if one not in supported]),
        "first": first,
        "end": end,
    }
    because = "vLLM has INT8 W8A8 for {supported} of {gpus} GPUs. It has none for {without}."
    return Evidence(over(*(one in supported for one in known)), because, numbers, "cited", references=(VLLM_TABLE,))
