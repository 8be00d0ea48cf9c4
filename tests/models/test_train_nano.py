"""The training script: batches, masks, and a run that resumes as if nothing had happened."""

import json

import pytest
import torch
from safetensors.torch import load_file

from qlab.models import corpus, train_nano
from qlab.models.load import load
from qlab.models.workloads import is_held_out


@pytest.fixture(scope="module")
def tokenizer():
    return load()[1]


@pytest.fixture
def small(monkeypatch, tokenizer):
    """A corpus, a mix and a model that take milliseconds per step."""
    monkeypatch.setattr(corpus, "training_texts", lambda: (["some prose " * 400], ["x = 1\n" * 800]))
    monkeypatch.setattr(train_nano, "make_tokenizer", lambda: tokenizer)
    monkeypatch.setattr(train_nano, "MIX", {source: (2, w) for source, (_, w) in train_nano.MIX.items()})
    make = train_nano.make_model

    def make_small(vocab_size, seed):
        config = make(8, seed).config
        config.update({"vocab_size": vocab_size, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1})
        config.update({"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16})
        torch.manual_seed(seed)
        return train_nano.LlamaForCausalLM(config)

    monkeypatch.setattr(train_nano, "make_model", make_small)
    return monkeypatch


@pytest.mark.parametrize("source", [name for name in train_nano.MIX if name not in ("prose", "code")])
def test_batches_score_the_answers_only(source, small, tokenizer):
    ids, scored = train_nano.Batches(tokenizer, seed=0).batch(source, 7)
    assert ids.shape == scored.shape
    for row, mask in zip(ids, scored, strict=True):
        text = tokenizer.decode(row)
        answers = tokenizer.decode(row[mask]).split("<|end|>")[:-1]
        assert answers and all(answer in text for answer in answers)
        assert not mask[0]
        if source == "recall":
            pairs = set(text.split("\n")[0].removeprefix("<|end|>memo: ").rstrip(";").split("; "))
            asked = [q.split()[0] for q in text.split("\nask ")[1:]]
            assert len(answers) > 1
            assert {f"{key}{answer}" for key, answer in zip(asked, answers, strict=True)} <= pairs


def test_recall_lists_begin_short_and_reach_their_full_length():
    lengths = [train_nano.longest_list(step) for step in range(1500)]
    assert lengths == sorted(lengths)
    assert lengths[0] == 8 and lengths[-1] == 64


def test_no_batch_holds_a_held_out_prompt(small, tokenizer):
    batches = train_nano.Batches(tokenizer, seed=0)
    for step in range(40):
        ids, scored = batches.batch("arithmetic", step)
        for row, mask in zip(ids, scored, strict=True):
            assert not is_held_out(tokenizer.decode(row[: int(mask.float().argmax())]).removeprefix("<|end|>"))


def test_learning_rate_is_a_trapezoid():
    rates = [train_nano.learning_rate(step, 1000, 1.0) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01) and rates[100] == rates[500] == 1.0
    assert rates[599] == 1.0 and rates[800] == pytest.approx(0.5) and 0 < rates[999] < 0.01


def test_a_killed_run_resumes_as_if_nothing_had_happened(small, tmp_path):
    train_nano.train(tmp_path / "whole", steps=6, peak=1e-2, seed=1, checkpoint_every=2)

    class Killed(Exception):
        pass

    def killed_at_step_five(self, source, step, original=train_nano.Batches.batch):
        if step == 5:
            raise Killed
        return original(self, source, step)

    with small.context() as patch:
        patch.setattr(train_nano.Batches, "batch", killed_at_step_five)
        with pytest.raises(Killed):
            train_nano.train(tmp_path / "cut", steps=6, peak=1e-2, seed=1, checkpoint_every=2)
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    assert int(load_file(tmp_path / "cut" / "checkpoint.safetensors")["step"]) == 4
    train_nano.train(tmp_path / "cut", steps=6, peak=1e-2, seed=1, checkpoint_every=2)

    whole, cut = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert {t.dtype for t in whole.values()} == {torch.float16}
    lines = (tmp_path / "whole" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 5]


def test_other_seeds_give_other_batches(small, tokenizer):
    a, b = (train_nano.Batches(tokenizer, seed).batch("sql", 0)[0] for seed in (0, 1))
    assert a.shape != b.shape or not torch.equal(a, b)
