"""Every contestant computes the product that it says: through the same harness that measures it, at tiny shapes."""

from __future__ import annotations

import pytest
import torch

from qlab.bench import contestant, contestants, cpu, kernels, libraries
from qlab.bench.contestant import DTYPES, Prepared
from qlab.bench.layers import Shape

DEVICE = torch.device("cpu")
SHAPE = Shape("tiny", 64, 256)


def error(prepared: Prepared, kind: str, tokens: int) -> float:
    x = kernels.activations(SHAPE, tokens, DEVICE).to(DTYPES[kind])
    y = prepared.call(prepared.feed(x), prepared.weight)
    assert y.shape == (tokens, 64)
    return kernels.relative_error(y, prepared.seen(kernels._some(x)), prepared.stands_for())


def cases(device: str) -> list[tuple[str, str]]:
    kinds = kernels.KINDS[device]
    known = [one for one in contestants.TABLE if device in one.devices]
    return [(one.name, kind) for one in known for kind in one.dtypes if kind in kinds]


@pytest.mark.parametrize("tokens", [1, 5, 33])
@pytest.mark.parametrize(("name", "kind"), cases("cpu"))
def test_on_a_cpu(name: str, kind: str, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)  # the compiler would take ten seconds
    (one,) = contestants.contestants("cpu", (name,))
    if reason := one.missing():
        pytest.skip(reason)
    prepared = one.prepare(kernels.weights(SHAPE, DEVICE).to(DTYPES[kind]))
    assert error(prepared, kind, tokens) <= prepared.tolerance


@pytest.mark.parametrize("tokens", [1, 5, 70])
@pytest.mark.parametrize(("name", "kind"), cases("cpu-interpreted"))
def test_our_kernels_interpreted(name: str, kind: str, tokens: int) -> None:
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        pytest.skip("with a GPU the kernels are compiled for it")
    (one,) = contestants.contestants("cpu-interpreted", (name,))
    prepared = one.prepare(kernels.weights(SHAPE, DEVICE).to(DTYPES[kind]))
    assert error(prepared, kind, tokens) <= prepared.tolerance
    assert prepared.path(torch.empty(tokens, 256))


def test_a_forced_path_is_taken_and_measured_only_where_it_is_named() -> None:
    pytest.importorskip("triton")
    names = {f"qlab-int4-{path}": path for path in ("split-k", "gemm", "dequantize")}
    assert not names.keys() & {one.name for one in contestants.contestants("cpu-interpreted")}
    for one in contestants.contestants("cpu-interpreted", tuple(names)):
        prepared = one.prepare(kernels.weights(SHAPE, DEVICE).half())
        assert {prepared.path(torch.empty(tokens, 256)) for tokens in (1, 5, 70, 600)} == {names.pop(one.name)}
    assert not names


def test_bitsandbytes_int8_is_fed_and_scaled_as_it_should_be() -> None:
    pytest.importorskip("bitsandbytes")
    prepared = libraries.bitsandbytes_int8(kernels.weights(SHAPE, DEVICE).half())  # measured on GPUs only: slow here
    assert error(prepared, "float16", 5) <= prepared.tolerance


def test_bytes_of_weights_by_hand() -> None:
    w = kernels.weights(SHAPE, DEVICE).bfloat16()
    rows, columns = 64, 256
    assert contestant.dense(w).nbytes == rows * columns * 2
    assert cpu.torch_int8(w).nbytes == rows * columns + rows * 2
    assert cpu.torch_int4(w).nbytes == rows * columns // 2 + rows * (columns // 128) * 2 * 2  # scales and zero-points
    assert cpu.w8a8_torch(w).nbytes == rows * columns + rows * 4


def test_bytes_of_a_product_by_hand() -> None:
    w, x = kernels.weights(SHAPE, DEVICE).bfloat16(), torch.zeros(5, 256, dtype=torch.bfloat16)
    prepared = cpu.torch_int8(w)
    y = prepared.call(x, prepared.weight)
    assert kernels.counted_bytes(prepared.nbytes, x, y) == 64 * 256 + 64 * 2 + 5 * 256 * 2 + 5 * 64 * 2
    assert kernels.counted_bytes(7, (x, "compiled"), y) == 7 + 5 * 256 * 2 + 5 * 64 * 2


def test_a_wrong_product_has_a_large_error() -> None:
    w = kernels.weights(SHAPE, DEVICE)
    x = kernels.activations(SHAPE, 100, DEVICE)
    y = x @ w.t()
    assert kernels.relative_error(y, kernels._some(x), w) < 1e-6
    for wrong in (y.roll(1, 1), torch.cat([y[:-1], y[:1]])):  # outputs moved by one; only the last token is wrong
        assert kernels.relative_error(wrong, kernels._some(x), w) > 0.1
    hole = y.clone()
    hole[1, 1] = torch.nan  # a token that is not compared
    assert kernels.relative_error(hole, kernels._some(x), w) != kernels.relative_error(hole, kernels._some(x), w)


def test_unknown_kernels_and_missing_compilers_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"kernels: got fast; on cpu there are dense, dense-fp32, torch-int8"):
        contestants.contestants("cpu", ("dense", "fast"))
    monkeypatch.setenv("CXX", "no-such-compiler")
    (one,) = contestants.contestants("cpu", ("compiled-int8",))
    assert one.missing() == "torch.compile needs a C++ compiler, and there is no no-such-compiler"
    assert contestant.not_installed("no_such_module")() == "no_such_module is not installed"
