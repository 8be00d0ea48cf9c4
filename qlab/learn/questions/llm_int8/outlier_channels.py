"""llm_int8.outlier_channels: which channels of a model count as outliers (Dettmers et al. 2022, section 4.1)."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant

# The example of the card: two layers, three tokens, four channels.
CARD = torch.tensor(
    [
        [[7.0, -8.0, 1.0, 0.0], [-6.0, 1.0, 2.0, 0.0], [1.0, -9.0, 9.0, 1.0]],
        [[8.0, 2.0, 9.0, 0.0], [6.0, -1.0, -7.0, 6.5], [-9.0, 7.0, 8.0, 0.0]],
    ]
)


def outlier_channels(hidden, threshold, share_of_layers, share_of_tokens):
    """Find the channels that are outliers of a whole model.

    hidden: float32 (layers, tokens, channels): what each layer sees.
    threshold: a positive number; 6.0 is usual.
    share_of_layers, share_of_tokens: above 0, up to 1; 0.25 and 0.06 are usual.

    A channel is an outlier of a layer if its magnitude reaches the threshold in at least
    share_of_tokens of the tokens of that layer. It is an outlier of the model if it is one
    in at least share_of_layers of the layers. "Reaches" and "at least" include equality.

    Returns bool (channels,).
    """
    shares = (hidden.abs() >= threshold).float().mean(dim=1)  # (layers, channels)
    of_layers = (shares >= share_of_tokens).float().mean(dim=0)  # (channels,)
    return of_layers >= share_of_layers


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def hidden(tokens: int, plan: list[list[int]], threshold: float) -> torch.Tensor:
        """plan[channel][layer] says how many tokens reach the threshold; most of them are negative."""
        counts = torch.tensor(plan).T  # (layers, channels)
        x = (0.25 * threshold * torch.randn(len(counts), tokens, len(plan), generator=random)).clamp(
            -0.7 * threshold, 0.7 * threshold
        )
        for layer, row in enumerate(counts.tolist()):
            for channel, count in enumerate(row):
                places = torch.randperm(tokens, generator=random)[:count]
                sizes = threshold * (1.05 + 0.5 * torch.rand(count, generator=random))
                x[layer, places, channel] = sizes * torch.where(torch.rand(count, generator=random) < 0.3, 1.0, -1.0)
        return x

    def case(
        name: str, tokens: int, plan: list[list[int]], threshold: float = 6.0, layers: float = 0.25, of: float = 0.06
    ) -> Case:
        order = torch.randperm(len(plan), generator=random).tolist()  # which channel is which is no matter
        return Case(name, (hidden(tokens, [plan[i] for i in order], threshold), threshold, layers, of))

    def spread(layers: int, count: int, *others: int) -> list[int]:
        """Some layers with these counts, at random places, 0 elsewhere."""
        row = [count, *others] + [0] * (layers - 1 - len(others))
        return [row[i] for i in torch.randperm(layers, generator=random).tolist()]

    usual = [
        spread(8, 3, 3),  # just enough tokens in just enough layers
        [2] * 8,  # too few tokens, everywhere
        spread(8, 40),  # all tokens, in one layer
        [1] * 8,
        [3] * 8,
        spread(8, 40, 40),
        spread(8, 3, 2, 2, 2),
        spread(8, 5, 7, 4),
        [0] * 8,
        spread(8, 12),
    ]
    half = [spread(4, 8, 8), [4] * 4, [7] * 4, spread(4, 16), [16] * 4, spread(4, 9, 9, 9), [0] * 4, spread(4, 15, 7)]
    exact = [spread(4, 2), [1] * 4, spread(4, 1, 1, 1), [2] * 4, [0] * 4, spread(4, 8), spread(4, 2, 2)]
    square = [spread(5, 2, 2), [1] * 5, spread(5, 5), [5] * 5, spread(5, 2, 2, 2)]
    edge = torch.zeros(2, 4, 4)
    edge[:, :2, 0], edge[:, :2, 1], edge[:, :2, 2] = 6.0, -6.0, 5.9999
    return [
        Case("the example of the card", (CARD, 6.0, 0.75, 0.5)),
        case("the numbers of the paper", 40, usual),
        case("the numbers of the paper, many tokens", 150, [[min(4 * n, 150) for n in row] for row in usual]),
        case("half of the layers, half of the tokens", 16, half, layers=0.5, of=0.5),
        case("shares that are met exactly", 8, exact, layers=0.25, of=0.25),
        case("as many layers, tokens and channels", 5, square, layers=0.35, of=0.35),
        case("all layers, few tokens", 40, usual, layers=1.0, of=0.04),
        case("few layers, all tokens", 40, [*usual, spread(8, 39, 39, 39)], layers=0.1, of=1.0),
        case("another threshold", 40, usual, threshold=2.5),
        case("a high threshold", 24, [[n // 2 for n in row] for row in usual], threshold=20.0, of=0.04),
        Case("magnitudes on the threshold and just below it", (edge, 6.0, 0.25, 0.5)),
        case("no channel reaches it", 12, [[0] * 4] * 5),
        case("a single layer", 30, [[2], [1], [5], [0], [30]]),
        case("a single token", 1, [[1] * 4, [1, 0, 0, 0], [0] * 4, [1, 1, 0, 0]], layers=0.5, of=0.06),
    ]


def is_a_mask(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.tensor(got, "the mask", torch.bool, tuple(expected.shape))


def marks_the_outlier_channels(case: Case, got: Any, expected: Any) -> Finding | None:
    hidden, threshold, _, _ = case.args
    finding = p.equal(got, "the mask", expected)
    if finding and finding.index:
        counts = (hidden.abs() >= threshold).sum(dim=1)[:, finding.index[0]].tolist()
        what = f"{finding.what}; of {hidden.shape[1]} tokens, channel {finding.index[0]} reaches the threshold in"
        return Finding(f"{what} {', '.join(map(str, counts))}, layer by layer", finding.index, *_words(finding))
    return finding


def _words(finding: Finding) -> tuple[str | None, str | None]:
    return finding.expected, finding.got


def _decide(reached: Any, share_of_layers: float, share_of_tokens: float) -> Any:
    """From marks (layers, tokens, channels)."""
    return (
        (reached.float().mean(dim=1) >= share_of_tokens).float().mean(dim=0) >= share_of_layers
    )  # fmt: skip


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def in_another_type(hidden, threshold, share_of_layers, share_of_tokens):
    return outlier_channels(hidden, threshold, share_of_layers, share_of_tokens).int()


@mutant("a magnitude that is equal to the threshold is left out. It has reached it: >=, not >.")
def above_the_threshold(hidden, threshold, share_of_layers, share_of_tokens):
    return _decide(hidden.abs() > threshold, share_of_layers, share_of_tokens)


@mutant("large negative values are left out. Take abs() first.")
def without_abs(hidden, threshold, share_of_layers, share_of_tokens):
    return _decide(hidden >= threshold, share_of_layers, share_of_tokens)


@mutant(
    "the tokens of all layers are thrown together, and one share is taken of them all. A channel that is large in "
    "every token of one layer then passes for one of the model. Decide for each layer, then count the layers."
)
def tokens_thrown_together(hidden, threshold, share_of_layers, share_of_tokens):
    return (hidden.abs() >= threshold).float().flatten(0, 1).mean(dim=0) >= share_of_tokens


@mutant(
    "a single token makes a channel an outlier of its layer; share_of_tokens is not used. That is how a layer chooses "
    "its columns when it computes, and no measure of a model."
)
def one_token_is_enough(hidden, threshold, share_of_layers, share_of_tokens):
    return (hidden.abs() >= threshold).any(dim=1).float().mean(dim=0) >= share_of_layers


@mutant("a single layer makes a channel an outlier of the model; share_of_layers is not used.")
def one_layer_is_enough(hidden, threshold, share_of_layers, share_of_tokens):
    return ((hidden.abs() >= threshold).float().mean(dim=1) >= share_of_tokens).any(dim=0)


@mutant("every layer has to see the channel as an outlier; share_of_layers is not used.")
def all_layers_needed(hidden, threshold, share_of_layers, share_of_tokens):
    return ((hidden.abs() >= threshold).float().mean(dim=1) >= share_of_tokens).all(dim=0)


@mutant("every token has to reach the threshold; share_of_tokens is not used.")
def all_tokens_needed(hidden, threshold, share_of_layers, share_of_tokens):
    return (hidden.abs() >= threshold).all(dim=1).float().mean(dim=0) >= share_of_layers


@mutant("the two shares change places. The tokens of a layer are compared with share_of_tokens.")
def shares_change_places(hidden, threshold, share_of_layers, share_of_tokens):
    return _decide(hidden.abs() >= threshold, share_of_tokens, share_of_layers)


@mutant(
    "the layers are counted for each token first, and then the tokens. Outliers in different tokens of different "
    "layers are lost. The inner share is that of the tokens of one layer: mean(dim=1)."
)
def layers_before_tokens(hidden, threshold, share_of_layers, share_of_tokens):
    return _decide((hidden.abs() >= threshold).transpose(0, 1), share_of_tokens, share_of_layers)


@mutant(
    "the two axes change places: the first mean runs over the layers, and what comes out is compared with the share of "
    "the tokens. hidden is (layers, tokens, channels): mean(dim=1) goes over the tokens of each layer."
)
def axes_change_places(hidden, threshold, share_of_layers, share_of_tokens):
    return _decide((hidden.abs() >= threshold).transpose(0, 1), share_of_layers, share_of_tokens)


@mutant('a share that is just met does not count here. "At least" includes equality: >=, for both shares.')
def shares_exceeded(hidden, threshold, share_of_layers, share_of_tokens):
    shares = (hidden.abs() >= threshold).float().mean(dim=1)
    return (shares > share_of_tokens).float().mean(dim=0) > share_of_layers


@mutant("the mean magnitude of a channel is compared with the threshold. A few outliers disappear in a mean; count.")
def mean_magnitude(hidden, threshold, share_of_layers, share_of_tokens):
    return (hidden.abs().mean(dim=1) >= threshold).float().mean(dim=0) >= share_of_layers


@mutant("counts are compared with shares. Two tokens are always more than 0.06; divide by the number of tokens.")
def counts_for_shares(hidden, threshold, share_of_layers, share_of_tokens):
    counts = (hidden.abs() >= threshold).sum(dim=1)
    return (counts >= share_of_tokens).sum(dim=0) >= share_of_layers


@mutant(
    "the share of the tokens is turned into a count that is rounded down: 6 % of 40 is 2.4, and 2 tokens are not "
    "enough. Compare shares, or round the count up."
)
def needed_tokens_rounded_down(hidden, threshold, share_of_layers, share_of_tokens):
    needed = int(share_of_tokens * hidden.shape[1])
    counts = (hidden.abs() >= threshold).sum(dim=1)
    return (counts >= needed).float().mean(dim=0) >= share_of_layers


@mutant(
    "both shares are turned into counts that are rounded down: 75 % of 2 layers is 1.5, and 1 is not enough. Compare "
    "shares, or round the counts up."
)
def both_counts_rounded_down(hidden, threshold, share_of_layers, share_of_tokens):
    layers, tokens, _ = hidden.shape
    counts = (hidden.abs() >= threshold).sum(dim=1)
    return (counts >= int(share_of_tokens * tokens)).sum(dim=0) >= int(share_of_layers * layers)


@mutant(
    "the shares are turned into counts that are rounded to the nearest: 6 % of 40 tokens is 2.4, which becomes 2, and "
    "2 are not enough. Compare shares, or round the counts up."
)
def counts_rounded_to_the_nearest(hidden, threshold, share_of_layers, share_of_tokens):
    layers, tokens, _ = hidden.shape
    counts = (hidden.abs() >= threshold).sum(dim=1)
    return (counts >= round(share_of_tokens * tokens)).sum(dim=0) >= round(share_of_layers * layers)


@mutant("either share is enough here. Both have to be met.")
def one_share_is_enough(hidden, threshold, share_of_layers, share_of_tokens):
    reached = hidden.abs() >= threshold
    layers = reached.any(dim=1).float().mean(dim=0) >= share_of_layers
    return layers | (reached.float().mean(dim=1) >= share_of_tokens).any(dim=0)


@mutant(
    "both shares are taken, but each on its own: enough layers with any outlier, and enough outliers among all tokens. "
    "The layers that count are those in which enough tokens reach the threshold."
)
def shares_on_their_own(hidden, threshold, share_of_layers, share_of_tokens):
    reached = hidden.abs() >= threshold
    layers = reached.any(dim=1).float().mean(dim=0) >= share_of_layers
    return layers & (reached.float().flatten(0, 1).mean(dim=0) >= share_of_tokens)


@mutant("the numbers of the paper stand in the code: 6.0, 25 % and 6 %. Use the arguments.")
def numbers_of_the_paper(hidden, threshold, share_of_layers, share_of_tokens):
    return outlier_channels(hidden, 6.0, 0.25, 0.06)


@mutant("the argument threshold is not used; 6 stands in the code.")
def always_six(hidden, threshold, share_of_layers, share_of_tokens):
    return outlier_channels(hidden, 6.0, share_of_layers, share_of_tokens)


@mutant("the answer is that of each layer, (layers, channels). One for the whole model is asked for.")
def mask_of_every_layer(hidden, threshold, share_of_layers, share_of_tokens):
    return (hidden.abs() >= threshold).float().mean(dim=1) >= share_of_tokens


@mutant("the numbers of the channels come back. Asked for is a mask: True or False for each channel.")
def numbers_of_the_channels(hidden, threshold, share_of_layers, share_of_tokens):
    return outlier_channels(hidden, threshold, share_of_layers, share_of_tokens).nonzero().flatten()


@mutant("only the last layer is looked at.")
def last_layer_only(hidden, threshold, share_of_layers, share_of_tokens):
    return outlier_channels(hidden[-1:], threshold, share_of_layers, share_of_tokens)


@mutant("the mask is the wrong way round: True for the channels that are no outliers.")
def the_other_channels(hidden, threshold, share_of_layers, share_of_tokens):
    return ~outlier_channels(hidden, threshold, share_of_layers, share_of_tokens)


def layer_by_layer(hidden, threshold, share_of_layers, share_of_tokens):
    """Right, by loops, with Python's own numbers."""
    layers, tokens, channels = hidden.shape
    mask = torch.zeros(channels, dtype=torch.bool)
    for c in range(channels):
        seen = [sum(abs(v) >= threshold for v in hidden[layer, :, c].tolist()) / tokens for layer in range(layers)]
        mask[c] = sum(share >= share_of_tokens for share in seen) / layers >= share_of_layers
    return mask


def with_counts(hidden, threshold, share_of_layers, share_of_tokens):
    """Right, with counts that are rounded up."""
    import math

    needed_tokens = math.ceil(share_of_tokens * hidden.shape[1] - 1e-9)
    needed_layers = math.ceil(share_of_layers * hidden.shape[0] - 1e-9)
    layers = (hidden.abs().ge(threshold).sum(dim=1) >= needed_tokens).sum(dim=0)
    return layers >= needed_layers


def with_numpy(hidden, threshold, share_of_layers, share_of_tokens):
    """Right, as arrays."""
    import numpy as np

    shares = (np.abs(hidden.numpy()) >= threshold).mean(axis=1)
    return (shares >= share_of_tokens).mean(axis=0) >= share_of_layers


QUESTION = Question(
    id="llm_int8.outlier_channels",
    title="The outlier channels of a model",
    reference=outlier_channels,
    cases=cases,
    properties=(is_a_mask, marks_the_outlier_channels),
    mutants=(
        in_another_type,  # first: what is wrong in its types only looks like this one
        above_the_threshold,
        without_abs,
        tokens_thrown_together,
        one_token_is_enough,
        one_layer_is_enough,
        all_layers_needed,
        all_tokens_needed,
        shares_change_places,
        layers_before_tokens,
        axes_change_places,
        shares_exceeded,
        mean_magnitude,
        counts_for_shares,
        needed_tokens_rounded_down,
        both_counts_rounded_down,
        counts_rounded_to_the_nearest,
        one_share_is_enough,
        shares_on_their_own,
        numbers_of_the_paper,
        always_six,
        mask_of_every_layer,
        numbers_of_the_channels,
        last_layer_only,
        the_other_channels,
    ),
    alternatives=(layer_by_layer, with_counts, with_numpy),
    hints=(
        "Two questions, one inside the other. For one layer and one channel: in which share of the tokens? For one "
        "channel: in which share of the layers?",
        "Mark every magnitude that reaches the threshold. The mean of the marks over the tokens is (layers, channels); "
        "compare it with share_of_tokens. The mean of what comes out over the layers is (channels,).",
        "shares = (hidden.abs() >= threshold).float().mean(dim=1); "
        "(shares >= share_of_tokens).float().mean(dim=0) >= share_of_layers.",
    ),
    explanation=(
        "A single large value proves nothing: in any model some token reaches 6 somewhere. What breaks int8 is a "
        "channel that is large in the same place again and again, and this is what the two shares ask for. The paper "
        "states its criterion in one sentence that leaves room, magnitudes of at least 6.0, at least 25 % of the "
        "layers and at least 6 % of the tokens; here and in `qlab.models.outliers.find` the tokens are counted in each "
        "layer. With it the authors found no more than 7 such channels in models up to 13B, in all layers from 6.7B on."
    ),
)
