"""awq.search: the channel scales with the smallest output error, out of twenty (Lin et al. 2024, eq. 4 and 5)."""

from __future__ import annotations

import math
from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .shared import draw, near, rounded, second_moment, tokens

_RATIOS = 20


def search_scales(w, means, moment, bits, group_size):
    """Find the channel scales whose rounding changes the outputs of a layer least.

    w: float32 (out, in), with in a multiple of group_size.
    means: float32 (in,), the mean magnitude of each input channel.
    moment: float32 (in, in), the mean of x xᵀ over the tokens x of the calibration data.
    bits, group_size: for rounded(), above.

    For k = 0, 1, ..., 19, so for the ratios k / 20:
        scales: means**ratio, at least 1e-4; all divided by sqrt(largest * smallest).
        w_hat: w times scales, rounded, divided by scales.
        loss: the mean over outputs and tokens of the squared change of w @ x.

    Returns (scales, k, losses):
    scales: float32 (in,), those with the smallest loss.
    k: an int, theirs; where several have no loss at all, the smallest.
    losses: float32 (20,), for all k.
    """
    losses = []
    for k in range(20):  # every ratio starts from the same w
        scales = means.pow(k / 20).clamp(min=1e-4)
        scales = scales / (scales.max() * scales.min()).sqrt()
        delta = rounded(w * scales, bits, group_size) / scales - w
        loss = ((delta @ moment) * delta).sum() / len(w)
        if not losses or loss < min(losses):
            best_scales, best_k = scales, k
        losses.append(loss)
    return best_scales, best_k, torch.stack(losses)


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def layer(out: int, sizes: torch.Tensor, bits: int, group_size: int, make: Any = None) -> tuple[Any, ...]:
        x = tokens(random, 80, sizes)
        means = x.abs().mean(dim=0)
        w = draw(
            make or (lambda: torch.randn(out, len(sizes), generator=random)),
            lambda w: torch.stack([_places(w, means, k / _RATIOS, bits, group_size) for k in range(_RATIOS)]),
        )
        return w, means, second_moment(x), bits, group_size

    def sizes(count: int, spread: float) -> torch.Tensor:
        return torch.exp(spread * torch.randn(count, generator=random))

    outlier = sizes(8, 0.3)
    outlier[5] = 25.0
    dead = sizes(8, 0.8)
    dead[2] = 0.0

    def on_the_grid() -> torch.Tensor:
        w = torch.randint(-6, 7, (3, 8), generator=random).float()
        w[:, ::4] = 7.0  # the largest code of every group, so that its step is the unit
        return w * 0.25

    return [
        Case("the layer of the card", (*_OF_THE_CARD, 2, 2)),
        Case("3 bits, groups of 4", layer(6, sizes(8, 1.0), 3, 4)),
        Case("4 bits, one group for a row", layer(4, sizes(6, 1.2), 4, 6)),
        Case("2 bits, and an outlier channel", layer(8, outlier, 2, 4)),
        Case("large activations", layer(5, 300 * sizes(8, 0.7), 3, 8)),
        Case("a channel that is always zero", layer(5, dead, 3, 4)),
        Case("weights that are on the grid already", layer(3, sizes(8, 1.0), 4, 4, on_the_grid)),
        Case("a layer that no token reached", (layer(2, outlier, 3, 4)[0], torch.zeros(8), torch.zeros(8, 8), 3, 4)),
        Case("square, groups of 2", layer(6, sizes(6, 0.8), 3, 2)),
    ]


_OF_THE_CARD = (torch.tensor([[1.0, 0.4]]), torch.tensor([1.0, 4.0]), torch.tensor([[1.0, 0.0], [0.0, 16.0]]))


def _places(w: torch.Tensor, means: torch.Tensor, ratio: float, bits: int, group_size: int) -> torch.Tensor:
    """Where on the grid each weight lies, in steps of its group."""
    groups = (w.double() * means.double().pow(ratio).clamp(min=1e-4)).reshape(len(w), -1, group_size)
    return groups / groups.abs().amax(dim=2, keepdim=True) * (2 ** (bits - 1) - 1)


def returns_scales_k_losses(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.parts(got, "scales", "k", "losses")


def losses_are_those_of_the_ratios(case: Case, got: Any, expected: Any) -> Finding | None:
    if finding := p.tensor(got[2], "losses", torch.float32, (_RATIOS,)):
        return finding
    return near(got[2], "losses", expected[2], 1e-3)


def k_is_one_of_twenty(case: Case, got: Any, expected: Any) -> Finding | None:
    if finding := p.whole_number(got[1], "k"):
        return finding
    if 0 <= p.as_number(got[1]) < _RATIOS:
        return None
    return Finding("k: there is no such ratio", expected="a number from 0 to 19", got=f"{p.as_number(got[1]):g}")


def k_has_the_smallest_loss(case: Case, got: Any, expected: Any) -> Finding | None:
    """Two ratios whose losses differ by a thousandth are equally right; without any loss, the smallest ratio is."""
    losses, k = expected[2].double(), round(p.as_number(got[1]))
    first, lowest = int(losses.argmin()), losses.min().item()
    if losses[k] <= lowest * (1 + 1e-3) and (lowest > 0 or k == first):
        return None
    return Finding(
        "k: a smaller one has no loss either" if losses[k] == lowest else "k: its loss is not the smallest",
        expected=f"{first} (loss {lowest:.4g})",
        got=f"{k} (loss {losses[k].item():.4g})",
    )


def scales_are_those_of_k(case: Case, got: Any, expected: Any) -> Finding | None:
    scales = case.args[1].double().pow(p.as_number(got[1]) / _RATIOS).clamp(min=1e-4)
    return near(got[0], "scales", scales / (scales.max() * scales.min()).sqrt())


def _scales(means: Any, ratio: float) -> Any:
    scales = means.pow(ratio).clamp(min=1e-4)
    return scales / (scales.max() * scales.min()).sqrt()


_GRID = tuple(k / _RATIOS for k in range(_RATIOS))


def _table(means: Any, ratios: Any = _GRID) -> Any:
    """The scales of all ratios at once, (ratios, 1, in): the mutants are called often."""
    powers = means.pow(torch.tensor(ratios)[:, None]).clamp(min=1e-4)  # (ratios, in)
    return (powers / (powers.amax(dim=1) * powers.amin(dim=1)).sqrt()[:, None])[:, None]


def _rounded(w: Any, bits: int, group_size: int) -> Any:
    """`rounded` of a stack of matrices."""
    return rounded(w.reshape(-1, w.shape[-1]), bits, group_size).reshape(w.shape)


def _deltas(w: Any, scales: Any, bits: int, group_size: int) -> Any:
    """How the weights change under all these scales, (ratios, out, in)."""
    return _rounded(w * scales, bits, group_size) / scales - w


def _losses(deltas: Any, moment: Any) -> Any:
    return ((deltas @ moment) * deltas).sum(dim=(1, 2)) / deltas.shape[1]


def _best(means: Any, losses: Any, ratios: Any = _GRID) -> Any:
    """The end of the search."""
    k = int(losses.argmin())
    return _scales(means, ratios[k]), k, losses


def _right(w: Any, means: Any, moment: Any, bits: int, group_size: int) -> Any:
    """The reference, for mutants that go wrong after it."""
    return _best(means, _losses(_deltas(w, _table(means), bits, group_size), moment))


def _other_ratios(w: Any, means: Any, moment: Any, bits: int, group_size: int, ratios: Any) -> Any:
    return _best(means, _losses(_deltas(w, _table(means, ratios), bits, group_size), moment), ratios)


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def in_another_type(w, means, moment, bits, group_size):
    scales, k, losses = _right(w, means, moment, bits, group_size)
    return scales.double(), k, losses.double()


@mutant(
    "the weights are not restored: every ratio starts from what the one before has rounded. After the first round most "
    "of the damage is done, and the other ratios cannot undo it. Start from w each time."
)
def not_restored(w, means, moment, bits, group_size):
    current, deltas = w, []
    for scales in _table(means):
        current = rounded(current * scales, bits, group_size) / scales
        deltas.append(current - w)
    return _best(means, _losses(torch.stack(deltas), moment))


@mutant(
    "w is scaled and rounded in place, so the caller's weights are destroyed, and every ratio starts from the damage "
    "of the one before. Compute with new tensors."
)
def in_place(w, means, moment, bits, group_size):
    original, deltas = w.clone(), []
    for scales in _table(means):
        w.copy_(rounded(w.mul_(scales), bits, group_size)).div_(scales)
        deltas.append(w - original)
    return _best(means, _losses(torch.stack(deltas), moment))


@mutant(
    "the ratios go from 0 to 1 inclusive, as torch.linspace(0, 1, 20) gives them: steps of 1/19. Asked for are steps "
    "of 0.05, up to 0.95."
)
def ratios_up_to_one(w, means, moment, bits, group_size):
    return _other_ratios(w, means, moment, bits, group_size, [k / 19 for k in range(20)])


@mutant(
    "the ratio 0 is left out: the ratios begin at 0.05. Without it the search can end worse than round to nearest, "
    "which is what ratio 0 is."
)
def identity_left_out(w, means, moment, bits, group_size):
    return _other_ratios(w, means, moment, bits, group_size, [k / 20 for k in range(1, 21)])


@mutant("there are ten ratios, in steps of 0.1. Asked for are twenty, in steps of 0.05.")
def ten_ratios(w, means, moment, bits, group_size):
    return _other_ratios(w, means, moment, bits, group_size, [k / 10 for k in range(10)])


@mutant("there are 21 ratios, with 1 as the last. Asked for are twenty: range(20), up to 0.95.")
def twenty_one_ratios(w, means, moment, bits, group_size):
    return _other_ratios(w, means, moment, bits, group_size, [k / 20 for k in range(21)])


@mutant("the largest loss wins. Keep the ratio with the smallest.")
def largest_loss(w, means, moment, bits, group_size):
    _, _, losses = _right(w, means, moment, bits, group_size)
    k = int(losses.argmax())
    return _scales(means, k / _RATIOS), k, losses


@mutant(
    "of equal losses the last one wins, because the comparison is <=. A layer that no token reached would be scaled "
    "with 0.95 instead of being left alone: only a strictly smaller loss is a reason."
)
def last_of_equals(w, means, moment, bits, group_size):
    _, _, losses = _right(w, means, moment, bits, group_size)
    k = _RATIOS - 1 - int(losses.flip(0).argmin())
    return _scales(means, k / _RATIOS), k, losses


@mutant(
    "the loss is the error of the weights, without the moment. Then no channel is more important than another, and "
    "scaling hardly ever seems to pay."
)
def error_of_the_weights(w, means, moment, bits, group_size):
    return _best(means, _deltas(w, _table(means), bits, group_size).square().mean(dim=(1, 2)))


@mutant(
    "the loss is the sum of delta deltaᵀ over inputs, without the moment between them. Then no channel is more "
    "important than another: it has to be delta H deltaᵀ."
)
def moment_left_out(w, means, moment, bits, group_size):
    return _best(means, _deltas(w, _table(means), bits, group_size).square().sum(dim=(1, 2)) / len(w))


@mutant(
    "only the diagonal of the moment is used in the loss, as if inputs were independent. Errors of inputs that move "
    "together add up or cancel."
)
def diagonal_only(w, means, moment, bits, group_size):
    return _right(w, means, torch.diag(moment.diagonal()), bits, group_size)


@mutant("the loss is a sum over the outputs. Asked for is the mean: divide by their number.")
def sum_over_the_outputs(w, means, moment, bits, group_size):
    scales, k, losses = _right(w, means, moment, bits, group_size)
    return scales, k, losses * len(w)


@mutant(
    "the rounded weights are not divided by the scales again, so every loss but the first is that of other weights. "
    "The norm before divides the activations; in the search, w_hat has to be."
)
def not_divided_again(w, means, moment, bits, group_size):
    return _best(means, _losses(_rounded(w * _table(means), bits, group_size) - w, moment))


@mutant(
    "the error is measured between scaled weights, rounded(w * s) - w * s, but the moment is that of the activations "
    "before scaling. Divide by the scales first."
)
def error_of_scaled_weights(w, means, moment, bits, group_size):
    scaled = w * _table(means)
    return _best(means, _losses(_rounded(scaled, bits, group_size) - scaled, moment))


@mutant(
    "the weights are divided by the scales before rounding and multiplied after it. Then important channels become "
    "small and lose most."
)
def wrong_direction(w, means, moment, bits, group_size):
    return _best(means, _losses(_deltas(w, 1 / _table(means), bits, group_size), moment))


@mutant("the weights are rounded first and scaled afterwards, so all ratios have the same loss. Scale, then round.")
def rounded_first(w, means, moment, bits, group_size):
    delta = rounded(w, bits, group_size) - w
    return _best(means, _losses(delta.expand(_RATIOS, -1, -1), moment))


@mutant(
    "the scales are not brought to a common size. The losses are right, because a group's step absorbs a common "
    "factor; the scales that come back are not those that were asked for."
)
def not_normalized(w, means, moment, bits, group_size):
    _, k, losses = _right(w, means, moment, bits, group_size)
    return means.pow(k / _RATIOS).clamp(min=1e-4), k, losses


@mutant(
    "a channel that is always zero makes scales infinite and losses NaN, and no comparison with NaN is true, so "
    "nothing is ever better. Keep the powers at 1e-4 or above."
)
def limit_missing(w, means, moment, bits, group_size):
    powers = torch.stack([means.pow(ratio) for ratio in _GRID])
    table = powers / (powers.amax(dim=1) * powers.amin(dim=1)).sqrt()[:, None]
    losses = _losses(_deltas(w, table[:, None], bits, group_size), moment)
    k = int(losses.nan_to_num(nan=math.inf).argmin())
    return table[k], k, losses


@mutant(
    "the limit of 1e-4 is applied to the means, before the power. It belongs to the powers, as in awq.scales: a dead "
    "channel has the scale 1e-4 for every ratio but 0."
)
def limit_before_the_power(w, means, moment, bits, group_size):
    powers = means.clamp(min=1e-4).pow(torch.tensor(_GRID)[:, None])
    table = powers / (powers.amax(dim=1) * powers.amin(dim=1)).sqrt()[:, None]
    losses = _losses(_deltas(w, table[:, None], bits, group_size), moment)
    k = int(losses.argmin())
    return table[k], k, losses


@mutant("the ratio comes back. Return its number k, from 0 to 19.")
def ratio_for_its_number(w, means, moment, bits, group_size):
    scales, k, losses = _right(w, means, moment, bits, group_size)
    return scales, k / _RATIOS, losses


@mutant(
    "the scales of the last ratio come back, beside the best k. The variable was overwritten after the best one: "
    "keep the scales when you keep k."
)
def scales_of_the_last(w, means, moment, bits, group_size):
    _, k, losses = _right(w, means, moment, bits, group_size)
    return _scales(means, 0.95), k, losses


@mutant(
    "the search stops at the first ratio that is worse than the one before. Rounding jumps, and so does the loss: "
    "there are several valleys. Try all twenty."
)
def stops_at_the_first_rise(w, means, moment, bits, group_size):
    _, _, losses = _right(w, means, moment, bits, group_size)
    worse = (losses[1:] >= losses[:-1]).nonzero()
    k = int(worse[0]) if len(worse) else _RATIOS - 1
    return _scales(means, k / _RATIOS), k, losses


@mutant("the smallest loss comes back instead of all twenty. Keep them in a list, and stack it at the end.")
def smallest_loss_only(w, means, moment, bits, group_size):
    scales, k, losses = _right(w, means, moment, bits, group_size)
    return scales, k, losses.min()


@mutant(
    "the best loss starts at 1, so where all losses are larger nothing is ever better. Losses have the unit of the "
    "output squared: start with infinity, or with the first of them."
)
def best_starts_at_one(w, means, moment, bits, group_size):
    scales, k, losses = _right(w, means, moment, bits, group_size)
    return (scales, k, losses) if losses.min() < 1 else (torch.ones_like(means), 0, losses)


@mutant("the argument bits is not used; everything is rounded to 4 bits.")
def four_bits_always(w, means, moment, bits, group_size):
    return _right(w, means, moment, 4, group_size)


@mutant("the argument group_size is not used; every row is one group.")
def one_group_for_a_row(w, means, moment, bits, group_size):
    return _right(w, means, moment, bits, w.shape[1])


def all_losses_first(w, means, moment, bits, group_size):
    """Right, in float64, with the smallest looked up at the end; argmin takes the first of equal ones."""
    powers = torch.stack([(means.double() ** (k / 20)).clamp(min=1e-4) for k in range(20)])
    scales = powers / (powers.amax(dim=1) * powers.amin(dim=1)).sqrt()[:, None]
    deltas = torch.stack([rounded(w.double() * s, bits, group_size) / s - w for s in scales])  # (20, out, in)
    losses = torch.einsum("koi,ij,koj->k", deltas, moment.double(), deltas) / len(w)
    k = int(losses.argmin())
    return scales[k].float(), torch.tensor(k), losses.float()


def folded_into_the_moment(w, means, moment, bits, group_size):
    """Right, in the scaled world: weights w * s see activations x / s, whose moment is H / (s sᵀ)."""
    best, losses = None, []
    for k, ratio in enumerate(range(0, 100, 5)):
        scales = means.pow(ratio / 100).clamp(min=1e-4)
        scales /= (scales.max() * scales.min()).sqrt()
        delta = rounded(w * scales, bits, group_size) - w * scales
        loss = torch.trace(delta @ (moment / torch.outer(scales, scales)) @ delta.T) / w.shape[0]
        losses.append(loss.item())
        if best is None or losses[-1] < best[0]:
            best = losses[-1], scales, k
    return best[1], best[2], torch.tensor(losses)


QUESTION = Question(
    id="awq.search",
    title="Twenty ratios, one of them does nothing",
    reference=search_scales,
    cases=cases,
    properties=(
        returns_scales_k_losses,
        losses_are_those_of_the_ratios,
        k_is_one_of_twenty,
        k_has_the_smallest_loss,
        scales_are_those_of_k,
    ),
    mutants=(
        in_another_type,  # first: what is wrong in its types only looks like this one
        not_restored,
        in_place,
        ratios_up_to_one,
        identity_left_out,
        ten_ratios,
        twenty_one_ratios,
        largest_loss,
        last_of_equals,
        error_of_the_weights,
        moment_left_out,
        diagonal_only,
        sum_over_the_outputs,
        not_divided_again,
        error_of_scaled_weights,
        wrong_direction,
        rounded_first,
        not_normalized,
        limit_missing,
        limit_before_the_power,
        ratio_for_its_number,
        scales_of_the_last,
        stops_at_the_first_rise,
        smallest_loss_only,
        best_starts_at_one,
        four_bits_always,
        one_group_for_a_row,
    ),
    alternatives=(all_losses_first, folded_into_the_moment),
    hints=(
        "A loop over twenty ratios. What must be the same at the start of each round, and what do you have to remember "
        "when a loss is the smallest so far?",
        "In each round: scales as in awq.scales, w_hat = rounded(w * scales, bits, group_size) / scales, the loss as "
        "in awq.output_loss. Never write into w. Keep the scales and k when the loss is strictly smaller than "
        "all before.",
        "for k in range(20): ratio = k / 20; scales = means.pow(ratio).clamp(min=1e-4); scales = scales / "
        "(scales.max() * scales.min()).sqrt(); delta = rounded(w * scales, bits, group_size) / scales - w; "
        "loss = ((delta @ moment) * delta).sum() / len(w). Keep, append, and torch.stack(losses) at the end.",
    ),
    explanation=(
        "On the card, two weights share a group and the second meets inputs four times as large. Plain rounding takes "
        "the step from the first, the second becomes 0, and the loss is 2.56. With the ratio 0.5 the second weight has "
        "grown enough to get a code: 0.16. At 0.65 it is nearly as large as the first, and what comes back is nearly "
        "exact: 0.0006. At 0.95 it sets the step itself, the first one pays, and the loss is 0.24. So the best ratio "
        "lies inside, and the curve jumps where a code changes: a search by descent would stop in the wrong valley, "
        "and twenty trials cost little. Ratio 0 is among them, so on the calibration data the result is never worse "
        "than round to nearest. On other data nothing promises that."
    ),
)
