"""Six synthetic workloads with one exact answer each, made by seeded generators.

The texts this course answers to claim that quantization damage depends on the workload.
Here the claim can be measured: every example is a prompt and the only right answer, so
accuracy is exact match and needs no judge.

    arithmetic   add and subtract two- and three-digit numbers
    intent       label a support ticket with its intent and its sentiment
    recall       find one value in a long list of pairs
    recommend    next product after the last purchase in a shopper's log
    sql          write the query that answers a question
    trading      turn indicator readings into a structured order

Train and held-out splits share no prompt: a digest of the prompt decides the split.
Nothing here needs torch.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

HELD_OUT_SHARE = 16  # one prompt in sixteen is held out


@dataclass(frozen=True)
class Example:
    """One prompt with its only right answer; the answer ends at the newline that follows it."""

    prompt: str
    answer: str


# --- arithmetic -----------------------------------------------------------------------------


def arithmetic(rng: random.Random) -> Example:
    """`347+285=` -> `632`. Subtractions never go below zero."""
    low, high = ((10, 99), (100, 999))[rng.random() < 0.6]
    a, b = rng.randint(low, high), rng.randint(low, high)
    if rng.random() < 0.5:
        return Example(f"{a}+{b}=", str(a + b))
    a, b = max(a, b), min(a, b)
    return Example(f"{a}-{b}=", str(a - b))


# --- intent ---------------------------------------------------------------------------------

PRODUCTS = (
    "lamp kettle tent mug sofa drill piano camera jacket boots tablet router desk chair blender "
    "guitar helmet watch printer speaker carpet mirror ladder pillow bottle scarf wallet basket "
    "candle puzzle radio skillet"
).split()

_ISSUES = {
    "refund": (
        "i want my money back for the {p}",
        "please return the payment for my {p}",
        "the {p} broke and i need a refund",
        "how do i get a refund for this {p}",
        "you charged me twice for the {p}",
    ),
    "delivery": (
        "my {p} has not arrived yet",
        "where is the {p} that i ordered",
        "the parcel with the {p} is late",
        "when will you ship my {p}",
        "tracking for the {p} shows nothing",
    ),
    "login": (
        "i cannot log in to register my {p}",
        "my password fails on the {p} page",
        "the account for my {p} is locked",
        "the {p} app rejects my login code",
        "i lost the password for the {p} app",
    ),
    "cancel": (
        "please cancel the order for the {p}",
        "i no longer want the {p}",
        "stop my subscription for the {p}",
        "do not send the {p}",
        "i ordered the {p} by mistake",
    ),
    "advice": (
        "which {p} fits a small flat",
        "can you compare this {p} with the older one",
        "is the {p} safe for children",
        "how do i clean the {p}",
        "what size of {p} should i take",
    ),
    "repair": (
        "the {p} stopped working after a week",
        "my {p} makes a strange noise",
        "can you fix a broken {p}",
        "i need a spare part for the {p}",
        "the {p} does not turn on",
    ),
}

_MOODS = {
    "positive": (
        "thanks , you have been great so far",
        "i am not unhappy at all",
        "so far i love this shop",
        "your team is never slow , well done",
        "not bad , quite good in fact",
        "i was angry but now i am happy",
    ),
    "negative": (
        "i am not happy at all",
        "this is the worst shop i know",
        "your team is never helpful",
        "not good , quite bad in fact",
        "i was happy but now i am angry",
        "i do not love this shop any more",
    ),
    "neutral": (
        "please answer when you can",
        "this is my first message",
        "i can send a photo",
        "my number is on file",
        "any day of the week is fine",
        "i bought it in the spring",
    ),
}

_NAMES = "ana ben chen dora eli fay gus hana ivan june karl lena max nora omar pia".split()


def intent(rng: random.Random) -> Example:
    """A support ticket -> its intent and its sentiment, negations included."""
    label, mood = rng.choice(list(_ISSUES)), rng.choice(list(_MOODS))
    parts = [rng.choice(_ISSUES[label]).format(p=rng.choice(PRODUCTS)), rng.choice(_MOODS[mood])]
    if rng.random() < 0.5:
        parts.reverse()
    return Example(f"ticket from {rng.choice(_NAMES)}: {'. '.join(parts)}.\nlabel:", f" {label} {mood}")


# --- recall ---------------------------------------------------------------------------------

KEYS = (
    "amber birch cedar delta ember fjord grove haven indigo jade karma lotus maple nova onyx pearl "
    "quartz ridge slate topaz umber violet willow xenon yarrow zephyr acorn basil coral daisy elm "
    "fern ginger hazel iris juniper kelp lilac mint nectar olive poppy quince rose sage thyme ultra "
    "vine wheat yucca zinnia alto bass chord drum echo flute gong harp lyre metro north orbit pixel"
).split()
VALUES = (
    "ant ape bat bear bee bird boar bull calf cat clam cod colt cow crab crane crow deer dog dove "
    "duck eel elk emu ewe finch fish flea fly fox frog gnat goat goose gull hare hawk hen heron hog "
    "horse hound ibex kite koi lamb lark lion lynx mink mole moth mouse mule newt otter owl ox panda "
    "pig puma rat swan toad"
).split()
RECALL_PAIRS = (8, 64)  # smallest and largest number of pairs in one prompt


def recall(rng: random.Random) -> Example:
    """A list of pairs, then one key -> its value. Up to 64 pairs, about 200 tokens."""
    return recall_many(rng, queries=1)[0]


def recall_many(
    rng: random.Random, queries: int, least: int = RECALL_PAIRS[0], most: int = RECALL_PAIRS[1]
) -> list[Example]:
    """One list of `least` to `most` pairs asked about up to `queries` times: training learns more from each list."""
    n = rng.randint(least, most)
    pairs = [(key, rng.choice(VALUES)) for key in rng.sample(KEYS, n)]
    memo = "memo:" + "".join(f" {key} {value};" for key, value in pairs)
    asked = rng.sample(pairs, min(queries, n))
    return [Example(f"{memo}\nask {key}", f" {value}") for key, value in asked]


# --- recommend ------------------------------------------------------------------------------

SHOPPERS = ("student", "parent", "tourist", "gamer")


def companions() -> dict[str, dict[str, str]]:
    """What each kind of shopper buys next: 4 x 32 facts that a model has to remember."""
    table = {}
    for shopper in SHOPPERS:
        order = list(PRODUCTS)
        random.Random(f"companions of {shopper}").shuffle(order)
        table[shopper] = dict(zip(order, order[1:] + order[:1], strict=True))
    return table


_COMPANIONS = companions()


def recommend(rng: random.Random) -> Example:
    """A log of views and purchases -> the companion of the last purchase for this shopper."""
    shopper = rng.choice(SHOPPERS)
    items = rng.sample(PRODUCTS, rng.randint(4, 9))
    actions = [rng.choice(("view", "view", "buy")) for _ in items]
    actions[rng.randrange(len(items))] = "buy"
    last = max(i for i, action in enumerate(actions) if action == "buy")
    log = ", ".join(f"{action} {item}" for action, item in zip(actions, items, strict=True))
    return Example(f"log {shopper}: {log}.\nnext:", f" {_COMPANIONS[shopper][items[last]]}")


# --- sql ------------------------------------------------------------------------------------

_TABLES: dict[str, dict[str, tuple[str, ...]]] = {
    # table: {column: text values, or () for a number}
    "users": {"age": (), "visits": (), "city": ("paris", "tokyo", "lima", "cairo"), "plan": ("free", "pro", "team")},
    "orders": {"total": (), "items": (), "status": ("open", "paid", "shipped"), "country": ("france", "japan", "peru")},
    "products": {"price": (), "stock": (), "color": ("red", "blue", "green"), "brand": ("acme", "zenith", "orion")},
    "trips": {
        "distance": (),
        "cost": (),
        "city": ("paris", "tokyo", "lima", "cairo"),
        "mode": ("bus", "train", "bike"),
    },
}
_AGGREGATES = {
    "average": "AVG",
    "highest": "MAX",
    "lowest": "MIN",
    "total of all": "SUM",
}
_COMPARISONS = {"above": ">", "below": "<", "at least": ">=", "at most": "<="}


def sql(rng: random.Random) -> Example:
    """A question about one table -> the query, with up to two conditions and an order."""
    table = rng.choice(list(_TABLES))
    columns = _TABLES[table]
    numbers = [c for c, values in columns.items() if not values]
    words, where = [], []
    for column in rng.sample(list(columns), rng.randint(1, 2)):
        if columns[column]:
            value = rng.choice(columns[column])
            words.append(f"{column} {value}")
            where.append(f"{column} = '{value}'")
        else:
            phrase, limit = rng.choice(list(_COMPARISONS)), rng.randint(2, 99)
            words.append(f"{column} {phrase} {limit}")
            where.append(f"{column} {_COMPARISONS[phrase]} {limit}")
    condition = " AND ".join(where)
    kind = rng.random()
    if kind < 0.3:
        ask, select, tail = f"how many {table}", "COUNT(*)", ""
    elif kind < 0.65:
        phrase, column = rng.choice(list(_AGGREGATES)), rng.choice(numbers)
        ask, select, tail = f"{phrase} {column} of {table}", f"{_AGGREGATES[phrase]}({column})", ""
    else:
        column, way, n = rng.choice(numbers), rng.choice(("most", "least")), rng.randint(2, 9)
        ask, select = f"the {n} {table} with the {way} {column}", "*"
        tail = f" ORDER BY {column}{' DESC' if way == 'most' else ''} LIMIT {n}"
    return Example(
        f"question: {ask} where {' and '.join(words)}?\nsql:", f" SELECT {select} FROM {table} WHERE {condition}{tail};"
    )


# --- trading --------------------------------------------------------------------------------

_TICKERS = "ACME ORCA NOVA LYNX TERN ZINC".split()
_SIZES = {"low": 30, "mid": 20, "high": 10}


def trading(rng: random.Random) -> Example:
    """Price, moving average, RSI and volatility -> side, size and stop.

    Buy when oversold (RSI < 30) above the average, sell when overbought (RSI > 70) below it,
    else hold; the size falls with volatility and the stop is the average.
    """
    average = rng.randint(150, 850)
    price = max(100, min(999, average + rng.choice((-1, 1)) * rng.randint(1, 120)))
    rsi = rng.choice((rng.randint(10, 29), rng.randint(30, 70), rng.randint(71, 90)))
    volatility = rng.choice(list(_SIZES))
    side = "hold"
    if rsi < 30 and price > average:
        side = "buy"
    if rsi > 70 and price < average:
        side = "sell"
    order = "hold" if side == "hold" else f"{side} size={_SIZES[volatility]} stop={average}"
    return Example(
        f"signal {rng.choice(_TICKERS)} price={price} average={average} rsi={rsi} volatility={volatility}\norder:",
        f" {order}",
    )


# --- all of them ----------------------------------------------------------------------------

WORKLOADS: dict[str, Callable[[random.Random], Example]] = {
    "arithmetic": arithmetic,
    "intent": intent,
    "recall": recall,
    "recommend": recommend,
    "sql": sql,
    "trading": trading,
}


def is_held_out(prompt: str) -> bool:
    """Whether this prompt belongs to the held-out split: decided by its digest alone."""
    return hashlib.blake2b(prompt.encode(), digest_size=4).digest()[0] % HELD_OUT_SHARE == 0


def stream(name: str, split: str = "held-out", seed: int | str = 0) -> Iterator[Example]:
    """Endless examples of one workload and split ("train" or "held-out"), the same for a seed."""
    if name not in WORKLOADS:
        raise ValueError(f"workload {name!r} is unknown; choose one of {', '.join(WORKLOADS)}")
    if split not in ("train", "held-out"):
        raise ValueError(f"split must be 'train' or 'held-out', not {split!r}")
    rng = random.Random(f"{name}/{split}/{seed}")
    while True:
        example = WORKLOADS[name](rng)
        if is_held_out(example.prompt) == (split == "held-out"):
            yield example


def examples(name: str, n: int, split: str = "held-out", seed: int | str = 0) -> list[Example]:
    """The first `n` distinct examples of a workload: no prompt comes twice."""
    distinct: dict[str, Example] = {}
    for example in stream(name, split, seed):
        if len(distinct) >= n:
            break
        distinct.setdefault(example.prompt, example)
    return list(distinct.values())
