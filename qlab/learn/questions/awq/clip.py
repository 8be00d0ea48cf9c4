"""awq.clip: the largest magnitude to keep in each group, by the output error of that group (llm-awq's auto_clip)."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .shared import draw, second_moment, tokens

_FACTORS = 10
_RTOL = 1e-3


def clip_limits(w, moment, bits, group_size):
    """Find, for each group of weights, the limit at which rounding hurts the outputs least.

    w: float32 (out, in), with in a multiple of group_size.
    moment: float32 (in, in), the mean of x xᵀ over the tokens x of the calibration data.
    bits: 2 to 8.

    For each group ten limits are tried, its largest magnitude times 1, 0.95, ..., 0.55:
        step: limit / qmax, with qmax = 2**(bits-1) - 1.
        codes: the weights of the group / step, rounded, clamped to -qmax and qmax.
        loss: the mean square, over tokens, of what this group's change in its row adds to
            the output. It takes the block of moment that belongs to the group's inputs.

    Returns limits: float32 (out, in / group_size), those with the smallest loss; of several
        without any loss the largest, and 0 for a group of zeros.
    """
    qmax = 2 ** (bits - 1) - 1
    groups = w.reshape(len(w), -1, group_size)  # (out, groups, group_size)
    cuts = range(0, w.shape[1], group_size)
    blocks = torch.stack([moment[j : j + group_size, j : j + group_size] for j in cuts])
    largest = groups.abs().amax(dim=2)  # (out, groups)
    best = lowest = None
    for k in range(10):
        limits = largest * (1 - k / 20)
        steps = torch.where(limits > 0, limits / qmax, 1.0)[..., None]
        delta = torch.round(groups / steps).clamp(-qmax, qmax) * steps - groups
        losses = torch.einsum("ogi,gij,ogj->og", delta, blocks, delta)
        if best is None:
            best, lowest = limits, losses
        better = losses < lowest
        best = torch.where(better, limits, best)
        lowest = torch.where(better, losses, lowest)
    return best


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def layer(out: int, sizes: torch.Tensor, bits: int, group_size: int) -> tuple[Any, ...]:
        w = draw(
            # Heavy tails: a few large weights, for which clipping is a question at all.
            lambda: (
                torch.randn(out, len(sizes), generator=random) * torch.exp(0.5 * torch.randn(out, 1, generator=random))
            ),
            lambda w: _places(w, bits, group_size),
        )
        return w, second_moment(tokens(random, 90, sizes)), bits, group_size

    def sizes(count: int, spread: float) -> torch.Tensor:
        return torch.exp(spread * torch.randn(count, generator=random))

    on_the_grid = torch.randint(-2, 3, (4, 8), generator=random).float()
    on_the_grid[:, ::4] = 3.0  # the largest code of every group, so that its step is the unit
    w, moment, _, _ = layer(6, sizes(12, 1.0), 3, 4)
    unused = moment.clone()
    unused[4:8] = unused[:, 4:8] = 0.0
    zeros, _, _, _ = layer(5, sizes(12, 1.0), 3, 4)
    zeros[1, 4:8] = 0.0
    zeros[3] = 0.0
    return [
        Case("the group of the card", (*_OF_THE_CARD, 2, 2)),
        Case("2 bits, groups of 4", layer(8, sizes(8, 1.0), 2, 4)),
        Case("3 bits, groups of 4", layer(7, sizes(12, 1.0), 3, 4)),
        Case("4 bits, groups of 16", layer(6, sizes(32, 1.2), 4, 16)),
        Case("one group for a row", layer(9, sizes(6, 1.2), 2, 6)),
        Case("a square matrix", layer(8, sizes(8, 0.8), 2, 2)),
        Case("weights that are all negative", (-w.abs(), moment, 3, 4)),
        Case("inputs that are never used", (w, unused, 3, 4)),
        Case("weights that are on the grid already", (on_the_grid * 0.5, moment[:8, :8].contiguous(), 3, 4)),
        Case("groups of zeros", (zeros, moment, 3, 4)),
    ]


_OF_THE_CARD = (torch.tensor([[1.0, 0.6]]), torch.tensor([[0.1, 0.0], [0.0, 1.0]]))


def _factors() -> torch.Tensor:
    return 1 - torch.arange(_FACTORS, dtype=torch.float64) / 20


def _places(w: torch.Tensor, bits: int, group_size: int) -> torch.Tensor:
    """Where on the grid each weight lies, in steps, under all ten limits."""
    groups = w.double().reshape(len(w), -1, group_size)
    steps = groups.abs().amax(dim=2, keepdim=True) * _factors()[:, None, None, None] / (2 ** (bits - 1) - 1)
    return groups / steps


def _table(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    """All limits and their losses, in float64, (10, out, groups)."""
    w, moment, bits, group_size = case.args
    qmax = 2 ** (bits - 1) - 1
    groups = w.double().reshape(len(w), -1, group_size)
    limits = groups.abs().amax(dim=2) * _factors()[:, None, None]
    steps = torch.where(limits > 0, limits / qmax, 1.0)[..., None]
    deltas = torch.round(groups / steps).clamp(-qmax, qmax) * steps - groups
    blocks = moment.double().reshape(groups.shape[1], group_size, groups.shape[1], group_size)
    return limits, torch.einsum("kogi,gigj,kogj->kog", deltas, blocks, deltas)


def limits_are_float32_and_one_per_group(case: Case, got: Any, expected: Any) -> Finding | None:
    w, _, _, group_size = case.args
    return p.tensor(got, "limits", torch.float32, (len(w), w.shape[1] // group_size))


def limits_are_among_the_ten(case: Case, got: Any, expected: Any) -> Finding | None:
    limits, _ = _table(case)
    away = (got.double() - limits).abs().amin(dim=0).nan_to_num(nan=float("inf"))  # (out, groups)
    wrong = away > 1e-4 * limits[0]
    if not bool(wrong.any()):
        return None
    index = tuple(wrong.nonzero()[0].tolist())
    largest = limits[0][index].item()
    return Finding(
        f"limits: {int(wrong.sum())} of {wrong.numel()} are none of the ten that are tried",
        index=index,
        expected=f"{largest:.6g} times 1, 0.95, ..., 0.55" if largest else "0, for a group of zeros",
        got=f"{got[index].item():.6g}",
    )


def limits_have_the_smallest_loss(case: Case, got: Any, expected: Any) -> Finding | None:
    """Two limits whose losses differ by a thousandth are equally right; without any loss, the largest limit is."""
    limits, losses = _table(case)
    chosen = (got.double() - limits).abs().argmin(dim=0, keepdim=True)  # (1, out, groups)
    loss, lowest = losses.gather(0, chosen)[0], losses.amin(dim=0)
    first = losses.argmin(dim=0)
    wrong = (loss > (1 + _RTOL) * lowest) | ((lowest == 0) & (chosen[0] != first))
    if not bool(wrong.any()):
        return None
    index = tuple(wrong.nonzero()[0].tolist())
    k, right = int(chosen[0][index]), int(first[index])
    return Finding(
        f"limits: {int(wrong.sum())} of {wrong.numel()} are not the best of their group",
        index=index,
        expected=f"{1 - right / 20:g} of the largest magnitude (loss {lowest[index].item():.4g})",
        got=f"{1 - k / 20:g} of it (loss {loss[index].item():.4g})",
    )


def _grid(w: Any, bits: int, group_size: int, factors: Any = None) -> tuple[Any, ...]:
    """Groups (out, groups, group_size), limits (k, out, groups), steps with an axis more, and qmax."""
    factors = _factors().float() if factors is None else factors
    qmax = 2 ** (bits - 1) - 1
    groups = w.reshape(len(w), -1, group_size)
    limits = groups.abs().amax(dim=2) * factors[:, None, None]
    return groups, limits, torch.where(limits > 0, limits / qmax, 1.0)[..., None], qmax


def _deltas(w: Any, bits: int, group_size: int, factors: Any = None) -> Any:
    groups, _, steps, qmax = _grid(w, bits, group_size, factors)
    return torch.round(groups / steps).clamp(-qmax, qmax) * steps - groups


def _losses(deltas: Any, moment: Any) -> Any:
    size = deltas.shape[3]
    cuts = range(0, len(moment), size)
    blocks = torch.stack([moment[j : j + size, j : j + size] for j in cuts])
    return torch.einsum("kogi,gij,kogj->kog", deltas, blocks, deltas)


def _best(w: Any, losses: Any, bits: int, group_size: int, factors: Any = None) -> Any:
    """The limits with the smallest of these losses, which most of the mutants have right; argmin takes the first."""
    limits = _grid(w, bits, group_size, factors)[1]
    return limits.gather(0, losses.argmin(dim=0, keepdim=True).expand(1, *limits.shape[1:]))[0]


def _right(w: Any, moment: Any, bits: int, group_size: int, factors: Any = None) -> Any:
    return _best(w, _losses(_deltas(w, bits, group_size, factors), moment), bits, group_size, factors)


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def in_another_type(w, moment, bits, group_size):
    return clip_limits(w, moment, bits, group_size).double()


@mutant(
    "the moment is not used: this limit is best for the weights, not for the outputs. A group's large weight may meet "
    "an input that is hardly ever there; then clip it."
)
def error_of_the_weights(w, moment, bits, group_size):
    return _right(w, torch.eye(len(moment)), bits, group_size)


@mutant(
    "only the diagonal of the moment is used. Inside a group errors cancel or add up as well; take the whole block, "
    "(group_size, group_size)."
)
def diagonal_only(w, moment, bits, group_size):
    return _right(w, torch.diag(moment.diagonal()), bits, group_size)


@mutant(
    "every group is judged by the first block of the moment. Group g needs the rows and columns from g * group_size on."
)
def first_block_for_all(w, moment, bits, group_size):
    count = len(moment) // group_size
    return _right(w, torch.block_diag(*[moment[:group_size, :group_size]] * count), bits, group_size)


@mutant("all groups of a row get the same factor. Choose for each group by itself.")
def one_factor_for_a_row(w, moment, bits, group_size):
    losses = _losses(_deltas(w, bits, group_size), moment)
    return _best(w, losses.sum(dim=2, keepdim=True).expand_as(losses), bits, group_size)


@mutant("all rows get the same factor for a group of inputs. Every output has weights of its own: choose for each row.")
def one_factor_for_a_column(w, moment, bits, group_size):
    losses = _losses(_deltas(w, bits, group_size), moment)
    return _best(w, losses.sum(dim=1, keepdim=True).expand_as(losses), bits, group_size)


@mutant("the whole matrix gets one factor. Choose for each group of each row by itself.")
def one_factor_for_all(w, moment, bits, group_size):
    losses = _losses(_deltas(w, bits, group_size), moment)
    return _best(w, losses.sum(dim=(1, 2), keepdim=True).expand_as(losses), bits, group_size)


@mutant(
    "the weights are clipped, but the step still comes from the largest magnitude. Then clipping only does damage; its "
    "gain is the finer step, limit / qmax."
)
def step_not_shrunk(w, moment, bits, group_size):
    groups, limits, steps, _ = _grid(w, bits, group_size)
    clipped = groups.maximum(-limits[..., None]).minimum(limits[..., None])
    return _best(w, _losses(torch.round(clipped / steps[:1]) * steps[:1] - groups, moment), bits, group_size)


@mutant(
    "the codes are not clamped, so a smaller limit costs nothing: its step is finer, and large weights get codes that "
    "do not exist. Clamp to -qmax and qmax."
)
def codes_not_clamped(w, moment, bits, group_size):
    groups, _, steps, _ = _grid(w, bits, group_size)
    return _best(w, _losses(torch.round(groups / steps) * steps - groups, moment), bits, group_size)


@mutant(
    "the rounded weights are compared with the clipped ones, so what clipping itself costs is left out, and the "
    "smallest limit looks best. Compare with the weights as they were."
)
def compared_with_the_clipped(w, moment, bits, group_size):
    groups, limits, steps, _ = _grid(w, bits, group_size)
    clipped = groups.maximum(-limits[..., None]).minimum(limits[..., None])
    return _best(w, _losses(torch.round(clipped / steps) * steps - clipped, moment), bits, group_size)


@mutant(
    "the largest value is taken, not the largest magnitude. Where the large weights are negative, the limit is far too "
    "small, or negative itself."
)
def without_abs(w, moment, bits, group_size):
    qmax = 2 ** (bits - 1) - 1
    groups = w.reshape(len(w), -1, group_size)
    limits = groups.amax(dim=2) * _factors().float()[:, None, None]
    steps = torch.where(limits != 0, limits / qmax, 1.0)[..., None]
    losses = _losses(torch.round(groups / steps).clamp(-qmax, qmax) * steps - groups, moment)
    return limits.gather(0, losses.argmin(dim=0, keepdim=True))[0]


@mutant("the limits go down to 0.05 of the largest magnitude, in twenty steps. Ten are tried, down to 0.55.")
def down_to_a_twentieth(w, moment, bits, group_size):
    return _right(w, moment, bits, group_size, 1 - torch.arange(20) / 20)


@mutant("the limits go down in steps of a tenth, to 0.1 of the largest magnitude. The steps are 0.05, down to 0.55.")
def steps_of_a_tenth(w, moment, bits, group_size):
    return _right(w, moment, bits, group_size, 1 - torch.arange(10) / 10)


@mutant(
    "the limits begin at 0.95, so every group is clipped. The first limit is the largest magnitude itself: no clipping."
)
def always_clipped(w, moment, bits, group_size):
    return _right(w, moment, bits, group_size, 1 - torch.arange(1, 11) / 20)


@mutant("nothing is clipped: the largest magnitudes come back. Try the ten limits of each group.")
def never_clipped(w, moment, bits, group_size):
    return w.reshape(len(w), -1, group_size).abs().amax(dim=2)


@mutant(
    "of equal losses the last one wins, because the comparison is <=. A group whose inputs are never used would be "
    "clipped to 0.55 for nothing; only a strictly smaller loss is a reason."
)
def last_of_equals(w, moment, bits, group_size):
    losses = _losses(_deltas(w, bits, group_size), moment)
    limits = _grid(w, bits, group_size)[1]
    last = _FACTORS - 1 - losses.flip(0).argmin(dim=0, keepdim=True)
    return limits.gather(0, last)[0]


@mutant(
    "a group stops at the first limit that is worse than the one before. The loss jumps from limit to limit; try all "
    "ten."
)
def stops_at_the_first_rise(w, moment, bits, group_size):
    losses = _losses(_deltas(w, bits, group_size), moment)
    falls = torch.cat([torch.ones_like(losses[:1]), (losses[1:] < losses[:-1]).float()]).cumprod(dim=0)
    limits = _grid(w, bits, group_size)[1]
    return limits.gather(0, falls.sum(dim=0, keepdim=True).long() - 1)[0]


@mutant("the largest loss wins. Keep the limit with the smallest.")
def largest_loss(w, moment, bits, group_size):
    return _best(w, -_losses(_deltas(w, bits, group_size), moment), bits, group_size)


@mutant(
    "the factors come back. Return the limits themselves, in the unit of the weights: factor times largest magnitude."
)
def factors_for_limits(w, moment, bits, group_size):
    largest = w.reshape(len(w), -1, group_size).abs().amax(dim=2)
    return clip_limits(w, moment, bits, group_size) / torch.where(largest > 0, largest, 1.0)


@mutant("the steps come back, limit / qmax. Return the limits.")
def steps_for_limits(w, moment, bits, group_size):
    return clip_limits(w, moment, bits, group_size) / (2 ** (bits - 1) - 1)


@mutant("the limits have a third dimension, (out, groups, 1). Return one number per group, (out, groups).")
def with_a_third_dimension(w, moment, bits, group_size):
    return clip_limits(w, moment, bits, group_size)[:, :, None]


@mutant(
    "the limit is divided by 2**(bits-1), a code that a symmetric grid leaves unused. Divide by qmax = 2**(bits-1) - 1."
)
def off_by_one_qmax(w, moment, bits, group_size):
    groups, _, steps, qmax = _grid(w, bits, group_size)
    steps = steps * qmax / (qmax + 1)
    return _best(w, _losses(torch.round(groups / steps).clamp(-qmax, qmax) * steps - groups, moment), bits, group_size)


@mutant("the argument bits is not used; every limit is chosen for 4 bits.")
def four_bits_always(w, moment, bits, group_size):
    return clip_limits(w, moment, 4, group_size)


@mutant("a group takes every n-th weight of the row instead of neighbors. Reshape to (out, groups, group_size).")
def groups_of_every_nth(w, moment, bits, group_size):
    order = torch.arange(w.shape[1]).reshape(group_size, -1).T.reshape(-1)
    return clip_limits(w[:, order], moment[order][:, order], bits, group_size)


def all_losses_first(w, moment, bits, group_size):
    """Right, with all ten at once in float64; argmin takes the first of equal ones."""
    qmax = 2 ** (bits - 1) - 1
    groups = w.double().unflatten(1, (-1, group_size))  # (out, groups, group_size)
    limits = groups.abs().amax(dim=2, keepdim=True) * (1 - torch.arange(10) / 20).double()  # (out, groups, 10)
    steps = (limits / qmax).clamp(min=1e-30)[..., None]  # (out, groups, 10, 1)
    delta = (groups[:, :, None] / steps).round().clamp(-qmax, qmax) * steps - groups[:, :, None]
    count = groups.shape[1]
    blocks = moment.double().reshape(count, group_size, count, group_size)[range(count), :, range(count)]
    losses = ((delta @ blocks) * delta).sum(dim=3)  # (out, groups, 10)
    return limits.take_along_dim(losses.argmin(dim=2, keepdim=True), dim=2).squeeze(2).float()


def group_by_group(w, moment, bits, group_size):
    """Right, by loops, and with the strict comparison written out."""
    qmax = 2 ** (bits - 1) - 1
    limits = torch.zeros(len(w), w.shape[1] // group_size)
    for i, row in enumerate(w.double()):
        for g, group in enumerate(row.split(group_size)):
            inputs = slice(g * group_size, (g + 1) * group_size)
            block, best = moment[inputs, inputs].double(), None
            for percent in range(100, 50, -5):
                limit = group.abs().max().item() * percent / 100
                step = limit / qmax or 1.0
                error = torch.round(group / step).clamp(-qmax, qmax) * step - group
                loss = (error @ block @ error).item()
                if best is None or loss < best[0]:
                    best = loss, limit
            limits[i, g] = best[1]
    return limits


QUESTION = Question(
    id="awq.clip",
    title="Clip the largest weight of a group",
    reference=clip_limits,
    cases=cases,
    properties=(
        limits_are_float32_and_one_per_group,
        limits_are_among_the_ten,
        limits_have_the_smallest_loss,
    ),
    mutants=(
        in_another_type,  # first: what is wrong in its types only looks like this one
        error_of_the_weights,
        diagonal_only,
        first_block_for_all,
        one_factor_for_a_row,
        one_factor_for_a_column,
        one_factor_for_all,
        step_not_shrunk,
        codes_not_clamped,
        compared_with_the_clipped,
        without_abs,
        down_to_a_twentieth,
        steps_of_a_tenth,
        always_clipped,
        never_clipped,
        last_of_equals,
        stops_at_the_first_rise,
        largest_loss,
        factors_for_limits,
        steps_for_limits,
        with_a_third_dimension,
        off_by_one_qmax,
        four_bits_always,
        groups_of_every_nth,
    ),
    alternatives=(all_losses_first, group_by_group),
    hints=(
        "What does a group lose when its largest weight is clipped, and what do all others gain? Do one group of one "
        "row in a loop over ten limits first; the rest is the same for every group.",
        "The error of group g is a row vector d of group_size numbers, and its loss is d B dᵀ, with B the square block "
        "of the moment at the group's inputs. d is what the clamped, rounded weights are, minus the weights as they "
        "came: never minus the clipped ones.",
        "groups = w.reshape(len(w), -1, group_size); for k in range(10): limits = largest * (1 - k / 20), steps = "
        "limits / qmax (1.0 where that is 0), delta = round(groups / steps).clamp(-qmax, qmax) * steps - groups, "
        'losses = torch.einsum("ogi,gij,ogj->og", delta, blocks, delta); keep limits where losses < lowest.',
    ),
    explanation=(
        "On the card the weight 1 meets a small input and 0.6 a large one. Unclipped, both become 1, and the loss is "
        "0.16. With the limit 0.65 both become 0.65: the first is wrong by 0.35, the second by 0.05 only, and the loss "
        "is 0.015, a tenth. Clipping to 0.55 would be too much again: 0.023. The block of the group is an "
        "approximation: errors of different groups may cancel, too, but then one group's choice would depend on all "
        "others. Clipping costs nothing at run time, the format stays the same. llm-awq leaves q and k out: their "
        "outputs meet in a product, so the error of one output is no measure for them."
    ),
)
