"""How much a model lost: perplexity, KL divergence, same-top-token rate, and accuracy by workload.

Perplexity alone hides small damage: its noise from text to text is larger than the difference between
two good 4-bit methods. So every comparison with a reference is paired: the same windows, the same
examples, token by token (the metric set of llama.cpp's perplexity tool).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tqdm.auto import tqdm
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from . import corpus
from .workloads import WORKLOADS, Example
from .workloads import examples as held_out_examples

WINDOW = 256  # tokens of text that are scored together
BATCH_TOKENS = 4096  # tokens in one forward pass


@dataclass(frozen=True)
class Estimate:
    """A mean of independent samples with its standard error."""

    value: float
    stderr: float

    @classmethod
    def of(cls, samples: torch.Tensor) -> Estimate:
        x = samples.double()
        spread = x.std(unbiased=True).item() / math.sqrt(len(x)) if len(x) > 1 else math.nan
        return cls(x.mean().item(), spread)


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured. Rates are fractions of one; KL is in nats per token.

    With a reference, `kl`, `same_top`, `perplexity_ratio` and `accuracy_change` compare the model with it
    on the same tokens and examples, so their standard errors are those of paired differences.
    """

    perplexity: dict[str, Estimate]
    accuracy: dict[str, Estimate]
    kl: Estimate | None = None
    same_top: Estimate | None = None
    perplexity_ratio: dict[str, Estimate] = field(default_factory=dict)
    accuracy_change: dict[str, Estimate] = field(default_factory=dict)
    correct: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)  # bool (examples,)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, ready for JSON: {"perplexity": {"prose": {"value": …, "stderr": …}}, …}."""

        def plain(x: Any) -> Any:
            if isinstance(x, Estimate):
                return {"value": x.value, "stderr": None if math.isnan(x.stderr) else x.stderr}
            return {k: plain(v) for k, v in x.items()} if isinstance(x, dict) else x

        names = ("perplexity", "accuracy", "kl", "same_top", "perplexity_ratio", "accuracy_change")
        return {name: plain(getattr(self, name)) for name in names}

    def rows(self) -> list[tuple[str, str, str]]:
        """(what, value ± standard error, change from the reference) as text, one row per measure."""
        rows = []
        for name, p in self.perplexity.items():
            ratio = self.perplexity_ratio.get(name)
            change = f"x {ratio.value:.3f} ± {ratio.stderr:.3f}" if ratio else ""
            rows.append((f"perplexity, {name}", f"{p.value:.2f} ± {p.stderr:.2f}", change))
        for name, a in self.accuracy.items():
            moved = self.accuracy_change.get(name)
            change = f"{100 * moved.value:+.1f} ± {100 * moved.stderr:.1f} points" if moved else ""
            rows.append((f"accuracy, {name}", f"{100 * a.value:.1f} ± {100 * a.stderr:.1f} %", change))
        if self.kl and self.same_top:
            rows.append(("mean KL to the reference", f"{self.kl.value:.4f} ± {self.kl.stderr:.4f} nats", ""))
            top = self.same_top
            rows.append(("same top token", f"{100 * top.value:.1f} ± {100 * top.stderr:.1f} %", ""))
        return rows

    def __str__(self) -> str:
        header = ("measure", "value ± standard error", "against the reference")
        table = [header, *self.rows()] if self.kl else [header[:2], *(row[:2] for row in self.rows())]
        widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
        ]
        return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])

    def _repr_html_(self) -> str:
        columns = 3 if self.kl else 2
        header = ("measure", "value ± standard error", "against the reference")[:columns]
        head = "".join(f"<th style='text-align:left'>{cell}</th>" for cell in header)
        body = "".join(
            "<tr>" + "".join(f"<td style='text-align:left'>{cell}</td>" for cell in row[:columns]) + "</tr>"
            for row in self.rows()
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


@torch.inference_mode()
def evaluate(
    model: PreTrainedModel,
    reference: PreTrainedModel | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    workloads: Iterable[str] | None = None,
    texts: Mapping[str, str] | None = None,
    examples: int = 200,
    tokens: int = 8192,
    progress: bool = True,
) -> Evaluation:
    """Measure a model on held-out text and on held-out examples of every workload.

    An example counts as right when the model's most likely token is right at every position of the
    answer and at the end mark after it, given the answer so far. That is the verdict of greedy
    decoding, from one forward pass: decoding leaves the right path at the first wrong token.

    Args:
        model: any Hugging Face causal language model, quantized or not.
        reference: the same model before quantization; both are then measured on the same inputs.
        tokenizer: by default the one saved beside the model (`model.name_or_path`).
        workloads: names from `qlab.models.workloads.WORKLOADS`; all six by default, `()` for none.
        texts: {name: text} for the perplexity; by default the held-out prose and code of the package.
        examples: distinct held-out examples per workload.
        tokens: at most this many tokens of every text, in windows of 256.
        progress: show a progress bar.

    Raises:
        ValueError: an unknown workload, no tokenizer, a text shorter than one window, `examples` or
            `tokens` out of range.
    """
    tokenizer = tokenizer or tokenizer_of(model)
    if tokenizer is None:
        raise ValueError(
            "tokenizer: no tokenizer is saved beside this model; pass tokenizer=… as qlab.load returned it"
        )
    names = list(WORKLOADS) if workloads is None else list(workloads)
    if unknown := [name for name in names if name not in WORKLOADS]:
        raise ValueError(f"workloads: {unknown} not known; choose from {', '.join(WORKLOADS)}")
    if examples < 1:
        raise ValueError(f"examples must be at least 1, not {examples}")
    if texts is None:
        texts = {kind: corpus.held_out_text(kind) for kind in ("prose", "code")}
    windows = {name: _windows(tokenizer, name, text, tokens) for name, text in texts.items()}
    batches = {name: list(_answer_batches(tokenizer, name, examples)) for name in names}
    models = [model] if reference is None else [model, reference]

    steps = len(windows) + sum(len(b) for b in batches.values())
    nll: dict[str, torch.Tensor] = {}  # (models, windows)
    drift: list[torch.Tensor] = []  # (windows, 2): mean KL and same-top rate of every window
    correct: dict[str, torch.Tensor] = {}  # (models, examples)
    with tqdm(total=steps, desc="evaluating", disable=not progress, leave=False, file=sys.stdout) as bar:
        for name, ids in windows.items():
            nll[name], moved = _score_text(models, ids)
            drift += moved
            bar.update()
        for name in names:
            verdicts = []
            for batch in batches[name]:
                verdicts.append(torch.stack([_answers_right(m, batch) for m in models]))
                bar.update()
            correct[name] = torch.cat(verdicts, dim=1)

    perplexity = {}
    for name, x in nll.items():
        mean = Estimate.of(x[0])
        perplexity[name] = Estimate(math.exp(mean.value), math.exp(mean.value) * mean.stderr)
    result: dict[str, Any] = {}
    if reference is not None:
        ratios = {name: Estimate.of(x[0] - x[1]) for name, x in nll.items()}
        result = {
            "perplexity_ratio": {
                n: Estimate(math.exp(e.value), math.exp(e.value) * e.stderr) for n, e in ratios.items()
            },
            "accuracy_change": {n: Estimate.of(c[0].double() - c[1].double()) for n, c in correct.items()},
        }
        if drift:
            moved_all = torch.cat(drift)
            result |= {"kl": Estimate.of(moved_all[:, 0]), "same_top": Estimate.of(moved_all[:, 1])}
    return Evaluation(
        perplexity=perplexity,
        accuracy={name: Estimate.of(c[0].double()) for name, c in correct.items()},
        correct={name: c[0] for name, c in correct.items()},
        **result,
    )


def tokenizer_of(model: PreTrainedModel) -> PreTrainedTokenizerBase | None:
    """The tokenizer that is saved beside a model that came from a folder, or None."""
    folder = Path(model.name_or_path or "/")
    if not (folder / "tokenizer_config.json").is_file():
        return None
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


# --- text -----------------------------------------------------------------------------------


def _windows(tokenizer: PreTrainedTokenizerBase, name: str, text: str, tokens: int) -> torch.Tensor:
    """Cut a text into (windows, 256) token ids, every window beginning with the first special token."""
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"][:tokens]
    begin = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    width = WINDOW - len(begin)
    if len(ids) < width:
        raise ValueError(f"texts: {name!r} has {len(ids)} tokens (tokens={tokens}); one window needs {width}")
    return torch.tensor([begin + ids[i : i + width] for i in range(0, len(ids) - width + 1, width)])


def _score_text(models: Sequence[PreTrainedModel], ids: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Mean negative log-likelihood (models, windows), and with two models (windows, 2): KL and same-top rate."""
    nll, drift = [], []
    for rows in ids.split(max(1, BATCH_TOKENS // WINDOW)):
        logs = [
            F.log_softmax(m(rows.to(m.device), use_cache=False).logits[:, :-1].float(), dim=-1).cpu() for m in models
        ]
        target = rows[:, 1:, None]
        nll.append(torch.stack([-log.gather(2, target).squeeze(2).mean(1) for log in logs]))  # (models, rows)
        if len(logs) == 2:
            quantized, reference = logs
            kl = (reference.exp() * (reference - quantized)).sum(-1).mean(1)
            same = (quantized.argmax(-1) == reference.argmax(-1)).float().mean(1)
            drift.append(torch.stack([kl, same], dim=1))
    return torch.cat(nll, dim=1), drift


# --- workloads ------------------------------------------------------------------------------


def encode(tokenizer: PreTrainedTokenizerBase, example: Example) -> tuple[list[int], list[int]]:
    """Token ids of the prompt (with its special tokens) and of the answer with its end mark."""
    answer = tokenizer(example.answer, add_special_tokens=False)["input_ids"]
    return tokenizer(example.prompt)["input_ids"], [*answer, tokenizer.eos_token_id]


@dataclass(frozen=True)
class _AnswerBatch:
    ids: torch.Tensor  # (rows, width) prompt, answer, padding on the right
    answer: torch.Tensor  # (rows, width) True where a token of the answer has to be predicted


def _answer_batches(tokenizer: PreTrainedTokenizerBase, name: str, n: int) -> Iterable[_AnswerBatch]:
    encoded = sorted(
        (encode(tokenizer, e) for e in held_out_examples(name, n)), key=lambda pair: len(pair[0]) + len(pair[1])
    )
    while encoded:
        # Sorted by length, so the last row of a batch is its widest and little is spent on padding.
        size = 1
        while size < len(encoded) and (size + 1) * sum(map(len, encoded[size])) <= BATCH_TOKENS:
            size += 1
        rows, encoded = encoded[:size], encoded[size:]
        width = max(len(prompt) + len(answer) for prompt, answer in rows)
        ids = torch.full((size, width), tokenizer.eos_token_id)
        mask = torch.zeros(size, width, dtype=torch.bool)
        for i, (prompt, answer) in enumerate(rows):
            end = len(prompt) + len(answer)
            ids[i, :end] = torch.tensor(prompt + answer)
            mask[i, len(prompt) : end] = True
        yield _AnswerBatch(ids, mask)


def _answers_right(model: PreTrainedModel, batch: _AnswerBatch) -> torch.Tensor:
    """(rows,) True where the most likely token is right at every position of the answer.

    Padding needs no mask: it stands to the right, where a causal model does not look.
    """
    first = int(batch.answer.any(0).float().argmax())  # the leftmost answer position in the batch
    keep = batch.ids.shape[1] - first + 1  # logits from the position before it on
    logits = model(batch.ids.to(model.device), use_cache=False, logits_to_keep=keep).logits.cpu()
    predicted = logits[:, -keep:-1].argmax(-1)  # (rows, keep - 1): what follows each position
    wrong = (predicted != batch.ids[:, first:]) & batch.answer[:, first:]
    return ~wrong.any(1)
