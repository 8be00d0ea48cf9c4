"""The checks that `monitoring` simulates: on a test set before launch, on fixed prompts, on users, on every answer.

Before launch the test set is a sample of the traffic, or has as many examples of each workload as of any other; its
prompts are short, and it runs on one type of GPU: what it lacks it cannot see. A canary asks the same prompts again and
again: it sees what changes under it, and no new kind of request. Users see everything, and say little.
"""

from __future__ import annotations

import math

import numpy as np

from ..serving.traffic import check_count
from .degradation import WINDOWS, Array, Degradation, World
from .monitoring import Check, cusum


def accuracy(examples: int = 1200) -> Check:
    """Two accuracies, each on examples of its own, as when a result is held against a number from a leaderboard."""
    check_count("examples", examples)

    def score(world: World, harm: Degradation, runs: int, rng: np.random.Generator) -> tuple[Array, Array]:
        each = _sampled(world, examples)
        right = world.expected("right")
        before = rng.binomial(each, right, (runs, len(right))).sum(1)
        after = rng.binomial(each, right - _offline(world, harm), (runs, len(right))).sum(1)
        return np.zeros(1), (before - after)[:, None].astype(float)

    return Check(f"accuracy, {examples} examples", False, score)


def paired(examples: int = 1200) -> Check:
    """Lost minus gained answers against the 16-bit model on the same examples, as McNemar's test counts."""
    check_count("examples", examples)

    def score(world: World, harm: Degradation, runs: int, rng: np.random.Generator) -> tuple[Array, Array]:
        lost, gained = _pairs(world, harm, runs, rng, _sampled(world, examples))
        return np.zeros(1), _mcnemar(lost.sum(1), gained.sum(1))[:, None]

    return Check(f"lost - gained, {examples} pairs", False, score)


def paired_by_workload(examples: int = 1200) -> Check:
    """The same counts workload by workload, as many examples of each, and the worst of them."""
    check_count("examples", examples)

    def score(world: World, harm: Degradation, runs: int, rng: np.random.Generator) -> tuple[Array, Array]:
        lost, gained = _pairs(world, harm, runs, rng, _balanced(world, examples))
        return np.zeros(1), _mcnemar(lost, gained).max(1, keepdims=True)

    return Check("lost - gained, worst workload", False, score)


def flip_rate(examples: int = 1200) -> Check:
    """Verdicts that differ from the 16-bit model's, either way."""
    check_count("examples", examples)

    def score(world: World, harm: Degradation, runs: int, rng: np.random.Generator) -> tuple[Array, Array]:
        lost, gained = _pairs(world, harm, runs, rng, _sampled(world, examples))
        return np.zeros(1), (lost + gained).sum(1, keepdims=True).astype(float)

    return Check(f"flip rate, {examples} pairs", False, score)


def mean_kl(windows: int = WINDOWS) -> Check:
    """Mean KL to the 16-bit model on windows of generic text: no answers needed, and none looked at."""
    check_count("windows", windows)

    def score(world: World, harm: Degradation, runs: int, rng: np.random.Generator) -> tuple[Array, Array]:
        return np.zeros(1), rng.normal(world.kl + harm.kl, world.kl_spread / math.sqrt(windows), (runs, 1))

    return Check(f"mean KL, {windows} windows", False, score)


def canary(prompts: int = 300, every: int = 5000) -> Check:
    """Fixed short prompts every so many live requests, answers compared with those at launch; a CUSUM of differences.

    Which prompts a degradation breaks is settled once: to ask the same ones again tells nothing new of the others.
    """
    check_count("prompts", prompts)
    check_count("every", every)

    def score(world: World, harm: Degradation, runs: int, rng: np.random.Generator) -> tuple[Array, Array]:
        if every > world.horizon:
            raise ValueError(f"every: got {every}; it must be at most the horizon, {world.horizon} live requests")
        times = np.arange(every, world.horizon + 1, every, dtype=float)
        each = _balanced(world, prompts, "prompts")
        total = each.sum()
        taken = np.zeros_like(harm.taken(world)) if harm.drifts else harm.taken(world)
        first, other = taken[:, 0, 0], taken[:, 0, 1]  # by GPU; canary prompts are short
        both = np.minimum(first, other)  # broken on either type, or on one of them alone
        always = rng.binomial(each, both, (runs, len(both))).sum(1)[:, None]
        sometimes = rng.binomial(each, other - both, (runs, len(both))).sum(1)[:, None]
        looks = (runs, len(times))
        broken = np.broadcast_to(always, looks) + rng.binomial(sometimes, world.other_gpu, looks)
        differ = broken + rng.binomial(total - broken, world.unsteady)
        return times, cusum(differ, total, world.unsteady, 3 * world.unsteady)

    return Check(f"canary, {prompts} prompts", True, score)


def ab_test() -> Check:
    """Rejections by users, half the traffic on the 16-bit model and half on this one; one look, at the end."""

    def score(world: World, harm: Degradation, runs: int, rng: np.random.Generator) -> tuple[Array, Array]:
        n = world.horizon // 2
        health = _rejected(world, world.expected("right") @ world.weights.sum((1, 2)))
        worse = _rejected(world, world.expected("right") @ world.weights.sum((1, 2)) - _lost_live(world, harm).mean())
        difference = rng.binomial(n, worse, runs) - rng.binomial(n, health, runs)
        return np.array([float(world.horizon)]), difference[:, None].astype(float)

    return Check("A/B test of rejections", True, score)


def rejections(factor: float = 1.1) -> Check:
    """A CUSUM of rejections over all live requests, looking for `factor` times the healthy rate."""

    def score(world: World, harm: Degradation, runs: int, rng: np.random.Generator) -> tuple[Array, Array]:
        right = world.expected("right") @ world.weights.sum((1, 2))
        health = _rejected(world, right)
        now = _rejected(world, right - _lost_live(world, harm))
        events = rng.binomial(world.batch, now, (runs, len(now)))
        return world.times, cusum(events, world.batch, health, factor * health)

    return Check("CUSUM of rejections", True, score)


def rejections_by_part(factor: float = 1.5) -> Check:
    """A CUSUM for each workload, each length of prompt and each type of GPU; the score is the worst of them."""

    def score(world: World, harm: Degradation, runs: int, rng: np.random.Generator) -> tuple[Array, Array]:
        weights, strength = world.weights, harm.strength(world)
        right = world.expected("right")[:, None, None]
        worst = np.zeros((runs, len(strength)))
        # Strata as the last axis: (runs, looks, strata).
        counted = rng.multinomial(world.batch, weights.ravel(), worst.shape)
        now = _rejected(world, right - strength[:, None, None, None] * harm.taken(world))  # (looks, workloads, 2, 2)
        events = rng.binomial(counted, now.reshape(len(strength), -1)).reshape(*worst.shape, *weights.shape)
        counted = counted.reshape(events.shape)
        healthy = np.broadcast_to(_rejected(world, right), weights.shape)
        for axis in range(3):  # the parts along one axis, summed over the two others
            others = tuple(i for i in range(3) if i != axis)
            share = weights.sum(others)
            present = share > 0
            p = ((weights * healthy).sum(others)[present] / share[present])[:, None]
            x = np.moveaxis(events.sum(tuple(2 + i for i in others))[..., present], -1, 1)  # (runs, parts, looks)
            n = np.moveaxis(counted.sum(tuple(2 + i for i in others))[..., present], -1, 1)
            worst = np.maximum(worst, cusum(x, n, p, factor * p).max(1))
        return world.times, worst

    return Check("CUSUM by part", True, score)


def validator(factor: float = 3.0) -> Check:
    """A program reads every live answer and refuses what is broken; a CUSUM of what it refuses."""

    def score(world: World, harm: Degradation, runs: int, rng: np.random.Generator) -> tuple[Array, Array]:
        now = np.minimum(1.0, world.invalid + harm.broken * _lost_live(world, harm))
        events = rng.binomial(world.batch, now, (runs, len(now)))
        return world.times, cusum(events, world.batch, world.invalid, factor * world.invalid)

    return Check("validator of every answer", True, score)


def all_checks() -> tuple[Check, ...]:
    """All of them, with the sizes that are their defaults."""
    offline = (accuracy(), flip_rate(), paired(), paired_by_workload(), mean_kl())
    return (*offline, canary(), validator(), rejections(), rejections_by_part(), ab_test())


def _balanced(world: World, count: int, name: str = "examples") -> Array:
    """As many examples of each workload (workloads,)."""
    each = count // len(world.shares)
    if not each:
        raise ValueError(f"{name}: got {count}; give one or more for each of {len(world.shares)} workloads")
    return np.full(len(world.shares), each)


def _sampled(world: World, examples: int) -> Array:
    """Examples of each workload in proportion to the traffic, rounded (workloads,)."""
    return np.rint(examples * np.array(list(world.shares.values()))).astype(int)


def _offline(world: World, harm: Degradation) -> Array:
    """The part of the answers that a test before launch sees turn wrong, by workload: short, first GPU, no drift."""
    taken = harm.taken(world)[:, 0, 0]
    return np.zeros_like(taken) if harm.drifts else taken


def _pairs(
    world: World, harm: Degradation, runs: int, rng: np.random.Generator, examples: Array
) -> tuple[Array, Array]:
    """Counts of lost and gained verdicts, each (runs, workloads), among so many examples of each workload."""
    half = (world.expected("flips") + harm.churn) / 2
    lost = np.minimum(1 - half, half + _offline(world, harm))
    parts = np.stack([lost, half, 1 - lost - half], axis=-1)  # (workloads, 3)
    counts = rng.multinomial(examples, parts, (runs, len(half)))
    return counts[..., 0], counts[..., 1]


def _mcnemar(lost: Array, gained: Array) -> Array:
    """(lost - gained) / √(lost + gained): standard deviations above what equal chances give."""
    return (lost - gained) / np.sqrt(np.maximum(1, lost + gained))


def _lost_live(world: World, harm: Degradation) -> Array:
    """The part of all live answers that turned wrong, at each look (looks,)."""
    return harm.cost(world) * harm.strength(world)


def _rejected(world: World, right: Array) -> Array:
    """The part of answers that users reject, from the part that is right."""
    return world.reject_right * right + world.reject_wrong * (1 - right)
