"""Claims on speed: the reference's numbers, and what turns a verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from qlab.deploy import results
from qlab.deploy.claims import Assumptions, claim
from qlab.deploy.claims.rows import ends, faster, lost, rows, several
from qlab.deploy.claims.speed import bound, prompt_ms, token_ms


@pytest.mark.parametrize(
    ("id", "name", "printed"),
    [
        ("C048", "fused_low", "1.30"),
        ("C048", "fused_high", "1.56"),
        ("C048", "served_low", "0.96"),
        ("C048", "served_high", "4.78"),
        ("C048", "kurtic_low", "1.71"),
        ("C048", "weights_low", "0.65"),
        ("C048", "weights_high", "1.75"),
        ("C048", "llm_int8_low", "0.23"),
        ("C048", "llm_int8_high", "0.59"),
        ("C048", "bnb_low", "0.43"),
        ("C048", "bnb_high", "1.32"),
        ("C049", "int8", "1.97"),
        ("C049", "int4", "3.72"),
        ("C049", "served_8", "4.78"),
        ("C049", "served_4", "14.4"),
        ("C050", "qwen", "1.83"),
        ("C050", "gpt_fast", "1.88"),
        ("C050", "llama_cpp", "2.47"),
        ("C050", "tinychat", "2.67"),
        ("C050", "long", "0.91"),
        ("C050", "h200_8b", "0.75"),
        ("C050", "h200_70b", "1.03"),
        ("C050", "nf4_h100", "0.74"),
        ("C050", "nf4_t4", "0.44"),
        ("C051", "low", "0.44"),
        ("C052", "nf4_1", "12.0"),
        ("C052", "int8_1", "7.7"),
        ("C052", "nf4_8", "34.1"),
        ("C052", "int8_8", "60.9"),
        ("C052", "crossover", "77"),
        ("C053", "bf16", "68.2"),
        ("C053", "int8", "34.6"),
        ("C053", "int4", "18.3"),
        ("C054", "fused", "4.125"),
        ("C054", "unfused", "36"),
        ("C054", "ideal", "3.88"),
        ("C054", "marlin", "3.87"),
        ("C055", "w4a16", "449"),
        ("C055", "w8a8", "225"),
        ("C055", "one", "225"),
        ("C056", "llama_cpp", "1.75"),
        ("C056", "gpt_fast", "1.48"),
        ("C056", "vllm", "1.45"),
        ("C056", "long", "0.90"),
        ("C056", "transformers", "0.78"),
        ("C056", "torchao", "0.65"),
        ("C057", "bound_0k", "3.72"),
        ("C057", "bound_64k", "2.73"),
        ("C057", "bound_256k", "1.82"),
        ("C057", "kernel", "3.87"),
        ("C057", "low", "1.83"),
        ("C057", "high", "2.9"),
        ("C057", "marlin", "2.8"),
        ("C057", "per_gpu", "3.71"),
        ("C057", "served", "4.4"),
        ("C057", "opt", "3.24"),
        ("C058", "layers", "3.88"),
        ("C058", "whole", "3.72"),
        ("C059", "even_int4", "114133"),
        ("C059", "a100", "153"),
        ("C059", "h100", "295"),
        ("C059", "a100_int4", "39"),
        ("C059", "h100_int4", "76"),
        ("C059", "with_head", "41"),
        ("C060", "decode", "2.47"),
        ("C060", "prefill", "0.89"),
        ("C060", "torchao_prefill", "0.91"),
        ("C061", "fp8", "1.46"),
        ("C061", "int8", "1.56"),
        ("C061", "torch", "1.51"),
        ("C062", "fp8_1", "1.51"),
        ("C062", "int8_1", "1.47"),
        ("C062", "fp8_8", "1.40"),
        ("C062", "int8_8", "1.32"),
        ("C062", "mmlu_fp8", "0.87"),
        ("C062", "mmlu_int8", "2.75"),
        ("C062", "ppl_int8", "0.19"),
        ("C062", "ppl_fp8", "1.2"),
        ("C062", "tuned", "0.13"),
        ("C063", "kurtic_8", "2.4"),
        ("C063", "kurtic_4", "2.3"),
        ("C063", "large_8", "235"),
        ("C063", "large_4", "358"),
        ("C063", "small_8", "2334"),
        ("C063", "small_4", "1549"),
        ("C063", "gqa_8", "364"),
        ("C063", "mha_4", "148"),
        ("C066", "awq_low", "0.75"),
        ("C066", "awq_high", "3.71"),
        ("C066", "error_1", "0.017"),
        ("C066", "error_6144", "0.051"),
        ("C066", "error_14336", "0.08"),
        ("C066", "error_30720", "0.29"),
        ("C067", "one_8", "-0.49"),
        ("C067", "one_4", "-0.73"),
        ("C067", "many_8", "-0.43"),
        ("C067", "many_4", "-0.63"),
        ("C067", "cheap", "-0.73"),
        ("C067", "dear", "0.33"),
    ],
)
def test_numbers_of_the_reference(id: str, name: str, printed: str) -> None:
    digits = len(printed.partition(".")[2])
    assert f"{claim(id).evidence.numbers[name]:.{digits}f}" == printed


@pytest.mark.parametrize(
    "given",
    [
        Assumptions(),
        Assumptions(compute_reached=0.6, bandwidth_reached=0.8),
        Assumptions(prompt_tokens=120),
        Assumptions(prompt_tokens=1),
        Assumptions(group_size=64, output_tokens=200),
        Assumptions(group_size=1, prompt_tokens=100, output_tokens=3),  # 20 bits: each token costs 4 bits more than 8
        Assumptions(group_size=4, prompt_tokens=100, output_tokens=30),  # 8 bits: no token makes a difference
        Assumptions(group_size=4),
    ],
    ids=str.split("usual reached short tiny groups wide same-held same"),
)
def test_how_much_sooner_by_hand(given: Assumptions) -> None:
    """Prefill yields the first token; each further one is a step of decoding."""
    prompts = [prompt_ms(given, kind) for kind in ("fp16", "int8")]
    steps = [token_ms(given, precision) for precision in (given.int4, "int8")]
    four, eight = (
        [prompt + n * step for n in range(given.output_tokens)] for prompt, step in zip(prompts, steps, strict=True)
    )
    sooner = {n: a - b for n, (a, b) in enumerate(zip(four, eight, strict=True), 1)}
    held = [n for n, ms in sooner.items() if 20 <= ms <= 40]
    evidence = claim("C055", given).evidence
    wanted = "true" if len(held) == len(sooner) else "conditional" if held else "false"
    assert evidence.verdict == wanted
    said = str(evidence.numbers["held"])
    assert [int(word) for word in said.split() if word.isdigit()] == ([held[0], held[-1]] if held[1:] else held)
    assert float(evidence.numbers["last"]) == pytest.approx(sooner[given.output_tokens])
    behind = [n for n, ms in sooner.items() if ms < -1e-9]
    if behind and steps[1] > steps[0]:
        assert evidence.numbers["even"] == behind[0]


def test_where_4_bits_overtake_8() -> None:
    """Where both are even the reference has 14 and 18 tokens, and counts a step of decoding for the first one, too."""
    real = Assumptions(compute_reached=0.6, bandwidth_reached=0.8)
    assert claim("C055").evidence.numbers["even"] == 15
    assert claim("C055", real).evidence.numbers["even"] == 20
    assert "from 15 tokens on INT4 is" in str(claim("C055").instead)
    assert "INT4 never is" in str(claim("C055", Assumptions(group_size=4)).evidence.numbers["overtakes"])


def test_the_length_of_the_answer_decides() -> None:
    assert claim("C055", Assumptions(output_tokens=12)).verdict == "false"  # the claim holds at 13 tokens alone
    assert "572 ms later" in claim("C055").because and "sooner" not in claim("C055").because.partition("tokens ")[0]


def test_no_row_of_two_gpus_is_evidence_of_speed() -> None:
    cited = claim("C061").evidence.cites
    assert not [row for row in cited if "70B" in row] and "2.10" not in claim("C061").because


def test_the_paper_s_own_ratio_stands_beside_that_of_its_rounded_rates() -> None:
    assert "prints 1.87x" in claim("C048").because and "make 1.71x" in claim("C048").because


@pytest.mark.parametrize(
    ("changes", "id", "verdict"),
    [
        (["group_size=32"], "C058", "false"),
        (["tolerance=0.1"], "C058", "true"),
        (["group_size=1"], "C053", "true"),  # 20 bits are more than 16
        (["group_size=1"], "C054", "true"),
        (["context=200000"], "C059", "false"),
        (["prompt_tokens=1"], "C055", "false"),
    ],
)
def test_assumptions_flip_verdicts(changes: list[str], id: str, verdict: str) -> None:
    assert claim(id, Assumptions().set(*changes)).verdict == verdict != claim(id).verdict


@pytest.fixture
def change(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put other values into the published rows."""

    def put(**values: float) -> None:
        known = {row.id: row for row in results.results()}
        known |= {id: replace(known[id], value=value) for id, value in values.items()}
        monkeypatch.setattr(results, "_rows", lambda: known)

    return put


def test_published_rows_decide(change: Callable[..., None]) -> None:
    every = {row: float(results.result(row).baseline or 0) for row in rows(kind="speed", bits="W4A16")}
    up = {row: 3.5 * base if results.result(row).better == "higher" else base / 3.5 for row, base in every.items()}
    change(**up, **{"llamacpp-tg-Q4_K_M": 3.5 * 29.17, "gptq-175b": 230 / 3.5})
    assert {id: claim(id).verdict for id in ("C050", "C051", "C057")} == {
        "C050": "false",
        "C051": "false",
        "C057": "true",
    }


def test_without_its_counterexample_the_claim_on_decoding_holds(change: Callable[..., None]) -> None:
    assert claim("C060").verdict == "conditional"
    change(**{"ao-h100-dec-int8 weight-only": 1.2})
    assert claim("C060").verdict == "true"


def test_a_headline_that_nothing_reaches(change: Callable[..., None]) -> None:
    change(**dict.fromkeys((*rows(method="TRT-LLM W8A8"), *rows(method="QServe")), 1.0))
    assert claim("C049").verdict == "false"


def test_one_side_of_one_is_no_contest(change: Callable[..., None]) -> None:
    awq, int8 = rows(method="INT4 AWQ", metric="speedup"), rows(kind="speed", bits="W8A16")
    bnb = (row for row in rows(kind="speed", bits="W8A8") if row.startswith("bnb"))
    change(**dict.fromkeys(awq, 2.0), **dict.fromkeys((*int8, "llamacpp-tg-Q8_0", *bnb), 1e4))
    assert claim("C066").verdict == "conditional"  # the memory, by length of context
    assert claim("C067").verdict == "false"  # no cost is above the claim


def test_prefill_without_a_gain(change: Callable[..., None]) -> None:
    change(**{"sq-pt": 0.9})
    assert claim("C061").verdict == "conditional"


def test_the_bound_shrinks_with_the_cache() -> None:
    given = Assumptions()
    assert bound(given, "int4-g128") > bound(given, "int4-g128", 65_536) > bound(given, "int4-g128", 10**9) > 1


def test_times_as_fast() -> None:
    assert faster("gptq-175b") == pytest.approx(230 / 71) and faster("sq-pt") == 1.51
    assert faster("gptfast-int8-Llama-2-7B") == pytest.approx(155.58 / 104.9)
    with pytest.raises(ValueError, match="has no baseline"):
        faster("gptfast-int8-Llama-2-70B")


def test_what_was_lost() -> None:
    assert lost("modelopt-mmlu-loss-Llama-3.1-70B-Instruct-FP8") == 0.38  # a loss already
    assert lost("trtllm-mmlu-fp8-Llama-2-70B") == pytest.approx(100 * 0.6 / 69.1)  # a score
    assert lost("ao-ppl-nvfp4W4A4") == pytest.approx(100 * (8.4459 / 7.3315 - 1))  # a perplexity
    assert lost("qwen1-Qwen-14B-Chat-int8-HumanEval") < 0
    assert ends(("gptq-opt175b-3", "gptq-opt175b-4"), by=lost) == ("gptq-opt175b-4", "gptq-opt175b-3")


def test_rows_with_several_numbers() -> None:
    assert several("qserve-dequant") == (20, 90)
    with pytest.raises(ValueError, match="has the value 25.25"):
        several("gptfast-int4-Llama-2-70B")
    assert "gptfast-int8-Llama-2-70B" not in rows(method="int8 weight-only")  # there is nothing to compare it with
