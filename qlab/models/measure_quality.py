"""Measure nano answer by answer at several precisions: `python -m qlab.models.measure_quality`.

Writes `qlab/deploy/data/nano_quality.json`, from which routing and monitoring work without torch. `evaluate` gives
rates; a router and a monitor need more: for every held-out example whether the answer was right, whether it was the
answer of the 16-bit model, and how sure the model was of it. So every answer is decoded greedily, as a server would,
and its probability kept: the product of the probabilities of its tokens, end mark included.

A run that is killed goes on where it stopped: finished methods wait in a file beside the result, which replaces the
result when all are there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .evaluate import Estimate, evaluate
from .load import NANO, load
from .quantize import quantize_model, report
from .workloads import WORKLOADS, Example, examples

OUT = Path(__file__).parents[1] / "deploy" / "data" / "nano_quality.json"
COMMAND = "python -m qlab.models.measure_quality"
EXAMPLES = 500  # of each workload
SEED = 0  # of the examples
TOKENS = 8192  # of prose and of code, for perplexity and KL
BATCH = 64
NATS = 1e-5  # unit in which doubts are written
REFERENCE = "16-bit"
# Arguments of `quantize_model`; None is the model as it is. Calibrated methods see "mix", which no example is from.
METHODS: dict[str, dict[str, Any] | None] = {
    REFERENCE: None,
    "INT8 channel": {"method": "rtn", "bits": 8, "group_size": "channel"},
    "W8A8": {"method": "w8a8"},
    "FP8": {"method": "fp8"},
    "INT4 g128": {"method": "rtn", "bits": 4, "group_size": 128},
    "NF4": {"method": "nf4"},
    "GPTQ INT4 g128": {"method": "gptq", "bits": 4, "group_size": 128, "calibration": "mix"},
    "AWQ INT4 g128": {"method": "awq", "bits": 4, "group_size": 128, "calibration": "mix"},
    "INT3 g128": {"method": "rtn", "bits": 3, "group_size": 128},
    "GPTQ INT3 g128": {"method": "gptq", "bits": 3, "group_size": 128, "calibration": "mix"},
    "INT3 channel": {"method": "rtn", "bits": 3, "group_size": "channel"},
    "INT2 g32 asymmetric": {"method": "rtn", "bits": 2, "group_size": 32, "symmetric": False},
}


@dataclass(frozen=True)
class Answer:
    """What a model says on its own, and how sure it is: minus the logarithm of its probability, in nats."""

    text: str
    doubt: float


@torch.inference_mode()
def answers(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, asked: Sequence[Example]) -> list[Answer]:
    """Greedy answers in the order of the examples, cut after the length of the longest right one.

    An answer that is cut is wrong in any case: the end mark is part of what is expected.
    """
    longest = max(len(tokenizer(e.answer, add_special_tokens=False)["input_ids"]) for e in asked) + 1
    found: dict[int, Answer] = {}
    # Prompts of like length share a batch, so that little is spent on padding, which stands to the left.
    order = sorted(range(len(asked)), key=lambda i: len(asked[i].prompt))
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        prompts = tokenizer([asked[i].prompt for i in rows], padding=True, padding_side="left", return_tensors="pt")
        out = model.generate(
            **prompts.to(model.device),
            max_new_tokens=longest,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        new = out.sequences[:, prompts["input_ids"].shape[1] :]  # (rows, tokens)
        sure = torch.stack(out.logits, dim=1).float().log_softmax(-1).amax(-1)  # (rows, tokens)
        ended = new == tokenizer.eos_token_id
        said = ended.cumsum(1) - ended.long() == 0  # up to the first end mark, which counts
        for i, tokens, counted, logs in zip(rows, new, said, sure, strict=True):
            text = tokenizer.decode(tokens[counted])
            found[i] = Answer(text, -logs[counted].sum().item())
    return [found[i] for i in range(len(asked))]


def measure(
    name: str,
    asked: Mapping[str, Sequence[Example]],
    texts_of_reference: Mapping[str, Sequence[str]] | None,
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """One entry of the file, and the answers of each workload; without a reference the method is that itself."""
    model, tokenizer = load()
    reference, arguments = load()[0], METHODS[name]
    if arguments is not None:
        quantize_model(model, progress=False, **arguments)
    lost = evaluate(model, reference, tokenizer=tokenizer, workloads=(), tokens=TOKENS, progress=False).to_dict()
    entry: dict[str, Any] = {
        "source": f"measured by {COMMAND}, greedy answers on CPU in float32",
        "date": date.today().isoformat(),
        "confidence": "high for nano, on these examples; no statement about larger models",
        "arguments": arguments or {},
        "bits_per_weight": 16.0 if arguments is None else report(model).bits_per_weight,
        **{measure: lost[measure] for measure in ("kl", "same_top", "perplexity", "perplexity_ratio")},
        "workloads": {},
    }
    texts: dict[str, list[str]] = {}
    end = tokenizer.decode([tokenizer.eos_token_id])
    for workload, rows in asked.items():
        given = answers(model, tokenizer, rows)
        texts[workload] = [answer.text for answer in given]
        expected = (texts_of_reference or texts)[workload]
        right = [answer.text == row.answer + end for answer, row in zip(given, rows, strict=True)]
        same = [answer.text == before for answer, before in zip(given, expected, strict=True)]
        accuracy = Estimate.of(torch.tensor(right))
        entry["workloads"][workload] = {
            "accuracy": {"value": accuracy.value, "stderr": accuracy.stderr},
            "correct": _digits(right),
            "same": _digits(same),
            "doubt": [round(answer.doubt / NATS) for answer in given],
        }
    return entry, texts


def run(out: Path = OUT, count: int = EXAMPLES, methods: Sequence[str] = tuple(METHODS), progress: bool = True) -> None:
    """Measure the methods that are not there yet, and write the file when all are.

    Raises:
        ValueError: a count below 2, an unknown method or no 16-bit model among them, or the finished methods beside
            `out` belong to another run.
    """
    if count < 2:
        raise ValueError(f"count: got {count}; give 2 examples or more, or there is no standard error")
    if REFERENCE not in methods or not set(methods) <= set(METHODS):
        raise ValueError(f"methods: got {list(methods)}; choose from {', '.join(METHODS)}, with {REFERENCE} among them")
    asked = {name: examples(name, count, seed=SEED) for name in WORKLOADS}
    document = _head(count)
    unfinished = out.with_suffix(".partial")
    kept: dict[str, Any] = {"head": document, "texts": None, "methods": {}}
    if unfinished.exists():
        kept = json.loads(unfinished.read_text(encoding="utf-8"))
        if kept["head"] != document:
            raise ValueError(f"out: {unfinished} is of a run with other settings or versions; delete it to begin anew")
    order = [REFERENCE, *(name for name in methods if name != REFERENCE)]
    for name in tqdm(order, desc="measuring nano", unit="method", disable=not progress, file=sys.stdout):
        if name not in kept["methods"]:
            kept["methods"][name], texts = measure(name, asked, kept["texts"])
            kept["texts"] = kept["texts"] or texts
            _write(unfinished, json.dumps(kept))
    document |= {
        "tokens": {w: _lengths(rows) for w, rows in asked.items()},
        "methods": {name: kept["methods"][name] for name in order},
    }
    _write(out, _lines(document))
    unfinished.unlink()


def _head(count: int) -> dict[str, Any]:
    return {
        "about": "nano at several precisions, answer by answer, on held-out examples. correct and same (as the 16-bit "
        f"answer): one digit for each example. doubt: minus ln of the probability of its own answer, in {NATS:g} nats. "
        "tokens: length of each prompt. KL, same_top and perplexity: on held-out prose and code. nano has 5 million "
        "parameters: these are its numbers, not those of a large model.",
        "command": COMMAND,
        "seed": SEED,
        "split": "held-out",
        "examples": count,
        "text_tokens": TOKENS,
        "versions": {
            "qlab": version("qlab"),
            "python": platform.python_version(),
            "torch": version("torch"),
            "transformers": version("transformers"),
        },
        "weights_sha256": hashlib.sha256((NANO / "model.safetensors").read_bytes()).hexdigest(),
    }


def _lengths(rows: Sequence[Example]) -> list[int]:
    tokenizer = load()[1]
    return [len(tokenizer(row.prompt)["input_ids"]) for row in rows]


def _digits(flags: Sequence[bool]) -> str:
    return "".join("1" if flag else "0" for flag in flags)


def _lines(document: Any, depth: int = 0) -> str:
    """JSON with lists of numbers on one line each: the file stays readable, and so do its changes."""
    if not isinstance(document, dict) or not document:
        return json.dumps(document, separators=(",", ":"))
    if all(not isinstance(value, (dict, list)) for value in document.values()) and depth > 1:
        return json.dumps(document)
    inner = " " * (depth + 1)
    parts = [f"{inner}{json.dumps(key)}: {_lines(value, depth + 1)}" for key, value in document.items()]
    return "{\n" + ",\n".join(parts) + "\n" + " " * depth + "}" + ("\n" if depth == 0 else "")


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".writing")
    partial.write_text(text, encoding="utf-8")
    partial.rename(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT, help="the file to write")
    parser.add_argument("--examples", type=int, default=EXAMPLES, help="of each workload")
    arguments = parser.parse_args()
    run(arguments.out, arguments.examples)
    print(f"wrote {arguments.out.name}")


if __name__ == "__main__":
    main()
