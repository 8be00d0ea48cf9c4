"""GPTQ: round one input column after another, and let the columns still to come make up for each error.

A layer should keep its outputs, so an error dW of its weights costs tr(dW H dWᵀ) / 2, where H = (2/n) Σ x xᵀ over the
n calibration tokens is the Hessian. Optimal Brain Surgeon (Hassibi & Stork 1993) says what is lost when one weight
must move, and how the others best follow: if the weight of column q moves by -e, the remaining weights move by

    -e · [H⁻¹]_q,: / [H⁻¹]_qq        at a cost of        e² / (2 [H⁻¹]_qq)

with H⁻¹ the inverse over the columns that are still free. GPTQ (Frantar et al. 2023, "GPTQ: Accurate Post-Training
Quantization for Generative Pre-trained Transformers", Algorithm 1) takes the columns of all rows in one order, so that
one Hessian serves every row. All the inverses that the loop will need are then rows of one triangular matrix: the upper
Cholesky factor U of H⁻¹ = UᵀU, for which U_q,q: / U_qq is the fraction above and U_qq² = [H⁻¹]_qq.

The grid is that of round-to-nearest, scales and rounding included: what GPTQ wins, it wins by its choice of codes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from qlab.formats import affine

HESSIAN_DTYPES = (torch.float32, torch.float64)


class Hessian:
    """H = (2/n) Σ x xᵀ over all tokens given to `add`, and the mean of |x|: what calibration has to remember.

    Both are running means, so no sum grows with the number of tokens. They live on the device of the first batch.
    """

    def __init__(self, in_features: int, dtype: torch.dtype = torch.float32) -> None:
        """Start with no tokens. Raises ValueError for a width that is not positive or a dtype that is not allowed."""
        if type(in_features) is not int or in_features <= 0:
            raise ValueError(f"in_features: got {in_features!r}; give the number of inputs of the layer")
        if dtype not in HESSIAN_DTYPES:
            raise ValueError(f"dtype: got {dtype}; choose torch.float32 or torch.float64")
        self.matrix = torch.zeros(in_features, in_features, dtype=dtype)  # (in, in), changed in place by `add`
        self.mean_abs = torch.zeros(in_features, dtype=dtype)  # (in,), changed in place by `add`
        self.tokens = 0

    def add(self, x: torch.Tensor) -> None:
        """Take in the inputs of the layer, (..., in). A batch without tokens changes nothing.

        Raises:
            TypeError: x is not a tensor of float16, bfloat16, float32 or float64.
            ValueError: the last axis is not `in`, or x holds NaN, infinity or values whose squares overflow.
        """
        width, dtype = self.matrix.shape[0], self.matrix.dtype
        if not isinstance(x, torch.Tensor) or x.dtype not in affine.WEIGHT_DTYPES:
            got = x.dtype if isinstance(x, torch.Tensor) else type(x).__name__
            raise TypeError(f"x: got {got}; give a tensor of float16, bfloat16, float32 or float64")
        if x.ndim == 0 or x.shape[-1] != width:
            raise ValueError(f"x: got shape {tuple(x.shape)}; the last axis must have {width} inputs")
        if x.numel() == 0:
            return
        if self.tokens == 0:
            self.matrix, self.mean_abs = self.matrix.to(x.device), self.mean_abs.to(x.device)
        x = x.detach().reshape(-1, width).to(self.matrix.device, dtype)  # (tokens, in)
        total = self.tokens + x.shape[0]
        with _full_precision(x.device):
            scaled = x * math.sqrt(2 / total)  # before the product, which then is a mean and no sum
            gram = scaled.t() @ scaled
        if not bool(torch.isfinite(gram.diagonal()).all()):  # the squares: one bad value in a column shows there
            bad = int((~torch.isfinite(x)).sum())
            problem = f"{bad} of {x.numel()} values are NaN or infinite" if bad else f"squares overflow {dtype}"
            raise ValueError(f"x: {problem}; inputs must be finite, so find the layer before this one that breaks them")
        self.matrix.mul_(self.tokens / total).add_(gram)
        self.mean_abs.mul_(self.tokens / total).add_(x.abs().mean(0), alpha=x.shape[0] / total)
        self.tokens = total


@dataclass(frozen=True)
class Solution:
    """The quantized weight and the loss of each row; they add up to tr(dW (H + λI) dWᵀ) / 2 over the live inputs."""

    weight: affine.AffineWeight
    losses: torch.Tensor  # float64 (out,)


def quantize(
    w: torch.Tensor,
    hessian: torch.Tensor,
    bits: int = 4,
    group_size: affine.GroupSize = 128,
    symmetric: bool = True,
    act_order: bool = False,
    static_groups: bool = False,
    damping: float = 0.01,
    block_size: int = 128,
    scale_dtype: torch.dtype = torch.float16,
    name: str = "w",
    tokens: int | None = None,
) -> affine.AffineWeight:
    """The weight alone; arguments and errors are those of `solve`."""
    return solve(**locals()).weight


def solve(
    w: torch.Tensor,
    hessian: torch.Tensor,
    bits: int = 4,
    group_size: affine.GroupSize = 128,
    symmetric: bool = True,
    act_order: bool = False,
    static_groups: bool = False,
    damping: float = 0.01,
    block_size: int = 128,
    scale_dtype: torch.dtype = torch.float16,
    name: str = "w",
    tokens: int | None = None,
) -> Solution:
    """Quantize w so that its outputs change little on inputs like those of the calibration.

    Everything is computed in float32, or in float64 where w is float64. Weights of dead inputs, those with
    H_ii = 0, become 0. The grid of a group is chosen when its first column is reached, from the weights as they are by
    then. Where groups are "channel" or "tensor" or `static_groups` is set, it is chosen from the original weights.

    Args:
        w: float16, bfloat16, float32 or float64 (out, in), as in `nn.Linear`. GPT-2's Conv1D holds (in, out): give
            its transpose.
        hessian: float32 or float64 (in, in), as from `Hessian.matrix`. Its scale does not matter to the codes.
        bits, group_size, symmetric, scale_dtype: as in `affine.quantize`.
        act_order: take the columns by falling H_ii, the most active input first. Without static groups, columns that
            are not neighbors then share a scale, and the result carries a group index.
        static_groups: choose all grids before the loop, from runs of neighboring columns. At 2 bits that is often the
            better choice: weights that have moved widen the grids of their groups.
        damping: λ, as a fraction of the mean H_ii over the inputs that are not dead.
        block_size: columns between two updates of the weights beyond them. It changes the time, not the result.
        name, tokens: the layer and how many tokens its Hessian has seen, for messages.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: a bad argument; a weight with NaN or infinity; a Hessian that is zero, not finite or, after
            damping, not positive definite; a weight so large that it overflows on the way.
    """
    affine.check_arguments(bits, group_size, symmetric, scale_dtype)
    affine.check_weight(w, name)
    _check_options(w, hessian, act_order, static_groups, damping, block_size)
    (rows, width), compute = w.shape, torch.float64 if w.dtype == torch.float64 else torch.float32
    group_width = width if isinstance(group_size, str) else min(group_size, width)
    static = static_groups or isinstance(group_size, str)

    with torch.no_grad(), _full_precision(w.device):
        h = hessian.to(w.device, compute)
        dead, order, factor = _factorize(h, act_order, damping, name, tokens)
        pivots = factor.diagonal().clone()  # (in,)
        feedback = factor.div_(pivots[:, None])  # row q: how far each later column moves per error of column q

        columns = w.t().to(compute, copy=True, memory_format=torch.contiguous_format)  # (in, out): a column is a row
        columns[dead] = 0
        grid = affine.choose_params(columns.t(), bits, group_size, symmetric, scale_dtype)
        columns, stored = columns[order], grid[0].dtype
        scales = grid[0].t().to(compute).contiguous()  # (groups, out); (1, 1) per tensor
        zeros = torch.full_like(scales, 2 ** (bits - 1)) if grid[1] is None else grid[1].t().to(compute)
        group_of = (order if static else torch.arange(width, device=w.device)) // group_width  # (in,), as the loop goes
        groups = group_of.tolist()

        losses = torch.zeros(rows, dtype=torch.float64, device=w.device)
        for start in range(0, width, block_size):
            stop = min(start + block_size, width)
            errors = columns.new_empty(stop - start, rows)  # (block, out): weights minus grid points
            for i, j in enumerate(range(start, stop)):
                group = groups[j]
                if not static and j % group_width == 0:
                    # The whole group as it is by now. `columns` lacks the feedback of the errors of this block.
                    ahead = columns[j : j + group_width] - feedback[start:j, j : j + group_width].t() @ errors[:i]
                    scale, zero = affine.choose_params(ahead.t(), bits, "channel", symmetric, stored)
                    stored = torch.promote_types(stored, scale.dtype)  # float32 once a group needs it
                    scales[group] = scale[:, 0]
                    if zero is not None:
                        zeros[group] = zero[:, 0]
                column = torch.addmv(columns[j], errors[:i].t(), feedback[start:j, j], alpha=-1)  # (out,)
                # As in affine.round_to_codes. From here on columns[j] holds codes.
                code = torch.div(column, scales[group], out=columns[j]).round_()
                code.add_(zeros[group]).clamp_(int(symmetric), 2**bits - 1)
                torch.addcmul(column, code - zeros[group], scales[group], value=-1, out=errors[i])
            losses += torch.linalg.vector_norm(errors / pivots[start:stop, None], dim=0, dtype=torch.float64) ** 2 / 2
            columns[stop:].addmm_(feedback[start:stop, stop:].t(), errors, alpha=-1)  # the lazy update
        if not bool(torch.isfinite(losses).all()):
            raise ValueError(f"{name}: weights overflow {compute} on the way; rescale them, or change the damping")

        back = order.argsort()
        codes = columns[back].t().to(torch.uint8).contiguous()
        stored_scales = scales.t().to(stored).contiguous()  # exact: every value came in this type or a narrower one
        stored_zeros = None if symmetric else zeros.t().to(torch.uint8).contiguous()
        group_index = group_of[back].int() if act_order and not static else None
    weight = affine.from_codes(codes, stored_scales, stored_zeros, bits, group_size, w.dtype, group_index)
    return Solution(weight, losses)


def _factorize(
    h: torch.Tensor, act_order: bool, damping: float, name: str, tokens: int | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Dead inputs (bool), the order of the columns, and the upper U with UᵀU = (H + λI)⁻¹ in that order.

    Factorizing from the last column up gives H + λI = R Rᵀ with an upper R, and U is the inverse of R. The paper
    inverts first and factorizes the inverse: the same matrix, for more work and with larger rounding errors.
    """
    diagonal, finite = h.diagonal(), bool(torch.isfinite(h).all())
    dead = diagonal == 0
    if not finite or bool(dead.all()):
        problem = "is all zeros" if finite else "holds NaN or infinity"
        raise ValueError(_hopeless(problem, h, name, tokens, damping))
    order = diagonal.argsort(descending=True, stable=True) if act_order else torch.arange(len(h), device=h.device)
    damped = h + torch.diag(torch.where(dead, 1.0, damping * diagonal[~dead].mean()))
    if act_order:
        damped = damped[order][:, order]
    lower, failed = torch.linalg.cholesky_ex(damped.flip(0, 1))
    if bool(failed):
        raise ValueError(_hopeless("is not positive definite", h, name, tokens, damping))
    return dead, order, _invert_upper(lower.flip(0, 1))


def _invert_upper(r: torch.Tensor) -> torch.Tensor:
    """The inverse of an upper triangular matrix, by halves: matrix products are the fastest thing there is."""
    if len(r) <= 256:
        return torch.linalg.solve_triangular(r, torch.eye(len(r), dtype=r.dtype, device=r.device), upper=True)
    half = len(r) // 2
    inverse = torch.zeros_like(r)
    inverse[:half, :half] = first = _invert_upper(r[:half, :half])
    inverse[half:, half:] = last = _invert_upper(r[half:, half:])
    inverse[:half, half:] = -(first @ r[:half, half:] @ last)
    return inverse


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """No autocast, no TF32 or bfloat16 inside float32 matrix products, whatever the caller has set."""
    backends: Any = torch.backends  # torch's own type hints do not know these settings
    cuda, cpu = backends.cuda.matmul, backends.mkldnn.matmul
    before = cuda.fp32_precision, cpu.fp32_precision
    cuda.fp32_precision = cpu.fp32_precision = "ieee"
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        cuda.fp32_precision, cpu.fp32_precision = before


def _check_options(
    w: torch.Tensor, hessian: torch.Tensor, act_order: bool, static_groups: bool, damping: float, block_size: int
) -> None:
    """Refuse what makes no sense, before anything is computed."""
    if not isinstance(hessian, torch.Tensor) or hessian.dtype not in HESSIAN_DTYPES:
        got = hessian.dtype if isinstance(hessian, torch.Tensor) else type(hessian).__name__
        raise TypeError(f"hessian: got {got}; give a tensor of float32 or float64, such as Hessian.matrix")
    if tuple(hessian.shape) != (w.shape[1], w.shape[1]):
        shapes = f"got shape {tuple(hessian.shape)} for weights {tuple(w.shape)}"
        raise ValueError(f"hessian: {shapes}; it must be (in, in) for (out, in). Transpose weights of GPT-2's Conv1D")
    if not isinstance(act_order, bool) or not isinstance(static_groups, bool):
        raise TypeError(f"act_order, static_groups: got {act_order!r}, {static_groups!r}; give True or False")
    if type(damping) not in (int, float) or not 0 <= damping < math.inf:
        raise ValueError(f"damping: got {damping!r}; give a finite number that is not negative, such as 0.01")
    if type(block_size) is not int or block_size <= 0:
        raise ValueError(f"block_size: got {block_size!r}; give a positive whole number, such as 128")


def _hopeless(problem: str, h: torch.Tensor, name: str, tokens: int | None, damping: float) -> str:
    """What to say of a Hessian that cannot be used."""
    rank = int(torch.linalg.matrix_rank(h, hermitian=True)) if bool(torch.isfinite(h).all()) else "unknown"
    return (
        f"{name}: the Hessian {problem} (rank {rank} of width {len(h)}, tokens seen: "
        f"{'unknown' if tokens is None else tokens}, damping {damping:g}). Calibrate with more tokens, several times "
        f"the width, and see that they reach this layer; or set damping to {0.1 if damping < 0.1 else 10 * damping:g}"
    )
