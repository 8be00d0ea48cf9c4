"""Set 01 against what it is about: qlab.deploy, transformers, and the numbers in the text of its notebook."""

from __future__ import annotations

import inspect
import json
import math
from fractions import Fraction
from pathlib import Path
from random import Random

import pytest

from qlab.deploy import fits, gpu, gpus, memory, names, spec
from qlab.learn.judge import examine
from qlab.learn.questions import all_ids, question
from qlab.learn.questions.memory import weight_bytes as weight_bytes_module
from qlab.learn.questions.memory.configs import GEMMA_7B, TINY, drawn, published

MASTER = Path(__file__).parents[3] / "solutions" / "01_memory_math.ipynb"

parameters, weight_bytes, kv_bytes, batch_that_fits, cards_needed, card_share, cache_bytes = (
    question(f"memory.{name}").reference
    for name in (
        "parameters",
        "weight_bytes",
        "kv_bytes",
        "batch_that_fits",
        "cards_needed",
        "card_share",
        "popular_cache",
    )
)


def as_llama(config: dict) -> dict:
    """The config as `qlab.deploy` reads it."""
    return {"model_type": "llama", "max_position_embeddings": 10**6, **config}


def plain_llamas() -> list[str]:
    """Known models without biases, query and key norms, experts, latent attention or learned positions."""
    found = []
    for name in names():
        s = spec(name)
        odd = s.experts or s.latent or s.learned_positions or s.qkv_bias or s.qk_norm or not s.gated_mlp
        if not odd:
            found.append(name)
    return found


def small_configs() -> list[dict]:
    random = Random(3)
    return [
        drawn(random, heads, kv_heads, tied) for heads, kv_heads, tied in ((6, 2, False), (8, 1, True), (9, 9, True))
    ]


def test_parameters_are_those_of_deploy() -> None:
    assert len(plain_llamas()) >= 9
    for name in plain_llamas():
        assert parameters(published(name)) == spec(name).parameters, name
    for config in small_configs():
        assert parameters(config) == spec(as_llama(config)).parameters


def test_parameters_are_those_of_transformers() -> None:
    import torch
    from transformers import AutoModelForCausalLM, GemmaConfig, LlamaConfig

    gemma = GemmaConfig()
    assert {field: getattr(gemma, field) for field in GEMMA_7B} == GEMMA_7B
    for config in (LlamaConfig(**TINY), gemma):
        ours = {field: getattr(config, field) for field in GEMMA_7B}
        with torch.device("meta"):
            assert AutoModelForCausalLM.from_config(config).num_parameters() == parameters(ours)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("group_size", [16, 24, 128])
def test_weight_bytes_are_those_of_deploy(bits: int, group_size: int) -> None:
    for config in (published("Llama-3-8B"), *small_configs()):
        model = spec(as_llama(config))
        matrices = tuple((m.rows, m.columns, m.copies) for m in model.matrices())
        rest = model.parameters - model.linear_parameters
        expected = memory(model, f"int{bits}-g{group_size}").weights
        assert weight_bytes(matrices, bits, group_size, rest) == expected


def test_the_checkpoints_among_the_cases_are_those_of_deploy() -> None:
    for name in ("Llama-3-8B", "Llama-3-70B"):
        arguments = (*weight_bytes_module._checkpoint(name), 4, 128, weight_bytes_module._rest(name))
        assert weight_bytes(*arguments) == memory(name, "int4-g128").weights
        assert arguments in [case.args for case in question("memory.weight_bytes").cases(0)]


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_kv_bytes_are_those_of_deploy(bits: int) -> None:
    for config in (published("Llama-3-70B"), GEMMA_7B, *small_configs()):
        expected = memory(as_llama(config), batch=3, context=1001, kv_bits=bits).kv_cache
        assert kv_bytes(config, 3, 1001, bits) == expected


@pytest.mark.parametrize("precision", ["bf16", "int8", "int4-g128"])
@pytest.mark.parametrize("model", ["Llama-3-8B", "Llama-3-70B"])
def test_batch_and_single_cards_are_those_of_deploy(model: str, precision: str) -> None:
    found = memory(model, precision, batch=5, context=3000)
    for card in gpus().values():
        if card.memory_visible_gib is None:
            continue
        gib = card.memory_visible_gib
        fit = fits(found, card, utilization=0.9, overhead_gb=2.5)
        assert batch_that_fits(gib, found.weights, found.kv_per_token, 3000, 0.9, 2.5) == fit.batch
        assert (cards_needed(found.weights, found.kv_cache, 64, gib, 0.9, 2.5) == 1) == fit.fits


def test_the_shares_of_all_cards_are_the_whole_and_the_norms_again() -> None:
    for name in ("Llama-3-70B", "Llama-2-7B", "SmolLM2-135M"):
        config, whole = published(name), memory(name, "bf16", batch=1, context=4096).total
        norms = 2 * (2 * config["num_hidden_layers"] + 1) * config["hidden_size"]
        assert card_share(config, 1, 4096) == whole
        cards = 3 if name.startswith("SmolLM2") else 8
        assert config["vocab_size"] % cards == 0
        assert cards * card_share(config, cards, 4096) == whole + (cards - 1) * norms


def test_twice_the_cards_do_not_shrink_a_cache_of_single_heads() -> None:
    config = published("Llama-3-70B")
    at_8, at_16 = (card_share(config, cards, 10_000) - card_share(config, cards, 0) for cards in (8, 16))
    assert at_8 == at_16 == memory("Llama-3-70B", batch=1, context=10_000, extended=True).kv_cache // 8


def test_cache_bytes_reads_configs_as_deploy_does() -> None:
    for case in question("memory.popular_cache").cases(1):
        config, tokens = case.args
        whole = as_llama({"intermediate_size": 20, "vocab_size": 50, **config})  # the card's example has no such fields
        assert cache_bytes(config, tokens) == memory(whole, batch=1, context=tokens, extended=True).kv_cache, case.name


def batch_in_gib(card_gib, weights, kv_per_token, context, utilization, overhead_gb):
    left = card_gib * utilization - weights / 2**30 - overhead_gb * 1e9 / 2**30
    return max(0, int(left // (kv_per_token * context / 2**30)))


def batch_in_gb(card_gib, weights, kv_per_token, context, utilization, overhead_gb):
    left = card_gib * 1.073741824 * utilization - weights / 1e9 - overhead_gb
    return max(0, math.floor(left / (kv_per_token * context / 1e9)))


def batch_step_by_step(card_gib, weights, kv_per_token, context, utilization, overhead_gb):
    left = utilization * (card_gib * 1024**3) - (overhead_gb * 10**9 + weights)
    return max(0, int(left / kv_per_token / context))


def cards_in_gib(weights, cache, attention_heads, card_gib, utilization, overhead_gb):
    usable = card_gib * utilization - overhead_gb * 1e9 / 2**30
    need = (weights + cache) / 2**30
    return next((n for n in (1, 2, 4, 8) if attention_heads % n == 0 and n * usable >= need), 0)


def cards_in_gb(weights, cache, attention_heads, card_gib, utilization, overhead_gb):
    whole = card_gib * 1.073741824 * utilization
    fits = (n for n in (1, 2, 4, 8) if weights / 1e9 / n + cache / 1e9 / n + overhead_gb <= whole)
    return next((n for n in fits if attention_heads % n == 0), 0)


def cards_all_together(weights, cache, attention_heads, card_gib, utilization, overhead_gb):
    for n in (1, 2, 4, 8):
        if (
            n * card_gib * 1024**3 * utilization - n * overhead_gb * 10**9 - cache >= weights
            and attention_heads % n == 0
        ):
            return n
    return 0


def test_nothing_fits_by_a_hair() -> None:
    """Between floats and exact fractions, and in any unit, no case may fall to the other side."""
    others = {
        "memory.batch_that_fits": (batch_in_gib, batch_in_gb, batch_step_by_step),
        "memory.cards_needed": (cards_in_gib, cards_in_gb, cards_all_together),
    }
    for question_id, answers in others.items():
        asked = question(question_id)
        for seed in range(60):
            for answer in (asked.reference, *asked.alternatives, *answers):
                verdict = examine(asked, answer, seed)
                assert verdict.passed, f"{answer.__name__}, seed {seed}: {verdict}"


@pytest.mark.parametrize("seed", range(20))
def test_what_fits_exactly_leaves_nothing(seed: int) -> None:
    [full] = [
        c for c in question("memory.batch_that_fits").cases(seed) if c.name == "the last request fits to the byte"
    ]
    card_gib, weights, kv_per_token, context, utilization, overhead_gb = full.args
    left = Fraction(card_gib) * 2**30 * Fraction(utilization) - weights - overhead_gb * 10**9
    assert left == batch_that_fits(*full.args) * kv_per_token * context > 0
    [full] = [c for c in question("memory.cards_needed").cases(seed) if "to the byte" in c.name]
    weights, cache, _heads, card_gib, utilization, overhead_gb = full.args
    usable = Fraction(card_gib) * 2**30 * Fraction(utilization) - overhead_gb * 10**9
    assert 2 * usable == weights + cache and cards_needed(*full.args) == 2
    assert min(weights, cache) > 0


@pytest.mark.parametrize("seed", range(20))
def test_the_vocabulary_leaves_more_than_one_row_over(seed: int) -> None:
    """With one row left over, a first card that takes all of them is right by chance."""
    over = [c.args[0]["vocab_size"] % c.args[1] for c in question("memory.card_share").cases(seed)]
    assert sum(rows > 1 for rows in over) >= 3 and over.count(0) >= 3


def test_a_negative_batch_is_told_as_such_whatever_its_rounding() -> None:
    asked = question("memory.batch_that_fits")

    def rounded(card_gib, weights, kv_per_token, context, utilization, overhead_gb):
        return round((card_gib * 2**30 * utilization - weights - overhead_gb * 1e9) / (kv_per_token * context))

    verdict = examine(asked, rounded, 0)
    assert verdict.case == "the weights do not fit" and verdict.broken == "not_a_negative_number"
    assert verdict.finding is not None and verdict.finding.got == "-48 requests"


def test_no_drawn_head_size_is_a_popular_one_by_chance() -> None:
    for seed in range(300):
        [old] = [
            c for c in question("memory.popular_cache").cases(seed) if c.name == "an older config without head_dim"
        ]
        config = old.args[0]
        assert "head_dim" not in config
        for heads in (config["num_attention_heads"], config["num_key_value_heads"]):
            assert config["hidden_size"] / heads != 128


@pytest.mark.parametrize("name", [name for name in all_ids() if name.startswith("memory.")])
def test_the_first_case_is_the_example_of_the_card(name: str) -> None:
    """Who fails can work it out by hand."""
    asked = question(name)
    examples = [case for case in asked.cases(7) if case.name.startswith("the example of the card")]
    assert examples and examples == asked.cases(8)[: len(examples)]
    for case in examples:
        answer = f"{asked.reference(*case.args):,}"
        wanted = f"**{answer}**" if name == "memory.cards_needed" else answer
        assert wanted in cell(f"{asked.grade_id}-card"), (case.name, wanted)


@pytest.mark.parametrize("name", [name for name in all_ids() if name.startswith("memory.")])
def test_what_learners_start_from_is_narrow(name: str) -> None:
    """JupyterLab cuts longer lines off."""
    lines = inspect.getsource(question(name).reference).splitlines()
    assert max(map(len, lines)) <= 100
    assert max(map(len, (question(name).reference.__doc__ or "").splitlines())) <= 92


@pytest.mark.parametrize("name", ["parameters", "card_share", "weight_bytes"])
def test_a_mistake_in_floats_is_the_same_mistake(name: str) -> None:
    """Who divides by 8 gets floats."""
    asked = question(f"memory.{name}")
    for mutant in asked.mutants:
        verdict = examine(asked, lambda *arguments, wrong=mutant.answer: float(wrong(*arguments)), 0)
        assert verdict.mutant == mutant.name


def cell(cell_id: str) -> str:
    [found] = [each for each in json.loads(MASTER.read_text(encoding="utf-8"))["cells"] if each["id"] == cell_id]
    return "".join(found["source"])


def test_the_cards_compute_by_hand_what_the_references_compute() -> None:
    by_hand = {
        "memory-parameters-card": [parameters(TINY), parameters({**TINY, "tie_word_embeddings": False})],
        "memory-weight_bytes-card": [weight_bytes(((10, 42, 2),), 3, 16, 100)],
        "memory-kv_bytes-card": [
            kv_bytes({"num_hidden_layers": 3, "num_key_value_heads": 2, "head_dim": 5}, 4, 7, bits)
            for bits in (16, 8, 4)
        ],
        "memory-batch_that_fits-card": [batch_that_fits(10, 5_000_000_000, 100_000, 2000, 0.9, 1)],
        "memory-card_share-card": [card_share(TINY, 4, 10), card_share(TINY, 1, 10) // 4],
        "memory-popular_cache-card": [
            cache_bytes(config, 10)
            for config in (
                {
                    "num_hidden_layers": 2,
                    "hidden_size": 12,
                    "num_attention_heads": 3,
                    "num_key_value_heads": 1,
                    "head_dim": 5,
                },
                {"num_hidden_layers": 2, "hidden_size": 12, "num_attention_heads": 3},
            )
        ],
    }
    for cell_id, numbers in by_hand.items():
        for number in numbers:
            assert f"{number:,}" in cell(cell_id), (cell_id, number)
    assert f"{40 * 2**30 * 0.9 - 2e9:,.0f} bytes" in cell("memory-cards_needed-card")
    needed = [cards_needed(60 * 10**9, 70 * 10**9, heads, 40, 0.9, 2) for heads in (32, 14)]
    assert (
        needed == [4, 0] and "**4**" in cell("memory-cards_needed-card") and "**0**" in cell("memory-cards_needed-card")
    )
    assert f"Llama-3-8B is {memory('Llama-3-8B', 'int4-g128').weights / 1e9:.2f} GB" in cell("memory-weight_bytes-card")
    assert batch_that_fits(10e9 / 2**30, 5_000_000_000, 100_000, 2000, 0.9, 1) == 15


def test_the_configs_on_the_last_card_are_those_of_the_models() -> None:
    fields = ("hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim")
    models = {name: published(name) for name in ("Llama-3.1-70B", "Llama-2-7B", "Qwen3-32B")} | {"Gemma-7B": GEMMA_7B}
    for name, config in models.items():
        assert f"| {name} | {' | '.join(str(config[field]) for field in fields)} |" in cell("memory-popular_cache-card")


def test_the_buggy_cell_is_absurd_and_its_card_says_how_much(capsys: pytest.CaptureFixture[str]) -> None:
    space: dict = {}
    exec(cell("memory-popular_cache-bug"), space)
    assert "343.6 GB" in capsys.readouterr().out
    assert space["absurd"] > 4 * gpu("A100-80GB").visible_bytes  # "more than four cards of 80 GB"
    assert space["absurd"] == 8 * cache_bytes(space["llama_3_1_70b"], 131_072)


def test_the_mark_scheme_is_computed() -> None:
    scheme = cell("memory-defend").partition("### BEGIN MARK SCHEME")[2]
    cards = ("A100-80GB", "H200")
    usable = {name: gpu(name).visible_bytes * 0.92 - 1.5e9 for name in cards}
    for name in cards:
        assert f"{usable[name] / 1e9:.1f} GB ({name})" in scheme
    for precision, kv_bits in (("bf16", 16), ("int8", 16), ("int4-g128", 16), ("int8", 8), ("int4-g128", 8)):
        found = memory("Llama-3.1-70B", precision, batch=64, context=8192, kv_bits=kv_bits)
        assert f"{found.weights / 1e9:.1f} |" in scheme and f"{found.kv_cache / 1e9:.1f} |" in scheme
        needed = [
            cards_needed(found.weights, found.kv_cache, 64, gpu(name).memory_visible_gib, 0.92, 1.5) for name in cards
        ]
        assert f"| {precision} | {kv_bits} bits | {needed[0]} | {needed[1]} |" in scheme
    full, eight, four = (
        memory("Llama-3.1-70B", precision, batch=64, context=8192, kv_bits=bits).total
        for precision, bits in (("bf16", 16), ("int8", 16), ("int4-g128", 8))
    )
    assert f"{full / 1e9:.1f} GB are needed and {4 * usable['A100-80GB'] / 1e9:.1f} GB are there" in scheme
    assert f"two H200s ({(2 * usable['H200'] - eight) / 1e9:.1f} GB left)" in scheme
    assert f"four A100s ({(4 * usable['A100-80GB'] - eight) / 1e9:.1f} GB left)" in scheme
    assert f"one H200 fit with {(usable['H200'] - four) / 1e9:.1f} GB left" in scheme


def test_the_explanations_state_computed_numbers() -> None:
    large = memory("Llama-3-70B", "int4-g128")
    said = question("memory.weight_bytes").explanation
    codes = large.linears - large.scale_overhead
    rest = large.weights - large.linears
    for number in (large.scale_overhead, rest, codes, large.weights):
        assert f"{number / 1e9:.1f} GB" in said
    said = question("memory.kv_bytes").explanation
    for name in ("Llama-2-7B", "Llama-3-70B"):
        assert f"{memory(name).kv_per_token:,}" in said
    fit = fits("Llama-3-70B", "A100-80GB", precision="int8")
    said = question("memory.batch_that_fits").explanation
    visible = f"{fit.gpu.visible_bytes / 2**30:.2f} GiB * 0.92 - {fit.overhead / 1e9:.1f} GB"
    assert f"{visible} - {fit.breakdown.weights / 1e9:.1f} GB = {fit.budget / 1e9:.1f} GB" in said
    assert fit.budget < fit.gpu.visible_bytes * (1 - 1e9 / 2**30)
    said = question("memory.cards_needed").explanation
    need = memory("Llama-3-70B", "bf16", batch=64, context=8192).total
    offer = 4 * (gpu("A100-80GB").visible_bytes * 0.92 - 1.5e9)
    assert f"needs {need / 1e9:.1f} GB" in said and f"{offer / 1e9:.1f} GB" in said and need > offer
