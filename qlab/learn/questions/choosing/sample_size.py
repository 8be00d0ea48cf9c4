"""choosing.sample_size: how many requests a comparison needs to see a fall of the accuracy, with pairs and without."""

from __future__ import annotations

import math
from random import Random
from statistics import NormalDist
from typing import Any

from ....deploy.quality import power as power_of
from ....deploy.quality.measured import REFERENCE, quality
from ... import properties as p
from ...question import Case, Finding, Question, mutant


def sample_size(accuracy, drop, flipped, power, alpha):
    """Find how many requests it takes to see that an accuracy has fallen.

    accuracy: of the model in 16 bits, as a part of one.
    drop: by how much it is feared to fall, as a part of one: 0.01 is from 0.96 to 0.95.
    flipped: None where every request goes to one model only, as in an A/B test. Otherwise
        both models answer the same requests, and this is the part of them that turns from
        right to wrong or from wrong to right; it is not below drop.
    power: the chance to see the fall if it is there.
    alpha: the chance to see one, up or down, if there is none: the test is two-sided.

    Returns the requests of each model, or with pairs their number: the next whole one up.
    """
    z_alpha, z_power = NormalDist().inv_cdf(1 - alpha / 2), NormalDist().inv_cdf(power)
    if flipped is None:
        p, q = accuracy, accuracy - drop
        mean = (p + q) / 2
        null, real = 2 * mean * (1 - mean), p * (1 - p) + q * (1 - q)
    else:
        null, real = flipped, flipped - drop**2
    return math.ceil(((z_alpha * math.sqrt(null) + z_power * math.sqrt(real)) / drop) ** 2)


def cases(seed: int) -> list[Case]:
    random = Random(seed)
    return [
        Case("the example of the card, an A/B test", (0.96, 0.01, None, 0.8, 0.05)),
        Case("the example of the card, pairs", (0.96, 0.01, 0.036, 0.8, 0.05)),
        Case("nano's SQL from 16 bits to INT3, an A/B test", _nano("INT3 g128", "sql", False)),
        Case("nano's SQL from 16 bits to INT3, pairs", _nano("INT3 g128", "sql", True)),
        Case("nano's arithmetic at INT3: every flip is a loss", _nano("INT3 g128", "arithmetic", True)),
        Case("nano's trading signals at INT3, pairs", _nano("INT3 g128", "trading", True)),
        Case("an accuracy near one half", _drawn(random, (0.45, 0.6), (0.01, 0.03), None, 0.8, 0.05)),
        Case("a fall of half a point", _drawn(random, (0.9, 0.97), (0.003, 0.006), None, 0.8, 0.05)),
        Case("a fall from a high accuracy", _drawn(random, (0.97, 0.99), (0.08, 0.2), None, 0.8, 0.05)),
        Case("power 90 % at 1 %, an A/B test", _drawn(random, (0.7, 0.95), (0.01, 0.05), None, 0.9, 0.01)),
        Case("power 90 % at 1 %, pairs", _drawn(random, (0.7, 0.95), (0.01, 0.03), (2, 5), 0.9, 0.01)),
        Case("power 60 % at 10 %, an A/B test", _drawn(random, (0.7, 0.95), (0.01, 0.02), None, 0.6, 0.1)),
        Case("many flips for a small fall", _drawn(random, (0.6, 0.9), (0.004, 0.008), (10, 25), 0.8, 0.05)),
        Case("hardly more flips than the fall", _drawn(random, (0.6, 0.9), (0.1, 0.3), (1.01, 1.1), 0.8, 0.05)),
        Case("a tenth of a point, in pairs", _drawn(random, (0.9, 0.97), (0.0007, 0.0012), (15, 25), 0.8, 0.05)),
    ]


def _nano(method: str, workload: str, pairs: bool) -> tuple[Any, ...]:
    """From recorded answers to the question: had it been known, how many would have been enough?"""
    before, after = (quality().method(name).answers[workload].correct for name in (REFERENCE, method))
    seen = power_of.flips(before, after)
    return sum(before) / seen.examples, -seen.change, seen.rate if pairs else None, 0.8, 0.05


def _drawn(
    random: Random,
    accuracies: tuple[float, float],
    drops: tuple[float, float],
    flips: tuple[float, float] | None,
    power: float,
    alpha: float,
) -> tuple[Any, ...]:
    """Numbers in these ranges; flips are in multiples of the drop. The answer is far from being one more or less."""
    while True:
        accuracy, drop = round(random.uniform(*accuracies), 3), float(f"{random.uniform(*drops):.3g}")
        flipped = None if flips is None else float(f"{drop * random.uniform(*flips):.4g}")
        if 0.1 < _size(accuracy, drop, flipped, power, alpha, rounded=float) % 1 < 0.9:
            return accuracy, drop, flipped, power, alpha


def every_request_is_counted(case: Case, got: Any, expected: Any) -> Finding | None:
    paired = case.args[2] is not None
    return p.whole_number_is(got, "the number of " + ("pairs" if paired else "requests"), expected)


def _size(accuracy, drop, flipped, power, alpha, *, z=None, null=None, real=None, rounded=math.ceil):
    """The right answer, but for the parts that are given: the quantiles, and what stands under the two roots."""
    z_alpha, z_power = z or (NormalDist().inv_cdf(1 - alpha / 2), NormalDist().inv_cdf(power))
    parts = _variances(accuracy, drop, flipped)
    null, real = (right if one is None else one for one, right in zip((null, real), parts, strict=True))
    return rounded(((z_alpha * math.sqrt(null) + z_power * math.sqrt(real)) / drop) ** 2)


def _variances(accuracy: float, drop: float, flipped: float | None) -> tuple[float, float]:
    """Of a difference, times n: if nothing fell, and if the accuracy fell by drop."""
    if flipped is not None:
        return flipped, flipped - drop**2
    p, q = accuracy, accuracy - drop
    mean = (p + q) / 2
    return 2 * mean * (1 - mean), p * (1 - p) + q * (1 - q)


def _quantiles(power: float, alpha: float) -> tuple[float, float]:
    return NormalDist().inv_cdf(1 - alpha / 2), NormalDist().inv_cdf(power)


@mutant("the test is one-sided here: 1 - alpha. Two-sided, alpha is shared by both ends: 1 - alpha / 2.")
def one_sided(accuracy, drop, flipped, power, alpha):
    z = NormalDist().inv_cdf(1 - alpha), NormalDist().inv_cdf(power)
    return _size(accuracy, drop, flipped, power, alpha, z=z)


@mutant("power is halved like alpha. A fall is seen at one end only: the quantile is that of power itself.")
def power_at_both_ends(accuracy, drop, flipped, power, alpha):
    z = NormalDist().inv_cdf(1 - alpha / 2), NormalDist().inv_cdf(1 - (1 - power) / 2)
    return _size(accuracy, drop, flipped, power, alpha, z=z)


@mutant(
    "the sum became a difference: the quantile of 1 - power is negative, and so is that of alpha / 2. Take those of "
    "power and of 1 - alpha / 2."
)
def negative_quantile(accuracy, drop, flipped, power, alpha):
    z = NormalDist().inv_cdf(1 - alpha / 2), NormalDist().inv_cdf(1 - power)
    return _size(accuracy, drop, flipped, power, alpha, z=z)


@mutant(
    "power does not occur. A sample that is just large enough for the fall to be significant misses it half of the "
    "time: the second term is missing."
)
def power_forgotten(accuracy, drop, flipped, power, alpha):
    return _size(accuracy, drop, flipped, power, alpha, real=0.0)


@mutant("power and alpha are always 80 % and 5 % here. Compute the quantiles from the arguments.")
def always_the_usual(accuracy, drop, flipped, power, alpha):
    return _size(accuracy, drop, flipped, power, alpha, z=_quantiles(0.8, 0.05))


@mutant("power is always 80 % here. It is an argument.")
def always_the_usual_power(accuracy, drop, flipped, power, alpha):
    return _size(accuracy, drop, flipped, power, alpha, z=_quantiles(0.8, alpha))


@mutant("alpha is always 5 % here. It is an argument.")
def always_the_usual_alpha(accuracy, drop, flipped, power, alpha):
    return _size(accuracy, drop, flipped, power, alpha, z=_quantiles(power, 0.05))


@mutant(
    "the quantiles are rounded to two digits, 1.96 and 0.84. With thousands of requests that is some too few: "
    "NormalDist().inv_cdf has all digits."
)
def quantiles_of_two_digits(accuracy, drop, flipped, power, alpha):
    z = [round(one, 2) for one in _quantiles(power, alpha)]
    return _size(accuracy, drop, flipped, power, alpha, z=z)


@mutant("the quantiles are rounded to a few digits. NormalDist().inv_cdf has all of them.")
def quantiles_of_four_digits(accuracy, drop, flipped, power, alpha):
    z = [round(one, 4) for one in _quantiles(power, alpha)]
    return _size(accuracy, drop, flipped, power, alpha, z=z)


@mutant("the number is rounded down. So many are not quite enough: take the next whole number up.")
def rounded_down(accuracy, drop, flipped, power, alpha):
    return _size(accuracy, drop, flipped, power, alpha, rounded=math.floor)


@mutant("the number is rounded to the nearest. Where that is down, they are not quite enough: use math.ceil.")
def rounded_to_nearest(accuracy, drop, flipped, power, alpha):
    return _size(accuracy, drop, flipped, power, alpha, rounded=round)


@mutant("one is always added to the number rounded down, or up. math.ceil alone is the next whole number.")
def one_too_many(accuracy, drop, flipped, power, alpha):
    return sample_size(accuracy, drop, flipped, power, alpha) + 1


@mutant("the number is not rounded. Requests come whole: use math.ceil.")
def not_rounded(accuracy, drop, flipped, power, alpha):
    return _size(accuracy, drop, flipped, power, alpha, rounded=float)


@mutant("the requests of both models are added. Asked for are those of each.")
def both_models_together(accuracy, drop, flipped, power, alpha):
    size = sample_size(accuracy, drop, flipped, power, alpha)
    return 2 * size if flipped is None else size


@mutant("the pairs are doubled. A pair is one request, answered by both models: count it once.")
def pairs_counted_twice(accuracy, drop, flipped, power, alpha):
    size = sample_size(accuracy, drop, flipped, power, alpha)
    return size if flipped is None else 2 * size


@mutant(
    "only one of the two accuracies has an error: p (1 - p) + q (1 - q) and 2 p̄ (1 - p̄) are sums of two variances. "
    "Half of them is right if the other accuracy is known exactly."
)
def one_sample(accuracy, drop, flipped, power, alpha):
    if flipped is not None:
        return sample_size(accuracy, drop, flipped, power, alpha)
    p, q = accuracy, accuracy - drop
    return _size(accuracy, drop, flipped, power, alpha, null=p * (1 - p), real=q * (1 - q))


@mutant("without pairs, both roots hold 2 p̄ (1 - p̄). If the fall is there, the variances are p (1 - p) + q (1 - q).")
def mean_in_both_roots(accuracy, drop, flipped, power, alpha):
    mean = accuracy - drop / 2
    null = 2 * mean * (1 - mean)
    return _size(accuracy, drop, flipped, power, alpha, real=null if flipped is None else None)


@mutant(
    "without pairs, both roots hold p (1 - p) + q (1 - q). If nothing fell, both rates are their mean: 2 p̄ (1 - p̄)."
)
def rates_in_both_roots(accuracy, drop, flipped, power, alpha):
    p, q = accuracy, accuracy - drop
    null = p * (1 - p) + q * (1 - q)
    return _size(accuracy, drop, flipped, power, alpha, null=null if flipped is None else None)


@mutant(
    "there is one variance for both roots, as in the short formula of textbooks, (z + z)² V / d². If nothing fell V is "
    "2 p̄ (1 - p̄) or flipped; only the second root has p (1 - p) + q (1 - q) or flipped - drop²."
)
def textbook(accuracy, drop, flipped, power, alpha):
    null, real = _variances(accuracy, drop, flipped)
    one = real if flipped is None else null
    return _size(accuracy, drop, flipped, power, alpha, null=one, real=one)


@mutant("both roots hold the variance if the accuracy fell. The first one has that of a world in which nothing fell.")
def real_in_both_roots(accuracy, drop, flipped, power, alpha):
    return _size(accuracy, drop, flipped, power, alpha, null=_variances(accuracy, drop, flipped)[1])


@mutant("both roots hold the variance if nothing fell. The second one has that of a world in which it fell by drop.")
def null_in_both_roots(accuracy, drop, flipped, power, alpha):
    return _size(accuracy, drop, flipped, power, alpha, real=_variances(accuracy, drop, flipped)[0])


@mutant("drop is squared and the sum is not. Divide first, then square: both are squared.")
def sum_not_squared(accuracy, drop, flipped, power, alpha):
    return _size(accuracy, drop, flipped, power, alpha, rounded=lambda n: math.ceil(math.sqrt(n) / drop))


@mutant("the quantiles are typed in, 1.96 and 0.8416. power and alpha are arguments, and four digits are too few.")
def quantiles_typed_in(accuracy, drop, flipped, power, alpha):
    return _size(accuracy, drop, flipped, power, alpha, z=(1.96, 0.8416))


@mutant("the first root holds p̄ (1 - p̄), the variance of one model. Two are compared, and both count: 2 p̄ (1 - p̄).")
def two_forgotten(accuracy, drop, flipped, power, alpha):
    mean = accuracy - drop / 2
    return _size(accuracy, drop, flipped, power, alpha, null=mean * (1 - mean) if flipped is None else None)


@mutant("the first root holds 2 p (1 - p), with the accuracy before. Take the mean of both: 2 p̄ (1 - p̄).")
def accuracy_for_the_mean(accuracy, drop, flipped, power, alpha):
    null = 2 * accuracy * (1 - accuracy)
    return _size(accuracy, drop, flipped, power, alpha, null=null if flipped is None else None)


@mutant("the two roots change places: alpha belongs to the variance if nothing fell, power to the one if it did.")
def roots_swapped(accuracy, drop, flipped, power, alpha):
    null, real = _variances(accuracy, drop, flipped)
    return _size(accuracy, drop, flipped, power, alpha, null=real, real=null)


@mutant("drop is taken as a share of the accuracy. It is subtracted: from 0.96 to 0.95, and not to 0.96 · 0.99.")
def relative_drop(accuracy, drop, flipped, power, alpha):
    return sample_size(accuracy, accuracy * drop, flipped, power, alpha)


@mutant("the accuracy rises by drop here. It is feared to fall.")
def rises(accuracy, drop, flipped, power, alpha):
    q = min(1.0, accuracy + drop)
    mean = (accuracy + q) / 2
    if flipped is not None:
        return sample_size(accuracy, drop, flipped, power, alpha)
    parts = {"null": 2 * mean * (1 - mean), "real": accuracy * (1 - accuracy) + q * (1 - q)}
    return _size(accuracy, drop, flipped, power, alpha, **parts)


@mutant("flipped is not used. Where both models answer the same requests only the flips are noise.")
def never_paired(accuracy, drop, flipped, power, alpha):
    return sample_size(accuracy, drop, None, power, alpha)


@mutant("with pairs, both roots hold flipped. If the fall is there, drop² is taken off in the second.")
def flipped_in_both_roots(accuracy, drop, flipped, power, alpha):
    return _size(accuracy, drop, flipped, power, alpha, real=flipped)


@mutant("with pairs, drop is taken off where drop² should be: the variance is flipped - drop².")
def drop_not_squared(accuracy, drop, flipped, power, alpha):
    return _size(accuracy, drop, flipped, power, alpha, real=None if flipped is None else flipped - drop)


@mutant("with pairs, drop² is taken off in both roots. If nothing fell, the variance is flipped itself.")
def drop_taken_off_twice(accuracy, drop, flipped, power, alpha):
    return _size(accuracy, drop, flipped, power, alpha, null=None if flipped is None else flipped - drop**2)


@mutant("with pairs, flipped is treated as an accuracy: flipped (1 - flipped). A flip is 1 or -1, not 1 or 0.")
def variance_of_the_flip_rate(accuracy, drop, flipped, power, alpha):
    if flipped is None:
        return sample_size(accuracy, drop, flipped, power, alpha)
    return _size(accuracy, drop, flipped, power, alpha, null=flipped * (1 - flipped), real=flipped * (1 - flipped))


@mutant("these are the flips that it takes. Asked for are the pairs, of which the part flipped flips.")
def flips_for_pairs(accuracy, drop, flipped, power, alpha):
    return _size(accuracy, drop, flipped, power, alpha, rounded=lambda n: math.ceil(n * (flipped or 1)))


@mutant("the roots are missing: standard deviations are added, and not variances.")
def no_roots(accuracy, drop, flipped, power, alpha):
    z = _quantiles(power, alpha)
    null, real = _variances(accuracy, drop, flipped)
    return math.ceil(((z[0] * null + z[1] * real) / drop) ** 2)


@mutant("the sum is divided by drop and not squared. n grows with 1 / drop²: half the fall takes four times as many.")
def square_forgotten(accuracy, drop, flipped, power, alpha):
    return _size(accuracy, drop, flipped, power, alpha, rounded=lambda n: math.ceil(math.sqrt(n)))


@mutant("the sum is squared and divided by drop. drop is squared as well.")
def drop_outside_of_the_square(accuracy, drop, flipped, power, alpha):
    return _size(accuracy, drop, flipped, power, alpha, rounded=lambda n: math.ceil(n * drop))


def by_variances(accuracy, drop, flipped, power, alpha):
    """Right, with the lower quantiles' signs turned, and a list of the two variances."""
    normal = NormalDist()
    z = [-normal.inv_cdf(alpha / 2), -normal.inv_cdf(1 - power)]
    q = accuracy - drop
    if flipped is None:
        total = accuracy + q
        variances = [total * (2 - total) / 2, accuracy - accuracy**2 + q - q**2]
    else:
        variances = [flipped, flipped - drop * drop]
    n = sum(one * variance**0.5 for one, variance in zip(z, variances, strict=True)) ** 2 / drop**2
    return -int(-n // 1)


def by_search(accuracy, drop, flipped, power, alpha):
    """Right, as the fewest for which the fall lies as many standard errors above the threshold as power asks for."""
    normal = NormalDist()
    lost, gained = accuracy - drop, accuracy
    mean = (lost + gained) / 2
    null = 2 * mean * (1 - mean) if flipped is None else flipped
    real = lost * (1 - lost) + gained * (1 - gained) if flipped is None else flipped - drop**2

    def seen(n):
        threshold = normal.inv_cdf(1 - alpha / 2) * math.sqrt(null / n)
        return normal.cdf((drop - threshold) / math.sqrt(real / n)) >= power

    low, high = 0, 1
    while not seen(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if seen(middle) else (middle, high)
    return high


QUESTION = Question(
    id="choosing.sample_size",
    title="How many requests it takes",
    reference=sample_size,
    cases=cases,
    properties=(every_request_is_counted,),
    mutants=(
        one_sided,
        power_at_both_ends,
        negative_quantile,
        power_forgotten,
        always_the_usual,
        always_the_usual_power,
        always_the_usual_alpha,
        quantiles_of_two_digits,
        quantiles_of_four_digits,
        quantiles_typed_in,
        rounded_down,
        rounded_to_nearest,
        one_too_many,
        not_rounded,
        both_models_together,
        pairs_counted_twice,
        one_sample,
        mean_in_both_roots,
        rates_in_both_roots,
        textbook,
        real_in_both_roots,
        null_in_both_roots,
        two_forgotten,
        accuracy_for_the_mean,
        roots_swapped,
        relative_drop,
        rises,
        never_paired,
        flipped_in_both_roots,
        drop_not_squared,
        drop_taken_off_twice,
        variance_of_the_flip_rate,
        flips_for_pairs,
        no_roots,
        square_forgotten,
        sum_not_squared,
        drop_outside_of_the_square,
    ),
    alternatives=(by_variances, by_search),
    hints=(
        "Two quantiles of the normal distribution, two variances and the drop: which quantile belongs to a world in "
        "which nothing fell, and which to one in which it did?",
        "NormalDist().inv_cdf(1 - alpha / 2) goes with the variance if nothing fell, NormalDist().inv_cdf(power) with "
        "the one if accuracy fell by drop. Without pairs these are 2 p̄ (1 - p̄) and p (1 - p) + q (1 - q); with pairs "
        "flipped and flipped - drop².",
        "null, real = (2 * mean * (1 - mean), p * (1 - p) + q * (1 - q)) if flipped is None else (flipped, flipped - "
        "drop**2); math.ceil(((z_alpha * math.sqrt(null) + z_power * math.sqrt(real)) / drop) ** 2).",
    ),
    explanation=(
        "From 96 % to 95 % takes 6,745 requests of each model without pairs, and 2,824 pairs where 3.6 % flip. Half "
        "the fall takes about four times as many. Pairs help as long as most of what is right or wrong stays so. "
        "Where every flip is a loss they do not: nano's arithmetic at INT3 falls from 100 % to 98 %, which takes 388 "
        "requests of each or 391 pairs. The flips have to be known in advance, from a first run of some hundred "
        "examples. With few flips, say 30, the exact test has about 76 % where this formula says 80."
    ),
)
