"""GPTQ: the layout of AutoGPTQ and GPTQModel, which vLLM reads.

    qweight  int32 (in * bits / 32, out)      codes down the inputs, lowest bits first; 3 bits run across words
    qzeros   int32 (groups, out * bits / 32)  zero-points along the outputs
    scales   (groups, out)
    g_idx    int32 (in,)                      the group of every input

    w[o, i] = scales[g, o] * (q[i, o] - zero[g, o]),  g = g_idx[i]

All is transposed against ours: `qweight.t()` are the int32 words of our rows, and for 4 bits the `weight_packed` of
compressed-tensors.

There are two versions. v1 ("checkpoint_format": "gptq") stores zero - 1, which cannot say 0: below 0 some readers wrap
around and some carry into the neighbor. v2 ("gptq_v2") stores the zero-point itself. Everyone reads v1, fewer read v2,
so v1 is the default, and weights with a zero-point 0 are refused there.

Bits, group size and symmetry are stated once for all layers. GPTQModel has rules for single layers ("dynamic"), but
vLLM looks them up by the names of its fused layers, so they are not written here: compressed-tensors holds mixtures.
The layout needs rows and columns of whole words. Kernels want more: AutoGPTQ multiples of 32 both ways, and the fast
ones of vLLM groups of 32, 64 or 128, or channels.

Source: AutoGPTQ `qlinear_cuda_old.py`, vLLM `quantization/gptq.py`, transformers `GPTQConfig`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch

from qlab.formats import packing
from qlab.formats.affine import SCALE_DTYPES, AffineWeight, GroupSize
from qlab.formats.weight import QuantizedWeight

from . import limits

Version = Literal["gptq", "gptq_v2"]
REQUIRED = ("qweight", "qzeros", "scales")
SUFFIXES = (*REQUIRED, "g_idx")
BITS = (2, 3, 4, 8)


def check(
    weights: Mapping[str, QuantizedWeight], dtype: torch.dtype | None = None, checkpoint_format: Version = "gptq"
) -> None:
    """Raise ValueError that names every layer which this layout cannot hold, and what would fit.

    `dtype` is the type in which the file says that the model runs; None leaves the scales unchecked.
    """
    if checkpoint_format not in ("gptq", "gptq_v2"):
        raise ValueError(f"checkpoint_format: got {checkpoint_format!r}; choose 'gptq' or 'gptq_v2'")
    rules: tuple[limits.Rule, ...] = (_bits, limits.integer_zeros, limits.whole_groups, limits.exact_scales(dtype))
    limits.refuse("gptq", weights, AffineWeight, rules + ((_zero_points,) if checkpoint_format == "gptq" else ()))
    limits.refuse_mixture("gptq", weights, lambda weight: (weight.bits, weight.group_size, weight.symmetric))


def encode(weight: AffineWeight, checkpoint_format: Version = "gptq") -> dict[str, torch.Tensor]:
    """The four tensors of a layer. Symmetric weights write the zero-point 2^(bits-1). Raises ValueError as `check`."""
    check({"weight": weight}, checkpoint_format=checkpoint_format)
    zeros = weight.zero_points().t().contiguous()  # (groups, out)
    stored = zeros - 1 if checkpoint_format == "gptq" else zeros
    columns = weight.shape[1]
    return {
        "qweight": weight.packed.contiguous().view(torch.int32).t().contiguous(),
        "qzeros": packing.pack(stored, weight.bits).view(torch.int32),
        "scales": weight.scales.t().contiguous(),
        "g_idx": _neighbors(columns, weight.group_size) if weight.group_index is None else weight.group_index,
    }


def decode(
    tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any], dtype: torch.dtype, name: str = "weight"
) -> AffineWeight:
    """The inverse of `encode`. `settings` is "quantization_config"; `dtype` becomes the type of the weight.

    Raises ValueError for settings that are not those of this layout, and for tensors that do not fit to them.
    """
    bits, group_size, version = _read(settings)
    words = limits.take(tensors, "qweight", name, torch.int32)
    columns, out = words.shape[0] * 32 // bits, words.shape[1]
    zero_words = limits.take(tensors, "qzeros", name, torch.int32)
    if zero_words.shape[1] * 32 != out * bits:
        raise ValueError(
            f"{name}: qzeros of shape {tuple(zero_words.shape)}; {out} outputs of {bits} bits take "
            f"(groups, {out * bits // 32}); the file is damaged or its settings are not its own"
        )
    zeros = packing.unpack(zero_words.contiguous().view(torch.uint8), bits, out)  # (groups, out)
    if version == "gptq":
        if int(zeros.max()) == 2**bits - 1:
            raise ValueError(
                f"{name}: a zero-point is stored as {2**bits - 1}, which v1 does not have: an export of a "
                "zero-point 0, which readers understand differently; quantize the model again"
            )
        zeros = zeros + 1
    symmetric = settings.get("sym", True)
    if symmetric and not bool((zeros == 2 ** (bits - 1)).all()):
        raise ValueError(
            f"{name}: settings say symmetric, but the zero-points run from {int(zeros.min())} to {int(zeros.max())} "
            f"instead of {2 ** (bits - 1)}; is checkpoint_format {version!r} right?"
        )
    group_index = limits.take(tensors, "g_idx", name, torch.int32) if "g_idx" in tensors else None
    if group_index is not None and torch.equal(group_index.cpu(), _neighbors(columns, group_size)):
        group_index = None
    return limits.assemble(
        name,
        words.t().contiguous().view(torch.uint8),
        limits.take(tensors, "scales", name, *SCALE_DTYPES).t().contiguous(),
        None if symmetric else zeros.t(),
        bits,
        group_size,
        columns,
        dtype,
        group_index,
    )


def settings(
    weights: Mapping[str, QuantizedWeight], skipped: Iterable[str] = (), checkpoint_format: Version = "gptq"
) -> dict[str, Any]:
    """The "quantization_config" of config.json.

    Readers leave lm_head alone unless told otherwise; with other layers in `skipped`, the quantized ones are listed.
    """
    check(weights, checkpoint_format=checkpoint_format)
    affine = [weight for weight in weights.values() if isinstance(weight, AffineWeight)]
    first = affine[0]
    config: dict[str, Any] = {
        "quant_method": "gptq",
        "bits": first.bits,
        "group_size": -1 if first.group_size == "channel" else first.group_size,
        "desc_act": any(weight.group_index is not None for weight in affine),
        "sym": first.symmetric,
        "lm_head": "lm_head" in weights,
        "checkpoint_format": checkpoint_format,
    }
    if set(skipped) - {"lm_head"}:
        config["modules_in_block_to_quantize"] = [list(weights)]
    return config


def _read(settings: Mapping[str, Any]) -> tuple[int, GroupSize, Version]:
    bits, group_size = settings.get("bits"), settings.get("group_size")
    version: Version = settings.get("checkpoint_format") or settings.get("format") or "gptq"
    if bits not in BITS or type(group_size) is not int or version not in ("gptq", "gptq_v2"):
        raise ValueError(
            f"quantization_config: got bits {bits!r}, group_size {group_size!r}, checkpoint_format {version!r}; "
            f"allowed is {BITS}, a number or -1, and 'gptq' or 'gptq_v2'"
        )
    if any(not rule.startswith("-:") for rule in settings.get("dynamic") or {}):
        raise ValueError("quantization_config: got 'dynamic' rules for single layers; only one setting for all is read")
    return int(bits), "channel" if group_size == -1 else group_size, version


def _neighbors(columns: int, group_size: GroupSize) -> torch.Tensor:
    width = columns if group_size == "channel" else int(group_size)
    return (torch.arange(columns) // width).int()


def _bits(weight: AffineWeight) -> str | None:
    if weight.bits not in BITS:
        return f"{weight.bits} bits; gptq has {', '.join(map(str, BITS))}"
    out, columns = weight.shape
    reasons = (limits.whole_words(weight.bits, columns, "in"), limits.whole_words(weight.bits, out, "out"))
    return "; ".join(reason for reason in reasons if reason) or None


def _zero_points(weight: AffineWeight) -> str | None:
    if weight.symmetric or limits.integer_zeros(weight):
        return None
    zeros = weight.zero_points()
    count = int((zeros == 0).sum())
    if count == 0:
        return None
    return (
        f"{count} of {zeros.numel()} zero-points are 0, which v1 cannot store; use checkpoint_format='gptq_v2' or awq"
    )
