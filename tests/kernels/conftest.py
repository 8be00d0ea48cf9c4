"""The same tests wherever the kernels run: compiled where there is CUDA, in Triton's interpreter where there is not.

What is marked `gpu` is too large for the interpreter. On a machine with CUDA every test here carries that mark.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from qlab.formats import affine, codebook
from qlab.formats.weight import QuantizedWeight
from qlab.methods import gptq, hqq

try:
    from qlab.kernels import INTERPRETED
except ImportError:  # no triton: there is nothing to test
    INTERPRETED = True
    collect_ignore_glob = ["test_*.py"]

MEBI = 2**20


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("gpu") and INTERPRETED:
            item.add_marker(pytest.mark.skip(reason="too large for Triton's interpreter, and there is no CUDA here"))


@pytest.fixture(scope="session", params=["cpu"] if INTERPRETED else [pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Where the kernels run."""
    return torch.device(request.param)


@pytest.fixture(scope="module", autouse=True)
def poison() -> Iterator[None]:
    """Every new tensor starts as NaN, or as the code -128 that nothing writes: what a kernel leaves out then shows."""

    def poisoned(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def filled(*args: Any, **kwargs: Any) -> torch.Tensor:
            tensor = make(*args, **kwargs)
            if tensor.nbytes > 256 * MEBI and INTERPRETED:  # must stay untouched, for it is larger than memory may be
                return tensor
            return tensor.fill_(float("nan") if tensor.is_floating_point() else -128)

        return filled

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "empty", poisoned(torch.empty))
        patch.setattr(torch.Tensor, "new_empty", poisoned(torch.Tensor.new_empty))
        yield


def _surrounded(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.ndim == 0:
        return _surrounded(tensor.view(1))[0]
    junk = float("nan") if tensor.is_floating_point() else torch.iinfo(tensor.dtype).max
    buffer = torch.full([3 + n + 128 for n in tensor.shape], junk, dtype=tensor.dtype, device=tensor.device)
    inner = buffer[tuple(slice(3, 3 + n) for n in tensor.shape)]
    return inner.copy_(tensor)


@pytest.fixture(scope="session")
def surrounded() -> Callable[[Any], Any]:
    """A tensor, or all those of a repacked weight, cut from larger ones of NaN or of the largest integer.

    A read out of bounds, by up to a whole tile, then shows in the result.
    """

    def surround(held: Any) -> Any:
        if isinstance(held, torch.Tensor):
            return _surrounded(held)
        changed = {name: getattr(held, name) for name in ("words", "scales", "zeros", "codebook")}
        changed = {name: None if tensor is None else _surrounded(tensor) for name, tensor in changed.items()}
        nested = None if held.nested is None else tuple(map(_surrounded, held.nested))
        return dataclasses.replace(held, **changed, nested=nested)

    return surround


@pytest.fixture(scope="session")
def numbers() -> Callable[..., torch.Tensor]:
    """`numbers(rows, columns, ...)`: normally distributed, both signs, the same in every run."""

    def make(*shape: int, seed: int = 0) -> torch.Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))

    return make


@pytest.fixture(scope="session")
def quantized(numbers: Callable[..., torch.Tensor]) -> Callable[..., QuantizedWeight]:
    """`quantized(kind, out, columns)`: a weight of one of the formats that the kernels read.

    "int4-128", "int8-32a" and so on: bits, then the group ("c" per channel, "t" per tensor), then "a" if asymmetric.
    """

    def quantize(kind: str, out: int, columns: int, device: torch.device | str = "cpu") -> QuantizedWeight:
        w = numbers(out, columns, seed=1).to(device) / 8
        w += w.sign() * (w.abs() == w.abs().amax(1, keepdim=True))  # an outlier in each row: scales differ
        block = 64 if columns % 64 == 0 else 16
        name, _, rest = kind.partition("-")
        if name in codebook.CODES:
            return codebook.quantize(w, name, block, rest == "double")
        if name == "hqq":
            return hqq.quantize(w, int(rest), block)
        if name == "gptq":  # the inputs in the order of their activity
            x = numbers(2 * columns, columns, seed=2).to(device) * torch.linspace(0.5, 2, columns, device=device)
            return gptq.quantize(w, x.t() @ x, 4, int(rest), symmetric=False, act_order=True)
        size = rest.rstrip("a")
        group = {"c": "channel", "t": "tensor"}.get(size) or int(size)
        return affine.quantize(w, int(name[3:]), group, not rest.endswith("a"))

    return quantize


@pytest.fixture(scope="session")
def excess() -> Callable[..., float]:
    """`excess(y, x, weight, bias)`: the error of a product against float64, over the one that is allowed.

    Allowed is 1.5 times the error of torch's own product of x with the dequantized weight in the type of x, both over
    the whole result. In float32 two units in the last place of sum |x| |w| come on top: there the error of either
    product is how its additions happened to round, and of few sums the luckier is not the better one.
    """

    def measure(y: torch.Tensor, x: torch.Tensor, weight: QuantizedWeight, bias: torch.Tensor | None = None) -> float:
        exact, offset = weight.dequantize(torch.float64), 0 if bias is None else bias.double()
        truth = x.double() @ exact.t() + offset
        plain = torch.nn.functional.linear(x, weight.dequantize(x.dtype), bias)
        allowed = 1.5 * (plain.double() - truth).norm()
        if x.dtype == torch.float32:
            allowed += 2 * 2.0**-23 * (x.double().abs() @ exact.abs().t()).norm()
        assert y.dtype == x.dtype and y.shape == truth.shape
        return float((y.double() - truth).norm() / allowed)  # NaN, from one NaN, is below nothing

    return measure


@pytest.fixture(scope="session")
def same() -> Callable[[torch.Tensor, torch.Tensor], None]:
    """`same(y, expected)`: equal bits in the interpreter, and on a GPU as near as the type of both allows.

    A GPU may fuse a product and a sum, which then round once, and adds in an order that depends on the strides.
    """

    def compare(y: torch.Tensor, expected: torch.Tensor) -> None:
        exactly = {"rtol": 0.0, "atol": 0.0} if INTERPRETED else {}
        torch.testing.assert_close(y, expected, **exactly, equal_nan=True)

    return compare


class _LastPrograms:
    """Stands in for a kernel: along an axis of more than 16 programs it runs only the last one."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        from triton.runtime import interpreter

        short = tuple(n if n <= 16 else 1 for n in grid)
        skipped = [n - s for n, s in zip(grid, short, strict=True)] + [0, 0]
        original = interpreter.InterpreterBuilder.create_get_program_id

        def shifted(builder: Any, axis: int) -> Any:
            handle = original(builder, axis)
            handle.data = handle.data + skipped[axis]
            return handle

        def launch(*args: Any, **kwargs: Any) -> None:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(interpreter.InterpreterBuilder, "create_get_program_id", shifted)
                # It copies every argument back onto itself, which would touch every page.
                patch.setattr(interpreter.GridExecutor, "_restore_args_dev", lambda *_: None)
                self.kernel[short](*args, **kwargs)

        return launch


@pytest.fixture
def last_programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any, str], None]]:
    """`last_programs(module, "_kernel")`: in the interpreter, of a long grid only the last programs run.

    Then tensors of more than 2^31 elements can be tested where there is no memory for them: what is not touched is not
    there. Checked at the end. On CUDA everything runs, in as much memory as it needs.
    """
    import psutil

    def shorten(module: Any, name: str) -> None:
        if INTERPRETED:
            monkeypatch.setattr(module, name, _LastPrograms(getattr(module, name)))
        elif torch.cuda.mem_get_info()[0] < 24 * 1024 * MEBI:
            pytest.skip("needs 24 GiB of free GPU memory")

    before = psutil.Process().memory_info().rss
    yield shorten
    assert psutil.Process().memory_info().rss - before < 256 * MEBI
