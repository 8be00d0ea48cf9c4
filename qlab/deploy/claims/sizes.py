"""Claims on sizes: bytes of a 70B at every width, what compression means, and what comes on top of the weights."""

from __future__ import annotations

from itertools import pairwise

from ..memory import memory
from ..models import spec
from .gaussian import integers, sqnr, sqnr_asymmetric
from .ledger import Assumptions, Evidence, Verdict, claim, over, said, value
from .rows import lost

GB, GIB = 1e9, 2**30
SHARE_THAT_COUNTS = 0.1  # of a whole: from here on it is neither little nor negligible


@claim(
    "C001",
    sources=("000:35", "001:19"),
    says="At 32 bits a 70B takes 280 GB.",
    verdict="true",
    instead="Yes. But compare with what you would deploy otherwise, and that has 16 bits: {bf16:.1f} GB.",
)
def c001(given: Assumptions) -> Evidence:
    fp32 = given.gb("fp32")
    because = "{parameters:,} parameters of 4 bytes are {fp32:.1f} GB."
    numbers = {"parameters": spec(given.model).parameters, "fp32": fp32, "bf16": given.gb("bf16")}
    return Evidence(over(given.near(fp32, 280)), because, numbers)


@claim(
    "C002",
    sources=("000:37", "001:20", "003:8"),
    says="Quantized to INT8, a 70B is 70 GB.",
    verdict="true",
    instead="{loaded:.1f} GB, as embedding and head stay in 16 bits. {floor:.1f} GB is a floor.",
)
def c002(given: Assumptions) -> Evidence:
    floor, loaded = spec(given.model).parameters / GB, given.gb("int8")
    because = (
        "{floor:.2f} GB with every number in 8 bits, {loaded:.2f} GB ({loaded_gib:.2f} GiB) with embedding and head "
        "in 16 bits, as published checkpoints are."
    )
    numbers = {"floor": floor, "loaded": loaded, "loaded_gib": loaded * GB / GIB}
    return Evidence(over(given.near(floor, 70), given.near(loaded, 70)), because, numbers)


@claim(
    "C003",
    sources=("000:37", "001:20"),
    says="8 bits are a compression of 4x.",
    verdict="conditional",
    instead="Ask: against what? Against the 16 bits that you would deploy otherwise it is {to_bf16:.2f}x.",
)
def c003(given: Assumptions) -> Evidence:
    ratios = {f"to_{wide}": given.gb(wide) / given.gb("int8") for wide in ("fp32", "bf16")}
    because = "It is {to_fp32:.2f}x against 32 bits and {to_bf16:.2f}x against 16."
    return Evidence(over(*(given.near(ratio, 4) for ratio in ratios.values())), because, ratios)


@claim(
    "C004",
    sources=("000:39", "001:21", "003:4", "003:9"),
    says="Quantized to INT4, a 70B is 35 GB.",
    verdict="conditional",
    instead="About {loaded:.0f} GB: {floor:.0f} of codes, plus scales, plus embedding and head in 16 bits.",
)
def c004(given: Assumptions) -> Evidence:
    q4_k_m = "llamacpp-70b-Q4_K_M/size"
    numbers = {
        "floor": spec(given.model).parameters / 2 / GB,
        "bits": memory(given.model, given.int4).bits_per_weight,
        "loaded": given.gb(given.int4),
        "g32": given.gb("int4-g32"),
        "nf4": given.gb("nf4"),
        "nf4_dq": given.gb("nf4-dq"),
        "q4_k_m": value(q4_k_m) * GIB / GB,
    }
    because = (
        "{floor:.2f} GB holds only without scales, and with embedding and head in 4 bits. With groups of {group_size} "
        "a weight takes {bits:.4g} bits and the model {loaded:.2f} GB. With groups of 32 it is {g32:.2f} GB, in NF4 "
        "{nf4:.2f}, in NF4 with double quantization {nf4_dq:.2f}. A published file of Llama-2-70B in Q4_K_M has "
        "{q4_k_m:.1f} GB."
    )
    verdict = over(given.near(numbers["floor"], 35), given.near(numbers["loaded"], 35))
    return Evidence(verdict, because, numbers, cites=(q4_k_m,))


@claim(
    "C005",
    sources=("000:39", "001:21"),
    says="INT4 is a compression of 8x.",
    verdict="conditional",
    instead="Against 16 bits it is {to_bf16:.2f}x for a 70B, and less for small models with large vocabularies: "
    "{llama_8b:.2f}x for Llama-3-8B, {qwen_half_b:.2f}x for Qwen2.5-0.5B.",
)
def c005(given: Assumptions) -> Evidence:
    floor = spec(given.model).parameters / 2 / GB
    numbers = {
        "bare": given.gb("fp32") / floor,
        "to_fp32": given.gb("fp32") / given.gb(given.int4),
        "to_bf16": given.gb("bf16") / given.gb(given.int4),
        "llama_8b": _shrinks("Llama-3-8B", given),
        "qwen_half_b": _shrinks("Qwen2.5-0.5B", given),
    }
    because = (
        "Bare codes against 32 bits are {bare:.2f}x. As it is stored, with scales and with embedding and head in 16 "
        "bits, it is {to_fp32:.2f}x against 32 bits and {to_bf16:.2f}x against 16."
    )
    return Evidence(over(*(given.near(numbers[k], 8) for k in ("bare", "to_fp32", "to_bf16"))), because, numbers)


def _shrinks(model: str, given: Assumptions) -> float:
    return memory(model, "bf16").weights / memory(model, given.int4).weights


@claim(
    "C006",
    sources=("000:33", "001:17-18"),
    says="That a model in 4 bits has half the size of one in 8 bits is a common mistake.",
    verdict="contested",
    instead="The weights shrink by {ratio:.2f}x and the KV cache not at all: with 16 requests of {context:,} tokens "
    "weights and cache together shrink by {in_all:.2f}x.",
)
def c006(given: Assumptions) -> Evidence:
    cache = memory(given.model, batch=16, context=given.context, kv_bits=given.kv_bits, extended=True).kv_cache / GB
    eight, four = given.gb("int8"), given.gb(given.int4)
    numbers = {"ratio": eight / four, "in_all": (eight + cache) / (four + cache)}
    numbers |= {"eight": 70, "four": 35, "own": 70 / 35}
    because = (
        "The weights shrink by {ratio:.2f}x, which is not half. But the same text goes on with {eight} GB for 8 bits "
        "and {four} GB for 4, which is {own:.2f}x. So it contradicts itself, and which of the two it means is open."
    )
    half = given.near(numbers["ratio"], 2)
    verdict: Verdict = "false" if half else "contested" if given.near(numbers["own"], 2) else "true"
    return Evidence(verdict, because, numbers)


@claim(
    "C007",
    sources=("000:43", "001:23"),
    says="A 70B in INT4 needs at least 48 to 60 GB in a real deployment.",
    verdict="conditional",
    instead="48 to 60 GB are a comfortable size, with room for {tokens_48:,.0f} to {tokens_60:,.0f} tokens in flight. "
    "One request of 2,048 tokens needs {least:.1f} GB.",
)
def c007(given: Assumptions) -> Evidence:
    per_token = memory(given.model, kv_bits=given.kv_bits).kv_per_token / GB
    fixed = given.gb(given.int4) + given.overhead_gb
    numbers = {
        "least": fixed + 2048 * per_token,
        "busy": fixed + 16 * given.context * per_token,
        "tokens_48": max(0.0, 48 - fixed) / per_token,
        "tokens_60": max(0.0, 60 - fixed) / per_token,
    }
    rows = {f"qwen_{n}": f"qwen25-72b-hf-{n}-GPTQ-Int4/memory" for n in (1, 14336, 30720)}
    one_card = "qserve-L40S-48GB-Llama-2-70B-QServe"
    because = (
        "One request of 2,048 tokens takes {least:.1f} GB, 16 of {context:,} take {busy:.1f}. Measured on a 72B at "
        "batch 1: {qwen_1:.1f} GiB with a short prompt, {qwen_14336:.1f} with 14,336 tokens of it, {qwen_30720:.1f} "
        "with 30,720. With a 4-bit KV cache a 70B has been served from one L40S of 48 GB, at {l40s:.0f} tokens/s."
    )
    measured = {name: value(row) for name, row in rows.items()} | {"l40s": value(one_card)}
    verdict = over(numbers["least"] >= 48, numbers["busy"] >= 48)
    return Evidence(verdict, because, {**numbers, **measured}, cites=(*rows.values(), one_card))


@claim(
    "C008",
    sources=("001:22",),
    says="Memory for inference has to hold gradients, too.",
    verdict="false",
    instead="Beside the weights: KV cache, activations, CUDA graphs, what the allocator wastes. Gradients belong to "
    "training.",
)
def c008(given: Assumptions) -> Evidence:
    row = "qwen25-72b-hf-1-BF16/memory"
    weights = memory("Qwen2.5-72B", "bf16").weights / GIB
    numbers = {"measured": value(row), "weights": weights, "with_gradients": 2 * weights}
    because = (
        "No backward pass runs. Qwen2.5-72B in 16 bits was measured at {measured:.1f} GiB, its weights alone being "
        "{weights:.1f}; with one gradient for each weight it would be {with_gradients:.1f} at least."
    )
    return Evidence(over(numbers["measured"] >= numbers["with_gradients"]), because, numbers, "cited", (row,))


@claim(
    "C009",
    sources=("000:41",),
    says="KV cache, activations and buffers take a serious amount of memory on top.",
    verdict="true",
    instead="Give the formula, 2 x layers x KV heads x head size x bytes, and say whether it is MHA, GQA or MLA: "
    "{per_token:,} bytes per token here, {mha:,} for Qwen-72B (MHA), {mla:,} for DeepSeek-V3 (MLA).",
)
def c009(given: Assumptions) -> Evidence:
    served = memory(given.model, given.int4, batch=16, context=given.context, kv_bits=given.kv_bits, extended=True)
    share = served.kv_cache / served.weights
    numbers = {
        "per_token": served.kv_per_token,
        "mha": memory("Qwen-72B").kv_per_token,
        "mla": memory("DeepSeek-V3").kv_per_token,
        "cache": served.kv_cache / GB,
        "share": share,
    }
    because = (
        "16 requests of {context:,} tokens hold {cache:.1f} GB of KV cache, {share:.0%} of the weights in INT4. "
        "Activations and the runtime are not in that."
    )
    return Evidence(over(share >= SHARE_THAT_COUNTS), because, numbers)


@claim(
    "C024",
    sources=("003:6",),
    says="The weights of Llama-3-70B in 16 bits are 140 GB.",
    verdict="true",
    instead="Yes: {bf16:.0f} GB, or {gib:.1f} GiB.",
)
def c024(given: Assumptions) -> Evidence:
    bf16 = given.gb("bf16")
    because = "{parameters:,} parameters of 2 bytes are {bf16:.1f} GB."
    numbers = {"parameters": spec(given.model).parameters, "bf16": bf16, "gib": bf16 * GB / GIB}
    return Evidence(over(given.near(bf16, 140)), because, numbers)


@claim(
    "C027",
    sources=("003:4",),
    says="140 GB can become 35 GB and the quality survives.",
    verdict="conditional",
    instead="It becomes {loaded:.0f} GB, and on short tasks a 70B keeps its quality. What long contexts, code and "
    "other languages lose, you have to measure.",
)
def c027(given: Assumptions) -> Evidence:
    mmlu = "modelopt-mmlu-loss-Llama-3.1-70B-Instruct-INT4 AWQ"
    older = "modelopt0-mmlu-loss-Llama-3-70B-INT4 AWQ"
    averages = ("nm-70b-w4a16", "kurtic-70b-int4")
    numbers = {
        "loaded": given.gb(given.int4),
        "mmlu": lost(mmlu),
        "mmlu_older": lost(older),
        **{f"average_{i}": lost(row) for i, row in enumerate(averages)},
        "long": said("mekala-8bit", r"4 bit up to (\d+) %"),
        "nf4": said("mekala-8bit", r"NF4 costs Llama-3.1-70B (\d+) %"),
    }
    context = {"thousands": said("mekala-8bit", r"tasks of (\d+)K")}
    because = (
        "INT4 costs a 70B {mmlu:.2f} to {mmlu_older:.2f} % of MMLU (AWQ) and {average_0:.2f} to {average_1:.2f} % of "
        "the Open LLM leaderboard (GPTQ). But in a study of contexts of {thousands:.0f}K tokens and more, tasks lose "
        "up to {long:.0f} % at 4 bits, and Llama-3.1-70B in NF4 loses {nf4:.0f} % on one of them."
    )
    destroyed = 100 * SHARE_THAT_COUNTS
    losses = [loss for name, loss in numbers.items() if name != "loaded"]
    cites = (mmlu, older, *averages, "mekala-8bit")
    return Evidence(over(*(loss < destroyed for loss in losses)), because, numbers | context, "cited", cites)


@claim(
    "C029",
    sources=("002:28-29", "002:85-86"),
    says="INT8 halves the weights, INT4 quarters them.",
    verdict="conditional",
    instead="Only the matrices of the layers shrink, so it depends on their share: INT4 leaves {four:.1%} of a 70B, "
    "{llama_8b:.1%} of Llama-3-8B, {qwen_half_b:.1%} of Qwen2.5-0.5B.",
)
def c029(given: Assumptions) -> Evidence:
    wide = given.gb("bf16")
    numbers = {
        "eight": given.gb("int8") / wide,
        "four": given.gb(given.int4) / wide,
        "eight_8b": memory("Llama-3-8B", "int8").weights / memory("Llama-3-8B", "bf16").weights,
        "llama_8b": 1 / _shrinks("Llama-3-8B", given),
        "qwen_half_b": 1 / _shrinks("Qwen2.5-0.5B", given),
    }
    because = (
        "Of the bytes of a 70B in 16 bits INT8 leaves {eight:.1%} and INT4 {four:.1%}; of those of Llama-3-8B "
        "{eight_8b:.1%} and {llama_8b:.1%}."
    )
    halves = (given.near(numbers[k], 1 / 2) for k in ("eight", "eight_8b"))
    quarters = (given.near(numbers[k], 1 / 4) for k in ("four", "llama_8b", "qwen_half_b"))
    return Evidence(over(*halves, *quarters), because, numbers)


@claim(
    "C030",
    sources=("004:2",),
    says="INT8 takes about 50 % off the memory of the weights.",
    verdict="true",
    instead="Yes: {saved:.1%} for a 70B.",
)
def c030(given: Assumptions) -> Evidence:
    saved = 1 - given.gb("int8") / given.gb("bf16")
    because = "A 70B has {eight:.2f} GB in place of {wide:.2f}."
    numbers = {"saved": saved, "eight": given.gb("int8"), "wide": given.gb("bf16")}
    return Evidence(over(given.near(saved, 0.5)), because, numbers)


@claim(
    "C031",
    sources=("004:2",),
    says="INT4 takes 70 to 75 % off the memory of the weights.",
    verdict="true",
    instead="Yes for a 70B: {saved:.1%}. Smaller models save less: {llama_8b:.1%} with Llama-3-8B, {qwen_half_b:.1%} "
    "with Qwen2.5-0.5B.",
)
def c031(given: Assumptions) -> Evidence:
    numbers = {
        "saved": 1 - given.gb(given.int4) / given.gb("bf16"),
        "llama_8b": 1 - 1 / _shrinks("Llama-3-8B", given),
        "qwen_half_b": 1 - 1 / _shrinks("Qwen2.5-0.5B", given),
    }
    because = "The text speaks of a 70B, which loses {saved:.1%} of its bytes with groups of {group_size}."
    return Evidence(over(0.70 <= numbers["saved"] <= 0.75), because, numbers)


@claim(
    "C032",
    sources=("002:93",),
    says="Leave embeddings and small layers in 16 bits, for they hardly take memory.",
    verdict="conditional",
    instead="Norms, yes. Embedding and head are up to {most:.0%} of a small model in INT4, so quantize them to 8 bits "
    "there.",
)
def c032(given: Assumptions) -> Evidence:
    models = {
        "llama_70b": given.model,
        "llama2_7b": "Llama-2-7B",
        "llama_8b": "Llama-3-8B",
        "qwen_7b": "Qwen2.5-7B",
        "smol": "SmolLM2-135M",
        "qwen_half_b": "Qwen2.5-0.5B",
    }
    held = {key: memory(name, given.int4) for key, name in models.items()}
    tables = {key: (b.embedding + b.head) / b.weights for key, b in held.items()}
    norms = max(b.norms_and_biases / b.weights for b in held.values())
    because = (
        "In a checkpoint in INT4 embedding and head take {llama_70b:.1%} of a 70B, {llama2_7b:.1%} of Llama-2-7B, "
        "{llama_8b:.1%} of Llama-3-8B, {qwen_7b:.1%} of Qwen2.5-7B, {smol:.1%} of SmolLM2-135M and {qwen_half_b:.1%} "
        "of Qwen2.5-0.5B. Norms and biases take {norms:.2%} at most."
    )
    verdict = over(*(share < SHARE_THAT_COUNTS for share in (norms, *tables.values())))
    return Evidence(verdict, because, {**tables, "norms": norms, "most": max(tables.values())})


@claim(
    "C033",
    sources=("002:41", "002:87"),
    says="With long contexts it saves more to quantize the KV cache than the weights.",
    verdict="conditional",
    instead="Count tokens in flight, batch times context: from {llama2_7b:,.0f} on for Llama-2-7B (MHA), "
    "{llama_8b:,.0f} for Llama-3-8B (GQA), {llama_70b:,.0f} for a 70B.",
)
def c033(given: Assumptions) -> Evidence:
    models = {"llama2_7b": "Llama-2-7B", "llama_8b": "Llama-3-8B", "llama_70b": given.model}
    even = {key: _break_even(name, given.int4) for key, name in models.items()}
    flight = 16 * given.context
    because = (
        "An 8-bit KV cache saves as much as INT4 weights at {llama2_7b:,.0f} tokens in flight for Llama-2-7B, "
        "{llama_8b:,.0f} for Llama-3-8B and {llama_70b:,.0f} for a 70B ({to_int8:,.0f} against INT8 weights). "
        "16 requests of {context:,} tokens are {flight:,}."
    )
    numbers = {**even, "to_int8": _break_even(given.model, "int8"), "flight": flight}
    return Evidence(over(*(tokens <= flight for tokens in even.values())), because, numbers)


def _break_even(model: str, precision: str) -> float:
    """Tokens in flight from which on a KV cache of 8 bits in place of 16 saves what the weights save at `precision`."""
    saved = max(0.0, memory(model, "bf16").weights - memory(model, precision).weights)  # tiny groups save nothing
    return saved / (memory(model).kv_per_token - memory(model, kv_bits=8).kv_per_token)


@claim(
    "C034",
    sources=("003:14", "002:53-54"),
    says="The finer the granularity, the better the quality and the larger the overhead.",
    verdict="true",
    instead="Yes: groups of 128 with symmetric scales cost {g128_bits:.3f} bits per weight and gain {gain:.1f} dB over "
    "one scale per row.",
)
def c034(given: Assumptions) -> Evidence:
    sizes = (4096, 128, 64, 32)
    plain = {n: sqnr(integers(4), n) for n in sizes}
    zeros = {n: sqnr_asymmetric(4, n) for n in sizes[1:]}
    overhead = {n: 16 / n for n in sizes}
    numbers = {f"g{n}": decibels for n, decibels in plain.items()}
    numbers |= {f"g{n}_asym": decibels for n, decibels in zeros.items()}
    numbers |= {f"g{n}_bits": bits for n, bits in overhead.items()}
    numbers |= {f"g{n}_asym_bits": (16 + 4) / n for n in zeros} | {"gain": plain[128] - plain[4096]}
    because = (
        "The signal of normally distributed weights in symmetric INT4 is above its noise by {g4096:.1f} dB with one "
        "scale for a row of 4,096. Groups of 128 give {g128:.1f} dB for {g128_bits:.3f} bits per weight more, groups "
        "of 64 {g64:.1f} dB for {g64_bits:.3f}, groups of 32 {g32:.1f} dB for {g32_bits:.3f}; with zero-points as well "
        "the three give {g128_asym:.1f}, {g64_asym:.1f} and {g32_asym:.1f} dB, all by integration."
    )
    finer = (plain[a] < plain[b] and overhead[a] < overhead[b] for a, b in pairwise(sizes))
    finer_zeros = (zeros[a] < zeros[b] for a, b in ((128, 64), (64, 32)))
    return Evidence(over(*finer, *finer_zeros), because, numbers)
