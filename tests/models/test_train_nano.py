"""The training script: batches, masks, and a run that resumes as if nothing had happened."""

import dataclasses
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
    make = train_nano.make_model

    def make_small(vocab_size, seed):
        config = make(8, seed).config
        config.update({"vocab_size": vocab_size, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1})
        config.update({"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16})
        torch.manual_seed(seed)
        return train_nano.LlamaForCausalLM(config)

    monkeypatch.setattr(train_nano, "make_model", make_small)
    return monkeypatch


def stages(*ends):
    """Short stages of two rows a source, with the mixes of the real ones."""
    found, first = [], 0
    for end, stage in zip(ends, train_nano.STAGES, strict=False):
        mix = {source: (2, weight) for source, (_, weight) in stage.mix.items()}
        found.append(dataclasses.replace(stage, mix=mix, first=first, end=end, peak=1e-2))
        first = end
    return found


@pytest.mark.parametrize("source", [name for name in train_nano.MIX if name not in ("prose", "code")])
def test_batches_score_the_answers_only(source, small, tokenizer):
    ids, scored = train_nano.Batches(tokenizer, seed=0).batch(source, 2, 7)
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
        ids, scored = batches.batch("arithmetic", 2, step)
        for row, mask in zip(ids, scored, strict=True):
            assert not is_held_out(tokenizer.decode(row[: int(mask.float().argmax())]).removeprefix("<|end|>"))


def test_copies_are_scored_where_looking_back_tells(small, tokenizer):
    ids, scored = train_nano.Batches(tokenizer, seed=0).batch("copy", 3, 5)
    length = (ids.shape[1] - 1) // 2
    assert torch.equal(ids[:, 1 : 1 + length], ids[:, 1 + length :]) and 8 <= length <= 40
    assert bool((ids[:, 0] == tokenizer.eos_token_id).all())
    # The first token of the second time is not scored: nothing tells it.
    assert scored.sum(1).tolist() == [length - 1] * 3 and not bool(scored[:, : length + 2].any())


def test_marked_text_begins_with_the_mark(small, tokenizer):
    batches = train_nano.Batches(tokenizer, seed=0)
    plain, marked = (batches.batch("prose", 2, 0, marked)[0] for marked in (False, True))
    assert bool((marked[:, 0] == tokenizer.eos_token_id).all()) and torch.equal(plain[:, 1:], marked[:, 1:])


def test_stages_follow_one_another():
    ends = [stage.end for stage in train_nano.STAGES]
    assert [stage.first for stage in train_nano.STAGES] == [0, *ends[:-1]]
    assert "copy" not in train_nano.STAGES[0].mix and "copy" in train_nano.STAGES[1].mix


def test_learning_rate_is_a_trapezoid():
    stage = train_nano.Stage({}, first=500, end=1500, peak=1.0, warmup=100, decay_share=0.4)
    rates = [stage.rate(step) for step in range(500, 1500)]
    assert rates[0] == pytest.approx(0.01) and rates[100] == rates[500] == 1.0
    assert rates[599] == 1.0 and rates[800] == pytest.approx(0.5) and 0 < rates[999] < 0.01


def test_a_killed_run_resumes_as_if_nothing_had_happened(small, tmp_path):
    plan = stages(3, 7, 8)
    train_nano.train(tmp_path / "whole", plan, seed=1, checkpoint_every=2)

    class Killed(Exception):
        pass

    def killed_at(last, original=train_nano.Batches.batch):
        def batch(self, source, rows, step, marked=False):
            if step == last:
                raise Killed
            return original(self, source, rows, step, marked)

        return batch

    for last, kept in ((1, None), (3, 3), (5, 4), (7, 7)):  # step 3 and step 7 begin a stage
        with small.context() as patch:
            patch.setattr(train_nano.Batches, "batch", killed_at(last))
            with pytest.raises(Killed):
                train_nano.train(tmp_path / "cut", plan, seed=1, checkpoint_every=2)
        assert not (tmp_path / "cut" / "model.safetensors").exists()
        checkpoint = tmp_path / "cut" / "checkpoint.safetensors"
        assert (int(load_file(checkpoint)["step"]) if checkpoint.exists() else None) == kept
    train_nano.train(tmp_path / "cut", plan, seed=1, checkpoint_every=2)

    whole, cut = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert {t.dtype for t in whole.values()} == {torch.float16}
    lines = (tmp_path / "whole" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 2, 6, 7]


def test_a_later_stage_begins_with_given_weights(small, tmp_path):
    """From the files of the stages before, the last stage gives what the whole run gives."""
    plan = stages(3, 7, 8)
    train_nano.train(tmp_path / "whole", plan, seed=1)
    train_nano.train(tmp_path / "first", plan[:2], seed=1)
    train_nano.train(tmp_path / "last", plan[2:], seed=1, start=tmp_path / "first")
    whole, last = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "last"))
    assert all(torch.equal(whole[name], last[name]) for name in whole)


def test_other_seeds_give_other_batches(small, tokenizer):
    a, b = (train_nano.Batches(tokenizer, seed).batch("sql", 2, 0)[0] for seed in (0, 1))
    assert a.shape != b.shape or not torch.equal(a, b)
