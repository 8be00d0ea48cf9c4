"""Tokens per second of a whole model, put together from its measured layers.

    step = sum over matrices of copies * seconds(matrix, M) + seconds(head, M) + KV bytes / copy bandwidth
    tokens per second = M / step

M requests decode together, one token each a step. The head stays in 16 bits, and so does the KV cache, which every
step reads once for `context` tokens of each request. The model is taken to lie on one device, whether it fits or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from qlab.deploy import ModelSpec, spec

from .contestant import DENSE
from .layers import SHORT
from .results import Results

NOT_INCLUDED = (
    "attention beyond reading the cache",
    "norms, positions and activation functions",
    "launches that wait for the host",
    "sampling",
    "communication between devices",
)
KV_BYTES = 2  # of a number in the cache
NO_LAYER = ("torch-int-mm",)  # sums without their scales


@dataclass(frozen=True)
class Estimate:
    """One model, one kernel, one batch. Seconds are those of one step."""

    model: str
    kernel: str
    dtype: str
    tokens: int  # M, the requests that decode together
    context: int
    layers: float
    head: float
    kv_cache: float

    @property
    def step(self) -> float:
        return self.layers + self.head + self.kv_cache

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.step

    def to_dict(self) -> dict[str, Any]:
        """With the sums, ready for JSON."""
        return asdict(self) | {"step": self.step, "tokens_per_s": self.tokens_per_s}


def estimate(
    model: ModelSpec,
    kernel: str,
    dtype: str,
    tokens: int,
    context: int,
    seconds: Mapping[tuple[str, int, int, int, str], float],
    copy: float,
) -> Estimate | None:
    """The estimate, or None if a matrix was not measured.

    Args:
        seconds: medians by `Row.key`: kernel, outputs, inputs, tokens, type.
        copy: bytes per second.
    """
    parts = {(kernel, matrix.rows, matrix.columns, tokens, dtype): 0 for matrix in model.matrices()}
    for matrix in model.matrices():
        parts[kernel, matrix.rows, matrix.columns, tokens, dtype] += matrix.active
    head = (DENSE, *model.embedding_shape, tokens, dtype)
    if head not in seconds or not parts.keys() <= seconds.keys():
        return None
    cache = KV_BYTES * model.kv_values_per_token * context * tokens
    layers = sum(count * seconds[part] for part, count in parts.items())
    return Estimate(model.name, kernel, dtype, tokens, context, layers, seconds[head], cache / copy)


def of_results(found: Results, context: int) -> list[dict[str, Any]]:
    """Every estimate that the rows of a run allow, for the models whose layers it may have measured."""
    if found.ceilings is None:
        return []
    seconds = {row.key: row.seconds for row in found.rows}
    combinations = dict.fromkeys(
        (row.kernel, row.dtype, row.tokens) for row in found.rows if row.kernel not in NO_LAYER
    )
    all_of_them = [
        estimate(spec(name), kernel, dtype, tokens, context, seconds, found.ceilings.copy)
        for name in SHORT.values()
        for kernel, dtype, tokens in combinations
    ]
    return [one.to_dict() for one in all_of_them if one is not None]
