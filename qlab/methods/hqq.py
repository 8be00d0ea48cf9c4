"""HQQ (Badri & Shaji 2023, "Half-Quadratic Quantization of Large Machine Learning Models").

It looks at the weights only, as round-to-nearest does, but asks for more than near codes: it moves the grid of every
group until the errors are small in the L_p "norm" with p < 1,

    minimize over z    sum |w - (q - z) * s|^p,    q = clamp(round(w / s + z), 0, 2^b - 1),

which cares more about making many errors small than about a few large ones. The zero-point z is a real number here.
Half-quadratic splitting gives every weight an error e of its own and takes turns, with beta growing by kappa:

    e = shrink(w - (q - z) * s)       what is too large to be explained away: sign(x) max(0, |x| - |x|^(p-1) / beta)
    z = mean(q - (w - e) / s)         the zero-point that fits the rest best, in closed form

Two things differ from the authors' library, and one is added:
- Errors are shrunk in units of the step. In units of the weights, as in the library, no error below
  beta^(-1 / (2-p)) = 0.17 survives: with weights of 0.02 e is always 0, and p has no say in where z goes.
- The best grid is kept group by group, by the objective above, and round-to-nearest is the first candidate: no group
  ends worse than it started. (The library keeps one count for the whole tensor, by mean |error|.)
- With `round_zeros` there is nothing for the zero-point to gain: on the grid from minimum to maximum, round-to-nearest
  has the best integer already. So the roles change: z stays, and the scale is the number that is fitted.
"""

from __future__ import annotations

import torch

from qlab.formats import affine


def quantize(
    w: torch.Tensor,
    bits: int = 4,
    group_size: affine.GroupSize = 64,
    scale_dtype: torch.dtype = torch.float16,
    round_zeros: bool = False,
    p: float = 0.7,
    beta: float = 10.0,
    kappa: float = 1.01,
    iterations: int = 20,
) -> affine.AffineWeight:
    """Fit the grid of every group to its weights, then round to the nearest code. No data is needed.

    Args:
        w: float16, bfloat16, float32 or float64 (out, in).
        bits, group_size, scale_dtype: as in `affine.quantize`; the grid is always asymmetric.
        round_zeros: keep integer zero-points within 0 and 2^bits - 1, which GPTQ and AWQ files can hold, and fit the
            scales. Otherwise zero-points are real, in the type of the scales.
        p: the norm; errors count as |error|^p, 0 < p <= 1.
        beta, kappa: weight of the splitting, in steps of the grid, and its growth per iteration.
        iterations: how often the grid is moved; 0 gives round-to-nearest or, with real zero-points, the better of
            that and the grid from the minimum to the maximum of a group.

    Raises:
        TypeError, ValueError: w, bits, group_size or scale_dtype as in `affine.quantize`; or an option that is not
            one of those allowed.
    """
    affine.check_arguments(bits, group_size, False, scale_dtype)
    affine.check_weight(w)
    _check_options(round_zeros, p, beta, kappa, iterations)
    scales, zeros = affine.choose_params(w, bits, group_size, False, scale_dtype)
    assert zeros is not None  # the grid is asymmetric

    values = w.to(torch.promote_types(w.dtype, torch.float32))
    if group_size == "tensor":
        values = values.reshape(1, -1)
    rows, columns = values.shape
    width = columns if isinstance(group_size, str) else min(group_size, columns)
    whole = columns // width  # full groups in a row; a short last group is solved on its own
    runs = [values[:, : whole * width].reshape(rows, whole, width), values[:, whole * width :].unsqueeze(1)]
    solved = [
        _fit(run, scales[:, part], zeros[:, part], 2**bits - 1, round_zeros, p, beta, kappa, iterations)
        for run, part in zip(runs, (slice(0, whole), slice(whole, None)), strict=True)
        if run.numel()
    ]
    codes, fitted_scales, fitted_zeros = (torch.cat([s[i].flatten(1) for s in solved], 1) for i in range(3))
    codes = codes.to(torch.uint8).reshape(w.shape)
    fitted_zeros = fitted_zeros.to(torch.uint8 if round_zeros else scales.dtype)
    return affine.from_codes(codes, fitted_scales.to(scales.dtype), fitted_zeros, bits, group_size, w.dtype)


def _fit(
    groups: torch.Tensor,  # (rows, groups, group)
    scales: torch.Tensor,  # (rows, groups), round-to-nearest's, in the type in which they will be stored
    zeros: torch.Tensor,  # (rows, groups), uint8
    levels: int,
    round_zeros: bool,
    p: float,
    beta: float,
    kappa: float,
    iterations: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes (rows, groups, group), scales and zero-points (rows, groups, 1) of the best grid met, in type of `groups`.

    A candidate that makes no sense (no scale fits a group of zeros, a zero-point may overflow its type) has an error
    of NaN, and NaN is never below the best.
    """
    held, compute = scales.dtype, groups.dtype
    scale, zero = scales.to(compute)[..., None], zeros.to(compute)[..., None]  # (rows, groups, 1)
    best_scale, best_zero, best_error = scale, zero, torch.full_like(scale, torch.inf)
    for step in range(iterations + (1 if round_zeros else 2)):
        codes = _nearest(groups, scale, zero, levels)
        residual = groups - (codes - zero) * scale
        error = residual.abs().pow(p).sum(-1, keepdim=True)
        better = error < best_error
        best_scale, best_zero = torch.where(better, scale, best_scale), torch.where(better, zero, best_zero)
        best_error = torch.where(better, error, best_error)
        if step == 0 and not round_zeros:
            # A real zero-point frees the grid from zero: it may span just the group, even one that lies far off.
            low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
            scale = ((high - low) / levels).clamp(min=torch.finfo(held).tiny).to(held).to(compute)
            zero = (-low / scale).to(held).to(compute)
            continue
        target = groups - scale * shrink(residual / scale, beta, p)
        beta *= kappa
        if round_zeros:
            steps = codes - zero  # (rows, groups, group)
            scale = (steps * target).sum(-1, keepdim=True) / steps.square().sum(-1, keepdim=True)
            scale = scale.clamp(min=torch.finfo(held).tiny).to(held).to(compute)
        else:
            zero = (codes - target / scale).mean(-1, keepdim=True).to(held).to(compute)
    return _nearest(groups, best_scale, best_zero, levels), best_scale, best_zero


def shrink(x: torch.Tensor, beta: float, p: float) -> torch.Tensor:
    """Pull every error towards zero by |x|^(p-1) / beta, small ones all the way (the generalized soft threshold)."""
    return x.sign() * (x.abs() - x.abs().pow(p - 1) / beta).clamp(min=0)


def _nearest(groups: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, levels: int) -> torch.Tensor:
    """Codes, still floating: the zero-point is added before rounding, since it need not be an integer."""
    return torch.round(groups / scale + zero).clamp(0, levels)


def _check_options(round_zeros: bool, p: float, beta: float, kappa: float, iterations: int) -> None:
    if not isinstance(round_zeros, bool):
        raise TypeError(f"round_zeros: got {round_zeros!r}; give True or False")
    for name, value in (("p", p), ("beta", beta), ("kappa", kappa)):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{name}: got {value!r}; give a number")
    if not 0 < p <= 1:
        raise ValueError(f"p: got {p}; allowed is above 0 up to 1, 0.7 is usual")
    if not 0 < beta < float("inf"):
        raise ValueError(f"beta: got {beta}; allowed is any positive number, 10 is usual")
    if not 1 <= kappa < float("inf"):
        raise ValueError(f"kappa: got {kappa}; allowed is 1 or more, 1.01 is usual")
    if type(iterations) is not int:
        raise TypeError(f"iterations: got {iterations!r}; give a whole number")
    if iterations < 0:
        raise ValueError(f"iterations: got {iterations}; allowed is 0 or more, 20 is usual")
