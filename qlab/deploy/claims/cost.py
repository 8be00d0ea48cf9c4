"""Claims on money: what machines cost by the month, what a million tokens costs, and what a day's load needs.

USD per million tokens = USD per GPU-hour / (tokens per second x 3600) x 10^6
"""

from __future__ import annotations

from ..hardware import gpu
from ..instances import Instance, instance
from ..models import spec
from ..results import result, results
from .ledger import NONE_FOUND, Assumptions, Evidence, Verdict, claim, more, over, room, value

GB = 1e9
SECONDS_PER_DAY, SECONDS_PER_HOUR = 86_400, 3600


@claim(
    "C026",
    sources=("003:6",),
    says="A month of one H100, on demand, is about 25,000 USD.",
    verdict="false",
    instead="It is about {month:,.0f} USD a month at AWS. {claimed:,} is near the price of buying one.",
)
def c026(given: Assumptions) -> Evidence:
    one, eight = instance("p5.4xlarge"), instance("p5.48xlarge")
    earlier = max(price for _, price in eight.earlier_prices) / eight.count
    numbers = {
        "claimed": 25_000,
        "hour": _usd(one),
        "month": _usd(one) * given.hours_per_month,
        "earlier": earlier * given.hours_per_month,
        "cards": 25_000 / (_usd(one) * given.hours_per_month),
    }
    because = (
        "A p5.4xlarge has one H100 and costs {hour:.2f} USD per hour, {month:,.0f} a month. At the highest price that "
        "was seen for an eighth of a p5.48xlarge it would be {earlier:,.0f}. For {claimed:,} USD a month you "
        "rent {cards:.1f} of them."
    )
    references = ("awesomeagents.ai: an H100 costs 25,000 to 30,000 USD to buy",)
    verdict = over(*(given.near(numbers[key], 25_000) for key in ("month", "earlier")))
    return Evidence(verdict, because, numbers, references=references)


def _usd(rented: Instance) -> float:
    """USD per hour. Raises ValueError where no price is listed."""
    if rented.price_usd_per_hour is None:
        raise ValueError(f"price_usd_per_hour: {rented.name} has none; give one in the file that QLAB_DATA names")
    return rented.price_usd_per_hour


@claim(
    "C119",
    sources=("000:79",),
    says="A p3.8xlarge that serves a 70B in INT8 is about 12,000 USD a month.",
    verdict="false",
    instead="A month costs {month:,.0f} USD, and the model does not fit. A GB of GPU memory costs {p3_gb_hour:.3f} USD "
    "an hour in a p3.8xlarge and {g6e_gb_hour:.3f} in a g6e.12xlarge.",
)
def c119(given: Assumptions) -> Evidence:
    p3, p4d, g6e = instance("p3.8xlarge"), instance("p4d.24xlarge"), instance("g6e.12xlarge")
    fit = given.fit("p3.8xlarge", "int8")
    month = _usd(p3) * given.hours_per_month
    numbers: dict[str, float | str] = {
        "hour": _usd(p3),
        "month": month,
        "claimed": 12_000,
        "above": 12_000 / month - 1,
        "claim_is": more(12_000 / month - 1),
        "room": room(fit.gpus * fit.budget / GB),
        "g5": _usd(instance("g5.12xlarge")) * given.hours_per_month,
        "g6e": _usd(g6e) * given.hours_per_month,
        "p4d": _usd(p4d) * given.hours_per_month,
        "p4d_earlier": max(price for _, price in p4d.earlier_prices) * given.hours_per_month,
        "p3_gb_hour": _usd(p3) / (p3.count * p3.gpu.memory_gb),
        "g6e_gb_hour": _usd(g6e) / (g6e.count * g6e.gpu.memory_gb),
    }
    because = (
        "{hour:.2f} USD x {hours_per_month} hours are {month:,.0f}; {claimed:,} is {claim_is}. After weights and "
        "overhead {room}. A month of g5.12xlarge costs {g5:,.0f} USD, of g6e.12xlarge {g6e:,.0f}, of p4d.24xlarge "
        "{p4d:,.0f} (once {p4d_earlier:,.0f})."
    )
    return Evidence(over(given.near(month, 12_000), fit.fits), because, numbers)


@claim(
    "C120",
    sources=("000:81",),
    says="Served in 4 bits from g4dn.12xlarge, a 70B comes to 40,000 USD a month or more.",
    verdict="contested",
    instead="Ask for requests per second and their lengths, and compare costs per token, not numbers of instances.",
)
def c120(given: Assumptions) -> Evidence:
    rented = instance("g4dn.12xlarge")
    month = _usd(rented) * given.hours_per_month
    numbers: dict[str, float | str] = {"month": month, "instances": 40_000 / month}
    numbers |= {"gpus": rented.count * 40_000 / month}
    because = (
        "One instance costs {month:,.0f} USD a month; 40,000 USD are {instances:.0f} of them, {gpus:.0f} T4. {holds} "
        "The text names no load, and no source was found for one, from which a number of instances would follow."
    )
    held = given.fit("g4dn.12xlarge", given.int4).fits
    verdict: Verdict = "contested" if held else "false"
    words = {"holds": "One holds the model and a request." if held else "One does not hold the model and a request."}
    return Evidence(verdict, because, numbers | words, "cited", references=(NONE_FOUND,))


@claim(
    "C121",
    sources=("000:81", "000:83"),
    says="4 bits on smaller instances make an answer more expensive.",
    verdict="conditional",
    instead="The kernel decides. A token in W4A8KV4 on an L40S costs {w4a8_words} than in 8 bits on an A100, one in "
    "plain W4A16 on an L40S {w4a16_words}.",
)
def c121(given: Assumptions) -> Evidence:
    usd = {"A100-80GB": _per_gpu("p4de.24xlarge"), "L40S-48GB": _per_gpu("g6e.xlarge")}
    rows = {
        "a100_w8a8": "qserve-A100-80GB-Llama-2-70B-TRT-LLM W8A8",
        "a100_w4a16": "qserve-A100-80GB-Llama-2-70B-TRT-LLM W4A16",
        "l40s_w4a8": "qserve-L40S-48GB-Llama-2-70B-QServe",
        "l40s_w4a16": "qserve-L40S-48GB-Llama-2-70B-TRT-LLM W4A16",
    }
    costs = {key: 1e6 * usd[result(row).hardware or ""] / (value(row) * SECONDS_PER_HOUR) for key, row in rows.items()}
    because = (
        "A million tokens of Llama-2-70B, with 1,024 in and 512 out, costs on an A100 {a100_w8a8:.2f} USD in W8A8 and "
        "{a100_w4a16:.2f} in W4A16, on an L40S {l40s_w4a8:.2f} in W4A8KV4 and {l40s_w4a16:.2f} in W4A16."
    )
    eight = costs["a100_w8a8"]
    shares = {name: costs[f"l40s_{name}"] / eight - 1 for name in ("w4a8", "w4a16")}
    numbers = costs | {f"{name}_share": share for name, share in shares.items()}
    words = {f"{name}_words": more(share) for name, share in shares.items()}
    return Evidence(
        over(*(share > 0 for share in shares.values())), because, {**numbers, **words}, "cited", tuple(rows.values())
    )


def _per_gpu(name: str) -> float:
    """USD for one GPU and hour, also where only eight are sold together."""
    return _usd(instance(name)) / instance(name).count


@claim(
    "C122",
    sources=("000:83",),
    says="Millions of recommendations a day are out of reach for a quantized 70B.",
    verdict="false",
    instead="Turn them into requests per second and lengths of prompts first: {requests_per_day:,.0f} a day take "
    "{h200_short:.0f} to {h200_long:.0f} H200. Then ask whether a 70B has to rank at all.",
)
def c122(given: Assumptions) -> Evidence:
    per_second = given.requests_per_day / SECONDS_PER_DAY
    work = per_second * given.prompt_tokens * 2 * spec(given.model).linear_parameters
    rates = {
        "l40s_int8": gpu("L40S").int8_tensor_tops,
        "a100_int8": gpu("A100-80GB").int8_tensor_tops,
        "h200_fp8": gpu("H200").fp8_tensor_tflops,
    }
    floors = {f"floor_{name}": work / ((rate or 0) * 1e12 * given.compute_reached) for name, rate in rates.items()}
    rows = {
        "h200_short": "trtllm-70b-128/128/h200",
        "h200_long": "trtllm-70b-2048/128/h200",
        "b200_long": "trtllm-70b-2048/128/b200",
    }
    needed = {name: per_second / (value(row) / 128) for name, row in rows.items()}
    numbers = {
        "per_second": per_second,
        "output": per_second * given.output_tokens,
        **floors,
        **needed,
        "by_output_h200": per_second * given.output_tokens / value(rows["h200_long"]),
        "h200_usd": needed["h200_long"] * _per_gpu("p5en.48xlarge"),
        "b200_usd": needed["b200_long"] * _per_gpu("p6-b200.48xlarge"),
    }
    numbers["usd_per_thousand"] = 1000 * numbers["h200_usd"] / (per_second * SECONDS_PER_HOUR)
    because = (
        "{requests_per_day:,.0f} a day are {per_second:.1f} per second. Reading prompts of {prompt_tokens:,} tokens "
        "alone takes the peak rate of {floor_l40s_int8:.0f} L40S, {floor_a100_int8:.0f} A100 or {floor_h200_fp8:.1f} "
        "H200. By rates measured with answers of 128 tokens it is {h200_short:.1f} H200 for prompts of 128 tokens; for "
        "2,048 it is {h200_long:.1f} H200 ({h200_usd:.0f} USD an hour, {usd_per_thousand:.2f} for a thousand requests) "
        "or {b200_long:.1f} B200 ({b200_usd:.0f} USD an hour). Who counts the output alone gets {by_output_h200:.1f} "
        "H200 and forgets the prompts."
    )
    verdict = over(*(gpus > given.fleet_gpus for gpus in needed.values()))
    return Evidence(verdict, because, numbers, cites=tuple(rows.values()))


@claim(
    "C123",
    sources=("000:97", "000:99-100", "001:57-58"),
    says="Take 4 bits only where memory is extremely short or cost is all that counts.",
    verdict="conditional",
    instead="4 bits are the choice for latency at small batch, too: {single:.2f}x as fast as 8 bits for one request at "
    "a time.",
)
def c123(given: Assumptions) -> Evidence:
    single = {"eight_single": "gptfast-int8-Llama-2-70B", "four_single": "gptfast-int4-Llama-2-70B"}
    large = {w: f"qserve-A100-80GB-Llama-2-70B-TRT-LLM {w.upper()}" for w in ("w8a8", "w4a16")}
    small = {f"small_{w}": f"qserve-A100-80GB-Llama-2-7B-TRT-LLM {w.upper()}" for w in ("w8a8", "w4a16")}
    rows = single | large | small
    numbers = {name: value(row) for name, row in rows.items()}
    numbers["single"] = numbers["four_single"] / numbers["eight_single"]
    because = (
        "Two more reasons have been measured on one A100. For one request at a time Llama-2-70B has {four_single:.1f} "
        "tokens/s in 4 bits and {eight_single:.1f} in 8; for many, where memory for the KV cache is the limit, "
        "{w4a16:.0f} and {w8a8:.0f}. With Llama-2-7B, which leaves memory enough, 8 bits are ahead: {small_w8a8:,.0f} "
        "against {small_w4a16:,.0f}."
    )
    pairs = (("eight_single", "four_single"), ("w8a8", "w4a16"), ("small_w8a8", "small_w4a16"))
    verdict = over(*(numbers[eight] > numbers[four] for eight, four in pairs))
    return Evidence(verdict, because, numbers, "cited", tuple(rows.values()))


@claim(
    "C124",
    sources=("004:20",),
    says="There is no precision that is best everywhere.",
    verdict="true",
    instead="Right, and show both cases: 8 bits are ahead in {eight_wins} of {pairs} published pairs, 4 bits in "
    "{four_wins}.",
)
def c124(given: Assumptions) -> Evidence:
    four = [row for row in results(method="TRT-LLM W4A16") if row.id.startswith("qserve-")]
    pairs = [(row.id.replace("W4A16", "W8A8"), row.id) for row in four]
    ahead = {id_4: result(id_8).value is not None and value(id_8) > value(id_4) for id_8, id_4 in pairs}
    names = {"eight_7b": "A100-80GB-Llama-2-7B", "eight_yi": "L40S-48GB-Yi-34B"}
    names |= {"four_70b": "A100-80GB-Llama-2-70B", "four_30b": "L40S-48GB-Llama-30B"}
    shown = {
        f"{key}_{bits}": value(f"qserve-{place}-TRT-LLM {method}")
        for key, place in names.items()
        for bits, method in ((8, "W8A8"), (4, "W4A16"))
    }
    eight_wins = sum(ahead.values())
    numbers: dict[str, float] = {"pairs": len(pairs), "eight_wins": eight_wins, "four_wins": len(pairs) - eight_wins}
    because = (
        "The highest throughputs on an A100, in 8 and in 4 bits: Llama-2-7B {eight_7b_8:,.0f} and {eight_7b_4:,.0f} "
        "tokens/s, Llama-2-70B {four_70b_8:,.0f} and {four_70b_4:,.0f}. On an L40S: Yi-34B {eight_yi_8:,.0f} and "
        "{eight_yi_4:,.0f}, Llama-30B {four_30b_8:,.0f} and {four_30b_4:,.0f}. Where 8 bits do not fit, 4 are counted "
        "as ahead."
    )
    verdict = over(numbers["eight_wins"] > 0, numbers["four_wins"] > 0)
    cites = tuple(id for pair in pairs for id in pair)
    return Evidence(verdict, because, numbers | shown, "cited", cites)


@claim(
    "C125",
    sources=("004:18",),
    says="Once a model is quantized, its number of parameters says less about the hardware that it needs.",
    verdict="true",
    instead="Yes. Count bytes and tokens in flight: a 70B takes {bf16} H100 in 16 bits, {int8} in 8 and {int4} in 4.",
)
def c125(given: Assumptions) -> Evidence:
    least = {name: _least(given, "H100-80GB", name) for name in ("bf16", "int8")}
    least["int4"] = _least(given, "H100-80GB", given.int4)
    numbers = {
        **least,
        "tokens_8": given.fit("H100-80GB", "int8").tokens,
        "tokens_4": given.fit("H100-80GB", given.int4).tokens,
        "l40s": _least(given, "L40S", given.int4),
        "l40s_tokens": given.fit("L40S", given.int4).tokens,
    }
    because = (
        "With one request of {context:,} tokens it takes {bf16} H100 in 16 bits, {int8} in 8 bits and {int4} in 4, or "
        "{l40s} L40S in 4 bits. One H100 has room for {tokens_8:,} tokens in 8 bits and {tokens_4:,} in 4; one L40S "
        "has room for {l40s_tokens:,} in 4."
    )
    return Evidence(over(len(set(least.values())) > 1), because, numbers)


def _least(given: Assumptions, card: str, precision: str) -> int:
    """The fewest GPUs that hold the model and one request; 0 if none do."""
    return next((n for n in spec(given.model).splits if given.fit(card, precision, tensor_parallel=n).fits), 0)
