"""Every question of the choice is decided by a number that others compute, too; no choice meets an obstacle."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from dataclasses import replace

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
from qlab.deploy.speed.phases import crossover, decode

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
            GPUS, ("Llama-3.1-8B", "Llama-3-70B"), (1, 32, 512), ((128, 512), (3000, 100)), (True, False), (0.005, 0.02)
        )
    ]


def test_what_is_chosen_is_an_option_and_every_answer_has_its_number() -> None:
    for situation in every():
        decision = choose(situation)
        if decision.method is not None:
            assert obstacle(situation, decision.method) is None, situation
        for step in decision.steps:
            assert step.question.endswith("?") and step.answer and step.why


def test_nothing_is_left_only_where_16_bits_are_no_option() -> None:
    for situation in every():
        if choose(situation).method is None:
            assert obstacle(situation, REFERENCE) == "does not fit"


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


@pytest.mark.parametrize(
    ("situation", "method"),
    [
        (replace(FEW, most_lost=1.0), "the 4-bit method with the least KL"),
        (replace(FEW, most_lost=1.0, calibration=False), "INT4 g128"),
        (replace(FEW, most_lost=0.0), REFERENCE),
        (replace(FEW, gpu="V100-32GB", most_lost=1.0), REFERENCE),
        (replace(PROMPT, most_lost=1.0), "W8A8"),
        (replace(PROMPT, most_lost=1.0, gpu="H100-80GB"), "FP8"),
        (replace(PROMPT, most_lost=1.0, gpu="B200"), "FP8"),
        (replace(PROMPT, most_lost=0.0), REFERENCE),
        (Situation(batch=128, prompt=128, output=512, most_lost=1.0), "W8A8"),
        (Situation(gpu="T4", model="Llama-3-70B"), None),
    ],
)
def test_the_leaves(situation: Situation, method: str | None) -> None:
    if method == "the 4-bit method with the least KL":
        method = min(FOUR_BITS, key=lambda name: quality().method(name).kl)
    assert choose(situation).method == method


ALL = (*FOUR_BITS, "INT8 channel", "W8A8", REFERENCE)


@pytest.mark.parametrize(
    ("bad", "method"),
    [(FOUR_BITS, "W8A8"), ((*FOUR_BITS, "W8A8"), "INT8 channel"), ((*FOUR_BITS, "W8A8", "INT8 channel"), REFERENCE)],
)
def test_the_next_one_where_the_first_lose_too_much(bad: tuple[str, ...], method: str) -> None:
    answers = {name: {"sql": LOSES if name in bad else KEEPS} for name in ALL}
    found = choose(FEW, table(**answers))
    assert found.method == method
    asked = [step.answer for step in found.steps if "floor" in step.question]
    assert asked == (["no", "yes"] if method == "W8A8" else ["no", "no", "yes"] if method != REFERENCE else ["no"] * 3)


def test_8_bit_weights_for_prompts_only_where_16_bits_do_not_fit() -> None:
    answers = table(**{name: {"sql": LOSES if name == "W8A8" else KEEPS} for name in ALL})
    assert choose(PROMPT, answers).method == REFERENCE
    assert choose(replace(PROMPT, gpu="T4"), answers).method == "INT8 channel"


def test_only_the_best_4_bit_method_is_asked() -> None:
    """Another one that would pass is not tried: the first to pass of several noisy ones is no evidence."""
    best = four_bits(FEW)
    answers = table(**{name: {"sql": LOSES if name == best else KEEPS} for name in ALL})
    assert obstacle(FEW, next(name for name in FOUR_BITS if name != best), answers) is None
    assert choose(FEW, answers).method == "W8A8"


def test_where_only_4_bits_fit_they_are_taken_even_for_prompts() -> None:
    situation = Situation(gpu="L4", model="Llama-3-70B", gpus=2, batch=1, prompt=2000, output=10, most_lost=1.0)
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


@pytest.mark.parametrize("where", ["T4", "A100-80GB", "H100-80GB"])
def test_break_even_is_where_decode_changes_sides(where: str) -> None:
    situation = Situation(gpu=where)
    even = break_even(situation)
    eight = arithmetic(situation)
    assert eight is not None

    def overtaken(batch: int) -> bool:
        context = situation.prompt + situation.output / 2
        wide, narrow = (
            decode(situation.model, name, where, batch, context).seconds for name in (PRECISIONS[eight], "int4-g128")
        )
        return wide <= narrow

    assert overtaken(int(even)) and not overtaken(int(even) - 1)
    assert break_even(situation, "datasheet") == crossover(where, 8)


def test_no_8_bit_arithmetic_no_break_even() -> None:
    assert arithmetic(Situation(gpu="V100-32GB")) is None
    assert break_even(Situation(gpu="V100-32GB")) == math.inf


@pytest.mark.parametrize("where", GPUS)
def test_arithmetic_is_what_has_kernels(where: str) -> None:
    found = arithmetic(Situation(gpu=where))
    for name in ("FP8", "W8A8"):
        if missing(PRECISIONS[name], gpu(where)) is None:
            assert found == ("FP8" if missing("fp8", gpu(where)) is None else "W8A8")


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


def test_bad_situations() -> None:
    with pytest.raises(ValueError, match="most_lost: got 2"):
        Situation(most_lost=2)
    with pytest.raises(ValueError, match="batch"):
        Situation(batch=0)
    with pytest.raises(ValueError, match="workloads: got chat"):
        choose(Situation(workloads=("chat",)))


def test_in_words() -> None:
    lines = str(choose(FEW)).splitlines()
    assert lines[0].startswith("What fits? 16 bits: ") and lines[-1].startswith("-> ")
    assert str(choose(Situation(gpu="T4", model="Llama-3-70B"))).endswith("-> nothing is left")


def test_a_choice_needs_neither_torch_nor_numpy() -> None:
    code = "import sys, qlab.deploy.planning.choosing as c; c.choose(c.Situation()); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "matplotlib"} & set(loaded)
