"""AWQ: the "gemm" layout of AutoAWQ, which vLLM reads.

    qweight  int32 (in, out / 8)      eight outputs in a word
    qzeros   int32 (groups, out / 8)  zero-points in the same order, stored as they are
    scales   (groups, out)

    w[o, i] = scales[g, o] * (q[i, o] - zero[g, o]),  g = i // group_size

Nibble n of a word (bits 4n to 4n + 3) holds output ORDER[n] of its eight: 0, 2, 4, 6, 1, 3, 5, 7. The first kernel
masked a word with 0x000f000f and got two neighbors as a pair of halves; the order stayed in the files.

The layout has 4 bits only, one group size for all layers, and always zero-points: symmetric weights write 8. Where all
zero-points of a layer are 8, `decode` gives a symmetric weight: the same values, fewer bytes.
TinyChat's own files are laid out differently; they are not read here.

Source: AutoAWQ `utils/packing_utils.py` and `modules/linear/gemm.py`; vLLM `quantization/awq.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from qlab.formats import packing
from qlab.formats.affine import SCALE_DTYPES, AffineWeight
from qlab.formats.weight import QuantizedWeight

from . import limits

SUFFIXES = REQUIRED = ("qweight", "qzeros", "scales")
ORDER = [0, 2, 4, 6, 1, 3, 5, 7]  # the output that nibble n holds
INVERSE = [0, 4, 1, 5, 2, 6, 3, 7]  # the nibble that holds output n


def check(weights: Mapping[str, QuantizedWeight], dtype: torch.dtype | None = None) -> None:
    """Raise ValueError that names every layer which this layout cannot hold, and what would fit.

    `dtype` is the type in which the file says that the model runs; None leaves the scales unchecked.
    """
    rules = (_bits, limits.integer_zeros, limits.neighbors, limits.whole_groups, limits.exact_scales(dtype))
    limits.refuse("awq", weights, AffineWeight, rules)
    limits.refuse_mixture("awq", weights, lambda weight: weight.group_size)


def encode(weight: AffineWeight) -> dict[str, torch.Tensor]:
    """The three tensors of a layer. Raises ValueError as `check` does."""
    check({"weight": weight})
    return {
        "qweight": _pack(weight.codes().t()),
        "qzeros": _pack(weight.zero_points().t()),
        "scales": weight.scales.t().contiguous(),
    }


def decode(
    tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any], dtype: torch.dtype, name: str = "weight"
) -> AffineWeight:
    """The inverse of `encode`. `settings` is "quantization_config"; `dtype` becomes the type of the weight.

    Raises ValueError for settings that are not those of this layout, and for tensors that do not fit to them.
    """
    bits, version = settings.get("bits", settings.get("w_bit")), str(settings.get("version", "gemm")).lower()
    group_size = settings.get("group_size", settings.get("q_group_size"))
    if bits != 4 or version != "gemm" or type(group_size) is not int:
        raise ValueError(
            f"quantization_config: got bits {bits!r}, version {version!r}, group_size {group_size!r}; "
            "allowed is 4, 'gemm', and a number or -1"
        )
    codes = _unpack(limits.take(tensors, "qweight", name, torch.int32))  # (in, out)
    zeros = _unpack(limits.take(tensors, "qzeros", name, torch.int32))  # (groups, out)
    return limits.assemble(
        name,
        packing.pack(codes.t().contiguous(), 4),
        limits.take(tensors, "scales", name, *SCALE_DTYPES).t().contiguous(),
        None if bool((zeros == 8).all()) else zeros.t(),
        4,
        "channel" if group_size == -1 else group_size,
        codes.shape[0],
        dtype,
    )


def settings(weights: Mapping[str, QuantizedWeight], skipped: Iterable[str] = ()) -> dict[str, Any]:
    """The "quantization_config" of config.json; the layers in `skipped` are named as those not to convert."""
    check(weights)
    first = next(iter(weights.values()))
    assert isinstance(first, AffineWeight)
    return {
        "quant_method": "awq",
        "bits": 4,
        "group_size": -1 if first.group_size == "channel" else first.group_size,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": list(skipped) or None,
    }


def _pack(codes: torch.Tensor) -> torch.Tensor:
    """uint8 (rows, out) of 4-bit values as int32 (rows, out / 8)."""
    eights = codes.reshape(codes.shape[0], -1, 8)[..., ORDER]  # (rows, words, nibbles)
    return packing.pack(eights.reshape(codes.shape), 4).view(torch.int32)


def _unpack(words: torch.Tensor) -> torch.Tensor:
    nibbles = packing.unpack(words.contiguous().view(torch.uint8), 4, words.shape[1] * 8)
    return nibbles.view(*words.shape, 8)[..., INVERSE].reshape(words.shape[0], -1)


def _bits(weight: AffineWeight) -> str | None:
    if weight.bits != 4:
        return f"{weight.bits} bits; awq has 4 only, gptq holds 2, 3, 4 and 8"
    return limits.whole_words(4, weight.shape[0], "out")
