"""nano, answer by answer: the answers are those of greedy decoding, their doubts true, and a killed run goes on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from qlab.models import measure_quality
from qlab.models.evaluate import evaluate
from qlab.models.load import NANO, load
from qlab.models.measure_quality import METHODS, OUT, SEED, Answer, answers, run
from qlab.models.quantize import quantize_model
from qlab.models.workloads import WORKLOADS, examples

SHIPPED = json.loads(OUT.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def broken() -> Any:
    """nano at INT3, which gets some answers wrong, and its tokenizer."""
    model, tokenizer = load()
    return quantize_model(model, bits=3, group_size="channel", progress=False), tokenizer


def test_verdicts_are_those_of_evaluate(broken: Any) -> None:
    """Decoded from padded prompts here, from one pass over the right answer there."""
    model, tokenizer = broken
    measured = evaluate(model, workloads=("sql", "trading"), texts={}, examples=40, progress=False)
    for workload in ("sql", "trading"):
        rows = examples(workload, 40)
        right = [a.text == e.answer + "<|end|>" for a, e in zip(answers(model, tokenizer, rows), rows, strict=True)]
        assert 0 < sum(right) < 40
        assert sum(right) / 40 == pytest.approx(measured.accuracy[workload].value)


def test_doubt_is_minus_the_logarithm_of_the_probability_of_the_answer(broken: Any) -> None:
    model, tokenizer = broken
    rows = examples("trading", 20)
    for example, found in list(zip(rows, answers(model, tokenizer, rows), strict=True))[::5]:
        prompt = tokenizer(example.prompt)["input_ids"]
        said = tokenizer(found.text, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            logs = model(torch.tensor([prompt + said])).logits[0].log_softmax(-1)
        positions = range(len(prompt) - 1, len(prompt) + len(said) - 1)
        expected = -sum(logs[i, token].item() for i, token in zip(positions, said, strict=True))
        assert found.doubt == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_order_of_the_answers_is_that_of_the_examples(broken: Any) -> None:
    rows = examples("recall", 8)
    alone = [answers(*broken, [row])[0].text for row in rows]
    assert [answer.text for answer in answers(*broken, rows)] == alone


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two cheap methods and one workload; the list has the names of those that were measured."""
    measured: list[str] = []
    real = measure_quality.measure

    def counting(name: str, *rest: Any) -> Any:
        measured.append(name)
        return real(name, *rest)

    monkeypatch.setattr(measure_quality, "measure", counting)
    monkeypatch.setattr(measure_quality, "WORKLOADS", {"arithmetic": WORKLOADS["arithmetic"]})
    monkeypatch.setattr(measure_quality, "TOKENS", 600)
    return measured


def test_a_killed_run_goes_on_and_ends_with_the_same_file(
    tmp_path: Path, quick: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = ("INT4 g128", "16-bit")
    run(tmp_path / "whole.json", 6, methods, progress=False)
    assert quick == ["16-bit", "INT4 g128"], "the reference comes first, the others are compared with it"

    counting = measure_quality.measure

    def killed(name: str, *rest: Any) -> Any:
        if name == "INT4 g128":
            raise KeyboardInterrupt
        return counting(name, *rest)

    quick.clear()
    monkeypatch.setattr(measure_quality, "measure", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut.json", 6, methods, progress=False)
    assert not (tmp_path / "cut.json").exists()
    monkeypatch.setattr(measure_quality, "measure", counting)
    with pytest.raises(ValueError, match="out: .* is of a run with other settings"):
        run(tmp_path / "cut.json", 7, methods, progress=False)
    run(tmp_path / "cut.json", 6, methods, progress=False)
    assert quick == ["16-bit", "INT4 g128"], "nothing is measured twice"
    assert (tmp_path / "cut.json").read_text() == (tmp_path / "whole.json").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"cut.json", "whole.json"}


def test_same_means_the_text_of_the_16_bit_model(quick: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = examples("arithmetic", 3)
    said = [Answer(f"{row.answer}<|end|>", 0.5) for row in rows]
    monkeypatch.setattr(measure_quality, "answers", lambda *_: [said[0], Answer("7", 1.0), Answer("8", 1e-3)])
    before = {"arithmetic": [said[0].text, said[1].text, "8"]}
    entry, texts = measure_quality.measure("16-bit", {"arithmetic": rows}, before)
    found = entry["workloads"]["arithmetic"]
    assert (found["correct"], found["same"], found["doubt"]) == ("100", "101", [50000, 100000, 100])
    assert texts["arithmetic"] == [said[0].text, "7", "8"]


def test_bad_arguments_are_refused_before_anything_is_measured(tmp_path: Path, quick: list[str]) -> None:
    with pytest.raises(ValueError, match="count: got 1"):
        run(tmp_path / "a.json", 1)
    with pytest.raises(ValueError, match=r"methods: got \['INT4 g128'\]; choose from .* with 16-bit among them"):
        run(tmp_path / "a.json", 5, ("INT4 g128",))
    with pytest.raises(ValueError, match="methods: got"):
        run(tmp_path / "a.json", 5, ("16-bit", "INT5"))
    assert not quick and not list(tmp_path.iterdir())


# ---- The file that ships ----


def test_the_file_is_about_this_model_and_these_methods() -> None:
    assert SHIPPED["weights_sha256"] == hashlib.sha256((NANO / "model.safetensors").read_bytes()).hexdigest()
    assert SHIPPED["seed"] == SEED and list(SHIPPED["methods"]) == list(METHODS)
    for name, entry in SHIPPED["methods"].items():
        assert entry["arguments"] == (METHODS[name] or {})


def test_lengths_of_the_prompts_are_those_of_these_examples() -> None:
    tokenizer = load()[1]
    for workload, lengths in SHIPPED["tokens"].items():
        assert len(lengths) == SHIPPED["examples"]
        assert lengths[:20] == [len(tokenizer(row.prompt)["input_ids"]) for row in examples(workload, 20)]


def test_the_file_says_what_a_new_measurement_says(broken: Any) -> None:
    """INT3 by channel again, a few prompts of each kind: another machine may turn one near tie, no more."""
    recorded = SHIPPED["methods"]["INT3 channel"]["workloads"]
    differ = 0
    for workload in ("arithmetic", "sql", "trading"):
        rows = examples(workload, 24)
        for row, found, digit in zip(rows, answers(*broken, rows), recorded[workload]["correct"], strict=False):
            differ += (found.text == row.answer + "<|end|>") != (digit == "1")
    assert differ <= 2


def test_the_file_agrees_with_the_model_card() -> None:
    """The card has 1,000 examples of each workload by another way of counting; half of them are these."""
    card = json.loads((NANO / "scores.json").read_text(encoding="utf-8"))["scores"]
    for name in ("16-bit", "INT8 channel", "INT4 g128", "INT3 g128", "INT3 channel", "INT2 g32 asymmetric"):
        for workload, found in SHIPPED["methods"][name]["workloads"].items():
            theirs = card[name]["accuracy"][workload]
            # Ours are half of theirs, so the difference has the standard error of one thousand.
            assert abs(found["accuracy"]["value"] - theirs["value"]) <= 4 * theirs["stderr"] + 0.002
