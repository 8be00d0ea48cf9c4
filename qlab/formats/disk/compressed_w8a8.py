"""compressed-tensors, "int-quantized" and "float-quantized": 8-bit weights whose layers round their inputs, too.

    weight         int8 or float8_e4m3fn (out, in)
    weight_scale   (out, 1) per channel; (1,) per tensor; (ceil(out / 128), ceil(in / 128)) in blocks
    input_scale    (1,) where the scale of the inputs is static

Our int8 codes are q + 128 in a byte, and the bytes of our 8-bit floats are those of torch. Both engines, vLLM and
transformers, quantize the inputs by the settings: for each token as it comes, or with the static scale.

compressed-tensors computes a scale for int8 inputs as largest / 127.5 and uses the code -128, qlab uses 127 and does
not. So int8 outputs agree up to the rounding of inputs, while weights agree exactly. Scales are stored in float32;
transformers holds them in the type of the model, which moves a weight by up to 1/2048 of itself in float16 and 1/256
in bfloat16.

Source: compressed-tensors 0.20, `compressors/int_quantized`, `float_quantized` and `quantization/quant_args.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from qlab.formats import packing
from qlab.formats.activations import Activations
from qlab.formats.affine import SCALE_DTYPES, AffineWeight
from qlab.formats.float8 import BLOCK, Float8Weight
from qlab.formats.weight import QuantizedWeight

from . import limits

SUFFIXES = ("weight", "weight_scale", "input_scale")
REQUIRED = ("weight", "weight_scale")
FORMATS = {"int-quantized": torch.int8, "float-quantized": torch.float8_e4m3fn}


def check(weights: Mapping[str, QuantizedWeight], dtype: torch.dtype | None = None) -> None:
    """Raise ValueError that names every layer which this layout cannot hold, and what would fit.

    `dtype`, the type in which the model runs, is not looked at: one scale for a row may round a little.
    """
    kind = type(next(iter(weights.values()), None))
    rules: tuple[limits.Rule, ...] = (_eight_bits, _whole_rows) if kind is AffineWeight else (_e4m3,)
    limits.refuse("compressed-tensors with 8-bit inputs", weights, kind, rules)
    limits.refuse_mixture("compressed-tensors with 8-bit inputs", weights, _strategy)


def encode(weight: AffineWeight | Float8Weight) -> dict[str, torch.Tensor]:
    """The two tensors of a layer. The static scale of its inputs is the layer's own. Raises as `check` does."""
    check({"weight": weight})
    if isinstance(weight, Float8Weight):
        codes = weight.codes.view(torch.float8_e4m3fn)
    else:
        codes = packing.to_int8(weight.packed)
    scales = weight.scales.reshape(1) if _strategy(weight) == "tensor" else weight.scales
    return {"weight": codes, "weight_scale": scales}


def decode(
    tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any], dtype: torch.dtype, name: str = "weight"
) -> AffineWeight | Float8Weight:
    """The inverse of `encode`; `dtype` becomes the type of the weight (which the tensors do not state).

    Raises ValueError for settings that are not those of this layout, and for tensors that do not fit to them.
    """
    group = _group(settings, name)
    stored, strategy = settings["format"], group["weights"]["strategy"]
    codes = limits.take(tensors, "weight", name, FORMATS[stored])
    scales = limits.take(tensors, "weight_scale", name, *SCALE_DTYPES)
    rows, columns = codes.shape
    expected = {"channel": (rows, 1), "tensor": (1, 1), "block": (-(-rows // BLOCK), -(-columns // BLOCK))}[strategy]
    if scales.numel() != expected[0] * expected[1]:
        raise ValueError(
            f"{name}: weight_scale of shape {tuple(scales.shape)}; a weight of shape ({rows}, {columns}) has "
            f"{expected} per {strategy}; the file is damaged or its settings are not its own"
        )
    scales = scales.reshape(expected)
    if stored == "float-quantized":
        return Float8Weight(codes.view(torch.uint8), scales.float(), "e4m3", strategy, dtype)
    if strategy == "block":
        raise ValueError(f"{name}: int8 weights in blocks; allowed is 'channel' or 'tensor'")
    packed = packing.from_int8(codes)
    return AffineWeight(packed, scales, None, 8, strategy, (rows, columns), dtype)


def activations(tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any], name: str) -> Activations:
    """How the inputs of a layer are quantized. Raises ValueError for schemes that qlab does not have."""
    args = _group(settings, name)["input_activations"]
    kind = "int8" if settings["format"] == "int-quantized" else "e4m3"
    if args["dynamic"] is True:
        return Activations(kind, args["strategy"])
    return Activations(kind, "tensor", limits.take(tensors, "input_scale", name).float().reshape(1))


def settings(
    weights: Mapping[str, QuantizedWeight], skipped: Iterable[str] = (), *, activations: Activations
) -> dict[str, Any]:
    """The "quantization_config" of config.json; `activations` is how all layers quantize their inputs."""
    check(weights)
    weight = next(iter(weights.values()))
    stored = "float-quantized" if isinstance(weight, Float8Weight) else "int-quantized"
    common = {"num_bits": 8, "type": stored.partition("-")[0], "symmetric": True}
    strategy = _strategy(weight)
    return {
        "quant_method": "compressed-tensors",
        "format": stored,
        "quantization_status": "compressed",
        "ignore": list(skipped),
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": common
                | {"strategy": strategy, "dynamic": False}
                | ({"block_structure": [BLOCK, BLOCK]} if strategy == "block" else {}),
                "input_activations": common
                | {"strategy": activations.granularity, "dynamic": activations.scale is None},
                "output_activations": None,
            }
        },
    }


def _group(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The one config group, if it is of a kind that is held here."""
    groups = list((settings.get("config_groups") or {}).values())
    stored = settings.get("format")
    if len(groups) == 1 and stored in FORMATS:
        kind = {"num_bits": 8, "type": stored.partition("-")[0]}
        weights, inputs = groups[0].get("weights") or {}, groups[0].get("input_activations") or {}
        fits = all(args.get(key) == value for args in (weights, inputs) for key, value in kind.items())
        held = inputs.get("strategy") in (("token", "tensor") if inputs.get("dynamic") else ("tensor",))
        block = weights.get("strategy") != "block" or weights.get("block_structure") == [BLOCK, BLOCK]
        symmetric = weights.get("symmetric", True) and inputs.get("symmetric", True)
        if fits and held and block and symmetric and weights.get("strategy") in ("channel", "tensor", "block"):
            return groups[0]
    raise ValueError(
        f"{name}: got format {stored!r} with config groups {groups}; allowed is one group of symmetric 8-bit weights "
        "per channel, tensor or block of 128 x 128, and 8-bit inputs per token (dynamic) or per tensor"
    )


def _strategy(weight: QuantizedWeight) -> str:
    assert isinstance(weight, (AffineWeight, Float8Weight))
    return weight.granularity if isinstance(weight, Float8Weight) else str(weight.group_size)


def _eight_bits(weight: AffineWeight) -> str | None:
    return None if weight.bits == 8 and weight.zeros is None else f"{weight.label}; 8 bits, symmetric, fit"


def _whole_rows(weight: AffineWeight) -> str | None:
    return None if isinstance(weight.group_size, str) else "groups; one scale a 'channel' or 'tensor' fits"


def _e4m3(weight: Float8Weight) -> str | None:
    return None if weight.data_type == "e4m3" else "E5M2, which engines do not read for weights; use e4m3"
