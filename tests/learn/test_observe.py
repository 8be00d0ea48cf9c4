"""What is kept of a call of a learner's function, whatever it does."""

from __future__ import annotations

import functools
import math
import sys
import warnings
from collections import namedtuple
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from qlab.learn.observe import Foreign, Observation, observe, plain
from qlab.learn.question import Case

CASE = Case("three numbers", (torch.tensor([1.0, 2.0, 3.0]), 4))


def seen(function: Any, *cases: Case) -> Observation:
    return observe(function, cases or (CASE,))[0]


def value_of(function: Any) -> Any:
    observation = seen(function)
    assert observation.kind == "value", observation
    return observation.value


# --- not attempted ----------------------------------------------------------------------------------------------------


def stub(x, bits):
    """As nbgrader leaves it."""
    raise NotImplementedError()


def stub_with_a_message(x, bits):
    raise NotImplementedError("YOUR CODE HERE")


def stub_that_is_not_called(x, bits):
    raise NotImplementedError


def docstring_only(x, bits):
    """To do."""


def passes(x, bits):
    pass


def dots(x, bits): ...


def returns_dots(x, bits):
    return ...


@pytest.mark.parametrize(
    "function",
    [
        stub,
        stub_with_a_message,
        stub_that_is_not_called,
        docstring_only,
        passes,
        dots,
        returns_dots,
        functools.wraps(stub)(lambda x, bits: stub(x, bits)),
    ],
)
def test_stubs_are_not_attempted(function: Any) -> None:
    assert seen(function) == Observation("not attempted", message="the function is still empty")


@pytest.mark.parametrize("nothing", [None, ...])
def test_no_function_is_not_attempted(nothing: Any) -> None:
    assert seen(nothing) == Observation("not attempted", message="there is no function yet")


def test_the_first_call_that_is_not_attempted_is_the_last() -> None:
    calls = []

    def function(x, bits):
        calls.append(bits)
        raise NotImplementedError()

    assert len(observe(function, [CASE, CASE, CASE])) == 1
    assert calls == [4]


def test_a_function_that_gives_up_on_one_case_only_is_still_seen_on_the_others() -> None:
    def function(x, bits):
        if bits == 3:
            raise NotImplementedError()
        return bits

    kinds = [one.kind for one in observe(function, [CASE, Case("3 bits", (CASE.args[0], 3)), CASE])]
    assert kinds == ["value", "not attempted", "value"]


def test_a_line_that_was_left_under_the_answer_is_named() -> None:
    def function(x, bits):
        codes = x / bits
        raise NotImplementedError()
        return codes

    observation = seen(function)
    line = function.__code__.co_firstlineno + 2
    assert observation.kind == "not attempted"
    assert observation.message == (
        f"line {line} of the cell still raises NotImplementedError; take it out when you have an answer"
    )


def test_an_empty_helper_is_named() -> None:
    def function(x, bits):
        return stub(x, bits)

    assert seen(function) == Observation("not attempted", message="it calls stub, which is still empty")


@pytest.mark.parametrize(
    "function",
    [lambda x, bits: x << bits, lambda x, bits: x & 15, lambda x, bits: torch.round(x > 2)],
    ids=["a shift of floats", "a mask of floats", "rounding truth values"],
)
def test_what_torch_has_not_implemented_is_an_error_of_the_learner(function: Any) -> None:
    """torch raises the very exception that stubs raise."""
    observation = seen(function)
    assert observation.kind == "error"
    assert "NotImplementedError" in observation.message and "not implemented for" in observation.message


# --- errors -----------------------------------------------------------------------------------------------------------


def test_an_error_points_at_the_learners_line() -> None:
    def function(x, bits):
        halves = x[:2]
        return halves.view(4)

    observation = seen(function)
    assert observation.kind == "error"
    assert observation.message.startswith("your function raised RuntimeError: shape '[4]' is invalid")
    line = function.__code__.co_firstlineno + 2
    assert observation.message.endswith(f"(line {line} of the cell, in function: return halves.view(4))")


def test_an_error_inside_of_a_library_points_at_the_line_that_called_it() -> None:
    def function(x, bits):
        return np.stack([x[:2].numpy(), x.numpy()])

    assert "in function: return np.stack(" in seen(function).message


def test_an_error_in_the_librarys_own_code_points_at_the_call() -> None:
    from qlab.formats import packing

    def function(x, bits):
        return packing.pack(x, bits)

    assert "TypeError: codes: dtype torch.float32" in seen(function).message
    assert "in function: return packing.pack(x, bits)" in seen(function).message


def test_an_error_in_a_helper_points_into_the_helper() -> None:
    def helper(x):
        return 1 / 0

    assert "in helper: return 1 / 0" in seen(lambda x, bits: helper(x)).message


def test_wrong_parameters() -> None:
    assert "takes 1 positional argument but 2 were given" in seen(lambda x: x).message


class _Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class _OutsideOfException(BaseException):
    pass


@pytest.mark.parametrize(
    ("raised", "text"),
    [
        (SystemExit(3), "SystemExit: 3"),
        (SystemExit(), "SystemExit"),
        (RecursionError("too deep"), "RecursionError: too deep"),
        (MemoryError(), "MemoryError"),
        (StopIteration(), "StopIteration"),
        (_Unprintable(), "_Unprintable"),
        (_OutsideOfException("own"), "_OutsideOfException: own"),
        (GeneratorExit(), "GeneratorExit"),
        (AssertionError("codes\nover\ntwo lines"), "AssertionError: codes over two lines"),
    ],
)
def test_whatever_is_raised_is_an_error_in_one_line(raised: BaseException, text: str) -> None:
    def function(x, bits):
        raise raised

    observation = seen(function)
    assert observation.kind == "error"
    assert text in observation.message and "\n" not in observation.message


def test_the_message_of_an_error_is_cut() -> None:
    def function(x, bits):
        raise ValueError("x" * 1_000_000)

    assert len(seen(function).message) < 600


def test_the_learner_may_interrupt_and_is_told_where_it_was() -> None:
    def function(x, bits):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stopped:
        seen(function)
    [note] = stopped.value.__notes__
    assert note.startswith("It was stopped in the case '")


@pytest.mark.parametrize("given", [3, "linear.absmax", torch.zeros(2), (1, 2)])
def test_a_result_in_place_of_the_function(given: Any) -> None:
    observation = seen(given)
    assert observation.kind == "error"
    assert observation.message == f"{type(given).__name__} was given; give the function's name without parentheses"


# --- what may be called -----------------------------------------------------------------------------------------------


class _Adder:
    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __call__(self, x, bits):
        return bits + 1

    def method(self, x, bits):
        return bits + 2


@pytest.mark.parametrize(
    ("function", "value"),
    [
        (lambda x, bits: bits, 4),
        (functools.partial(lambda more, x, bits: more + bits, 10), 14),
        (_Adder(), 5),
        (_Adder().method, 6),
        (functools.lru_cache(lambda x, bits: bits), 4),
        (torch.mul, torch.tensor([4.0, 8.0, 12.0])),
        (_Adder, Foreign("_Adder")),
    ],
)
def test_everything_that_can_be_called(function: Any, value: Any) -> None:
    got = value_of(function)
    assert torch.equal(got, value) if isinstance(value, torch.Tensor) else got == value


@pytest.mark.parametrize("empty", [functools.partial(stub), _Adder().__class__.method])
def test_partials_and_wrong_counts_do_not_stop_the_check(empty: Any) -> None:
    assert seen(empty).kind in ("not attempted", "error")


def test_a_function_that_returns_nothing_is_not_taken_for_an_empty_one() -> None:
    def function(x, bits):
        x / bits

    assert seen(function) == Observation("value", None)
    assert seen(lambda x, bits: 1).value == 1


# --- values -----------------------------------------------------------------------------------------------------------

Pair = namedtuple("Pair", "codes scale")


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (3, 3),
        (True, True),
        (np.True_, True),
        (np.float32(0.5), 0.5),
        (np.uint8(7), 7),
        (np.str_("a"), "a"),
        (Fraction(8, 2), 4),
        (Fraction(1, 2), 0.5),
        (Decimal("4096"), 4096),
        (torch.uint8, "torch.uint8"),
        ([1, (2.5, None)], (1, (2.5, None))),
        (Pair(1, 2.0), (1, 2.0)),
        (torch.Size([2, 3]), (2, 3)),
        ({"a": [1], 2: 3}, {"a": (1,), "2": 3}),
        (b"bytes", Foreign("bytes")),
        ({1, 2}, Foreign("set")),
        (1j, Foreign("complex")),
        (Decimal("nan"), Foreign("Decimal")),
        (np.array(["a"]), Foreign("numpy.ndarray of <U1")),
        (np.array([None]), Foreign("numpy.ndarray of object")),
        (np.array([1, 2], dtype=">i4"), Foreign("numpy.ndarray of >i4")),
        (torch.zeros(2, device="meta"), Foreign("tensor of layout torch.strided on meta")),
        (torch.eye(2).to_sparse(), Foreign("tensor of layout torch.sparse_coo on cpu")),
        ((1, object()), (1, Foreign("object"))),
    ],
)
def test_plain_values(value: Any, kept: Any) -> None:
    got = plain(value)
    assert got == kept and type(got) is type(kept)


def test_classes_that_look_like_numbers_do_not_travel() -> None:
    class Sly(int):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = int.__hash__

    assert type(plain(Sly(3))) is int
    assert type(plain(np.float64(3.0))) is float


def test_a_list_that_contains_itself() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert isinstance(value_of(lambda x, bits: endless), Foreign)


def test_infinity_and_nan_are_kept() -> None:
    assert math.isnan(plain(float("nan"))) and plain(np.float16("inf")) == math.inf


@pytest.mark.parametrize(
    "value",
    [
        np.array([[1, 2], [3, 4]], dtype=np.uint8),
        np.arange(6, dtype=np.int64)[::-1],
        np.asfortranarray(np.ones((2, 3), dtype=np.float16)),
        np.array(2.5),
        np.array([True, False]),
        np.zeros((0, 3), dtype=np.float32),
    ],
)
def test_arrays_become_tensors_of_the_same_shape_and_type(value: np.ndarray) -> None:
    got = plain(value)
    assert isinstance(got, torch.Tensor) and got.is_contiguous()
    assert tuple(got.shape) == value.shape and got.numpy().dtype == value.dtype
    assert np.array_equal(got.numpy(), value)


@pytest.mark.parametrize(
    "value",
    [
        torch.ones(3, requires_grad=True) * 2,
        torch.nn.Parameter(torch.ones(2)),
        torch.arange(6).view(2, 3).T,
        torch.ones(1).expand(4),
        torch.tensor(3),
    ],
)
def test_tensors_are_detached_copies(value: torch.Tensor) -> None:
    got = plain(value)
    assert type(got) is torch.Tensor and not got.requires_grad and got.is_contiguous()
    assert torch.equal(got, value) and got.dtype == value.dtype
    assert got.data_ptr() != value.data_ptr()


# --- arguments --------------------------------------------------------------------------------------------------------


def clamps_in_place(x, bits):
    return x.clamp_(0, 1)


def resizes_in_place(x, bits):
    x.resize_(1)
    return bits


def writes_nan(x, bits):
    x[0] = float("nan")
    return bits


@pytest.mark.parametrize("function", [clamps_in_place, resizes_in_place, writes_nan])
def test_an_argument_that_was_changed_is_noticed_and_the_case_is_not(function: Any) -> None:
    assert seen(function).changed_input
    assert torch.equal(CASE.args[0], torch.tensor([1.0, 2.0, 3.0]))


def test_returning_the_argument_is_no_change() -> None:
    observation = seen(lambda x, bits: x)
    assert not observation.changed_input and torch.equal(observation.value, CASE.args[0])


def test_nan_in_an_argument_is_no_change_and_zero_in_its_place_is_one() -> None:
    case = Case("nan", (torch.tensor([float("nan"), 1.0]), {"a": (1, 2)}))
    assert not seen(lambda x, d: 1, case).changed_input
    assert seen(lambda x, d: x.nan_to_num_().sum(), case).changed_input
    assert seen(lambda x, d: d.update(a=3), case).changed_input


# --- nothing on stderr ------------------------------------------------------------------------------------------------


def test_warnings_and_stderr_do_not_cost_points(capsys: pytest.CaptureFixture[str]) -> None:
    def function(x, bits):
        print("noise", file=sys.stderr)
        warnings.warn("deprecated", DeprecationWarning, stacklevel=1)
        return float(np.float32(1) / np.float32(0))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert value_of(function) == math.inf
    captured = capsys.readouterr()
    assert captured.err == "" and captured.out == "noise\n"
