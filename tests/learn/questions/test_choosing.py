"""Set 11 against what it is about: qlab.deploy.quality, evaluate, sensitivity, and the numbers in its own text."""

from __future__ import annotations

import inspect
import itertools
import json
import math
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from statistics import NormalDist, stdev
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from qlab.deploy.cost import pareto as pareto_of_deploy
from qlab.deploy.quality.measured import REFERENCE, Answers, Method, Quality, quality
from qlab.deploy.quality.monitoring import cusum
from qlab.deploy.quality.power import Flips, _bisect, ab_size, binomial_cdf, clopper_pearson, hours, pairs_size
from qlab.deploy.quality.power import flips as flips_of_deploy
from qlab.deploy.quality.routing import Tier, by_confidence, most_escalated
from qlab.deploy.quality.routing import route as replay
from qlab.learn.judge import examine
from qlab.learn.questions import all_ids, question
from qlab.models.evaluate import Estimate
from qlab.models.sensitivity import LayerDamage, Sensitivity

MASTER = Path(__file__).parents[3] / "solutions" / "11_choosing_a_method.ipynb"
IDS = [one for one in all_ids() if one.startswith("choosing.")]

flips, mean_kl, sample_size, pareto, keep_layers, route, canary = (question(name).reference for name in IDS)


def cell(cell_id: str) -> str:
    [found] = [each for each in json.loads(MASTER.read_text(encoding="utf-8"))["cells"] if each["id"] == cell_id]
    return "".join(found["source"])


def explanation(name: str) -> str:
    return question(f"choosing.{name}").explanation


def correct(method: str, workload: str) -> tuple[bool, ...]:
    return quality().method(method).answers[workload].correct


# --- the references against the library -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_flips_are_those_of_deploy_and_their_error_that_of_evaluate(seed: int) -> None:
    for case in question("choosing.flips").cases(seed):
        truth, before, after = case.args
        verdicts = [[a == b for a, b in zip(truth, answers, strict=True)] for answers in (before, after)]
        theirs = flips_of_deploy(*verdicts)
        lost, gained, change, stderr, moved = flips(*case.args)
        assert (lost, gained, change) == (theirs.lost, theirs.gained, theirs.change)
        paired = Estimate.of(torch.tensor(verdicts[1]).double() - torch.tensor(verdicts[0]).double())
        assert stderr == pytest.approx(paired.stderr, abs=1e-12), case.name
        assert lost + gained + moved == sum(
            old != new
            for right, old, new in zip(truth, before, after, strict=True)
            if right in (old, new) or old != new
        )


def test_nanos_texts_have_the_flips_that_are_recorded() -> None:
    from random import Random

    from qlab.learn.questions.choosing.shared import nano_texts

    lost, gained, change, _, moved = flips(*nano_texts(Random(0), "INT4 g128", "sql", 500))
    answers = quality().method("INT4 g128").answers["sql"]
    theirs = flips_of_deploy(correct(REFERENCE, "sql"), answers.correct)
    assert (lost, gained, change) == (theirs.lost, theirs.gained, theirs.change)
    assert lost + gained + moved == answers.same.count(False)


@pytest.mark.parametrize("seed", range(3))
def test_kl_is_that_of_torch_and_of_exact_sums(seed: int) -> None:
    for case in question("choosing.mean_kl").cases(seed):
        reference, quantized, mask = case.args
        a, b = (one[mask].double() for one in (reference, quantized))
        ours = mean_kl(*case.args)
        if bool(a.isfinite().all() and b.isfinite().all()):
            theirs = F.kl_div(b.log_softmax(-1), a.log_softmax(-1), reduction="batchmean", log_target=True)
            assert ours == pytest.approx(float(theirs), rel=1e-9), case.name
        tokens = []
        for x, y in zip(a.tolist(), b.tolist(), strict=True):
            log_p, log_q = ([one - _log_sum(row) for one in row] for row in (x, y))
            tokens.append(math.fsum(math.exp(p) * (p - q) for p, q in zip(log_p, log_q, strict=True) if math.exp(p)))
        assert ours == pytest.approx(math.fsum(tokens) / len(tokens), rel=1e-9), case.name


def _log_sum(row: list[float]) -> float:
    largest = max(row)
    return largest + math.log(math.fsum(math.exp(one - largest) for one in row))


@pytest.mark.parametrize("seed", range(10))
def test_sizes_are_those_of_deploy(seed: int) -> None:
    for case in question("choosing.sample_size").cases(seed):
        accuracy, drop, flipped, power, alpha = case.args
        if flipped is not None:
            theirs = pairs_size((flipped + drop) / 2, max(0.0, (flipped - drop) / 2), power, alpha)
        elif accuracy < 1:
            theirs = ab_size(accuracy, accuracy - drop, power, alpha)
        else:
            continue
        assert sample_size(*case.args) == theirs, case.name


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_that_of_deploy(seed: int) -> None:
    for case in question("choosing.pareto").cases(seed):
        assert pareto(*case.args) == pareto_of_deploy(*case.args), case.name


@pytest.mark.parametrize("seed", range(20))
def test_the_layers_are_those_of_sensitivity(seed: int) -> None:
    """The library's scan knows no KL at many bits: 0. Its budget is an average; bytes are weights at 4 and 8 bits."""
    rng = np.random.default_rng(seed)
    weights, damage = rng.integers(100, 9000, 9) * 2, rng.uniform(0.001, 0.1, 9)
    scan = Sensitivity(
        tuple(LayerDamage(str(i), int(n), kl, 4) for i, (n, kl) in enumerate(zip(weights, damage, strict=True)))
    )
    average = float(rng.uniform(4.2, 7.5))
    layers = tuple((int(n) // 2, int(n), float(kl), 0.0) for n, kl in zip(weights, damage, strict=True))
    kept, total = keep_layers(layers, average / 8 * float(weights.sum()))
    assert sorted(kept) == sorted(int(name) for name, bits in scan.spend(average).items() if bits == 8)
    assert total <= average / 8 * weights.sum()


@pytest.mark.parametrize("seed", range(3))
def test_routing_is_the_best_of_what_deploy_replays(seed: int) -> None:
    for case in question("choosing.route").cases(seed):
        doubts, small, large, small_price, large_price, floor = case.args
        known = _recorded(doubts, small, large)
        tiers = Tier("small", small_price), Tier("large", large_price)
        plan, asked, accuracy, dollars = route(*case.args)
        assert accuracy >= floor and (plan != "cascade" or asked / len(doubts) < most_escalated(*tiers))
        outcomes = [replay(lambda request: "large", tiers, measured=known)]
        for limit in sorted(set(doubts.tolist())):
            policy = by_confidence(math.exp(-limit) * (1 - 1e-12), "small", "large")
            outcomes.append(replay(policy, tiers, first="small", measured=known))
        enough = [one for one in outcomes if one.accuracy >= floor]
        best = min(enough, key=lambda one: round(one.dollars / large_price, 9))
        assert best.accuracy == pytest.approx(accuracy) and best.dollars == pytest.approx(dollars), case.name
        assert best.asked["large"] == pytest.approx(asked / len(doubts))
        assert plan == ("large" if best.first is None else "cascade" if best.escalated > 1e-9 else "small"), case.name


def _recorded(doubts: torch.Tensor, small: torch.Tensor, large: torch.Tensor) -> Quality:
    """These answers as a quality file holds them."""
    confidence = tuple(math.exp(-doubt) for doubt in doubts.tolist())
    methods = {}
    for name, right in (("small", small), ("large", large)):
        answers = {"all": Answers(tuple(right.tolist()), (True,) * len(right), confidence)}
        methods[name] = Method(name, {}, 4.0, 0.0, 0.0, answers, "made up", "2026-01-01", "none")
    return Quality(methods, {"all": (1,) * len(doubts)}, {})


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_monitoring(seed: int) -> None:
    for case in question("choosing.canary").cases(seed):
        looks, p, q, limit = case.args
        differ, asked = np.array(looks, dtype=float).T
        theirs = cusum(differ, asked, p, q)
        scores, answers = canary(*case.args)
        assert scores == pytest.approx(theirs.tolist(), abs=1e-9), case.name
        above = np.flatnonzero(theirs > limit + 1e-9)
        assert answers == (asked[: above[0] + 1].sum() if len(above) else 0), case.name


# --- nothing is decided by the rounding of floats ---------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_no_whole_number_and_no_order_is_decided_by_a_hair(seed: int) -> None:
    for case in question("choosing.sample_size").cases(seed):
        exact = _exact_size(*case.args)
        assert 0.02 < exact % 1 < 0.98 and math.ceil(exact) == sample_size(*case.args), case.name
    for case in question("choosing.keep_layers").cases(seed):
        worth = sorted(Fraction(few - many) / (large - small) for small, large, few, many in case.args[0])
        for a, b in itertools.pairwise(worth):
            assert a == b or b - a > abs(b) * Fraction(1, 10**6), case.name
    for case in question("choosing.route").cases(seed):
        doubts, small, large, _, _, floor = case.args
        for limit in [-1.0, *doubts.tolist()]:
            right = Fraction(int(torch.where(doubts > limit, large, small).sum()), len(doubts))
            assert right == Fraction(floor) or abs(right - Fraction(floor)) > Fraction(1, 10**5), case.name
    for case in question("choosing.canary").cases(seed):
        limit = case.args[3]
        assert all(score == limit or abs(score - limit) > 0.01 for score in canary(*case.args)[0]), case.name


def _exact_size(accuracy: float, drop: float, flipped: float | None, power: float, alpha: float) -> float:
    z = [NormalDist().inv_cdf(one) for one in (1 - alpha / 2, power)]
    q = accuracy - drop
    parts = (flipped, (flipped or 0) - drop**2)
    if flipped is None:
        parts = ((accuracy + q) * (2 - accuracy - q) / 2, accuracy * (1 - accuracy) + q * (1 - q))
    return float((z[0] * math.sqrt(parts[0] or 0) + z[1] * math.sqrt(parts[1])) ** 2 / drop**2)


# --- natural answers --------------------------------------------------------------------------------------------------


def kl_where_float(reference, quantized, mask):
    a, b = reference.float()[mask], quantized.float()[mask]
    p = torch.softmax(a, -1)
    return torch.where(p == 0, 0.0, p * (a.log_softmax(-1) - b.log_softmax(-1))).sum(-1).mean()


def kl_with_numpy(reference, quantized, mask):
    a, b = (one[mask].double().numpy() for one in (reference, quantized))
    a, b = (one - np.logaddexp.reduce(one, axis=-1, keepdims=True) for one in (a, b))
    with np.errstate(invalid="ignore"):
        return np.where(np.exp(a) > 0, np.exp(a) * (a - b), 0).sum(-1).mean()


def flips_with_numpy(truth, before, after):
    right, old, new = map(np.array, (truth, before, after))
    a, b = old == right, new == right
    difference = b.astype(int) - a
    moved = (~a & ~b & (old != new)).sum()
    return (a & ~b).sum(), (b & ~a).sum(), difference.mean(), difference.std(ddof=1) / np.sqrt(len(right)), moved


def size_in_float32(accuracy, drop, flipped, power, alpha):
    normal = torch.distributions.Normal(0.0, 1.0)
    z = [float(normal.icdf(torch.tensor(one))) for one in (1 - alpha / 2, power)]
    q = accuracy - drop
    mean = (accuracy + q) / 2
    v = (
        (2 * mean * (1 - mean), accuracy * (1 - accuracy) + q * (1 - q))
        if flipped is None
        else (flipped, flipped - drop**2)
    )
    return math.ceil((z[0] * v[0] ** 0.5 + z[1] * v[1] ** 0.5) ** 2 / drop**2)


def route_in_float32(doubts, small, large, small_price, large_price, floor):
    best = ("large", len(doubts), large.float().mean(), large_price)
    for limit in doubts.unique():
        again = doubts > limit
        accuracy, price = (
            torch.where(again, large, small).float().mean(),
            small_price + again.float().mean() * large_price,
        )
        if accuracy >= floor and price < best[3]:
            best = ("cascade" if again.any() else "small", again.sum(), accuracy, price)
    return best


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("mean_kl", kl_where_float),
        ("mean_kl", kl_with_numpy),
        ("flips", flips_with_numpy),
        ("sample_size", size_in_float32),
        ("route", route_in_float32),
    ],
)
def test_other_forms_of_right_answers_pass(name: str, answer: Callable[..., Any]) -> None:
    for seed in range(3):
        verdict = examine(question(f"choosing.{name}"), answer, seed)
        assert verdict.passed, verdict


def kl_div(reference, quantized, mask):
    return F.kl_div(quantized[mask].float().log_softmax(-1), reference[mask].float().softmax(-1), reduction="batchmean")


def kl_div_swapped(reference, quantized, mask):
    return kl_div(quantized, reference, mask)


def kl_div_mean(reference, quantized, mask):
    return F.kl_div(quantized[mask].float().log_softmax(-1), reference[mask].float().softmax(-1), reduction="mean")


def nan_to_num(reference, quantized, mask):
    a, b = (one[mask].float().log_softmax(-1) for one in (reference, quantized))
    return torch.nan_to_num(a.exp() * (a - b)).sum(-1).mean()


def kl_div_of_all(reference, quantized, mask):
    return F.kl_div(quantized.float().log_softmax(-1), reference.float().softmax(-1), reduction="batchmean")


def kl_times_mask(reference, quantized, mask):
    a, b = (one.float().log_softmax(-1) for one in (reference, quantized))
    kl = torch.where(a.exp() > 0, a.exp() * (a - b), 0.0).sum(-1)
    return (kl * mask).sum() / mask.sum()


def _flips_where(truth, before, after, same):
    rows = [(same(a, b), same(a, c), b != c) for a, b, c in zip(truth, before, after, strict=True)]
    differences = [int(new) - int(old) for old, new, _ in rows]
    moved = sum(not old and not new and differ for old, new, differ in rows)
    stderr = stdev(differences) / math.sqrt(len(rows))
    return differences.count(-1), differences.count(1), sum(differences) / len(rows), stderr, moved


def where_it_occurs(truth, before, after):
    return _flips_where(truth, before, after, lambda right, one: right in one)


def where_it_begins(truth, before, after):
    return _flips_where(truth, before, after, lambda right, one: one.startswith(right))


def as_numbers(truth, before, after):
    def same(right, one):
        try:
            return float(right) == float(one)
        except ValueError:
            return right == one

    return _flips_where(truth, before, after, same)


def textbook(accuracy, drop, flipped, power, alpha):
    z = NormalDist().inv_cdf(1 - alpha / 2) + NormalDist().inv_cdf(power)
    q = accuracy - drop
    return math.ceil(z**2 * (accuracy * (1 - accuracy) + q * (1 - q) if flipped is None else flipped) / drop**2)


def never_strictly_better(methods):
    return [i for i, a in enumerate(methods) if not any(b[0] < a[0] and b[1] < a[1] for b in methods)]


def never_strictly_better_by_size(methods):
    return sorted(never_strictly_better(methods), key=lambda i: methods[i][0])


def by_loss(methods):
    return sorted(pareto(methods), key=lambda i: methods[i][1])


def with_copies(methods):
    return [
        i
        for i, a in enumerate(methods)
        if not any(b[0] <= a[0] and b[1] <= a[1] and (b[0] < a[0] or b[1] < a[1]) for b in methods)
    ]


def until_it_does_not_fit(layers, budget):
    kept, total = [], sum(layer[0] for layer in layers)
    order = sorted(range(len(layers)), key=lambda i: -(layers[i][2] - layers[i][3]) / (layers[i][1] - layers[i][0]))
    for i in order:
        if total + layers[i][1] - layers[i][0] > budget or layers[i][2] <= layers[i][3]:
            break
        kept.append(i)
        total += layers[i][1] - layers[i][0]
    return kept, total


def dict_by_worth(layers, budget):
    worth = {(few - many) / (large - small): i for i, (small, large, few, many) in enumerate(layers)}
    kept, total = [], sum(layer[0] for layer in layers)
    for value in sorted(worth, reverse=True):
        small, large, _, _ = layers[worth[value]]
        if value > 0 and total + large - small <= budget:
            kept.append(worth[value])
            total += large - small
    return kept, total


def most_doubtful_first(doubts, small, large, small_price, large_price, floor):
    order = torch.argsort(doubts, descending=True)
    for k in range(len(doubts)):
        accuracy = (large[order[:k]].sum() + small[order[k:]].sum()).item() / len(doubts)
        dollars = small_price + k / len(doubts) * large_price
        if accuracy >= floor and dollars < large_price:
            return "cascade" if k else "small", k, accuracy, dollars
    return "large", len(doubts), large.float().mean(), large_price


def from_the_limit_on(doubts, small, large, small_price, large_price, floor):
    best = ("large", len(doubts), large.double().mean().item(), large_price)
    for limit in doubts.unique().tolist():
        again = doubts >= limit
        part, accuracy = again.double().mean().item(), torch.where(again, large, small).double().mean().item()
        if accuracy >= floor and small_price + part * large_price < best[3]:
            best = ("cascade", int(again.sum()), accuracy, small_price + part * large_price)
    return best


def uphill(doubts, small, large, small_price, large_price, floor):
    before = 0.0
    for limit in sorted(set(doubts.tolist()), reverse=True):
        again = doubts > limit
        part, accuracy = again.double().mean().item(), torch.where(again, large, small).double().mean().item()
        if accuracy < before:
            break
        before = accuracy
        if accuracy >= floor and small_price + part * large_price < large_price:
            return "cascade" if part else "small", int(again.sum()), accuracy, small_price + part * large_price
    return "large", len(doubts), large.double().mean().item(), large_price


def one_price_each(doubts, small, large, small_price, large_price, floor):
    for limit in sorted({-1.0, *doubts.tolist()}, reverse=True):
        again = doubts > limit
        part, accuracy = again.double().mean().item(), torch.where(again, large, small).double().mean().item()
        if accuracy >= floor:
            plan = "small" if part == 0 else "large" if part == 1 else "cascade"
            return plan, int(again.sum()), accuracy, (1 - part) * small_price + part * large_price
    return None


def without_zero(looks, p, q, limit):
    score, scores, asked, answers = 0, [], 0, 0
    for x, n in looks:
        score += x * math.log(q / p) + (n - x) * math.log((1 - q) / (1 - p))
        scores.append(score)
        asked += n
        answers = asked if score > limit and not answers else answers
    return scores, answers


def returned_at_the_alarm(looks, p, q, limit):
    score, scores, asked = 0, [], 0
    for x, n in looks:
        score = max(0, score + x * math.log(q / p) + (n - x) * math.log((1 - q) / (1 - p)))
        scores.append(score)
        asked += n
        if score > limit:
            return scores, asked
    return scores, 0


def four_digits_of_all(looks, p, q, limit):
    scores, answers = canary(looks, p, q, limit)
    return [round(score, 4) for score in scores], answers


def asked_before_it_is_added(looks, p, q, limit):
    score, scores, asked, answers = 0, [], 0, 0
    for x, n in looks:
        if score > limit and not answers:
            answers = asked
        score = max(0, score + x * math.log(q / p) + (n - x) * math.log((1 - q) / (1 - p)))
        scores.append(score)
        asked += n
    return scores, answers


@pytest.mark.parametrize(
    ("name", "answer", "named"),
    [
        ("flips", where_it_occurs, "right_one_occurs"),
        ("flips", where_it_begins, "begins_with_the_right_one"),
        ("flips", as_numbers, "numbers_compared"),
        ("mean_kl", kl_div_of_all, "nothing_left_out"),
        ("mean_kl", kl_times_mask, "mask_as_a_factor"),
        ("pareto", never_strictly_better_by_size, "better_in_both"),
        ("pareto", by_loss, "largest_first"),
        ("keep_layers", dict_by_worth, "one_of_equal_ones"),
        ("route", from_the_limit_on, "small_forgotten"),
        ("route", uphill, "gives_up_where_it_falls"),
        ("canary", four_digits_of_all, "four_digits"),
        ("canary", asked_before_it_is_added, "looked_at_before_the_look"),
        ("mean_kl", kl_div, "kl_div_of_forbidden_words"),
        ("mean_kl", kl_div_swapped, "other_direction"),
        ("mean_kl", kl_div_mean, "mean_over_words"),
        ("mean_kl", nan_to_num, "infinity_made_finite"),
        ("sample_size", textbook, "textbook"),
        ("pareto", never_strictly_better, "better_in_both_in_the_order_given"),
        ("pareto", with_copies, "equal_ones_kept_in_the_order_given"),
        ("keep_layers", until_it_does_not_fit, "ends_at_the_first_that_does_not_fit"),
        ("route", most_doubtful_first, "equal_doubts_split"),
        ("route", one_price_each, "asked_once"),
        ("canary", without_zero, "never_set_to_zero"),
        ("canary", returned_at_the_alarm, "ends_with_the_alarm"),
    ],
)
def test_natural_mistakes_are_named(name: str, answer: Callable[..., Any], named: str) -> None:
    assert examine(question(f"choosing.{name}"), answer, 0).mutant == named


# --- chances that the texts state -------------------------------------------------------------------------------------


class Alarm:
    """When the task's canary raises its first alarm if answers differ at this rate: exactly, over all its scores.

    As steps add up, a score is that of one large look: of all that differed, and were asked, since the score was 0.
    """

    def __init__(self, rate: float) -> None:
        chances = [math.comb(300, k) * rate**k * (1 - rate) ** (300 - k) for k in range(40)]
        states, found = {(0, 0): 0}, [(0, 0)]
        moves = []
        for before in found:
            for differ, chance in enumerate(chances):
                after = before[0] + differ, before[1] + 300
                [score], alarm = canary((after,), 0.002, 0.006, 4.0)
                if alarm:
                    break
                if score == 0 or after[1] > 30_000:  # in health and above 0 for 100 looks: too rare to be counted
                    after = (0, 0)
                if after not in states:
                    states[after] = len(states)
                    found.append(after)
                moves.append((states[before], states[after], chance))
        self.stays = np.zeros((len(states), len(states)))  # chances of going on without an alarm
        for a, b, chance in moves:
            self.stays[a, b] += chance

    @property
    def looks(self) -> float:
        """Until the alarm, on average."""
        size = len(self.stays)
        return float(np.linalg.solve(np.eye(size) - self.stays, np.ones(size))[0])

    def within(self, looks: int) -> float:
        """The chance of an alarm in so many looks."""
        return float(1 - np.linalg.matrix_power(self.stays, looks)[0].sum())


@pytest.mark.parametrize(("rate", "looks"), [(0.002, 172), (0.006, 5), (0.012, 2)])
def test_alarms_come_as_often_as_in_simulated_runs(rate: float, looks: int) -> None:
    differ = np.random.default_rng(0).binomial(300, rate, (4000, looks))
    seen = float((cusum(differ, 300, 0.002, 0.006) > 4).any(axis=1).mean())
    expected = Alarm(rate).within(looks)
    assert abs(seen - expected) < 4 * math.sqrt(expected * (1 - expected) / 4000)


def chance_to_pass(pairs: int, flipped: float, drop: float, floor: float) -> float:
    """How often the change, less two standard errors, lies above minus the floor, if the accuracy falls by `drop`."""
    parts = [(flipped + drop) / 2, (flipped - drop) / 2, 1 - flipped]
    lost, gained, _ = np.random.default_rng(0).multinomial(pairs, parts, 100_000).T
    change = (gained - lost) / pairs
    stderr = np.sqrt(((lost + gained) / pairs - change**2) / (pairs - 1))
    return float((change - 2 * stderr > -floor).mean())


# --- what the notebook says -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IDS)
def test_the_first_case_is_the_example_of_the_card(name: str) -> None:
    """Who fails can work it out by hand."""
    first, other = question(name).cases(7)[0], question(name).cases(8)[0]
    assert first.name.startswith("the example of the card") and first.name == other.name
    for a, b in zip(first.args, other.args, strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def examples(name: str) -> list[Any]:
    asked = question(f"choosing.{name}")
    return [asked.reference(*c.args) for c in asked.cases(0) if c.name.startswith("the example of the card")]


def test_the_cards_compute_by_hand_what_the_references_compute() -> None:
    [(lost, gained, change, stderr, moved)] = examples("flips")
    assert f"({lost}, {gained}, −{-change:g}, **{stderr:.4f}**, {moved})" in cell("choosing-flips-card")
    truth, before, after = question("choosing.flips").cases(0)[0].args
    for i, row in enumerate(zip(truth, before, after, strict=True)):
        assert f"| {i} | {' | '.join(row)} |" in cell("choosing-flips-card")

    reference, quantized, mask = question("choosing.mean_kl").cases(0)[0].args
    said = cell("choosing-mean_kl-card")
    tokens = [mean_kl(reference, quantized, torch.arange(3) == i) for i in (0, 1)]
    assert all(f"= {one:.4f} |" in said for one in tokens) and not mask[2]
    assert f"The mean is **{mean_kl(reference, quantized, mask):.4f}**" in said
    assert f"it would be {mean_kl(quantized, reference, mask):.4f}" in said

    said = cell("choosing-sample_size-card")
    unpaired, paired = examples("sample_size")
    assert f"| 6,744.9 | **{unpaired:,}** |" in said and f"| 2,823.2 | **{paired:,}** |" in said
    assert [f"{_exact_size(0.96, 0.01, one, 0.8, 0.05):.1f}" for one in (None, 0.036)] == ["6744.9", "2823.2"]
    passes = [100 * chance_to_pass(paired, 0.036, drop, 0.01) for drop in (0.0, 0.005, 0.01)]
    assert "lost nothing passes in {:.0f} % of the runs, one that lost d / 2 in {:.0f} %".format(*passes) in said
    assert f"one that lost d in {passes[2]:.0f} %" in said

    assert f"The answer is **{examples('pareto')[0]}**" in cell("choosing-pareto-card")
    for i, (size, loss) in enumerate(question("choosing.pareto").cases(0)[0].args[0]):
        assert f"| {i} | {size:g} | {loss:g} |" in cell("choosing-pareto-card")

    [(kept, total)] = examples("keep_layers")
    said = cell("choosing-keep_layers-card")
    assert f"(**{kept}**, **{total}**)" in said and "a budget of 370 bytes" in said
    for i, (small, large, few, many) in enumerate(question("choosing.keep_layers").cases(0)[0].args[0]):
        row = f"| {i} | {small} | {large} | {few:.3f} | {many:.3f} | {few - many:.3f} | {large - small} |"
        assert f"{row} {(few - many) / (large - small):.4f} |" in said

    said = cell("choosing-route-card")
    for plan, asked, accuracy, dollars in examples("route"):
        assert f'**("{plan}", {asked}, {accuracy:g}, {dollars:g})**' in said
    doubts, small, large, small_price, large_price, _ = question("choosing.route").cases(0)[0].args
    for limit in doubts.unique().tolist():
        again = doubts > limit
        right, asked = int(torch.where(again, large, small).sum()), int(again.sum())
        assert f"| {limit:g} | {asked} | {right} | {right / 8:g} | {small_price + asked / 8 * large_price:.4g}" in said

    (scores, answers), (_, never) = examples("canary")
    shown = ", ".join(f"{one:.4f}" if one else "0" for one in scores)
    differs, agrees = math.log(3), round(math.log(0.998 / 0.994), 6)
    first = f"{differs:.4f} − 299 · {agrees} = −{299 * agrees - differs:.4f}"
    assert first in cell("choosing-canary-card") and f"(0.994 / 0.998) = −{agrees}" in cell("choosing-canary-card")
    assert f"([{shown}], {answers})" in cell("choosing-canary-card") and never == 0


def test_points_and_minutes_in_the_title() -> None:
    rows = re.findall(r"^\| (\d) \| (.+?) \| (\d+) \| (\d+) \|$", cell("title"), re.MULTILINE)
    cells = {each["id"]: each for each in json.loads(MASTER.read_text(encoding="utf-8"))["cells"]}
    assert len(rows) == len(IDS) + 1
    for (number, title, minutes, points), name in zip(rows, [*IDS, "choosing.defend"], strict=True):
        grade_id = name.replace(".", "-")
        card = cell(grade_id if name == "choosing.defend" else f"{grade_id}-card")
        assert f"## {number}. {title.partition(' (')[0]}" in card and f"| **Minutes** | {minutes} |" in card
        assert cells[grade_id]["metadata"]["nbgrader"]["points"] == int(points)
    together = [str(sum(int(row[column]) for row in rows)) for column in (2, 3)]
    assert f"| together | {' | '.join(together)} |" in cell("title")


@pytest.mark.parametrize("name", IDS)
def test_what_learners_start_from_is_narrow(name: str) -> None:
    """JupyterLab cuts longer lines off."""
    reference = question(name).reference
    assert max(map(len, inspect.getsource(reference).splitlines())) <= 100
    assert max(map(len, (reference.__doc__ or "").splitlines())) <= 92


def test_the_explanations_state_computed_numbers() -> None:
    seen = {m: flips_of_deploy(correct(REFERENCE, "sql"), correct(m, "sql")) for m in ("FP8", "INT4 g128")}
    assert seen["FP8"].change == 0 and (seen["FP8"].lost, seen["FP8"].gained) == (1, 1)
    answers = quality().method("INT4 g128").answers["sql"]
    int4, differ = seen["INT4 g128"], answers.same.count(False)
    assert f"{differ} texts of 500 differ: {int4.lost} lost, {int4.gained} gained, and one" in explanation("flips")
    assert differ - int4.lost - int4.gained == 1 and f"At INT4 it has {100 * answers.accuracy:.1f} %" in explanation(
        "flips"
    )
    before, after = (torch.tensor(correct(m, "trading")).double() for m in (REFERENCE, "INT3 g128"))
    paired, strangers = Estimate.of(after - before), math.hypot(Estimate.of(before).stderr, Estimate.of(after).stderr)
    assert f"loses {-100 * paired.value:.1f} points of trading" in explanation("flips")
    assert f"error of {100 * paired.stderr:.1f} points" in explanation("flips")
    assert f"it would be {100 * strangers:.1f}." in explanation("flips")
    assert f"up to {100 * clopper_pearson(0, 500)[1]:.1f} % of the verdicts may flip" in explanation("flips")
    assert f"The {100 * Flips(500, 0, 0).change_interval()[1]:.1f} points of lesson 11" in explanation("flips")

    plain, gptq = (quality().method(m) for m in ("INT4 g128", "GPTQ INT4 g128"))
    assert (
        f"{plain.kl:.3f} and {gptq.kl:.3f}, with standard errors of {plain.kl_stderr:.3f} and {gptq.kl_stderr:.3f}"
        in (explanation("mean_kl"))
    )
    assert max(abs(plain.answers[w].accuracy - gptq.answers[w].accuracy) for w in quality().workloads) < 0.0101

    every = (1.0, 0.02, None), (1.0, 0.02, 0.02)
    assert flips_of_deploy(correct(REFERENCE, "arithmetic"), correct("INT3 g128", "arithmetic")) == Flips(500, 10, 0)
    assert "{} requests of each or {} pairs".format(*(sample_size(*one, 0.8, 0.05) for one in every)) in (
        explanation("sample_size")
    )

    methods = quality().methods
    names = list(methods)
    front = [names[i] for i in pareto(tuple((m.bits_per_weight, m.kl) for m in methods.values()))]
    assert f"{len(front)} of nano's {len(names)} methods" in explanation("pareto")
    assert front == [
        "INT2 g32 asymmetric",
        "INT3 channel",
        "GPTQ INT3 g128",
        "GPTQ INT4 g128",
        "INT8 channel",
        "16-bit",
    ]
    sql = pareto(tuple((m.bits_per_weight, -m.answers["sql"].accuracy) for m in methods.values()))
    assert names[sql[-1]] == "AWQ INT4 g128"

    found = {}
    for method in ("INT3 g128", "GPTQ INT3 g128"):
        one = quality().method(method).answers["sql"]
        doubts = torch.tensor([-math.log(c) for c in one.confidence], dtype=torch.float64)
        right = torch.tensor(one.correct), torch.tensor(correct(REFERENCE, "sql"))
        found[method] = route(doubts, *right, 0.25, 1.0, 0.96)
    (_, many, _, dear), (_, few, _, cheap) = found.values()
    assert f"asks {many} of 500 again, for {dear:.3f} of the price" in explanation("route")
    assert f"asks {few}, for {cheap:.3f}" in explanation("route")
    assert f"has {100 * quality().method('INT3 g128').answers['sql'].accuracy:.1f} %" in explanation("route")
    assert f"fewer than {100 * most_escalated(Tier('INT3 g128', 0.25), Tier(REFERENCE, 1.0)):.0f} %" in explanation(
        "route"
    )

    differs, agrees = math.log(3), -math.log(0.994 / 0.998)
    said = explanation("canary")
    assert f"adds {differs:.2f} and one that agrees takes off {agrees:.3f}" in said
    assert f"takes {math.ceil(differs / agrees)} of them" in said
    healthy, changed = (300 * (rate * differs - (1 - rate) * agrees) for rate in (0.002, 0.012))
    assert f"takes off {-healthy:.2f} on average" in said and f"it adds {changed:.2f}" in said
    assert f"in {100 * Alarm(0.012).within(2):.0f} % of the runs a limit of 4 has fallen by the second look" in said
    assert f"here one every {Alarm(0.002).looks:.0f} looks" in said


# --- what the open question says --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def task() -> str:
    return cell("choosing-defend")


def test_the_table_of_the_open_question_adds_up(task: str) -> None:
    rows = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", task, re.MULTILINE)
    *parts, together = [list(map(int, row[1:])) for row in rows]
    assert len(parts) == 3 and [sum(column) for column in zip(*parts, strict=True)] == together == [500, 480, 9, 9]


def _error(one: Flips) -> float:
    """Standard error in points, as `flips` has it."""
    return 100 * math.sqrt((one.rate - one.change**2) / (one.examples - 1))


def _pairs(drop: float, flipped: float) -> int:
    size = pairs_size((flipped + drop) / 2, (flipped - drop) / 2)
    assert size == sample_size(0.9, drop, flipped, 0.8, 0.05)
    return size


WHOLE, SQL, CLASSES, EXTRACTION = Flips(500, 9, 9), Flips(50, 7, 1), Flips(350, 1, 6), Flips(100, 1, 2)


@pytest.fixture(scope="module")
def scheme(task: str) -> str:
    return task.partition("### BEGIN MARK SCHEME")[2]


def test_the_scheme_computes_what_the_accuracy_says(scheme: str) -> None:
    assert f"standard error is **{_error(WHOLE):.2f} points**, so the change is 0 ± {2 * _error(WHOLE):.1f}" in scheme
    assert f"0 ± {2 * _error(WHOLE):.1f} points together" in scheme
    assert f"Without pairs the standard error would be {100 * math.sqrt(2 * 0.96 * 0.04 / 500):.2f}" in scheme
    low, high = WHOLE.rate_interval()
    assert f"{100 * WHOLE.rate:.1f} % of the verdicts flipped ({100 * low:.1f} to {100 * high:.1f} %)" in scheme
    change, width = 100 * SQL.change, 2 * _error(SQL)
    said = f"−{-change:.0f} ± {width:.0f} points"
    assert (
        scheme.count(f"SQL {said}") == 1
        and f"SQL has {said}, from −{width - change:.1f} to −{-change - width:.1f}." in scheme
    )
    assert SQL.lost + SQL.gained == 8 and SQL.p_value == pytest.approx(2 * (1 + 8) / 2**8)
    assert f"in {2 * (1 + 8)} of {2**8} cases, p = {SQL.p_value:.3f}" in scheme
    assert f"p = {SQL.p_value:.2f}, and" in scheme and f"(p = {CLASSES.p_value:.3f})" in scheme
    total = {m: sum(sum(correct(m, w)) for w in quality().workloads) / 3000 for m in (REFERENCE, "GPTQ INT3 g128")}
    worst = flips_of_deploy(correct(REFERENCE, "sql"), correct("GPTQ INT3 g128", "sql"))
    assert (
        f"loses {100 * (total[REFERENCE] - total['GPTQ INT3 g128']):.1f} points over six workloads, and "
        f"{-100 * worst.change:.1f} on SQL ({worst.lost} lost, {worst.gained} gained of 500)"
    ) in scheme


def test_the_scheme_computes_what_to_measure(scheme: str) -> None:
    smallest = _bisect(lambda drop: pairs_size((0.036 + drop) / 2, (0.036 - drop) / 2) <= 500, 0.001, 0.036)
    assert f"500 pairs see a fall of {100 * smallest:.1f} points" in scheme
    many, few = _pairs(0.01, WHOLE.rate), _pairs(0.05, SQL.rate)
    assert f"**{many:,} pairs**" in scheme and f"{ab_size(0.96, 0.95):,} examples for each" in scheme
    assert f"with {100 * SQL.rate:.0f} % flips: five points take **{few} pairs**" in scheme
    assert f"two points would take {_pairs(0.02, SQL.rate):,}" in scheme
    low, high = SQL.rate_interval()
    assert f"{100 * low:.1f} to {100 * high:.1f} % (exact interval)" in scheme
    assert f"which is {_pairs(0.05, low)} to {_pairs(0.05, high)} pairs" in scheme
    for pairs, flipped, floor in ((many, WHOLE.rate, 0.01), (few, SQL.rate, 0.05)):
        passes = [chance_to_pass(pairs, flipped, drop, floor) for drop in (0.0, floor / 2)]
        assert [f"{100 * one:.0f}" for one in passes] == ["79", "28"]
    assert "passes in 79 % of the runs, one that lost half a point in 28 %" in scheme


def test_the_scheme_computes_what_the_canary_does(scheme: str) -> None:
    differs, agrees = math.log(3), -math.log(0.994 / 0.998)
    healthy, changed = (300 * (rate * differs - (1 - rate) * agrees) for rate in (0.002, 0.012))
    assert f"takes {-healthy:.2f} off the score" in scheme and f"a look adds {changed:.2f} on average" in scheme
    health, feared, worse = map(Alarm, (0.002, 0.006, 0.012))
    minutes = 5000 / 10 / 60  # between two looks
    assert f"take {feared.looks:.1f} looks on average, {feared.looks * minutes:.0f} minutes" in scheme
    assert f"after {worse.looks:.1f} looks, {worse.looks * minutes:.0f} minutes" in scheme
    assert f"in {100 * worse.within(2):.0f} % of the runs it is there by the second look" in scheme
    day = 24 * 60 / minutes
    assert f"one every {health.looks:.0f} looks, or {health.looks / day:.1f} days" in scheme
    assert f"within the first day in {100 * health.within(int(day)):.0f} % of the runs" in scheme
    confirmed = [1 - binomial_cdf(1, 300, rate) for rate in (0.002, 0.012)]
    assert "in {:.0f} % of the cases in health and in {:.0f} % at 1.2 %".format(*(100 * c for c in confirmed)) in scheme
    assert f"without cause every {health.looks / day / confirmed[0]:.0f} days" in scheme


def test_the_scheme_computes_what_users_say(scheme: str) -> None:
    def rejected(accuracy: float) -> float:
        return 0.05 * accuracy + 0.5 * (1 - accuracy)

    def each(before: float, after: float) -> int:
        size = ab_size(rejected(before), rejected(after))
        assert size == sample_size(1 - rejected(before), rejected(after) - rejected(before), None, 0.8, 0.05)
        return size

    users = each(0.96, 0.95)
    assert f"means {100 * rejected(0.96):.1f} % rejections, 95 % means {100 * rejected(0.95):.2f} %" in scheme
    assert f"**{users:,} requests** in each arm, {hours(users, 10):.1f} hours" in scheme
    misread = sample_size(rejected(0.96), rejected(0.95) - rejected(0.96), None, 0.8, 0.05)
    assert f"({misread:,} is a fall from {100 * rejected(0.96):.1f} % to 6.35 %" in scheme
    assert 2 * rejected(0.96) - rejected(0.95) == pytest.approx(0.0635)
    assert 42 / 50 == 0.84 and 0.84 + SQL.change == pytest.approx(0.72)
    users = each(0.84, 0.72)
    assert (
        f"from {100 * rejected(0.84):.1f} % to {100 * rejected(0.72):.1f} %, and {users} requests in each arm" in scheme
    )
    assert f"{60 * hours(users, 10 * 50 / 500):.0f} minutes of SQL traffic" in scheme
    users = each(0.84, 0.79)
    assert f"to {100 * rejected(0.79):.2f} %, take {users:,}, {hours(users, 10 * 50 / 500):.1f} hours" in scheme
    mixed = 0.96 + 0.1 * SQL.change
    assert f"are {100 * rejected(0.96):.1f} % to {100 * rejected(mixed):.2f} %" in scheme
    assert f"{each(0.96, mixed):,} requests in each arm" in scheme


def test_the_scheme_computes_what_goes_first(scheme: str) -> None:
    rest = Flips(450, CLASSES.lost + EXTRACTION.lost, CLASSES.gained + EXTRACTION.gained)
    change, width = 100 * rest.change, 2 * _error(rest)
    assert f"lost {rest.lost} and gained {rest.gained} of {rest.examples}: +{change:.1f} points" in scheme
    assert f"from −{width - change:.2f} to +{change + width:.1f}" in scheme
    assert f"reaches down to −{2 * _error(EXTRACTION) - 100 * EXTRACTION.change:.1f}." in scheme
    assert f"with their {100 * rest.rate:.1f} % of flips one point takes {_pairs(0.01, rest.rate):,} pairs" in scheme
