"""Products with packed weights: every path, format and shape, against float64 and against exact integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from qlab.formats import affine
from qlab.formats.weight import QuantizedWeight
from qlab.kernels import INTERPRETED, configs, planes, weight_only

pytestmark = pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")  # NumPy's, of the interpreter

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
KINDS = (
    *("int4-16", "int4-32a", "int4-48a", "int4-128", "int4-256a", "int4-c", "int4-ta", "gptq-32", "hqq-4"),
    *("int8-32", "int8-64a", "int8-c", "int8-t", "hqq-8"),
    *("nf4", "nf4-double", "fp4", "fp4-double", "e2m1", "e2m1-double"),
)
ONE_OF_EACH = ("int4-128", "int4-32a", "int8-c", "nf4-double", "hqq-4")  # what the kernels tell apart
PATHS = {"gemv": 1, "split-k": 5, "gemm": 66, "dequantize": 5}  # and a number of tokens for each
TOKENS = (0, 1, 2, 3, 15, 16, 17, 33, 64, 129)

Product = Callable[..., tuple[torch.Tensor, torch.Tensor, QuantizedWeight, torch.Tensor | None]]


@pytest.fixture
def product(
    numbers: Callable[..., torch.Tensor],
    quantized: Callable[..., QuantizedWeight],
    surrounded: Callable[[Any], Any],
    device: torch.device,
) -> Product:
    """`product(kind, m, n, k, dtype, path)`: (y, x, weight, bias), and the path was the one that was asked for."""

    def multiply(
        kind: str, m: int, n: int, k: int, dtype: torch.dtype, path: str | None = None, bias: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor, QuantizedWeight, torch.Tensor | None]:
        weight = quantized(kind, n, k, device)
        x = surrounded(numbers(m, k).to(device, dtype))
        added = surrounded(numbers(n).to(device, dtype)) if bias else None
        y, used = weight_only.linear(x, surrounded(planes.repack(weight)), added, path)
        assert used == (path or configs.path(m) if m else "empty")
        return y, x, weight, added

    return multiply


def test_new_tensors_are_poisoned() -> None:
    assert torch.empty(3).isnan().all() and torch.zeros(1).new_empty(3).isnan().all()
    assert torch.empty(3, dtype=torch.int8).eq(-128).all()


@pytest.mark.parametrize("m", TOKENS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kind", "n", "k"), [("int4-128", 72, 300), ("hqq-4", 130, 64)])
def test_every_number_of_tokens(
    kind: str, n: int, k: int, dtype: torch.dtype, m: int, product: Product, excess: Callable[..., float]
) -> None:
    y, x, weight, bias = product(kind, m, n, k, dtype)
    assert y.shape == (m, n) and y.dtype == dtype
    if m:
        assert excess(y, x, weight, bias) <= 1


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_format(kind: str, path: str, product: Product, excess: Callable[..., float]) -> None:
    assert excess(*product(kind, PATHS[path], 72, 192, torch.float16, path)) <= 1


@pytest.mark.parametrize(
    ("n", "k"),
    [(1, 1), (1, 640), (2, 15), (17, 16), (16, 17), (127, 128), (128, 127), (129, 129), (300, 33), (40, 1100)],
)
@pytest.mark.parametrize(("kind", "path"), [("int4-16", "gemv"), ("int4-128a", "split-k"), ("int8-c", "gemm")])
def test_every_shape(kind: str, path: str, n: int, k: int, product: Product, excess: Callable[..., float]) -> None:
    assert excess(*product(kind, 1 if path == "gemv" else 3, n, k, torch.float32, path, bias=False)) <= 1


@pytest.mark.gpu
@pytest.mark.parametrize(("n", "k"), [(8192, 8192), (4096, 14336)])
@pytest.mark.parametrize("m", [1, 2, 16, 33, 64, 129, 600])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_large_shapes(
    kind: str, dtype: torch.dtype, m: int, n: int, k: int, product: Product, excess: Callable[..., float]
) -> None:
    assert excess(*product(kind, m, n, k, dtype)) <= 1


@pytest.mark.parametrize("path", ["split-k", "dequantize"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_product_with_the_identity_is_the_weight(
    same: Callable[[torch.Tensor, torch.Tensor], None],
    kind: str,
    path: str,
    quantized: Callable[..., QuantizedWeight],
    device: torch.device,
) -> None:
    weight = quantized(kind, 20, 192, device)
    y, _ = weight_only.linear(torch.eye(192, device=device), planes.repack(weight), path=path)
    same(y.t(), weight.dequantize(torch.float32))


@pytest.mark.parametrize("kind", KINDS)
def test_a_unit_vector_gives_a_column(
    same: Callable[[torch.Tensor, torch.Tensor], None],
    kind: str,
    quantized: Callable[..., QuantizedWeight],
    device: torch.device,
) -> None:
    weight = quantized(kind, 20, 192, device)
    prepared, dense = planes.repack(weight), weight.dequantize(torch.float32)
    for column in (15, 112, 128):
        x = torch.zeros(192, device=device)
        x[column] = -2
        same(weight_only.linear(x, prepared)[0], -2 * dense[:, column])


@pytest.mark.parametrize("processors", [1, 132])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("bits", planes.BITS)
@pytest.mark.parametrize("zeros", [False, True])
def test_signed_integers_are_exact(
    zeros: bool, bits: int, path: str, processors: int, monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> None:
    # All sums stay below 2^11, where float16 holds every integer. With 132 processors the tiles are those of a GPU.
    monkeypatch.setattr(configs, "processors", lambda _: processors)
    generator = torch.Generator().manual_seed(bits)
    m, n, k = min(PATHS[path], 20), 33, 1300
    codes = torch.randint(0, 2**bits, (n, k), generator=generator, dtype=torch.uint8)
    points = torch.randint(0, 2**bits, (n, 11), generator=generator, dtype=torch.uint8) if zeros else None
    weight = affine.from_codes(codes, torch.ones(n, 11), points, bits, 128, torch.float32)
    x = torch.zeros(m, k, dtype=torch.float16)
    for row in x:  # a token of six inputs, from -1 to 1
        row[torch.randperm(k, generator=generator)[:6]] = torch.tensor([-1.0, 1, -1, 1, -1, -1]).half()
    exact = x.long() @ weight.dequantize(torch.float32).long().t()
    prepared = planes.repack(weight)
    for name in ("words", "scales", "zeros"):
        tensor = getattr(prepared, name)
        object.__setattr__(prepared, name, None if tensor is None else tensor.to(device))
    y, _ = weight_only.linear(x.to(device), prepared, path=path)
    assert exact.abs().max() < 2**11 and exact.min() < 0 < exact.max()
    assert torch.equal(y.cpu().long(), exact)


@pytest.mark.parametrize("kind", ["int4-128", "int8-32", "nf4-double"])
@pytest.mark.parametrize("m", [1, 5])
def test_splits_of_a_gpu_and_the_same_bits_twice(
    m: int,
    kind: str,
    product: Product,
    excess: Callable[..., float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(configs, "processors", lambda _: 132)
    n, k = 40, 2112 if m == 1 else 1088  # half a tile of 128 over: the last split has less to do than the others
    config = (configs.gemv if m == 1 else lambda *shape: configs.matmul(m, *shape, split=True))(n, -(-k // 128), 132)
    assert config.splits > 1
    first, x, weight, bias = product(kind, m, n, k, torch.float16)
    assert excess(first, x, weight, bias) <= 1
    assert torch.equal(first, product(kind, m, n, k, torch.float16)[0])


@pytest.mark.parametrize("m", [1, 3, 66])
def test_a_bias_may_have_another_type(
    same: Callable[[torch.Tensor, torch.Tensor], None],
    m: int,
    product: Product,
    quantized: Callable[..., QuantizedWeight],
    device: torch.device,
) -> None:
    y, x, weight, bias = product("int4-128", m, 40, 128, torch.float32)
    assert bias is not None
    prepared, half = planes.repack(weight), bias.half()
    same(weight_only.linear(x, prepared, half)[0], weight_only.linear(x, prepared, half.float())[0])
    assert not torch.equal(y, weight_only.linear(x, prepared)[0])


@pytest.mark.parametrize("path", PATHS)
def test_any_strides(
    same: Callable[[torch.Tensor, torch.Tensor], None],
    path: str,
    quantized: Callable[..., QuantizedWeight],
    numbers: Callable[..., torch.Tensor],
    device: torch.device,
) -> None:
    m, k = PATHS[path], 100
    prepared = planes.repack(quantized("gptq-32" if path == "split-k" else "int4-32", 24, k, device))
    x, bias = numbers(m, k).to(device), numbers(24).to(device)
    expected, _ = weight_only.linear(x, prepared, bias, path)
    forms = (
        x.t().contiguous().t(),
        x.repeat_interleave(2, 1)[:, ::2],  # every second column
        x.repeat_interleave(3, 0)[::3],  # every third row
    )
    for strided in forms:
        same(weight_only.linear(strided, prepared, bias, path)[0], expected)
    wide = bias.repeat_interleave(2)[::2]
    same(weight_only.linear(x, prepared, wide, path)[0], expected)
    one = x[:1].expand(m, k)  # all rows are one
    expected, _ = weight_only.linear(one.contiguous(), prepared, bias, path)
    same(weight_only.linear(one, prepared, bias, path)[0], expected)


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0,), (2, 0, 3), (1, 1, 1)])
def test_any_leading_axes(
    same: Callable[[torch.Tensor, torch.Tensor], None],
    shape: tuple[int, ...],
    quantized: Callable[..., QuantizedWeight],
    numbers: Callable[..., torch.Tensor],
    device: torch.device,
) -> None:
    prepared, x = planes.repack(quantized("int4-32", 8, 48, device)), numbers(*shape, 48).to(device)
    y, path = weight_only.linear(x, prepared)
    assert y.shape == (*shape, 8) and (path == "empty") == (x.numel() == 0)
    rows, _ = weight_only.linear(x.reshape(-1, 48), prepared)
    same(y.reshape(-1, 8), rows)


@pytest.mark.parametrize("path", PATHS)
def test_nan_and_infinity_stay_in_their_token(
    path: str, quantized: Callable[..., QuantizedWeight], numbers: Callable[..., torch.Tensor], device: torch.device
) -> None:
    weight = quantized("int4-32", 8, 48, device)
    x = numbers(PATHS[path], 48).to(device)
    x[0, 5] = float("nan") if path != "split-k" else float("inf")
    y, _ = weight_only.linear(x, planes.repack(weight), path=path)
    dense = weight.dequantize(torch.float32)
    assert torch.equal(y[0].isfinite(), (x[:1] @ dense.t())[0].isfinite()) and not y[0].isfinite().any()
    assert y[1:].isfinite().all()


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("path", ["gemv", "gemm"])
@pytest.mark.parametrize("group", [32, 128])
def test_strides_past_2_31_elements(
    group: int,
    path: str,
    transposed: bool,
    quantized: Callable[..., QuantizedWeight],
    numbers: Callable[..., torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
    last_programs: Callable[[Any, str], None],
    device: torch.device,
) -> None:
    """The last row of every operand, or the last column of x, lies past 2^31 elements; all strides are below that."""
    last_programs(weight_only, "_gemv")
    last_programs(weight_only, "_matmul")
    m, n, k = 1 if path == "gemv" else 3, 8, 512

    def far(tensor: torch.Tensor, axis: int = 0) -> torch.Tensor:
        if tensor.shape[axis] < 2:
            return tensor
        stride = 2**31 // (tensor.shape[axis] - 1) + 1
        placed = torch.empty_strided(
            tensor.shape, (stride, 1) if axis == 0 else (1, stride), dtype=tensor.dtype, device=device
        )
        return placed.copy_(tensor)

    prepared = planes.repack(quantized(f"int4-{group}a", n, k, device))
    x = numbers(m, k).half().to(device)
    expected, _ = weight_only.linear(x, prepared, path=path)
    for name in ("words", "scales", "zeros"):
        object.__setattr__(prepared, name, far(getattr(prepared, name)))
    one_split = configs.Tiles(16 if m > 1 else 1, 32, 1, 1, 4, 1)
    monkeypatch.setattr(configs, "matmul", lambda *_: one_split)  # then y itself is what the kernel writes
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda x, *shape, **_: far(torch.zeros(shape, dtype=x.dtype)))
    y, _ = weight_only.linear(far(x, int(transposed)), prepared, path=path)
    torch.testing.assert_close(y, expected, rtol=2e-3, atol=2e-3)


def test_tokens_past_2_31_elements(
    same: Callable[[torch.Tensor, torch.Tensor], None],
    quantized: Callable[..., QuantizedWeight],
    numbers: Callable[..., torch.Tensor],
    last_programs: Callable[[Any, str], None],
    device: torch.device,
) -> None:
    last_programs(weight_only, "_matmul")
    prepared = planes.repack(quantized("int4-32", 64, 64, device))
    x = torch.empty(2**25 + 5, 64, dtype=torch.float16, device=device)
    x[-5:] = numbers(5, 64)
    y, _ = weight_only.linear(x, prepared, path="gemm")
    expected, _ = weight_only.linear(x[-5:], prepared, path="gemm")
    same(y[-5:], expected)


@pytest.mark.parametrize(("splits", "count"), [(3, 2**30 + 5), (1, 2**31 + 5)])
def test_partial_sums_past_2_31_elements(
    splits: int, count: int, last_programs: Callable[[Any, str], None], device: torch.device
) -> None:
    last_programs(weight_only, "_add")
    sums = torch.empty(splits, count, dtype=torch.float16, device=device)
    sums[:, -5:] = torch.arange(5.0)
    y = torch.empty(count, dtype=torch.float16, device=device)
    weight_only._add[(-(-count // 1024),)](sums, None, y, count, count, splits, 1024)
    assert y[-5:].tolist() == [splits * i for i in range(5)]


BAD = {
    "x: got torch.float64; give float16": (TypeError, {"x": torch.zeros(2, 32, dtype=torch.float64)}),
    "x: got torch.int8; give float16": (TypeError, {"x": torch.zeros(2, 32, dtype=torch.int8)}),
    "x: shape (2, 31); a weight of shape (8, 32)": (ValueError, {"x": torch.zeros(2, 31)}),
    "x: shape (); a weight": (ValueError, {"x": torch.zeros(())}),
    "bias: shape (7,); a weight of shape (8, 32) takes (8,)": (ValueError, {"bias": torch.zeros(7)}),
    "bias: shape (1, 8); a weight": (ValueError, {"bias": torch.zeros(1, 8)}),
    "path: got 'cublas' for 2 tokens; choose from 'gemv', 'split-k'": (ValueError, {"path": "cublas"}),
    "path: got 'gemv' for 2 tokens": (ValueError, {"path": "gemv"}),
}


@pytest.mark.parametrize("message", BAD)
def test_what_does_not_fit_is_refused(message: str, quantized: Callable[..., QuantizedWeight]) -> None:
    error, changed = BAD[message]
    arguments: dict[str, Any] = {"x": torch.zeros(2, 32), "weight": planes.repack(quantized("int4-32", 8, 32))}
    with pytest.raises(error) as raised:
        weight_only.linear(**arguments | changed)
    assert message in str(raised.value)


@pytest.mark.skipif(not INTERPRETED, reason="on a GPU bfloat16 is multiplied as it is")
def test_the_interpreter_computes_bfloat16_in_float32(
    quantized: Callable[..., QuantizedWeight], numbers: Callable[..., torch.Tensor]
) -> None:
    prepared, x = planes.repack(quantized("int8-32", 40, 64)), numbers(5, 64).bfloat16()
    y, _ = weight_only.linear(x, prepared)
    assert torch.equal(y, weight_only.linear(x.float(), prepared)[0].bfloat16())
