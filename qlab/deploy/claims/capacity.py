"""Claims on capacity: which machine holds a 70B, and what is left there for the KV cache.

tokens = (visible memory x utilization - weights - overhead) / bytes of a token in the KV cache
"""

from __future__ import annotations

from ..hardware import gpu
from ..instances import instance, instances
from ..memory import memory
from ..models import spec
from .ledger import Assumptions, Evidence, claim, over, value

GB = 1e9
LENGTHS = (2048, 4096, 8192)  # tokens of a request, where a claim names a batch but no length
FEW, MANY = 8, 16  # the batch that several claims promise: "8 to 16 requests"


@claim(
    "C010",
    sources=("000:35",),
    says="At 32 bits a 70B needs several p4d.24xlarge for storage alone.",
    verdict="false",
    instead="One p4d.24xlarge holds it even at 32 bits, with {left:.0f} GB to spare. That is pointless, not "
    "impossible.",
)
def c010(given: Assumptions) -> Evidence:
    p4d = instance("p4d.24xlarge")
    weights, box = given.gb("fp32"), p4d.count * p4d.gpu.memory_gb
    numbers = {"weights": weights, "count": p4d.count, "each": p4d.gpu.memory_gb, "box": box, "left": box - weights}
    because = "{weights:.1f} GB of weights; {count} GPUs of {each:.0f} GB are {box:.0f}."
    return Evidence(over(box < weights, p4d.visible_bytes / GB < weights), because, numbers)


@claim(
    "C011",
    sources=("000:37", "000:79"),
    says="A 70B in INT8 fits one p3.8xlarge.",
    verdict="false",
    instead="It does not load. p3.16xlarge would do; g5.12xlarge does, and costs {cheaper:.0%} less than p3.8xlarge.",
)
def c011(given: Assumptions) -> Evidence:
    p3, g5 = instance("p3.8xlarge"), instance("g5.12xlarge")
    floor = spec(given.model).parameters / GB
    numbers = {
        "visible": p3.visible_bytes / GB,
        "floor": floor,
        "loaded": given.gb("int8"),
        "cheaper": 1 - (g5.price_usd_per_hour or 0) / (p3.price_usd_per_hour or 1),
    }
    because = (
        "Its four V100 show {visible:.1f} GB; the weights are {floor:.1f} GB at least, {loaded:.1f} as published, and "
        "nothing is left for a KV cache."
    )
    verdict = over(p3.visible_bytes / GB > floor, given.fit("p3.8xlarge", "int8").budget > 0)
    return Evidence(verdict, because, numbers)


@claim(
    "C012",
    sources=("000:37",),
    says="A 70B in INT8 fits a smaller instance of the g4dn family.",
    verdict="false",
    instead="Of the g4dn family only the metal size holds it.",
)
def c012(given: Assumptions) -> Evidence:
    family = [found for name, found in instances().items() if name.startswith("g4dn.") and not name.endswith(".metal")]
    most, floor = max(family, key=lambda found: found.visible_bytes), spec(given.model).parameters
    because = "The largest below metal, {largest}, shows {visible:.1f} GB for {floor:.1f} GB of weights at least."
    numbers: dict[str, float | str] = {"visible": most.visible_bytes / GB, "floor": floor / GB, "largest": most.name}
    return Evidence(over(*(found.visible_bytes > floor for found in family)), because, numbers)


def _memory_claim(given: Assumptions, name: str, claimed: float) -> Evidence:
    rented = instance(name)
    in_all = rented.count * rented.gpu.memory_gb
    numbers: dict[str, float | str] = {
        "name": name,
        "count": rented.count,
        "gpu": rented.gpu.name,
        "each": rented.gpu.memory_gb,
        "memory": in_all,
        "visible": rented.gpu.memory_visible_gib or 0.0,
        "vcpus": rented.vcpus,
    }
    because = "{name} has {count} {gpu} of {each:.0f} GB: {memory:.0f} GB. CUDA shows {visible:.2f} GiB of each."
    return Evidence(over(given.near(in_all, claimed)), because, numbers)


@claim(
    "C013",
    sources=("000:47",),
    says="p3.8xlarge has 32 GB of GPU memory.",
    verdict="false",
    instead="{memory:.0f} GB in {count} pieces of {each:.0f}. {vcpus} is the number of its vCPUs.",
)
def c013(given: Assumptions) -> Evidence:
    return _memory_claim(given, "p3.8xlarge", 32)


@claim(
    "C014",
    sources=("000:45",),
    says="g4dn.xlarge has 24 GB of GPU memory.",
    verdict="false",
    instead="{memory:.0f} GB. One GPU of 24 GB is in g5.xlarge (A10G) and g6.xlarge (L4).",
)
def c014(given: Assumptions) -> Evidence:
    return _memory_claim(given, "g4dn.xlarge", 24)


@claim(
    "C015",
    sources=("000:81",),
    says="g4dn.12xlarge has 48 GB of GPU memory.",
    verdict="false",
    instead="{memory:.0f} GB. {vcpus} is the number of its vCPUs.",
)
def c015(given: Assumptions) -> Evidence:
    return _memory_claim(given, "g4dn.12xlarge", 48)


@claim(
    "C016",
    sources=("000:45",),
    says="A 70B in INT4 runs on g4dn.xlarge, if only for one request at a time.",
    verdict="false",
    instead="It does not load, so the batch size is no question.",
)
def c016(given: Assumptions) -> Evidence:
    fit = given.fit("g4dn.xlarge", given.int4, context=2048)
    numbers = {"weights": fit.breakdown.weights / GB, "visible": fit.gpu.visible_bytes / GB}
    numbers["times"] = numbers["weights"] / numbers["visible"]
    because = "{weights:.1f} GB of weights for {visible:.2f} GB that CUDA shows: {times:.1f} times as much."
    return Evidence(over(fit.fits), because, numbers)


@claim(
    "C017",
    sources=("000:47", "000:79", "000:114"),
    says="p3.8xlarge serves 8 to 16 requests at once with a 70B in INT8.",
    verdict="false",
    instead="It does not fit, and a V100 has no INT8 matrix units that fast kernels could use.",
)
def c017(given: Assumptions) -> Evidence:
    fit = given.fit("p3.8xlarge", "int8")
    because = "What its four GPUs have left beside weights and overhead: {left:.1f} GB, before any KV cache."
    numbers = {"left": fit.gpus * fit.budget / GB}
    references = ("vLLM's support tables (to v0.15.1): no AWQ, Marlin or INT8 W8A8 on Volta",)
    return Evidence(over(*(fit.batch_at(n) >= FEW for n in LENGTHS)), because, numbers, references=references)


@claim(
    "C018",
    sources=("000:47", "000:114"),
    says="p4d.24xlarge serves 8 to 16 requests at once with a 70B in INT8.",
    verdict="true",
    instead="True, and far below what it can: {batch} requests of {context:,} tokens on its eight GPUs, {batch_4} on "
    "four. Even two hold the weights, with {tokens_2:,} tokens left.",
)
def c018(given: Assumptions) -> Evidence:
    fit = given.fit("p4d.24xlarge", "int8")
    numbers = {
        "left": fit.gpus * fit.budget / GB,
        "tokens": fit.tokens,
        "batch": fit.batch,
        "batch_4": given.fit("p4d.24xlarge", "int8", tensor_parallel=4).batch,
        "tokens_2": given.fit("p4d.24xlarge", "int8", tensor_parallel=2).tokens,
    }
    because = "{left:.1f} GB are left on eight GPUs: {tokens:,} tokens, {batch} requests of {context:,}."
    return Evidence(over(*(fit.batch_at(n) >= MANY for n in LENGTHS)), because, numbers)


@claim(
    "C019",
    sources=("000:81",),
    says="g4dn.12xlarge can run a 70B in 4 bits, technically.",
    verdict="true",
    instead="Yes, it loads. What makes it slow is the bandwidth of a T4, and PCIe between the four.",
)
def c019(given: Assumptions) -> Evidence:
    fit = given.fit("g4dn.12xlarge", given.int4)
    read = memory(given.model, given.int4).read_per_token
    bandwidth = fit.gpus * fit.gpu.bandwidth_gb_per_s * GB * given.bandwidth_reached
    numbers = {"left": fit.gpus * fit.budget / GB, "tokens": fit.tokens, "milliseconds": 1e3 * read / bandwidth}
    because = (
        "{left:.1f} GB are left, {tokens:,} tokens. Reading the weights takes {milliseconds:.0f} ms per token at least."
    )
    return Evidence(over(fit.fits), because, numbers)


@claim(
    "C020",
    sources=("000:81", "000:114"),
    says="On g4dn.12xlarge a 70B in 4 bits serves 1 to 4 requests at once, no more.",
    verdict="conditional",
    instead="The limit is tokens in flight, {tokens:,} of them. State the context before the batch: {at_2048} requests "
    "of 2,048 tokens, {at_4096} of 4,096, {at_8192} of 8,192.",
)
def c020(given: Assumptions) -> Evidence:
    fit = given.fit("g4dn.12xlarge", given.int4)
    batches = {f"at_{n}": fit.batch_at(n) for n in LENGTHS}
    because = "{tokens:,} tokens of KV cache: {at_2048} x 2,048, {at_4096} x 4,096 or {at_8192} x 8,192."
    return Evidence(over(*(1 <= batch <= 4 for batch in batches.values())), because, {"tokens": fit.tokens, **batches})


@claim(
    "C021",
    sources=("001:49",),
    says="One A100 of 80 GB has room to spare for a 70B in INT8, and takes 8 to 16 requests at once.",
    verdict="conditional",
    instead="It fits, and {tokens:,} tokens are left: 8 requests may have {length_of_8:,} tokens each, 16 no more than "
    "{length_of_16:,}. With an 8-bit KV cache it is {tokens_kv8:,} tokens; or take INT4, or two GPUs.",
)
def c021(given: Assumptions) -> Evidence:
    fit = given.fit("A100-80GB", "int8")
    everything = given.fit("A100-80GB", "int8", utilization=1, overhead_gb=2)
    naive = fit.gpu.memory_gb * GB - spec(given.model).parameters
    eight, four = "qserve-A100-80GB-Llama-2-70B-TRT-LLM W8A8", "qserve-A100-80GB-Llama-2-70B-TRT-LLM W4A16"
    numbers = {
        "left": fit.budget / GB,
        "tokens": fit.tokens,
        **{f"at_{n}": fit.batch_at(n) for n in LENGTHS},
        "length_of_8": fit.context_at(FEW),
        "length_of_16": fit.context_at(MANY),
        "naive_left": naive / GB,
        "naive_tokens": naive / fit.breakdown.kv_per_token,
        "all_left": everything.budget / GB,
        "all_tokens": everything.tokens,
        "tokens_kv8": given.fit("A100-80GB", "int8", kv_bits=8).tokens,
        "rate_8": value(eight),
        "rate_4": value(four),
    }
    because = (
        "{left:.2f} GB are left, {tokens:,} tokens: {at_2048} requests of 2,048, {at_4096} of 4,096, {at_8192} of "
        "8,192. The sum on an envelope, 80 GB less one byte per parameter, promises {naive_tokens:,.0f} tokens; all "
        "the memory that CUDA shows would give {all_tokens:,}. Measured with Llama-2-70B on that GPU: {rate_8:.0f} "
        "tokens/s in 8 bits, {rate_4:.0f} in 4."
    )
    verdict = over(*(fit.batch_at(length) >= FEW for length in (1024, *LENGTHS)), fit.batch_at(1024) >= MANY)
    return Evidence(verdict, because, numbers, cites=(eight, four))


@claim(
    "C022",
    sources=("003:8",),
    says="An H100 of 80 GB takes a 70B in INT8 and has room for the KV cache.",
    verdict="conditional",
    instead="There is room for {tokens:,} tokens over all requests. NVIDIA itself splits a 70B in FP8 over "
    "{advised:.0f} H100.",
)
def c022(given: Assumptions) -> Evidence:
    row = "modelopt-70b-tp2"
    fit = given.fit("H100-80GB", "int8")
    numbers = {"left": fit.budget / GB, "tokens": fit.tokens, "batch": fit.batch, "advised": value(row)}
    because = (
        "{left:.2f} GB are left at a utilization of {gpu_memory_utilization}, {tokens:,} tokens: {batch} requests of "
        "{context:,}."
    )
    return Evidence(over(fit.batch >= 1, fit.batch >= FEW), because, numbers, cites=(row,))


@claim(
    "C023",
    sources=("003:9",),
    says="A 70B in INT4 leaves an H100 of 80 GB plenty of room for the KV cache.",
    verdict="true",
    instead="It does: {weights:.0f} GB of weights leave {tokens:,} tokens of cache.",
)
def c023(given: Assumptions) -> Evidence:
    fit = given.fit("H100-80GB", given.int4)
    numbers = {"left": fit.budget / GB, "tokens": fit.tokens, "batch": fit.batch, "weights": given.gb(given.int4)}
    because = "{left:.1f} GB are left, {tokens:,} tokens: {batch} requests of {context:,}."
    return Evidence(over(fit.batch >= FEW, fit.batch >= MANY), because, numbers)


@claim(
    "C025",
    sources=("003:6",),
    says="The weights of a 70B alone, in 16 bits, need two H100.",
    verdict="true",
    instead="Yes, or one H200, which has {h200_all:.1f} GB for the KV cache if all its memory is used and {h200:.1f} "
    "at a utilization of {gpu_memory_utilization}.",
)
def c025(given: Assumptions) -> Evidence:
    visible, weights = gpu("H100-80GB").visible_bytes / GB, given.gb("bf16")
    two = given.fit("H100-80GB", "bf16", tensor_parallel=2)
    numbers = {
        "weights": weights,
        "visible": visible,
        "tokens": two.tokens,
        "h200": given.fit("H200", "bf16").budget / GB,
        "h200_all": given.fit("H200", "bf16", utilization=1).budget / GB,
    }
    because = "{weights:.1f} GB for {visible:.1f} that CUDA shows on one. Two have {tokens:,} tokens of KV cache left."
    return Evidence(over(visible < weights, weights < 2 * visible), because, numbers)


@claim(
    "C028",
    sources=("001:50",),
    says="An RTX 4090 of 24 GB runs a 70B in 4 bits, just about, for 1 to 4 requests.",
    verdict="false",
    instead="Not in 4 bits. About {bits:.1f} bits per weight, one request, and a real loss of quality; or two cards.",
)
def c028(given: Assumptions) -> Evidence:
    card, model = gpu("RTX-4090"), spec(given.model)
    breakdown = memory(model, given.int4, context=2048, kv_bits=given.kv_bits)
    # 1 GB of overhead, which is what single-user engines need; the cache of one request of 2,048 tokens.
    outside = 1e9 + breakdown.kv_cache
    tables = {bits: (model.embedding_parameters + model.head_parameters) * bits / 8 for bits in (16, 4.5)}
    rates = {bits: 8 * (card.visible_bytes - outside - size) / model.linear_parameters for bits, size in tables.items()}
    q2_k, exl2 = "llamacpp-70b-Q2_K/size", "exl2-Llama-2-70B-2.5"
    numbers = {
        "weights": breakdown.weights / GB,
        "visible": card.visible_bytes / GB,
        "bits": rates[16],
        "bits_small_tables": rates[4.5],
        "q2_k": value(q2_k),
        "card_gib": card.memory_visible_gib or 0.0,
        "exl2": value(exl2),
        # What does not fit is read over PCIe 4.0 x16 for each token, at about 25 GB/s; 22.5 GB stay on the card.
        "offloaded_seconds": max(0.0, breakdown.weights / GB - 22.5) / 25,
    }
    because = (
        "{weights:.1f} GB for {visible:.1f} that CUDA shows. With a KV cache for 2,048 tokens {bits:.2f} bits per "
        "weight fit ({bits_small_tables:.2f} with embedding and head in 4.5 bits). Even a Q2_K of Llama-2-70B has "
        "{q2_k:.1f} GiB; what runs is 2.5 bits, at {exl2:.0f} tokens/s. With the rest in host memory a token takes "
        "{offloaded_seconds:.2f} s."
    )
    verdict = over(given.fit("RTX-4090", given.int4, context=2048).fits, rates[16] >= 4)
    return Evidence(verdict, because, numbers, cites=(q2_k, exl2))
