"""choosing.flips: what changed between two models on the same examples, and how sure the change of accuracy is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from random import Random
from typing import Any

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .shared import nano_texts, near


def flips(truth, before, after):
    """Compare the answers of two models to the same questions.

    truth: the right answers, a tuple of texts, two or more.
    before, after: what the model in 16 bits and the quantized one answered, in the same
        order. An answer is right where it equals the right one, character by character.

    Returns (lost, gained, change, stderr, moved):
    lost: how many answers were right before and are wrong after.
    gained: how many were wrong before and are right after.
    change: accuracy after minus accuracy before, as a part of one.
    stderr: the standard error of change from the differences example by example, each 1,
        0 or -1: their standard deviation (dividing by n - 1) over the square root of n.
    moved: how many are wrong in both, with another text than before.
    """
    lost = gained = moved = 0
    for right, old, new in zip(truth, before, after, strict=True):
        lost += old == right != new
        gained += new == right != old
        moved += old != right and new != right and old != new
    n = len(truth)
    change = (gained - lost) / n
    stderr = math.sqrt(((lost + gained) / n - change**2) / (n - 1))
    return lost, gained, change, stderr, moved


# Ten answers: two are lost, one is gained, one moves, and one stays wrong as it is.
CARD = (
    ("12", "7", "30", "5", "18", "44", "9", "21", "60", "3"),
    ("12", "7", "31", "6", "18", "44", "9", "12", "60", "3"),
    ("12", "9", "30", "8", "18", "4", "9", "12", "60", "3"),
)


def cases(seed: int) -> list[Case]:
    random = Random(seed)
    lost, many = random.randrange(3, 6), random.randrange(5, 10)
    return [
        Case("the example of the card", CARD),
        Case("as many gained as lost", _drawn(random, lost, lost, 2, 1, 11)),
        Case("more gained than lost", _drawn(random, 1, 3, 2, 2, random.randrange(9, 13))),
        Case("no verdict changes, some wrong texts do", _drawn(random, 0, 0, 3, 2, 9)),
        Case("every right answer is lost, and there were no wrong ones", _drawn(random, many, 0, 0, 0, 0)),
        Case("two examples", _drawn(random, 1, 0, 0, 0, 1)),
        Case("answers that differ in case and in spaces", _spelled(random)),
        Case("answers that say more than the right one", _wordy(random)),
        Case("numbers that are spelled in two ways", _respelled(random)),
        Case("empty answers", _emptied(random)),
        Case("nano at INT4 on SQL", nano_texts(random, "INT4 g128", "sql")),
        Case("nano at INT3 on trading signals", nano_texts(random, "INT3 g128", "trading")),
        Case("nano at INT2 on SQL", nano_texts(random, "INT2 g32 asymmetric", "sql")),
    ]


def _drawn(random: Random, lost: int, gained: int, moved: int, wrong: int, right: int) -> tuple[tuple[str, ...], ...]:
    """So many of each kind, shuffled; `wrong` and `right` stay as they are."""
    kinds = [(0, 1)] * lost + [(1, 0)] * gained + [(1, 2)] * moved + [(1, 1)] * wrong + [(0, 0)] * right
    random.shuffle(kinds)
    numbers = [(number := random.randrange(10, 1000), number + old, number + new) for old, new in kinds]
    truth, before, after = (tuple(map(str, column)) for column in zip(*numbers, strict=True))
    return truth, before, after


def _spelled(random: Random) -> tuple[tuple[str, ...], ...]:
    """Wrong by a capital letter or a space alone."""
    word = random.choice(("buy", "sell", "hold"))
    rows = [
        (word, word, word.upper()),
        (word, word.upper(), word),
        (word, word, f"{word} "),
        (word, word.upper(), word.capitalize()),
        (word, f" {word}", f"{word} "),
        ("hold", "hold", " hold"),
        *[("up", "up", "up")] * random.randrange(3, 7),
    ]
    random.shuffle(rows)
    truth, before, after = zip(*rows, strict=True)
    return truth, before, after


def _wordy(random: Random) -> tuple[tuple[str, ...], ...]:
    """Wrong by a word before the right answer, or behind it."""
    word = random.choice(("buy", "sell", "hold"))
    rows = [
        *[(word, word, f"{word} now")] * random.randrange(4, 6),
        *[(word, f"to {word}", word)] * random.randrange(2, 4),
        ("up", "up", "up"),
        ("up", "down", "down"),
    ]
    random.shuffle(rows)
    truth, before, after = zip(*rows, strict=True)
    return truth, before, after


def _respelled(random: Random) -> tuple[tuple[str, ...], ...]:
    """The right number in other characters: wrong, because a program that reads answers may read characters."""
    number = random.randrange(10, 100)
    rows = [
        *[(f"{number}", f"{number}", f"{number}.0")] * random.randrange(4, 6),
        *[(f"{number}", f"0{number}", f"{number}")] * random.randrange(2, 4),
        *[("7", "7", "7")] * random.randrange(2, 5),
    ]
    random.shuffle(rows)
    truth, before, after = zip(*rows, strict=True)
    return truth, before, after


def _emptied(random: Random) -> tuple[tuple[str, ...], ...]:
    """Some answers are empty texts: wrong, and another text than a wrong one that says something."""
    truth, before, after = (list(one) for one in _drawn(random, 3, 1, 2, 0, random.randrange(5, 9)))
    for i, (right, old, new) in enumerate(zip(truth, before, after, strict=True)):
        if right != new:
            after[i] = ""
        elif right != old:
            before[i] = ""
    return tuple(truth), tuple(before), tuple(after)


_NAMES = ("lost", "gained", "change", "stderr", "moved")


def every_kind_is_counted(case: Case, got: Any, expected: Any) -> Finding | None:
    if finding := p.parts(got, *_NAMES):
        return finding
    for name, one, right in zip(_NAMES, got, expected, strict=True):
        if name in ("lost", "gained", "moved") and (finding := p.whole_number_is(one, name, right, "answers")):
            return finding
    return None


def change_is_after_minus_before(case: Case, got: Any, expected: Any) -> Finding | None:
    return near(got[2], "the change of accuracy", expected[2], size=1.0)


def stderr_is_that_of_the_pairs(case: Case, got: Any, expected: Any) -> Finding | None:
    return near(got[3], "the standard error", expected[3], size=1.0)


def _with(truth: Any, before: Any, after: Any, **parts: Any) -> tuple[Any, ...]:
    """The right answer, but for these parts."""
    right = dict(zip(_NAMES, flips(truth, before, after), strict=True))
    return tuple((right | parts).values())


def _counted(truth: Any, before: Any, after: Any, of: Callable[[str, str, str], bool]) -> int:
    return sum(of(*row) for row in zip(truth, before, after, strict=True))


@mutant("lost and gained change places. Lost is what was right before.")
def lost_and_gained_swapped(truth, before, after):
    lost, gained, *_ = flips(truth, before, after)
    return _with(truth, before, after, lost=gained, gained=lost)


@mutant("lost and gained change places, and so the sign of the change. Lost is what was right before.")
def everything_backwards(truth, before, after):
    return flips(truth, after, before)


@mutant("the change has the wrong sign. It is accuracy after minus before: a loss is negative.")
def before_minus_after(truth, before, after):
    return _with(truth, before, after, change=-flips(truth, before, after)[2])


@mutant("every wrong answer of the quantized model is called lost. One that was wrong before is not lost.")
def all_wrong_are_lost(truth, before, after):
    return _with(truth, before, after, lost=_counted(truth, before, after, lambda right, old, new: new != right))


@mutant("every right answer of the quantized model is called gained. One that was right before is not gained.")
def all_right_are_gained(truth, before, after):
    return _with(truth, before, after, gained=_counted(truth, before, after, lambda right, old, new: new == right))


@mutant("every text that changed counts as moved. Lost and gained ones are counted already: both must be wrong.")
def all_that_differ_moved(truth, before, after):
    return _with(truth, before, after, moved=_counted(truth, before, after, lambda right, old, new: old != new))


@mutant("every answer that is wrong in both counts as moved. Only those whose text has changed do.")
def all_wrong_in_both_moved(truth, before, after):
    both = _counted(truth, before, after, lambda right, old, new: old != right and new != right)
    return _with(truth, before, after, moved=both)


@mutant(
    "moved is always 0 here. Two answers can be wrong in different ways, and the verdicts right and wrong do not show "
    "it: compare the texts."
)
def verdicts_alone(truth, before, after):
    return _with(truth, before, after, moved=0)


@mutant(
    "a wrong answer that moved counts as lost as well. It was wrong before: nothing is lost, and nothing was there to "
    "lose."
)
def moved_is_lost(truth, before, after):
    lost, *_, moved = flips(truth, before, after)
    return _with(truth, before, after, lost=lost + moved)


@mutant("lost and gained are netted: only the surplus is counted. Count each by itself.")
def only_the_surplus(truth, before, after):
    lost, gained, *_ = flips(truth, before, after)
    return _with(truth, before, after, lost=max(0, lost - gained), gained=max(0, gained - lost))


@mutant("lost, gained and moved are parts of the examples. Return how many they are.")
def shares_for_counts(truth, before, after):
    lost, gained, *_, moved = flips(truth, before, after)
    counts = {"lost": lost, "gained": gained, "moved": moved}
    return _with(truth, before, after, **{name: count / len(truth) for name, count in counts.items()})


@mutant("change is the accuracy after. Subtract the one before.")
def accuracy_after(truth, before, after):
    accuracy = _counted(truth, before, after, lambda right, old, new: new == right) / len(truth)
    return _with(truth, before, after, change=accuracy)


@mutant("the change is divided by the number of flips. It is a change of accuracy: divide by all examples.")
def divided_by_the_flips(truth, before, after):
    lost, gained, *_ = flips(truth, before, after)
    return _with(truth, before, after, change=(gained - lost) / max(1, lost + gained))


@mutant("change and stderr are in points. Return parts of one: -0.1 and not -10.")
def in_points(truth, before, after):
    _, _, change, stderr, _ = flips(truth, before, after)
    return _with(truth, before, after, change=100 * change, stderr=100 * stderr)


@mutant("change and stderr change places. The change comes third, its standard error fourth.")
def change_and_stderr_swapped(truth, before, after):
    _, _, change, stderr, _ = flips(truth, before, after)
    return _with(truth, before, after, change=stderr, stderr=change)


@mutant("change is a number of answers. Divide it by the number of examples.")
def change_as_a_count(truth, before, after):
    lost, gained, *_ = flips(truth, before, after)
    return _with(truth, before, after, change=gained - lost)


def _variances(truth: Any, before: Any, after: Any) -> tuple[float, float]:
    """p (1 - p) of the accuracies before and after."""
    n = len(truth)
    rates = (sum(one == right for one, right in zip(answers, truth, strict=True)) / n for answers in (before, after))
    first, second = (rate * (1 - rate) for rate in rates)
    return first, second


@mutant(
    "this is the standard error of two accuracies on different examples, √(p (1 - p) / n + q (1 - q) / n). Here both "
    "models answered the same ones: what neither or both can do is no noise."
)
def unpaired(truth, before, after):
    return _with(truth, before, after, stderr=math.sqrt(sum(_variances(truth, before, after)) / len(truth)))


@mutant(
    "the standard errors of the two accuracies (with n - 1) are put together as if their examples were different ones. "
    "They are the same: take the differences example by example first."
)
def unpaired_with_one_less(truth, before, after):
    return _with(truth, before, after, stderr=math.sqrt(sum(_variances(truth, before, after)) / (len(truth) - 1)))


@mutant("this is the standard error of the accuracy after, and not that of the change.")
def error_of_the_accuracy(truth, before, after):
    return _with(truth, before, after, stderr=math.sqrt(_variances(truth, before, after)[1] / (len(truth) - 1)))


@mutant("this is the standard error of the rate of flips. The change is a difference: a flip counts as 1 or as -1.")
def error_of_the_flip_rate(truth, before, after):
    lost, gained, *_ = flips(truth, before, after)
    n = len(truth)
    rate = (lost + gained) / n
    return _with(truth, before, after, stderr=math.sqrt(rate * (1 - rate) / (n - 1)))


@mutant("the variance is divided by n, as for a whole population. These are examples: divide by n - 1.")
def divided_by_n(truth, before, after):
    n = len(truth)
    stderr = flips(truth, before, after)[3] * math.sqrt((n - 1) / n)
    return _with(truth, before, after, stderr=stderr)


@mutant("the mean of the differences is not taken off: √(lost + gained) / n. That is the error if the change were 0.")
def mean_not_taken_off(truth, before, after):
    lost, gained, *_ = flips(truth, before, after)
    return _with(truth, before, after, stderr=math.sqrt(lost + gained) / len(truth))


@mutant("this is the standard deviation of the differences. Divide it by √n for that of their mean.")
def deviation_of_one(truth, before, after):
    stderr = flips(truth, before, after)[3] * math.sqrt(len(truth))
    return _with(truth, before, after, stderr=stderr)


@mutant("the standard deviation is divided by n. Divide it by √n.")
def deviation_over_n(truth, before, after):
    stderr = flips(truth, before, after)[3] / math.sqrt(len(truth))
    return _with(truth, before, after, stderr=stderr)


@mutant("this is the variance of the change. The standard error is its root.")
def root_forgotten(truth, before, after):
    return _with(truth, before, after, stderr=flips(truth, before, after)[3] ** 2)


@mutant("the standard error looks at the flipped examples alone. Those that stay are differences of 0, and count.")
def flipped_examples_alone(truth, before, after):
    lost, gained, *_ = flips(truth, before, after)
    differences = [1] * gained + [-1] * lost
    stderr = statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else 0.0
    return _with(truth, before, after, stderr=stderr)


@mutant("the standard error is multiplied by 1.96. Half the width of a 95 % interval is not asked for here.")
def half_of_an_interval(truth, before, after):
    return _with(truth, before, after, stderr=1.96 * flips(truth, before, after)[3])


@mutant("capital and small letters are taken for the same. An answer is right where every character is.")
def case_ignored(truth, before, after):
    return flips(*(tuple(one.lower() for one in answers) for answers in (truth, before, after)))


@mutant("spaces around an answer are taken off. An answer is right where every character is.")
def spaces_ignored(truth, before, after):
    return flips(*(tuple(one.strip() for one in answers) for answers in (truth, before, after)))


@mutant("case and spaces are both ignored. An answer is right where every character is.")
def spelling_ignored(truth, before, after):
    return flips(*(tuple(one.strip().lower() for one in answers) for answers in (truth, before, after)))


def _read(truth: Any, answers: Any, is_right: Callable[[str, str], bool]) -> tuple[str, ...]:
    """These answers, with the right one in place of each that `is_right(right, answer)` takes for it."""
    return tuple(right if is_right(right, one) else one for right, one in zip(truth, answers, strict=True))


@mutant(
    "an answer counts as right where the right one occurs anywhere in it, as with `in`. It has to be the whole text: "
    "compare with ==."
)
def right_one_occurs(truth, before, after):
    return flips(truth, *(_read(truth, answers, lambda right, one: right in one) for answers in (before, after)))


@mutant("an answer counts as right where it begins with the right one. It has to be the whole text: compare with ==.")
def begins_with_the_right_one(truth, before, after):
    read = (_read(truth, answers, lambda right, one: one.startswith(right)) for answers in (before, after))
    return flips(truth, *read)


@mutant("numbers are compared as numbers. 7.0 is another text than 7: an answer is right where every character is.")
def numbers_compared(truth, before, after):
    return flips(*(tuple(map(_number, answers)) for answers in (truth, before, after)))


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


@mutant("empty answers are left out. They are wrong answers: the user got nothing.")
def empty_answers_left_out(truth, before, after):
    rows = [row for row in zip(truth, before, after, strict=True) if all(row)]
    return flips(*zip(*rows, strict=True))


@mutant("change and stderr are rounded to two digits. Return them with all their digits.")
def two_digits(truth, before, after):
    _, _, change, stderr, _ = flips(truth, before, after)
    return _with(truth, before, after, change=round(change, 2), stderr=round(stderr, 2))


@mutant("change and stderr are rounded to four digits, as the card prints them. Return them with all their digits.")
def four_digits(truth, before, after):
    _, _, change, stderr, _ = flips(truth, before, after)
    return _with(truth, before, after, change=round(change, 4), stderr=round(stderr, 4))


def by_differences(truth, before, after):
    """Right, with the standard library's standard deviation of the differences."""
    old = [int(a == b) for a, b in zip(truth, before, strict=True)]
    new = [int(a == b) for a, b in zip(truth, after, strict=True)]
    differences = [b - a for a, b in zip(old, new, strict=True)]
    moved = sum(not a and not b and x != y for a, b, x, y in zip(old, new, before, after, strict=True))
    stderr = statistics.stdev(differences) / len(differences) ** 0.5
    return differences.count(-1), differences.count(1), statistics.mean(differences), stderr, moved


def with_torch(truth, before, after):
    """Right, with tensors in float32; the numbers are tensors, too."""
    import torch

    old = torch.tensor([a == b for a, b in zip(truth, before, strict=True)])
    new = torch.tensor([a == b for a, b in zip(truth, after, strict=True)])
    texts = torch.tensor([a != b for a, b in zip(before, after, strict=True)])
    difference = new.float() - old.float()
    stderr = difference.std() / len(truth) ** 0.5
    return [(old & ~new).sum(), (~old & new).sum(), difference.mean(), stderr, (~old & ~new & texts).sum()]


QUESTION = Question(
    id="choosing.flips",
    title="What changed under the same accuracy",
    reference=flips,
    cases=cases,
    properties=(every_kind_is_counted, change_is_after_minus_before, stderr_is_that_of_the_pairs),
    mutants=(
        lost_and_gained_swapped,
        everything_backwards,
        before_minus_after,
        all_wrong_are_lost,
        all_right_are_gained,
        all_that_differ_moved,
        all_wrong_in_both_moved,
        verdicts_alone,
        moved_is_lost,
        only_the_surplus,
        shares_for_counts,
        accuracy_after,
        divided_by_the_flips,
        in_points,
        change_as_a_count,
        change_and_stderr_swapped,
        unpaired,
        unpaired_with_one_less,
        error_of_the_accuracy,
        error_of_the_flip_rate,
        divided_by_n,
        mean_not_taken_off,
        deviation_of_one,
        deviation_over_n,
        root_forgotten,
        flipped_examples_alone,
        half_of_an_interval,
        case_ignored,
        spaces_ignored,
        spelling_ignored,
        right_one_occurs,
        begins_with_the_right_one,
        numbers_compared,
        empty_answers_left_out,
        two_digits,
        four_digits,
    ),
    alternatives=(by_differences, with_torch),
    hints=(
        "For each example there are two verdicts, right or wrong before and right or wrong after. Which of the four "
        "pairs is what you count? And which of them can hide a third thing?",
        "Give each example its difference: -1 where it was lost, 1 where it was gained, 0 otherwise. change is their "
        "mean. stderr is their standard deviation over √n; statistics.stdev divides by n - 1.",
        "differences = [(new == right) - (old == right) for right, old, new in zip(truth, before, after)]; moved "
        "counts old != right and new != right and old != new; stderr = statistics.stdev(differences) / "
        "math.sqrt(len(truth)).",
    ),
    explanation=(
        "An accuracy is a sum, and a sum forgets. nano at FP8 has 97.8 % on SQL, as in 16 bits: one answer was lost "
        "and one gained. At INT4 it has 98.0 %, and 6 texts of 500 differ: 2 lost, 3 gained, and one that was wrong "
        "is wrong in another way. Pairs see more, too. INT3 loses 7.8 points of trading signals, with a standard "
        "error of 1.4 points example by example; as two samples of strangers it would be 1.7. And no flip in 500 does "
        "not say that there are none: up to 0.7 % of the verdicts may flip (95 %, exact interval of a rate). The 0.8 "
        "points of lesson 11 are another interval, that of the change."
    ),
)
