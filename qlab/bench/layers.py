"""The matrices that are multiplied: those of Llama-3-8B and 70B, or any others, as `qlab.deploy` has them.

A shape is (outputs, inputs), as in `nn.Linear`. Matrices of the same shape are measured once and go by one name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from qlab.deploy import ModelSpec, names, spec

SHORT = {"8b": "Llama-3-8B", "70b": "Llama-3-70B"}


@dataclass(frozen=True)
class Shape:
    """One shape to measure. A head stays in 16 bits, and decoding needs it for a batch of tokens at most."""

    name: str
    outputs: int
    inputs: int
    head: bool = False

    @property
    def size(self) -> str:
        return f"{self.outputs}x{self.inputs}"


def shapes(asked: Sequence[str]) -> list[Shape]:
    """The shapes of some names, each once: "8b", "70b", a model that `qlab.deploy` knows, "8192", "4096x14336".

    Raises:
        ValueError: a name that is none of these.
    """
    found: dict[tuple[int, int], Shape] = {}
    for name in asked:
        for shape in _of(name.strip()):
            found.setdefault((shape.outputs, shape.inputs), shape)
    if not found:
        raise ValueError("shapes: got none; give 8b, 70b, the name of a model, 8192 or 4096x14336")
    return list(found.values())


def of_model(model: ModelSpec, short: str) -> list[Shape]:
    """The matrices of a layer that have one shape under one name, and the head."""
    grouped: dict[tuple[int, int], list[str]] = {}
    for matrix in model.matrices():
        grouped.setdefault((matrix.rows, matrix.columns), []).append(matrix.name)
    layers = [Shape(f"{short} {'/'.join(group)}", *size) for size, group in grouped.items()]
    return [*layers, Shape(f"{short} head", *model.embedding_shape, head=True)]


def _of(name: str) -> list[Shape]:
    if name.lower() in SHORT:
        return of_model(spec(SHORT[name.lower()]), name.lower())
    if size := re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", name):
        outputs, inputs = int(size[1]), int(size[2] or size[1])
        return [Shape(f"{outputs}x{inputs}", outputs, inputs)]
    if name in names():
        return of_model(spec(name), name)
    known = ", ".join([*SHORT, *names()])
    raise ValueError(f"shapes: got {name!r}; give one of {known}, or sizes such as 8192 and 4096x14336 (out x in)")
