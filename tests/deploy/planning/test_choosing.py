"""Every question of the choice is decided by a number that others compute, too; no choice meets an obstacle."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from qlab.deploy import fits, gpu, spec
from qlab.deploy.planning.choosing import (
    FOUR_BITS,
    PRECISIONS,
    Situation,
    arithmetic,
    break_even,
    choose,
    four_bits,
    most_lost,
    obstacle,
    request_seconds,
    seconds,
)
from qlab.deploy.planning.support import missing
from qlab.deploy.quality.measured import REFERENCE, Answers, Quality, quality

FLOORS = (0.005, 0.008, 0.01, 0.02)
GPUS = ("T4", "V100-32GB", "A100-80GB", "H100-80GB", "B200")
FEW = Situation(batch=4)  # bytes are the limit
PROMPT = Situation(prompt=3000, output=100)  # arithmetic is
LOSES, KEEPS = "0" * 30 + "1" * 470, "1" * 500


def table(**right: dict[str, str]) -> Quality:
    """Answers by hand, {method: {workload: digits}}, 1 for right; everything else is nano's."""
    known = quality()
    methods = {
        name: replace(
            known.methods[name],
            answers={
                w: Answers(tuple(d == "1" for d in ds), (True,) * len(ds), (1.0,) * len(ds)) for w, ds in by.items()
            },
        )
        for name, by in right.items()
    }
    lengths = {w: (5,) * len(ds) for w, ds in right[REFERENCE].items()}
    return Quality(methods, lengths, {})


def every() -> list[Situation]:
    return [
        Situation(gpu=g, model=model, batch=batch, prompt=prompt, output=output, calibration=known, most_lost=floor)
        for g, model, batch, (prompt, output), known, floor in itertools.product(
            GPUS, ("Llama-3.1-8B", "Llama-3-70B"), (1, 32, 512), ((128, 512), (3000, 100)), (True, False), FLOORS
        )
    ]


def test_what_is_chosen_is_an_option_and_every_answer_has_its_number() -> None:
    for situation in every():
        decision = choose(situation)
        if decision.method is not None:
            assert obstacle(situation, decision.method) is None, situation
        for step in decision.steps:
            assert step.question.endswith("?") and step.answer and step.why and step.number


def test_nothing_is_left_only_where_nothing_is_an_option() -> None:
    for situation in every():
        if choose(situation).method is None:
            assert all(obstacle(situation, name) for name in (REFERENCE, *PRECISIONS)), situation


def test_no_option_is_faster_than_the_choice() -> None:
    """Methods of one kind take the same time but for a part in a thousand; 2 % off would be another kind."""
    for situation in every():
        options = [name for name in (REFERENCE, *PRECISIONS) if obstacle(situation, name) is None]
        if options:
            times = {name: seconds(situation, name) for name in options}
            assert times[str(choose(situation).method)] < 1.001 * min(times.values()), situation


def test_calibration_data_never_makes_it_worse() -> None:
    """Neither slower, nor nothing where there was something; and of two 4-bit methods the one with no more KL."""
    known = quality()
    for situation in every():
        without = choose(replace(situation, calibration=False)).method
        if not situation.calibration or without is None:
            continue
        found = choose(situation).method
        assert found is not None, situation
        assert seconds(situation, found) <= 1.001 * seconds(situation, without), situation
        if {found, without} <= set(FOUR_BITS):
            assert known.method(found).kl <= known.method(without).kl


def test_a_path_is_decided_by_its_answers() -> None:
    """The same answers lead to the same question, and at last to the same kind of method: it is a tree."""
    following: dict[tuple[tuple[str, str], ...], set[str]] = {}
    for situation in every():
        asked: tuple[tuple[str, str], ...] = ()
        decision = choose(situation)
        for step in decision.steps:
            following.setdefault(asked, set()).add(step.question)
            asked += ((step.question, step.answer),)
        following.setdefault(asked, set()).add(decision.method or "nothing")
    assert all(len(found) == 1 for found in following.values())


ANY = 0.5  # a floor that nothing of the table misses


@pytest.mark.parametrize(
    ("situation", "method"),
    [
        (replace(FEW, most_lost=ANY), "the 4-bit method with the least KL"),
        (replace(FEW, most_lost=ANY, calibration=False), "INT4 g128"),
        (replace(FEW, most_lost=0.0), REFERENCE),
        (replace(FEW, gpu="V100-32GB", most_lost=ANY), REFERENCE),
        (replace(PROMPT, most_lost=ANY), "W8A8"),
        (replace(PROMPT, most_lost=ANY, gpu="H100-80GB"), "FP8"),
        (replace(PROMPT, most_lost=ANY, gpu="B200"), "FP8"),
        (replace(PROMPT, most_lost=0.0), REFERENCE),
        (Situation(batch=128, prompt=128, output=512, most_lost=ANY), "W8A8"),
        (Situation(gpu="T4", model="Llama-3-70B"), None),
    ],
)
def test_the_leaves(situation: Situation, method: str | None) -> None:
    if method == "the 4-bit method with the least KL":
        method = min(FOUR_BITS, key=lambda name: quality().method(name).kl)
    assert choose(situation).method == method


ALL = (*FOUR_BITS, "INT8 channel", "W8A8", "FP8", REFERENCE)


def only_bad(*bad: str) -> Quality:
    """A table in which these methods lose 30 answers of SQL, and no other loses any."""
    return table(**{name: {"sql": LOSES if name in bad else KEEPS} for name in ALL})


@pytest.mark.parametrize("failing", range(4))
def test_4_bit_methods_are_tried_by_kl_and_all_of_them(failing: int) -> None:
    order = four_bits(FEW)
    assert [quality().method(name).kl for name in order] == sorted(quality().method(name).kl for name in FOUR_BITS)
    found = choose(FEW, only_bad(*order[:failing]))
    assert found.method == (*order, "W8A8")[failing]
    assert found.tried == (*order, "W8A8")[: failing + 1]


@pytest.mark.parametrize("where", ["A100-80GB", "H100-80GB", "B200"])
def test_8_bit_arithmetic_is_tried_in_floats_then_in_integers(where: str) -> None:
    situation = replace(PROMPT, gpu=where)
    fast = arithmetic(situation)
    assert fast == {"A100-80GB": ("W8A8",), "H100-80GB": ("FP8", "W8A8"), "B200": ("FP8",)}[where]
    for count in range(len(fast)):
        assert choose(situation, only_bad(*fast[:count])).method == fast[count]
    left = choose(situation, only_bad(*fast))
    assert left.steps[-1].question != "8-bit arithmetic within the floor?" and left.method not in fast


@pytest.mark.parametrize("situation", [PROMPT, replace(PROMPT, gpu="B200"), Situation(prompt=2000, output=4, batch=64)])
def test_without_8_bit_arithmetic_the_computed_time_decides(situation: Situation) -> None:
    answers = only_bad(*arithmetic(situation))
    found = choose(situation, answers)
    options = [name for name in (REFERENCE, *PRECISIONS) if obstacle(situation, name, answers) is None]
    fastest = min(options, key=lambda name: seconds(situation, name))
    assert found.method == (four_bits(situation)[0] if fastest in FOUR_BITS else fastest)
    [step] = [one for one in found.steps if one.question == "Fastest of the rest?"]
    assert set(step.answer.split(", ")) == {"16 bits", "8-bit weights", "4 bits"}


def test_few_requests_get_8_bit_weights_where_all_faster_ones_fail() -> None:
    failing = (*FOUR_BITS, "W8A8")
    assert choose(FEW, only_bad(*failing)).method == "INT8 channel"
    assert choose(FEW, only_bad(*failing, "INT8 channel")).method == REFERENCE
    assert choose(FEW, only_bad(*failing, "INT8 channel")).tried == (*four_bits(FEW), "W8A8", "INT8 channel")


def test_where_only_4_bits_fit_they_are_taken_even_for_prompts() -> None:
    situation = Situation(gpu="L4", model="Llama-3-70B", gpus=2, batch=1, prompt=2000, output=10, most_lost=ANY)
    assert not fits("Llama-3-70B", "L4", precision="int8-channel", batch=1, context=2010, tensor_parallel=2).fits
    assert choose(situation).steps[0].answer == "4 bits"
    assert choose(situation).method in FOUR_BITS


def test_the_data_sheet_by_hand() -> None:
    """8e9 weights and some: 2P operations for a token at 312 T, 2P bytes at 2,039 GB/s shared by the batch."""
    model = spec("Llama-3.1-8B")
    weights = sum(m.copies * m.rows * m.columns for m in model.matrices()) + math.prod(model.embedding_shape)
    prompt, tokens = request_seconds(Situation(batch=8, prompt=512, output=256))
    assert prompt == pytest.approx(512 * 2 * weights / 312e12)
    assert tokens == pytest.approx(256 * 2 * weights / (8 * 2039e9))
    assert request_seconds(Situation(batch=8, gpus=2, prompt=512, output=256))[0] == pytest.approx(prompt / 2)
    _, busy = request_seconds(Situation(batch=1000, prompt=512, output=256))
    assert busy == pytest.approx(256 * 2 * weights / 312e12)  # arithmetic is the limit


@pytest.mark.parametrize("kernels", ["server", "datasheet"])
@pytest.mark.parametrize("where", ["T4", "A100-80GB", "H100-80GB"])
def test_break_even_is_where_a_whole_request_changes_sides(where: str, kernels: str) -> None:
    situation = Situation(gpu=where)
    even = int(break_even(situation, kernels))

    def overtaken(batch: int) -> bool:
        here = replace(situation, batch=batch)
        return seconds(here, arithmetic(here)[0], kernels) <= seconds(here, "INT4 g128", kernels)

    assert [overtaken(batch) for batch in range(1, 2 * even)] == [batch >= even for batch in range(1, 2 * even)]


def test_break_even_by_hand() -> None:
    """Tokens take twice the prompt at (output / prompt) · rate / (2 · bandwidth) requests, without cache and heads."""
    even = break_even(Situation(prompt=512, output=256), "datasheet")
    assert even == pytest.approx(0.5 * 312e12 / (2 * 2039e9), rel=0.05)


def test_no_8_bit_arithmetic_no_break_even() -> None:
    assert arithmetic(Situation(gpu="V100-32GB")) == () == four_bits(Situation(gpu="V100-32GB"))
    assert break_even(Situation(gpu="V100-32GB")) == math.inf


@pytest.mark.parametrize("where", GPUS)
def test_arithmetic_is_what_has_kernels(where: str) -> None:
    expected = [name for name in ("FP8", "W8A8") if missing(PRECISIONS[name], gpu(where)) is None]
    assert list(arithmetic(Situation(gpu=where))) == expected
    if expected:
        [step] = [one for one in choose(Situation(gpu=where)).steps if one.question == "Kernels?"]
        assert ("INT8" in step.answer, "FP8" in step.answer) == ("W8A8" in expected, "FP8" in expected)


def test_the_bound_is_the_worst_workload_of_those_that_matter() -> None:
    answers = {
        REFERENCE: {"sql": "1" * 100, "intent": "1" * 100},
        "W8A8": {"sql": "0" * 10 + "1" * 90, "intent": "1" * 100},
    }
    bound, worst = most_lost("W8A8", (), table(**answers))
    assert worst == "sql" and 0.10 < bound < 0.20
    easy, only = most_lost("W8A8", ("intent",), table(**answers))
    assert only == "intent" and 0 < easy < 0.05  # nothing flipped, and 100 examples do not show that nothing would
    assert most_lost(REFERENCE)[0] == 0


def test_workloads_with_the_same_bound_are_all_named_or_counted() -> None:
    same = {name: dict.fromkeys(("sql", "intent", "recall"), "1" * 100) for name in (REFERENCE, "W8A8")}
    assert most_lost("W8A8", (), table(**same))[1] == "3 workloads alike"
    assert most_lost("W8A8", ("sql", "recall"), table(**same))[1] == "sql and recall"


def test_obstacles_in_words() -> None:
    assert obstacle(FEW, "NF4") == "no server kernels"
    assert obstacle(FEW, "FP8") == "no kernels on this GPU"
    assert obstacle(replace(FEW, gpu="T4"), REFERENCE) == "does not fit"
    assert obstacle(replace(FEW, calibration=False), "GPTQ INT4 g128") == "needs calibration data"
    assert str(obstacle(replace(FEW, most_lost=0.0), "INT4 g128")).startswith("may lose ")


def test_seconds_see_bytes_and_prompts() -> None:
    assert seconds(FEW, "INT4 g128") < seconds(FEW, "INT8 channel") < seconds(FEW, REFERENCE)
    assert seconds(PROMPT, "W8A8") < seconds(PROMPT, REFERENCE) < seconds(PROMPT, "INT4 g128")
    with pytest.raises(ValueError, match="method: servers have no fast kernels for 'NF4'"):
        seconds(FEW, "NF4")


@pytest.mark.parametrize(
    ("field", "value", "error", "message"),
    [
        ("most_lost", 1, ValueError, "most_lost: got 1; allowed is 0 to 0.5"),
        ("most_lost", -0.01, ValueError, "most_lost: got -0.01"),
        ("most_lost", math.nan, ValueError, "most_lost: got nan"),
        ("most_lost", "2 points", TypeError, "most_lost: got '2 points'; give a number"),
        ("most_lost", True, TypeError, "most_lost: got True"),
        ("calibration", "no", TypeError, "calibration: got 'no'; give True or False"),
        ("workloads", "sql", TypeError, r"workloads: got 'sql'; give a tuple of names such as \('sql',\)"),
        ("workloads", (1,), TypeError, r"workloads: got \(1,\)"),
        ("batch", 0, ValueError, "batch"),
    ],
)
def test_bad_situations(field: str, value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Situation(**{field: value})


@pytest.mark.parametrize("where", ["A100-80GB", "V100-32GB"])
def test_an_unknown_workload_is_refused_before_anything_is_asked(where: str) -> None:
    with pytest.raises(ValueError, match="workloads: got chat; choose from"):
        choose(Situation(gpu=where, workloads=("chat",)))


def test_in_words() -> None:
    lines = str(choose(FEW)).splitlines()
    assert lines[0].startswith("What fits? 16 bits: ") and lines[-1].startswith("-> ")
    assert str(choose(Situation(gpu="T4", model="Llama-3-70B"))).endswith("-> nothing is left")


def test_a_choice_needs_neither_torch_nor_numpy() -> None:
    code = "import sys, qlab.deploy.planning.choosing as c; c.choose(c.Situation()); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "matplotlib"} & set(loaded)
