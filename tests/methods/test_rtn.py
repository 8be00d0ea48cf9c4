"""Round to nearest: no other code of the grid is closer."""

from __future__ import annotations

import pytest
import torch

from qlab.formats import affine
from qlab.methods import rtn


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_no_other_code_is_closer(bits: int, symmetric: bool) -> None:
    w = torch.randn(5, 45, generator=torch.Generator().manual_seed(bits))
    q = rtn.quantize(w, bits=bits, group_size=16, symmetric=symmetric)
    group = torch.arange(45) // 16
    scales, zeros = q.scales.double()[:, group], q.zero_points().double()[:, group]  # (out, in)
    grid = torch.arange(1 if symmetric else 0, 2**bits, dtype=torch.float64)
    distance = ((grid - zeros[..., None]) * scales[..., None] - w.double()[..., None]).abs()  # (out, in, codes)
    chosen = (q.dequantize(torch.float64) - w.double()).abs()
    assert bool((chosen <= distance.amin(-1) + 1e-6 * scales).all())


def test_it_writes_the_affine_format() -> None:
    w = torch.randn(3, 256, generator=torch.Generator().manual_seed(0))
    default = rtn.quantize(w)
    assert isinstance(default, affine.AffineWeight) and default.bits_per_weight == 4.125
    q = rtn.quantize(w, bits=3, group_size="channel", symmetric=False, scale_dtype=torch.bfloat16)
    assert (q.bits, q.group_size, q.symmetric, q.scales.dtype) == (3, "channel", False, torch.bfloat16)


def test_errors_are_those_of_the_format() -> None:
    with pytest.raises(ValueError, match="bits: got 1"):
        rtn.quantize(torch.ones(2, 2), bits=1)
