"""Wrong answers that once passed: a floor under the scale of any size, and codes that leave the grid on a tie."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from qlab.learn.judge import examine, judge
from qlab.learn.observe import observe
from qlab.learn.question import Case
from qlab.learn.questions import question


def _absmax(x: Any, bits: int, floor: float) -> Any:
    qmax = 2 ** (bits - 1) - 1
    scale = (x.abs().max() / qmax).clamp(min=floor)
    return torch.round(x / scale).clamp(-qmax, qmax).to(torch.int8), scale


def _per_channel(w: Any, bits: int, floor: float) -> Any:
    qmax = 2 ** (bits - 1) - 1
    scales = (w.abs().amax(dim=1, keepdim=True) / qmax).clamp(min=floor)
    return torch.round(w / scales).clamp(-qmax, qmax).to(torch.int8), scales


def _per_group(w: Any, bits: int, group_size: int, floor: float) -> Any:
    parts = [_per_channel(group, bits, floor) for group in w.split(group_size, dim=1)]
    codes, scales = zip(*parts, strict=True)
    return torch.cat(codes, dim=1), torch.cat(scales, dim=1)


def _zero_point(x: Any, bits: int, floor: float) -> Any:
    low, high = min(x.min().item(), 0.0), max(x.max().item(), 0.0)
    scale = max((high - low) / (2**bits - 1), floor)
    zero = round(-low / scale)
    return torch.round(x / scale + zero).clamp(0, 2**bits - 1).to(torch.uint8), scale, zero


def _clipped_zero_point(x: Any, bits: int, floor: float) -> Any:
    codes, scale, zero = _zero_point(x, bits, floor)
    return scale * (codes.float() - zero), zero - 2 ** (bits - 1)


ANSWERS = {
    "absmax": _absmax,
    "per_channel": _per_channel,
    "per_group": _per_group,
    "zero_point": _zero_point,
    "clipped_zero_point": _clipped_zero_point,
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("floor", [1e-5, 1e-8, 1e-12])
def test_a_floor_under_the_scale_fails(name: str, floor: float) -> None:
    one = question(f"linear.{name}")
    for seed in range(5):
        verdict = examine(one, lambda *args: ANSWERS[name](*args, floor), seed)
        assert verdict.outcome == "failed" and "tiny" in str(verdict.case)
    # Far below every case the same lines are right, so it is the floor that fails.
    assert examine(one, lambda *args: ANSWERS[name](*args, 1e-30), 0).passed


@pytest.mark.parametrize("name", ["absmax", "per_channel", "per_group", "zero_point"])
def test_the_smallest_scale_of_the_docstring_is_possible(name: str) -> None:
    one = question(f"linear.{name}")
    assert "it may be as small as 1e-30." in " ".join(str(one.reference.__doc__).split())
    for seed in range(5):
        [tiny] = [case for case in one.cases(seed) if "tiny" in case.name]
        scales = torch.as_tensor(one.reference(*tiny.args)[1], dtype=torch.float64)
        smallest = Case("1e-30", (tiny.args[0] * (1e-30 / scales.min().item()), *tiny.args[1:]))
        for answer in (one.reference, *one.alternatives):
            verdict = judge(one, [smallest], observe(answer, [smallest]))
            assert verdict.passed, f"{answer.__name__}: {verdict}"
        floored = observe(lambda *args: ANSWERS[name](*args, 1e-29), [smallest])
        assert judge(one, [smallest], floored).outcome == "failed"


@pytest.mark.parametrize(
    ("name", "mutant"), [("zero_point", "missing_clamp"), ("clipped_zero_point", "codes_not_clamped")]
)
@pytest.mark.parametrize("seed", range(10))
def test_an_end_between_two_codes_needs_the_clamp(name: str, mutant: str, seed: int) -> None:
    one = question(f"linear.{name}")
    [wrong] = [each for each in one.mutants if each.name == mutant]
    verdict = examine(one, wrong.answer, seed)
    assert verdict.outcome == "failed" and str(verdict.case).startswith("an end halfway between two codes")
