"""Start a learner's Triton kernel, and see what it does to memory that is not its own.

Every tensor lies in the middle of a larger storage. Around inputs stand NaN (or the largest number, where the type has
no NaN), around outputs a number that no answer has: after the launch it shows where something was stored that belongs
to nobody. In Triton's interpreter each load and store also passes through here. So places that are read outside of a
tensor count even if nothing comes of them, a masked load without `other` gives what Triton promises (anything; here
NaN), an address far outside is an error and not the end of Python, and every place of an output remembers who stored
it: programs run one after the other there, so a place that two of them write looks as if all were well.

This runs where the learner's code runs, like `observe`. Nothing here knows what is right. Triton is imported with the
first launch.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from .question import Launch

GUARD = 1 << 14  # elements in front of a tensor and behind it; what lies further away is no storage of ours
NOBODYS = 99  # around outputs
MOST = 512  # places that are kept of each kind
NO_PROGRAM, SEVERAL = -1, -2  # in place of the number of the program that stored a place

# The interpreter has one state for all threads, and the grader judges in several.
_TURN = threading.Lock()


class NotLaunched(Exception):
    """Why a kernel was not started: a mistake of its author, or nothing that was attempted."""

    def __init__(self, kind: Literal["error", "not attempted"], message: str) -> None:
        super().__init__(message)
        self.kind = kind


def run(kernel: Any, launch: Launch, args: tuple[Any, ...]) -> dict[str, Any]:
    """Launch a kernel on copies of its arguments, on the GPU where it is compiled.

    Returns:
        Each tensor of `launch.writes` by its name, and, by the names of all tensors, "reads" and "writes": int64, the
        places outside of that tensor that were touched, counted from its first element and at most `MOST`. Every place
        of an input is outside for a write. Compiled kernels do not tell their reads. By the names of the outputs,
        "programs": int64 in the output's shape, the number of the program that stored each place (axis 0 of the grid
        counts slowest), `NO_PROGRAM` or `SEVERAL`; nothing of a compiled kernel.

    Raises:
        NotLaunched: this is no kernel, or none that can run here.
        Exception: whatever the kernel raised, without Triton's wrapping.
    """
    device = _device(kernel)
    tensors = {name: value for name, value in zip(launch.names, args, strict=True) if isinstance(value, torch.Tensor)}
    held = {name: _Memory(value, name in launch.writes, device) for name, value in tensors.items()}
    given = [held[name].tensor if name in held else value for name, value in zip(launch.names, args, strict=True)]
    watch: AbstractContextManager[_Seen] = _watched(held, launch) if device == "cpu" else nullcontext(_Seen({}, {}))
    with _TURN, watch as seen:
        _start(kernel, launch.grid, given)
        if device == "cuda":
            torch.cuda.synchronize()
    return {name: held[name].tensor.cpu() for name in launch.writes} | {
        "reads": {name: _few(seen.reads.get(name, ())) for name in held},
        "writes": {name: _few(memory.changed()) for name, memory in held.items()},
        "programs": {name: torch.from_numpy(of).view(tensors[name].shape) for name, of in seen.programs.items()},
    }


@dataclass(frozen=True)
class _Seen:
    """What the interpreter saw: places read outside of each tensor, and for each place of an output its program."""

    reads: dict[str, list[int]]
    programs: dict[str, np.ndarray]


class _Memory:
    """A tensor in the middle of a larger storage. What is around it, and an input itself, shall stay as it is."""

    def __init__(self, value: torch.Tensor, written: bool, device: str) -> None:
        around = NOBODYS if written else anything(value.dtype)
        self.storage = torch.full((value.numel() + 2 * GUARD,), around, dtype=value.dtype, device=device)
        self.tensor = self.storage[GUARD : GUARD + value.numel()].view(value.shape)
        self.tensor.copy_(value)
        self.first = self.storage.data_ptr() + GUARD * value.element_size()  # the address of the tensor
        self._before = self.storage.clone()
        self._written = written

    def changed(self) -> list[int]:
        """The places that hold something else than before, but for those of an output."""
        a, b = self.storage, self._before
        places = ((a != b) & ~(a.isnan() & b.isnan())).nonzero().flatten() - GUARD
        if self._written:
            places = places[(places < 0) | (places >= self.tensor.numel())]
        found: list[int] = places.tolist()
        return found


def anything(dtype: torch.dtype) -> float:
    """What a value that must not matter looks like: NaN, or the largest number of the type."""
    return float("nan") if dtype.is_floating_point else torch.iinfo(dtype).max


def _few(places: Any) -> torch.Tensor:
    return torch.tensor(sorted(set(places))[:MOST], dtype=torch.int64, device="cpu")


def _device(kernel: Any) -> str:
    """Where this kernel can run."""
    try:
        from triton.runtime.interpreter import InterpretedFunction
        from triton.runtime.jit import JITFunction

        from .. import kernels as _switch  # noqa: F401  # where there is no CUDA, it switches the interpreter on
    except ImportError:
        raise NotLaunched(
            "not attempted", "kernels need Triton, which has wheels for Linux only; here they cannot be checked"
        ) from None
    name = getattr(kernel, "__name__", type(kernel).__name__)[:80]
    if isinstance(kernel, InterpretedFunction):
        return "cpu"
    if not isinstance(kernel, JITFunction):
        raise NotLaunched("error", f"the function {name} is no kernel; write @triton.jit above its def")
    if torch.cuda.is_available():
        return "cuda"
    raise NotLaunched(
        "error",
        f"the kernel {name} was defined before Triton's interpreter was switched on, and there is no GPU to compile it "
        "for; run the notebook's first cell, which imports qlab.kernels, and then the cell of the kernel again",
    )


def _start(kernel: Any, grid: tuple[int, ...], given: list[Any]) -> None:
    from triton.runtime.errors import InterpreterError

    try:
        kernel[grid](*given)
    except InterpreterError as error:
        cause: BaseException = error
        while isinstance(cause, InterpreterError) and cause.__cause__ is not None:  # once for each function called
            cause = cause.__cause__
        raise cause from None


@contextmanager
def _watched(held: dict[str, _Memory], launch: Launch) -> Iterator[_Seen]:
    """While this lasts, the interpreter's loads and stores go to the storages held, and nowhere else."""
    import triton.language as tl
    from triton.runtime.interpreter import TensorHandle
    from triton.runtime.interpreter import interpreter_builder as builder

    programs = {name: np.full(held[name].tensor.numel(), NO_PROGRAM) for name in launch.writes}
    seen = _Seen({name: [] for name in held}, programs)
    load, store = builder.create_masked_load, builder.create_masked_store

    def look(word: str, pointers: Any, mask: Any) -> dict[str, Any]:
        """The places of each tensor that these addresses are, counted from its first element."""
        chosen = np.broadcast_to(mask.data, pointers.data.shape).astype(bool)  # the interpreter may hold 0 and 1
        addresses = pointers.data[chosen].astype(np.int64)
        places = {}
        for name, memory in held.items():
            place = (addresses - memory.first) // memory.tensor.element_size()
            near = (place >= -GUARD) & (place < memory.tensor.numel() + GUARD)
            places[name], addresses = place[near], addresses[~near]
        if addresses.size:
            raise IndexError(f"{word} goes to an address far outside of all tensors")
        return places

    def nothing(dtype: Any) -> Any:
        return np.nan if dtype.kind == "f" else dtype.kind == "b" or np.iinfo(dtype).max

    def handle(mask: Any) -> Any:
        """Block pointers bring a plain array."""
        return TensorHandle(mask, tl.int1) if isinstance(mask, np.ndarray) else mask

    def watched_load(pointers: Any, mask: Any, other: Any, *rest: Any) -> Any:
        mask = handle(mask)
        for name, place in look("tl.load", pointers, mask).items():
            seen.reads[name] += place[(place < 0) | (place >= held[name].tensor.numel())].tolist()
        if other is None and not mask.data.all():
            nowhere = TensorHandle(np.zeros_like(mask.data), mask.dtype)
            other = load(pointers, nowhere, None, *rest)  # zeros, of the right type
            other.data[...] = nothing(other.data.dtype)
        return load(pointers, mask, other, *rest)

    def watched_store(pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        mask = handle(mask)
        places = look("tl.store", pointers, mask)
        grid = (*launch.grid, 1, 1)[:3]
        program = np.ravel_multi_index(builder.grid_idx, grid)
        for name, stored in seen.programs.items():
            inside = places[name][(places[name] >= 0) & (places[name] < stored.size)]
            alone = (stored[inside] == NO_PROGRAM) | (stored[inside] == program)
            stored[inside] = np.where(alone, program, SEVERAL)
        return store(pointers, value, mask, *rest)

    builder.create_masked_load, builder.create_masked_store = watched_load, watched_store
    try:
        yield seen
    finally:
        builder.create_masked_load, builder.create_masked_store = load, store
