"""compressed-tensors, "pack-quantized": what vLLM and plain transformers read, and llm-compressor writes.

    weight_packed  int32 (out, ceil(in * bits / 32))  codes along the inputs, lowest bits first, the end padded with 0
    weight_scale   (out, groups); (out, 1) per channel
    weight_shape   int64 (2,)                         out, in

The library thinks in signed numbers q from -2^(b-1) to 2^(b-1) - 1 and stores q + 2^(b-1): our codes, whose zero-point
is 2^(b-1) in a symmetric weight. So the int32 view of our rows, padded to whole words, is `weight_packed`.

Held here: symmetric weights of 4 and 8 bits, in groups or per channel; bits and groups may differ from layer to layer.
Not held, and why:
  - asymmetric: transformers with compressed-tensors from 0.18 on fails to load the zero-points. gptq and awq hold them.
  - 2, 3, 5, 6, 7 bits: vLLM reads 4 and 8 only, and the library packs 3, 5, 6 and 7 differently since 0.20.
  - act-order with scattered groups: removed from the library in 0.19.

Scales are stored in the type that they have. An engine converts them to the type of the model when it loads: exact from
float16 to float32, not from float16 to bfloat16. `check` refuses that where it is told the type.

Source: compressed-tensors 0.20, `compressors/pack_quantized` and `quantization/quant_config.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F

from qlab.formats import packing
from qlab.formats.affine import SCALE_DTYPES, AffineWeight, GroupSize
from qlab.formats.weight import QuantizedWeight

from . import limits

SUFFIXES = REQUIRED = ("weight_packed", "weight_scale", "weight_shape")
BITS = (4, 8)


def check(weights: Mapping[str, QuantizedWeight], dtype: torch.dtype | None = None) -> None:
    """Raise ValueError that names every layer which this layout cannot hold, and what would fit.

    `dtype` is the type in which the file says that the model runs; None leaves the scales unchecked.
    """
    rules = (_bits, _symmetric, limits.neighbors, limits.whole_groups, limits.exact_scales(dtype))
    limits.refuse("compressed-tensors", weights, AffineWeight, rules)


def encode(weight: AffineWeight) -> dict[str, torch.Tensor]:
    """The three tensors of a layer; they may share the memory of `weight`. Raises ValueError as `check` does."""
    check({"weight": weight})
    missing = -weight.packed.shape[1] % 4  # bytes, to whole words
    rows = F.pad(weight.packed, (0, missing)) if missing else weight.packed  # pad() would copy even for nothing
    return {
        "weight_packed": rows.contiguous().view(torch.int32),
        "weight_scale": weight.scales,
        "weight_shape": torch.tensor(weight.shape),
    }


def decode(
    tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any], dtype: torch.dtype, name: str = "weight"
) -> AffineWeight:
    """The inverse of `encode`. `settings` is "quantization_config", in which the layer `name` is looked up.

    `dtype` becomes the type of the weight (which the tensors do not state).
    Raises ValueError for settings that are not those of this layout, and for tensors that do not fit to them.
    """
    bits, group_size = _scheme(settings, name)
    out, columns = (int(size) for size in limits.take(tensors, "weight_shape", name))
    words = limits.take(tensors, "weight_packed", name, torch.int32)
    if tuple(words.shape) != (out, -(-columns * bits // 32)):
        raise ValueError(
            f"{name}: weight_packed of shape {tuple(words.shape)}; {bits} bits of ({out}, {columns}) take "
            f"({out}, {-(-columns * bits // 32)}); the file is damaged or its settings are not its own"
        )
    packed = words.contiguous().view(torch.uint8)[:, : packing.packed_bytes(columns, bits)].contiguous()
    scales = limits.take(tensors, "weight_scale", name, *SCALE_DTYPES)
    return limits.assemble(name, packed, scales, None, bits, group_size, columns, dtype)


def settings(weights: Mapping[str, QuantizedWeight], skipped: Iterable[str] = ()) -> dict[str, Any]:
    """The "quantization_config" of config.json. Layers of different bits or groups go into config groups of their own.

    With one kind of layer the target is the class Linear, and `skipped` the exceptions. With several, every group
    names its layers: engines that fuse layers look for class names before they look for parts of a fused layer.
    """
    check(weights)
    schemes: dict[tuple[int, GroupSize], list[str]] = {}
    for name, weight in weights.items():
        assert isinstance(weight, AffineWeight)
        schemes.setdefault((weight.bits, weight.group_size), []).append(name)
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "ignore": list(skipped),
        "config_groups": {
            f"group_{i}": {
                "targets": names if len(schemes) > 1 else ["Linear"],
                "weights": {
                    "num_bits": bits,
                    "type": "int",
                    "symmetric": True,
                    "strategy": "channel" if group_size == "channel" else "group",
                    "group_size": None if group_size == "channel" else group_size,
                    "dynamic": False,
                },
                "input_activations": None,
                "output_activations": None,
            }
            for i, ((bits, group_size), names) in enumerate(schemes.items())
        },
    }


def _scheme(settings: Mapping[str, Any], name: str) -> tuple[int, GroupSize]:
    """Bits and group size of a layer. Its own name as target goes before a pattern ("re:…"), that before Linear."""
    groups = {t: group for group in (settings.get("config_groups") or {}).values() for t in group["targets"]}
    patterns = (t for t in groups if t.startswith("re:") and re.match(t.removeprefix("re:"), name))
    group = next((groups[t] for t in (name, *patterns, "Linear") if t in groups), None)
    if group is None:
        raise ValueError(f"{name}: no target of quantization_config fits it; they are {', '.join(groups) or 'missing'}")
    args, stored = group.get("weights") or {}, group.get("format") or settings.get("format")
    if (
        stored != "pack-quantized"
        or args.get("num_bits") not in BITS
        or args.get("type", "int") != "int"
        or not args.get("symmetric", True)
        or args.get("strategy") not in ("group", "channel")
        or args.get("actorder") == "group"
        or group.get("input_activations") is not None
    ):
        got = {key: value for key, value in args.items() if value is not None}
        raise ValueError(
            f"{name}: got format {stored!r}, weights {got}, input_activations {group.get('input_activations')}; "
            "allowed is 'pack-quantized', symmetric integers of 4 or 8 bits in groups or channels, and no activations"
        )
    return args["num_bits"], "channel" if args["strategy"] == "channel" else args["group_size"]


def _bits(weight: AffineWeight) -> str | None:
    if weight.bits in BITS:
        return None
    return f"{weight.bits} bits; engines read 4 and 8 here, and gptq holds 2 and 3"


def _symmetric(weight: AffineWeight) -> str | None:
    if weight.zeros is None:
        return None
    return "asymmetric, which transformers cannot load with compressed-tensors from 0.18 on; use gptq or awq"
