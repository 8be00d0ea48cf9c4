"""gptq.damp: dead inputs and damping, which make a Hessian fit to be inverted (Frantar et al. 2023, Algorithm 1)."""

from __future__ import annotations

from typing import Any

import torch

from ...question import Case, Finding, Question, mutant
from .layer import CARD_HESSIAN, close, correlated, normal, second_moment, unit


def damp(h, damping):
    """Make the Hessian of a layer fit to be inverted.

    h: float64 (in, in), symmetric. An input that was 0 for every token is dead: its row
        and its column are exactly 0. All others are live.
    damping: a share, 0 or more; 0.01 is usual.

    Returns float64 (in, in), a new matrix: damping times the mean of the diagonal over the
    live inputs is added to the diagonal of every live input. Every dead input gets a 1 on
    the diagonal; with or without the damping on top of it is both right. All else stays.
    """
    h = h.clone()
    diagonal = h.diagonal()  # a view: what is written into it is written into h
    dead = diagonal == 0
    if not dead.all():
        diagonal += damping * diagonal[~dead].mean()
    diagonal[dead] = 1.0
    return h


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def with_dead(columns: int, *dead: int) -> torch.Tensor:
        h = correlated(random, columns)
        h[list(dead), :] = 0.0
        h[:, list(dead)] = 0.0
        return h

    few = normal(random, 4, 7)  # 4 tokens, 7 inputs: singular
    card = torch.zeros(3, 3, dtype=torch.float64)
    card[:2, :2] = unit(seed) * CARD_HESSIAN
    return [
        Case("the example of the card, in any unit", (card, 0.02)),
        Case("no input is dead", (correlated(random, 6), 0.01)),
        Case("one dead input", (with_dead(5, 2), 0.01)),
        Case("several dead inputs, the first and the last among them", (with_dead(8, 0, 3, 7), 0.01)),
        Case("much damping", (with_dead(6, 4), 0.1)),
        Case("no damping", (with_dead(6, 1), 0.0)),
        Case("fewer tokens than inputs", (second_moment(few), 0.01)),
        Case("tiny inputs, none of them dead", (correlated(random, 5) * 1e-14, 0.01)),
        Case("large inputs and a dead one", (with_dead(5, 3) * 1e4, 0.01)),
        Case("every input is dead", (torch.zeros(3, 3, dtype=torch.float64), 0.02)),
        Case("a single input", (correlated(random, 1), 0.05)),
    ]


def is_a_matrix(case: Case, got: Any, expected: Any) -> Finding | None:
    return close(got, "the matrix", expected, float("inf"))


def nothing_beside_the_diagonal_moves(case: Case, got: Any, expected: Any) -> Finding | None:
    return close(got - got.diag().diag(), "beside the diagonal", expected - expected.diag().diag(), 1e-12)


def the_diagonal_is_damped(case: Case, got: Any, expected: Any) -> Finding | None:
    h, damping = case.args
    dead = h.diag() == 0
    # The 1 of a dead input stands alone, so it does no harm if it was damped as well.
    both = 1 + _amount(h, damping)
    damped = dead & ((got.diag() - both).abs() <= 1e-9 * both)
    right = torch.where(damped, both, expected.diag())
    live = torch.where(dead, right, got.diag())  # first: a wrong amount shows in both, and the dead do no harm
    return close(live, "the diagonal", right, 1e-9, right) or close(got.diag(), "the diagonal", right, 1e-9, right)


def _amount(h: Any, damping: float) -> Any:
    live = int((h.diag() != 0).sum())
    return damping * h.diag().sum() / max(live, 1)


def _ones(h: Any) -> Any:
    """With a 1 on the diagonal of every dead input."""
    return h + (h.diag() == 0).to(h.dtype).diag()


def _plus(h: Any, amount: Any) -> Any:
    """With the amount on the diagonal of every live input."""
    return h + amount * (h.diag() != 0).to(h.dtype).diag()


def _everywhere(h: Any, amount: Any) -> Any:
    """With the amount on the whole diagonal."""
    return h + amount * torch.eye(len(h), dtype=h.dtype)


@mutant(
    "dead inputs get the damping and no 1. With damping 0.01 that is a hundredth of an ordinary entry, so the inverse "
    "has its largest numbers at inputs that never occurred; without damping there is no inverse."
)
def dead_without_a_one(h, damping):
    return _everywhere(h, _amount(h, damping))


@mutant(
    "dead inputs are treated like the others: they get the damping and no 1, and their zeros make the mean smaller. Do "
    "two things: a 1 for the dead, and for the live a share of the mean over the live."
)
def dead_like_the_others(h, damping):
    return _everywhere(h, damping * h.diag().mean())


@mutant(
    "dead inputs got their 1 before the mean was taken, and the ones are part of it. So does the paper's code. Where "
    "live entries are near 0.001 and one input in ten is dead, the mean becomes a hundred times as large. Take it over "
    "the live inputs."
)
def ones_before_the_mean(h, damping):
    return _ones(_plus(h, damping * _ones(h).diag().mean()))


@mutant(
    "dead inputs got their 1 first, and all that follows counts them as live. A damped 1 does no harm. The mean does: "
    "where live entries are near 0.001, the ones are all of it. Take it over the live inputs, before the ones."
)
def ones_before_the_mean_of_all(h, damping):
    return _everywhere(_ones(h), damping * _ones(h).diag().mean())


@mutant(
    "the mean is taken over the whole diagonal, and the zeros of dead inputs make it smaller. Take it over the live "
    "inputs."
)
def zeros_in_the_mean(h, damping):
    return _ones(_plus(h, damping * h.diag().mean()))


@mutant(
    "the mean is taken over the whole diagonal while dead inputs still have their zeros, which make it smaller. Take "
    "it over the live inputs. The 1 may be damped as well, as you have it."
)
def zeros_in_the_mean_of_all(h, damping):
    return _everywhere(_ones(h), damping * h.diag().mean())


@mutant(
    "the damping is added to every entry of the matrix. It belongs on the diagonal: a constant everywhere would claim "
    "that all inputs move together."
)
def added_everywhere(h, damping):
    return _ones(h) + _amount(h, damping)


@mutant(
    "the damping is added as it is. Inputs of one layer are 100 times those of another: it must be a share of the mean "
    "of the diagonal."
)
def absolute_damping(h, damping):
    return _ones(_plus(h, damping))


@mutant(
    "the damping is added to the whole diagonal as it is, h + damping * I. Where inputs are large that is nothing, and "
    "where they are small it is all there is: multiply it by the mean of the live diagonal."
)
def absolute_damping_everywhere(h, damping):
    return _everywhere(_ones(h), damping)


@mutant(
    "the mean is taken over the whole matrix. Take the mean of its diagonal: the entries beside it may be negative."
)
def mean_of_the_matrix(h, damping):
    return _ones(_plus(h, damping * h.mean()))


@mutant("the largest entry of the diagonal is taken instead of the mean. One outlier then drowns all other inputs.")
def largest_instead_of_the_mean(h, damping):
    return _ones(_plus(h, damping * h.diag().max()))


@mutant("the sum of the diagonal is taken instead of its mean: with 4,096 inputs that is 4,096 times too much.")
def sum_instead_of_the_mean(h, damping):
    return _ones(_plus(h, damping * h.diag().sum()))


@mutant(
    "every diagonal entry grows by its own share, h_ii * (1 + damping). Small inputs then get almost nothing, and they "
    "are the ones that need it. Add the same number to all."
)
def each_by_its_own_share(h, damping):
    return _ones(h + damping * h.diag().diag())


@mutant(
    "inputs below a small number count as dead. Among tiny inputs that is every one, and their entries become 1. "
    "Dead means exactly 0."
)
def small_counts_as_dead(h, damping):
    small = h.diag() < 1e-8
    live = h.diag()[~small].sum() / max(int((~small).sum()), 1)
    damped = _plus(h, damping * live)
    damped.diagonal()[small] = 1.0
    return damped


@mutant("a dead input gets a whole row of ones, as by h[dead] = 1. Only its entry on the diagonal becomes 1.")
def rows_of_ones(h, damping):
    damped, dead = _plus(h, _amount(h, damping)), h.diag() == 0
    damped[dead] = 1.0
    return damped


@mutant(
    "a dead input gets ones in its row and in its column, beside the diagonal as well. An input that never occurred "
    "goes along with no other."
)
def rows_and_columns_of_ones(h, damping):
    damped, dead = _plus(h, _amount(h, damping)), h.diag() == 0
    damped[dead] = 1.0
    damped[:, dead] = 1.0
    return damped


@mutant("the diagonal is replaced by the damping. Add to it.")
def diagonal_replaced(h, damping):
    damped = _ones(h)
    damped.diagonal()[h.diag() != 0] = _amount(h, damping)
    return damped


@mutant(
    "the matrix is mixed with the identity, (1 - damping) * h + damping * mean * I. That shrinks what stands beside "
    "the diagonal. Only add."
)
def mixed_with_the_identity(h, damping):
    damped = _plus((1 - damping) * h, _amount(h, damping))
    damped.diagonal()[h.diag() == 0] = 1.0
    return damped


@mutant("dead inputs are taken out of the matrix. The weights still have columns for them: the size must stay.")
def dead_taken_out(h, damping):
    live = h.diag() != 0
    return _plus(h, _amount(h, damping))[live][:, live]


@mutant("the damping is divided by 100, as if it were given in per cent. It is a share: 0.01 is one per cent.")
def in_per_cent(h, damping):
    return _ones(_plus(h, _amount(h, damping / 100)))


@mutant("no damping is added, only dead inputs are mended. With fewer tokens than inputs there is no inverse then.")
def dead_inputs_only(h, damping):
    return _ones(h)


@mutant(
    "the values are right, but they are written into the argument. Whoever damps again, with more, then damps twice. "
    "Work on a copy: h.clone()."
)
def written_into_the_argument(h, damping):
    h.copy_(damp(h, damping))
    return h


@mutant(
    "where every input is dead, the mean is taken over no numbers, which is NaN, and NaN is all that is left. Then "
    "there is nothing to damp."
)
def mean_of_no_numbers(h, damping):
    return _ones(_plus(h, damping * h.diag()[h.diag() != 0].mean()))


def with_the_identity(h, damping):
    """Right, in one expression for each of the two steps; the 1 of a dead input is damped as well."""
    identity = torch.eye(h.shape[0], dtype=h.dtype)
    live = int((h.diagonal() != 0).sum())
    mended = torch.where((identity == 1) & (h == 0), 1.0, h)
    return mended + damping * h.trace() / max(live, 1) * identity


def with_loops_in_numpy(h, damping):
    """Right, entry by entry."""
    array = h.numpy().copy()
    live = [i for i in range(len(array)) if array[i, i] != 0]
    amount = damping * sum(array[i, i] for i in live) / (len(live) or 1)
    for i in range(len(array)):
        array[i, i] = array[i, i] + amount if i in live else 1
    return array


QUESTION = Question(
    id="gptq.damp",
    title="Dead inputs and damping",
    reference=damp,
    cases=cases,
    properties=(is_a_matrix, nothing_beside_the_diagonal_moves, the_diagonal_is_damped),
    mutants=(
        dead_without_a_one,
        dead_like_the_others,
        ones_before_the_mean,
        ones_before_the_mean_of_all,
        zeros_in_the_mean,
        zeros_in_the_mean_of_all,
        added_everywhere,
        absolute_damping,
        absolute_damping_everywhere,
        mean_of_the_matrix,
        largest_instead_of_the_mean,
        sum_instead_of_the_mean,
        each_by_its_own_share,
        small_counts_as_dead,
        rows_of_ones,
        rows_and_columns_of_ones,
        diagonal_replaced,
        mixed_with_the_identity,
        dead_taken_out,
        in_per_cent,
        dead_inputs_only,
        mean_of_no_numbers,
        written_into_the_argument,
    ),
    alternatives=(with_the_identity, with_loops_in_numpy),
    hints=(
        "How do you know from the matrix alone that an input was always 0? And what does a number that is added to "
        "the whole diagonal do to a matrix that has no inverse?",
        "An input is dead where the diagonal is 0. In a copy of h, take the mean of the other diagonal entries and add "
        "damping times that mean to each of them. The entries of dead inputs become 1. What if all are dead?",
        "h = h.clone(); d = h.diagonal() is a view into h; dead = d == 0. Unless all are dead: "
        "d += damping * d[~dead].mean(). Then d[dead] = 1.0, and return h.",
    ),
    explanation=(
        "Adding a number to the diagonal adds it to every eigenvalue, so the smallest one is at least that number and "
        "the inverse exists. It also says: do not trust directions that the calibration hardly showed. With more "
        "damping the matrix looks more like a multiple of the identity, feedback fades, and GPTQ becomes rounding to "
        "nearest. A dead input stands by itself: its weights may get any code, and libraries set them to 0. The "
        "paper's code writes the ones first and takes the mean of everything. Take live entries of 0.001 and one dead "
        "input in ten: that mean is 0.1 and not 0.001, so a damping of 0.01 doubles every live entry. Look at the "
        "diagonal before you blame the method."
    ),
)
