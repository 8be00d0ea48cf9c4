"""What the questions on codebooks share: the tables that people use, and what codes and blocks must keep.

A codebook of b bits is a table of 2**b levels; a code is a place in the table. The weights are read as one long row
and cut into blocks, each with its largest magnitude, `absmax`; a weight is table[code] * absmax.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from ... import properties as p
from ...question import Finding

# NF4 as Dettmers et al. print it (2023, QLoRA, appendix E), and FP4 as bitsandbytes numbers its codes.
NF4 = torch.tensor(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ]
)
# The 15 values of E2M1 (the 4-bit floats of the OCP microscaling formats), which end at 6.
E2M1 = torch.tensor([-6, -4, -3, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3, 4, 6])
FP4 = torch.tensor([0, 0.0625, 8, 12, 4, 6, 2, 3, 0, -0.0625, -8, -12, -4, -6, -2, -3]) / 12

_RTOL = 1e-6  # a float32 product or quotient, with room
NOTHING = 1.01e-30  # what is stored for a block of zeros may be as large as 1e-30 in float32


def dynamic_map() -> torch.Tensor:
    """The 256 levels for the absmax of NF4 (Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization").

    Decade i, from 10**(i-7) to 10**(i-6), is cut into 2**i equal pieces for i = 0 to 6; their middles are levels, with
    both signs. So are 0 and 1; -1 is none.
    """
    levels = [0.0, 1.0]
    for decade in range(7):
        edges = torch.linspace(0.1, 1, 2**decade + 1, dtype=torch.float64)
        middles = (edges[:-1] + edges[1:]) / 2 * 10.0 ** (decade - 6)
        levels += [*middles.tolist(), *(-middles).tolist()]
    return torch.tensor(sorted(levels), dtype=torch.float32)


def even_map() -> torch.Tensor:
    """256 levels that lie nearly evenly: 128 steps from -1 to 0 and 127 from 0 to 1."""
    return torch.cat([torch.linspace(-1, 0, 129)[:-1], torch.linspace(0, 1, 128)])


def uneven_table(levels: int, random: torch.Generator) -> torch.Tensor:
    """A sorted table from -1 to 1, whose gaps differ by a factor of up to 8."""
    gaps = 1 + 7 * torch.rand(levels - 1, generator=random)
    return torch.cat([torch.tensor([-1.0]), 2 * gaps.cumsum(0) / gaps.sum() - 1])


def codes_fit(
    codes: Any, values: torch.Tensor, table: torch.Tensor, noise: Any = 0.0, slack: float = p.SLACK
) -> Finding | None:
    """Every code is that of a level nearest to its value; where two are equally near, either is right.

    `values` are exact; `noise` is how far arithmetic in float32 may have moved them, one number or one per value,
    and `slack` the share of a gap by which a border may be off.
    """
    if finding := p.codes_between(codes, "codes", 0, len(table) - 1):
        return finding
    table, values = table.double(), values.double()
    distances = (values[..., None] - table).abs()  # (..., levels)
    nearest = distances.topk(2, largest=False).values  # (..., 2); at a tie their sum is the gap
    error = (values - table[codes.long()]).abs()
    allowed = nearest[..., 0] + slack * nearest.sum(dim=-1) + 2 * noise
    wrong = error > allowed
    if not bool(wrong.any()):
        return None
    index = tuple(int(i) for i in torch.unravel_index((error - allowed).argmax(), error.shape))
    best, taken = int(distances[index].argmin()), int(codes[index])
    return Finding(
        f"codes: {int(wrong.sum())} of {codes.numel()} are not those of the nearest level",
        index=index,
        expected=f"{best}, the level {table[best]:.4g}, for the value {values[index]:.4g}",
        got=f"{taken}, the level {table[taken]:.4g}",
        error=error[index].item(),
        bound=nearest[index][0].item(),
        unit="between value and level",
    )


def absmax_of(w: torch.Tensor, block_size: int) -> torch.Tensor:
    """The largest magnitude of each block of the flattened weights, in float64; (blocks,)."""
    return torch.stack([block.double().abs().max() for block in w.flatten().split(block_size)])


def spread(absmax: torch.Tensor, block_size: int, shape: tuple[int, ...]) -> torch.Tensor:
    """A number per block as one per weight."""
    count = torch.Size(shape).numel()
    return absmax.repeat_interleave(block_size)[:count].view(shape)


def maxima_fit(got: Any, what: str, exact: torch.Tensor, rtol: float = _RTOL) -> Finding | None:
    """`got` holds these largest magnitudes in float32, and 0 or next to nothing where the exact one is 0."""
    if finding := p.tensor(got, what, torch.float32, tuple(exact.shape)):
        return finding
    error = (got.double() - exact).abs().nan_to_num(nan=float("inf"))
    wrong = error > torch.where(exact > 0, rtol * exact, NOTHING)
    if not bool(wrong.any()):
        return None
    share = error / torch.where(exact > 0, exact, 1.0)
    index = tuple(int(i) for i in torch.unravel_index(share.where(wrong, -1.0).argmax(), share.shape))
    return Finding(
        f"{what}: {int(wrong.sum())} of {got.numel()} are off",
        index=index,
        expected=f"{exact[index]:.6g}",
        got=f"{got[index]:.6g}",
        error=100 * share[index].item() if exact[index] > 0 else None,
        bound=100 * rtol if exact[index] > 0 else None,
        unit="%",
    )


def close_to(got: Any, what: str, exact: torch.Tensor, unit: torch.Tensor, name: str) -> Finding | None:
    """Every value is the exact one but for rounding in float32; errors are told in units of `unit`."""
    finding = p.values_near(got, what, exact, _RTOL * unit, torch.where(unit > 0, unit, 1.0))
    return replace(finding, unit=name) if finding else None
