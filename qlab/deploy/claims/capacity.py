"""Claims on capacity: which machine holds a 70B, and what is left there for the KV cache.

tokens = (visible memory x utilization - weights - overhead) / bytes of a token in the KV cache
"""

from __future__ import annotations

from ..hardware import gpu
from ..instances import instance, instances
from ..memory import memory
from ..models import spec
from .ledger import Assumptions, Evidence, claim, over, room, value

GB, GIB = 1e9, 2**30
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
    because = "The weights are {weights:.1f} GB, and its {count} GPUs of {each:.0f} GB have {box:.0f}."
    return Evidence(over(box < weights, p4d.visible_bytes / GB < weights), because, numbers)


@claim(
    "C011",
    sources=("000:37", "000:79"),
    says="A 70B in INT8 fits one p3.8xlarge.",
    verdict="false",
    instead="It does not load. p3.16xlarge holds it, and so does g5.12xlarge, which costs {cheaper:.0%} less than "
    "p3.8xlarge.",
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
        "Its four V100 show {visible:.1f} GB. The weights are {floor:.1f} GB at least, {loaded:.1f} as checkpoints are "
        "published, and a KV cache comes on top."
    )
    verdict = over(p3.visible_bytes / GB > floor, given.fit("p3.8xlarge", "int8").budget > 0)
    return Evidence(verdict, because, numbers)


@claim(
    "C012",
    sources=("000:37",),
    says="A 70B in INT8 fits a smaller instance of the g4dn family.",
    verdict="false",
    instead="Of the g4dn family only g4dn.metal holds it, the whole machine with its eight T4.",
)
def c012(given: Assumptions) -> Evidence:
    family = [found for name, found in instances().items() if name.startswith("g4dn.") and not name.endswith(".metal")]
    most, floor = max(family, key=lambda found: found.visible_bytes), spec(given.model).parameters
    because = (
        "CUDA shows {visible:.1f} GB on {largest}, the largest below g4dn.metal. The weights are {floor:.1f} GB at "
        "least."
    )
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
    because = "{name} has {count} x {gpu}, {memory:.0f} GB in all. CUDA shows {visible:.2f} GiB of each."
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
    because = (
        "The weights are {weights:.1f} GB. CUDA shows {visible:.2f} GB there; it would take {times:.1f} times that."
    )
    return Evidence(over(fit.fits), because, numbers)


@claim(
    "C017",
    sources=("000:47", "000:79", "000:114"),
    says="p3.8xlarge serves 8 to 16 requests at once with a 70B in INT8.",
    verdict="false",
    instead="It does not fit. And if it did: a V100 has no matrix units for INT8 that fast kernels could use.",
)
def c017(given: Assumptions) -> Evidence:
    fit = given.fit("p3.8xlarge", "int8")
    because = "After weights and overhead {room} on its four GPUs, before any KV cache."
    left = fit.gpus * fit.budget / GB
    numbers: dict[str, float | str] = {"left": left, "room": room(left)}
    references = ("vLLM's support tables (to v0.15.1): no AWQ, Marlin or INT8 W8A8 on Volta",)
    return Evidence(over(*(fit.batch_at(n) >= FEW for n in LENGTHS)), because, numbers, references=references)


@claim(
    "C018",
    sources=("000:47", "000:114"),
    says="p4d.24xlarge serves 8 to 16 requests at once with a 70B in INT8.",
    verdict="true",
    instead="True, and far below what it can do: {batch} requests of {context:,} tokens on its eight GPUs, {batch_4} "
    "on four of them. On two there is room for {tokens_2:,} tokens.",
)
def c018(given: Assumptions) -> Evidence:
    fit = given.fit("p4d.24xlarge", "int8")
    left = fit.gpus * fit.budget / GB
    numbers: dict[str, float | str] = {
        "left": left,
        "room": room(left),
        "tokens": fit.tokens,
        "batch": fit.batch,
        "batch_4": given.fit("p4d.24xlarge", "int8", tensor_parallel=4).batch,
        "tokens_2": given.fit("p4d.24xlarge", "int8", tensor_parallel=2).tokens,
    }
    because = (
        "After weights and overhead {room} on eight GPUs. That is a KV cache of {tokens:,} tokens, or {batch} requests "
        "of {context:,}."
    )
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
    left = fit.gpus * fit.budget / GB
    numbers: dict[str, float | str] = {"left": left, "room": room(left), "tokens": fit.tokens}
    numbers["milliseconds"] = 1e3 * read / bandwidth
    because = (
        "After weights and overhead {room}: room for {tokens:,} tokens. Reading the weights takes {milliseconds:.0f} "
        "ms at least for each token that is written."
    )
    return Evidence(over(fit.fits), because, numbers)


@claim(
    "C020",
    sources=("000:81", "000:114"),
    says="On g4dn.12xlarge a 70B in 4 bits serves 1 to 4 requests at once, no more.",
    verdict="conditional",
    instead="The limit is tokens in flight, {tokens:,} of them, so state the length before the batch: with 4,096 "
    "tokens each there is room for {at_4096} requests, with 8,192 for {at_8192}.",
)
def c020(given: Assumptions) -> Evidence:
    fit = given.fit("g4dn.12xlarge", given.int4)
    batches = {f"at_{n}": fit.batch_at(n) for n in LENGTHS}
    because = (
        "The KV cache has room for {tokens:,} tokens: {at_2048} requests of 2,048, {at_4096} of 4,096 or {at_8192} of "
        "8,192."
    )
    return Evidence(over(*(1 <= batch <= 4 for batch in batches.values())), because, {"tokens": fit.tokens, **batches})


@claim(
    "C021",
    sources=("001:49",),
    says="One A100 of 80 GB has room to spare for a 70B in INT8, and takes 8 to 16 requests at once.",
    verdict="conditional",
    instead="It fits, with room for {tokens:,} tokens: 8 requests may have {length_of_8:,} each, 16 no more than "
    "{length_of_16:,}. An 8-bit KV cache makes it {tokens_kv8:,}; or take INT4, or two GPUs.",
)
def c021(given: Assumptions) -> Evidence:
    fit = given.fit("A100-80GB", "int8")
    everything = given.fit("A100-80GB", "int8", utilization=1)
    naive = fit.gpu.memory_gb * GB - spec(given.model).parameters
    eight, four = "qserve-A100-80GB-Llama-2-70B-TRT-LLM W8A8", "qserve-A100-80GB-Llama-2-70B-TRT-LLM W4A16"
    numbers: dict[str, float | str] = {
        "left": fit.budget / GB,
        "room": room(fit.budget / GB, 2),
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
        "After weights and overhead {room}, which is {tokens:,} tokens: {at_2048} requests of 2,048, {at_4096} of "
        "4,096 or {at_8192} of 8,192. The sum on an envelope, 80 GB less one byte per parameter, promises "
        "{naive_tokens:,.0f} tokens; a server that took all the memory would have {all_tokens:,}. Measured with "
        "Llama-2-70B on that GPU: {rate_8:.0f} tokens/s in 8 bits, {rate_4:.0f} in 4."
    )
    verdict = over(*(fit.batch_at(length) >= FEW for length in (1024, *LENGTHS)), fit.batch_at(1024) >= MANY)
    return Evidence(verdict, because, numbers, cites=(eight, four))


@claim(
    "C022",
    sources=("003:8",),
    says="An H100 of 80 GB takes a 70B in INT8 and has room for the KV cache.",
    verdict="conditional",
    instead="It takes the weights, and has room for {tokens:,} tokens over all requests. NVIDIA itself splits a 70B in "
    "FP8 over {advised:.0f} H100.",
)
def c022(given: Assumptions) -> Evidence:
    row = "modelopt-70b-tp2"
    fit = given.fit("H100-80GB", "int8")
    numbers: dict[str, float | str] = {"left": fit.budget / GB, "room": room(fit.budget / GB, 2), "tokens": fit.tokens}
    numbers |= {"batch": fit.batch, "advised": value(row), "few": FEW}
    because = (
        "After weights and overhead {room} at a utilization of {gpu_memory_utilization}, which is {tokens:,} tokens or "
        "{batch} requests of {context:,}. One request or {few} of that length are the two cases tried."
    )
    return Evidence(over(fit.batch >= 1, fit.batch >= FEW), because, numbers, cites=(row,))


@claim(
    "C023",
    sources=("003:9",),
    says="A 70B in INT4 leaves an H100 of 80 GB plenty of room for the KV cache.",
    verdict="true",
    instead="It does: beside {weights:.0f} GB of weights there is room for {tokens:,} tokens.",
)
def c023(given: Assumptions) -> Evidence:
    fit = given.fit("H100-80GB", given.int4)
    numbers: dict[str, float | str] = {"left": fit.budget / GB, "room": room(fit.budget / GB), "tokens": fit.tokens}
    numbers |= {"batch": fit.batch, "weights": given.gb(given.int4)}
    because = "After weights and overhead {room}, which is {tokens:,} tokens or {batch} requests of {context:,}."
    return Evidence(over(fit.batch >= FEW, fit.batch >= MANY), because, numbers)


@claim(
    "C025",
    sources=("003:6",),
    says="The weights of a 70B alone, in 16 bits, need two H100.",
    verdict="true",
    instead="Yes. One H200 holds them only if the server takes nearly all of its memory: {h200_room} at a utilization "
    "of {gpu_memory_utilization}, {h200_all_room} at 1.0.",
)
def c025(given: Assumptions) -> Evidence:
    visible, weights = gpu("H100-80GB").visible_bytes / GB, given.gb("bf16")
    two = given.fit("H100-80GB", "bf16", tensor_parallel=2)
    one, all_of_it = given.fit("H200", "bf16").budget / GB, given.fit("H200", "bf16", utilization=1).budget / GB
    numbers: dict[str, float | str] = {
        "weights": weights,
        "visible": visible,
        "tokens": two.tokens,
        "h200": one,
        "h200_all": all_of_it,
        "h200_room": room(one),
        "h200_all_room": room(all_of_it),
    }
    because = (
        "The weights are {weights:.1f} GB, and CUDA shows {visible:.1f} on one H100. Two have room for {tokens:,} "
        "tokens beside them."
    )
    return Evidence(over(visible < weights, weights < 2 * visible), because, numbers)


@claim(
    "C028",
    sources=("001:50",),
    says="An RTX 4090 of 24 GB runs a 70B in 4 bits, just about, for 1 to 4 requests.",
    verdict="false",
    instead="Not in 4 bits. One card takes about {bits:.1f} bits per weight and one request, at a price in quality "
    "that you would have to measure; two cards take 4.",
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
        "q2_k": value(q2_k) * GIB / GB,
        "q2_k_bits": 8 * value(q2_k) * GIB / spec("Llama-2-70B").parameters,
        "exl2": value(exl2),
        # What does not fit is read over PCIe 4.0 x16 for each token, at about 25 GB/s; 22.5 GB stay on the card.
        "offloaded_seconds": max(0.0, breakdown.weights / GB - 22.5) / 25,
    }
    because = (
        "The weights are {weights:.1f} GB, and CUDA shows {visible:.1f}. Beside a KV cache for 2,048 tokens there is "
        "room for {bits:.2f} bits per weight ({bits_small_tables:.2f} with embedding and head in 4.5 bits). Even a "
        "file in Q2_K has {q2_k:.1f} GB, {q2_k_bits:.1f} bits per weight on average (Llama-2-70B); in 2.5 bits it has "
        "run, at {exl2:.0f} tokens/s. With the rest of INT4 in host memory a token takes {offloaded_seconds:.2f} s."
    )
    verdict = over(given.fit("RTX-4090", given.int4, context=2048).fits, rates[16] >= 4)
    return Evidence(verdict, because, numbers, cites=(q2_k, exl2))
