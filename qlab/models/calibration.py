"""Calibration data: what a method that looks at activations is shown.

A name stands for text of the package that evaluation never scores: the train split of a workload, or an excerpt of
the training prose or code. "mix" is a little of everything, and the right choice when you do not know what is coming.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from . import corpus
from .evaluate import WINDOW, encode
from .workloads import WORKLOADS
from .workloads import examples as workload_examples

TEXTS = ("prose", "code")
NAMES = (*WORKLOADS, *TEXTS, "mix")
EXAMPLES = 256  # of a workload
WINDOWS = 32  # of 256 tokens, of prose or code
BATCH_TOKENS = 4096  # in one forward pass

Calibration = torch.Tensor | Sequence[str] | str


@dataclass(frozen=True)
class Batch:
    """Rows of tokens that pass through the model together."""

    ids: torch.Tensor  # int64 (rows, width)
    counted: torch.Tensor  # bool (rows, width), False on padding, which stands to the right


def batches(calibration: Calibration | None, tokenizer: PreTrainedTokenizerBase | None) -> list[Batch]:
    """Batches of at most 4,096 tokens (or one row).

    Args:
        calibration: int64 (sequences, tokens); a list of strings, cut into windows of 256 tokens; or a name:
            a workload, "prose", "code", or "mix".
        tokenizer: needed for strings and names.

    Raises:
        TypeError: calibration is none of these.
        ValueError: an unknown name, no tokens, less than one window of text, or no tokenizer for text.
    """
    if isinstance(calibration, torch.Tensor):
        if calibration.ndim != 2 or calibration.numel() == 0 or calibration.is_floating_point():
            raise ValueError(
                f"calibration: got {calibration.dtype} {tuple(calibration.shape)}; give token ids (sequences, tokens)"
            )
        return list(_batches(list(calibration.long())))
    if calibration is None:
        raise ValueError(f"calibration: this method looks at activations; give token ids, texts, or a name: {_names()}")
    if isinstance(calibration, str):
        if calibration not in NAMES:
            raise ValueError(
                f"calibration: {calibration!r} is no name; choose from {_names()}, or give a list of texts"
            )
    elif not isinstance(calibration, Sequence) or not all(isinstance(text, str) for text in calibration):
        raise TypeError(f"calibration: got {type(calibration).__name__}; give token ids, a list of texts, or a name")
    if tokenizer is None:
        raise ValueError("calibration: text needs a tokenizer, and none is saved beside this model; give token ids")
    if not isinstance(calibration, str):
        return list(_batches(_windows(tokenizer, "\n\n".join(calibration))))
    if calibration in TEXTS:
        return list(_batches(_windows(tokenizer, corpus.calibration_text(calibration))[:WINDOWS]))
    if calibration in WORKLOADS:
        return list(_batches(_examples(tokenizer, calibration, EXAMPLES)))
    rows = [row for name in WORKLOADS for row in _examples(tokenizer, name, EXAMPLES // 4)]
    for name in TEXTS:
        rows += _windows(tokenizer, corpus.calibration_text(name))[: WINDOWS // 2]
    return list(_batches(rows))


def _names() -> str:
    return ", ".join(NAMES)


def _examples(tokenizer: PreTrainedTokenizerBase, name: str, count: int) -> list[torch.Tensor]:
    encoded = [encode(tokenizer, example) for example in workload_examples(name, count, "train", "calibration")]
    return [torch.tensor(prompt + answer) for prompt, answer in encoded]


def _windows(tokenizer: PreTrainedTokenizerBase, text: str) -> list[torch.Tensor]:
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    begin = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    width = WINDOW - len(begin)
    if len(ids) < width:
        raise ValueError(f"calibration: {len(ids)} tokens of text; one window needs {width}")
    return [torch.tensor(begin + ids[i : i + width]) for i in range(0, len(ids) - width + 1, width)]


def _batches(rows: list[torch.Tensor]) -> Iterator[Batch]:
    rows = sorted(rows, key=len)  # rows of a batch are about equally long: little is spent on padding
    while rows:
        size = 1
        while size < len(rows) and (size + 1) * len(rows[size]) <= BATCH_TOKENS:
            size += 1
        taken, rows = rows[:size], rows[size:]
        ids = torch.nn.utils.rnn.pad_sequence(taken, batch_first=True)  # (rows, width)
        lengths = torch.tensor([len(row) for row in taken])
        yield Batch(ids, torch.arange(ids.shape[1]) < lengths[:, None])
