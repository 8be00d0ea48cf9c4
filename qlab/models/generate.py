"""One prompt, answered at several widths: what quantization does to text, before any metric."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .quantize import bytes_of, quantize_model


@dataclass(frozen=True)
class Answer:
    """A greedy continuation of the prompt."""

    label: str  # "16 bits", or the name of the method where it has one width
    bytes_held: int  # by the whole model
    text: str
    same: int | None  # tokens in common with the first answer, from the start; None if all are
    tokens: int


@torch.inference_mode()
def side_by_side(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    bits: Iterable[int] = (16, 8, 4, 3),
    tokens: int = 48,
    **recipe: Any,
) -> list[Answer]:
    """Answer `prompt` greedily with the model as it is (16) and with quantized copies of it.

    Args:
        bits: widths; 16 stands for the model as it came.
        tokens: at most this many new ones; an answer ends earlier at the model's end mark.
        recipe: further arguments of `quantize_model`: method, group_size, calibration, …

    Raises:
        ValueError: an empty prompt, tokens below 1, no width, or a bad argument of `quantize_model`.
    """
    widths = list(bits)
    if not prompt:
        raise ValueError("prompt: it is empty; give the text that the model is to continue")
    if tokens < 1:
        raise ValueError(f"tokens: got {tokens}; give 1 or more")
    if not widths:
        raise ValueError("bits: got none; give widths such as 16, 8, 4, 3")
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"].to(model.device)
    found: list[Answer] = []
    first: list[int] = []
    for width in widths:
        candidate = copy.deepcopy(model)
        if width != 16:
            quantize_model(candidate, bits=width, progress=False, **recipe)
        held = bytes_of(candidate)
        if candidate.device.type == "cpu":
            candidate.float()  # processors compute slowly in 16 bits; codes and scales stay as they are
        new = candidate.generate(ids, max_new_tokens=tokens, do_sample=False, pad_token_id=tokenizer.eos_token_id)
        answer = new[0, ids.shape[1] :].tolist()
        same = None
        if found and answer != first:
            pairs = zip(answer, first, strict=False)
            same = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(answer), len(first)))
        text = tokenizer.decode(answer, skip_special_tokens=True)
        found.append(Answer(f"{width} bits", held, text, same, len(answer)))
        if len(found) == 1:
            first = answer
    return found
