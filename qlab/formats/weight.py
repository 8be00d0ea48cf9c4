"""What every quantized weight offers, whichever its format: the one type that the rest of the library passes along."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import torch


class QuantizedWeight(Protocol):
    """A frozen dataclass of its format that holds packed bytes and scales: `AffineWeight`, `CodebookWeight`."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def shape(self) -> tuple[int, int]: ...  # (out, in)

    @property
    def dtype(self) -> torch.dtype: ...  # of the weights that were quantized

    @property
    def nbytes(self) -> int: ...  # what is really held

    @property
    def bits_per_weight(self) -> float: ...

    @property
    def label(self) -> str: ...  # for people: "4 bits, groups of 128, symmetric"

    def dequantize(self, dtype: torch.dtype | None = None) -> torch.Tensor: ...  # (out, in)
