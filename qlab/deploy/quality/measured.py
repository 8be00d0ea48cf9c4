"""nano's answers at several precisions, one by one: the quality side of routing and monitoring, without torch.

`python -m qlab.models.measure_quality` wrote the file, from held-out examples with one right answer each. The numbers
are those of a model of 5 million parameters on made-up workloads. They show how a decision is made; which way it goes
for a 70B model, only answers of that model can say.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..entries import check_origin, look_up

DATA = Path(__file__).parents[1] / "data" / "nano_quality.json"
NATS = 1e-5  # unit of the doubts in the file
REFERENCE = "16-bit"


@dataclass(frozen=True)
class Answers:
    """What one method answered on one workload; the examples are the same, in the same order, for all methods."""

    correct: tuple[bool, ...]
    same: tuple[bool, ...]  # whether the text is that of the 16-bit model
    confidence: tuple[float, ...]  # probability that the model gives its own answer, 0 to 1

    @property
    def accuracy(self) -> float:
        """The part of the answers that is right."""
        return sum(self.correct) / len(self.correct)

    @property
    def stderr(self) -> float:
        """Standard error of `accuracy`; 0 where all are right, which is not to say that none would be wrong."""
        return math.sqrt(self.accuracy * (1 - self.accuracy) / (len(self.correct) - 1))


@dataclass(frozen=True)
class Method:
    """One precision. KL is in nats per token of prose and code, against the 16-bit model."""

    name: str
    arguments: dict[str, Any]  # of `quantize_model`; empty for the model as it is
    bits_per_weight: float
    kl: float
    kl_stderr: float
    answers: dict[str, Answers]  # by workload
    source: str
    date: str
    confidence: str  # how far to trust the numbers


@dataclass(frozen=True)
class Quality:
    """The file: every method, and the length of every prompt in tokens."""

    methods: dict[str, Method]
    tokens: dict[str, tuple[int, ...]]  # by workload
    origin: dict[str, Any]  # command, seed, split, examples, versions, …

    @property
    def workloads(self) -> tuple[str, ...]:
        return tuple(self.tokens)

    def method(self, name: str) -> Method:
        """The method of that name, in any case. Raises ValueError or TypeError where there is none."""
        found: Method = look_up("method", name, self.methods)
        return found

    def __str__(self) -> str:
        width = max(map(len, self.methods))
        lines = [f"{'right answers':{width}} " + " ".join(f"{name:>11}" for name in self.workloads) + f" {'KL':>8}"]
        for method in self.methods.values():
            rates = " ".join(f"{100 * method.answers[name].accuracy:10.1f}%" for name in self.workloads)
            lines.append(f"{method.name:{width}} {rates} {method.kl:>8.2g}")
        return "\n".join([*lines, f"nano, {self.origin['examples']} held-out examples of each workload."])


@cache
def quality(path: Path = DATA) -> Quality:
    """Read the file.

    Raises:
        ValueError: an entry without source, date or confidence, or answers that do not fit the examples.
    """
    document = json.loads(path.read_text(encoding="utf-8"))
    tokens = {workload: tuple(lengths) for workload, lengths in document.pop("tokens").items()}
    methods = {}
    for name, entry in document.pop("methods").items():
        where = f"{path.name}: {name}"
        check_origin(where, entry)
        if entry["workloads"].keys() != tokens.keys():
            raise ValueError(
                f"{where}: its workloads are {', '.join(entry['workloads'])}; allowed is {', '.join(tokens)}"
            )
        answers = {}
        for workload, rows in entry["workloads"].items():
            sizes = {len(rows[field]) for field in ("correct", "same", "doubt")}
            if sizes != {len(tokens[workload])}:
                raise ValueError(f"{where}: {workload} has {sizes} answers for {len(tokens[workload])} prompts")
            answers[workload] = Answers(
                tuple(digit == "1" for digit in rows["correct"]),
                tuple(digit == "1" for digit in rows["same"]),
                tuple(math.exp(-NATS * doubt) for doubt in rows["doubt"]),
            )
        methods[name] = Method(
            name,
            entry["arguments"],
            entry["bits_per_weight"],
            entry["kl"]["value"],
            entry["kl"]["stderr"],
            answers,
            entry["source"],
            entry["date"],
            entry["confidence"],
        )
    return Quality(methods, tokens, document)
