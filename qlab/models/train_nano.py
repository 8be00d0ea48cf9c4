"""Train nano, the embedded model: `python -m qlab.models.train_nano --out build/nano`.

A Llama of 5 million parameters on six workloads, prose and code, on the CPU, in about two hours on
two cores. Three stages. The second adds rows of random tokens said twice, which teach the model to look
back; recall needs that, and did not get it from its own rows. But it also taught the model to expect
such a repetition after every begin mark, so the third, a short one, shows it text that begins with the
mark. `--from FOLDER --stage 2` begins with the second stage, from the weights that the first one left.

Seeded; progress bar and a log line every 20 steps; a killed run resumes from its last checkpoint,
with the same batches as an uninterrupted one, because every batch is a function of
(seed, step, source). At the end `--out` holds ordinary Hugging Face files in float16.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, load_model, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from . import corpus, workloads

END = "<|end|>"  # begins every text and ends every answer
CONTEXT = 512  # tokens in a row of prose or code
# Rows per step and weight of each source's mean loss.
MIX = {
    "prose": (2, 1.0),
    "code": (3, 1.0),
    "arithmetic": (96, 1.0),
    "intent": (6, 0.3),
    "recall": (14, 2.0),
    "recommend": (24, 1.0),
    "sql": (8, 0.5),
    "trading": (12, 0.5),
}
LOOKUP_MIX = MIX | {"copy": (16, 2.0), "recall": (12, 2.0)}
MARKED_MIX = {source: (-(-rows // 3), weight) for source, (rows, weight) in LOOKUP_MIX.items()}
MARKED_MIX |= {"prose": (4, 1.0), "code": (4, 1.0)}


@dataclass(frozen=True)
class Stage:
    """Steps `first` to `end` - 1, with fresh optimizers and a learning rate that rises and falls once."""

    mix: dict[str, tuple[int, float]]
    first: int
    end: int
    peak: float  # learning rate
    warmup: int  # steps
    decay_share: float  # of the steps of the stage
    marked: bool = False  # rows of text begin with END, as they do in evaluation

    def rate(self, step: int) -> float:
        """Trapezoid: warm up, hold, fall linearly to zero at the end of the stage."""
        done, left = step - self.first, self.end - step
        return self.peak * min(1.0, (done + 1) / self.warmup, left / (self.decay_share * (self.end - self.first)))


STAGES = (
    Stage(MIX, first=0, end=1500, peak=3e-3, warmup=100, decay_share=0.4),
    Stage(LOOKUP_MIX, first=1500, end=2400, peak=2e-3, warmup=50, decay_share=0.3),
    Stage(MARKED_MIX, first=2400, end=2520, peak=1e-3, warmup=10, decay_share=0.9, marked=True),
)


def make_tokenizer(vocab_size: int = 2048) -> PreTrainedTokenizerFast:
    """Byte-level BPE with single digits, trained on the workloads, the prose and the code."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    prose, code = corpus.training_texts()
    rng = random.Random("tokenizer")
    texts = prose + rng.sample(code, 150)
    # Every word of the workloads is to be one token, with and without a space before it.
    for name in workloads.WORKLOADS:
        texts += [f"{e.prompt}{e.answer}" for e in workloads.examples(name, 3000, "train", "tokenizer")]
    tokenizer.train_from_iterator(texts, trainer)
    end = tokenizer.token_to_id(END)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{END} $A", special_tokens=[(END, end)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        model_max_length=1024,
        model_input_names=["input_ids", "attention_mask"],
    )


def make_model(vocab_size: int, seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        dtype="float32",
    )
    return LlamaForCausalLM(config)


def longest_list(step: int) -> int:
    """Pairs in the longest recall list of a step: short lists first, which are learned faster."""
    return 8 + round((workloads.RECALL_PAIRS[1] - 8) * min(1.0, max(0.0, (step - 450) / 650)))


class Batches:
    """The training batches: `batch(source, rows, step, marked)` -> token rows and the positions that are scored."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int):
        self.tokenizer, self.seed = tokenizer, seed
        prose, code = corpus.training_texts()
        self.text = {"prose": self._join(prose), "code": self._join(code)}

    def _join(self, texts: list[str]) -> torch.Tensor:
        # The tokenizer begins every text with END, so the joined stream separates documents.
        return torch.tensor([i for ids in self.tokenizer(texts, verbose=False)["input_ids"] for i in ids])

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(texts, add_special_tokens=False)["input_ids"]

    def batch(self, source: str, rows: int, step: int, marked: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """(rows, context) token ids and a boolean mask of the tokens to predict."""
        rng = random.Random(f"{self.seed}/{step}/{source}")
        if source == "copy":
            return self._copies(rng, rows)
        if source == "recall":
            rows = max(rows, 256 // longest_list(step))  # short lists come in more rows
        if source in self.text:
            stream = self.text[source]
            starts = [rng.randrange(len(stream) - CONTEXT) for _ in range(rows)]
            ids = torch.stack([stream[s : s + CONTEXT] for s in starts])
            if marked:
                ids[:, 0] = self.tokenizer.eos_token_id
            return ids, torch.ones_like(ids, dtype=torch.bool)
        return self._pad([self._row(group) for group in self._questions(source, rng, rows, step)])

    def _copies(self, rng: random.Random, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Random tokens, said twice; the second time is scored.

        Nothing but looking back predicts them, so these rows build the lookup (induction heads, Olsson et al. 2022).
        In recall's own rows a guess among the listed values is too good for that.
        """
        length = rng.randint(8, 40)
        once = torch.tensor([rng.choices(range(1, len(self.tokenizer)), k=length) for _ in range(rows)])
        begin = torch.full((rows, 1), self.tokenizer.eos_token_id)
        ids = torch.cat([begin, once, once], dim=1)  # (rows, 1 + 2 * length)
        scored = torch.zeros_like(ids, dtype=torch.bool)
        scored[:, length + 2 :] = True  # the first token of the second time cannot be known
        return ids, scored

    def _questions(self, source: str, rng: random.Random, rows: int, step: int) -> list[list[workloads.Example]]:
        """Per row the questions that share it: several for recall, whose list is long, else one."""
        drawn: list[list[workloads.Example]] = []
        while len(drawn) < rows:
            if source == "recall":
                many = workloads.recall_many(rng, queries=16, least=2, most=longest_list(step))
            else:
                many = [workloads.WORKLOADS[source](rng)]
            kept = [e for e in many if not workloads.is_held_out(e.prompt)]
            if kept:
                drawn.append(kept)
        return drawn

    def _row(self, group: list[workloads.Example]) -> tuple[list[int], list[bool]]:
        # Questions that share a row share the first line, the recall list: it is written once.
        first_line = len(group[0].prompt.split("\n")[0])
        prompts = [group[0].prompt, *(e.prompt[first_line:] for e in group[1:])]
        end = self.tokenizer.eos_token_id
        ids, scored = [end], [False]
        for prompt, answer in zip(self._encode(prompts), self._encode([e.answer for e in group]), strict=True):
            ids += [*prompt, *answer, end]
            scored += [False] * len(prompt) + [True] * (len(answer) + 1)
        return ids, scored

    def _pad(self, rows: list[tuple[list[int], list[bool]]]) -> tuple[torch.Tensor, torch.Tensor]:
        # Padding stands on the right, where a causal model cannot see it: no attention mask is needed.
        width = max(len(ids) for ids, _ in rows)
        end = self.tokenizer.eos_token_id
        ids = torch.tensor([ids + [end] * (width - len(ids)) for ids, _ in rows])
        scored = torch.tensor([scored + [False] * (width - len(scored)) for _, scored in rows])
        return ids, scored


def loss_of(model: LlamaForCausalLM, ids: torch.Tensor, scored: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy over the scored tokens; logits are computed only where they are needed."""
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(ids[:, :-1], use_cache=False).last_hidden_state
        logits = model.lm_head(hidden[scored[:, 1:]])
    return F.cross_entropy(logits.float(), ids[:, 1:][scored[:, 1:]])


def make_optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for the embedding and the norm gains."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(matrices, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def save_checkpoint(folder: Path, model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer], step: int) -> None:
    """Everything a resumed run needs, in one safetensors file: written, then renamed."""
    tensors = {f"model/{n}": p.detach().clone() for n, p in model.named_parameters()}
    for i, optimizer in enumerate(optimizers):
        for p, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{i}/{p}/{k}": torch.as_tensor(v).clone() for k, v in state.items()}
    tensors["step"] = torch.tensor(step)
    partial = folder / "checkpoint.partial"
    save_file(tensors, partial)
    partial.rename(folder / "checkpoint.safetensors")


def load_checkpoint(folder: Path, model: LlamaForCausalLM, optimizers: list[torch.optim.Optimizer]) -> int:
    """Restore model and optimizers in place; the next step to take (0 without a checkpoint)."""
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return 0
    tensors = load_file(path)
    with torch.no_grad():
        for n, p in model.named_parameters():
            p.copy_(tensors[f"model/{n}"])
    names = sorted(([*n.split("/")[1:], n] for n in tensors if n.startswith("optimizer/")), key=lambda n: int(n[0]))
    for i, entries in groupby(names, key=lambda n: int(n[0])):
        state: dict[int, dict[str, Any]] = {}
        for _, p, key, name in entries:
            state.setdefault(int(p), {})[key] = tensors[name]
        optimizers[i].load_state_dict({**optimizers[i].state_dict(), "state": state})
    return int(tensors["step"])


def train(
    out: Path, stages: Sequence[Stage] = STAGES, seed: int = 0, start: Path | None = None, checkpoint_every: int = 100
) -> None:
    """Run the stages one after another; the first one begins with the weights in the folder `start`, if given."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer), seed)
    if start is not None:
        load_model(model, start / "model.safetensors")
    optimizers = make_optimizers(model)
    batches = Batches(tokenizer, seed)
    resumed = load_checkpoint(out, model, optimizers) or stages[0].first
    started, tokens = time.time(), 0
    bar = tqdm(total=stages[-1].end, initial=resumed, desc="training nano", unit="step")
    with (out / "log.jsonl").open("a") as log:
        for stage in stages:
            for step in range(max(resumed, stage.first), stage.end):
                if step == stage.first > 0:  # as if from the files that the stage before would have left
                    with torch.no_grad():
                        for parameter in model.parameters():  # not the buffers: rotary frequencies stay exact
                            parameter.copy_(parameter.half())
                    optimizers = make_optimizers(model)
                rate = stage.rate(step)
                losses = {}
                for source, (rows, weight) in stage.mix.items():
                    ids, scored = batches.batch(source, rows, step, stage.marked)
                    loss = loss_of(model, ids, scored)
                    (weight * loss).backward()
                    losses[source] = loss.item()
                    tokens += ids.numel()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                for optimizer, share in zip(optimizers, (1.0, 1 / 3), strict=True):
                    for group in optimizer.param_groups:
                        group["lr"] = share * rate
                    optimizer.step()
                    optimizer.zero_grad()
                if step % 20 == 0 or step == stage.end - 1:
                    spent = time.time() - started
                    line = {"step": step, "rate": rate, "seconds": round(spent), "tokens_per_s": round(tokens / spent)}
                    log.write(json.dumps(line | {k: round(v, 4) for k, v in losses.items()}) + "\n")
                    log.flush()
                    bar.set_postfix({k: f"{losses[k]:.3f}" for k in ("prose", "arithmetic", "recall")})
                bar.update()
                if (step + 1) % checkpoint_every == 0 or step == stage.end - 1:
                    save_checkpoint(out, model, optimizers, step + 1)
    bar.close()
    export(model, tokenizer, out)


def export(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Ordinary Hugging Face files, weights in float16."""
    model.to(torch.float16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    # transformers 5 writes a class name that version 4 does not know, and reads both.
    config = out / "tokenizer_config.json"
    config.write_text(config.read_text().replace('"TokenizersBackend"', '"PreTrainedTokenizerFast"'))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/nano"))
    parser.add_argument("--from", dest="start", type=Path, help="a folder with the weights of the stage before --stage")
    parser.add_argument("--stage", type=int, default=1, choices=range(1, len(STAGES) + 1), help="the one to begin with")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if (args.start is None) != (args.stage == 1):
        parser.error("--from and --stage above 1 go together")
    train(args.out, STAGES[args.stage - 1 :], args.seed, args.start)


if __name__ == "__main__":
    main()
