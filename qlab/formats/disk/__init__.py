"""The layouts in which other engines (vLLM, transformers) read quantized weights: how our weights become their tensors.

Every layout is one file with the same four functions, and an engine reads what they write:

    check(weights, dtype)                     refuses, before anything is written, what the layout cannot hold
    encode(weight)                            the tensors of one layer, by the ending of their names
    decode(tensors, settings, dtype, name)    the inverse: the same packed codes, byte for byte
    settings(weights, skipped)                "quantization_config" for config.json

`weights` is a dict of layer names to weights, `skipped` the names of the linear layers that stay as they were.
config.json must also state "dtype": without it transformers takes the type of the first floating-point tensor in the
file, which may be a float16 scale of a float32 model.

compressed_w8a8 has a fifth function, `activations`: there the inputs of a layer are quantized, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from . import awq, bitsandbytes, compressed_tensors, compressed_w8a8, gptq

LAYOUTS: dict[str, ModuleType] = {  # by the "quant_method" of config.json
    "compressed-tensors": compressed_tensors,
    "gptq": gptq,
    "awq": awq,
    "bitsandbytes": bitsandbytes,
}


def layout_of(settings: Mapping[str, Any]) -> ModuleType | None:
    """The layout of a folder with these quantization settings; None if it is not known."""
    if settings.get("quant_method") == "compressed-tensors" and settings.get("format") in compressed_w8a8.FORMATS:
        return compressed_w8a8
    return LAYOUTS.get(settings.get("quant_method", ""))


def stored_layers(keys: Iterable[str], layout: ModuleType) -> dict[str, dict[str, str]]:
    """The quantized layers among the tensor names of a folder: {layer: {ending: tensor name}}.

    A layer counts as quantized where every tensor of `layout.REQUIRED` is there; plain weights and biases are left out.
    """
    found: dict[str, dict[str, str]] = {}
    for key in keys:
        for suffix in layout.SUFFIXES:
            if key.endswith("." + suffix):
                found.setdefault(key.removesuffix("." + suffix), {})[suffix] = key
    return {layer: parts for layer, parts in found.items() if set(layout.REQUIRED) <= parts.keys()}
