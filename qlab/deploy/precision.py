"""What a precision such as "int4-g128" costs: bits, scales and zero-points, to the byte.

The layout counted is that of the library's own formats: every row of a matrix is packed by itself, scales are
2 bytes each, and zero-points are packed with as many bits as the weights.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

_SCALE_BYTES = 2  # float16
_NF4_BLOCK = 64  # weights that share an absmax (QLoRA, Dettmers et al. 2023, section 3)
_NF4_SECOND_BLOCK = 256  # 8-bit absmax values that share a second scale, with double quantization


@dataclass(frozen=True)
class Precision:
    """How one weight matrix is stored.

    Args:
        name: as `parse_precision` reads it.
        bits: bits of one code.
        scales: "none", one per "tensor", per "channel" (row) or per "group" of `group_size` weights in a row;
            "blocks" and "double" are NF4's, which run over the whole matrix without regard for rows.
        group_size: weights that share a scale, for "group".
        zero_points: whether each scale has a zero-point of `bits` bits.
    """

    name: str
    bits: int
    scales: Literal["none", "tensor", "channel", "group", "blocks", "double"] = "none"
    group_size: int | None = None
    zero_points: bool = False

    def code_bytes(self, rows: int, columns: int) -> int:
        """Bytes of the packed codes of a (rows, columns) matrix."""
        if self.scales in ("blocks", "double"):
            return -(-rows * columns * self.bits // 8)
        return rows * -(-columns * self.bits // 8)  # every row ends on a whole byte

    def overhead_bytes(self, rows: int, columns: int) -> int:
        """Bytes of everything that turns codes back into weights: scales and zero-points."""
        if self.scales == "none":
            return 0
        if self.scales in ("blocks", "double"):
            blocks = -(-rows * columns // _NF4_BLOCK)
            if self.scales == "blocks":
                return 4 * blocks  # one float32 absmax each
            # One byte each, a float32 scale for every 256 of them, and one float32 mean for the matrix.
            return blocks + 4 * -(-blocks // _NF4_SECOND_BLOCK) + 4
        lines = 1 if self.scales == "tensor" else rows
        groups = -(-columns // self.group_size) if self.group_size else 1
        zeros = -(-groups * self.bits // 8) if self.zero_points else 0
        return lines * (groups * _SCALE_BYTES + zeros)

    def matrix_bytes(self, rows: int, columns: int) -> int:
        """Bytes that a (rows, columns) matrix takes."""
        return self.code_bytes(rows, columns) + self.overhead_bytes(rows, columns)

    def bits_per_weight(self, rows: int, columns: int) -> float:
        """Bits for each weight of a (rows, columns) matrix, with scales and zero-points."""
        return 8 * self.matrix_bytes(rows, columns) / (rows * columns)


_FIXED = {
    precision.name: precision
    for precision in (
        Precision("fp32", 32),
        Precision("bf16", 16),
        Precision("fp16", 16),
        Precision("fp8", 8),
        Precision("nf4", 4, "blocks"),
        Precision("nf4-dq", 4, "double"),
    )
}
_INTEGER = re.compile(r"int([2-8])(?:-(?:g([1-9]\d*)|(channel|tensor)))?(-asym)?")


def parse_precision(text: str | Precision) -> Precision:
    """Read a precision.

    - "fp32", "bf16", "fp16", "fp8": no scales.
    - "int4-g128", "int3-channel", "int8-tensor" (2 to 8 bits): a float16 scale per group, row or matrix;
      with "-asym" also a zero-point for each scale.
    - "int8", "int4": the bare codes without scales, a floor that no real checkpoint reaches.
    - "nf4" (blocks of 64, 4.5 bits) and "nf4-dq" (double quantization, 4.127 bits), laid out as in QLoRA.

    A real AffineWeight keeps float32 scales where float16 would not hold them; that is not foreseen here.

    Raises:
        TypeError: `text` is neither a string nor a Precision.
        ValueError: it is none of the forms above.
    """
    if isinstance(text, Precision):
        return text
    if not isinstance(text, str):
        raise TypeError(f"precision: got {type(text).__name__}; give a string such as 'int4-g128'")
    name = text.strip().lower()
    if name in _FIXED:
        return _FIXED[name]
    found = _INTEGER.fullmatch(name)
    if not found:
        raise ValueError(
            f"precision: {text!r} is not known; give {', '.join(_FIXED)}, or int2 to int8, alone or with -gN, -channel "
            "or -tensor and perhaps -asym, as in int4-g128"
        )
    bits, group, whole, asymmetric = found.groups()
    if asymmetric and not (group or whole):
        raise ValueError(f"precision: {text!r} has zero-points but no scales; say for what, as in int{bits}-g128-asym")
    scales: Literal["none", "tensor", "channel", "group"] = "none"
    if group:
        scales = "group"
    elif whole:
        scales = "channel" if whole == "channel" else "tensor"
    return Precision(name, int(bits), scales, int(group) if group else None, bool(asymmetric))
