"""evaluate: the numbers are recomputed here the slow and obvious way."""

import json
import math

import pytest
import torch
import torch.nn.functional as F

from qlab.models import corpus
from qlab.models import evaluate as evaluate_module
from qlab.models.evaluate import Estimate, encode, evaluate
from qlab.models.load import load
from qlab.models.workloads import WORKLOADS, examples

SMALL = {"examples": 12, "tokens": 1024, "progress": False}


@pytest.fixture(scope="module")
def nano():
    return load()


@pytest.fixture(scope="module")
def damaged():
    """nano with noise on its weights: wrong often enough for every verdict to occur."""
    model, _ = load()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "proj" in name:
                p += 0.4 * p.std() * torch.randn(p.shape, generator=generator)
    return model


def test_estimate_is_mean_and_standard_error():
    e = Estimate.of(torch.tensor([1.0, 2.0, 3.0, 6.0]))
    assert e.value == 3.0
    assert e.stderr == pytest.approx(math.sqrt((4 + 1 + 0 + 9) / 3) / 2)
    assert math.isnan(Estimate.of(torch.tensor([1.0])).stderr)


def test_a_model_against_itself_has_lost_nothing(nano):
    model, _ = nano
    result = evaluate(model, model, **SMALL)
    assert result.kl.value == pytest.approx(0, abs=1e-6) and result.same_top.value == 1.0
    assert all(change == Estimate(0.0, 0.0) for change in result.accuracy_change.values())
    assert all(ratio.value == 1.0 for ratio in result.perplexity_ratio.values())


@torch.inference_mode()
def test_perplexity_and_kl_by_hand(nano, damaged):
    model, tokenizer = nano
    result = evaluate(damaged, model, workloads=(), tokens=600, progress=False)
    ids = tokenizer(corpus.held_out_text("prose"), add_special_tokens=False)["input_ids"]
    rows = torch.tensor([[0, *ids[:255]], [0, *ids[255:510]]])  # two windows fit into 600 tokens
    p, q = (m(rows).logits[:, :-1].double() for m in (model, damaged))
    loss = F.cross_entropy(q.transpose(1, 2), rows[:, 1:], reduction="none").mean(1)
    assert result.perplexity["prose"].value == pytest.approx(loss.mean().exp().item(), rel=1e-4)
    assert result.perplexity_ratio["prose"].value > 1.1
    kl = F.kl_div(q.log_softmax(-1), p.log_softmax(-1), log_target=True, reduction="none").sum(-1).mean()
    same = (p.argmax(-1) == q.argmax(-1)).double().mean()
    only_prose = evaluate(
        damaged, model, workloads=(), texts={"prose": corpus.held_out_text("prose")}, tokens=600, progress=False
    )
    assert only_prose.kl.value == pytest.approx(kl.item(), rel=1e-3)
    assert only_prose.same_top.value == pytest.approx(same.item(), abs=1e-6)


@torch.inference_mode()
@pytest.mark.parametrize("name", WORKLOADS)
def test_teacher_forced_verdict_is_that_of_greedy_decoding(name, damaged, nano):
    _, tokenizer = nano
    n = 24
    right = 0
    for example in examples(name, n):
        prompt, answer = encode(tokenizer, example)
        decoded = damaged.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)),
            max_new_tokens=len(answer),
            do_sample=False,
        )[0, len(prompt) :].tolist()
        right += decoded == answer
    result = evaluate(damaged, tokenizer=tokenizer, workloads=[name], texts={}, examples=n, progress=False)
    assert result.accuracy[name].value == pytest.approx(right / n)


def test_batching_does_not_change_a_verdict(damaged, monkeypatch):
    options = {"workloads": ("arithmetic", "sql"), "texts": {}, "examples": 40, "progress": False}
    whole = evaluate(damaged, **options)
    monkeypatch.setattr(evaluate_module, "BATCH_TOKENS", 150)
    pieces = evaluate(damaged, **options)
    for name in options["workloads"]:
        assert 0 < whole.accuracy[name].value < 1
        assert torch.equal(whole.correct[name], pieces.correct[name])


def test_paired_error_is_smaller_than_that_of_two_independent_runs(nano, damaged):
    model, _ = nano
    result = evaluate(damaged, model, workloads=("sql",), texts={}, examples=100, progress=False)
    reference = evaluate(model, workloads=("sql",), texts={}, examples=100, progress=False)
    change, a, b = result.accuracy_change["sql"], result.accuracy["sql"], reference.accuracy["sql"]
    assert change.value == pytest.approx(a.value - b.value)
    moved = result.correct["sql"].double() - reference.correct["sql"].double()
    assert change.stderr == pytest.approx(moved.std().item() / 10)


def test_tables_and_json(nano, damaged):
    model, _ = nano
    result = evaluate(damaged, model, **SMALL)
    text, html = str(result), result._repr_html_()
    for name in WORKLOADS:
        assert f"accuracy, {name}" in text and f"accuracy, {name}" in html
    assert "mean KL" in text and "against the reference" in text
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["kl"]["value"] == result.kl.value
    alone = evaluate(model, workloads=(), tokens=300, progress=False)
    assert alone.kl is None and "reference" not in str(alone)
    json.dumps(alone.to_dict(), allow_nan=False)  # one window has no standard error: null, not NaN


def test_progress_bar_writes_to_stdout_only(nano, capsys):
    model, _ = nano
    evaluate(model, workloads=(), tokens=300, progress=True)
    captured = capsys.readouterr()
    assert "evaluating" in captured.out and captured.err == ""


def test_bad_arguments(nano):
    model, _ = nano
    with pytest.raises(ValueError, match="workloads.*poetry.*arithmetic"):
        evaluate(model, workloads=["poetry"], progress=False)
    with pytest.raises(ValueError, match="examples"):
        evaluate(model, examples=0, progress=False)
    with pytest.raises(ValueError, match="texts.*'short'.*255"):
        evaluate(model, workloads=(), texts={"short": "too short"}, progress=False)
    model.config._name_or_path, model.name_or_path = "", ""
    with pytest.raises(ValueError, match="tokenizer"):
        evaluate(model, progress=False)
