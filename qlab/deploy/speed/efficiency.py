"""What software reaches of a data sheet: few numbers, each with its source, and whether it was recorded or assumed.

A data sheet gives bandwidth and matrix rates. A stack, the software between a model and a GPU, reaches a part of them
and adds time of its own: kernels too small to keep a GPU busy, launches, a scheduler. `PARAMETERS` has an entry for
each such number. "all.read_16" holds for every stack that has none of its own, "vllm.step" for that one alone.

    "recorded"    measured by `qlab bench` on that GPU; only the stack "server" uses these, as they are of our kernels
    "published"   found from numbers that others measured, named in `source`
    "assumed"     nobody measured it; `source` says why this value

Published ones are fitted to published speeds of whole models, all together (`validation.fit`), and rounded to two
digits. A parameter belongs to a stack, never to a row: what it misses is listed as a miss.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any, Literal

from ..entries import plain, suggestion
from ..hardware import Gpu, gpu

RECORDED = Path(__file__).parents[2] / "bench" / "recorded"  # what `qlab bench --out` wrote


@dataclass(frozen=True)
class Parameter:
    """One number of a stack: a part of a data sheet's rate, seconds, or a count."""

    value: float
    basis: Literal["recorded", "published", "assumed"]
    source: str

    @property
    def fitted(self) -> bool:
        """Whether it was found from published speeds of whole models, together with others."""
        return self.source == _FIT


@dataclass(frozen=True)
class Stack:
    """What a stack makes of a device. Parts are of the data sheet, from 0 to 1; times are seconds.

    Args:
        read_16, read_8, read_4: of the bandwidth, while weights of so many bits (read_4: or fewer) are read.
        cache: of the bandwidth, while keys and values are read.
        expanded: how often these are copied or read again at the width of all query heads, before attention.
        matrix_16, matrix_8, matrix_4: of the matrix rate, in products of numbers of so many bits.
        unpack: of what such a product reaches, what is left where it unpacks a narrower weight on the way.
        unpack_operations: of the plain 32-bit rate, operations for each weight that is unpacked before the product.
        fused_tokens: up to so many tokens a weight is unpacked inside of the product, above before it.
        attention: of the 16-bit matrix rate, in attention over a prompt.
        layer: seconds of each layer on the device, beside products and attention.
        step: seconds of each pass on the host, while the device waits.
        host_layer, host_product: seconds in which the host launches a layer, and each quantized product more. The
            device works meanwhile, so that only the longer of the two counts. 0 where a CUDA graph is replayed.
        all_reduce: seconds until a sum over GPUs begins to move.
        link: of the link's bandwidth, in such a sum.
    """

    name: str
    read_16: float = 1.0
    read_8: float = 1.0
    read_4: float = 1.0
    cache: float = 1.0
    expanded: float = 0.0
    matrix_16: float = 1.0
    matrix_8: float = 1.0
    matrix_4: float = 1.0
    unpack: float = 1.0
    unpack_operations: float = 0.0
    fused_tokens: float = float("inf")
    attention: float = 1.0
    layer: float = 0.0
    step: float = 0.0
    host_layer: float = 0.0
    host_product: float = 0.0
    all_reduce: float = 0.0
    link: float = 1.0

    def read(self, bits: int) -> float:
        """The part of the bandwidth at which weights of so many bits are read."""
        return self.read_16 if bits >= 16 else self.read_8 if bits > 4 else self.read_4

    def matrix(self, bits: int) -> float:
        """The part of the matrix rate that products of numbers of so many bits reach."""
        return self.matrix_16 if bits >= 16 else self.matrix_8 if bits > 4 else self.matrix_4


DATASHEET = Stack("datasheet")  # reaches everything; no kernel does

STACKS = {
    "server": "a server with continuous batching; kernels as recorded on the GPU, if they were, else as vLLM's",
    "vllm": "vLLM 0.6 and later",
    "vllm torchao int8": "vLLM with torchao's weight-only INT8",
    "tensorrt-llm": "TensorRT-LLM, FasterTransformer before it, QServe",
    "single": "loops for one user: TinyChat, ExLlamaV2",
    "gpt-fast": "gpt-fast: PyTorch compiled, with PyTorch's own 4-bit kernel",
    "transformers": "transformers in eager mode",
    "transformers gptq": "transformers with AutoGPTQ's kernels",
    "transformers awq": "transformers with AutoAWQ's kernels",
    "transformers nf4": "transformers with bitsandbytes NF4",
    "transformers int8": "transformers with bitsandbytes INT8, outliers not taken apart",
    "transformers int8 outliers": "transformers with LLM.int8()",
    "datasheet": "no losses at all",
}

_FIT = "fitted, with the others, to the published speeds that depend on it: validation.informs() names them"
_GRAPH = "launches are recorded in a CUDA graph and replayed"


def _fit(value: float) -> Parameter:
    return Parameter(value, "published", _FIT)


def _assumed(value: float, why: str) -> Parameter:
    return Parameter(value, "assumed", why)


PARAMETERS: dict[str, Parameter] = {
    "all.read_16": _fit(0.92),  # the most that the search allows
    "all.read_8": _fit(0.88),
    "all.read_4": _fit(0.84),
    "all.cache": _fit(0.67),
    "all.expanded": _assumed(0.0, "attention kernels read shared keys and values where they are"),
    "all.matrix_16": _fit(0.68),
    "all.matrix_8": _fit(0.51),
    "all.matrix_4": _fit(0.38),
    "all.unpack": _fit(0.66),
    "all.unpack_operations": _fit(150.0),
    "all.fused_tokens": _assumed(float("inf"), "kernels that unpack on the way are the rule"),
    "all.attention": _assumed(0.4, "below the 0.5 to 0.7 that FlashAttention-2's authors print for an A100"),
    "all.layer": _fit(6e-5),
    "all.step": _assumed(0.0, "a loop without a scheduler"),
    "all.host_layer": _assumed(0.0, _GRAPH),
    "all.host_product": _assumed(0.0, _GRAPH),
    "all.all_reduce": _assumed(1.5e-5, "NCCL takes 10 to 20 microseconds for small sums over NVLink, as remembered"),
    "all.link": Parameter(
        0.77, "published", "nccl-tests on 4 x H100: 366 GB/s, 77 % of the link (nccl-collectives-bench, 2026-05-31)"
    ),
    "vllm.step": _fit(2.3e-3),
    "vllm torchao int8.fused_tokens": _assumed(1.0, "x @ w.to(x.dtype), which a compiler fuses for one row only"),
    "gpt-fast.read_8": _fit(0.71),
    "gpt-fast.read_4": _fit(0.56),
    "transformers.expanded": _fit(3.5),
    "transformers.layer": _fit(3.2e-4),
    "transformers.host_layer": _fit(9.1e-4),
    "transformers gptq.read_8": _fit(0.47),
    "transformers gptq.read_4": _fit(0.34),
    "transformers awq.host_product": _fit(2.7e-5),
    "transformers nf4.host_product": _fit(4.6e-6),
    "transformers nf4.fused_tokens": _assumed(1.0, "bitsandbytes 0.45: the 4-bit kernel takes one row, others unpack"),
    "transformers int8.host_product": _fit(9.7e-5),
    "transformers int8 outliers.host_product": _fit(2.6e-4),
}

# How long a host takes for what a server's core does in 1: single-thread speed, which launches depend on.
HOSTS: dict[str, Parameter] = {
    "server": _assumed(1.0, "the unit"),
    "desktop": _fit(0.5),
    "small": _fit(1.7),
}

# Bytes per second in one direction. NVLink 2 to 5 have 300, 600, 900 and 1,800 GB/s in both (data/instances.json has
# them by instance); PCIe 3, 4 and 5 with 16 lanes have 16, 32 and 64 GB/s in one.
_NVLINK = {"Volta": 150e9, "Ampere": 300e9, "Hopper": 450e9, "Blackwell": 900e9, "Blackwell Ultra": 900e9}
_PCIE = {"Volta": 16e9, "Turing": 16e9, "Ampere": 32e9, "Ada": 32e9, "Hopper": 64e9, "Blackwell": 64e9}


def stack(name: str | Stack, where: str | Gpu | None = None) -> Stack:
    """A stack by name, on a GPU: only "server" differs from one GPU to another.

    Raises:
        TypeError, ValueError: no such stack; a recording that is damaged.
    """
    if isinstance(name, Stack):
        return name
    return _stack(name, gpu(where) if where is not None and name == "server" else None)


def origins(name: str, where: str | Gpu | None = None) -> dict[str, Parameter]:
    """For each field of a stack the parameter that it takes, with its basis and its source. Raises as `stack`."""
    if not isinstance(name, str):
        raise TypeError(f"kernels: got {type(name).__name__}; give the name of a stack, such as 'vllm'")
    if name not in STACKS:
        raise ValueError(f"kernels: {name!r} is not known; {suggestion(name, STACKS)}")
    if name == "datasheet":
        return {field: Parameter(getattr(DATASHEET, field), "assumed", "the data sheet") for field in FIELDS}
    table = PARAMETERS | (recorded(gpu(where)) if where is not None and name == "server" else {})
    return {field: table[_key(name, field, table)] for field in FIELDS}


def from_table(name: str, table: Mapping[str, float]) -> Stack:
    """A stack made of other numbers than those of `PARAMETERS`, by the same names."""
    return Stack(name, **{field: table[_key(name, field, table)] for field in FIELDS})


def link_bandwidth(where: str | Gpu) -> float:
    """Bytes per second from one GPU to others in one direction; PCIe 4 where the architecture is not known."""
    found = gpu(where)
    if found.form_factor.startswith("SXM"):
        return _NVLINK.get(found.architecture, 300e9)
    return _PCIE.get(found.architecture, 32e9)


def recorded(where: Gpu, folder: Path = RECORDED) -> dict[str, Parameter]:
    """What the newest recording on that GPU says of kernels, as parameters of the stack "server"; may be empty.

    Medians over shapes: bandwidth from one token, rates from 2,048 tokens or more.

    Raises:
        ValueError: a file in the folder is no recording, or lacks what one has.
    """
    runs = []
    for path in sorted(folder.glob("*.json")):
        try:
            run = json.loads(path.read_text(encoding="utf-8"))
            if run["settings"]["device"] == "cuda" and _is(run["hardware"]["name"], where):
                runs.append((run["date"], path.name, run["rows"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"file: {path.name} is no recording of qlab bench ({error}); measure anew") from error
    if not runs:
        return {}
    date, name, rows = max(runs, key=lambda run: run[0])

    def part(kernel: str, of: Callable[[Mapping[str, Any]], float], full: float | None, tokens: range) -> float | None:
        found = [of(row) for row in rows if row["kernel"] == kernel and row["tokens"] in tokens]
        return min(1.0, median(found) / full) if found and full else None

    bandwidth, one, many = where.bandwidth_gb_per_s, range(1, 2), range(2048, 2**30)
    values = {
        "read_16": part("dense", _gb_per_s, bandwidth, one),
        "read_8": part("qlab-int8", _gb_per_s, bandwidth, one),
        "read_4": part("qlab-int4-g128", _gb_per_s, bandwidth, one),
        "matrix_16": part("dense", _tflops, where.fp16_tensor_tflops, many),
        "matrix_8": part("qlab-w8a8", _tflops, where.int8_tensor_tops, many),
    }
    unpacking = part("qlab-int4-g128", _tflops, where.fp16_tensor_tflops, many)
    if unpacking and values["matrix_16"]:
        values["unpack"] = min(1.0, unpacking / values["matrix_16"])
    source = f"qlab bench on {where.name}, {date[:10]}, {name}"
    return {f"server.{field}": Parameter(value, "recorded", source) for field, value in values.items() if value}


FIELDS = tuple(field.name for field in fields(Stack) if field.name != "name")


@lru_cache(maxsize=64)
def _stack(name: str, where: Gpu | None) -> Stack:
    if name == "datasheet":
        return DATASHEET
    return Stack(name, **{field: parameter.value for field, parameter in origins(name, where).items()})


def _key(name: str, field: str, table: Mapping[str, Any]) -> str:
    """Where a stack finds a number: its own, that of the stack it is a kind of, that of all."""
    family = "vllm" if name == "server" else name.split()[0]
    return next(key for owner in (name, family, "all") if (key := f"{owner}.{field}") in table)


def _is(name: str, where: Gpu) -> bool:
    """Whether a device that CUDA names so is this GPU: "NVIDIA H200", "NVIDIA A100-SXM4-80GB"."""
    asked, words = set(plain(where.name).split("-")), set(plain(name).split("-"))
    return asked <= words and ("pcie" in words) == ("pcie" in asked)


def _gb_per_s(row: Mapping[str, Any]) -> float:
    return float(row["gb_per_s"])


def _tflops(row: Mapping[str, Any]) -> float:
    return float(row["flops"] / row["seconds"] / 1e12)
