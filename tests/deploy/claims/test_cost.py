"""Cost: the amounts that the reference arithmetic prints, and what moves them."""

from __future__ import annotations

from pathlib import Path

import pytest

from qlab.deploy.claims import Assumptions, claim


@pytest.mark.parametrize(
    ("id", "name", "printed"),
    [
        ("C026", "month", "5022"),
        ("C026", "earlier", "8972"),
        ("C026", "cards", "5.0"),
        ("C119", "month", "8935"),
        ("C119", "above", "0.34"),
        ("C119", "g5", "4141"),
        ("C119", "g6e", "7660"),
        ("C119", "p4d", "16029"),
        ("C119", "p4d_earlier", "23924"),
        ("C119", "p3_gb_hour", "0.191"),
        ("C119", "g6e_gb_hour", "0.055"),
        ("C120", "month", "2856"),
        ("C120", "instances", "14"),
        ("C120", "gpus", "56"),
        ("C121", "a100_w8a8", "4.06"),
        ("C121", "a100_w4a16", "2.66"),
        ("C121", "l40s_w4a8", "1.81"),
        ("C121", "l40s_w4a16", "4.34"),
        ("C121", "w4a16_share", "0.07"),
        ("C121", "w4a8_share", "-0.55"),  # printed as 2.2 times cheaper
        ("C122", "per_second", "57.9"),
        ("C122", "output", "2894"),
        ("C122", "floor_l40s_int8", "11"),
        ("C122", "floor_a100_int8", "13"),
        ("C122", "floor_h200_fp8", "4.1"),
        ("C122", "h200_short", "1.9"),  # printed as 2.0 there: 57.87 / (3,803 / 128) is 1.948
        ("C122", "h200_long", "16.8"),
        ("C122", "b200_long", "5.5"),
        ("C122", "h200_usd", "133"),
        ("C122", "b200_usd", "79"),
        ("C122", "by_output_h200", "6.5"),
        ("C124", "eight_7b_8", "2334"),
        ("C124", "eight_7b_4", "1549"),
        ("C124", "four_70b_8", "235"),
        ("C124", "four_70b_4", "358"),
        ("C124", "eight_yi_8", "364"),
        ("C124", "eight_yi_4", "313"),
        ("C124", "four_30b_8", "123"),
        ("C124", "four_30b_4", "148"),
        ("C125", "bf16", "2"),
        ("C125", "int8", "1"),
        ("C125", "int4", "1"),
        ("C125", "l40s", "1"),
        ("C126", "removed", "54"),
        ("C126", "steps", "5000"),
    ],
)
def test_numbers_of_the_reference(id: str, name: str, printed: str) -> None:
    assert round(float(claim(id).evidence.numbers[name]), len(printed.partition(".")[2])) == float(printed)


def test_prompts_and_software_move_the_floor_and_answers_do_not() -> None:
    usual = claim("C122").evidence.numbers
    long = claim("C122", Assumptions(prompt_tokens=2048)).evidence.numbers
    half = claim("C122", Assumptions(compute_reached=0.5)).evidence.numbers
    wordy = claim("C122", Assumptions(output_tokens=100)).evidence.numbers
    for changed in (long, half):
        assert changed["floor_h200_fp8"] == pytest.approx(2 * float(usual["floor_h200_fp8"]))
    assert wordy["floor_h200_fp8"] == usual["floor_h200_fp8"]
    assert wordy["output"] == pytest.approx(2 * float(usual["output"]))


def test_a_missing_price_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("instances:\n  p5.4xlarge: {price_usd_per_hour: null, price_date: null, source: x, date: 2026}\n")
    monkeypatch.setenv("QLAB_DATA", str(file))
    with pytest.raises(ValueError, match="price_usd_per_hour: p5.4xlarge has none; give one in the file"):
        claim("C026")


def test_a_claim_that_nobody_can_serve_is_no_question_of_price() -> None:
    """C120 is open because no load is named; where the model does not even fit, it is false."""
    assert claim("C120", Assumptions(gpu_memory_utilization=0.5)).verdict == "false"


def test_hardware_that_holds_nothing_counts_as_none() -> None:
    none = claim("C125", Assumptions(gpu_memory_utilization=0.1, overhead_gb=50))
    assert none.evidence.numbers["bf16"] == 0 and none.verdict == "false"
