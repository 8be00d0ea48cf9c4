"""The generators: every answer is checked by a second, independent way to reach it."""

import itertools
import random
import re
import sqlite3

import pytest

from qlab.models import workloads
from qlab.models.workloads import WORKLOADS, Example, examples, is_held_out, stream


@pytest.fixture(scope="module")
def samples() -> dict[str, list[Example]]:
    return {name: examples(name, 400) for name in WORKLOADS}


@pytest.mark.parametrize("name", WORKLOADS)
def test_same_seed_same_examples(name):
    assert examples(name, 20, seed=3) == examples(name, 20, seed=3)
    assert examples(name, 20, seed=3) != examples(name, 20, seed=4)


@pytest.mark.parametrize("name", WORKLOADS)
def test_splits_share_no_prompt(name):
    held_out = {e.prompt for e in examples(name, 1000, "held-out")}
    train = {e.prompt for e in itertools.islice(stream(name, "train"), 3000)}
    assert len(held_out) == 1000
    assert held_out.isdisjoint(train)
    assert all(map(is_held_out, held_out)) and not any(map(is_held_out, train))


def test_arithmetic_is_right(samples):
    for e in samples["arithmetic"]:
        a, op, b = re.fullmatch(r"(\d+)([+-])(\d+)=", e.prompt).groups()
        assert int(e.answer) == (int(a) + int(b) if op == "+" else int(a) - int(b)) >= 0


def test_intent_labels_occur_in_every_combination(samples):
    labels = {e.answer for e in samples["intent"]}
    assert len(labels) == 18
    negated = next(e for e in samples["intent"] if "i am not happy at all" in e.prompt)
    assert negated.answer.endswith(" negative")


def test_recall_asks_for_a_key_of_the_list(samples):
    lengths = []
    for e in samples["recall"]:
        memo, asked = e.prompt.removeprefix("memo: ").split("\nask ")
        pairs = dict(pair.split() for pair in memo.rstrip(";").split(";"))
        lengths.append(len(pairs))
        assert e.answer == f" {pairs[asked]}"
    assert min(lengths) < 12 and max(lengths) > 60


def test_recall_many_asks_one_list_about_different_keys():
    asked = workloads.recall_many(random.Random(0), queries=6)
    assert len({e.prompt.split("\n")[0] for e in asked}) == 1
    assert len({e.prompt for e in asked}) == 6


def test_recommend_follows_the_last_purchase(samples):
    table = workloads.companions()
    for e in samples["recommend"]:
        shopper = e.prompt.split()[1].rstrip(":")
        last = re.findall(r"buy (\w+)", e.prompt)[-1]
        assert e.answer == f" {table[shopper][last]}"


def test_companions_are_permutations_without_fixed_points():
    for table in workloads.companions().values():
        assert set(table) == set(table.values()) == set(workloads.PRODUCTS)
        assert all(item != companion for item, companion in table.items())


def test_sql_runs_on_a_real_database(samples):
    database = sqlite3.connect(":memory:")
    for table, columns in workloads._TABLES.items():
        database.execute(f"CREATE TABLE {table} ({', '.join(columns)})")
    for e in samples["sql"]:
        database.execute(e.answer.strip())


def test_trading_follows_its_rule(samples):
    sides = set()
    for e in samples["trading"]:
        price, average, rsi = (int(re.search(rf"{key}=(\d+)", e.prompt)[1]) for key in ("price", "average", "rsi"))
        side = "buy" if rsi < 30 and price > average else "sell" if rsi > 70 and price < average else "hold"
        sides.add(side)
        assert e.answer.split()[0] == side
        assert side == "hold" or e.answer.endswith(f"stop={average}")
    assert sides == {"buy", "sell", "hold"}


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="poetry.*arithmetic"):
        examples("poetry", 1)
    with pytest.raises(ValueError, match="split"):
        examples("sql", 1, split="test")
