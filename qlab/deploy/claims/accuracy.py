"""Claims on accuracy: what 8 and 4 bits cost, on which models and tasks, and what calibration has to do with it."""

from __future__ import annotations

from statistics import median

from ..results import result, results
from .gaussian import E4M3, Parts, decibels, integers, largest, noise, sqnr, sqnr_asymmetric, sqnr_product
from .ledger import NONE_FOUND, Assumptions, Evidence, claim, over, said, value
from .rows import ends, lost, rows

ROW = 4096  # weights of an output row, as in a 7B or 8B
SERVED = "W4A16"
LLAMA_2 = ("7B", "13B", "70B")
QWEN = ("1.8B", "7B", "14B", "72B")
SMOOTHQUANT = "Xiao et al. 2022, SmoothQuant, arXiv 2211.10438, section 3: outlier channels about 100x the others"

# Activations with outlier channels as SmoothQuant describes them: 6 of 4,096 channels a hundred times as large.
CHANNELS: Parts = ((4090, 1.0), (6, 100.0))
CLEAN: Parts = ((4090, 1.0), (6, 1.0))
SMOOTHED: Parts = ((4090, 1.0), (6, 10.0))  # half of the exponent goes over: 100^0.5 stays, 100^0.5 is in the weights


def scores(*bits: str) -> tuple[str, ...]:
    """Published scores of these widths, such as "W8A8", with a baseline: the higher, the better."""
    return tuple(row for width in bits for row in rows(kind="accuracy", better="higher", bits=width))


def mmlu_loss(method: str) -> tuple[str, ...]:
    """NVIDIA's losses of MMLU in percent, for a method."""
    return tuple(row.id for row in results(kind="accuracy", method=method, unit="percent"))


def _normal_channels(levels: tuple[float, ...], parts: Parts) -> float:
    """Decibels on the channels that are no outliers, where all of a block share one scale."""
    return decibels(parts[0][1] ** 2, noise(levels, parts))


@claim(
    "C068",
    sources=("000:17", "001:9"),
    says="8 bits lose less than 1 % on most tasks.",
    verdict="conditional",
    instead="Averages mostly do, with FP8 and with INT8 weights; single tasks have lost {qwen_code:.1f} %. INT8 W8A8 "
    "loses {w8a8_low:.0f} to {w8a8_high:.0f} % when tuned, and can collapse when it is not.",
)
def c068(given: Assumptions) -> Evidence:
    named = {
        "tuned": "kurtic-70b-int8",
        "small": "nm-8b-w8a8",
        "naive": "sq-opt175b-naive W8A8 per-tensor",
        "sq_low": "trtllm-mmlu-int8sq-MPT-30B",
        "sq_high": "trtllm-mmlu-int8sq-Llama-2-70B",
        "sq_ppl": "sq-readme-Llama-3-70B",
        "fp8_70b": "modelopt-mmlu-loss-Llama-3.1-70B-Instruct-FP8",
        "fp8_8b": "modelopt-mmlu-loss-Llama-3.1-8B-Instruct-FP8",
        "qwen_code": "qwen1-Qwen-7B-Chat-int8-HumanEval",
        "qwen_math": "qwen1-Qwen-72B-Chat-int8-GSM8K",
        "l3_70b": "nm-l3-70b-w8a16-v1",
    }
    tried = (*scores("W8A8", "W8A16"), *mmlu_loss("FP8"))
    numbers = {name: lost(row) for name, row in named.items()}
    numbers |= {"tried": len(tried), "within": sum(lost(row) < 1 for row in tried)}
    numbers |= {"arena": 100 - said("nm-405b-w8a8", r"Arena-Hard ([\d.]+)%")}
    numbers |= {
        "w8a8_low": said("kurtic-abstract", r"W8A8 (\d)-"),
        "w8a8_high": said("kurtic-abstract", r"W8A8 \d-(\d)%"),
    }
    because = (
        "{within} of {tried} published scores at 8 bits lost less than 1 %. INT8 W8A8 lost {tuned:.2f} % (70B, tuned), "
        "{small:.1f} % (8B), {sq_low:.2f} to {sq_high:.2f} % of MMLU with SmoothQuant, {arena:.1f} % of Arena-Hard "
        "(405B), {naive:.0f} % over seven tasks with one scale per tensor (OPT-175B); SmoothQuant raised the "
        "perplexity of Llama-3-70B by {sq_ppl:.1f} %. FP8 lost {fp8_70b:.2f} % (70B) and {fp8_8b:.2f} % (8B) of MMLU. "
        "INT8 weights lost {qwen_code:.1f} % of HumanEval (Qwen-7B), {qwen_math:.1f} % of GSM8K (Qwen-72B), "
        "{l3_70b:.1f} % on average (Llama-3-70B)."
    )
    cases = (lost(row) < 1 for row in tried)
    return Evidence(over(*cases), because, numbers, "cited", (*named.values(), "nm-405b-w8a8", "kurtic-abstract"))


@claim(
    "C069",
    sources=("000:23", "001:12"),
    says="Depending on the architecture, between 2 and 5 % are lost at 4 bits.",
    verdict="conditional",
    instead="It depends on the size, the task and the generation of the model. A 70B lost up to {ceiling_70b:.1f} % on "
    "short tests, an 8B {gptq_8b:.0f} to {awq_8b:.0f} %, a 1B {mmlu_1b:.0f} %; and perplexity follows the generation "
    "more than the size.",
)
def c069(given: Assumptions) -> Evidence:
    named = {
        "low_70b": "nm-70b-w4a16",
        "ceiling_70b": "modelopt0-mmlu-loss-Llama-3-70B-INT4 AWQ",
        "gptq_8b": "kurtic-8b-gptq-v1",
        "awq_8b": "modelopt-mmlu-loss-Llama-3.1-8B-Instruct-INT4 AWQ",
        "llama2_7b": "marlin-mmlu-Llama-2-7B",
        "mmlu_1b": "l32-Llama-3.2-1B-MMLU-vanilla P",
        "gsm_1b": "l32-Llama-3.2-1B-GSM8K-vanilla P",
        "ppl_7b": "qserve-ppl-Llama-2-7B-GPTQ-R g128-W4A16",
        "ppl_70b": "qserve-ppl-Llama-2-70B-GPTQ-R g128-W4A16",
        "ppl_8b": "qserve-ppl-Llama-3-8B-GPTQ-R g128-W4A16",
    }
    tried = (*scores(SERVED), *mmlu_loss("INT4 AWQ"))
    numbers = {name: lost(row) for name, row in named.items()}
    numbers |= {"tried": len(tried), "within": sum(2 <= lost(row) <= 5 for row in tried)}
    numbers |= {"long": said("mekala-8bit", r"4 bit up to (\d+) %")}
    because = (
        "{within} of {tried} published scores at 4 bits lost 2 to 5 %. A 70B lost {low_70b:.1f} to {ceiling_70b:.1f} "
        "%, an 8B {gptq_8b:.1f} (GPTQ) to {awq_8b:.1f} % (AWQ), Llama-2-7B {llama2_7b:.1f} %, a 1B in W4A8 "
        "{mmlu_1b:.0f} % of MMLU and {gsm_1b:.0f} % of GSM8K; on long contexts up to {long:.0f} % was lost. GPTQ in "
        "groups of 128 raised the perplexity of Llama-2-7B by {ppl_7b:.1f} %, of Llama-2-70B by {ppl_70b:.1f} % and of "
        "Llama-3-8B by {ppl_8b:.1f} %."
    )
    cases = (2 <= lost(row) <= 5 for row in tried)
    return Evidence(over(*cases), because, numbers, "cited", (*named.values(), "mekala-8bit"))


@claim(
    "C070",
    sources=("002:20", "002:29", "002:91"),
    says="Done well, 4 bits lose less than 1 %.",
    verdict="conditional",
    instead="That is about right for a 70B on short benchmarks, where {gptq:.1f} to {awq_older:.1f} % were lost. An 8B "
    "has lost {code_8b:.1f} to {arena_8b:.1f} %, by the test.",
)
def c070(given: Assumptions) -> Evidence:
    named = {
        "gptq": "nm-70b-w4a16",
        "tuned": "kurtic-70b-int4",
        "awq": "trtllm-mmlu-awq-Llama-2-70B",
        "awq_older": "modelopt0-mmlu-loss-Llama-3-70B-INT4 AWQ",
        "code_8b": "kurtic-8b-gptq-he",
        "arena_8b": "kurtic-8b-gptq-ah",
        "v2_8b": "kurtic-8b-gptq-v2",
    }
    numbers = {name: lost(row) for name, row in named.items()}
    because = (
        "A 70B lost {gptq:.2f} and {tuned:.2f} % of the Open LLM leaderboard with GPTQ, {awq:.2f} to {awq_older:.2f} % "
        "of MMLU with AWQ. An 8B lost {code_8b:.1f} % of HumanEval with GPTQ, but {v2_8b:.1f} % of the leaderboard's "
        "version 2 and {arena_8b:.1f} % of Arena-Hard."
    )
    return Evidence(over(*(loss < 1 for loss in numbers.values())), because, numbers, "cited", tuple(named.values()))


@claim(
    "C071",
    sources=("000:25", "001:14"),
    says="8 bits can be shipped as they are; 4 bits need heavy validation first.",
    verdict="contested",
    instead="Validate both. Safety belongs to a method and an evaluation, not to a number of bits.",
)
def c071(given: Assumptions) -> Evidence:
    models = ("Falcon-180B", "Falcon-40B", "Llama-2-70B", "MPT-30B")
    pairs = [(f"trtllm-mmlu-int8sq-{m}", f"trtllm-mmlu-awq-{m}") for m in models]
    pairs += [("kurtic-70b-int8", "kurtic-70b-int4")]
    numbers = {"eight": lost(pairs[2][0]), "four": lost(pairs[2][1])}
    numbers |= {"tuned_8": lost(pairs[4][0]), "tuned_4": lost(pairs[4][1])}
    because = (
        "Llama-2-70B loses {eight:.2f} % of MMLU in INT8 (SmoothQuant) and {four:.2f} % in INT4 (AWQ), by NVIDIA. A "
        "tuned Llama-3.1-70B loses {tuned_8:.2f} % of the Open LLM leaderboard in INT8 W8A8 and {tuned_4:.2f} % in "
        "W4A16. So published pairs point both ways, and single answers flip at either width."
    )
    safer = over(*(lost(eight) < lost(four) for eight, four in pairs))
    verdict = "contested" if safer == "conditional" else safer
    return Evidence(verdict, because, numbers, "cited", (*pairs[2], *pairs[4], "flips"))


@claim(
    "C072",
    sources=("002:28", "002:65"),
    says="INT8 for the weights alone is almost lossless.",
    verdict="conditional",
    instead="Mostly it is within the noise of an evaluation. Look for models with outliers in their weights: "
    "Llama-3-70B lost {points:.1f} points of GSM8K.",
)
def c072(given: Assumptions) -> Evidence:
    named = {
        "ppl": "ao-ppl-int8 rowwise weight-onlyW8A16",
        "card_8b": "nm-l3-8b-w8a16-v1",
        "card_70b": "nm-l3-70b-w8a16-v1",
        "gsm_70b": "nm-l3-70b-w8a16-gsm8k",
    }
    numbers = {name: lost(row) for name, row in named.items()}
    numbers |= {"points": (result(named["gsm_70b"]).baseline or 0.0) - value(named["gsm_70b"])}
    numbers |= {"worst": said("nm-70b-w8a8", r"W8A16 card says within ([\d.]+)%")}
    numbers |= {"worst_both": said("nm-70b-w8a8", r"W8A8 within ([\d.]+)%")}
    because = (
        "The perplexity of Llama-3.1-8B rises by {ppl:.2f} %, and Llama-3-8B loses {card_8b:.1f} % on average. But "
        "Llama-3-70B loses {card_70b:.1f} % on average and {gsm_70b:.1f} % of GSM8K. The card of Llama-3.1-70B says up "
        "to {worst:.1f} % for its worst task; as the card with 8-bit activations says {worst_both:.1f} %, that much is "
        "noise of the evaluation."
    )
    cases = (lost(row) <= given.noise_percent for row in (*named.values(), *scores("W8A16")))
    return Evidence(over(*cases), because, numbers, "cited", (*named.values(), "nm-70b-w8a8"))


@claim(
    "C073",
    sources=("002:36",),
    says="W8A8 costs more quality than INT8 for the weights alone.",
    verdict="conditional",
    instead="In general it does, because outliers sit in activations. On a good 70B the difference can drown in the "
    "noise of an evaluation.",
)
def c073(given: Assumptions) -> Evidence:
    both, weights, card = "ao-ppl-int8 rowwiseW8A8", "ao-ppl-int8 rowwise weight-onlyW8A16", "nm-70b-w8a8"
    numbers = {"both": lost(both), "weights": lost(weights), "times": lost(both) / lost(weights)}
    numbers |= {"card_both": said(card, r"W8A8 within ([\d.]+)%")}
    numbers |= {"card_weights": said(card, r"W8A16 card says within ([\d.]+)%")}
    because = (
        "With one model and tool (Llama-3.1-8B, torchao) perplexity rises by {both:.2f} % in W8A8 and by {weights:.2f} "
        "% in W8A16: {times:.0f} times as much. But by the cards of Llama-3.1-70B the worst task loses up to "
        "{card_both:.1f} % in W8A8 and {card_weights:.1f} % in W8A16."
    )
    cases = (numbers["both"] > numbers["weights"], numbers["card_both"] > numbers["card_weights"])
    return Evidence(over(*cases), because, numbers, "cited", (both, weights, card))


@claim(
    "C074",
    sources=("002:37",),
    says="FP8 loses less accuracy than INT8, thanks to its dynamic range.",
    verdict="conditional",
    instead="FP8 wins on tensors with outliers, INT8 on tensors that are scaled well.",
)
def c074(given: Assumptions) -> Evidence:
    int8, tensor = integers(8), tuple((512 * count, sigma) for count, sigma in CHANNELS)  # 512 tokens
    numbers = {
        "int8_tensor": _normal_channels(int8, tensor),
        "int8_token": _normal_channels(int8, CHANNELS),
        "fp8": _normal_channels(E4M3, tensor),
        "int8_clean": sqnr(int8, ROW),
        "fp8_clean": sqnr(E4M3, ROW),
        "int8_out": sqnr_product(int8, CHANNELS, CLEAN),
        "int8_smooth": sqnr_product(int8, SMOOTHED, SMOOTHED),
        "fp8_out": sqnr_product(E4M3, CHANNELS, CLEAN),
    }
    because = (
        "By integration: let 6 of 4,096 channels be a hundred times as large. The signal of the others is then "
        "{int8_tensor:.1f} dB above the noise in INT8 with one scale per tensor, {int8_token:.1f} with one per token, "
        "{fp8:.1f} in FP8; without outliers {int8_clean:.1f} in INT8 and {fp8_clean:.1f} in FP8. The layer's output "
        "has {int8_out:.1f} dB in INT8, {int8_smooth:.1f} after SmoothQuant, {fp8_out:.1f} in FP8."
    )
    pairs = (("fp8", "int8_tensor"), ("fp8", "int8_token"), ("fp8_clean", "int8_clean"), ("fp8_out", "int8_smooth"))
    return Evidence(over(*(numbers[fp8] > numbers[other] for fp8, other in pairs)), because, numbers)


@claim(
    "C075",
    sources=("002:41",),
    says="With care a KV cache in INT8 or INT4 costs little.",
    verdict="conditional",
    instead="An 8-bit cache costs about as little as 8-bit weights. At 4 bits give keys a scale per channel, and check "
    "that your attention kernel can read it.",
)
def c075(given: Assumptions) -> Evidence:
    keys: Parts = ((127, 1.0), (1, KEY_OUTLIER))  # a head of 128 numbers, one of its channels large
    numbers = {
        "outlier": KEY_OUTLIER,
        "eight_token": _normal_channels(integers(8), keys),
        "four_token": _normal_channels(integers(4), keys),
        "four_channel": sqnr_asymmetric(4, 32),
        "weights": sqnr(integers(4), 128),
        "reasoning": lost("liu-w8a8kv8"),
    }
    because = (
        "By integration: let one channel of the keys be {outlier:.0f} times the others. With a scale per token the "
        "signal is {eight_token:.0f} dB above the noise in 8 bits and {four_token:.0f} in 4; with a scale per channel "
        "and 32 tokens it is {four_channel:.0f} in 4 bits, and 4-bit weights have {weights:.0f}. KIVI reports that 2 "
        "bits work that way. A reasoning model in W8A8 with an 8-bit cache lost {reasoning:.1f} %."
    )
    cases = (numbers[kind] >= numbers["weights"] for kind in ("eight_token", "four_token", "four_channel"))
    return Evidence(over(*cases), because, numbers, cites=("kivi", "liu-w8a8kv8"))


KEY_OUTLIER = 10.0  # a key's channel over the others: assumed; KIVI finds a few that are much larger than the rest


@claim(
    "C076",
    sources=("002:49",),
    says="For LLMs a single scale per tensor is too little.",
    verdict="conditional",
    instead="True of INT8 activations that have outlier channels. FP8 and smoothed models do with one.",
)
def c076(given: Assumptions) -> Evidence:
    models = {"opt": "OPT-175B (4 tasks)", "glm": "GLM-130B", "bloom": "BLOOM-176B"}
    naive = {name: f"sq-t4-naive-{model}" for name, model in models.items()}
    enough = {"smoothed": "sq-t4-o3-OPT-175B (4 tasks)", "fp8": "trtllm-mmlu-fp8-Llama-2-70B"}
    numbers = {name: lost(row) for name, row in (naive | enough).items()}
    row = sqnr(integers(8), ROW)
    numbers |= {f"weights_{rows_}": row - sqnr(integers(8), rows_ * ROW) for rows_ in (256, 4096)}
    because = (
        "In INT8 W8A8 with one scale per tensor OPT-175B loses {opt:.0f} % over four tasks, GLM-130B {glm:.0f} %, "
        "BLOOM-176B {bloom:.1f} %. After smoothing OPT-175B loses {smoothed:.1f} % of the same, and Llama-2-70B in FP8 "
        "{fp8:.2f} % of MMLU. For weights alone one scale in place of one per row costs {weights_256:.1f} dB in a "
        "matrix of 256 x 4,096 and {weights_4096:.1f} in one of 4,096 x 4,096."
    )
    cites = (*naive.values(), *enough.values())
    return Evidence(over(*(lost(r) > given.noise_percent for r in cites)), because, numbers, "cited", cites)


@claim(
    "C077",
    sources=("003:13",),
    says="The dynamic range of activations is 10 to 100 times that of weights.",
    verdict="conditional",
    instead="What hurts is a few channels that are far larger than the others. Without them activations are no wider "
    "than weights.",
)
def c077(given: Assumptions) -> Evidence:
    tokens = {"outliers": CHANNELS, "clean": CLEAN}
    numbers = {name: median(largest(parts)) / median(largest(((ROW, 1.0),))) for name, parts in tokens.items()}
    cases = [10 <= numbers[name] <= 100 for name in tokens]
    numbers |= {name: lost(row) for name, row in _NAIVE.items()}
    because = (
        "Channels of a hundred times the others, as SmoothQuant found them in OPT, make the largest number of a token "
        "{outliers:.0f} times the largest weight of a row, each in units of what is usual there; without such channels "
        "it is {clean:.0f}x. Models differ: with one scale per tensor OPT-175B loses {opt:.0f} % over four tasks, "
        "BLOOM-176B {bloom:.0f} %."
    )
    return Evidence(over(*cases), because, numbers, "computed", tuple(_NAIVE.values()), (SMOOTHQUANT,))


_NAIVE = {"opt": "sq-t4-naive-OPT-175B (4 tasks)", "bloom": "sq-t4-naive-BLOOM-176B"}


@claim(
    "C078",
    sources=("003:11",),
    says="Chosen well, quantization drops perplexity by 2 %; chosen badly, it is a collapse of 15 %.",
    verdict="conditional",
    instead="Perplexity rises, it does not drop. 15 % is a bad result that does occur; a collapse is what took "
    "OPT-175B from {before:.0f} to {after:,.0f}.",
)
def c078(given: Assumptions) -> Evidence:
    good = {
        "opt": "gptq-opt175b-4",
        "llama_70b": "qserve-ppl-Llama-2-70B-AWQ g128-W4A16",
        "llama_8b": "qserve-ppl-Llama-3-8B-AWQ g128-W4A16",
    }
    bad = {"nvfp4": "ao-ppl-nvfp4W4A4", "aqlm": "aqlm-mmlu-Llama-2-7B", "rtn": "gptq-LLaMA-7B-RTN per-row-W3A16"}
    worst = "sq-opt175b-ppl-naive W8A8 per-tensor"
    numbers = {name: lost(row) for name, row in (good | bad).items()}
    numbers |= {"before": result(worst).baseline or 0.0, "after": value(worst)}
    because = (
        "Good 4 bits raise perplexity by {opt:.1f} % (OPT-175B), {llama_70b:.1f} % (Llama-2-70B) and {llama_8b:.1f} % "
        "(Llama-3-8B). Weights and activations in NVFP4, a 4-bit float, raise it by {nvfp4:.1f} % (Llama-3.1-8B); 2 "
        "bits lose {aqlm:.1f} % of MMLU (Llama-2-7B). 3 bits rounded to nearest raise it by {rtn:.0f} % (LLaMA-7B), "
        "and W8A8 with one scale per tensor from {before:.2f} to {after:,.0f} (OPT-175B)."
    )
    well = (numbers[name] <= 2 for name in good)
    badly = (given.near(numbers[name], 15) for name in bad)
    cites = (*good.values(), *bad.values(), worst)
    return Evidence(over(*well, *badly), because, numbers, "cited", cites)


@claim(
    "C079",
    sources=("000:53", "001:29"),
    says="At 8 bits PTQ can be relied on.",
    verdict="conditional",
    instead="Mostly for INT8 weights and for FP8, whose averages lost {weights:.1f} to {l3_70b:.1f} % here. INT8 "
    "activations need care, and with it Llama-2-70B still lost {smooth:.2f} %. Evaluate each.",
)
def c079(given: Assumptions) -> Evidence:
    named = {
        "weights": "ao-ppl-int8 rowwise weight-onlyW8A16",
        "fp8": "trtllm-mmlu-fp8-Llama-2-70B",
        "fp8_8b": "modelopt-mmlu-loss-Llama-3.1-8B-Instruct-FP8",
        "l3_70b": "nm-l3-70b-w8a16-v1",
        "naive": "sq-opt175b-naive W8A8 per-tensor",
        "smooth": "trtllm-mmlu-int8sq-Llama-2-70B",
    }
    numbers = {name: lost(row) for name, row in named.items()}
    because = (
        "INT8 weights raise the perplexity of an 8B by {weights:.2f} %, and FP8 costs Llama-2-70B {fp8:.2f} % of MMLU. "
        "But FP8 costs an 8B {fp8_8b:.2f} %, INT8 weights cost Llama-3-70B {l3_70b:.1f} %, and with 8-bit activations "
        "Llama-2-70B loses {smooth:.2f} % after SmoothQuant, OPT-175B {naive:.0f} % over seven tasks with one scale "
        "per tensor."
    )
    cases = (loss <= given.noise_percent for loss in numbers.values())
    return Evidence(over(*cases), because, numbers, "cited", tuple(named.values()))


@claim(
    "C080",
    sources=("000:53", "001:30"),
    says="How good PTQ at 4 bits will be cannot be predicted.",
    verdict="conditional",
    instead="Within a generation of models it can, roughly: from size to size the loss differed by a factor of "
    "{widest:.1f} at most. From one generation to the next it was {spread_gptq_all:.1f} and more, so measure a new "
    "model.",
)
def c080(given: Assumptions) -> Evidence:
    groups = {
        **{
            name: tuple(f"qserve-ppl-Llama-2-{size}-{method} g128-W4A16" for size in LLAMA_2)
            for name, method in (("gptq", "GPTQ-R"), ("awq", "AWQ"))
        },
        **{
            name: tuple(f"gptq-LLaMA-{size}-{method} per-row-W4A16" for size in ("7B", "13B", "30B", "65B"))
            for name, method in (("gptq_row", "GPTQ"), ("rtn_row", "RTN"))
        },
    }
    next_one = {name: groups[name][0].replace("Llama-2-7B", "Llama-3-8B") for name in ("gptq", "awq")}
    numbers = {f"{name}_{end}": lost(row) for name, found in groups.items() for end, row in _low_high(found).items()}
    numbers |= {f"{name}_next": lost(row) for name, row in next_one.items()}
    spreads = {name: _spread(found) for name, found in groups.items()}
    spreads |= {f"{name}_all": _spread((*groups[name], row)) for name, row in next_one.items()}
    numbers |= {"widest": max(spreads[name] for name in groups)}
    numbers |= {f"spread_{name}": spread for name, spread in spreads.items()}
    because = (
        "At 4 bits in groups of 128 the perplexity of the three sizes of Llama-2 rises by {gptq_low:.1f} to "
        "{gptq_high:.1f} % with GPTQ and by {awq_low:.1f} to {awq_high:.1f} % with AWQ; with a scale per row that of "
        "the four sizes of LLaMA by {gptq_row_low:.1f} to {gptq_row_high:.1f} % with GPTQ and by {rtn_row_low:.1f} to "
        "{rtn_row_high:.1f} % rounded to nearest. That is a factor of {widest:.1f} at most. But that of Llama-3-8B "
        "rises by {gptq_next:.1f} and {awq_next:.1f} %, and with it the factors are {spread_gptq_all:.1f} and "
        "{spread_awq_all:.1f}."
    )
    cases = (spread > 2 for spread in spreads.values())
    return Evidence(over(*cases), because, numbers, "cited", (*sum(groups.values(), ()), *next_one.values()))


def _low_high(found: tuple[str, ...]) -> dict[str, str]:
    """The rows with the smallest and with the largest loss."""
    return dict(zip(("low", "high"), ends(found, by=lost), strict=True))


def _spread(found: tuple[str, ...]) -> float:
    """The largest loss over the smallest."""
    low, high = ends(found, by=lost)
    return lost(high) / lost(low)


@claim(
    "C081",
    sources=("000:53",),
    says="What quantization did to a model shows only in production.",
    verdict="false",
    instead="Measure flipped answers and KL divergence on held-out requests before the launch, then run the new model "
    "beside the old one.",
)
def c081(given: Assumptions) -> Evidence:
    high = ends(rows(kind="accuracy", better="lower"), by=lost)[1]
    tried = results(kind="accuracy")
    numbers = {"tried": len(tried), "before": result(high).baseline or 0.0, "after": value(high)}
    because = (
        "The ledger cites {tried} results that were measured offline, among them a perplexity that went from "
        "{before:.2f} to {after:,.0f}. Perplexity, KL divergence, flipped answers and tasks need an evaluation set and "
        "no users."
    )
    missed = lost(high) <= given.noise_percent  # an evaluation that never finds anything would be none
    return Evidence(over(missed), because, numbers, "cited", (high, "flips"))


@claim(
    "C082",
    sources=("004:3", "004:16"),
    says="As bits fall, the damage grows faster than linearly.",
    verdict="true",
    instead="A bit less costs {bit_first:.0f} to {bit_last:.0f} dB. The cliff is at 3 bits, where the loss of LLaMA-7B "
    "goes from {at_4:.0f} to {at_3:.0f} %.",
)
def c082(given: Assumptions) -> Evidence:
    sizes = ("7B", "13B", "30B", "65B")
    pairs = [(f"gptq-LLaMA-{size}-GPTQ per-row-W4A16", f"gptq-LLaMA-{size}-GPTQ per-row-W3A16") for size in sizes]
    pairs += [("gptq-opt175b-4", "gptq-opt175b-3")]
    two = "llama3-70b-quip2"
    decibels_at = {bits: sqnr_asymmetric(bits, 128) for bits in (8, 4, 3, 2)}
    numbers = {"at_4": lost(pairs[0][0]), "at_3": lost(pairs[0][1]), "at_2": lost(two)}
    numbers |= {f"db_{bits}": found for bits, found in decibels_at.items()}
    numbers |= {"bit_first": (decibels_at[8] - decibels_at[4]) / 4, "bit_last": decibels_at[3] - decibels_at[2]}
    numbers |= {"opt_4": lost(pairs[-1][0]), "opt_3": lost(pairs[-1][1])}
    because = (
        "GPTQ with a scale per row raises the perplexity of LLaMA-7B by {at_4:.0f} % at 4 bits and by {at_3:.0f} % at "
        "3, that of OPT-175B by {opt_4:.1f} and {opt_3:.1f} %; QuIP at 2 bits raised that of Llama-3-70B by {at_2:.0f} "
        "%. By integration, in groups of 128 with zero-points, the signal is {db_8:.1f} dB above the noise at 8 bits, "
        "{db_4:.1f} at 4, {db_3:.1f} at 3 and {db_2:.1f} at 2."
    )
    cases = (lost(three) - lost(four) > lost(four) for four, three in pairs)
    return Evidence(over(*cases), because, numbers, "cited", (*pairs[0], *pairs[-1], two))


@claim(
    "C083",
    sources=("004:6", "004:13"),
    says="The worst hit are reasoning, code, mathematics and long contexts.",
    verdict="conditional",
    instead="Often, but studies contradict each other: on RULER 4 bits keep over {ruler:.0f} % up to 64K tokens, "
    "elsewhere they lose up to {long_4:.0f} %. Evaluate these slices yourself.",
)
def c083(given: Assumptions) -> Evidence:
    qwen = {size: [f"qwen1-Qwen-{size}-Chat-int4-{task}" for task in ("MMLU", "GSM8K", "HumanEval")] for size in QWEN}
    llama = {
        size: [f"l32-Llama-3.2-{size}-{task}-vanilla P" for task in ("MMLU", "GSM8K", "MATH")] for size in ("1B", "3B")
    }
    harder = {name: max(map(lost, hard)) > lost(mmlu) for name, (mmlu, *hard) in (qwen | llama).items()}
    numbers = {
        "models": len(harder),
        "harder": sum(harder.values()),
        "code": lost(qwen["7B"][2]),
        "mmlu": lost(qwen["7B"][0]),
        "math_1b": lost(llama["1B"][2]),
        "mmlu_1b": lost(llama["1B"][0]),
        "long_4": said("mekala-8bit", r"4 bit up to (\d+) %"),
        "long_8": said("mekala-8bit", r"loses about ([\d.]+) %"),
        "math": said("math-degradation", r"mean ([\d.]+)%"),
        "ruler": said("nm-longctx", r"over (\d+)% accuracy"),
    }
    because = (
        "In {harder} of {models} models at 4 bits mathematics or code lost more than MMLU: Qwen-7B lost {code:.0f} % "
        "of HumanEval and {mmlu:.1f} % of MMLU, Llama-3.2-1B {math_1b:.0f} % of MATH and {mmlu_1b:.0f} % of MMLU "
        "(W4A8). Llama-3 lost {math:.0f} % of mathematics on average, long contexts up to {long_4:.0f} % at 4 bits and "
        "{long_8:.1f} % at 8. But on RULER, a test of long contexts, 4 and 8 bits keep over {ruler:.0f} % up to 64K."
    )
    long = (numbers["long_4"] > given.noise_percent, 100 - numbers["ruler"] > given.noise_percent)
    cites = (*qwen["7B"], *llama["1B"], "mekala-8bit", "math-degradation", "nm-longctx")
    return Evidence(over(*harder.values(), *long), because, numbers, "cited", cites)


@claim(
    "C084",
    sources=("004:8",),
    says="GPTQ keeps the quality at 4 bits, and in some set-ups at 3.",
    verdict="conditional",
    instead="At 4 bits it kept a 175B. At 3 bits take groups and a very large model; even so a 65B lost {large_g:.0f} "
    "%.",
)
def c084(given: Assumptions) -> Evidence:
    named = {
        "opt_4": "gptq-opt175b-4",
        "opt_3": "gptq-opt175b-3",
        "large_4": "gptq-LLaMA-65B-GPTQ per-row-W4A16",
        "large_3": "gptq-LLaMA-65B-GPTQ per-row-W3A16",
        "large_g": "gptq-LLaMA-65B-GPTQ g128-W3A16",
        "small_3": "gptq-LLaMA-7B-GPTQ per-row-W3A16",
        "small_g": "gptq-LLaMA-7B-GPTQ g128-W3A16",
    }
    numbers = {name: lost(row) for name, row in named.items()}
    because = (
        "GPTQ raises the perplexity of OPT-175B by {opt_4:.1f} % at 4 bits and {opt_3:.1f} % at 3. That of LLaMA-65B "
        "rises by {large_4:.0f} % at 4; at 3 by {large_3:.0f} % with a scale per row and by {large_g:.0f} % in groups "
        "of 128. That of LLaMA-7B rises by {small_3:.0f} and {small_g:.0f} % at 3."
    )
    cases = (rise <= given.noise_percent for rise in numbers.values())
    return Evidence(over(*cases), because, numbers, "cited", tuple(named.values()))


@claim(
    "C085",
    sources=("000:112",),
    says="Degrading by 1 % means one or two wrong suggestions in a session.",
    verdict="contested",
    instead="No benchmark translates into suggestions or revenue. Put both models before users and measure "
    "your own ranking metric.",
)
def c085(given: Assumptions) -> Evidence:
    because = (
        "The text names no metric and no length of a list, and no source was found for how a benchmark's score maps to "
        "suggestions. Answers flip in both directions even where the score stays."
    )
    return Evidence("contested", because, {}, "cited", ("flips",), (NONE_FOUND,))


@claim(
    "C086",
    sources=("003:15",),
    says="Calibration on the wrong domain makes the loss two to three times as large.",
    verdict="contested",
    instead="At 3 bits it is a real effect with GPTQ and a small one with AWQ. At 4 bits no such study was found, so "
    "measure on your domain.",
)
def c086(given: Assumptions) -> Evidence:
    numbers = _mismatch()
    because = (
        "No source was found for two to three times. For OPT-6.7B at 3 bits, calibration on another domain raises the "
        "perplexity by {awq_low:.0f} to {awq_high:.0f} % with AWQ and by {gptq_low:.0f} to {gptq_high:.0f} % with "
        "GPTQ. How many times the loss that is cannot be said, for the figure has no perplexity in 16 bits. Another "
        "study finds much variation, without such a factor."
    )
    return Evidence("contested", because, numbers, "cited", ("awq-calib", "calib-williams"), (NONE_FOUND,))


def _mismatch() -> dict[str, float]:
    """By how many percent the perplexity is higher with calibration data of another domain (AWQ paper, figure 8)."""
    number = r"([\d.]+)"
    places = {
        "gptq_low": (rf"GPTQ {number}->", rf"GPTQ [\d.]+->{number}"),
        "gptq_high": (rf"GPTQ .*? and {number}->.*?; AWQ", r"GPTQ .*? and [\d.]+->([\d.]+) .*?; AWQ"),
        "awq_low": (rf"AWQ {number}->", rf"AWQ [\d.]+->{number}"),
        "awq_high": (rf"AWQ .*? and {number}->", rf"AWQ .*? and [\d.]+->{number}"),
    }
    found = {name: (said("awq-calib", a), said("awq-calib", b)) for name, (a, b) in places.items()}
    rises = {name: 100 * (after / before - 1) for name, (before, after) in found.items()}
    for method in ("gptq", "awq"):
        low, high = sorted(rises[f"{method}_{end}"] for end in ("low", "high"))
        rises |= {f"{method}_low": low, f"{method}_high": high}
    return rises


@claim(
    "C087",
    sources=("000:55-57", "001:34"),
    says="A representative calibration set is critical: without one the output is random.",
    verdict="conditional",
    instead="It is useful, and with GPTQ at 3 bits it matters. A 70B at 4 bits lost {random:.1f} % without one, and no "
    "model was found whose output became random.",
)
def c087(given: Assumptions) -> Evidence:
    random = "nm-70b-w4a16"
    mismatch = _mismatch()
    worst = max(said("awq-calib", rf"(?:.*?->){{{place}}}([\d.]+)") for place in (2, 3, 4, 5))
    numbers = {"random": lost(random), **mismatch, "worst": worst, "vocabulary": OPT_VOCABULARY}
    because = (
        "A 70B in W4A16 that lost {random:.2f} % had been calibrated on random tokens, which represent nothing. "
        "OPT-6.7B at 3 bits is another matter: calibration on another domain raised its perplexity by {gptq_low:.0f} "
        "to {gptq_high:.0f} % with GPTQ and by {awq_low:.0f} to {awq_high:.0f} % with AWQ, to {worst:.0f} at worst. "
        "But who guesses at random among the tokens of OPT has a perplexity of {vocabulary:,}."
    )
    critical = (loss > given.noise_percent for loss in (numbers["random"], *mismatch.values()))
    return Evidence(over(*critical, worst >= OPT_VOCABULARY), because, numbers, "cited", (random, "awq-calib"))


OPT_VOCABULARY = 50_272  # tokens, by the config.json of facebook/opt-6.7b


@claim(
    "C088",
    sources=("003:15",),
    says="There is one data set of text called C4 Wikipedia.",
    verdict="false",
    instead="Say which data set it was.",
)
def c088(given: Assumptions) -> Evidence:
    because = "They are two: C4 is filtered Common Crawl, WikiText is articles of Wikipedia."
    references = ("Raffel et al. 2020, arXiv 1910.10683 (C4)", "Merity et al. 2016, arXiv 1609.07843 (WikiText)")
    return Evidence("false", because, {}, "cited", references=references)


@claim(
    "C089",
    sources=("001:53",),
    says="Where accuracy must not suffer, as in finance and health, take 8 bits.",
    verdict="conditional",
    instead="The number of bits does not decide: INT4 has lost less than one INT8, and more than FP8. Evaluate on the "
    "domain, and count answers that flip.",
)
def c089(given: Assumptions) -> Evidence:
    named = {"fp8": "fp8", "int8": "int8sq", "int4": "awq"}
    cites = tuple(f"trtllm-mmlu-{method}-Llama-2-70B" for method in named.values())
    numbers = dict(zip(named, map(lost, cites), strict=True))
    because = (
        "Llama-2-70B loses {fp8:.2f} % of MMLU in FP8, {int4:.2f} % in INT4 (AWQ) and {int8:.2f} % in INT8 "
        "(SmoothQuant). No evaluation in finance or health was found."
    )
    cases = (numbers[eight] < numbers["int4"] for eight in ("fp8", "int8"))
    return Evidence(over(*cases), because, numbers, "cited", cites)


@claim(
    "C090",
    sources=("004:15", "004:21"),
    says="INT4 is for classification, retrieval and short summaries, and its losses vary more than those of INT8.",
    verdict="conditional",
    instead="In {worse} of {pairs} pairs INT4 lost more, by method and model. Look at the worst tasks of your own "
    "workload.",
)
def c090(given: Assumptions) -> Evidence:
    tasks = ("MMLU", "C-Eval", "GSM8K", "HumanEval")
    pairs = [tuple(f"qwen1-Qwen-{s}-Chat-{bits}-{t}" for bits in ("int8", "int4")) for s in QWEN for t in tasks]
    short, code, maths = "kurtic-70b-int4", pairs[7], pairs[14]
    numbers = {
        "pairs": len(pairs),
        "worse": sum(lost(four) > lost(eight) for eight, four in pairs),
        "short": lost(short),
        "long": said("mekala-8bit", r"4 bit up to (\d+) %"),
        "nf4": said("mekala-8bit", r"NF4 costs Llama-3.1-70B (\d+) %"),
        "maths_8": lost(maths[0]),
        "maths_4": lost(maths[1]),
        "code_8": lost(code[0]),
        "code_4": lost(code[1]),
    }
    because = (
        "A 70B in INT4 loses {short:.1f} % on short tasks. In a study of long contexts 4 bits lose up to {long:.0f} %, "
        "and Llama-3.1-70B in NF4 {nf4:.0f} % on one task. In {worse} of {pairs} pairs from one source INT4 lost more "
        "than INT8, such as {code_4:.1f} and {code_8:.1f} % of HumanEval (Qwen-7B); in others less, such as "
        "{maths_4:.1f} and {maths_8:.1f} % of GSM8K (Qwen-72B)."
    )
    cases = (lost(four) > lost(eight) for eight, four in pairs)
    return Evidence(over(*cases), because, numbers, "cited", (short, *code, *maths, "mekala-8bit"))
