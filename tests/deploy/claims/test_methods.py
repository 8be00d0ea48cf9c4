"""Claims on methods, people and process: the reference's numbers, and what turns a verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from qlab.deploy import results
from qlab.deploy.claims import Assumptions, claim
from qlab.deploy.claims.methods import weights


@pytest.mark.parametrize(
    ("id", "name", "printed"),
    [
        ("C091", "divisor", "1"),
        ("C092", "low", "0"),
        ("C092", "high", "255"),
        ("C093", "nf4", "20.7"),
        ("C093", "asymmetric", "20.8"),
        ("C093", "symmetric", "19.4"),
        ("C093", "qlora_nf4", "27.41"),
        ("C093", "qlora_int4", "34.34"),
        ("C100", "awq_7B", "5.60"),
        ("C100", "gptq_7B", "5.63"),
        ("C100", "awq_70B", "3.41"),
        ("C100", "gptq_70B", "3.43"),
        ("C100", "awq_v2", "27.40"),
        ("C100", "gptq_v1", "73.11"),
        ("C100", "gptq_he", "67.1"),
        ("C103", "IQ1_S", "1.56"),
        ("C103", "most", "8.5"),
        ("C104", "before", "5.12"),
        ("C104", "aqlm", "5.92"),
        ("C104", "quip", "6.19"),
        ("C104", "mmlu_before", "0.79"),
        ("C104", "mmlu", "0.75"),
        ("C105", "gain_small", "2.4"),  # printed as 41.2 - 38.9, with one seed
        ("C106", "gptq", "4"),
        ("C106", "spin_1b", "1.7"),
        ("C107", "qat", "1300"),
        ("C107", "usd", "8944"),
        ("C107", "usd_ptq", "11.70"),
        ("C107", "times", "765"),
        ("C107", "steps", "5000"),
        ("C109", "bf16", "44.4"),
        ("C109", "vanilla", "33.1"),
        ("C109", "spin", "40.6"),
        ("C109", "qat", "46.5"),
        ("C109", "w4a8", "1.2"),
        ("C109", "loss", "1.036"),
        ("C109", "loss_ptq", "3.321"),
        ("C109", "loss_qat", "1.294"),
        ("C110", "fp8_70B", "0.38"),
        ("C110", "fp8_8B", "1.50"),
        ("C111", "low", "33"),
        ("C111", "high", "67"),
        ("C111", "gemma", "54"),
        ("C112", "tuned", "5.68"),
        ("C112", "llama3", "13"),
        ("C112", "llama3_before", "2.9"),
        ("C113", "weights", "39.5"),
        ("C118", "large", "72.7"),
        ("C118", "narrow", "39.5"),
        ("C118", "small", "9.1"),
        ("C118", "tokens", "8727"),
    ],
)
def test_numbers_of_the_reference(id: str, name: str, printed: str) -> None:
    digits = len(printed.partition(".")[2])
    assert f"{claim(id).evidence.numbers[name]:.{digits}f}" == printed


def test_the_convention_decides() -> None:
    """The sentence of C091 with each meaning of "scale", by hand."""
    row = weights()
    top = max(map(abs, row))
    right = [round(w * 127 / top) * top / 127 for w in row]
    assert max(abs(a - b) for a, b in zip(right, row, strict=True)) <= top / 254 * (1 + 1e-9)
    assert {round(w * top / 127) for w in row} == {0}
    assert claim("C091").evidence.numbers["multiplier"] == len(set(right))


def test_zero_is_not_a_code_of_a_float_offset() -> None:
    zero = float(claim("C092").evidence.numbers["zero"])
    row = weights()
    assert 0 < abs(zero) <= (max(row) - min(row)) / 255 / 2


@pytest.fixture
def change(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put other values into the published rows."""

    def put(**values: float | tuple[float, ...]) -> None:
        known = {row.id: row for row in results.results()}
        known |= {id: replace(known[id], value=value) for id, value in values.items()}
        monkeypatch.setattr(results, "_rows", lambda: known)

    return put


def test_published_rows_decide(change: Callable[..., None]) -> None:
    change(**{"kurtic-8b-gptq-v1": 70.0, "kurtic-8b-gptq-ah": 20.0, "kurtic-8b-gptq-he": 60.0})
    assert claim("C100").verdict == "true"
    change(**{"l32-qat-cost": (13.0, 16.0, 1.7, 2.4)})
    assert claim("C107").verdict == "false"
    change(**{"nm-70b-w4a16": 70.0, "kurtic-70b-int4": 70.0})
    assert claim("C109").verdict == "true"  # the 70B was what did without
    change(**{"aqlm-ppl-Llama-2-7B AQLM+PV": 6.5})
    assert claim("C112").verdict == "conditional"


def test_a_scale_per_tensor_would_break_the_standard(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {row.id: row for row in results.results()}
    card = "nm-l3-8b-w8a16-v1"
    known |= {card: replace(known[card], method="GPTQ INT8 weight-only, symmetric per-tensor")}
    monkeypatch.setattr(results, "_rows", lambda: known)
    assert claim("C105").verdict == "conditional"


def test_a_budget_of_hours_is_read_off_the_examples() -> None:
    assert claim("C107").instead.startswith("It has taken from 2 GPU hours to 1,600")  # type: ignore[union-attr]


def test_qat_is_ahead_on_average_and_the_exception_is_named(change: Callable[..., None]) -> None:
    before = claim("C111")
    assert before.evidence.numbers["won"] == before.evidence.numbers["tasks"] - 1 == 12
    assert before.evidence.numbers["exceptions"] == "Llama-3.2-1B-IFEval"
    change(**{row.id: 1.0 for row in results.results(model="Llama-3.2-1B", method="QAT + LoRA")})
    assert claim("C111").verdict == "conditional"


def test_weight_only_is_read_off_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {row.id: row for row in results.results()}
    known |= {"llama3-gptq4": replace(known["llama3-gptq4"], bits="W4A8")}
    monkeypatch.setattr(results, "_rows", lambda: known)
    assert claim("C098").verdict == "false"


@pytest.mark.parametrize(
    ("changes", "id", "verdict"),
    [
        (["gpu_memory_utilization=0.5"], "C118", "false"),
        (["overhead_gb=10"], "C113", "false"),
        (["noise_percent=0.1"], "C109", "true"),
        (["noise_percent=0.1"], "C111", "conditional"),
        (["tolerance=0.17"], "C112", "conditional"),
    ],
)
def test_assumptions_flip_verdicts(changes: list[str], id: str, verdict: str) -> None:
    assert claim(id, Assumptions().set(*changes)).verdict == verdict != claim(id).verdict


def test_the_sizes_of_g4dn_that_hold_it() -> None:
    assert claim("C113").evidence.numbers["large"] == "g4dn.12xlarge and g4dn.metal"
    assert claim("C113", Assumptions(overhead_gb=7)).evidence.numbers["large"] == "g4dn.metal"
    assert claim("C113", Assumptions(overhead_gb=10)).evidence.numbers["large"] == "no size of it"
