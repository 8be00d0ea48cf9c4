"""Plans: agreement with the claim ledger, reasons, money, and how few options are simulated."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest

from qlab.deploy import fits, instance
from qlab.deploy.cost import usd_per_million
from qlab.deploy.planning import plan as module
from qlab.deploy.planning.options import Option, Plan
from qlab.deploy.planning.plan import BEST, MOST, plan
from qlab.deploy.planning.replica import Assumptions
from qlab.deploy.serving import engine
from qlab.deploy.serving.load import Capacity, Load, highest_rate
from qlab.deploy.serving.workloads import workload

LLAMA = "Llama-3-70B"


def at_once(share: float = 0.8) -> Callable[..., Capacity]:
    """A search that finds a share of the guess and notes what it was asked."""

    def search(engine: Any, shape: Any, target: Any, *, guess: float, seed: int) -> Capacity:
        search.asked.append(guess)  # type: ignore[attr-defined]
        load = Load(share * guess, 0.1, 0.1, 0.01, 1.0, 1)
        return Capacity(load if share else None, (load,))

    search.asked = []  # type: ignore[attr-defined]
    return search


@pytest.fixture(scope="module")
def chat() -> Plan:
    return plan(LLAMA, "chat", qps=10)


def option(found: Plan, name: str, precision: str) -> Option:
    return next(one for one in found.options if (one.instance.name, one.replica.scheme.name) == (name, precision))


# ---- The ledger ----


@pytest.fixture(scope="module")
def ledger() -> Plan:
    """Instances and precisions that popular claims name, with patience, so that only memory and kernels count."""
    names = ["p3.8xlarge", "g4dn.xlarge", "g4dn.12xlarge", "p4d.24xlarge", "g5.12xlarge", "g6e.xlarge", "g6e.12xlarge"]
    among = [*names, "p5.4xlarge", "p5.48xlarge"]
    given = {"precisions": ["int8", "w8a8", "int4-g128"], "latency": 60.0, "per_token": 1.0}
    return plan(LLAMA, "chat", among=among, search=at_once(), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "precision", "runs"),
    [
        ("p3.8xlarge", "int8", False),  # C011
        ("p3.8xlarge", "w8a8", False),  # C017, C035
        ("g4dn.xlarge", "int4-g128", False),  # C014, C016
        ("g4dn.12xlarge", "int8", False),  # C012
        ("g4dn.12xlarge", "int4-g128", True),  # C019, C113
        ("p4d.24xlarge", "int8", True),  # C018
        ("p4d.24xlarge", "w8a8", True),
        ("g5.12xlarge", "w8a8", True),  # C011, C119: 96 GB for half of the price
        ("g5.12xlarge", "int4-g128", True),
        ("g6e.xlarge", "int4-g128", True),  # C118, C125
        ("g6e.xlarge", "int8", False),
        ("g6e.12xlarge", "w8a8", True),
        ("p5.4xlarge", "int4-g128", True),  # C023
        ("p5.4xlarge", "int8", True),  # C022: tight
        ("p5.48xlarge", "w8a8", True),
    ],
)
def test_what_fits_agrees_with_the_ledger(ledger: Plan, name: str, precision: str, runs: bool) -> None:
    found = option(ledger, name, precision)
    assert found.possible is runs
    if not runs:
        assert "do not fit" in found.verdict and "GB are missing" in found.verdict


def test_p3_has_no_int8_either(ledger: Plan) -> None:
    assert "no INT8 W8A8 kernels on Volta" in option(ledger, "p3.8xlarge", "w8a8").verdict


def test_p4d_holds_int8_many_times_over() -> None:
    """C018: 691,869 tokens on all eight GPUs, 6,670 on two of them."""
    assert fits(LLAMA, "p4d.24xlarge", precision="int8").tokens == pytest.approx(691_869, rel=1e-3)
    found = plan(LLAMA, "recommend", precisions=["w8a8"], among=["p4d.24xlarge"], latency=30.0, search=at_once())
    assert found.choice is not None and found.choice.replicas >= 2


# ---- Ranking, money, reasons ----


def test_the_recommended_is_simulated_cheapest_and_first(chat: Plan) -> None:
    best = chat.choice
    assert best is chat.options[0] and best.capacity is not None and best.capacity.best is not None
    assert best.capacity.best.meets(chat.target)
    possible = [one for one in chat.options if one.possible]
    assert all(best.usd <= one.usd for one in possible if one.capacity is not None)
    assert [one.usd for one in possible[1:]] == sorted(one.usd for one in possible[1:])
    assert all(one.verdict for one in chat.options if one is not best)


def test_money_follows_from_load_and_price(chat: Plan) -> None:
    best = chat.choice
    assert best is not None and best.instance.price_usd_per_hour is not None and best.capacity is not None
    rate = best.replicas * best.capacity.rate
    assert best.rate == rate and best.machines == math.ceil(10 / rate)
    assert best.usd_per_month == pytest.approx(best.machines * best.instance.price_usd_per_hour * 730)
    tokens = rate * workload("chat").mean_output
    assert best.usd_per_million == pytest.approx(usd_per_million(best.instance.price_usd_per_hour, tokens))
    per_request = best.instance.price_usd_per_hour / 3600 / rate
    assert best.usd_per_thousand_requests == pytest.approx(1000 * per_request)


def test_a_dearer_machine_costs_more_and_loses(chat: Plan) -> None:
    best = chat.choice
    assert best is not None
    price = best.instance.price_usd_per_hour
    assert price is not None
    dearer = replace(best.instance, name="x.dear", price_usd_per_hour=2 * price)
    found = plan(LLAMA, "chat", qps=10, precisions=[best.replica.scheme.name], among=[dearer, best.instance])
    assert found.choice is not None and found.choice.instance.name == best.instance.name
    other = next(one for one in found.options if one.instance.name == "x.dear")
    assert other.verdict == f"the same GPUs as {best.instance.name}, dearer by 100%"
    assert found.simulated == 1  # the same server on both


def test_users_at_the_asked_load_see_less_than_the_limit(chat: Plan) -> None:
    best, seen = chat.choice, chat.at_load
    assert best is not None and seen is not None
    assert seen.rate == pytest.approx(10 / best.machines / best.replicas)
    assert seen.meets(chat.target)


def test_every_option_has_an_instance_a_precision_and_a_reason(chat: Plan) -> None:
    document = json.loads(json.dumps(chat.to_dict()))
    assert len(document["options"]) == len(chat.options) > 100
    assert document["options"][0]["verdict"] == "recommended"
    for one in document["options"]:
        assert one["verdict"] and one["calibration"].startswith("stack server")
        assert (one["usd_per_month"] is None) == (one["instances"] is None)
        assert one["price_usd_per_hour"] is None or one["price_date"]
    assert document["workload"]["assumed"] is True
    reasons = " ".join(one["verdict"] for one in document["options"])
    for words in ("GB are missing", "no INT8 W8A8 kernels", "too late at any load: alone", "dearer by"):
        assert words in reasons


def test_no_price_is_a_reason() -> None:
    found = plan("Llama-3-8B", "classify", among=["p5e.48xlarge", "g6.xlarge"], search=at_once())
    assert found.choice is not None and found.choice.instance.name == "g6.xlarge"
    assert {one.verdict for one in found.options if one.instance.name == "p5e.48xlarge"} == {"no price is listed"}


def test_nothing_meets_an_impossible_target() -> None:
    found = plan(LLAMA, "recommend", latency=0.01, among=["p5.48xlarge", "p3.8xlarge"])
    assert found.choice is None and found.simulated == 0 and found.at_load is None
    assert "too late at any load: alone, the answer takes" in option(found, "p5.48xlarge", "fp8").verdict


def test_what_fails_in_the_simulation_is_not_recommended() -> None:
    found = plan(LLAMA, "chat", among=["p5.48xlarge"], search=at_once(0))
    assert found.choice is None
    assert "too late at any load: simulated down to" in found.options[-1].verdict
    many = plan(LLAMA, "chat", search=at_once(0))
    assert many.choice is None and many.simulated == MOST
    assert any(one.verdict.startswith("not simulated, as others") for one in many.options)


def test_a_plan_is_the_same_every_time(chat: Plan) -> None:
    assert plan(LLAMA, "chat", qps=10).to_dict() == chat.to_dict()
    other = plan(LLAMA, "chat", qps=10, given=Assumptions(seed=1))
    assert other.choice is not None and other.choice.rate != pytest.approx(chat.choice.rate, rel=1e-9)


def test_without_a_load_the_price_of_a_token_ranks() -> None:
    found = plan("Llama-3-8B", "classify", search=at_once())
    costs = [one.usd_per_million for one in found.options if one.possible and one.verdict]
    assert costs == sorted(costs) and found.at_load is None


# ---- Why it is quick ----


@pytest.mark.parametrize("name", ["recommend", "chat", "summarize"])
def test_three_replicas_are_simulated_and_never_more_than_five(name: str) -> None:
    calls = []

    def search(*given: Any, **named: Any) -> Capacity:
        calls.append(named["guess"])
        return highest_rate(*given, **named)

    found = plan(LLAMA, name, qps=20, search=search)
    assert BEST <= len(calls) == found.simulated <= MOST
    steady = at_once()
    assert BEST <= plan(LLAMA, name, qps=20, search=steady).simulated == len(steady.asked) <= MOST


@dataclass(frozen=True)
class Stub:
    """An option as `_simulated` sees it, which costs 1 / rate."""

    key: str
    guess: float
    capacity: Capacity | None = None
    ratio: float = 1.0
    possible = True

    @property
    def replica(self) -> SimpleNamespace:
        late, named = self.key.isupper(), self.instance
        return SimpleNamespace(
            engine=self.key, estimate=self.guess, workload=None, target=None, scheme=named, late=late
        )

    @property
    def usd(self) -> float:
        return 1 / (self.capacity.rate if self.capacity else self.ratio * self.guess)

    @property
    def usd_per_million(self) -> float:
        return self.usd

    @property
    def instance(self) -> SimpleNamespace:
        return SimpleNamespace(name=self.key)


@pytest.mark.parametrize(
    ("guesses", "left", "simulated"),
    [
        ((100, 90, 80, 70), 0.5, "abc"),  # with luck the fourth bears 0.5 x 1.25 x 70 = 44, the first 50
        ((100, 90, 88, 85), 0.5, "abcd"),  # 53
        ((100, 99, 98, 97, 96, 95), 0.5, "abcde"),  # never more than five
        ((100, 99), 0.5, "ab"),
    ],
)
def test_what_might_win_with_luck_is_simulated(guesses: tuple[float, ...], left: float, simulated: str) -> None:
    stubs = [Stub(key, guess) for key, guess in zip("abcdef", guesses, strict=False)]
    asked = []

    def search(engine: str, *rest: Any, **named: Any) -> Capacity:
        asked.append(engine)
        rate = left * next(one.guess for one in stubs if one.key == engine)
        return Capacity(Load(rate, 0.0, 0.0, None, 1.0, 100), ())

    module._simulated(stubs, Assumptions(), search, BEST, MOST)  # type: ignore[arg-type]
    assert "".join(asked) == simulated


def test_a_late_option_is_simulated_however_low_its_estimate() -> None:
    stubs = [Stub(key, guess) for key, guess in zip("abcDE", (100, 90, 80, 7, 3), strict=True)]
    rates = {"a": 50.0, "b": 45.0, "c": 40.0, "D": 70.0}  # of D ten times the estimate; E cannot win with twelve
    asked = []

    def search(engine: str, *rest: Any, **named: Any) -> Capacity:
        asked.append(engine)
        return Capacity(Load(rates[engine], 0.0, 0.0, None, 1.0, 100), ())

    found = module._simulated(stubs, Assumptions(), search, BEST, MOST)  # type: ignore[arg-type]
    assert asked == ["a", "b", "c", "D"]
    # What was left of a late estimate says something of late ones only.
    assert [one.ratio for one in found] == [0.5, 0.5, 0.5, 10, 10]


def test_sixteen_bits_for_the_trading_desk_are_two_machines_of_the_older_kind() -> None:
    """Alone a signal takes 85 of the 100 ms there: what the average step says is a tenth of what simulation finds."""
    found = plan("Llama-3.1-70B", "signal", latency=0.1, qps=2, precisions=["bf16"]).choice
    assert found is not None and found.instance.name == "p4d.24xlarge" and found.machines == 2
    assert found.replica.late and found.capacity is not None
    at = found.replica
    assert found.rate > 5 * engine.estimate(at.engine, at.workload, at.target)
    assert at.estimate < found.rate < 4 * at.estimate


def test_a_request_that_takes_nearly_all_of_the_limit_is_planned_for() -> None:
    """FP8 on one H100 takes 111 of the 120 ms, and three small machines cost less than one large one in 16 bits."""
    found = plan("Llama-3-70B", "signal", latency=0.12, qps=2, precisions=["fp8", "bf16"]).choice
    assert found is not None and (found.instance.name, found.machines) == ("p5.4xlarge", 3)


def test_one_bad_estimate_does_not_speak_for_all() -> None:
    """Of the first a third is left; of the others all. With so few seen, they are still hoped for."""
    stubs = [Stub(key, guess) for key, guess in zip("abc", (100, 60, 20), strict=True)]
    rates = {"a": 33.0, "b": 60.0}
    asked = []

    def search(key: str, *rest: Any, **named: Any) -> Capacity:
        asked.append(key)
        return Capacity(Load(rates[key], 0.0, 0.0, None, 1.0, 100), ())

    module._simulated(stubs, Assumptions(), search, 1, MOST)  # type: ignore[arg-type]
    assert asked == ["a", "b"]


def test_the_estimates_of_others_follow_what_was_seen() -> None:
    found = plan(LLAMA, "chat", search=at_once(0.5))
    others = [one for one in found.options if one.possible and one.capacity is None]
    # Each search is given the estimate as corrected so far, and finds half of that.
    assert found.choice is not None and others and all(one.ratio < 0.6 for one in others)
    for one in others:
        assert one.rate == pytest.approx(one.ratio * one.replicas * one.replica.estimate)


def test_a_replica_is_made_once_for_all_machines_that_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    real = module.Replica
    monkeypatch.setattr(module, "Replica", lambda *given: made.append(given) or real(*given))
    plan(LLAMA, "chat", precisions=["fp8"], among=["g6e.xlarge", "g6e.2xlarge", "g6e.12xlarge"], search=at_once())
    assert [given[3] for given in made] == [1, 2, 4]


# ---- Nonsense ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"qps": -3}, "qps: got -3; give requests per second above 0"),
        ({"qps": math.nan}, "qps: got nan"),
        ({"qps": True}, "qps: got True"),
        ({"latency": 0.0}, "latency: got 0.0 seconds"),
        ({"prompt": 20_000}, "context: got 60,768; Llama-3-70B was made for at most 8,192 tokens.*take Llama-3.1-70B"),
        ({"prompt": -5}, "prompt: got -5"),
        ({"among": ["g5.12xlrge"]}, "instance: 'g5.12xlrge' is not known; did you mean g5.12xlarge"),
        ({"among": []}, "instances: got none"),
        ({"precisions": ["int5-g128"]}, "precision: servers have no fast kernels for 'int5-g128'"),
        ({"precisions": ["int44"]}, "precision: 'int44' is not known"),
    ],
)
def test_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(LLAMA, "chat", search=at_once(), **options)


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean Llama-3-70B"):
        plan("Llama-3-71B")
    with pytest.raises(ValueError, match="workload: 'chta' is not known; did you mean chat"):
        plan(LLAMA, "chta")


def test_an_option_without_a_price_has_no_cost(ledger: Plan) -> None:
    free = replace(ledger.options[0], instance=instance("p5e.48xlarge"))
    with pytest.raises(ValueError, match="price_usd_per_hour: p5e.48xlarge has none"):
        _ = free.usd_per_month
