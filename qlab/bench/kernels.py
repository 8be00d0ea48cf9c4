"""Every kernel, every shape, every number of tokens: `qlab bench`.

Two ceilings are measured first (`ceilings`), then each kernel in pairs with the plain product in 16 bits (`stopwatch`).
Before a kernel is measured its result is compared with float64, and a wrong one stays out of the table. A run with
a file goes on where it stopped; what failed is noted in the file with its reason, and is not tried again.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from . import decode, layers, machine, results
from .ceilings import Ceilings, ceilings
from .contestant import DENSE, DTYPES, Contestant, Prepared
from .contestants import contestants
from .layers import Shape
from .results import Results, Row, Skipped
from .stopwatch import (
    Budget,
    Stopwatch,
    cache_bytes,
    copies,
    cpu_stopwatch,
    cuda_stopwatch,
    measure,
    measure_pairs,
    ratio,
    spread,
)

HEAD_TOKENS = 256  # a head is measured for batches that decode, up to this size
CHECKED = 32  # tokens, evenly spread, whose result is compared with float64


@dataclass(frozen=True)
class Settings:
    """What is measured. Two files with the same settings can be continued."""

    device: str
    shapes: tuple[str, ...]
    tokens: tuple[int, ...]
    kernels: tuple[str, ...] = ()  # none: all
    dtypes: tuple[str, ...] = ("float16", "bfloat16")
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        if self.device not in ("cuda", "cpu", "cpu-interpreted"):
            raise ValueError(f"device: got {self.device!r}; choose cuda or cpu")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device: got cuda, and torch finds no GPU here; choose cpu")
        if not self.tokens or min(self.tokens) < 1:
            raise ValueError(f"tokens: got {', '.join(map(str, self.tokens)) or 'none'}; give numbers from 1 up")

    @property
    def torch_device(self) -> torch.device:
        return torch.device("cuda" if self.device == "cuda" else "cpu")


TOKENS = {"cuda": (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 2048, 8192), "cpu": (1, 2, 4, 8, 16, 32, 64, 128)}
SHAPES = {"cuda": ("8b", "70b", "8192"), "cpu": ("4096", "4096x14336")}
QUICK_TOKENS = {"cuda": (1, 16, 256), "cpu": (1, 16, 128)}
QUICK_SHAPES = {"cuda": ("8192",), "cpu": ("4096",)}
KINDS = {"cuda": ("float16", "bfloat16"), "cpu": ("bfloat16", "float32"), "cpu-interpreted": ("float16",)}
QUICK = Budget(seconds=0.2, least=3, most=30)


def settings(
    device: str | None = None,
    shapes: Sequence[str] = (),
    tokens: Sequence[int] = (),
    kernels: Sequence[str] = (),
    quick: bool = False,
) -> Settings:
    """Settings with everything filled in that was not asked for. Raises ValueError as `Settings`."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    key = "cuda" if device == "cuda" else "cpu"
    return Settings(
        device,
        tuple(shapes) or (QUICK_SHAPES if quick else SHAPES)[key],
        tuple(sorted(set(tokens))) or (QUICK_TOKENS if quick else TOKENS)[key],
        tuple(kernels),
        KINDS.get(device, KINDS["cpu"]),
        QUICK if quick else Budget(),
    )


def run(
    asked: Settings,
    path: Path | None = None,
    *,
    context: int = 4096,
    command: str | None = None,
    started: Callable[[Results], None] = lambda results: None,
    measured: Callable[[Row | Skipped], None] = lambda row: None,
    table: tuple[Contestant, ...] = (),
    stopwatch: Stopwatch | None = None,
    limits: Ceilings | None = None,
) -> Results:
    """Measure what was asked for and is not in the file yet.

    Args:
        path: a JSON file to continue or to make; None keeps the results in memory.
        context: tokens in the KV cache, for the estimate of decoding.
        command: what to write down as the command; default: that of this process.
        started: called with what is there before the first measurement: hardware, ceilings, rows of a file.
        measured: called with each row, and with what is left out.
        table, stopwatch, limits: others than those of `contestants`, of the device and of a measurement; for tests.

    Raises:
        ValueError: an unknown shape, kernel or device; a file of another run.
        OSError: the file cannot be written.
    """
    shapes, chosen = layers.shapes(asked.shapes), contestants(asked.device, asked.kernels, table)
    plain = next(one for one in contestants(asked.device, (), table) if one.name == DENSE)
    device = asked.torch_device
    command = command or shlex.join(["qlab", *sys.argv[1:]])
    date = datetime.now(UTC).isoformat(timespec="seconds")
    new = Results(command, date, machine.hardware(device), machine.versions(), asdict(asked))
    found = results.continued(path, new)
    stopwatch = stopwatch or (cuda_stopwatch() if device.type == "cuda" else cpu_stopwatch())
    found.ceilings = found.ceilings or limits or ceilings(device, stopwatch, Budget(seconds=1.0))
    _save(found, path)
    started(found)

    def note(entry: Row | Skipped) -> None:
        (found.rows if isinstance(entry, Row) else found.skipped).append(entry)  # type: ignore[arg-type]
        _save(found, path)
        measured(entry)

    done: set[tuple[Any, ...]] = {row.key for row in found.rows} | {entry.key for entry in found.skipped}
    able = []
    for one in chosen:
        if reason := one.missing():
            if (one.name, None, None, None, None) not in done:
                note(Skipped(one.name, reason))
        else:
            able.append(one)
    for shape in shapes:
        for kind in asked.dtypes:
            group = [one for one in able if kind in one.dtypes and (one.name == DENSE or not shape.head)]
            _measure_shape(shape, kind, group, plain, asked, found.ceilings, stopwatch, done, note)
    found.decode = decode.of_results(found, context)
    _save(found, path)
    return found


def _measure_shape(
    shape: Shape,
    kind: str,
    group: list[Contestant],
    plain: Contestant,
    asked: Settings,
    limits: Ceilings,
    stopwatch: Stopwatch,
    done: set[tuple[Any, ...]],
    note: Callable[[Row | Skipped], None],
) -> None:
    """All kernels that take one type, for one shape."""
    device, cache = asked.torch_device, cache_bytes(asked.torch_device)
    base: _Rotating | None = None
    for one in group:
        left = [
            tokens
            for tokens in asked.tokens
            if (one.name, shape.outputs, shape.inputs, tokens, kind) not in done
            and not (shape.head and tokens > HEAD_TOKENS)
        ]
        if not left:
            continue
        note_failure = partial(Skipped, one.name, outputs=shape.outputs, inputs=shape.inputs, dtype=kind)
        try:
            if base is None:
                w = weights(shape, device)
                short = kind if kind in plain.dtypes else "bfloat16"
                base = _Rotating(plain.prepare(w.to(DTYPES[short])), short, cache)
            ours = base if one.name == DENSE else _Rotating(one.prepare(w.to(DTYPES[kind])), kind, cache)
        except Exception as error:  # of a library that this is not about
            for tokens in left:
                note(note_failure(reason=_first_line(error), tokens=tokens))
            _sound(device)
            continue
        for tokens in left:
            entry: Row | Skipped
            try:
                entry = _row(one, shape, tokens, kind, ours, base, asked.budget, limits, stopwatch)
            except Exception as error:
                entry = note_failure(reason=_first_line(error), tokens=tokens)
            note(entry)
            if isinstance(entry, Skipped):
                _sound(device)


class _Rotating:
    """A prepared weight, its copies, and what it stands for."""

    def __init__(self, prepared: Prepared, kind: str, cache: int) -> None:
        self.prepared, self.kind = prepared, kind
        self.weights = copies(prepared.weight, prepared.nbytes, cache)
        self.stands_for = prepared.stands_for()

    def calls(self, x: torch.Tensor) -> tuple[Any, list[Callable[[], torch.Tensor]]]:
        """What is fed, and a call for each copy."""
        fed = self.prepared.feed(x.to(DTYPES[self.kind]))
        return fed, [partial(self.prepared.call, fed, weight) for weight in self.weights]


class _Wrong(Exception):
    """A result that is not the product."""


def weights(shape: Shape, device: torch.device) -> torch.Tensor:
    """Seeded normal weights (out, in) in float32, of the size that layers have."""
    rng = torch.Generator(device).manual_seed(shape.outputs + shape.inputs)
    return torch.randn(shape.outputs, shape.inputs, generator=rng, device=device).mul_(shape.inputs**-0.5)


def activations(shape: Shape, tokens: int, device: torch.device) -> torch.Tensor:
    """Seeded normal activations (tokens, in) in float32."""
    rng = torch.Generator(device).manual_seed(tokens)
    return torch.randn(tokens, shape.inputs, generator=rng, device=device)


def counted_bytes(weight: int, fed: Any, y: torch.Tensor) -> int:
    """Bytes that a product moves at least: the weight, what it is fed and its result, each once."""
    parts = fed if isinstance(fed, tuple) else (fed,)
    return weight + y.nbytes + sum(part.nbytes for part in parts if isinstance(part, torch.Tensor))


@torch.no_grad()
def _row(
    one: Contestant,
    shape: Shape,
    tokens: int,
    kind: str,
    ours: _Rotating,
    base: _Rotating,
    budget: Budget,
    limits: Ceilings,
    stopwatch: Stopwatch,
) -> Row:
    x = activations(shape, tokens, ours.stands_for.device).to(DTYPES[kind])
    fed, calls = ours.calls(x)
    y = calls[0]()
    error = relative_error(y, ours.prepared.seen(_some(x)), ours.stands_for)
    if not error <= ours.prepared.tolerance:
        raise _Wrong(f"wrong result: relative error {error:.2g}; allowed is {ours.prepared.tolerance}")
    if ours is base:
        seconds = measure(stopwatch, calls, budget)
        times = 1.0
    else:
        seconds, others = measure_pairs(stopwatch, calls, base.calls(x)[1], budget)
        times = ratio(seconds, others)
    found = spread(seconds)
    nbytes, flops = counted_bytes(ours.prepared.nbytes, fed, y), 2 * tokens * shape.outputs * shape.inputs
    ceiling, floor = limits.floor(nbytes, flops, one.rate or kind)
    rate = nbytes / found.median
    return Row(
        kernel=one.name,
        path=ours.prepared.path(x),
        shape=shape.name,
        outputs=shape.outputs,
        inputs=shape.inputs,
        tokens=tokens,
        dtype=kind,
        seconds=found.median,
        quartiles=(found.low, found.high),
        repetitions=found.count,
        bytes=nbytes,
        flops=flops,
        gb_per_s=rate / 1e9,
        copy_fraction=rate / limits.copy,
        ceiling=ceiling,
        ceiling_fraction=floor / found.median,
        ratio=times,
        relative_error=error,
    )


def relative_error(y: torch.Tensor, x: torch.Tensor, w: torch.Tensor) -> float:
    """||y - x W.T|| / ||x W.T|| in float64, over the tokens of y that `x` has; NaN if any of y is not finite."""
    if not bool(torch.isfinite(y).all()):
        return float("nan")
    x = x.double()
    right = torch.cat([x @ rows.double().t() for rows in w.split(4096)], dim=1)  # W in float64 is large
    return float((_some(y).double() - right).norm() / right.norm())


def _some(x: torch.Tensor) -> torch.Tensor:
    """Up to `CHECKED` rows, evenly spread, the first and the last among them."""
    return x[torch.linspace(0, len(x) - 1, min(CHECKED, len(x)), device=x.device).round().long()]


def _sound(device: torch.device) -> None:
    """After a failure: free its memory. An error that a GPU does not recover from shows here, and ends the run."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def _save(found: Results, path: Path | None) -> None:
    if path is not None:
        found.save(path)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0][:200]}".removeprefix("_")
