"""Kernels that are launched by a check: what they write, what they touch besides, and what is said where one fails."""

from __future__ import annotations

import math
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

import triton
import triton.language as tl

from qlab.kernels import INTERPRETED
from qlab.learn import launch
from qlab.learn.observe import Observation, observe
from qlab.learn.question import Case, Launch

NAN = float("nan")
needs_the_interpreter = pytest.mark.skipif(not INTERPRETED, reason="a compiled kernel does not tell its reads")


def case(count: int = 10, block: int = 16, dtype: torch.dtype = torch.float32) -> Case:
    """`count` elements to copy, in blocks."""
    poison = NAN if dtype.is_floating_point else 77
    args = (torch.arange(count).to(dtype), torch.full((count,), poison, dtype=dtype), count, block)
    return Case("a copy", args, Launch((-(-count // block),), ("x", "y", "count", "BLOCK"), ("y",)))


def seen(kernel: Any, one: Case | None = None) -> Observation:
    [observation] = observe(kernel, [case() if one is None else one])
    return observation


def value(kernel: Any, one: Case | None = None) -> dict[str, Any]:
    observation = seen(kernel, one)
    assert observation.kind == "value" and not observation.changed_input, observation
    return observation.value


def line(kernel: Any, text: str) -> int:
    """The line of this file in which the kernel has that text."""
    import inspect

    lines, first = inspect.getsourcelines(kernel.fn)
    return first + next(number for number, one in enumerate(lines) if text in one)


@triton.jit
def copy(x, y, count, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, tl.load(x + at, mask=at < count), mask=at < count)


@triton.jit
def careless_store(x, y, count, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, tl.load(x + at, mask=at < count, other=0))


@triton.jit
def careless_load(x, y, count, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, tl.load(x + at), mask=at < count)


@triton.jit
def nothing_masked(x, y, count, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, tl.load(x + at))


@triton.jit
def from_in_front(x, y, count, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, tl.load(x + at - 3, mask=at < count), mask=at < count)


@triton.jit
def twice_and_apart(x, y, count, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    again = tl.load(x + 2 * at) + tl.load(x + 2 * at)
    tl.store(y + at, again, mask=at < count)


@triton.jit
def into_the_input(x, y, count, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    values = tl.load(x + at, mask=at < count)
    tl.store(y + at, values, mask=at < count)
    tl.store(x + at, values + 1, mask=at < 2)


@triton.jit
def one_by_one(x, y, count, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    for step in range(2):
        first = step * BLOCK
        inside = (at < count) & (first < BLOCK)  # a block and a number: the interpreter makes 0 and 1 of them
        tl.store(y + at, tl.load(x + at, mask=inside), mask=inside)


@triton.jit
def no_other(x, y, count, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, tl.load(x + at, mask=at < count // 2), mask=at < count)


@triton.jit
def far_away(x, y, count, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    values = tl.load(x + at + 1000000000, mask=at < count)
    tl.store(y + at, values, mask=at < count)


@triton.jit
def stored_far_away(x, y, count, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y - 1000000000 + at, tl.load(x + at, mask=at < count), mask=at < count)


# --- what a kernel did ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int8, torch.uint8, torch.int32])
def test_a_kernel_that_is_right(dtype: torch.dtype) -> None:
    one = case(37, dtype=dtype)
    got = value(copy, one)
    assert list(got) == ["y", "reads", "writes", "programs"]
    assert torch.equal(got["y"], one.args[0]) and got["y"].dtype == dtype
    for touched in (got["reads"], got["writes"]):
        assert list(touched) == ["x", "y"]
        assert all(places.dtype == torch.int64 and places.shape == (0,) for places in touched.values())


def test_what_was_not_written_is_as_it_was() -> None:
    one = case(40, 16)
    short = Case("two of three programs", one.args, Launch((2,), one.launch.names, ("y",)))  # type: ignore[union-attr]
    y = value(copy, short)["y"]
    assert torch.equal(y[:32], one.args[0][:32]) and y[32:].isnan().all()
    assert one.args[1].isnan().all(), "the case itself is not written to"


def test_places_behind_an_output_that_were_written() -> None:
    got = value(careless_store)
    assert got["writes"]["y"].tolist() == [10, 11, 12, 13, 14, 15]
    assert torch.equal(got["y"], torch.arange(10.0))
    assert got["writes"]["x"].numel() == got["reads"]["x"].numel() == 0


def test_nan_that_was_read_and_written_is_seen_where_it_was_written() -> None:
    """Around an output lies no NaN, or a kernel without any mask would seem to write nothing there."""
    assert value(nothing_masked)["writes"]["y"].tolist() == [10, 11, 12, 13, 14, 15]


def test_an_input_that_was_written_to() -> None:
    got = value(into_the_input)
    assert got["writes"]["x"].tolist() == [0, 1] and got["writes"]["y"].numel() == 0


def test_what_is_read_outside_spoils_the_result() -> None:
    y = value(from_in_front)["y"]
    assert y[:3].isnan().all() and torch.equal(y[3:], torch.arange(7.0))
    y = value(from_in_front, case(dtype=torch.uint8))["y"]
    assert y[:3].tolist() == [255] * 3


@needs_the_interpreter
def test_places_outside_of_an_input_that_were_read() -> None:
    assert value(careless_load)["reads"]["x"].tolist() == [10, 11, 12, 13, 14, 15]
    assert value(from_in_front)["reads"]["x"].tolist() == [-3, -2, -1]
    assert value(copy)["reads"]["x"].numel() == 0


@needs_the_interpreter
def test_places_are_counted_once_and_not_without_end() -> None:
    one = case(10, 16)
    assert value(twice_and_apart, one)["reads"]["x"].tolist() == list(range(10, 31, 2))
    assert value(careless_load, case(10, 1024))["reads"]["x"].tolist() == list(range(10, 10 + launch.MOST))


@needs_the_interpreter
def test_who_stored_each_place() -> None:
    assert value(copy, case(37))["programs"]["y"].tolist() == [0] * 16 + [1] * 16 + [2] * 5
    args = (torch.zeros(40), torch.full((5, 8), NAN), 40, 4)
    names = ("x", "y", "count", "BLOCK")
    got = value(across, Case("two axes", args, Launch((2, 5), names, ("y",))))["programs"]["y"]
    assert got.tolist() == [[row] * 4 + [5 + row] * 4 for row in range(5)]
    got = value(overlapping, Case("two in one place", args, Launch((4,), names, ("y",))))["programs"]["y"].flatten()
    several, nobody = launch.SEVERAL, launch.NO_PROGRAM
    assert got[:12].tolist() == [0, 0, several, several, several, several, several, several, 3, 3, nobody, nobody]


@triton.jit
def across(x, y, count, BLOCK: tl.constexpr):
    at = tl.program_id(1) * 8 + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, tl.load(x + at))
    tl.store(y + at, tl.load(x + at) + 1)  # again: it is the same program


@triton.jit
def overlapping(x, y, count, BLOCK: tl.constexpr):
    at = tl.program_id(0) * 2 + tl.arange(0, BLOCK)
    tl.store(y + at, tl.load(x + at), mask=at < 10)


def test_nothing_is_known_of_who_stored_in_a_compiled_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    if not INTERPRETED:
        assert value(copy)["programs"] == {}
        return
    monkeypatch.setattr(launch, "_watched", lambda held, of: nullcontext(launch._Seen({}, {})))
    assert value(copy)["programs"] == {}


@triton.jit
def block_pointers(x, y, count, BLOCK: tl.constexpr):
    first = tl.program_id(0) * BLOCK
    source = tl.make_block_ptr(x, (count,), (1,), (first,), (BLOCK,), (0,))
    target = tl.make_block_ptr(y, (count,), (1,), (first,), (BLOCK,), (0,))
    tl.store(target, tl.load(source, boundary_check=(0,)), boundary_check=(0,))


@triton.jit
def block_pointers_unchecked(x, y, count, BLOCK: tl.constexpr):
    first = tl.program_id(0) * BLOCK
    source = tl.make_block_ptr(x, (count,), (1,), (first,), (BLOCK,), (0,))
    target = tl.make_block_ptr(y, (count,), (1,), (first,), (BLOCK,), (0,))
    tl.store(target, tl.load(source), boundary_check=(0,))


def test_block_pointers() -> None:
    """The interpreter brings their masks as plain arrays."""
    got = value(block_pointers, case(37))
    assert torch.equal(got["y"], torch.arange(37.0))
    assert all(got[verb][name].numel() == 0 for verb in ("reads", "writes") for name in "xy")
    if INTERPRETED:
        assert got["programs"]["y"].tolist() == [0] * 16 + [1] * 16 + [2] * 5
        assert value(block_pointers_unchecked)["reads"]["x"].tolist() == [10, 11, 12, 13, 14, 15]


@needs_the_interpreter
def test_masks_of_the_interpreter_may_be_numbers() -> None:
    got = value(one_by_one)
    assert torch.equal(got["y"], torch.arange(10.0)) and got["reads"]["x"].numel() == 0


@needs_the_interpreter
@pytest.mark.parametrize(("dtype", "anything"), [(torch.float16, NAN), (torch.int8, 127), (torch.uint8, 255)])
def test_a_masked_load_without_other_gives_anything(dtype: torch.dtype, anything: float) -> None:
    y = value(no_other, case(dtype=dtype))["y"]
    assert y[:5].tolist() == [0, 1, 2, 3, 4]
    assert [math.isnan(one) if math.isnan(anything) else one == anything for one in y[5:].tolist()] == [True] * 5


@needs_the_interpreter
@pytest.mark.parametrize(("kernel", "word"), [(far_away, "tl.load"), (stored_far_away, "tl.store")])
def test_an_address_far_outside_is_an_error_and_not_the_end_of_python(kernel: Any, word: str) -> None:
    observation = seen(kernel)
    assert observation.kind == "error"
    assert f"IndexError: {word} goes to an address far outside of all tensors" in observation.message
    assert f"(line {line(kernel, word)} of the cell, in {kernel.__name__}: " in observation.message


@needs_the_interpreter
def test_the_interpreter_is_as_it_was_afterwards() -> None:
    from triton.runtime.interpreter import interpreter_builder as builder

    before = builder.create_masked_load, builder.create_masked_store
    for kernel in (copy, far_away):
        seen(kernel)
        assert (builder.create_masked_load, builder.create_masked_store) == before


def test_what_a_learner_has_set_changes_nothing() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            assert torch.equal(value(copy, case_on_cpu())["y"].float(), torch.arange(10.0, device="cpu"))
    finally:
        torch.set_default_dtype(torch.float32)


def case_on_cpu() -> Case:
    with torch.device("cpu"):
        return case()


def test_threads_take_turns() -> None:
    """The grader judges in several threads, and the interpreter has one state for all of them."""

    def right(count: int) -> bool:
        return torch.equal(value(copy, case(count, 4))["y"], torch.arange(float(count)))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(right, range(20, 60)))


# --- not attempted ----------------------------------------------------------------------------------------------------


@triton.jit
def stub(x, y, count, BLOCK: tl.constexpr):
    """As nbgrader leaves it."""
    # YOUR CODE HERE
    raise NotImplementedError()


@triton.jit
def passes(x, y, count, BLOCK: tl.constexpr):
    """To do."""
    pass


@triton.jit
def dots(x, y, count, BLOCK: tl.constexpr): ...


def not_jitted_yet(x, y, count, BLOCK):
    raise NotImplementedError()


@pytest.mark.parametrize("kernel", [stub, passes, dots, not_jitted_yet])
def test_stubs_are_not_attempted(kernel: Any) -> None:
    assert seen(kernel) == Observation("not attempted", message="the function is still empty")


@pytest.mark.parametrize("nothing", [None, ...])
def test_no_kernel_is_not_attempted(nothing: Any) -> None:
    assert seen(nothing) == Observation("not attempted", message="there is no function yet")


@triton.jit
def left_over(x, y, count, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y + at, tl.load(x + at, mask=at < count), mask=at < count)
    # YOUR CODE HERE
    raise NotImplementedError()


def test_a_line_that_was_left_under_the_answer_is_named() -> None:
    """Found before the launch: what is compiled cannot raise."""
    number = line(left_over, "raise NotImplementedError")
    assert seen(left_over) == Observation(
        "not attempted",
        message=f"line {number} of the cell still raises NotImplementedError; take it out when you have an answer",
    )


@triton.jit
def empty_helper(at):
    raise NotImplementedError()


@triton.jit
def calls_an_empty_helper(x, y, count, BLOCK: tl.constexpr):
    at = empty_helper(tl.arange(0, BLOCK))
    tl.store(y + at, tl.load(x + at))


@needs_the_interpreter
def test_an_empty_helper_is_named() -> None:
    assert seen(calls_an_empty_helper) == Observation(
        "not attempted", message="it calls empty_helper, which is still empty"
    )


def test_without_triton_nothing_is_attempted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton.runtime.interpreter", None)
    observation = seen(copy)
    assert observation.kind == "not attempted" and "Triton, which has wheels for Linux only" in observation.message


# --- errors -----------------------------------------------------------------------------------------------------------


def plain_function(x, y, count, BLOCK):
    y[:] = x


@pytest.mark.parametrize("given", [plain_function, torch.mul, dict])
def test_what_is_no_kernel(given: Any) -> None:
    observation = seen(given)
    assert observation.kind == "error"
    assert observation.message == f"the function {given.__name__} is no kernel; write @triton.jit above its def"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to compile it for")
def test_a_kernel_from_before_the_interpreter() -> None:
    """As after `import triton` without qlab.kernels: @triton.jit has made a kernel that wants to be compiled."""
    from triton.runtime.jit import JITFunction

    observation = seen(JITFunction(copy.fn))
    assert observation.kind == "error"
    assert observation.message.startswith("the kernel copy was defined before Triton's interpreter was switched on")
    assert "run the notebook's first cell" in observation.message


@triton.jit
def shapes_that_do_not_fit(x, y, count, BLOCK: tl.constexpr):
    a, b = tl.arange(0, BLOCK), tl.arange(0, 2 * BLOCK)
    tl.store(y + a, tl.load(x + a) + tl.load(x + b))


@triton.jit
def helper_that_fails(at):
    return at + undefined  # noqa: F821


@triton.jit
def calls_a_helper_that_fails(x, y, count, BLOCK: tl.constexpr):
    at = helper_that_fails(tl.arange(0, BLOCK))
    tl.store(y + at, tl.load(x + at))


@needs_the_interpreter
@pytest.mark.parametrize(
    ("kernel", "text", "place"),
    [
        (shapes_that_do_not_fit, "ValueError: Cannot make_shape_compatible", "tl.load(x + a) + tl.load(x + b)"),
        (calls_a_helper_that_fails, "NameError: name 'undefined' is not defined", "return at + undefined"),
    ],
)
def test_an_error_points_at_the_learners_line(kernel: Any, text: str, place: str) -> None:
    observation = seen(kernel)
    where = helper_that_fails if "undefined" in place else kernel
    assert observation.kind == "error" and observation.message.startswith(f"your function raised {text}")
    assert f"(line {line(where, place)} of the cell, in {where.__name__}: " in observation.message
    assert place in observation.message and "InterpreterError" not in observation.message


@triton.jit
def three_parameters(x, y, count):
    pass


@triton.jit
def three_parameters_filled(x, y, count):
    tl.store(y, tl.load(x))


def test_a_parameter_that_was_taken_out() -> None:
    assert seen(three_parameters).kind == "not attempted"
    assert "takes 3 positional arguments but 4 were given" in seen(three_parameters_filled).message


@triton.jit
def interrupted(x, y, count, BLOCK: tl.constexpr):
    raise KeyboardInterrupt


@needs_the_interpreter
def test_the_learner_may_interrupt_and_go_on() -> None:
    with pytest.raises(KeyboardInterrupt):
        seen(interrupted)
    assert torch.equal(value(copy)["y"], torch.arange(10.0))


def test_a_case_with_a_launch_is_data(tmp_path: Any) -> None:
    """The grader carries cases to where learners' code runs, and the questions are not there."""
    from qlab.learn.grade import exchange

    function = Case("no launch", (1, torch.ones(2)))
    exchange.write_cases(tmp_path, "a", [case(), function])
    kernel_case, function_case = exchange.read_cases(tmp_path, "a")
    assert kernel_case.launch == case().launch and function_case.launch is None
    for one in (case(), kernel_case):
        assert torch.equal(value(copy, one)["y"], torch.arange(10.0))
