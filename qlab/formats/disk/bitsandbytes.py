"""bitsandbytes, 4 bits: NF4 and FP4 as `Linear4bit` stores them, read by transformers and vLLM.

    weight                    uint8 (ceil(out * in / 2), 1)  the codes of the flattened weight, the first of a pair high
    weight.absmax             float32 (blocks,), or uint8 where the scales are quantized again ("nested")
    weight.quant_map          float32 (16,)   the value of every code
    weight.nested_absmax      float32 (ceil(blocks / 256),)  nested only
    weight.nested_quant_map   float32 (256,)  nested only: the value of every 8-bit code
    weight.quant_state.bitsandbytes__nf4      uint8: a JSON text with the type, the block size, the dtype and the shape
                              (and nested: the second block size, its dtype and the mean of the scales); or …__fp4

    absmax[i] = nested_quant_map[code[i]] * nested_absmax[i // 256] + nested_offset

Each layer states its own block size, so that blocks may differ; data type and nesting are one for the whole file.

Blocks run through the flattened weight and may cross the ends of rows. bitsandbytes 0.50 writes such weights, but on
CPUs reads them wrongly: it starts a new block with every row. `check` refuses them; `decode` reads them rightly.

Source: bitsandbytes 0.50, `functional.QuantState.as_dict`; transformers `BitsAndBytesConfig`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from qlab.formats import codebook
from qlab.formats.codebook import NESTED_BLOCK, CodebookWeight
from qlab.formats.weight import QuantizedWeight

from . import limits

REQUIRED = ("weight", "weight.absmax")
STATE = "weight.quant_state.bitsandbytes__"
SUFFIXES = (
    *REQUIRED,
    "weight.quant_map",
    "weight.nested_absmax",
    "weight.nested_quant_map",
    STATE + "nf4",
    STATE + "fp4",
)
TYPES = ("nf4", "fp4")
BLOCKS = (32, 64, 128, 256, 512, 1024, 2048, 4096)
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def check(weights: Mapping[str, QuantizedWeight], dtype: torch.dtype | None = None) -> None:
    """Raise ValueError that names every layer which this layout cannot hold, and what would fit.

    `dtype`, the type of the model, is free: scales are float32 whatever it is.
    """
    limits.refuse("bitsandbytes", weights, CodebookWeight, (_type, _blocks, _dtype))
    limits.refuse_mixture("bitsandbytes", weights, lambda weight: (weight.data_type, weight.double_quant))


def encode(weight: CodebookWeight) -> dict[str, torch.Tensor]:
    """The tensors of a layer; they may share the memory of `weight`. Raises ValueError as `check` does."""
    check({"weight": weight})
    state: dict[str, Any] = {
        "quant_type": weight.data_type,
        "blocksize": weight.block_size,
        "dtype": str(weight.dtype).removeprefix("torch."),
        "shape": list(weight.shape),
    }
    tensors = {
        "weight": weight.packed[:, None],
        "weight.absmax": weight.absmax,
        # A copy for every layer: safetensors refuses tensors that share memory.
        "weight.quant_map": codebook.CODES[weight.data_type].clone(),
    }
    if weight.nested_absmax is not None:
        assert weight.nested_offset is not None
        state |= {
            "nested_blocksize": NESTED_BLOCK,
            "nested_dtype": "float32",
            "nested_offset": float(weight.nested_offset),
        }
        tensors["weight.nested_absmax"] = weight.nested_absmax
        tensors["weight.nested_quant_map"] = codebook.dynamic_map().clone()
    tensors[STATE + weight.data_type] = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
    return tensors


def decode(
    tensors: Mapping[str, torch.Tensor],
    settings: Mapping[str, Any],
    dtype: torch.dtype | None = None,
    name: str = "weight",
) -> CodebookWeight:
    """The inverse of `encode`. `settings` is "quantization_config".

    The type of the weight is the stored one unless `dtype` names another.
    Raises ValueError for settings that are not those of this layout, and for tensors that do not fit to them.
    """
    if not settings.get("load_in_4bit"):
        raise ValueError("quantization_config: got no load_in_4bit; of bitsandbytes only 4-bit files are read")
    state = _state(tensors, name)
    data_type, block_size, shape = state["quant_type"], state["blocksize"], tuple(state["shape"])
    nested = "nested_offset" in state
    count = shape[0] * shape[1]
    blocks = -(-count // block_size)
    parts: dict[str, torch.Tensor] = {}
    for suffix, kind, expected in (
        ("weight", None, -(-count // 2)),
        ("weight.absmax", torch.uint8 if nested else torch.float32, blocks),
        ("weight.quant_map", torch.float32, 16),
        ("weight.nested_absmax", torch.float32, -(-blocks // NESTED_BLOCK)),
        ("weight.nested_quant_map", torch.float32, 256),
    ):
        if "nested" in suffix and not nested:
            continue
        tensor = limits.take(tensors, suffix, name, *([kind] if kind else []))
        # Some trainers store the nibbles as bfloat16 or float32 numbers: only their bytes count.
        parts[suffix] = tensor.contiguous().view(torch.uint8).flatten() if kind is None else tensor
        if parts[suffix].numel() != expected:
            raise ValueError(
                f"{name}: {suffix} holds {parts[suffix].numel()} values; a weight of shape {shape} in blocks of "
                f"{block_size} has {expected}; the file is damaged"
            )
    if not torch.allclose(parts["weight.quant_map"].cpu(), codebook.CODES[data_type]) or (
        nested and not torch.allclose(parts["weight.nested_quant_map"].cpu(), codebook.dynamic_map())
    ):
        raise ValueError(
            f"{name}: the stored code values are not those of {data_type}; only the standard ones are read"
        )
    return CodebookWeight(
        packed=parts["weight"],
        absmax=parts["weight.absmax"],
        nested_absmax=parts.get("weight.nested_absmax"),
        nested_offset=torch.tensor(state["nested_offset"], dtype=torch.float32) if nested else None,
        data_type=data_type,
        block_size=block_size,
        shape=(shape[0], shape[1]),
        dtype=dtype or DTYPES[state["dtype"]],
    )


def settings(weights: Mapping[str, QuantizedWeight], skipped: Iterable[str] = ()) -> dict[str, Any]:
    """The "quantization_config" of config.json; the layers in `skipped` are named as those to leave alone.

    The layers compute in the type that their weights had.
    """
    check(weights)
    first = next(iter(weights.values()))
    assert isinstance(first, CodebookWeight)
    return {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "load_in_8bit": False,
        "bnb_4bit_quant_type": first.data_type,
        "bnb_4bit_use_double_quant": first.double_quant,
        "bnb_4bit_compute_dtype": str(first.dtype).removeprefix("torch."),
        "bnb_4bit_quant_storage": "uint8",
        "llm_int8_skip_modules": list(skipped),
    }


def _state(tensors: Mapping[str, torch.Tensor], name: str) -> dict[str, Any]:
    """The JSON text of a layer, with the values that a weight needs."""
    stored = [suffix for suffix in tensors if suffix.startswith(STATE)]
    if len(stored) != 1:
        raise ValueError(f"{name}: the file needs one tensor {name}.{STATE}nf4 or …fp4; it has {stored or 'none'}")
    try:
        state = json.loads(bytes(tensors[stored[0]].tolist()))
        good = (
            state["quant_type"] in TYPES
            and state["blocksize"] in BLOCKS
            and state["dtype"] in DTYPES
            and len(state["shape"]) == 2
            and ("nested_offset" not in state or state["nested_blocksize"] == NESTED_BLOCK)
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{name}: {stored[0]} is no JSON text of bitsandbytes ({error!r})") from error
    if not good:
        raise ValueError(
            f"{name}: {stored[0]} says {state}; allowed are the types {TYPES}, blocks of {BLOCKS}, a dtype of "
            f"{tuple(DTYPES)}, a matrix, and nested blocks of {NESTED_BLOCK}"
        )
    return state


def _type(weight: CodebookWeight) -> str | None:
    return None if weight.data_type in TYPES else f"{weight.data_type}; bitsandbytes has nf4 and fp4"


def _blocks(weight: CodebookWeight) -> str | None:
    columns, size = weight.shape[1], weight.block_size
    if size in BLOCKS and columns % size == 0:
        return None
    fitting = ", ".join(str(block) for block in BLOCKS if columns % block == 0)
    reason = "bitsandbytes has no such size" if size not in BLOCKS else "they cross the ends of rows"
    return f"blocks of {size}: {reason}; {f'blocks of {fitting} fit' if fitting else 'none fit, skip this layer'}"


def _dtype(weight: CodebookWeight) -> str | None:
    return None if weight.dtype in DTYPES.values() else f"weights of {weight.dtype}; convert the model to float32"
