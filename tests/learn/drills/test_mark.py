"""Marking: what is right, which mistake a wrong number looks like, and what cannot be judged without another word."""

from __future__ import annotations

import pytest

from qlab.learn.drills import Drill, judge


def numeric(answer: float, unit: str = "GB", tolerance: float = 0.02, **parts: object) -> Drill:
    from qlab.learn.drills.kind import with_unit

    worked = ("a", "b", with_unit(answer, unit, whole=tolerance == 0))
    return Drill("?", answer, worked, unit, tolerance=tolerance, **parts)  # type: ignore[arg-type]


def choice() -> Drill:
    choices = ("A100-40GB", "H100-80GB", "H100-PCIe-80GB", "T4")
    return Drill("?", "H100-80GB", ("a", "b", "B) H100-80GB"), choices=choices)


@pytest.mark.parametrize(
    "reply",
    [
        "39.5", "39.5 GB", "39.5GB", "about 39.52 gb", "36.8 GiB", "0.0395 TB", "39,516 MB", "39.0 to 39.6 GB",
        "316 Gbit", "4.94 + 34.58 = 39.52", "it is ~40 GB",
    ],
)  # fmt: skip
def test_right_in_any_unit_and_any_words(reply: str) -> None:
    assert judge(numeric(39.516), reply).right


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        ("316", "8 times too much: bits were counted as bytes"),
        ("4.94 GB", "an eighth: bytes were counted as bits"),
        ("36.8 GB", "That is the number of GiB"),
        ("42.4 GB", "1.074 times too much, the ratio of a GiB to a GB"),
        ("39.5 MB", "power of 1,000"),
        ("79 GB", "twice as much"),
        ("19.8", "half: a factor of 2 is missing"),
        ("45 GB", "too high by 14 %"),
        ("35 GB", "No. You left out the scales."),
        ("4000", "too high by a factor of 101"),
        ("-39.5", "above zero"),
        ("0", "above zero"),
    ],
)
def test_the_likely_mistake_is_named(reply: str, says: str) -> None:
    marked = judge(numeric(39.516, slips={"You left out the scales.": 35.0}), reply)
    assert not marked.right and not marked.again and says in marked.why


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        ("36.8", "In which unit is that? The answer is wanted in GB"),
        ("39516", "In which unit is that?"),
        ("39.5 ms", "39.5 ms has another unit; the answer is wanted in GB"),
        ("30-50 GB", "Give one number"),
        ("much", "holds no number"),
        ("39,5", "write a point for decimals"),
        ("39 or 40", "give one number"),
        ("40 Gb", "write GB or Gbit"),
    ],
)
def test_what_cannot_be_judged_is_asked_again(reply: str, says: str) -> None:
    marked = judge(numeric(39.516), reply)
    assert marked.again and not marked.right and says in marked.why


def test_nobody_has_to_repeat_what_it_is_counted_by() -> None:
    assert judge(numeric(4.125, "bit/weight", 0.005), "4.125 bits").right
    assert judge(numeric(4.125, "bit/weight", 0.005), "4.125 bits per weight").right
    assert judge(numeric(3.2, "USD/million tokens"), "$3.20").right
    assert judge(numeric(3.2, "USD/million tokens"), "$3.20 per million tokens").right
    assert judge(numeric(3.2, "USD/million tokens"), "$3,200 per billion tokens").right
    assert judge(numeric(120.0, "token/s"), "120 tokens").right
    assert judge(numeric(120.0, "token/s"), "0.12 tokens per ms").right
    assert judge(numeric(120.0, "token/s"), "120 GB").again


def test_factors_and_percents_are_one_thing() -> None:
    assert judge(numeric(0.25, "x"), "25 %").right and judge(numeric(25.0, "%"), "a quarter of it").right
    assert judge(numeric(4.0, "x"), "fourfold").right and judge(numeric(4.0, "x"), "4").right
    assert "as a factor, such as 2x" in judge(numeric(0.25, "x"), "25").why
    assert judge(numeric(28.0, "%"), "0.28").again


@pytest.mark.parametrize("reply", ["7", "7 requests", "7 users", "seven"])
def test_counts_are_exact(reply: str) -> None:
    drill = numeric(7, "request", 0)
    assert judge(drill, reply).right
    assert "one less" in judge(drill, "8").why and "one more" in judge(drill, "6").why
    assert not judge(drill, "7.1").right and judge(drill, "7 GPUs").again


def test_a_bare_number_has_no_unit() -> None:
    assert judge(numeric(11, "", 0), "11").right and judge(numeric(11, "", 0), "code 11").right
    assert "as a bare number" in judge(numeric(11, "", 0), "11 bits").why
    assert "8 times" not in judge(numeric(11, "", 0), "88").why


@pytest.mark.parametrize("reply", ["B", "b", "b)", "(B)", "B.", "H100-80GB", "h100-80gb", "B) H100-80GB"])
def test_choices_by_letter_and_by_text(reply: str) -> None:
    assert judge(choice(), reply).right


def test_a_part_of_a_choice_does_where_it_is_clear() -> None:
    assert judge(choice(), "pcie").why == "No, it is B) H100-80GB"
    assert judge(choice(), "A").why == judge(choice(), "a100").why == "No, it is B) H100-80GB"
    assert judge(choice(), "h100").again and judge(choice(), "E").again and judge(choice(), "B200").again


@pytest.mark.parametrize("reply", ["", "  ", "?", "??"])
def test_no_answer_is_a_miss(reply: str) -> None:
    for drill in (numeric(4.0), choice()):
        assert judge(drill, reply).why == "You gave no answer."
