"""The ledger as a whole: all claims are there, each yields the verdict that is on record, and data can flip it."""

from __future__ import annotations

import ast
import inspect
import json
import math
import os
import re
import subprocess
import sys
import textwrap
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from qlab import cli
from qlab.deploy import names, results, spec
from qlab.deploy.claims import CONTRADICTIONS, VERDICTS, Assumptions, Claim, Evidence, claim, claims, flips
from qlab.deploy.claims.assumptions import LARGEST, SMALLEST
from qlab.deploy.claims.ledger import NONE_FOUND, as_verdict, change, find, more, over, register, room, said, value
from qlab.deploy.claims.ledger import claim as enter
from qlab.deploy.kv import KV_BITS

IDS = [f"C{number:03}" for number in range(1, 127)]
SECTIONS = {"sizes", "capacity", "support", "speed", "accuracy", "methods", "cost", "practice"}


def test_all_claims_are_there_and_no_others() -> None:
    assert list(register()) == IDS
    assert {one.section for one in register().values()} == SECTIONS


@pytest.mark.parametrize("id", IDS)
def test_each_claim_yields_the_verdict_on_record(id: str) -> None:
    one = claim(id)
    assert one.verdict == one.claim.verdict, one.because
    assert one.verdict in VERDICTS and one.evidence.by in ("computed", "cited")
    assert one.claim.sources and one.claim.function.__name__ == id.lower()
    assert one.instead is not None
    for sentence in (one.claim.says, one.because, one.instead):
        assert sentence.endswith((".", "?")) and not set(sentence) & set("{}"), sentence
        assert "  " not in sentence and "nan" not in sentence.split() and "inf" not in sentence.split()
    assert len(one.claim.says) <= 140
    for row in one.evidence.cites:
        assert results.result(row).source
    for name, number in one.evidence.numbers.items():
        assert isinstance(number, str) or math.isfinite(number), name
    json.dumps(one.to_dict())
    assert id in str(one) and one.because in str(one)


@pytest.mark.parametrize("id", IDS)
def test_only_sources_decide_without_a_condition(id: str) -> None:
    """A verdict that is written down, and follows from nothing, must say that a source decided it."""
    function = find(id).function
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Evidence" and call.args:
            fixed = isinstance(call.args[0], ast.Constant)
            assert not fixed or function(Assumptions()).by == "cited"


def test_one_claim_and_its_texts() -> None:
    one = claim("c021")
    assert one.id == claim("21").id == claim(" C21 ").id == "C021" and one.claim.section == "capacity"
    assert "text 1, line 49" in str(one)
    assert "12,302 tokens" in one.because and "1,537 each" in str(one.instead)
    told = one.to_dict()
    assert told["verdict"] == told["verdict_on_record"] == "conditional"
    assert told["function"] == "qlab.deploy.claims.capacity.c021"
    assert told["cites"][0]["source"].startswith("mit-han-lab/qserve")
    for unknown in ("C999", "", "0", "twenty-one", "C0021"):
        with pytest.raises(ValueError, match=f"claim: got '{unknown}'; give C001 to C126, such as C021"):
            claim(unknown)


@pytest.mark.parametrize(
    ("changes", "id", "verdict"),
    [
        (["kv_bits=8"], "C020", "false"),  # room for more than the four requests at any length
        (["gpu_memory_utilization=1", "kv_bits=8"], "C021", "true"),
        (["gpu_memory_utilization=0.85"], "C022", "false"),
        (["model=Qwen-72B"], "C023", "false"),  # multi-head attention: a token takes eight times as much
        (["group_size=32"], "C031", "false"),  # 69.7 per cent
        (["tolerance=0.1"], "C006", "false"),  # 1.84 counts as half, and the claim denies that
        (["kv_bits=2"], "C009", "false"),
        (["requests_per_day=1e9"], "C122", "true"),
        (["fleet_gpus=8"], "C122", "conditional"),
        (["context=200000"], "C033", "true"),
    ],
)
def test_assumptions_flip_verdicts(changes: list[str], id: str, verdict: str) -> None:
    given = Assumptions().set(*changes)
    assert claim(id, given).verdict == verdict != claim(id).verdict
    assert id in [one.id for one in flips(given)]
    assert f"on record: {claim(id).verdict}" in str(claim(id, given))


def test_no_sentence_for_another_verdict() -> None:
    """What was written for the verdict on record is never filled with the numbers of another one."""
    given = Assumptions(overhead_gb=4)
    one = claim("C021", given)
    assert one.verdict == "false" and one.instead is None and one.to_dict()["instead"] is None
    assert f"Under the assumptions on record, say instead: {claim('C021').instead}" in str(one)
    assert "4,673 tokens" in one.because and "4,673" not in str(one).partition("say instead")[2]
    same = claim("C022", given)
    assert same.verdict == claim("C022").verdict and f"Say instead: {same.instead}" in str(same)


def test_nothing_flips_by_itself() -> None:
    assert flips(Assumptions()) == []


def test_published_rows_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {row.id: row for row in results.results()}
    eight = "qserve-A100-80GB-Llama-2-70B-TRT-LLM W8A8"
    monkeypatch.setattr(results, "_rows", lambda: rows | {eight: replace(rows[eight], value=23.5)})
    assert claim("C121").verdict == "false" and "40.55 USD in W8A8" in claim("C121").because
    assert "say instead" not in str(claim("C121")).lower()  # no sentence was written for data like these
    slow = {id: replace(row, value=row.value and 1.0) for id, row in rows.items() if "TRT-LLM W8A8" in id}
    monkeypatch.setattr(results, "_rows", lambda: rows | slow)
    assert claim("C124").verdict == "conditional"


def test_the_user_s_data_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(
        "instances:\n  p3.8xlarge: {gpu: V100-32GB, source: a wish, date: 2026}\n"
        "  p5.4xlarge: {price_usd_per_hour: 34.2, price_date: 2026-11-02, source: a bill, date: 2026}\n"
    )
    monkeypatch.setenv("QLAB_DATA", str(file))
    assert {one.id: one.verdict for one in flips(Assumptions()) if one.claim.section in ("capacity", "cost")} == {
        "C011": "true",
        "C017": "true",
        "C026": "conditional",
        "C119": "conditional",
    }


def _values(name: str, default: object, low: float, high: float) -> st.SearchStrategy[Any]:
    if name == "model":
        return st.sampled_from([name for name in names() if SMALLEST <= spec(name).parameters <= LARGEST])
    if name == "kv_bits":
        return st.sampled_from(KV_BITS)
    kind = st.integers if isinstance(default, int) else st.floats
    return kind(low, min(high, 10_000_000))


@settings(max_examples=10, deadline=None)
@for_all(
    st.builds(
        Assumptions,
        **{
            one.name: _values(one.name, one.default, one.metadata["low"], one.metadata["high"])
            for one in fields(Assumptions)
        },
    )
)
def test_any_assumptions_give_verdicts_and_sentences(given: Assumptions) -> None:
    for one in claims(given):
        assert one.verdict in VERDICTS
        assert one.because and bool(one.instead) != one.flipped
        for sentence in (one.because, one.instead or ""):
            assert not re.search(r"(?<!\w)-\d[\d,.]* (GB|USD|tokens|ms)", sentence), sentence  # but "missing", "later"


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ("kvbits=8", ValueError, "set: no assumption 'kvbits'; did you mean kv_bits?"),
        ("kv_bits", ValueError, "set: got 'kv_bits'; give NAME=VALUE"),
        ("kv_bits=x", TypeError, "kv_bits: got 'x'; give a whole number"),
        ("kv_bits=8.5", TypeError, "kv_bits: got '8.5'; give a whole number"),
        ("kv_bits=3", ValueError, "kv_bits: got 3; choose from 2, 4, 8, 16, 32"),
        ("kv_bits=64", ValueError, "kv_bits: got 64; choose from 2, 4, 8, 16, 32"),
        ("gpu_memory_utilization=1.2", ValueError, "gpu_memory_utilization: got 1.2; give 0.1 to 1"),
        ("overhead_gb=nan", ValueError, "overhead_gb: got nan; give 0 to 100"),
        ("requests_per_day=inf", ValueError, "requests_per_day: got inf; give 1 or more"),
        ("context=0", ValueError, "context: got 0; give 1 or more"),
        ("model=GPT-2", ValueError, "model: got 'GPT-2'; the claims speak of a 70B, so choose from Llama-2-70B"),
    ],
)
def test_assumptions_that_are_refused(change: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error) as caught:
        Assumptions().set(change)
    assert says in str(caught.value)


def test_assumptions_of_the_wrong_kind() -> None:
    wrong: list[dict[str, Any]] = [{"context": 4096.0}, {"context": True}, {"tolerance": "0.1"}]
    for values in wrong:
        with pytest.raises(TypeError, match="give a (whole )?number"):
            Assumptions(**values)
    with pytest.raises(ValueError, match="model: got 70"):
        Assumptions(model=70)  # type: ignore[arg-type]
    assert Assumptions().set(" model = llama-2-70b ").gb("int8") == Assumptions(model="Llama-2-70B").gb("int8")


def test_assumptions_say_what_they_mean() -> None:
    told = Assumptions().to_dict()
    assert set(told) == {one.name for one in fields(Assumptions)}
    assert all(one["unit"] and one["meaning"] for one in told.values())
    assert "requests_per_day=5000000 " in str(Assumptions())


def _judge(given: Assumptions) -> Evidence:
    return Evidence("true", "", {})


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"id": "C021"}, "claim: C021 is taken by c021"),
        ({"sources": ("somewhere",)}, "sources: C900 has somewhere; give text and line, such as '001:49'"),
        ({"sources": ("005:1",)}, "sources: C900 has 005:1"),
        ({"sources": ()}, "sources: C900 has none"),
        ({"verdict": "maybe"}, "verdict: got 'maybe'; choose from true"),
    ],
)
def test_claims_that_are_refused(values: dict[str, Any], says: str) -> None:
    entry = {"id": "C900", "sources": ("001:1",), "says": "x", "verdict": "true", "instead": "y"} | values
    with pytest.raises(ValueError) as caught:
        enter(entry.pop("id"), **entry)(_judge)
    assert says in str(caught.value)
    assert "C900" not in register() and find("C021").function is not _judge


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"verdict": "maybe"}, "verdict: got 'maybe'; choose from true, conditional"),
        ({"by": "guessed"}, "by: got 'guessed'; choose from computed, cited"),
        ({"by": "cited"}, "cites: got none for a verdict that sources decide"),
    ],
)
def test_evidence_that_is_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError) as caught:
        Evidence(**({"verdict": "true", "because": "", "numbers": {}} | values))
    assert says in str(caught.value)
    assert Evidence("contested", "", {}, "cited", references=(NONE_FOUND,)).by == "cited"


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("true", "true"),
        ("False", "false"),
        ("CONTESTED", "contested"),
        (" conditional ", "conditional"),
        ("true only if", "conditional"),
        ("True only if …", "conditional"),
        ("true_only_if", "conditional"),
        (True, "true"),
    ],
)
def test_verdicts_as_people_write_them(text: object, verdict: str) -> None:
    assert as_verdict(text) == verdict


def test_a_claim_of_one_s_own_has_a_verdict() -> None:
    assert Claim("mine", "own", (), "x", "True only if", "y", _judge).verdict == "conditional"  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="verdict: got 'maybe'; choose from true, conditional, false, contested"):
        Claim("mine", "own", (), "x", "maybe", "y", _judge)  # type: ignore[arg-type]


def test_changes_in_words() -> None:
    assert (room(4.034, 2), room(-16.4)) == ("4.03 GB are left", "16.4 GB are missing")
    assert (more(0.07), more(-0.554)) == ("7% more", "55% less")


def test_the_verdict_over_cases() -> None:
    assert over(True, True) == "true" and over(True, False) == "conditional" and over(False, False) == "false"


def test_numbers_of_published_rows() -> None:
    assert value("gptfast-int4-Llama-2-70B") == 25.25
    assert change("kurtic-70b-int4") == pytest.approx(-0.474, abs=0.001)
    assert said("gemma3-qat", r"about ([\d,]+) steps") == 5000
    assert said("kurtic-speed-int8", r"speedup ([\d.]+)") == 1.87  # it stands in the note
    for broken, says in (
        (lambda: value("l32-qat-cost"), "l32-qat-cost has the value \\(1300"),
        (lambda: value("kivi"), "kivi has the value None"),
        (lambda: change("gptfast-int4-Llama-2-70B"), "has no baseline"),
        (lambda: said("kivi", r"(\d+) steps"), "nothing in it is like"),
    ):
        with pytest.raises(ValueError, match=says):
            broken()


@pytest.mark.parametrize("one", CONTRADICTIONS, ids=lambda one: one.topic)
def test_contradictions_are_settled_by_numbers(one: Any) -> None:
    places = {source for id in one.claims for source in find(id).sources}
    assert places & {source for side in one.sides for source in side.sources}  # the claims are made where a side is
    assert "{" in one.resolution and not set(one.settled()) & set("{}") and one.settled().endswith(".")
    assert one.settled() in str(one)
    assert [side["says"] for side in one.to_dict()["sides"]] == [side.says for side in one.sides]
    for side in one.sides:
        assert all(source.startswith(("000:", "001:", "002:", "003:", "004:")) for source in side.sources)


def test_contradictions_follow_the_assumptions() -> None:
    size = next(one for one in CONTRADICTIONS if one.topic == "embeddings")
    assert "39.5 GB" in size.settled() and "42.7 GB" in size.settled(Assumptions(group_size=32))


def _run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["claims", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_command_lists_and_shows(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _run(capsys)
    assert code == 0 and out.count("\n") >= len(IDS)
    assert "C021  conditional  One A100" in out
    code, out, _ = _run(capsys, "--verdict", "true")
    assert code == 0 and "C001" in out and "C021" not in out
    code, out, _ = _run(capsys, "--id", "c021", "--id", "C001")
    assert code == 0 and out == f"{claim('C021')}\n\n{claim('C001')}\n"
    for same in (("C021", "C001"), ("21,1",), ("c21", "--id", "C001", "C021"), ("--id", "C021,C001", "--id", "C021")):
        assert _run(capsys, *same)[:2] == (0, out)
    assert str(Assumptions()) in _run(capsys, "--assumptions")[1]


def test_command_takes_verdicts_as_the_buttons_say_them(capsys: pytest.CaptureFixture[str]) -> None:
    listed = _run(capsys, "--verdict", "conditional")[1]
    assert "C021" in listed and _run(capsys, "--verdict", "True only if …")[1] == listed
    assert _run(capsys, "--verdict", "False")[1] == _run(capsys, "--verdict", "false")[1]


def test_command_says_when_a_claim_has_another_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(capsys, "C021", "--verdict", "true")[:2] == (0, "C021 is conditional, not true.\n")
    out = _run(capsys, "C021", "C001", "--verdict", "true")[1]
    assert out == f"{claim('C001')}\n\nC021 is conditional, not true.\n"


def test_command_shows_the_contradictions_of_a_claim(capsys: pytest.CaptureFixture[str]) -> None:
    wanted = [one for one in CONTRADICTIONS if "C004" in one.claims]
    assert _run(capsys, "C004", "--contradictions")[1] == "\n\n".join(map(str, wanted)) + "\n"
    assert _run(capsys, "C001", "--contradictions")[1] == "These claims settle no contradiction.\n"


def test_command_says_what_flips(capsys: pytest.CaptureFixture[str]) -> None:
    given = Assumptions(gpu_memory_utilization=0.95)
    code, out, _ = _run(capsys, "--set", "gpu_memory_utilization=0.95")
    said = "1 of 126 verdicts flip: C020 from conditional to false."
    others = "The others stay as they are on record; --all lists them.\n"
    assert code == 0 and out == f"{said}\n\n{claim('C020', given)}\n\n{others}"
    everything = _run(capsys, "--set", "gpu_memory_utilization=0.95", "--all")[1]
    assert everything.startswith(out.removesuffix(others)) and "\nC021  conditional  One A100" in everything
    assert _run(capsys, "--set", "context=4096")[1] == f"0 of 126 verdicts flip.\n\n{others}"
    assert _run(capsys, "C021", "--set", "context=4096")[1] == f"0 of 1 verdicts flip.\n\n{claim('C021')}\n"


def test_command_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _run(capsys, "--set", "kv_bits=8", "--json")
    document = json.loads(out)
    assert code == 0 and len(document["claims"]) == len(IDS)
    assert document["assumptions"]["kv_bits"]["value"] == 8 and "C020" in document["flips"]
    one = json.loads(_run(capsys, "--id", "C020", "--json")[1])
    assert [found["id"] for found in one["claims"]] == ["C020"] and one["flips"] == []
    assert json.loads(_run(capsys, "--assumptions", "--json")[1]) == Assumptions().to_dict()
    told = json.loads(_run(capsys, "--contradictions", "--json")[1])["contradictions"]
    assert [one["topic"] for one in told] == [one.topic for one in CONTRADICTIONS]
    assert str(CONTRADICTIONS[0]) in _run(capsys, "--contradictions")[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--id", "C999"], "claim: got 'C999'; give C001 to C126"),
        (["C021", ""], "claim: got ''; give C001 to C126"),
        (["--set", "kvbits=8"], "did you mean kv_bits?"),
        (["--verdict", "maybe"], "verdict: got 'maybe'; choose from true, conditional, false, contested"),
    ],
)
def test_command_refuses(capsys: pytest.CaptureFixture[str], arguments: list[str], says: str) -> None:
    code, out, err = _run(capsys, *arguments)
    assert code == 2 and out == "" and err.startswith("error: ") and says in err


def test_the_ledger_loads_nothing_heavy() -> None:
    code = "import sys, qlab.cli; assert qlab.cli.main(['claims', '--json']) == 0; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | {"QLAB_DATA": ""}
    )
    assert not {"torch", "numpy", "transformers", "simpy"} & set(done.stderr.split())
