"""What the kernel puzzles share: how a kernel is launched in a case, and what holds for all that a kernel does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from ... import properties as p
from ...launch import NO_PROGRAM, SEVERAL
from ...question import Case, Finding, Launch, Mutant, Property

try:
    import triton
    import triton.language as tl

    from ....kernels import INTERPRETED  # and where there is no CUDA, kernels are interpreted from here on
except ImportError:  # no wheels for this system: the questions can be read, and nothing launched
    INTERPRETED = True
    triton, tl = SimpleNamespace(jit=lambda kernel: kernel), None

__all__ = ["INTERPRETED", "tl", "triton"]

UNWRITTEN = -128  # in an int8 output; no answer has it


def launched(name: str, grid: tuple[int, ...], writes: tuple[str, ...] = ("y",), **arguments: Any) -> Case:
    """A case; the arguments by the names of the kernel's parameters, in their order."""
    return Case(name, tuple(arguments.values()), Launch(grid, tuple(arguments), writes))


def unwritten(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """An output that nothing was written to."""
    return torch.full(shape, float("nan") if dtype.is_floating_point else UNWRITTEN, dtype=dtype)


def cdiv(a: int, b: int) -> int:
    return -(-a // b)


def argument(case: Case, name: str) -> Any:
    assert case.launch
    return case.args[case.launch.names.index(name)]


def only_interpreted(*mutants: Mutant) -> tuple[Mutant, ...]:
    """Mutants that only read what does not matter in the end: a compiled kernel does not tell."""
    return mutants if INTERPRETED else ()


def stays_inside(case: Case, got: Any, expected: Any) -> Finding | None:
    """Nothing outside of a tensor was read or written, and no input was changed."""
    assert case.launch
    for verb, word in (("writes", "tl.store"), ("reads", "tl.load")):
        for name in expected[verb]:
            places = got[verb][name]
            if finding := p.tensor(places, f"{verb} of {name}", torch.int64, tuple(places.shape)):
                return finding
            if places.numel():
                return _outside(places, name, argument(case, name).numel(), word, name in case.launch.writes)
    return None


def _outside(places: torch.Tensor, name: str, count: int, word: str, output: bool) -> Finding:
    many, first = places.numel(), int(places[0])
    if word == "tl.store" and not output:
        return Finding(f"the kernel stores to {name}, which is an input, at {many} places; the first is {first}")
    where = f"{-first} in front of" if first < 0 else f"{first - count + 1} behind"
    verb = "writes to" if word == "tl.store" else "reads"
    return Finding(
        f"the kernel {verb} {many} place{'s' * (many > 1)} outside of {name}, which has {count} elements; the first "
        f"lies {where} its {'start' if first < 0 else 'end'}. Look at the address or the mask of {word}"
    )


def written(*names: str) -> Property:
    """Every element of these outputs was stored, and not as a NaN."""

    def everything_is_written(case: Case, got: Any, expected: Any) -> Finding | None:
        for name in names:
            y = got[name]
            if finding := p.tensor(y, name, expected[name].dtype, tuple(expected[name].shape)):
                return finding
            lost = y.isnan() if y.is_floating_point() else y == UNWRITTEN
            stored = _programs(got, name)
            if stored is not None:
                if bool((lost & (stored == NO_PROGRAM)).all()):
                    return Finding(f"nothing was stored to {name}")
                if y.is_floating_point() and bool((lost & (stored != NO_PROGRAM)).any()):
                    lost &= stored != NO_PROGRAM  # what was computed says more than what is missing
                else:
                    lost &= stored == NO_PROGRAM  # -128 may be a code that overflowed: a wrong value, and not a gap
            if bool(lost.any()):
                index = tuple(int(i) for i in lost.nonzero()[0])
                gap = stored is not None and int(stored[index]) == NO_PROGRAM
                return Finding(
                    f"{name}: {int(lost.sum())} of {lost.numel()} elements are {_why(y, stored is not None, gap)}",
                    index,
                    f"{expected[name][index].item():.6g}",
                    "nothing" if gap else f"{y[index].item():g}".replace("nan", "NaN"),
                )
        return None

    return everything_is_written


def _why(y: torch.Tensor, known: bool, gap: bool) -> str:
    if gap:
        return "not written"
    if not y.is_floating_point():
        return f"{UNWRITTEN}: not written, or overflowed"
    if known:
        return "NaN: one was read, outside of a tensor, or where a mask is false and the load has no `other`"
    return "NaN: not written, or NaN was read"


def _programs(got: Any, name: str) -> torch.Tensor | None:
    """The program that stored each place; None of a compiled kernel."""
    programs: torch.Tensor | None = got["programs"].get(name)
    return programs


def each_program_stores_its_own(case: Case, got: Any, expected: Any) -> Finding | None:
    """Every place was stored by one program, the one that owns it by the spec."""
    assert case.launch
    for name in case.launch.writes:
        stored, owners = _programs(got, name), _programs(expected, name)
        if stored is None or owners is None:
            continue
        if finding := p.tensor(stored, f"programs of {name}", torch.int64, tuple(owners.shape)):
            return finding
        wrong = stored != owners
        if bool(wrong.any()):
            index = tuple(int(i) for i in wrong.nonzero()[0])
            owner = _number(int(owners[index]), case.launch.grid)
            by = int(stored[index])
            others = {SEVERAL: "several programs", NO_PROGRAM: "no tl.store"}
            who = others[by] if by in others else f"program {_number(by, case.launch.grid)}"
            return Finding(
                f"{name} has the right values, but {int(wrong.sum())} of {wrong.numel()} elements are stored by a "
                f"program that does not own them: element {', '.join(map(str, index))} is stored by {who}, and "
                f"program {owner} owns it. On a GPU programs run at the same time"
            )
    return None


def _number(program: int, grid: tuple[int, ...]) -> str:
    """A program by its number on each axis: "(1, 0)"; of a grid of one axis "1"."""
    axes = [int(i) for i in torch.unravel_index(torch.tensor(program), grid)]
    return str(axes[0]) if len(axes) == 1 else f"({', '.join(map(str, axes))})"


def near(got: Any, what: str, exact: torch.Tensor, bound: torch.Tensor) -> Finding | None:
    """Every value as near to the exact one as `bound` says; told without the bound."""
    finding = p.values_near(got, what, exact, bound, torch.ones(()))
    return Finding(finding.what, finding.index, finding.expected, finding.got) if finding else None


def normal(random: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=random)


def whole(random: torch.Generator, low: int, high: int, *shape: int, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    """Whole numbers from `low` to `high`, both included."""
    return torch.randint(low, high + 1, shape, generator=random).to(dtype)


def scales(random: torch.Generator, *shape: int) -> torch.Tensor:
    """float16, from 0.01 to 0.1: no two alike, so that a wrong one shows."""
    return (10.0 ** (-2 + torch.rand(*shape, generator=random))).half()


def low_first(codes: torch.Tensor) -> torch.Tensor:
    """Two 4-bit codes of a row in a byte, the first in the low half: (rows, columns) to (rows, columns / 2)."""
    return codes[..., 0::2] | codes[..., 1::2] << 4


def high_first(codes: torch.Tensor) -> torch.Tensor:
    """The same with the first code in the high half. An odd row ends with an empty low half."""
    if codes.shape[-1] % 2:
        codes = torch.cat([codes, codes.new_zeros(*codes.shape[:-1], 1)], dim=-1)
    return codes[..., 0::2] << 4 | codes[..., 1::2]
