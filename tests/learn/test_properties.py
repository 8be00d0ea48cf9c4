"""The building blocks of properties: what they let pass, what they refuse, and what they say."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qlab.learn import properties as p
from qlab.learn.observe import Foreign, plain
from qlab.learn.question import Finding

NOT_NUMBERS = [None, True, "3", (), (3,), {}, Foreign("complex"), torch.zeros(2), torch.tensor(True), torch.tensor(1j)]
NOT_FINITE = [math.nan, math.inf, -math.inf, 10**400, torch.tensor(math.nan)]


def what(finding: Finding | None) -> str:
    assert finding is not None, "it passes"
    return finding.what


# --- shapes and types -------------------------------------------------------------------------------------------------


def test_parts() -> None:
    assert p.parts((1, 2), "codes", "scale") is None
    assert what(p.parts((1, 2, 3), "codes", "scale")) == "the function returns 3 values; return 2: codes, scale"
    assert what(p.parts(torch.zeros(2), "codes", "scale")).startswith("the function returns a tensor (2,); return 2")
    assert what(p.parts(3, "codes", "scale")).startswith("the function returns an int;")
    assert what(p.parts(plain([1]), "codes", "scale")).startswith("the function returns 1 values")


@pytest.mark.parametrize("shape", [(3, 1), (1, 3), (1,), (), (6,), (0,)])
def test_a_tensor_of_a_shape_that_would_broadcast_is_refused(shape: tuple[int, ...]) -> None:
    got, expected = torch.zeros(shape, dtype=torch.uint8), torch.zeros(3, dtype=torch.uint8)
    one = torch.tensor(1.0)
    assert f"the shape is {shape}; it must be (3,)" in what(p.tensor(got, "codes", torch.uint8, (3,)))
    assert "the shape is" in what(p.equal(got, "codes", expected))
    assert "the shape is" in what(p.equal_bytes(got, "codes", expected))
    assert "the shape is" in what(p.codes_near(got, "codes", expected, 0, 15))
    assert "the shape is" in what(p.values_near(got.float(), "values", expected.float(), one, one))


@pytest.mark.parametrize("got", [None, 3, (1, 2, 3), Foreign("list"), "tensor"])
def test_what_is_no_tensor_is_refused_in_words(got: Any) -> None:
    expected, one = torch.zeros(3), torch.tensor(1.0)
    findings = [
        p.tensor(got, "codes", torch.uint8, (3,)),
        p.equal(got, "codes", expected),
        p.codes_between(got, "codes", 0, 15),
        p.codes_near(got, "codes", expected, 0, 15),
        p.values_near(got, "codes", expected, one, one),
    ]
    assert all("came back; return a tensor" in what(finding) for finding in findings)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.int64, torch.float32, torch.bool])
def test_the_type_is_named(dtype: torch.dtype) -> None:
    finding = p.tensor(torch.zeros(3, dtype=dtype), "codes", torch.uint8, (3,))
    assert what(finding) == f"codes: the dtype is {str(dtype).removeprefix('torch.')}; it must be uint8"


# --- numbers ----------------------------------------------------------------------------------------------------------

NUMBER_CHECKS: list[Callable[[Any], Finding | None]] = [
    lambda got: p.number(got, "scale"),
    lambda got: p.positive(got, "scale"),
    lambda got: p.whole_number(got, "scale"),
    lambda got: p.number_near(got, "scale", 3.0, 0.01),
    lambda got: p.whole_number_is(got, "scale", 3),
]


@pytest.mark.parametrize("check", NUMBER_CHECKS)
def test_numbers_in_all_forms(check: Callable[[Any], Finding | None]) -> None:
    for got in (3, 3.0, torch.tensor(3), torch.tensor([3.0]), torch.tensor([[3.0]]), plain(Fraction(3))):
        assert check(got) is None
    for got in NOT_NUMBERS:
        assert "came back; return one number" in what(check(got))
    for got in NOT_FINITE:
        assert "it must be finite" in what(check(got))


def test_positive_and_whole() -> None:
    assert "above zero" in what(p.positive(0, "scale"))
    assert "above zero" in what(p.positive(-1e-9, "scale"))
    assert "whole number" in what(p.whole_number(2.5, "bytes"))
    assert "whole number" in what(p.whole_number_is(2.5, "bytes", 2))
    assert p.whole_number(1e20, "bytes") is None


def test_number_near_reports_the_factor_and_the_share() -> None:
    assert p.number_near(101, "cache", 100, 0.01) is None and p.number_near(99, "cache", 100, 0.01) is None
    finding = p.number_near(200.0, "cache", 100.0, 0.01, "bytes")
    assert what(finding) == "cache is off by a factor of 2"
    assert finding is not None
    assert (finding.expected, finding.got) == ("100 bytes", "200 bytes")
    assert (finding.error, finding.bound) == (None, None), "the factor has said it"
    near = p.number_near(102.0, "cache", 100.0, 0.01)
    assert near is not None and near.what == "cache is off"
    assert (near.error, near.bound, near.unit) == (pytest.approx(2.0), 1.0, "%")
    assert what(p.number_near(-200, "cache", 100, 0.01)) == "cache is off"
    assert p.number_near(0.0, "cache", 0.0, 0.01) is None and p.number_near(1e-9, "cache", 0.0, 0.01) is not None
    assert p.number_near(-99.5, "mean", -100.0, 0.01) is None


def test_whole_number_is_exact_where_floats_still_are() -> None:
    assert p.whole_number_is(2.0**50, "bytes", 2**50) is None
    finding = p.whole_number_is(2**50 + 1, "bytes", 2**50, "bytes")
    assert finding is not None and finding.what == "bytes is off by 1 byte"
    assert (finding.expected, finding.got) == ("1,125,899,906,842,624 bytes", "1,125,899,906,842,625 bytes")
    assert p.whole_number_is(10**30, "bytes", 10**30) is None
    assert p.whole_number_is(10**30 + 1, "bytes", 10**30) is not None


# --- codes ------------------------------------------------------------------------------------------------------------


def test_codes_between() -> None:
    codes = torch.tensor([[0, 15], [16, 3]], dtype=torch.uint8)
    assert p.codes_between(codes[:1], "codes", 0, 15) is None
    finding = p.codes_between(codes, "codes", 0, 15)
    assert finding == Finding("codes: 1 of 4 is outside 0 to 15", (1, 0), "0 to 15", "16")
    assert p.codes_between(torch.tensor([1.0, math.nan]), "codes", 0, 15) is not None
    assert p.codes_between(torch.tensor([15.4]), "codes", 0, 15) is not None
    assert p.codes_between(torch.tensor(-1), "codes", 0, 15).index == ()  # type: ignore[union-attr]
    assert p.codes_between(torch.zeros(0), "codes", 0, 15) is None


@given(st.integers(0, 14), st.integers(-3, 17), st.sampled_from([torch.uint8, torch.int8, torch.int64]))
def test_a_tie_may_go_either_way_and_no_further(low: int, code: int, dtype: torch.dtype) -> None:
    """Between two codes, both are nearest; nothing else is."""
    if code < 0 and dtype == torch.uint8:
        return
    finding = p.codes_near(torch.tensor([code], dtype=dtype), "codes", torch.tensor([low + 0.5]), 0, 15)
    assert (finding is None) == (code in (low, low + 1))


@given(st.floats(-40, 60), st.integers(0, 15))
def test_codes_near_is_the_nearest_code_on_the_grid(position: float, code: int) -> None:
    finding = p.codes_near(torch.tensor([code]), "codes", torch.tensor([position], dtype=torch.float64), 0, 15)
    distance = abs(code - min(max(position, 0.0), 15.0))
    if abs(distance - 0.5) > 2 * p.SLACK:
        assert (finding is None) == (distance < 0.5)


def test_codes_near_reports_the_worst() -> None:
    exact = torch.tensor([1.2, 2.6, 99.0])
    finding = p.codes_near(torch.tensor([1, 1, 15], dtype=torch.uint8), "codes", exact, 0, 15)
    assert finding is not None and finding.what == "codes: 1 of 3 is not the nearest code"
    assert (finding.index, finding.expected, finding.got) == ((1,), "3 (its place on the grid is 2.6000)", "1")
    assert finding.error == pytest.approx(1.6, abs=1e-6) and finding.bound == 0.5
    assert p.codes_near(torch.tensor([1.0, math.nan, 15.0]), "codes", exact, 0, 15) is not None
    assert p.codes_near(torch.tensor(7), "codes", torch.tensor(3.0), 0, 15).index == ()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("exact", "expected"),
    [
        (99.0, "15 (its place is 99, beyond the grid)"),
        (-3.25, "0 (its place is -3.25, beyond the grid)"),
        (math.inf, "15 (its place is inf, beyond the grid)"),
        (15.0, "15 (its place on the grid is 15.0000)"),
        (15 + 1e-9, "15 (its place on the grid is 15.0000)"),
    ],
)
def test_codes_near_says_where_a_value_lies_beyond_the_grid(exact: float, expected: str) -> None:
    finding = p.codes_near(torch.tensor([7]), "codes", torch.tensor([exact], dtype=torch.float64), 0, 15)
    assert finding is not None and finding.expected == expected
    assert finding.error == abs(7 - min(max(exact, 0), 15))


# --- values -----------------------------------------------------------------------------------------------------------


def test_values_near_with_one_bound_or_many() -> None:
    expected, step = torch.tensor([1.0, 2.0, 3.0]), torch.tensor(0.1)
    assert p.values_near(expected + 0.04, "values", expected, step / 2, step) is None
    finding = p.values_near(expected + torch.tensor([0, 0.06, 0.08]), "values", expected, step / 2, step)
    assert finding is not None and finding.what == "values: 2 of 3 are too far off"
    assert (finding.index, finding.expected, finding.got) == ((2,), "3", "3.08")
    assert finding.error == pytest.approx(0.8, abs=1e-4) and finding.bound == pytest.approx(0.5)
    bounds = torch.tensor([0.01, 0.1, 0.01])
    assert p.values_near(expected + torch.tensor([0, 0.06, 0]), "values", expected, bounds, step) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_wrong_everywhere(bad: float) -> None:
    expected, huge = torch.ones(3), torch.tensor(1e30)
    finding = p.values_near(torch.tensor([1.0, bad, 1.0]), "values", expected, huge, huge)
    assert finding is not None and finding.index == (1,)


def test_a_step_of_zero_does_not_hide_the_worst_element() -> None:
    """In a row of zeros the step is 0, and so is the error: 0 / 0 is not the worst element."""
    expected, step = torch.tensor([[0.0, 0.0], [1.0, 2.0]]), torch.tensor([[0.0], [0.5]])
    finding = p.values_near(torch.tensor([[0.0, 0.0], [1.0, 3.0]]), "values", expected, step / 2, step)
    assert finding is not None and finding.index == (1, 1) and finding.error == 2.0
    finding = p.values_near(torch.tensor([[0.0, 1e-9], [1.0, 3.0]]), "values", expected, step / 2, step)
    assert finding is not None and finding.index == (0, 1)


# --- equality ---------------------------------------------------------------------------------------------------------


def test_equal_reports_the_first_wrong_element() -> None:
    got, expected = torch.tensor([3, 7, 9], dtype=torch.uint8), torch.tensor([3, 8, 8], dtype=torch.uint8)
    assert p.equal(got, "codes", got) is None
    assert p.equal(got, "codes", expected) == Finding("codes: 2 of 3 are wrong", (1,), "8", "7")
    assert p.equal_bytes(got, "packed", expected) == Finding("packed: 2 of 3 are wrong", (1,), "00001000", "00000111")
    assert p.equal(torch.zeros(0), "codes", torch.zeros(0)) is None
    assert p.equal(torch.tensor(1), "codes", torch.tensor(2)) == Finding("codes: 1 of 1 is wrong", (), "2", "1")
    assert p.equal(torch.tensor([math.nan]), "codes", torch.tensor([math.nan])) is not None
