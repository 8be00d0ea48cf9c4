"""Measure nano at several precisions and write its model card: `python -m qlab.models.card FOLDER`.

`scores.json` keeps the numbers as measured; `README.md` is the card that people read. Both are written
from the weights in the folder, never by hand.
"""

from __future__ import annotations

import argparse
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from .evaluate import evaluate
from .load import load
from .quantize import quantize_model
from .train_nano import STAGES
from .workloads import WORKLOADS, examples

EXAMPLES = 1000
# Round to nearest with 16-bit scales; None is the model as it is.
PRECISIONS: dict[str, dict[str, Any] | None] = {
    "16-bit": None,
    "INT8 channel": {"bits": 8, "group_size": "channel"},
    "INT4 g128": {"bits": 4, "group_size": 128},
    "INT4 channel": {"bits": 4, "group_size": "channel"},
    "INT3 g128": {"bits": 3, "group_size": 128},
    "INT3 channel": {"bits": 3, "group_size": "channel"},
    "INT3 tensor": {"bits": 3, "group_size": "tensor"},
    "INT2 g32 asymmetric": {"bits": 2, "group_size": 32, "symmetric": False},
    "INT2 channel": {"bits": 2, "group_size": "channel"},
}

_CARD = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# nano

The embedded model of qlab: a Llama of {parameters:,} parameters that a laptop measures in seconds.
It exists to be quantized. Six workloads with one exact answer each show where the damage lands.

| | |
|---|---|
| layers | {layers}, hidden size {hidden}, MLP {mlp} |
| attention | {heads} query heads, {kv_heads} key-value heads of {head_dim} (GQA), RoPE |
| vocabulary | {vocab}, byte-level BPE, every digit a token of its own |
| context | {context} positions; trained on rows of up to 512 tokens |
| weights | float16, tied embedding |

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
tokens = tokenizer("347+285=", return_tensors="pt")
print(tokenizer.decode(model.generate(**tokens, max_new_tokens=8)[0]))
```

## Trained on

- Text that qlab generates (`qlab/models/workloads.py`): one prompt in sixteen, chosen by its digest, is held out.
- Docstrings, language reference and source of the Python {python} standard library, without the sixteen modules
  whose excerpts measure perplexity (`qlab/models/corpus.py`). That text is under the PSF licence, version 2.

{steps:,} steps of up to 9,000 tokens in three stages on CPU cores, bfloat16 autocast, Muon and AdamW:
`python -m qlab.models.train_nano`.

## Scores

Exact match in percent on {examples:,} held-out examples of each workload (standard error at most
{worst_error:.1f} points), then perplexity on held-out text and mean KL to the 16-bit model in nats per token.
Round to nearest, computed in float32.

{table}

One prompt of each workload, with its answer:

{samples}

## Limits

It knows nothing but its workloads and the look of Python. It has no emergent outliers: those appear in models a
thousand times larger. Numbers measured on it show mechanisms, not what a 70B model will lose.
"""


def measure(folder: Path) -> dict[str, Any]:
    """Scores of every precision in `PRECISIONS`, with what they were measured with."""
    reference, tokenizer = load(folder)
    scores = {}
    for name, options in tqdm(PRECISIONS.items(), desc="precisions"):
        model, _ = load(folder)
        if options is not None:
            quantize_model(model, method="rtn", progress=False, **options)
        # The reference is needed for the text only: its answers are those of the first row.
        text = evaluate(model, reference, tokenizer=tokenizer, workloads=(), tokens=16384, progress=False)
        answers = evaluate(model, tokenizer=tokenizer, texts={}, examples=EXAMPLES, progress=False)
        scores[name] = text.to_dict() | {"accuracy": answers.to_dict()["accuracy"]}
    return {
        "examples": EXAMPLES,
        "versions": {name: version(name) for name in ("torch", "transformers")} | {"python": platform.python_version()},
        "scores": scores,
    }


def write_card(folder: Path, steps: int) -> None:
    """Measure the model in `folder` and write `scores.json` and `README.md` beside it."""
    record = measure(folder)
    (folder / "scores.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    model, _ = load(folder)
    config = model.config
    rows = [
        f"| {name} | "
        + " | ".join(f"{100 * s['accuracy'][w]['value']:.1f}" for w in WORKLOADS)
        + f" | {s['perplexity']['prose']['value']:.2f} | {s['perplexity']['code']['value']:.2f}"
        + f" | {s['kl']['value']:.4f} |"
        for name, s in record["scores"].items()
    ]
    header = f"| precision | {' | '.join(WORKLOADS)} | prose | code | KL |"
    table = "\n".join([header, "|---|" + "---|" * (len(WORKLOADS) + 3), *rows])
    samples = "\n".join(map(_sample, WORKLOADS))
    card = _CARD.format(
        parameters=model.num_parameters(),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        mlp=config.intermediate_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        vocab=config.vocab_size,
        context=config.max_position_embeddings,
        python=".".join(platform.python_version_tuple()[:2]),
        steps=steps,
        examples=EXAMPLES,
        worst_error=100 * 0.5 / EXAMPLES**0.5,
        table=table,
        samples=samples,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def _sample(workload: str) -> str:
    """One example as a list item; the middle of a long prompt is left out."""
    example = examples(workload, 1)[0]
    prompt = example.prompt if len(example.prompt) < 200 else f"{example.prompt[:40]} … {example.prompt[-40:]}"
    return f"- {workload}: `{prompt}` → `{example.answer.strip()}`".replace("\n", " ⏎ ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=STAGES[-1].end, help="training steps of these weights")
    args = parser.parse_args()
    write_card(args.folder, args.steps)


if __name__ == "__main__":
    main()
