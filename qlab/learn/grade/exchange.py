"""Plain values in files: how the inputs get into the box, and the answers out of it.

One safetensors file for each question. Its header carries, as text, a JSON tree; the leaves that are tensors point to
the file's tensors by name. Nothing in it can be executed, and a reader decides what it accepts: the file comes from a
process in which a stranger's code has run.

The tree: null, booleans, strings and finite numbers are themselves, a list is a tuple, and everything else is an object
with one key: {"float": "nan"}, {"dict": [[key, value], …]}, {"tensor": name}, {"foreign": type}.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from ..files import printable, read_strictly, write_whole
from ..observe import Foreign, Observation
from ..question import Case, Launch

SCHEMA = "qlab-exchange-1"
MAX_BYTES = 4 << 20  # of a file; an answer of the course takes some kilobytes
MAX_NODES = 20_000
MAX_DEPTH = 16
_LARGEST = 2**63  # whole numbers beyond 64 bits are no answer, and floats cannot hold them
_NAMES = {float("inf"): "inf", float("-inf"): "-inf"}
_DTYPES = frozenset(
    getattr(torch, name)
    for name in "bool uint8 uint16 uint32 uint64 int8 int16 int32 int64 float16 bfloat16 float32 float64 "
    "float8_e4m3fn float8_e5m2".split()
)


class ExchangeError(ValueError):
    """A file that does not hold what it should, or a value that cannot be carried."""


def suffixed(name: str) -> str:
    """The file of a question, by its grade_id."""
    return f"{name}.safetensors"


def write_cases(folder: Path, name: str, cases: Sequence[Case]) -> None:
    """Write the arguments of the calls, and how kernels are launched.

    The cases' names stay here: they would tell what is tested.
    """
    launches = [case.launch and astuple(case.launch) for case in cases]
    _write(folder, name, {"cases": [(case.args, launch) for case, launch in zip(cases, launches, strict=True)]})


def read_cases(folder: Path, name: str) -> list[Case]:
    """The cases of a question, without their names."""
    tree = _read(folder / suffixed(name))
    return [Case("", args, launch and Launch(*launch)) for args, launch in _field(tree, "cases", tuple)]


def write_observations(folder: Path, name: str, observations: Sequence[Observation]) -> None:
    """Write what the calls of a function did."""
    rows = tuple((seen.kind, seen.value, seen.message, seen.changed_input) for seen in observations)
    _write(folder, name, {"observations": rows})


def read_observations(name: str, folder: int) -> list[Observation]:
    """What somebody says the calls did.

    Args:
        name: the question's grade_id.
        folder: the open folder that the answers lie in.

    Raises:
        FileNotFoundError: nothing came back.
        ExchangeError: what came back is not readable.
    """
    return [_observation(row) for row in _field(_read(suffixed(name), folder), "observations", tuple)]


def _observation(row: Any) -> Observation:
    match row:
        case (("value" | "error" | "not attempted") as kind, value, str() as message, bool() as changed):
            return Observation(kind, value, printable(message, 1000), changed)
    raise ExchangeError("an observation is not one")


def _write(folder: Path, name: str, content: dict[str, Any]) -> None:
    tensors: dict[str, torch.Tensor] = {}
    tree = {"schema": SCHEMA} | {key: encode(value, tensors) for key, value in content.items()}
    raw = save(tensors, metadata={"tree": json.dumps(tree, allow_nan=False)})
    if len(raw) > MAX_BYTES:
        raise ExchangeError(f"the values take {len(raw):,} bytes; {MAX_BYTES:,} are allowed")
    write_whole(folder / suffixed(name), raw)


def _read(path: str | Path, folder: int | None = None) -> dict[str, Any]:
    try:
        raw = read_strictly(path, MAX_BYTES, folder)
        length = int.from_bytes(raw[:8], "little")
        tree = json.loads(json.loads(raw[8 : 8 + length])["__metadata__"]["tree"], parse_constant=_refuse)
        tensors = load(raw)
    except FileNotFoundError:
        raise
    except Exception as error:  # the parsers fail in many ways on a file that was made to break them
        raise ExchangeError(f"not an exchange file ({type(error).__name__}: {printable(str(error), 200)})") from None
    if not isinstance(tree, dict) or tree.pop("schema", None) != SCHEMA:
        raise ExchangeError("not an exchange file of this version")
    budget = [MAX_NODES]
    return {str(key): _decode(value, tensors, budget, 0) for key, value in tree.items()}


def _field(tree: dict[str, Any], name: str, kind: type) -> Any:
    if not isinstance(tree.get(name), kind):
        raise ExchangeError(f"it holds no {name}")
    return tree[name]


def encode(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """The node of a value; its tensors go into `tensors`.

    Raises:
        ExchangeError: it is not plain.
    """
    if isinstance(value, Foreign):
        return {"foreign": value.type_name}
    if isinstance(value, torch.Tensor):
        if value.layout is not torch.strided or value.dtype not in _DTYPES:
            return {"foreign": f"tensor of {value.dtype} and layout {value.layout}"}
        name = str(len(tensors))
        tensors[name] = value.detach().clone(memory_format=torch.contiguous_format)
        return {"tensor": name}
    if isinstance(value, tuple | list):
        return [encode(item, tensors) for item in value]
    if isinstance(value, dict):
        return {"dict": [[str(key), encode(item, tensors)] for key, item in value.items()]}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": _NAMES.get(value, "nan")}
    if isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
        return {"foreign": "int beyond 64 bits"}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ExchangeError(f"a {type(value).__name__} is not a plain value")


def _decode(node: Any, tensors: dict[str, torch.Tensor], budget: list[int], depth: int) -> Any:
    budget[0] -= 1
    if budget[0] < 0 or depth > MAX_DEPTH:
        raise ExchangeError("too many values, or too deeply nested")
    match node:
        case None | bool() | str() | float():
            return node
        case int():
            return node if -_LARGEST <= node < _LARGEST else Foreign("int beyond 64 bits")
        case list():
            return tuple(_decode(item, tensors, budget, depth + 1) for item in node)
        case {"float": "nan" | "inf" | "-inf" as text, **rest} if not rest:
            return float(text)
        case {"tensor": str() as name, **rest} if not rest and name in tensors:
            return tensors[name]
        case {"foreign": str() as name, **rest} if not rest:
            return Foreign(printable(name, 100))
        case {"dict": list() as pairs, **rest} if not rest:
            return dict(_pair(pair, tensors, budget, depth) for pair in pairs)
    raise ExchangeError("a value of no kind that is known")


def _pair(pair: Any, tensors: dict[str, torch.Tensor], budget: list[int], depth: int) -> tuple[str, Any]:
    match pair:
        case [str() as key, value]:
            return key, _decode(value, tensors, budget, depth + 1)
    raise ExchangeError("an entry of a dict is not one")


def _refuse(text: str) -> Any:
    raise ExchangeError(f"{text} is not JSON")
