"""kv_cache.append: the residual window, so that what is held depends on the tokens and not on the calls (KIVI)."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .groups import come_back, noise_of, step_of

# The example of the card: one channel; a prompt of five tokens, then one by one; 2 bits, groups of 3, a window of 2.
CARD = (
    torch.tensor([[0.0], [3.0], [1.4], [2.0], [5.0]]),
    torch.tensor([[3.8]]),
    torch.tensor([[7.0]]),
    torch.tensor([[6.5]]),
)


def fill_cache(calls, bits, group_size, residual):
    """Hold the keys of one head: old tokens in groups that are quantized, the newest as they came.

    calls: a tuple of at least one tensor, float32 (tokens, channels): what each call of the
        model adds, in order. Some may hold no token.
    bits: 2 to 8.
    group_size: neighboring tokens of one channel that share a scale, at least 1.
    residual: how many of the newest tokens must stay as they came, 0 or more.

    Groups are cut from the first token on: tokens 0 to group_size - 1, and so on. A group is
    quantized, once and for good, as soon as all of its tokens lie behind the newest
    residual ones. So all tokens that fill no group behind them stay as they came, too.
    A number x of a quantized group becomes minimum + round((x - minimum) / scale) * scale
    with scale = (maximum - minimum) / (2**bits - 1), the minimum and the maximum of its
    channel in the group, and stays as it is where the two are equal.

    Returns (held, quantized) after the last call:
    held: float32 (all tokens, channels), in order: the quantized ones as they are read
        back, then the others exactly as they came.
    quantized: how many tokens are quantized.
    """
    window, held = calls[0][:0], [calls[0][:0]]
    for new in calls:
        window = torch.cat([window, new])
        behind = max(0, len(window) - residual) // group_size * group_size
        groups = window[:behind].unflatten(0, (behind // group_size, group_size))  # (groups, group_size, channels)
        if behind:
            low, high = groups.amin(dim=1, keepdim=True), groups.amax(dim=1, keepdim=True)
            scale = (high - low) / (2**bits - 1)
            steps = torch.round((groups - low) / torch.where(scale > 0, scale, 1.0))
            held.append((low + steps * scale).flatten(0, 1))
        window = window[behind:]
    quantized = sum(map(len, held))
    return torch.cat([*held, window]), quantized


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def calls(*lengths: int, channels: int = 3) -> tuple[torch.Tensor, ...]:
        offset = 4 * torch.randn(1, channels, generator=random)
        return tuple(offset + torch.randn(length, channels, generator=random) for length in lengths)

    def cut(keys: torch.Tensor, *lengths: int) -> tuple[torch.Tensor, ...]:
        return tuple(part.clone() for part in keys.split(lengths))

    [same] = calls(23)
    constant = torch.cat(calls(16))
    constant[:, 1] = 0.7
    constant[4:8, 2] = -2.0
    return [
        Case("the example of the card", (CARD, 2, 3, 2)),
        Case("a prompt in one call", (calls(29), 4, 4, 8)),
        Case("a prompt, then token by token", (calls(11, 1, 1, 1, 1, 1, 1, 1), 4, 4, 5)),
        Case("token by token from the start", (calls(*[1] * 14), 4, 4, 4)),
        Case("23 tokens in one call", (cut(same, 23), 3, 4, 6)),
        Case("the same tokens in two calls", (cut(same, 9, 14), 3, 4, 6)),
        Case("the same tokens in odd pieces", (cut(same, 1, 7, 2, 10, 3), 3, 4, 6)),
        Case("no window", (calls(8, 4, 3), 4, 4, 0)),
        Case("no window, token by token", (calls(*[1] * 9), 4, 4, 0)),
        Case("fewer tokens than the window", (calls(3, 2), 4, 4, 8)),
        Case("as many tokens as the window", (calls(5, 3), 4, 4, 8)),
        Case("exactly one group behind the window", (calls(7, 5), 4, 4, 8)),
        Case("a token less than a group behind the window", (calls(7, 4), 4, 4, 8)),
        Case("a window that is no multiple of the group", (calls(17, 6), 4, 4, 3)),
        Case("a window smaller than a group", (calls(6, 6, 6), 4, 8, 2)),
        Case("calls without tokens", (calls(0, 9, 0, 4, 0), 4, 4, 2)),
        Case("nothing but calls without tokens", (calls(0, 0), 4, 4, 2)),
        Case("groups of one token", (calls(5, 3), 4, 1, 2)),
        Case("channels that do not change", (cut(constant, 10, 6), 2, 4, 4)),
        Case("8 bits, groups of 5", (calls(13, 9, channels=6), 8, 5, 4)),
    ]


def returns_tokens_and_a_count(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.parts(got, "held", "quantized")


def as_many_are_quantized(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.whole_number_is(got[1], "the count of quantized tokens", expected[1], "tokens")


def all_tokens_are_held(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.tensor(got[0], "held", torch.float32, tuple(expected[0].shape))


def newest_tokens_are_as_they_came(case: Case, got: Any, expected: Any) -> Finding | None:
    start = expected[1]
    return p.equal(got[0][start:], f"tokens from {start} on, counted from there", expected[0][start:])


def old_tokens_are_on_their_grid(case: Case, got: Any, expected: Any) -> Finding | None:
    calls, bits, group_size, _ = case.args
    end = expected[1]
    if not end:
        return None
    exact = torch.cat(calls)[:end].double()
    groups = exact.unflatten(0, (-1, group_size))
    low, high = (end_of.repeat_interleave(group_size, 0) for end_of in (groups.amin(1), groups.amax(1)))
    step, noise = step_of(low, high, bits), noise_of(low, high)
    divisor = torch.where(step > 0, step, 1.0)
    places = (exact - low) / divisor
    # Beside a tie, float32 may take the other code: then the distance to the next nearest counts.
    tie = (places - places.floor() - 0.5).abs() <= p.SLACK + noise / divisor
    read = got[0][:end].double()
    nearest = low + places.round() * step
    other = low + (2 * places.floor() + 1 - places.round()) * step
    target = torch.where(tie & ((read - other).abs() < (read - nearest).abs()), other, nearest)
    return come_back(got[0][:end], "quantized tokens", target, step, noise)


def _round(x: Any, bits: int, dims: Any = 0) -> Any:
    """Numbers on the grid of their group; the group runs along `dims`."""
    if not x.numel():
        return x
    low, high = x.amin(dims, keepdim=True), x.amax(dims, keepdim=True)
    scale = (high - low) / (2**bits - 1)
    return low + torch.round((x - low) / torch.where(scale > 0, scale, 1.0)) * scale


def _run(calls: Any, bits: int, group_size: int, residual: int, *, behind: Any = None, rounded: Any = None) -> Any:
    """A right answer, but for the parts that are given.

    `behind` says, from the length of the window, how many tokens leave it; `rounded` rounds those.
    """
    window, held = calls[0][:0], [calls[0][:0]]
    for new in calls:
        window = torch.cat([window, new])
        count = max(0, len(window) - residual) // group_size * group_size if behind is None else behind(len(window))
        old = window[:count]
        if count:
            parts = [_round(part, bits) for part in old.split(group_size)] if rounded is None else [rounded(old)]
            held += parts
        window = window[count:]
    return torch.cat([*held, window]), sum(map(len, held))


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def held_in_64_bits(calls, bits, group_size, residual):
    held, quantized = fill_cache(calls, bits, group_size, residual)
    return held.double(), quantized


@mutant(
    "every call looks at its own tokens only: what it leaves in the window is never looked at again, and token by "
    "token nothing is ever quantized. Put new tokens behind the window first, and look at all of it."
)
def each_call_by_itself(calls, bits, group_size, residual):
    held = [fill_cache((new,), bits, group_size, residual) for new in calls]
    return torch.cat([tokens for tokens, _ in held]), sum(count for _, count in held)


@mutant(
    "all tokens behind the window are quantized, the last of them in a group that is too short. A group has to be "
    "full: round the count down to a multiple of group_size."
)
def short_groups(calls, bits, group_size, residual):
    return _run(calls, bits, group_size, residual, behind=lambda length: max(0, length - residual))


@mutant(
    "the last group behind the window is quantized although it is not full yet. Its tokens stay as they came until "
    "there are group_size of them behind the window: round the count down to a multiple of group_size."
)
def short_last_group(calls, bits, group_size, residual):
    keys = torch.cat(calls)
    count = max(0, len(keys) - residual)
    parts = [_round(part, bits) for part in keys[:count].split(group_size)] if count else []
    return torch.cat([*parts, keys[count:]]), count


@mutant(
    "a call quantizes one group at most, so a long prompt stays in the window. Take as many groups as lie behind it: "
    "a while, or a count, and not an if."
)
def one_group_for_each_call(calls, bits, group_size, residual):
    return _run(calls, bits, group_size, residual, behind=lambda n: group_size if n >= residual + group_size else 0)


@mutant(
    "the window is emptied as a whole when it is full, as KIVI does it. Then between 0 and residual tokens are as they "
    "came; asked for are at least residual of them."
)
def window_emptied(calls, bits, group_size, residual):
    return _run(calls, bits, group_size, residual, behind=lambda n: n // group_size * group_size if n > residual else 0)


@mutant("the window is not kept: every group is quantized as soon as it is full. The newest residual tokens stay.")
def no_window(calls, bits, group_size, residual):
    return fill_cache(calls, bits, group_size, 0)


@mutant(
    "window[:-residual] is what lies behind the window, but not for a residual of 0: [:-0] is empty. Count from the "
    "front: len(window) - residual."
)
def minus_zero(calls, bits, group_size, residual):
    if residual:
        return fill_cache(calls, bits, group_size, residual)
    return torch.cat(calls), 0


@mutant(
    "a group waits for one token more than it must: > where >= is meant. It is quantized as soon as exactly residual "
    "tokens are left behind it."
)
def one_token_late(calls, bits, group_size, residual):
    return fill_cache(calls, bits, group_size, residual + 1)


@mutant("a group is quantized one token too early, so only residual - 1 tokens are sure to be as they came.")
def one_token_early(calls, bits, group_size, residual):
    return fill_cache(calls, bits, group_size, residual - 1)


@mutant(
    "the window is rounded up to a whole number of groups. It is residual tokens long, and what does not fill a group "
    "comes on top by itself."
)
def window_of_whole_groups(calls, bits, group_size, residual):
    return fill_cache(calls, bits, group_size, -(-residual // group_size) * group_size)


@mutant(
    "residual - len(window) below zero was not caught: with fewer tokens than the window, a negative count cuts from "
    "the end. Use max(0, ...)."
)
def negative_counts(calls, bits, group_size, residual):
    return _run(
        calls, bits, group_size, residual, behind=lambda n: len(range(n)[: (n - residual) // group_size * group_size])
    )


@mutant(
    "len(window) - residual goes below zero where there are fewer tokens than the window, and a negative count cuts "
    "from the end. What is left over fills no group. Use max(0, ...)."
)
def negative_counts_in_a_view(calls, bits, group_size, residual):
    keys = torch.cat(calls)
    count = (len(keys) - residual) // group_size * group_size
    groups = keys[:count].view(-1, group_size, keys.shape[1])
    return torch.cat([_round(groups, bits, 1).flatten(0, 1), keys[count:]]), count


@mutant(
    "the tokens are right and their count is not: len - residual goes below zero where there are fewer tokens than the "
    "window, and a negative number of tokens cannot be quantized. Use max(0, ...)."
)
def negative_count_returned(calls, bits, group_size, residual):
    count = (sum(map(len, calls)) - residual) // group_size * group_size
    return fill_cache(calls, bits, group_size, residual)[0], count


@mutant(
    "the oldest residual tokens are kept as they came and the newest are quantized. It is the other way round: the "
    "newest are read most, and their group is not full yet."
)
def oldest_kept(calls, bits, group_size, residual):
    keys = torch.cat(calls)
    count = max(0, len(keys) - residual) // group_size * group_size
    parts = [_round(part, bits) for part in keys[len(keys) - count :].split(group_size)] if count else []
    return torch.cat([keys[: len(keys) - count], *parts]), count


@mutant(
    "groups are cut from the newest token back, so their borders move with every call. Cut from the first token on: "
    "then a group is the same whenever it is looked at."
)
def groups_from_the_end(calls, bits, group_size, residual):
    keys = torch.cat(calls)
    count = max(0, len(keys) - residual) // group_size * group_size
    start = max(0, len(keys) - residual) - count
    parts = [_round(part, bits) for part in keys[start : start + count].split(group_size)] if count else []
    return torch.cat([keys[:start], *parts, keys[start + count :]]), count


@mutant(
    "the prompt is quantized, and what comes after it is never. Each call adds to the window; look at it each time."
)
def prompt_only(calls, bits, group_size, residual):
    held, quantized = fill_cache(calls[:1], bits, group_size, residual)
    return torch.cat([held, *calls[1:]]), quantized


@mutant(
    "all tokens that leave the window in one call share a scale. With a long prompt that is one scale for all of it: "
    "cut them into groups of group_size."
)
def one_scale_for_each_call(calls, bits, group_size, residual):
    return _run(calls, bits, group_size, residual, rounded=lambda old: _round(old, bits))


@mutant("the scale belongs to a token, over its channels. These are keys: a scale for group_size tokens of a channel.")
def one_scale_for_each_token(calls, bits, group_size, residual):
    return _run(calls, bits, group_size, residual, rounded=lambda old: _round(old, bits, 1))


@mutant("all channels of a group share a scale. The minimum runs over the tokens of one channel only.")
def all_channels_together(calls, bits, group_size, residual):
    def rounded(old: Any) -> Any:
        return torch.cat([_round(part, bits, (0, 1)) for part in old.split(group_size)])

    return _run(calls, bits, group_size, residual, rounded=rounded)


@mutant("nothing is rounded: the tokens behind the window are counted, but come back as they came.")
def nothing_rounded(calls, bits, group_size, residual):
    return torch.cat(calls), fill_cache(calls, bits, group_size, residual)[1]


@mutant("the window is rounded as well. Its tokens come back exactly as they came; that is what it is for.")
def window_rounded(calls, bits, group_size, residual):
    held, quantized = fill_cache(calls, bits, group_size, residual)
    rest = [_round(part, bits) for part in held[quantized:].split(group_size)]
    return torch.cat([held[:quantized], *rest]), quantized


@mutant("the window is missing in what is held. Attention sees all tokens: the quantized ones, then the window.")
def window_not_returned(calls, bits, group_size, residual):
    held, quantized = fill_cache(calls, bits, group_size, residual)
    return held[:quantized], quantized


@mutant("the window comes first. Tokens stay in order: the quantized ones are the oldest.")
def window_first(calls, bits, group_size, residual):
    held, quantized = fill_cache(calls, bits, group_size, residual)
    return torch.cat([held[quantized:], held[:quantized]]), quantized


@mutant("the second value counts the tokens of the window, or the groups. It is the number of quantized tokens.")
def window_counted(calls, bits, group_size, residual):
    held, quantized = fill_cache(calls, bits, group_size, residual)
    return held, len(held) - quantized


@mutant("the second value counts groups. It is the number of quantized tokens: times group_size.")
def groups_counted(calls, bits, group_size, residual):
    held, quantized = fill_cache(calls, bits, group_size, residual)
    return held, quantized // group_size


@mutant("the range is divided by 2**bits. There are 2**bits codes, and 2**bits - 1 steps between them.")
def off_by_one_levels(calls, bits, group_size, residual):
    def rounded(old: Any) -> Any:
        groups = old.unflatten(0, (-1, group_size))
        low, high = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
        scale = (high - low) / 2**bits
        codes = torch.round((groups - low) / torch.where(scale > 0, scale, 1.0)).clamp(max=2**bits - 1)
        return (low + codes * scale).flatten(0, 1)

    return _run(calls, bits, group_size, residual, rounded=rounded)


@mutant("the numbers are cut off to the step below. Round to the nearest.")
def cut_off(calls, bits, group_size, residual):
    def rounded(old: Any) -> Any:
        groups = old.unflatten(0, (-1, group_size))
        low, high = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
        scale = (high - low) / (2**bits - 1)
        return (low + ((groups - low) / torch.where(scale > 0, scale, 1.0) + 1e-5).floor() * scale).flatten(0, 1)

    return _run(calls, bits, group_size, residual, rounded=rounded)


@mutant("where all numbers of a channel are equal, 0 is divided by 0, and NaN comes back. Replace the divisor there.")
def equal_numbers_divide(calls, bits, group_size, residual):
    def rounded(old: Any) -> Any:
        groups = old.unflatten(0, (-1, group_size))
        low, high = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
        scale = (high - low) / (2**bits - 1)
        return (low + torch.round((groups - low) / scale) * scale).flatten(0, 1)

    return _run(calls, bits, group_size, residual, rounded=rounded)


@mutant("the keys that came in were changed. Work on a copy: the caller still computes with them.")
def rounds_in_place(calls, bits, group_size, residual):
    held, quantized = fill_cache(calls, bits, group_size, residual)
    start = 0
    for new in calls:
        new.copy_(held[start : start + len(new)])
        start += len(new)
    return held, quantized


def all_at_once(calls, bits, group_size, residual):
    """Right: the state depends on the tokens alone, so one look at all of them is enough; in float64."""
    keys = torch.cat(calls)
    count = max(0, len(keys) - residual) // group_size
    held = keys.clone()
    for group in range(count):
        tokens = slice(group * group_size, (group + 1) * group_size)
        x = keys[tokens].double()
        low = x.min(0).values
        scale = (x.max(0).values - low) / (2**bits - 1)
        held[tokens] = (low + ((x - low) / scale).nan_to_num(nan=0.0).round() * scale).float()
    return held, count * group_size


def token_by_token(calls, bits, group_size, residual):
    """Right, with a queue: whenever a whole group lies behind the window, it leaves."""
    window, done = [], []
    for token in [token for new in calls for token in new]:
        window.append(token)
        while len(window) >= residual + group_size:
            group = torch.stack(window[:group_size])
            low = group.amin(0)
            scale = (group.amax(0) - low) / (2**bits - 1)
            divisor = torch.where(scale == 0, torch.ones_like(scale), scale)
            done += list(torch.round((group - low) / divisor) * scale + low)
            del window[:group_size]
    tokens = [*done, *window]
    return torch.stack(tokens) if tokens else calls[0][:0], len(done)


QUESTION = Question(
    id="kv_cache.append",
    title="The window, and what leaves it",
    reference=fill_cache,
    cases=cases,
    properties=(
        returns_tokens_and_a_count,
        as_many_are_quantized,
        all_tokens_are_held,
        newest_tokens_are_as_they_came,
        old_tokens_are_on_their_grid,
    ),
    mutants=(
        held_in_64_bits,  # first: what is wrong in its types only looks like this one
        each_call_by_itself,
        short_groups,
        short_last_group,
        one_group_for_each_call,
        window_emptied,
        no_window,
        minus_zero,
        one_token_late,
        one_token_early,
        window_of_whole_groups,
        negative_counts,
        negative_counts_in_a_view,
        negative_count_returned,
        oldest_kept,
        groups_from_the_end,
        prompt_only,
        one_scale_for_each_call,
        one_scale_for_each_token,
        all_channels_together,
        nothing_rounded,
        window_rounded,
        window_not_returned,
        window_first,
        window_counted,
        groups_counted,
        off_by_one_levels,
        cut_off,
        equal_numbers_divide,
        rounds_in_place,
    ),
    alternatives=(all_at_once, token_by_token),
    hints=(
        "After 7 tokens, with groups of 3 and a window of 2: which groups are full, and which of them lie behind the "
        "window? And after 8 tokens? Does it matter in how many calls they came?",
        "Append the new tokens to the window first. Behind it lie len(window) - residual tokens, perhaps fewer than 0; "
        "of these a multiple of group_size leaves, the oldest ones. Count from the front: [:-0] is empty.",
        "behind = max(0, len(window) - residual) // group_size * group_size; view window[:behind] as (groups, "
        "group_size, channels), round along dimension 1 as in question 4 and multiply back; then window = "
        "window[behind:].",
    ),
    explanation=(
        "Whoever reads a cache wants one answer for one text, whether the prompt came in one call, in chunks, or was "
        "generated token by token. That holds when a group has a fixed place, is quantized once, and the moment "
        "depends on the number of tokens alone. Between residual and residual + group_size - 1 tokens are exact at any "
        "time. A program that forgets max(0, ...) or writes [:-residual] works until somebody tests a short prompt or "
        "a window of 0. Rounding has no way back: a cache that is cropped, for a rejected guess in speculative "
        "decoding, has lost the exact numbers of what left the window."
    ),
)
