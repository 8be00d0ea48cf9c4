"""smoothquant.best_alpha: the share of the difficulty under which the outputs change least (Xiao et al. 2022, 5.5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .shared import LARGEST, is_near_a_tie, near, normal, rounded, sizes, smoothing


def best_alpha(x, w, alphas):
    """Find the alpha under which rounding to int8 changes the outputs of a layer least.

    x: float32 (tokens, in), calibration inputs.
    w: float32 (out, in).
    alphas: a tuple of different floats from 0 to 1, at least one, in any order.

    For each alpha:
        scales: max|x|**alpha / max|w|**(1 - alpha) of each channel; 1 where either is 0.
        y_hat: rounded(x / scales) times rounded(w * scales) transposed; rounded() is above.
        loss: the mean over tokens and outputs of (y_hat - x @ w.T)**2.

    Returns (alpha, losses):
    alpha: a float, the one with the smallest loss; if several have that very same loss,
        the smallest of them.
    losses: float32 (number of alphas,), in their order.
    """
    y = x @ w.T
    input_max, weight_max = x.abs().amax(dim=0), w.abs().amax(dim=0)
    dead = (input_max == 0) | (weight_max == 0)
    losses = []
    for alpha in alphas:  # each starts from the same x and w
        scales = torch.where(dead, 1.0, input_max.pow(alpha) / weight_max.pow(1 - alpha))
        y_hat = rounded(x / scales) @ rounded(w * scales).T
        losses.append((y_hat - y).square().mean())
    lowest = min(losses)
    best = min(alpha for alpha, loss in zip(alphas, losses, strict=True) if loss == lowest)
    return best, torch.stack(losses)


_CARD_X = torch.tensor([[40.0, -0.1, 0.8], [60.0, 0.6, 0.9], [-20.0, -0.5, -0.8]])
_CARD_W = torch.tensor([[0.3, -0.4, 0.2], [0.9, -0.3, 0.2]])
_FIVE = (0.0, 0.25, 0.5, 0.75, 1.0)


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def layer(
        name: str, tokens: int, out: int, channels: Callable[[], torch.Tensor], alphas: tuple[float, ...] = _FIVE
    ) -> Case:
        """Inputs whose channels have these sizes; drawn again while a value is near a tie under some alpha."""
        while True:
            large = channels()
            x, w = normal(random, tokens, len(large)) * large, normal(random, out, len(large))
            w = w * sizes(random, len(large), 0.4)
            if not any(is_near_a_tie(places) for alpha in alphas for places in _places(x, w, alpha)):
                return Case(name, (x, w, alphas))

    def outlier(count: int, *factors: float) -> Callable[[], torch.Tensor]:
        def channels() -> torch.Tensor:
            large = sizes(random, count, 0.3)
            large[: len(factors)] *= torch.tensor(factors)
            return large.roll(seed % count)

        return channels

    def dead() -> torch.Tensor:
        large = outlier(7, 40.0)()
        large[3 if large[3] < 10 else 4] = 0.0
        return large

    def without_readers() -> Case:
        """The outlier is in a channel of which no output reads anything."""
        while True:
            case = layer("", 8, 5, outlier(6, 40.0), (0.75, 0.25, 0.1, 0.5))
            x, w, alphas = case.args
            w[:, x.abs().amax(dim=0).argmax()] = 0.0
            if not any(is_near_a_tie(places) for alpha in alphas for places in _places(x, w, alpha)):
                return Case("a channel whose weights are all zero", case.args)

    def alike() -> Case:
        """Every channel has the largest magnitude 1 on both sides, so that all scales are 1 for every alpha."""
        while True:
            x, w = (2 * torch.rand(rows, 6, generator=random) - 1 for rows in (7, 6))
            x[torch.arange(6), torch.arange(6)] = 1.0
            w[torch.arange(6), torch.arange(6)] = -1.0
            if not any(map(is_near_a_tie, _places(x, w, 0.5))):
                return Case("channels all alike, so that every alpha is as good", (x, w, (0.7, 0.3, 0.5, 0.9)))

    return [
        Case("the layer of the card", (_CARD_X, _CARD_W, _FIVE)),
        layer("an outlier channel", 9, 6, outlier(8, 60.0)),
        layer("two outlier channels", 8, 5, outlier(8, 30.0, 90.0)),
        layer("no outliers", 8, 6, outlier(6)),
        layer("an outlier that is moderate", 12, 5, outlier(8, 8.0)),
        layer("small inputs", 7, 4, lambda: 1e-3 * outlier(6, 50.0)()),
        layer("alphas from large to small", 8, 6, outlier(6, 40.0), (0.9, 0.7, 0.5, 0.3)),
        layer("alphas in no order", 8, 4, outlier(7, 70.0), (0.65, 0.35, 0.8, 0.5)),
        layer("a single alpha", 6, 5, outlier(6, 20.0), (0.85,)),
        layer("a channel whose inputs are always zero", 8, 5, dead),
        layer("a channel whose inputs are always zero, and no alpha of 0", 7, 4, dead, (0.8, 0.5, 0.3)),
        without_readers(),
        layer("as many tokens as outputs and channels", 6, 6, outlier(6, 60.0)),
        alike(),
        Case("inputs of zeros", (torch.zeros(4, 5), normal(random, 3, 5), (0.75, 0.25, 0.5))),
        layer("a single token", 1, 4, outlier(6, 30.0)),
    ]


def _smoothed(x: torch.Tensor, w: torch.Tensor, alpha: float) -> tuple[torch.Tensor, torch.Tensor]:
    scales = smoothing(x.abs().amax(dim=0), w.abs().amax(dim=0), alpha)
    return x / scales, w * scales


def _places(x: torch.Tensor, w: torch.Tensor, alpha: float) -> list[torch.Tensor]:
    """Where on the grid inputs and weights lie, in steps of their row."""
    return [a / a.abs().amax(dim=1, keepdim=True) * LARGEST for a in _smoothed(x.double(), w.double(), alpha)]


def returns_alpha_and_losses(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.parts(got, "alpha", "losses")


def losses_are_those_of_the_alphas(case: Case, got: Any, expected: Any) -> Finding | None:
    x, w, alphas = case.args
    exact = torch.stack([_loss(x.double(), w.double(), alpha) for alpha in alphas])
    if isinstance(got[1], torch.Tensor) and got[1].shape == exact.shape and bool(got[1].isnan().any()):
        return Finding(
            f"losses: {int(got[1].isnan().sum())} of {len(exact)} are NaN, as after 0 / 0; look at the scales of "
            "channels in which x or w has only zeros"
        )
    return near(got[1], "losses", exact, 2e-3)


def alpha_has_the_smallest_loss(case: Case, got: Any, expected: Any) -> Finding | None:
    """Two alphas whose losses differ by a thousandth are equally right, but of the very same loss the smallest is."""
    alphas, losses = case.args[2], expected[1].double()
    if finding := p.number(got[0], "alpha"):
        return finding
    chosen = [k for k, alpha in enumerate(alphas) if abs(p.as_number(got[0]) - alpha) < 1e-6]
    if not chosen:
        return Finding("alpha: it is none of those given", expected=f"one of {alphas}", got=f"{p.as_number(got[0]):g}")
    [k] = chosen
    lowest = losses.min()
    smaller = [alpha for alpha, loss in zip(alphas, losses, strict=True) if loss == losses[k] and alpha < alphas[k]]
    if losses[k] <= lowest * (1 + 1e-3) and not smaller:
        return None
    best = min(alpha for alpha, loss in zip(alphas, losses, strict=True) if loss == lowest)
    return Finding(
        "alpha: a smaller one has the same loss" if losses[k] == lowest else "alpha: its loss is not the smallest",
        expected=f"{best:g} (loss {lowest.item():.4g})",
        got=f"{alphas[k]:g} (loss {losses[k].item():.4g})",
    )


def _loss(x: Any, w: Any, alpha: float) -> Any:
    smoothed, scaled = _smoothed(x, w, alpha)
    return (rounded(smoothed) @ rounded(scaled).T - x @ w.T).square().mean()


def _smallest(alphas: Any, losses: Any) -> Any:
    """The end of the search."""
    losses = torch.stack(losses)
    lowest = losses.min()
    alike = [alpha for alpha, loss in zip(alphas, losses, strict=True) if loss == lowest]
    return min(alike or alphas), losses


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def in_another_type(x, w, alphas):
    alpha, losses = best_alpha(x, w, alphas)
    return alpha, losses.double()


@mutant("of several alphas with the same loss the last one is taken: <= in place of <. Asked for is the smallest.")
def last_of_ties(x, w, alphas):
    _, losses = best_alpha(x, w, alphas)
    return [alpha for alpha, loss in zip(alphas, losses, strict=True) if loss == losses.min()][-1], losses


@mutant("of several alphas with the same loss the largest is taken. Asked for is the smallest: it changes w least.")
def largest_of_ties(x, w, alphas):
    _, losses = best_alpha(x, w, alphas)
    return max(alpha for alpha, loss in zip(alphas, losses, strict=True) if loss == losses.min()), losses


@mutant(
    "of several alphas with the same loss the first one is taken, as argmin does. The alphas come in any order; asked "
    "for is the smallest."
)
def first_of_ties(x, w, alphas):
    _, losses = best_alpha(x, w, alphas)
    return alphas[int(losses.argmin())], losses


@mutant("the place of the best alpha comes back, its index. Asked for is the alpha itself.")
def index_of_alpha(x, w, alphas):
    _, losses = best_alpha(x, w, alphas)
    return int(losses.argmin()), losses


@mutant("the alpha with the largest loss comes back. Asked for is the smallest.")
def largest_loss(x, w, alphas):
    _, losses = best_alpha(x, w, alphas)
    return alphas[int(losses.argmax())], losses


@mutant("the usual 0.5 comes back, whatever the losses say.")
def always_one_half(x, w, alphas):
    _, losses = best_alpha(x, w, alphas)
    return 0.5, losses


@mutant("the weights are rounded without the scales, so that the scales do not cancel. Multiply w by them.")
def weights_not_scaled(x, w, alphas):
    y = x @ w.T
    return _smallest(alphas, [(rounded(_smoothed(x, w, a)[0]) @ rounded(w).T - y).square().mean() for a in alphas])


@mutant("the inputs are rounded without the scales, so that the scales do not cancel. Divide x by them.")
def inputs_not_scaled(x, w, alphas):
    y = x @ w.T
    return _smallest(alphas, [(rounded(x) @ rounded(_smoothed(x, w, a)[1]).T - y).square().mean() for a in alphas])


@mutant("the scales go the wrong way: x is multiplied and w is divided. Outliers grow in place of shrinking.")
def wrong_direction(x, w, alphas):
    losses = []
    for alpha in alphas:
        scales = smoothing(x.abs().amax(dim=0), w.abs().amax(dim=0), alpha)
        losses.append((rounded(x * scales) @ rounded(w / scales).T - x @ w.T).square().mean())
    return _smallest(alphas, losses)


@mutant("the exponents change places: alpha belongs to the inputs, 1 - alpha to the weights.")
def exponents_swapped(x, w, alphas):
    return _smallest(alphas, [_loss(x, w, 1 - alpha) for alpha in alphas])


@mutant("only the weights are rounded, as in W4A16. Here the inputs are rounded as well.")
def weights_only(x, w, alphas):
    pairs = [_smoothed(x, w, alpha) for alpha in alphas]
    return _smallest(alphas, [(a @ rounded(b).T - x @ w.T).square().mean() for a, b in pairs])


@mutant("only the inputs are rounded. The weights pay for the smoothing: without their error alpha 1 looks best.")
def inputs_only(x, w, alphas):
    pairs = [_smoothed(x, w, alpha) for alpha in alphas]
    return _smallest(alphas, [(rounded(a) @ b.T - x @ w.T).square().mean() for a, b in pairs])


@mutant(
    "the error of the smoothed inputs is measured. It only falls as alpha grows; what counts is the output, in which "
    "the error of the weights has its part."
)
def error_of_the_inputs(x, w, alphas):
    smoothed = [_smoothed(x, w, alpha)[0] for alpha in alphas]
    return _smallest(alphas, [(rounded(a) - a).square().mean() for a in smoothed])


@mutant(
    "the error of the inputs is measured, after they are rounded and multiplied back by the scales. What counts is the "
    "output, in which the error of the weights has its part."
)
def error_of_the_inputs_scaled_back(x, w, alphas):
    scales = [smoothing(x.abs().amax(dim=0), w.abs().amax(dim=0), alpha) for alpha in alphas]
    return _smallest(alphas, [(rounded(x / s) * s - x).square().mean() for s in scales])


@mutant(
    "the error of the weights is measured, after they are rounded and divided by the scales again. What counts is the "
    "output, in which the inputs multiply that error and have one of their own."
)
def error_of_the_weights_scaled_back(x, w, alphas):
    scales = [smoothing(x.abs().amax(dim=0), w.abs().amax(dim=0), alpha) for alpha in alphas]
    return _smallest(alphas, [(rounded(w * s) / s - w).square().mean() for s in scales])


@mutant("the error of the scaled weights is measured. What counts is the output, with the error of the inputs in it.")
def error_of_the_weights(x, w, alphas):
    scaled = [_smoothed(x, w, alpha)[1] for alpha in alphas]
    return _smallest(alphas, [(rounded(b) - b).square().mean() for b in scaled])


@mutant("the losses come back in the order of the sorted alphas. Asked for is the order in which the alphas came.")
def losses_of_sorted_alphas(x, w, alphas):
    return best_alpha(x, w, tuple(sorted(alphas)))


@mutant("the squared errors are added up. Asked for is their mean over tokens and outputs.")
def sum_of_squares(x, w, alphas):
    alpha, losses = best_alpha(x, w, alphas)
    return alpha, losses * len(x) * len(w)


@mutant(
    "the squared errors are added over the outputs, and only the tokens are averaged. Asked for is the mean over both."
)
def mean_over_tokens_only(x, w, alphas):
    alpha, losses = best_alpha(x, w, alphas)
    return alpha, losses * len(w)


@mutant("the root of the mean square comes back. The choice is the same, the losses are not.")
def root_of_the_mean(x, w, alphas):
    alpha, losses = best_alpha(x, w, alphas)
    return alpha, losses.sqrt()


@mutant("the mean magnitude of the errors is taken. Asked for are their squares.")
def mean_magnitude(x, w, alphas):
    pairs = [_smoothed(x, w, alpha) for alpha in alphas]
    return _smallest(alphas, [(rounded(a) @ rounded(b).T - x @ w.T).abs().mean() for a, b in pairs])


@mutant("the losses are divided by the mean square of the outputs. Asked for is the mean square of the change itself.")
def relative(x, w, alphas):
    alpha, losses = best_alpha(x, w, alphas)
    return alpha, losses / (x @ w.T).square().mean()


@mutant(
    "the outputs are compared with those of plain int8, x and w rounded without smoothing. These are wrong themselves: "
    "compare with x @ w.T."
)
def compared_with_plain_int8(x, w, alphas):
    pairs = [_smoothed(x, w, alpha) for alpha in alphas]
    plain = rounded(x) @ rounded(w).T
    return _smallest(alphas, [(rounded(a) @ rounded(b).T - plain).square().mean() for a, b in pairs])


@mutant(
    "x and w are replaced in the loop, while the maxima are those of the start: each turn smooths what is smooth "
    "already. Each alpha starts from the same x and w."
)
def not_restored(x, w, alphas):
    y, losses = x @ w.T, []
    input_max, weight_max = x.abs().amax(dim=0), w.abs().amax(dim=0)
    for alpha in alphas:
        scales = smoothing(input_max, weight_max, alpha)
        x, w = x / scales, w * scales
        losses.append((rounded(x) @ rounded(w).T - y).square().mean())
    return _smallest(alphas, losses)


@mutant(
    "x and w are scaled in place, so that every alpha starts from what the one before has left. Compute new tensors."
)
def in_place(x, w, alphas):
    y, losses = x @ w.T, []
    for alpha in alphas:
        scales = smoothing(x.abs().amax(dim=0), w.abs().amax(dim=0), alpha)
        x.div_(scales)
        w.mul_(scales)
        losses.append((rounded(x) @ rounded(w).T - y).square().mean())
    return _smallest(alphas, losses)


@mutant(
    "the values are rounded first and scaled afterwards. Then smoothing changes nothing: the scales cancel after the "
    "damage. Scale, then round."
)
def rounded_before_scaling(x, w, alphas):
    plain = (rounded(x) @ rounded(w).T - x @ w.T).square().mean()
    return _smallest(alphas, [plain for _ in alphas])


def _losses_with_dead_channels(x: Any, w: Any, alphas: Any) -> list[Any]:
    input_max, weight_max = x.abs().amax(dim=0), w.abs().amax(dim=0)
    losses = []
    for alpha in alphas:
        scales = input_max**alpha / weight_max ** (1 - alpha)
        losses.append((rounded(x / scales) @ rounded(w * scales).T - x @ w.T).square().mean())
    return losses


@mutant(
    "dead channels are not treated: x is 0 / 0 there, and the losses are NaN. No loss equals NaN, so that nothing is "
    "left to choose from. Give these channels the scale 1."
)
def dead_channels_forgotten(x, w, alphas):
    losses = _losses_with_dead_channels(x, w, alphas)
    lowest = min(losses)
    return min(alpha for alpha, loss in zip(alphas, losses, strict=True) if loss == lowest), torch.stack(losses)


@mutant(
    "dead channels are not treated: x is 0 / 0 there, and the losses are NaN. argmin then gives the place of the first "
    "NaN. Give these channels the scale 1."
)
def dead_channels_forgotten_argmin(x, w, alphas):
    losses = torch.stack(_losses_with_dead_channels(x, w, alphas))
    return alphas[int(losses.argmin())], losses


@mutant(
    "dead channels are not treated: x is 0 / 0 there, and the losses are NaN. NaN is never smaller than the best so "
    "far, so that no alpha is ever taken. Give these channels the scale 1."
)
def dead_channels_forgotten_in_a_loop(x, w, alphas):
    losses, best, lowest = _losses_with_dead_channels(x, w, alphas), None, float("inf")
    for alpha, loss in zip(alphas, losses, strict=True):
        if loss < lowest or (loss == lowest and alpha < best):
            best, lowest = alpha, loss
    return best, torch.stack(losses)


@mutant(
    "maxima of 0 are raised to a small number, such as 1e-5, or one is added to them. A dead channel is to have the "
    "scale 1: only then do its inputs or weights take part in the row's step as they are."
)
def small_number_for_dead_channels(x, w, alphas):
    input_max, weight_max = x.abs().amax(dim=0).clamp(min=1e-5), w.abs().amax(dim=0).clamp(min=1e-5)
    losses = []
    for alpha in alphas:
        scales = input_max**alpha / weight_max ** (1 - alpha)
        losses.append((rounded(x / scales) @ rounded(w * scales).T - x @ w.T).square().mean())
    return _smallest(alphas, losses)


@mutant("the largest weight of the whole layer stands below every channel. Each has its own: w.abs().amax(dim=0).")
def one_maximum_for_all_weights(x, w, alphas):
    losses = []
    for alpha in alphas:
        input_max = x.abs().amax(dim=0)
        scales = smoothing(input_max, w.abs().max().expand_as(input_max), alpha)
        losses.append((rounded(x / scales) @ rounded(w * scales).T - x @ w.T).square().mean())
    return _smallest(alphas, losses)


@mutant("the largest input of the whole layer stands above every channel. Each has its own: x.abs().amax(dim=0).")
def one_maximum_for_all_inputs(x, w, alphas):
    losses = []
    for alpha in alphas:
        weight_max = w.abs().amax(dim=0)
        scales = smoothing(x.abs().max().expand_as(weight_max), weight_max, alpha)
        losses.append((rounded(x / scales) @ rounded(w * scales).T - x @ w.T).square().mean())
    return _smallest(alphas, losses)


@mutant("the maxima run along the rows, dim=1, over the channels. A scale belongs to a channel, a column: dim=0.")
def maxima_along_rows(x, w, alphas):
    losses = []
    for alpha in alphas:
        scales = smoothing(x.abs().amax(dim=1), w.abs().amax(dim=1), alpha)
        losses.append((rounded(x / scales) @ rounded(w * scales).T - x @ w.T).square().mean())
    return _smallest(alphas, losses)


@mutant("one maximum for all channels, on both sides. Then all scales are the same and change nothing: dim=0.")
def one_scale_for_all_channels(x, w, alphas):
    losses = []
    for alpha in alphas:
        scale = smoothing(x.abs().max(), w.abs().max(), alpha)
        losses.append((rounded(x / scale) @ rounded(w * scale).T - x @ w.T).square().mean())
    return _smallest(alphas, losses)


@mutant("the scales come from the mean magnitude of the inputs, as in AWQ. SmoothQuant takes the largest.")
def mean_for_the_inputs(x, w, alphas):
    losses = []
    for alpha in alphas:
        scales = smoothing(x.abs().mean(dim=0), w.abs().amax(dim=0), alpha)
        losses.append((rounded(x / scales) @ rounded(w * scales).T - x @ w.T).square().mean())
    return _smallest(alphas, losses)


@mutant("the maxima are those of the values, not of the magnitudes. Take abs() first.")
def without_abs(x, w, alphas):
    losses = []
    for alpha in alphas:
        scales = smoothing(x.amax(dim=0), w.amax(dim=0), alpha)
        losses.append((rounded(x / scales) @ rounded(w * scales).T - x @ w.T).square().mean())
    return _smallest(alphas, losses)


def in_whole_numbers(x, w, alphas):
    """Right, in float64, with codes, int64 sums, and the scales after them."""
    x, w = x.double(), w.double()
    input_max, weight_max = x.abs().amax(dim=0), w.abs().amax(dim=0)
    alive = (input_max > 0) & (weight_max > 0)

    def codes(a):
        steps = a.abs().amax(dim=1, keepdim=True) / 127
        steps[steps == 0] = 1.0
        return torch.round(a / steps).long(), steps

    losses = []
    for alpha in alphas:
        scales = torch.ones_like(input_max)
        scales[alive] = input_max[alive] ** alpha / weight_max[alive] ** (1 - alpha)
        (left, left_steps), (right, right_steps) = codes(x / scales), codes(w * scales)
        losses.append(((left @ right.T) * left_steps * right_steps.T - x @ w.T).pow(2).mean().item())
    best = sorted(zip(losses, alphas, strict=True))[0][1]
    return best, torch.tensor(losses)


def from_the_smallest_alpha(x, w, alphas):
    """Right: sorted alphas, of which the first with the lowest loss is the smallest."""
    input_max, weight_max = x.abs().amax(dim=0), w.abs().amax(dim=0)
    dead = (input_max == 0) | (weight_max == 0)
    log_x, log_w = input_max.masked_fill(dead, 1.0).log(), weight_max.masked_fill(dead, 1.0).log()
    by_alpha = {}
    for alpha in sorted(alphas):
        scales = torch.exp(alpha * log_x - (1 - alpha) * log_w)
        by_alpha[alpha] = torch.nn.functional.mse_loss(rounded(x / scales) @ rounded(w * scales).T, x @ w.T)
    return min(by_alpha, key=by_alpha.get), torch.stack([by_alpha[alpha] for alpha in alphas])


QUESTION = Question(
    id="smoothquant.best_alpha",
    title="How much to hand over",
    reference=best_alpha,
    cases=cases,
    properties=(returns_alpha_and_losses, losses_are_those_of_the_alphas, alpha_has_the_smallest_loss),
    mutants=(
        in_another_type,  # first: what is wrong in its types only looks like this one
        last_of_ties,
        first_of_ties,
        largest_of_ties,
        index_of_alpha,
        largest_loss,
        always_one_half,
        weights_not_scaled,
        inputs_not_scaled,
        wrong_direction,
        exponents_swapped,
        weights_only,
        inputs_only,
        error_of_the_inputs,
        error_of_the_inputs_scaled_back,
        error_of_the_weights,
        error_of_the_weights_scaled_back,
        losses_of_sorted_alphas,
        sum_of_squares,
        mean_over_tokens_only,
        root_of_the_mean,
        mean_magnitude,
        relative,
        compared_with_plain_int8,
        not_restored,
        in_place,
        rounded_before_scaling,
        dead_channels_forgotten,
        dead_channels_forgotten_argmin,
        dead_channels_forgotten_in_a_loop,
        small_number_for_dead_channels,
        one_scale_for_all_channels,
        one_maximum_for_all_weights,
        one_maximum_for_all_inputs,
        maxima_along_rows,
        mean_for_the_inputs,
        without_abs,
    ),
    alternatives=(in_whole_numbers, from_the_smallest_alpha),
    hints=(
        "Without rounding, every alpha gives the same outputs. So what do you compare, and with what? And what do x "
        "and w have to be at the start of each turn?",
        "The outputs to compare with are x @ w.T, computed once. In each turn: scales by question 1, both sides scaled "
        "and rounded, the mean square of the difference. At the end, look at all alphas that reach the lowest loss.",
        "y_hat = rounded(x / scales) @ rounded(w * scales).T; losses.append((y_hat - y).square().mean()); best = "
        "min(alpha for alpha, loss in zip(alphas, losses) if loss == min(losses)).",
    ),
    explanation=(
        "Both ends are bad where there is an outlier. At 0 the weights are even and the inputs have it all; at 1 the "
        "inputs are even, and the outlier sits in the weights, where it sets the scale of every output. The error of "
        "the inputs alone falls with alpha, that of the weights alone grows, and only the outputs see both. Ties are "
        "real: in a layer whose channels are all alike every alpha is as good, and the smallest changes the weights "
        "least. Smoothing is so regular that smoothing twice is no mistake in itself: with new maxima, the last alpha "
        "alone decides. The authors search one alpha for a whole model, not one for each layer, and measure "
        "perplexity: a layer's loss says nothing of what the layers after it do with the error."
    ),
)
