"""Claims on speed: what fewer bits do to prefill, to decoding and to throughput, by bytes and as published."""

from __future__ import annotations

from math import ceil, floor

from ..hardware import gpu
from ..memory import memory
from ..models import spec
from ..results import result, results
from ..roofline import datasheet
from .ledger import NONE_FOUND, Assumptions, Evidence, claim, more, over, said, value
from .rows import ends, faster, lost, rows, several
from .support import even_batch, runs

A100 = "A100-80GB"
GIB = 2**30
LLM_INT8 = "bitsandbytes LLM.int8() with decomposition"
BNB_INT8 = "bitsandbytes INT8 (no outlier decomposition)"
BATCHES = (1, 16, 64, 256)  # from one user to a busy server


def token_ms(given: Assumptions, precision: str) -> float:
    """Milliseconds of reading the weights for one decoded token on an A100."""
    bandwidth = gpu(A100).bandwidth_gb_per_s * 1e9 * given.bandwidth_reached
    return 1e3 * memory(given.model, precision).read_per_token / bandwidth


def prompt_ms(given: Assumptions, kind: str) -> float:
    """Milliseconds of arithmetic for a prompt in the layers of the model on an A100, at the rate of this kind."""
    operations = 2 * spec(given.model).linear_parameters * given.prompt_tokens
    return 1e3 * operations / (datasheet(A100).rates[kind] * given.compute_reached)


def bound(given: Assumptions, precision: str, tokens: int = 0) -> float:
    """How many times fewer bytes a decoding step reads than in 16 bits, with so many tokens of KV cache in flight."""
    cache = tokens * memory(given.model, kv_bits=given.kv_bits).kv_per_token
    wide, narrow = (memory(given.model, p).read_per_token for p in ("bf16", precision))
    return (wide + cache) / (narrow + cache)


def _int8_decode() -> tuple[str, ...]:
    """Published speeds of decoding with INT8 weights and 16-bit activations."""
    found = rows(kind="speed", bits="W8A16")
    return (*(row for row in found if "prefill" not in (result(row).setting or "")), "llamacpp-tg-Q8_0")


def _served(method: str) -> dict[tuple[str, str], float]:
    """QServe's table of throughput on one GPU: tokens per second by GPU and model, 0 where memory does not suffice."""
    found = results(method=method, metric="tokens/s")
    return {(row.hardware or "", row.model or ""): float(value(row.id)) if row.value else 0.0 for row in found}


@claim(
    "C048",
    sources=("000:67", "001:42"),
    says="8 bits have 1.5 to 2 times the throughput of FP16.",
    verdict="conditional",
    instead="With fused kernels {fused_low:.1f} to {fused_high:.1f}x is typical. Above 2x it is room for the KV cache "
    "that 16 bits lacked; bitsandbytes is mostly below 1x.",
)
def c048(given: Assumptions) -> Evidence:
    groups = {
        "fused": (*rows(method="INT8 SmoothQuant", metric="speedup"), *rows(method="SmoothQuant-O3", metric="speedup")),
        "served": rows(method="TRT-LLM W8A8"),
        "weights": _int8_decode(),
        "llm_int8": rows(method=LLM_INT8),
        "bnb": rows(method=BNB_INT8),
        "kurtic": ("kurtic-speed-int8",),
    }
    low_high = {name: ends(found) for name, found in groups.items()}
    numbers = {f"{name}_low": faster(low) for name, (low, _) in low_high.items()}
    numbers |= {f"{name}_high": faster(high) for name, (_, high) in low_high.items()}
    numbers["kurtic"] = said("kurtic-speed-int8", r"speedup ([\d.]+)")
    because = (
        "W8A8 was published at {fused_low:.2f} to {fused_high:.2f}x with fused kernels (H100, A100) and at "
        "{served_low:.2f} to {served_high:.2f}x in throughput of one GPU; for a 70B on four A100 a paper prints "
        "{kurtic:.2f}x in queries per second, and its rounded rates make {kurtic_low:.2f}x. INT8 weights alone decode "
        "at {weights_low:.2f} to {weights_high:.2f}x. bitsandbytes runs at {llm_int8_low:.2f} to {llm_int8_high:.2f}x "
        "with outliers taken apart, at {bnb_low:.2f} to {bnb_high:.2f}x without."
    )
    cases = (1.5 <= faster(row) <= 2 for found in groups.values() for row in found)
    cites = tuple(dict.fromkeys(row for pair in low_high.values() for row in pair))
    return Evidence(over(*cases), because, numbers, "cited", cites)


@claim(
    "C049",
    sources=("001:39",),
    says="Throughput grows by 5x (a headline over 8 bits).",
    verdict="contested",
    instead="Two numbers are mixed up here. A token gains {int8:.2f}x from 8 bits at most and {int4:.2f}x "
    "from 4; a whole server gains near 5x where 16 bits leave no memory to batch.",
)
def c049(given: Assumptions) -> Evidence:
    eight, four = ends(rows(method="TRT-LLM W8A8"))[1], ends(rows(method="QServe"))[1]
    numbers = {
        "int8": bound(given, "int8"),
        "int4": bound(given, given.int4),
        "served_8": faster(eight),
        "served_4": faster(four),
    }
    because = (
        "By bytes one stream can gain {int8:.2f}x with 8 bits and {int4:.2f}x with 4. Throughput of one GPU has no "
        "such bound: W8A8 reached {served_8:.2f}x and W4A8KV4 {served_4:.1f}x where FP16 was short of memory. The "
        "headline says neither which is meant nor why, and its own section goes on with 1.5 to 2x."
    )
    # A headline that is met by one reading and refused by another cannot be decided before it says which it means.
    reached = over(*(x >= 5 * (1 - given.tolerance) for x in numbers.values()))
    verdict = "contested" if reached == "conditional" else reached
    return Evidence(verdict, because, numbers, "cited", (eight, four))


@claim(
    "C050",
    sources=("000:69",),
    says="4 bits are smaller, but often not faster.",
    verdict="conditional",
    instead="Wrong for decoding in small batches with short contexts: {qwen:.2f} to {tinychat:.2f}x. Right for very "
    "long contexts, large batches with much prefill, and kernels that are not fused.",
)
def c050(given: Assumptions) -> Evidence:
    named = {
        "qwen": "qwen25-7b-vllm-1-GPTQ-Int4",
        "gpt_fast": "gptfast-int4-Llama-2-7B",
        "llama_cpp": "llamacpp-tg-Q4_K_M",
        "tinychat": "tinychat-4090-LLaMA-3-8B",
        "long": "qwen25-7b-vllm-129024-GPTQ-Int4",
        "h200_8b": "mo21-INT4 AWQ-Llama3.1-8B-8",
        "h200_70b": "mo21-INT4 AWQ-Llama3.1-70B-8",
        "nf4_h100": "bnb-H100 SXM-Llama-3.1-8B-b1-NF4",
        "nf4_t4": "bnb-T4-Qwen2.5-3B-b8-NF4",
    }
    tried = (*rows(kind="speed", bits="W4A16"), named["llama_cpp"])
    numbers = {name: faster(row) for name, row in named.items()}
    numbers |= {"tried": len(tried), "not_faster": sum(faster(row) <= 1 for row in tried)}
    because = (
        "Of {tried} published speeds of 4-bit weights {not_faster} are not above FP16. One request with a short prompt "
        "ran at {qwen:.2f}x in vLLM, {gpt_fast:.2f}x in gpt-fast, {llama_cpp:.2f}x in llama.cpp, {tinychat:.2f}x in "
        "TinyChat. But after 129,024 tokens of prompt it is {long:.2f}x, at batch 8 with 2,048 tokens of prompt "
        "{h200_8b:.2f} to {h200_70b:.2f}x per GPU, and in NF4 {nf4_h100:.2f}x on an H100 and {nf4_t4:.2f}x on a T4 at "
        "batch 8."
    )
    cases = (faster(row) <= 1 for row in tried)
    return Evidence(over(*cases), because, numbers, "cited", tuple(named.values()))


@claim(
    "C051",
    sources=("001:46",),
    says="That a model is in 4 bits does not make sure that it is faster.",
    verdict="true",
    instead="Agree, and then say when: it depends on batch, phase and kernel.",
)
def c051(given: Assumptions) -> Evidence:
    low, high = ends(rows(kind="speed", bits="W4A16"))
    numbers = {"low": faster(low), "high": faster(high)}
    where = {"low_gpu": result(low).hardware or "", "high_gpu": result(high).hardware or ""}
    because = (
        "Published speeds of 4-bit weights go from {low:.2f}x of FP16 (on a {low_gpu}) to {high:.2f}x ({high_gpu})."
    )
    return Evidence(over(numbers["low"] < 1), because, {**numbers, **where}, "cited", (low, high))


@claim(
    "C052",
    sources=("000:71",),
    says="Because of dequantization, 4 bits can be slower than 8.",
    verdict="conditional",
    instead="It depends on the kernel and the batch. For one request 4 bits are faster. Kernels that are not fused "
    "fall behind by batch 8; fused ones near the crossover of the roofline, {crossover:.0f} requests on an A100.",
)
def c052(given: Assumptions) -> Evidence:
    pairs = {
        b: [f"bnb-H100 SXM-Llama-3.1-70B-b{b}-{m}" for m in ("NF4", BNB_INT8.removeprefix("bitsandbytes "))]
        for b in (1, 8, 32)
    }
    numbers = {f"nf4_{b}": value(nf4) for b, (nf4, _) in pairs.items()}
    numbers |= {f"int8_{b}": value(int8) for b, (_, int8) in pairs.items()} | {"crossover": even_batch(A100)}
    because = (
        "A 70B in bitsandbytes on an H100 has {nf4_1:.1f} tokens/s in NF4 and {int8_1:.1f} in INT8 at batch 1, "
        "{nf4_8:.1f} and {int8_8:.1f} at batch 8, {nf4_32:.0f} and {int8_32:.0f} at batch 32."
    )
    cases = (value(nf4) < value(int8) for nf4, int8 in pairs.values())
    cites = tuple(row for pair in pairs.values() for row in pair)
    return Evidence(over(*cases), because, numbers, "cited", cites)


@claim(
    "C053",
    sources=("000:69", "001:45"),
    says="Decoding waits for memory and not for arithmetic, so 4 bits bring no speed.",
    verdict="false",
    instead="That decoding waits for memory is the very reason why 4 bits make it faster.",
)
def c053(given: Assumptions) -> Evidence:
    numbers = {p: token_ms(given, precision) for p, precision in _precisions(given).items()}
    because = (
        "If bytes are the limit, time is bytes over bandwidth. A token of a 70B takes {bf16:.1f} ms on an A100 in 16 "
        "bits, {int8:.1f} in INT8, {int4:.1f} in INT4. From the premise follows the opposite."
    )
    return Evidence(over(numbers["int4"] >= numbers["bf16"]), because, numbers)


def _precisions(given: Assumptions) -> dict[str, str]:
    return {"bf16": "bf16", "int8": "int8", "int4": given.int4}


@claim(
    "C054",
    sources=("000:69",),
    says="To dequantize takes time and bandwidth.",
    verdict="conditional",
    instead="A fused kernel pays in arithmetic only, and you see it where arithmetic is the limit. One that is not "
    "fused pays in bandwidth, too: the FP16 weights travel twice, {unfused:.0f} bits for each weight in all.",
)
def c054(given: Assumptions) -> Evidence:
    wide, fused = 16, memory(given.model, given.int4).bits_per_weight
    unfused = fused + 2 * wide  # read packed, written in FP16, read again
    numbers = {"fused": fused, "unfused": unfused, "wide": wide, "ideal": wide / fused}
    numbers |= {"marlin": faster("marlin-kernel")}
    low, high = several("qserve-dequant")
    because = (
        "A fused kernel reads {fused:.4g} bits for each weight and unpacks them in registers. Otherwise the matrix is "
        "written in FP16 and read again: {unfused:.4g} bits, more than the {wide:.0f} of FP16. Marlin reaches "
        "{marlin:.2f}x of an ideal {ideal:.2f}x up to batch 32; QServe found {low:.0f} to {high:.0f} % of overhead in "
        "older kernels."
    )
    cases = (fused > wide, unfused > wide)
    return Evidence(
        over(*cases), because, {**numbers, "low": low, "high": high}, cites=("marlin-kernel", "qserve-dequant")
    )


@claim(
    "C055",
    sources=("000:116",),
    says="An answer comes 20 to 40 ms sooner with 8 bits than with 4.",
    verdict="conditional",
    instead="Ask for the length of the answers. If one token is all, W8A8 is ahead by {one:.0f} ms; {overtakes}.",
)
def c055(given: Assumptions) -> Evidence:
    w4a16, w8a8 = prompt_ms(given, "fp16"), prompt_ms(given, "int8")
    four, eight = token_ms(given, given.int4), token_ms(given, "int8")
    first, each = w4a16 - w8a8, eight - four  # ms that 8 bits gain by the prompt, and lose with each token after it
    lengths = range(1, given.output_tokens + 1)
    held = _between(first, each, lengths)
    last = first - (len(lengths) - 1) * each
    even = floor(first / each) + 2 if each > 0 else 0  # the first length at which INT4 is ahead
    numbers: dict[str, float | str] = {"w4a16": w4a16, "w8a8": w8a8, "four": four, "eight": eight}
    numbers |= {
        "one": first,
        "held": f"{held[0]:,} to {held[-1]:,} tokens" if held[1:] else f"{held[0]:,} tokens" if held else "no length",
        "last": last,
        "apart": f"{abs(last):,.0f} ms {'sooner' if last >= 0 else 'later'}",
        "even": even,
        "overtakes": f"from {even:,} tokens on INT4 is" if even else "INT4 never is",
    }
    because = (
        "A 70B on one A100, one request: a prompt of {prompt_tokens:,} tokens takes {w8a8:.0f} ms in W8A8 and "
        "{w4a16:.0f} in W4A16, and yields the first token; each further one takes {eight:.1f} ms in INT8 and "
        "{four:.1f} in INT4. So with 8 bits an answer of one token comes {one:.0f} ms sooner, one of {output_tokens:,} "
        "tokens {apart}. Up to that length it is 20 to 40 ms sooner at {held}."
    )
    return Evidence(over(len(held) == len(lengths), len(held) > 0), because, numbers)


def _between(first: float, each: float, lengths: range) -> range:
    """The lengths n for which first - (n - 1) · each is 20 to 40."""
    if each == 0:
        return lengths if 20 <= first <= 40 else range(0)
    low, high = sorted(1 + (first - ms) / each for ms in (20, 40))
    return range(max(lengths[0], ceil(low)), min(lengths[-1], floor(high)) + 1)


@claim(
    "C056",
    sources=("002:74",),
    says="With INT8 weights decoding is 1.5 to 2 times as fast.",
    verdict="conditional",
    instead="About {gpt_fast:.1f}x is typical. Look at the kernel and at the length of the context.",
)
def c056(given: Assumptions) -> Evidence:
    named = {
        "llama_cpp": "llamacpp-tg-Q8_0",
        "gpt_fast": "gptfast-int8-Llama-2-7B",
        "vllm": "qwen25-7b-vllm-1-GPTQ-Int8",
        "long": "qwen25-7b-vllm-129024-GPTQ-Int8",
        "transformers": "qwen25-7b-hf-GPTQ-Int8",
        "torchao": "ao-h100-dec-int8 weight-only",
    }
    numbers = {name: faster(row) for name, row in named.items()} | {"bound": bound(given, "int8")}
    because = (
        "By bytes a 70B can gain {bound:.2f}x at most. With INT8 weights {llama_cpp:.2f}x was measured in llama.cpp, "
        "{gpt_fast:.2f}x in gpt-fast and {vllm:.2f}x in vLLM, but {long:.2f}x after 129,024 tokens of prompt, "
        "{transformers:.2f}x in transformers and {torchao:.2f}x in torchao with 128 requests."
    )
    cases = (1.5 <= faster(row) <= 2 for row in _int8_decode())
    return Evidence(over(*cases), because, numbers, "cited", tuple(named.values()))


@claim(
    "C057",
    sources=("002:75",),
    says="With INT4 weights decoding is 3 to 4 times as fast.",
    verdict="conditional",
    instead="{kernel:.1f}x belongs to a kernel. A whole model on the same GPU gains {low:.1f} to {high:.1f}x;"
    " what exceeds that comes from GPUs or cache memory that 16 bits lacked.",
)
def c057(given: Assumptions) -> Evidence:
    single = (
        "qwen25-7b-vllm-1-GPTQ-Int4",
        "gptfast-int4-Llama-2-7B",
        "llamacpp-tg-Q4_K_M",
        "tinychat-a100-LLaMA-3-8B",
        "tinychat-4090-LLaMA-3-8B",
        "tinychat-4090-LLaMA-2-7B",
    )
    other = {"kernel": "marlin-kernel", "marlin": "marlin-e2e", "per_gpu": "mo11-awq-Llama3-70B-32", "opt": "gptq-175b"}
    served = ends(rows(method="TRT-LLM W4A16"))[1]
    low, high = ends(single)
    numbers = {name: faster(row) for name, row in other.items()}
    numbers |= {"low": faster(low), "high": faster(high), "served": faster(served)}
    numbers |= {f"bound_{t // 1024}k": bound(given, given.int4, t) for t in (0, 65_536, 262_144)}
    because = (
        "By bytes a 70B can gain {bound_0k:.2f}x at most, {bound_64k:.2f}x with 65,536 tokens in flight, "
        "{bound_256k:.2f}x with 262,144. Measured were {kernel:.2f}x for the Marlin kernel alone, {low:.2f} to "
        "{high:.2f}x for whole models on the same GPU at batch 1, up to {marlin:.1f}x for Marlin in vLLM. Where more "
        "than 3x is printed, memory or GPUs differ as well: {per_gpu:.2f}x per GPU (70B, H100), {served:.1f}x in "
        "throughput where FP16 lacks room, {opt:.2f}x for 3 bits on one GPU against FP16 on five."
    )
    cases = (3 <= faster(row) <= 4 for row in (*single, *other.values()))
    return Evidence(over(*cases), because, numbers, "cited", (low, high, *other.values(), served))


@claim(
    "C058",
    sources=("002:18",),
    says="From 16 to 4 bits the traffic of the weights falls by 4x.",
    verdict="conditional",
    instead="For a whole 70B it is {whole:.1f}x.",
)
def c058(given: Assumptions) -> Evidence:
    numbers = {"layers": 16 / memory(given.model, given.int4).bits_per_weight, "whole": bound(given, given.int4)}
    because = (
        "The layers alone shrink by {layers:.2f}x with groups of {group_size}. Each token reads the head as well, "
        "which stays in 16 bits, and that makes {whole:.2f}x."
    )
    return Evidence(over(*(given.near(times, 4) for times in numbers.values())), because, numbers)


@claim(
    "C059",
    sources=("002:18",),
    says="In serving, the bandwidth goes mostly into reading weights.",
    verdict="conditional",
    instead="With small batches and short contexts it does. On an A100 arithmetic takes over from about "
    "{a100_int4:.0f} requests on in W4A16 and {a100:.0f} in 16 bits; the KV cache does from {even_int4:,.0f} tokens in "
    "flight on in INT4, {even_bf16:,.0f} in 16 bits.",
)
def c059(given: Assumptions) -> Evidence:
    held = memory(given.model, given.int4, context=given.context, kv_bits=given.kv_bits, extended=True)
    wide = memory(given.model, "bf16")
    narrow = held.bits_per_weight / 16
    ridges = {"a100": datasheet(A100).ridge("fp16"), "h100": datasheet("H100-80GB").ridge("fp16")}
    numbers = ridges | {f"{name}_int4": ridge * narrow for name, ridge in ridges.items()}
    numbers |= {"with_head": ridges["a100"] * held.read_per_token / wide.read_per_token}
    numbers |= {f"even_{n}": m.read_per_token / held.kv_per_token for n, m in (("int4", held), ("bf16", wide))}
    because = (
        "The KV cache is as much to read as the weights at {even_int4:,.0f} tokens in flight in INT4, {even_bf16:,.0f} "
        "in 16 bits. Arithmetic takes longer than reading the layers from {a100:.0f} requests on an A100 and "
        "{h100:.0f} on an H100 in 16 bits, from {a100_int4:.0f} and {h100_int4:.0f} in W4A16 (with the 16-bit head, "
        "{with_head:.0f} on an A100)."
    )
    cases = (batch <= numbers["with_head"] and batch * given.context <= numbers["even_int4"] for batch in BATCHES)
    return Evidence(over(*cases), because, numbers, cites=("marlin-macs",))


@claim(
    "C060",
    sources=("002:67", "002:80"),
    says="Quantizing weights alone helps decoding, and prefill hardly.",
    verdict="conditional",
    instead="Prefill gets slightly slower. Decoding gains with small batches, {decode:.2f}x in llama.cpp, and can lose "
    "with large ones, {torchao:.2f}x in torchao with 128 requests.",
)
def c060(given: Assumptions) -> Evidence:
    kinds = ("Q2_K", "Q4_K_S", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0")
    pairs = {kind: (f"llamacpp-tg-{kind}", f"llamacpp-pp-{kind}") for kind in kinds}
    pairs["torchao"] = ("ao-h100-dec-int8 weight-only", "ao-h100-pre-int8 weight-only")
    quoted = (*pairs["Q4_K_M"], *pairs["torchao"])
    numbers = dict(zip(("decode", "prefill", "torchao", "torchao_prefill"), map(faster, quoted), strict=True))
    because = (
        "An 8B in Q4_K_M, a 4-bit format of llama.cpp, decodes at {decode:.2f}x and reads prompts at {prefill:.2f}x, "
        "and the other formats go the same way. But INT8 weights in torchao on an H100 read prompts at "
        "{torchao_prefill:.2f}x and decode 128 requests at {torchao:.2f}x."
    )
    cases = (faster(decode) > 1 >= faster(prefill) - given.tolerance for decode, prefill in pairs.values())
    return Evidence(over(*cases), because, numbers, "cited", quoted)


@claim(
    "C061",
    sources=("002:81",),
    says="Prefill does gain from 8 bits, in INT8 or FP8, where activations have them as well.",
    verdict="true",
    instead="Yes: {torch:.2f} to {int8:.2f}x with INT8 on an A100, {fp8:.2f}x with FP8 on an H100.",
)
def c061(given: Assumptions) -> Evidence:
    named = {"fp8": "ao-h100-pre-float8 rowwise", "int8": "sq-ft", "torch": "sq-pt"}
    # One GPU on each side; the rows of the 70B have two in 16 bits, so they are no evidence of speed.
    heavy = tuple(f"mo21-FP8-Llama3.1-8B-{batch}" for batch in (1, 8, 64))
    numbers = {name: faster(row) for name, row in named.items()}
    numbers |= {"heavy_low": faster(ends(heavy)[0]), "heavy_high": faster(ends(heavy)[1])}
    because = (
        "Prefill alone, one GPU on both sides: SmoothQuant's INT8 reached {torch:.2f}x in PyTorch and {int8:.2f}x in "
        "FasterTransformer on an A100, FP8 in torchao {fp8:.2f}x on an H100. Whole requests of an 8B with 2,048 tokens "
        "in and 128 out, most of which is prefill: {heavy_low:.2f} to {heavy_high:.2f}x in FP8 on one H200."
    )
    cases = (faster(row) > 1 for row in (*named.values(), *heavy))
    return Evidence(over(*cases), because, numbers, "cited", (*named.values(), *ends(heavy)))


@claim(
    "C062",
    sources=("002:76",),
    says="FP8 has about the speed of INT8 and better accuracy.",
    verdict="conditional",
    instead="Against SmoothQuant's INT8 it holds, on GPUs with FP8 arithmetic (Ada and later). INT8 weights with "
    "16-bit activations lost less than FP8 where both were measured on one model.",
)
def c062(given: Assumptions) -> Evidence:
    speeds = [(f"trtllm-fp8-{m}-{b}", f"trtllm-int8-{m}-{b}") for m in ("GPT-J", "Llama-2-7B") for b in (1, 8)]
    models = ("Falcon-180B", "Falcon-40B", "Llama-2-70B", "MPT-30B")
    scores = [(f"trtllm-mmlu-fp8-{m}", f"trtllm-mmlu-int8sq-{m}") for m in models]
    scores += [("ao-ppl-float8 rowwiseW8A8", "ao-ppl-int8 rowwise weight-onlyW8A16")]
    quoted = {f"{kind}_{b}": f"trtllm-{kind}-Llama-2-7B-{b}" for kind in ("fp8", "int8") for b in (1, 8)}
    damage = {"mmlu_fp8": scores[2][0], "mmlu_int8": scores[2][1], "ppl_fp8": scores[4][0], "ppl_int8": scores[4][1]}
    damage["tuned"] = "kurtic-70b-int8"
    numbers = {name: faster(row) for name, row in quoted.items()} | {name: lost(row) for name, row in damage.items()}
    because = (
        "Llama-2-7B on an H100 ran at {fp8_1:.2f}x in FP8 and {int8_1:.2f}x in SmoothQuant's INT8 at batch 1, at "
        "{fp8_8:.2f} and {int8_8:.2f}x at batch 8; Llama-2-70B lost {mmlu_fp8:.2f} and {mmlu_int8:.2f} % of MMLU. But "
        "INT8 weights alone raise the perplexity of an 8B by {ppl_int8:.2f} %, FP8 by {ppl_fp8:.1f} %, and a tuned "
        "INT8 W8A8 of a 70B lost {tuned:.2f} %. An A100 has no FP8 arithmetic."
    )
    alike = (faster(fp8) >= faster(int8) * (1 - given.tolerance) for fp8, int8 in speeds)
    better = (lost(fp8) < lost(int8) for fp8, int8 in scores)
    cases = (*alike, *better, runs("FP8 W8A8", gpu(A100)))
    return Evidence(over(*cases), because, numbers, "cited", (*quoted.values(), *damage.values()))


@claim(
    "C063",
    sources=("001:55", "000:92"),
    says="Who batches requests is better off with 8 bits.",
    verdict="conditional",
    instead="Compare weights and cache with the memory. Where they leave plenty of it, 8 bits win; where they"
    " crowd it, 4 bits do.",
)
def c063(given: Assumptions) -> Evidence:
    eight, four = _served("TRT-LLM W8A8"), _served("TRT-LLM W4A16")
    quoted = {
        f"{key}_{bits}": f"qserve-{where}-{model}-TRT-LLM {method}"
        for key, (where, model) in _BATCHED.items()
        for bits, method in ((8, "W8A8"), (4, "W4A16"))
    }
    kurtic = {"kurtic_8": "kurtic-speed-int8", "kurtic_4": "kurtic-speed-int4"}
    numbers = {name: value(row) for name, row in (quoted | kurtic).items()}
    numbers |= {"wins": sum(eight[key] > four[key] for key in eight), "pairs": len(eight)}
    because = (
        "W8A8 is ahead of W4A16 in {wins} of {pairs} throughputs on one GPU. On an A100 Llama-2-7B has {small_8:,.0f} "
        "tokens/s in W8A8 and {small_4:,.0f} in W4A16, but Llama-2-70B {large_8:.0f} and {large_4:.0f}, for 4 bits "
        "leave room for the cache. On an L40S Yi-34B, whose cache is small (GQA), has {gqa_8:.0f} and {gqa_4:.0f}, "
        "Llama-30B, whose cache is large (MHA), {mha_8:.0f} and {mha_4:.0f}. A 70B on four A100 has {kurtic_8:.1f} and "
        "{kurtic_4:.1f} queries/s."
    )
    cases = (*(eight[key] > four[key] for key in eight), numbers["kurtic_8"] > numbers["kurtic_4"])
    return Evidence(over(*cases), because, numbers, "cited", (*quoted.values(), *kurtic.values()))


_BATCHED = {
    "small": ("A100-80GB", "Llama-2-7B"),
    "large": ("A100-80GB", "Llama-2-70B"),
    "gqa": ("L40S-48GB", "Yi-34B"),
    "mha": ("L40S-48GB", "Llama-30B"),
}


@claim(
    "C064",
    sources=("000:91",),
    says="Where latency is critical, a service should take 8 bits.",
    verdict="conditional",
    instead="Split latency: for the time to the first token 8-bit arithmetic helps, for the time per token of output "
    "4-bit weights do.",
)
def c064(given: Assumptions) -> Evidence:
    numbers = {
        "four": token_ms(given, given.int4),
        "eight": token_ms(given, "int8"),
        "w8a8": prompt_ms(given, "int8"),
        "w4a16": prompt_ms(given, "fp16"),
    }
    server, stream = several("redhat-speed")
    because = (
        "A 70B on one A100 takes {eight:.1f} ms for each token of output in INT8 and {four:.1f} in INT4, but "
        "{w8a8:.0f} ms for a prompt of {prompt_tokens:,} tokens in W8A8 and {w4a16:.0f} in W4A16. Red Hat reports "
        "about {stream:.1f}x of 16 bits for one stream in W4A16 and {server:.1f}x for a busy server in W8A8."
    )
    cases = (numbers["eight"] < numbers["four"], numbers["w8a8"] < numbers["w4a16"])
    numbers |= {"stream": stream, "server": server}
    return Evidence(over(*cases), because, numbers, cites=("redhat-speed",))


@claim(
    "C065",
    sources=("000:71",),
    says="Google's and Azure's clouds take 8 bits by default where latency counts.",
    verdict="contested",
    instead="I know of no source for that. I would decide it on our own workload.",
)
def c065(given: Assumptions) -> Evidence:
    because = (
        "No source was found, for it or against it. AWQ's authors list Vertex AI and SageMaker among the users of "
        "their 4 bits, which says nothing about defaults."
    )
    references = (NONE_FOUND, "mit-han-lab/llm-awq README: Google Vertex AI (2024-01), SageMaker containers (2023-11)")
    return Evidence("contested", because, {}, "cited", references=references)


@claim(
    "C066",
    sources=("004:16", "004:22"),
    says="What the infrastructure gains can be predicted, and scales with the precision.",
    verdict="contested",
    instead="The memory of weights can be predicted, all of the memory only for short contexts. Speed has to be "
    "measured, with your kernel and your batch.",
)
def c066(given: Assumptions) -> Evidence:
    errors = {prompt: max(_memory_error(prompt, method) for method in _STORED) for prompt in (1, 6144, 14336, 30720)}
    groups = {
        "awq": (*rows(method="INT4 AWQ", metric="speedup"),),
        "int8": _int8_decode(),
        "bnb": (*rows(method=LLM_INT8), *rows(method=BNB_INT8)),
    }
    low_high = {name: ends(found) for name, found in groups.items()}
    numbers = {f"{name}_low": faster(low) for name, (low, _) in low_high.items()}
    numbers |= {f"{name}_high": faster(high) for name, (_, high) in low_high.items()}
    numbers |= {f"error_{prompt}": error for prompt, error in errors.items()}
    because = (
        "The measured memory of a 72B is above weights and KV cache by up to {error_1:.1%} with 2,049 tokens, "
        "{error_6144:.1%} with 8,192, {error_14336:.1%} with 16,384 and {error_30720:.0%} with 32,768. Speeds at one "
        "precision go from {awq_low:.2f} to {awq_high:.2f}x per GPU (INT4 AWQ, one vendor), from {int8_low:.2f} to "
        "{int8_high:.2f}x (INT8 weights) and from {bnb_low:.2f} to {bnb_high:.2f}x (bitsandbytes INT8)."
    )
    predicted = over(*(error <= given.tolerance for error in errors.values()))
    disagree = any(faster(low) < 1 < faster(high) for low, high in low_high.values())
    cites = tuple(row for pair in low_high.values() for row in pair)
    cites += tuple(f"qwen25-72b-hf-{prompt}-{method}/memory" for prompt in (1, 30720) for method in _STORED)
    return Evidence("contested" if disagree else predicted, because, numbers, "cited", cites)


_STORED = {"BF16": "bf16", "GPTQ-Int8": "int8-g128-asym", "GPTQ-Int4": "int4-g128-asym", "AWQ": "int4-g128-asym"}


def _memory_error(prompt: int, method: str) -> float:
    """How far the memory of Qwen2.5-72B was measured above weights and KV cache, with 2,048 tokens generated."""
    ours = memory("Qwen2.5-72B", _STORED[method], batch=1, context=prompt + 2048).total / GIB
    return value(f"qwen25-72b-hf-{prompt}-{method}/memory") / ours - 1


@claim(
    "C067",
    sources=("004:2",),
    says="A token gets 18 to 20 % cheaper with INT8 and 31 to 33 % with INT4.",
    verdict="contested",
    instead="It is an illustration, no more. Put your own tokens per second and your own price beside it.",
)
def c067(given: Assumptions) -> Evidence:
    cheap, dear = "mo11-awq-Llama3-70B-32", "mo21-INT4 AWQ-Llama3.1-8B-8"
    shares = {
        "one_8": 1 / bound(given, "int8") - 1,
        "one_4": 1 / bound(given, given.int4) - 1,
        "many_8": 1 / bound(given, "int8", 65_536) - 1,
        "many_4": 1 / bound(given, given.int4, 65_536) - 1,
        "cheap": 1 / faster(cheap) - 1,
        "dear": 1 / faster(dear) - 1,
    }
    because = (
        "The text calls its numbers assumptions of a simulation. By bytes a token of a 70B costs {one_8_words} in INT8 "
        "and {one_4_words} in INT4 at batch 1, {many_8_words} and {many_4_words} with 65,536 tokens in flight. By "
        "published speeds per GPU INT4 (AWQ) costs from {cheap_words} (70B, where 16 bits take more GPUs) to "
        "{dear_words} (8B)."
    )
    # Published costs on both sides of the claim: without a load neither it nor its opposite follows.
    both_sides = shares["cheap"] < -0.33 and shares["dear"] > -0.31
    verdict = "contested" if both_sides else over(-0.33 <= shares["one_4"] <= -0.31, -0.20 <= shares["one_8"] <= -0.18)
    numbers = shares | {f"{name}_words": more(share) for name, share in shares.items()}
    return Evidence(verdict, because, numbers, "cited", (cheap, dear))
