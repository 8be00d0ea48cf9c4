"""Calibration data: names, texts and tokens become batches; what evaluation scores is not among them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from qlab.models import calibration, corpus
from qlab.models.calibration import NAMES, Batch, batches
from qlab.models.load import load
from qlab.models.workloads import WORKLOADS, examples


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load()[1]


def rows(found: list[Batch]) -> list[torch.Tensor]:
    return [row[mask] for batch in found for row, mask in zip(batch.ids, batch.counted, strict=True)]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_gives_batches_of_bounded_size(name: str, tokenizer: Any) -> None:
    found = batches(name, tokenizer)
    for batch, again in zip(found, batches(name, tokenizer), strict=True):
        assert torch.equal(batch.ids, again.ids) and torch.equal(batch.counted, again.counted)
    for batch in found:
        assert batch.ids.shape == batch.counted.shape and batch.ids.dtype == torch.int64
        assert batch.ids.numel() <= calibration.BATCH_TOKENS or len(batch.ids) == 1
        # Padding only stands to the right.
        assert bool((batch.counted.int().diff(dim=1) <= 0).all()) and bool(batch.counted[:, 0].all())
    assert sum(int(batch.counted.sum()) for batch in found) > 2000


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_is_its_train_split(name: str, tokenizer: Any) -> None:
    shown = {tokenizer.decode(row, skip_special_tokens=True) for row in rows(batches(name, tokenizer))}
    assert shown <= {e.prompt + e.answer for e in examples(name, 256, "train", "calibration")}
    assert not shown & {e.prompt + e.answer for e in examples(name, 1000)}


@pytest.mark.parametrize("kind", ["prose", "code"])
def test_calibration_text_is_not_the_held_out_text(kind: str) -> None:
    text, held_out = corpus.calibration_text(kind), corpus.held_out_text(kind)
    assert len(text) > 30_000
    pieces = [text[i : i + 200] for i in range(0, len(text) - 200, 1000)]
    assert not [piece for piece in pieces if piece in held_out]


def test_token_ids_pass_as_they_are() -> None:
    ids = torch.arange(60).reshape(6, 10)
    found = batches(ids, None)
    assert len(found) == 1 and bool(found[0].counted.all())
    assert torch.equal(found[0].ids, ids)
    long = batches(torch.zeros(3, 3000, dtype=torch.int32), None)
    assert [batch.ids.shape for batch in long] == [(1, 3000)] * 3


def test_rows_of_a_batch_are_about_equally_long(tokenizer: Any) -> None:
    found = batches("mix", tokenizer)
    lengths = [len(row) for row in rows(found)]
    held = sum(batch.ids.numel() for batch in found)
    assert held < 1.3 * sum(lengths) < len(lengths) * max(lengths) / 2, "too much is spent on padding"


def test_texts_are_cut_into_windows(tokenizer: Any) -> None:
    text = corpus.calibration_text("prose")
    found = batches([text[:5000], text[5000:10000]], tokenizer)
    assert {batch.ids.shape[1] for batch in found} == {256}
    assert all(bool((batch.ids[:, 0] == tokenizer.bos_token_id).all()) for batch in found)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (None, ValueError, "this method looks at activations; give token ids, texts, or a name: arithmetic"),
        ("wiki", ValueError, "'wiki' is no name; choose from arithmetic"),
        (3, TypeError, "got int"),
        ([1, 2], TypeError, "got list"),
        (["too short"], ValueError, "one window needs 255"),
        (torch.zeros(3), ValueError, r"got torch.float32 \(3,\)"),
        (torch.zeros(0, 4, dtype=torch.int64), ValueError, r"\(0, 4\)"),
    ],
)
def test_what_is_no_data_is_refused(given: Any, error: type[Exception], message: str, tokenizer: Any) -> None:
    with pytest.raises(error, match=f"calibration: .*{message}"):
        batches(given, tokenizer)
    if given == "wiki":
        with pytest.raises(ValueError, match="text needs a tokenizer"):
            batches("sql", None)
