"""choosing.canary: a CUSUM of canary answers that differ, and after how many answers it raises an alarm."""

from __future__ import annotations

import math
from random import Random
from typing import Any

from ....deploy.quality.measured import quality
from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .shared import listed


def canary(looks, p, q, limit):
    """Watch the answers to fixed prompts, and say when they have changed.

    looks: tuples (differ, asked), one for each look: how many canary prompts were asked,
        and how many answers differ from those at launch.
    p: the part that differs in health, above 0.
    q: the part that is to be feared, above p and below 1.
    limit: an alarm is raised where the score is above it.

    The score starts at 0. Each look adds differ · ln(q / p) and
    (asked - differ) · ln((1 - q) / (1 - p)); where that makes it negative it becomes 0.

    Returns (scores, answers): the score after every look, those after an alarm included,
    and how many prompts had been asked up to the first alarm, its look included; 0 where
    there is none.
    """
    differs, agrees = math.log(q / p), math.log((1 - q) / (1 - p))
    scores, score, asked_so_far, answers = [], 0.0, 0, 0
    for differ, asked in looks:
        score = max(0.0, score + differ * differs + (asked - differ) * agrees)
        scores.append(score)
        asked_so_far += asked
        if score > limit and not answers:
            answers = asked_so_far
    return scores, answers


CARD = ((1, 300), (3, 300), (0, 300), (4, 300), (0, 300))


def cases(seed: int) -> list[Case]:
    random = Random(seed)
    return [
        Case("the example of the card", (CARD, 0.002, 0.006, 4.0)),
        Case("the example of the card, a limit that is not reached", (CARD, 0.002, 0.006, 5.0)),
        Case("healthy", _drawn(random, [0.002] * 12, 0.002, 0.006, 9.0)),
        Case("one answer in a hundred changes from the fifth look on", _drawn(random, [0.002] * 4 + [0.012] * 9)),
        Case("changed from the start", _drawn(random, [0.03] * 6, limit=7.0)),
        Case("worse again and again, and healthy in between", _drawn(random, [0.03, 0.0, 0.02, 0.0, 0.0, 0.05, 0.0])),
        Case("looks of other sizes", _uneven(random)),
        Case("the last look raises it", _last(random)),
        Case("an alarm that passes, and another one", _twice(random)),
        Case("many differ, in health as well", _drawn(random, [0.2, 0.2, 0.35, 0.4, 0.4], 0.2, 0.35, 6.0)),
        Case("a limit of 0, and a first look without differences", (((0, 50), (0, 40), (9, 60)), 0.05, 0.15, 0.0)),
        Case("one look", (((random.randrange(20, 30), random.randrange(200, 400)),), 0.01, 0.03, 3.0)),
        Case("looks of ten prompts", _small(random)),
        Case("nano's SQL at INT3, 25 answers at a time", _nano(random, "INT3 g128", 5.0)),
        Case("nano's SQL at INT4, 25 answers at a time", _nano(random, "INT4 g128", 5.0)),
    ]


def _drawn(
    random: Random, rates: list[float], p: float = 0.002, q: float = 0.006, limit: float = 5.0, asked: int = 300
) -> tuple[Any, ...]:
    """Looks with these rates, whose scores do not come near the limit."""
    while True:
        looks = tuple((sum(random.random() < rate for _ in range(asked)), asked) for rate in rates)
        if _clear(looks, p, q, limit):
            return looks, p, q, limit


def _clear(looks: tuple[Any, ...], p: float, q: float, limit: float) -> bool:
    return all(abs(score - limit) > 0.05 for score in canary(looks, p, q, limit)[0])


def _uneven(random: Random) -> tuple[Any, ...]:
    """Small and large looks; the rate is high in the later ones."""
    while True:
        sizes = [random.randrange(50, 600) for _ in range(8)]
        rates = [0.002] * 3 + [0.02] * 5
        looks = tuple((sum(random.random() < rate for _ in range(n)), n) for rate, n in zip(rates, sizes, strict=True))
        if _clear(looks, 0.002, 0.006, 6.0) and 0 < canary(looks, 0.002, 0.006, 6.0)[1] < sum(sizes):
            return looks, 0.002, 0.006, 6.0


def _last(random: Random) -> tuple[Any, ...]:
    looks = (*(((random.randrange(2), 200)) for _ in range(5)), (random.randrange(12, 16), 200))
    return looks, 0.004, 0.012, 8.0


def _twice(random: Random) -> tuple[Any, ...]:
    """The score falls below the limit after an alarm, and rises again."""
    return ((random.randrange(5, 8), 300), *[(0, 300)] * 7, (random.randrange(6, 9), 300), (0, 300)), 0.002, 0.006, 3.9


def _small(random: Random) -> tuple[Any, ...]:
    """Scores of so few answers that four digits are not all of them."""
    while True:
        p = round(random.uniform(0.02, 0.05), 3)
        looks = tuple((random.randrange(1, 4), 10) for _ in range(3))
        scores = canary(looks, p, 3 * p, 4.0)[0]
        if _clear(looks, p, 3 * p, 4.0) and any(abs(score - round(score, 4)) > 3e-5 for score in scores):
            return looks, p, 3 * p, 4.0


def _nano(random: Random, method: str, limit: float) -> tuple[Any, ...]:
    """nano's answers as if they were canaries, in any order: which differ from those of 16 bits is recorded."""
    same = quality().method(method).answers["sql"].same
    while True:
        order = random.sample(same, len(same))
        looks = tuple((25 - sum(order[i : i + 25]), 25) for i in range(0, 300, 25))
        if _clear(looks, 0.02, 0.06, limit):
            return looks, 0.02, 0.06, limit


def one_score_for_each_look(case: Case, got: Any, expected: Any) -> Finding | None:
    if finding := p.parts(got, "scores", "answers"):
        return finding
    scores = listed(got[0])
    if not isinstance(scores, tuple) or len(scores) != len(expected[0]):
        return Finding(f"scores: return a list of {len(expected[0])}, one for each look")
    bounds = rounding(case)
    for look, (one, right, bound) in enumerate(zip(scores, expected[0], bounds, strict=True), start=1):
        if finding := p.number(one, f"the score after look {look}"):
            return finding
        error = abs(p.as_number(one) - right)
        if error > bound:
            return Finding(
                f"the score after look {look} is off",
                expected=f"{right:.6g}",
                got=f"{p.as_number(one):.6g}",
                error=error,
                bound=bound,
                unit="nats",
            )
    return None


def rounding(case: Case) -> list[float]:
    """How far float32 may move each score: by the terms added so far, and by the logarithm of a number near 1."""
    looks, p, q, _ = case.args
    bounds, size = [], 0.0
    for differ, asked in looks:
        size += differ * math.log(q / p) - (asked - differ) * math.log((1 - q) / (1 - p)) + asked
        bounds.append(5e-7 * size)
    return bounds


def answers_up_to_the_first_alarm(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.whole_number_is(got[1], "the number of prompts up to the alarm", expected[1])


def _watched(looks, p, q, limit, *, step=None, floor=lambda score: max(0.0, score), over=lambda s, limit: s > limit):
    """The right answer, but for the parts that are given: what a look adds, what becomes of it, what is an alarm."""
    step = step or (lambda differ, asked: differ * math.log(q / p) + (asked - differ) * math.log((1 - q) / (1 - p)))
    scores, score, total, answers = [], 0.0, 0, 0
    for differ, asked in looks:
        score = floor(score + step(differ, asked))
        scores.append(score)
        total += asked
        if over(score, limit) and not answers:
            answers = total
    return scores, answers


@mutant("the score falls below 0. Then a long healthy time makes a debt that a real change has to pay off first.")
def never_set_to_zero(looks, p, q, limit):
    return _watched(looks, p, q, limit, floor=lambda score: score)


@mutant("negative scores become 0 in the list alone, and the sum goes on below it. Set the score itself to 0.")
def zero_in_the_list_alone(looks, p, q, limit):
    scores, _ = _watched(looks, p, q, limit, floor=lambda score: score)
    return _again(looks, [max(0.0, score) for score in scores], limit)


@mutant("positive scores become 0. Take the larger of 0 and the score, with max.")
def kept_below_zero(looks, p, q, limit):
    return _watched(looks, p, q, limit, floor=lambda score: min(0.0, score))


@mutant("negative steps count as 0, so that the score never falls. The sum is kept from below 0, and not each step.")
def steps_never_negative(looks, p, q, limit):
    right = _step(p, q)
    return _watched(looks, p, q, limit, step=lambda differ, asked: max(0.0, right(differ, asked)))


@mutant("answers that agree are not counted. Each speaks for health: (asked - differ) · ln((1 - q) / (1 - p)).")
def agreeing_ones_forgotten(looks, p, q, limit):
    return _watched(looks, p, q, limit, step=lambda differ, asked: differ * math.log(q / p))


@mutant("all answers speak for health, those that differ as well. The second term has asked - differ.")
def all_asked_speak_for_health(looks, p, q, limit):
    return _watched(
        looks, p, q, limit, step=lambda differ, asked: differ * math.log(q / p) + asked * math.log((1 - q) / (1 - p))
    )


@mutant("the second term has the wrong sign: (1 - q) / (1 - p) is below 1, and its logarithm below 0.")
def agreeing_ones_raise_it(looks, p, q, limit):
    return _watched(
        looks,
        p,
        q,
        limit,
        step=lambda differ, asked: differ * math.log(q / p) + (asked - differ) * math.log((1 - p) / (1 - q)),
    )


@mutant("the two logarithms change places. ln(q / p) belongs to the answers that differ.")
def terms_swapped(looks, p, q, limit):
    right = _step(p, q)
    return _watched(looks, p, q, limit, step=lambda differ, asked: right(asked - differ, asked))


@mutant("the score is noted before it becomes 0. Return what it is after the look: never below 0.")
def noted_before_zero(looks, p, q, limit):
    scores, score, right = [], 0.0, _step(p, q)
    for look in looks:
        scores.append(score + right(*look))
        score = max(0.0, scores[-1])
    return _again(looks, scores, limit)


@mutant("every look is counted as large as the first. Add up how many were asked in each.")
def every_look_as_large_as_the_first(looks, p, q, limit):
    scores, _ = canary(looks, p, q, limit)
    first = next((i for i, score in enumerate(scores, start=1) if score > limit), 0)
    return scores, first * looks[0][1]


@mutant("p and q change places: what differs lowers the score here.")
def p_and_q_swapped(looks, p, q, limit):
    right = _step(p, q)
    return _watched(looks, p, q, limit, step=lambda differ, asked: -right(differ, asked))


@mutant("the logarithms have base 2. Take natural ones, as ln says.")
def base_two(looks, p, q, limit):
    right = _step(p, q)
    return _watched(looks, p, q, limit, step=lambda differ, asked: right(differ, asked) / math.log(2))


@mutant("the logarithms have base 10. math.log is the natural one.")
def base_ten(looks, p, q, limit):
    right = _step(p, q)
    return _watched(looks, p, q, limit, step=lambda differ, asked: right(differ, asked) / math.log(10))


@mutant("each look counts as one answer, by the part that differs. 300 answers weigh as much as 300.")
def parts_for_counts(looks, p, q, limit):
    right = _step(p, q)
    return _watched(looks, p, q, limit, step=lambda differ, asked: right(differ, asked) / asked)


@mutant("every look is taken to be as large as the first. Each says how many were asked.")
def size_of_the_first_look(looks, p, q, limit):
    right = _step(p, q)
    return _watched(looks, p, q, limit, step=lambda differ, asked: right(differ, looks[0][1]))


@mutant("the surplus over p is added, differ - asked · p. Asked for is the logarithm of the likelihood ratio.")
def surplus_over_health(looks, p, q, limit):
    return _watched(looks, p, q, limit, step=lambda differ, asked: differ - asked * p)


@mutant("each look is judged by itself, as on a control chart. A CUSUM adds: small changes show in the sum.")
def each_look_by_itself(looks, p, q, limit):
    right = _step(p, q)
    return _again(looks, [max(0.0, right(*look)) for look in looks], limit)


@mutant("a score that equals the limit raises an alarm. It has to be above: compare with > and not with >=.")
def limit_itself_is_enough(looks, p, q, limit):
    return _watched(looks, p, q, limit, over=lambda score, limit: score >= limit)


@mutant("the score starts anew after an alarm. Here it goes on, so that you see how the alarm develops.")
def starts_anew_after_an_alarm(looks, p, q, limit):
    right = _step(p, q)
    scores, score = [], 0.0
    for look in looks:
        score = max(0.0, (0.0 if score > limit else score) + right(*look))
        scores.append(score)
    return _again(looks, scores, limit)


@mutant("the scores end with the alarm. Return one for every look.")
def ends_with_the_alarm(looks, p, q, limit):
    scores, answers = canary(looks, p, q, limit)
    first = next((i for i, score in enumerate(scores) if score > limit), len(scores))
    return scores[: first + 1], answers


@mutant("the score before the first look, 0, is in the list. Return one score for every look.")
def starts_with_zero(looks, p, q, limit):
    scores, answers = canary(looks, p, q, limit)
    return [0.0, *scores], answers


@mutant("only the last score comes back. Return one for every look.")
def last_score_alone(looks, p, q, limit):
    scores, answers = canary(looks, p, q, limit)
    return scores[-1], answers


@mutant("the last alarm is reported. The first one counts.")
def last_alarm(looks, p, q, limit):
    scores, total, answers = canary(looks, p, q, limit)[0], 0, 0
    for score, (_, asked) in zip(scores, looks, strict=True):
        total += asked
        answers = total if score > limit else answers
    return scores, answers


@mutant("the look with the alarm is not counted. Its answers had been asked, too.")
def look_of_the_alarm_left_out(looks, p, q, limit):
    scores, _ = canary(looks, p, q, limit)
    first = next((i for i, score in enumerate(scores) if score > limit), 0)
    return scores, sum(asked for _, asked in looks[:first])


@mutant("this is the number of looks up to the alarm. Return how many prompts had been asked.")
def looks_for_answers(looks, p, q, limit):
    scores, _ = canary(looks, p, q, limit)
    return scores, next((i for i, score in enumerate(scores, start=1) if score > limit), 0)


@mutant("these are the answers that differ, up to the alarm. Return how many prompts had been asked.")
def differing_ones_for_answers(looks, p, q, limit):
    scores, _ = canary(looks, p, q, limit)
    first = next((i for i, score in enumerate(scores, start=1) if score > limit), 0)
    return scores, sum(differ for differ, _ in looks[:first])


@mutant("where there is no alarm, all prompts are counted. Return 0 there.")
def all_asked_for_never(looks, p, q, limit):
    scores, answers = canary(looks, p, q, limit)
    return scores, answers or sum(asked for _, asked in looks)


@mutant("where there is no alarm, None comes back. Return 0 there.")
def none_for_never(looks, p, q, limit):
    scores, answers = canary(looks, p, q, limit)
    return scores, answers or None


@mutant("the limit is looked at before the look is added, so that an alarm of the last look goes unseen. Add it first.")
def looked_at_before_the_look(looks, p, q, limit):
    scores, answers = canary(looks, p, q, limit)
    return scores, answers if any(score > limit for score in scores[:-1]) else 0


@mutant("the limit is looked at before the look is added, and the alarm comes one look late. Add the look first.")
def one_look_late(looks, p, q, limit):
    scores, _ = canary(looks, p, q, limit)
    first = next((i for i, score in enumerate(scores[:-1], start=2) if score > limit), 0)
    return scores, sum(asked for _, asked in looks[:first])


@mutant("the scores are rounded to two digits. Return them with all their digits.")
def two_digits(looks, p, q, limit):
    return _rounded(looks, p, q, limit, 2)


@mutant("the scores are rounded to three digits. Return them with all their digits.")
def three_digits(looks, p, q, limit):
    return _rounded(looks, p, q, limit, 3)


@mutant("the scores are rounded to four digits, as the card prints them. Return them with all their digits.")
def four_digits(looks, p, q, limit):
    return _rounded(looks, p, q, limit, 4)


def _rounded(looks: Any, p: float, q: float, limit: float, digits: int) -> tuple[list[float], int]:
    scores, answers = canary(looks, p, q, limit)
    return [round(score, digits) for score in scores], answers


def _step(p: float, q: float) -> Any:
    return lambda differ, asked: differ * math.log(q / p) + (asked - differ) * math.log((1 - q) / (1 - p))


def _again(looks: Any, scores: list[float], limit: float) -> tuple[list[float], int]:
    """These scores, and the answers up to the first of them that is above the limit."""
    first = next((i for i, score in enumerate(scores, start=1) if score > limit), 0)
    return scores, sum(asked for _, asked in looks[:first])


def by_running_minimum(looks, p, q, limit):
    """Right, with NumPy: the sum so far, less the lowest that it ever was."""
    import numpy as np

    differ, asked = np.array(looks, dtype=float).T
    total = np.cumsum(differ * np.log(q / p) + (asked - differ) * np.log((1 - q) / (1 - p)))
    scores = total - np.minimum(np.minimum.accumulate(total), 0)
    alarms = np.flatnonzero(scores > limit)
    return scores, int(asked[: alarms[0] + 1].sum()) if len(alarms) else 0


def in_float32(looks, p, q, limit):
    """Right, with tensors in float32, and differences of logarithms."""
    import torch

    p, q = torch.tensor(p), torch.tensor(q)
    score, scores, answers, total = torch.tensor(0.0), [], 0, 0
    for differ, asked in looks:
        score = score + differ * (q.log() - p.log()) + (asked - differ) * ((1 - q).log() - (1 - p).log())
        score = score.clamp(min=0)
        scores.append(score)
        total = total + asked
        answers = total if score > limit and answers == 0 else answers
    return torch.stack(scores), answers


QUESTION = Question(
    id="choosing.canary",
    title="When the canary stops singing",
    reference=canary,
    cases=cases,
    properties=(one_score_for_each_look, answers_up_to_the_first_alarm),
    mutants=(
        never_set_to_zero,
        zero_in_the_list_alone,
        noted_before_zero,
        kept_below_zero,
        steps_never_negative,
        agreeing_ones_forgotten,
        all_asked_speak_for_health,
        agreeing_ones_raise_it,
        terms_swapped,
        p_and_q_swapped,
        base_two,
        base_ten,
        parts_for_counts,
        size_of_the_first_look,
        surplus_over_health,
        each_look_by_itself,
        limit_itself_is_enough,
        starts_anew_after_an_alarm,
        ends_with_the_alarm,
        starts_with_zero,
        last_score_alone,
        last_alarm,
        look_of_the_alarm_left_out,
        looks_for_answers,
        every_look_as_large_as_the_first,
        differing_ones_for_answers,
        all_asked_for_never,
        none_for_never,
        looked_at_before_the_look,
        one_look_late,
        two_digits,
        three_digits,
        four_digits,
    ),
    alternatives=(by_running_minimum, in_float32),
    hints=(
        "What does one answer that differs add, and what one that agrees? One of the two numbers is negative. And what "
        "may the score never become, however long all was well?",
        "score = max(0, score + differ · ln(q / p) + (asked - differ) · ln((1 - q) / (1 - p))), look by look. Keep the "
        "sum of asked beside it, and remember it at the first score above the limit.",
        "for differ, asked in looks: score = max(0.0, score + ...); scores.append(score); asked_so_far += asked; if "
        "score > limit and not answers: answers = asked_so_far.",
    ),
    explanation=(
        "With 0.2 % in health and 0.6 % to be feared, an answer that differs adds 1.10 and one that agrees takes off "
        "0.004: it takes 274 of them to make up for one. A look of 300 healthy answers takes off 0.54 on average; "
        "with 1 % more differing it adds 2.76, and in 73 % of the runs a limit of 4 has fallen by the second look. "
        "The limit is set on healthy runs, for as many false alarms as you can live with: here one every 306 looks. A "
        "canary sees what changes under it: a kernel, "
        "a GPU, a new build. What it never asks, long prompts or new kinds of requests, it never sees."
    ),
)
