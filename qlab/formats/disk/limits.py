"""Why a weight does not fit into a layout: one line a layer, all layers at once, before anything is written.

A rule takes a weight and gives the reason why not, or None. What is read back goes through `assemble`, which refuses
tensors that do not belong together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from qlab.formats import packing
from qlab.formats.affine import AffineWeight, GroupSize
from qlab.formats.weight import QuantizedWeight

Rule = Callable[[Any], str | None]
HOME = {"AffineWeight": "compressed-tensors, gptq or awq", "CodebookWeight": "bitsandbytes"}
KERNEL_GROUPS = (8, 16, 32, 64, 128, 256, 512, 1024)  # sizes worth proposing: powers of two, as kernels want them


def refuse(layout: str, weights: Mapping[str, QuantizedWeight], kind: type, rules: tuple[Rule, ...]) -> None:
    """Raise one ValueError with a line for every layer that is not a `kind` or breaks a rule."""
    if not weights:
        raise ValueError(f"weights: got none; {layout} files need at least one quantized layer")
    lines = []
    for name, weight in weights.items():
        if isinstance(weight, kind):
            reasons = [reason for rule in rules if (reason := rule(weight))]
        else:
            home = HOME.get(type(weight).__name__, "another layout")
            reasons = [f"{weight.label}; {layout} holds {kind.__name__} only, use {home}"]
        if reasons:
            lines.append(f"{name} (in {weight.shape[1]}, out {weight.shape[0]}): {'; '.join(reasons)}")
    if lines:
        raise ValueError(
            f"weights: {layout} cannot hold {len(lines)} of {len(weights)} layers:\n  " + "\n  ".join(lines)
        )


def refuse_mixture(layout: str, weights: Mapping[str, Any], setting: Callable[[Any], object]) -> None:
    """Raise ValueError if the layers differ in a setting that the file states once for all of them."""
    kinds: dict[object, list[str]] = {}
    for name, weight in weights.items():
        kinds.setdefault(setting(weight), []).append(name)
    if len(kinds) > 1:
        lines = [f"{weights[names[0]].label}: {', '.join(names)}" for names in kinds.values()]
        raise ValueError(
            f"weights: got {len(kinds)} kinds; {layout} states one for all layers (compressed-tensors can mix 4 and 8 "
            "bits and group sizes), quantize them alike or skip some:\n  " + "\n  ".join(lines)
        )


def whole_groups(weight: AffineWeight) -> str | None:
    """Groups must divide the columns: no layout has a short last group, nor a scale for a whole tensor."""
    columns = weight.shape[1]
    if weight.group_size == "tensor":
        return f"one scale for the whole tensor; {_fitting_groups(columns)}"
    if weight.group_size == "channel" or columns % weight.group_size == 0:
        return None
    return f"{columns} columns are not a multiple of the group size {weight.group_size}; {_fitting_groups(columns)}"


def integer_zeros(weight: AffineWeight) -> str | None:
    """Only whole zero-points are stored: HQQ's real ones have no place."""
    if weight.zeros is not None and weight.zeros.is_floating_point():
        return "real-valued zero-points; quantize again with round_zeros=True"
    return None


def neighbors(weight: AffineWeight) -> str | None:
    """Groups must be runs of neighboring columns."""
    if weight.group_index is not None:
        return "act-order groups of scattered columns; use gptq, or quantize again with static_groups=True"
    return None


def exact_scales(dtype: torch.dtype | None) -> Rule:
    """Engines hold the scales in the type in which they run the model: they must not change in it."""

    def rule(weight: AffineWeight) -> str | None:
        if dtype is None or torch.equal(weight.scales.to(dtype).double(), weight.scales.double()):
            return None
        held, model = (str(kind).removeprefix("torch.") for kind in (weight.scales.dtype, dtype))
        return f"{held} scales change in {model}, the model's type; use scale_dtype=torch.{model} or a float32 model"

    return rule


def whole_words(bits: int, size: int, axis: str) -> str | None:
    """Codes along `axis` must fill whole 32-bit words."""
    if size * bits % 32 == 0:
        return None
    multiple = next(m for m in (4, 8, 16, 32) if m * bits % 32 == 0)
    return f"{axis} {size} is not a multiple of {multiple}, so {bits}-bit codes end inside a 32-bit word"


def assemble(
    name: str,
    packed: torch.Tensor,
    scales: torch.Tensor,
    zeros: torch.Tensor | None,
    bits: int,
    group_size: GroupSize,
    columns: int,
    dtype: torch.dtype,
    group_index: torch.Tensor | None = None,
) -> AffineWeight:
    """An AffineWeight of stored parts: packed uint8 (out, bytes), scales (out, groups), zeros uint8 like them or None.

    Raises ValueError where the parts do not belong together: what a damaged or mislabeled file gives.
    """
    out = packed.shape[0]
    width = columns if group_size == "channel" else int(group_size)
    if width <= 0 or columns % width:
        raise ValueError(f"{name}: {columns} inputs are not a multiple of the group size {width}; the file is damaged")
    groups = columns // width
    for part, tensor, expected in (
        ("packed codes", packed, (out, packing.packed_bytes(columns, bits))),
        ("scales", scales, (out, groups)),
        ("zero-points", zeros, (out, groups)),
        ("group index", group_index, (columns,)),
    ):
        if tensor is not None and tuple(tensor.shape) != expected:
            raise ValueError(
                f"{name}: {part} of shape {tuple(tensor.shape)}; a weight of shape ({out}, {columns}) with {bits} bits "
                f"and group size {group_size} has {expected}; the file is damaged or its settings are not its own"
            )
    if group_index is not None and not 0 <= int(group_index.min()) <= int(group_index.max()) < groups:
        raise ValueError(
            f"{name}: the group index runs from {int(group_index.min())} to {int(group_index.max())}; "
            f"there are {groups} groups"
        )
    stored_zeros = None if zeros is None else packing.pack(zeros.contiguous(), bits)
    return AffineWeight(packed, scales, stored_zeros, bits, group_size, (out, columns), dtype, group_index)


def take(tensors: Mapping[str, torch.Tensor], suffix: str, name: str, *dtypes: torch.dtype) -> torch.Tensor:
    """One stored tensor. Raises ValueError if it is missing or of another type."""
    if suffix not in tensors:
        raise ValueError(f"{name}: the file has no {name}.{suffix}; it has {', '.join(sorted(tensors)) or 'none'}")
    if dtypes and tensors[suffix].dtype not in dtypes:
        wanted = " or ".join(str(dtype) for dtype in dtypes)
        raise ValueError(f"{name}: {suffix} holds {tensors[suffix].dtype}; it must hold {wanted}")
    return tensors[suffix]


def _fitting_groups(columns: int) -> str:
    sizes = [str(size) for size in KERNEL_GROUPS if columns % size == 0]
    return f"groups of {', '.join(sizes)} or 'channel' fit" if sizes else "'channel' fits"
