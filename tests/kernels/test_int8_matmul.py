"""int8 times int8: exact sums, and the numbers of the torch reference bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from qlab.formats import activations, affine
from qlab.formats.activations import Activations
from qlab.kernels import INTERPRETED, configs, int8_matmul
from qlab.kernels.int8_matmul import Rows
from qlab.methods import w8a8

pytestmark = pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")  # NumPy's, of the interpreter

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
TOKENS = (0, 1, 2, 3, 15, 16, 17, 33, 64, 129)


def codes(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randint(-128, 128, shape, generator=generator, dtype=torch.int8)


def exact(
    a: torch.Tensor, a_scales: torch.Tensor, b: torch.Tensor, b_scales: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """float32: the sums in 64 bits, then both scales and the bias, in that order."""
    y = (a.cpu().long() @ b.cpu().long().t()).float() * a_scales.cpu() * b_scales.cpu().float().t()
    return (y if bias is None else y + bias.cpu().float()).to(a.device)


@pytest.mark.parametrize("m", TOKENS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "k"), [(130, 144), (40, 300)])
def test_every_number_of_tokens(
    same: Callable[[torch.Tensor, torch.Tensor], None],
    n: int,
    k: int,
    dtype: torch.dtype,
    m: int,
    surrounded: Callable[[Any], Any],
    device: torch.device,
) -> None:
    a, b = surrounded(codes(m, k).to(device)), surrounded(codes(n, k, seed=1).to(device))
    a_scales = surrounded(torch.linspace(0.001, 0.01, m, device=device)[:, None])
    b_scales = surrounded(torch.linspace(0.002, 0.02, n, device=device)[:, None].to(dtype))
    bias = surrounded(torch.linspace(-1, 1, n, device=device).to(dtype))
    y = int8_matmul.scaled_product(a, a_scales, b, b_scales, bias, dtype)
    assert y.shape == (m, n) and y.dtype == dtype
    same(y, exact(a, a_scales, b, b_scales, bias).to(dtype))


@pytest.mark.parametrize(
    ("m", "n", "k"),
    [
        *((1, 1, 1), (3, 0, 5), (2, 3, 0), (5, 127, 31), (5, 128, 128), (5, 129, 129), (70, 300, 17)),
        pytest.param(1, 8192, 8192, marks=pytest.mark.gpu),
        pytest.param(100, 4096, 14336, marks=pytest.mark.gpu),
        pytest.param(1000, 14336, 4096, marks=pytest.mark.gpu),
    ],
)
@pytest.mark.parametrize("one_scale", ["a", "b", "both"])
def test_every_shape(
    same: Callable[[torch.Tensor, torch.Tensor], None], one_scale: str, m: int, n: int, k: int, device: torch.device
) -> None:
    a, b = codes(m, k).to(device), codes(n, k, seed=1).to(device)
    a_scales = torch.full((1 if one_scale in ("a", "both") else m, 1), 0.01, device=device)
    b_scales = torch.full((1 if one_scale in ("b", "both") else n, 1), 0.02, device=device)
    y = int8_matmul.scaled_product(a, a_scales, b, b_scales, None, torch.float32)
    same(y, exact(a, a_scales, b, b_scales))


@pytest.fixture
def deep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles for the interpreter, whose time goes with the number of steps and with what lies idle in a tile."""
    if INTERPRETED:
        monkeypatch.setattr(configs, "int8", lambda *_: configs.Int8Tiles(16, 16, 4096, 1, 4, 1))


@pytest.mark.usefixtures("deep")
def test_the_longest_sum_of_the_largest_products(device: torch.device) -> None:
    a = torch.full((1, w8a8.LONGEST), -128, dtype=torch.int8, device=device)
    b, one = torch.cat([a, -1 - a]), torch.ones(1, 1, device=device)  # -128 and 127
    y = int8_matmul.scaled_product(a, one, b, one, None, torch.float32)
    assert y.tolist() == [[2**31 - 2**14, float(torch.tensor(-128 * 127 * w8a8.LONGEST, dtype=torch.float32))]]


@pytest.mark.usefixtures("deep")
def test_a_sum_that_floats_would_lose_is_kept(device: torch.device) -> None:
    # 127 * 127 * 2^15 is near 2^29. A float32 that held it would drop the 1 that comes next; then all is taken off.
    a = torch.full((1, 2**16 + 1), 127, dtype=torch.int8, device=device)
    b, one = a.clone(), torch.ones(1, 1, device=device)
    a[0, 2**15] = b[0, 2**15] = 1
    b[0, 2**15 + 1 :] = -127
    assert int8_matmul.scaled_product(a, one, b, one, None, torch.float32).tolist() == [[1.0]]


def test_any_strides(same: Callable[[torch.Tensor, torch.Tensor], None], device: torch.device) -> None:
    a, b = codes(5, 70).to(device), codes(20, 70, seed=1).to(device)
    a_scales, b_scales = torch.rand(5, 1, device=device), torch.rand(20, 1, device=device)
    bias = torch.rand(20, device=device)
    expected = int8_matmul.scaled_product(a, a_scales, b, b_scales, bias)

    def strided(tensor: torch.Tensor) -> torch.Tensor:
        for axis in range(tensor.ndim):
            tensor = tensor.repeat_interleave(3, axis)
        return tensor[tuple(slice(None, None, 3) for _ in tensor.shape)]

    forms = {
        "strided": tuple(map(strided, (a, a_scales, b, b_scales, bias))),
        "transposed": (a.t().contiguous().t(), a_scales, b.t().contiguous().t(), b_scales, bias),
    }
    for operands in forms.values():
        same(int8_matmul.scaled_product(*operands), expected)
    one = a_scales[:1].expand(5, 1)  # one number, and no memory behind the others
    dense = int8_matmul.scaled_product(a, one.contiguous(), b, b_scales, bias)
    same(int8_matmul.scaled_product(a, one, b, b_scales, bias), dense)


def test_two_runs_give_the_same_bits(device: torch.device) -> None:
    operands = codes(17, 300).to(device), torch.rand(17, 1, device=device), codes(40, 300, seed=1).to(device)
    scales = torch.rand(40, 1, device=device)
    first, second = (int8_matmul.scaled_product(*operands, scales) for _ in range(2))
    assert torch.equal(first, second)


def test_a_result_past_2_31_elements(last_programs: Callable[[Any, str], None], device: torch.device) -> None:
    last_programs(int8_matmul, "_product")
    a = torch.empty(2**25 + 5, 64, dtype=torch.int8, device=device)
    a[-5:] = codes(5, 64)
    b, scale = codes(64, 64, seed=1).to(device), torch.ones(1, 1, device=device)
    y = int8_matmul.scaled_product(a, scale, b, scale, None, torch.float16)
    assert torch.equal(y[-5:], int8_matmul.scaled_product(a[-5:], scale, b, scale, None, torch.float16))


def test_strides_past_2_31_elements(last_programs: Callable[[Any, str], None], device: torch.device) -> None:
    last_programs(int8_matmul, "_product")
    a, b, scale = codes(3, 40).to(device), codes(3, 40, seed=1).to(device), torch.ones(1, 1, device=device)
    expected = int8_matmul.scaled_product(a, scale, b, scale)
    for strides in ((2**30 + 1, 1), (1, 2**31 // 39 + 1)):
        far_a, far_b = (torch.empty_strided((3, 40), strides, dtype=torch.int8, device=device) for _ in range(2))
        assert torch.equal(int8_matmul.scaled_product(far_a.copy_(a), scale, far_b.copy_(b), scale), expected)


SCHEMES = {
    "token": Activations(),
    "tensor": Activations(granularity="tensor"),
    "static": Activations(granularity="tensor", scale=torch.tensor([0.02])),
}


@pytest.mark.parametrize("shape", [(3,), (2, 17), (0,), ()])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("group_size", ["channel", "tensor"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_linear_is_that_of_w8a8(
    same: Callable[[torch.Tensor, torch.Tensor], None],
    scheme: str,
    group_size: affine.GroupSize,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    numbers: Callable[..., torch.Tensor],
    device: torch.device,
) -> None:
    weight = w8a8.quantize(numbers(24, 80).to(device), group_size)
    x, bias = numbers(*shape, 80).to(device, dtype), numbers(24).to(device, dtype)
    static = SCHEMES[scheme].scale
    chosen = Activations(granularity=SCHEMES[scheme].granularity, scale=None if static is None else static.to(device))
    rows = Rows(w8a8.int8_codes(weight), weight.scales, chosen)
    assert rows.shape == weight.shape
    y = int8_matmul.linear(x, rows, bias)
    expected = w8a8.linear(x, weight, bias, chosen)
    assert y.shape == expected.shape and y.dtype == dtype
    same(y, expected)


def test_the_reference_is_the_same_product(
    same: Callable[[torch.Tensor, torch.Tensor], None], device: torch.device, numbers: Callable[..., torch.Tensor]
) -> None:
    weight = w8a8.quantize(numbers(24, 80).to(device))
    a, a_scales = activations.quantize(numbers(5, 80).to(device), Activations())
    bias, b = numbers(24).to(device), w8a8.int8_codes(weight)
    y = int8_matmul.scaled_product(a, a_scales, b, weight.scales, bias, torch.float32)
    same(y, int8_matmul.reference(a, a_scales, weight, bias))
    plain = int8_matmul.scaled_product(a, a_scales, b, weight.scales, None, torch.float32)
    same(plain, int8_matmul.reference(a, a_scales, weight))


def test_nan_stays_in_its_token(device: torch.device, numbers: Callable[..., torch.Tensor]) -> None:
    weight = w8a8.quantize(numbers(24, 80).to(device))
    x = numbers(3, 80).to(device)
    x[1, 7], x[2, 7] = float("nan"), float("inf")
    y = int8_matmul.linear(x, Rows(w8a8.int8_codes(weight), weight.scales, Activations()))
    assert y[0].isfinite().all() and y[1:].isnan().all()


A, B, ONE = torch.zeros(2, 8, dtype=torch.int8), torch.zeros(4, 8, dtype=torch.int8), torch.ones(1, 1)
GOOD: dict[str, Any] = {"a": A, "a_scales": torch.ones(2, 1), "b": B, "b_scales": torch.ones(4, 1), "bias": None}
LONG = torch.zeros(1, w8a8.LONGEST + 1, dtype=torch.int8)
BAD = {
    "a: got torch.float32; allowed is a tensor of int8": (TypeError, {"a": A.float()}),
    "b: got torch.uint8; allowed is a tensor of int8": (TypeError, {"b": B.to(torch.uint8)}),
    "a, b: got shapes (2, 7) and (4, 8)": (ValueError, {"a": A[:, :7]}),
    "a, b: got shapes (8,) and (4, 8)": (ValueError, {"a": A[0]}),
    "a, b: got shapes (2, 8) and (8,)": (ValueError, {"b": B[0]}),
    "k: got 131072; allowed is up to 131071": (ValueError, {"a": LONG, "b": LONG, "a_scales": ONE, "b_scales": ONE}),
    "a_scales: got shape (2,); allowed are (2, 1) and (1, 1)": (ValueError, {"a_scales": torch.ones(2)}),
    "a_scales: got shape (4, 1)": (ValueError, {"a_scales": torch.ones(4, 1)}),
    "b_scales: got shape (2, 1); allowed are (4, 1) and (1, 1)": (ValueError, {"b_scales": torch.ones(2, 1)}),
    "bias: got shape (5,); allowed is (4,)": (ValueError, {"bias": torch.ones(5)}),
}


@pytest.mark.parametrize("message", BAD)
def test_what_does_not_fit_is_refused(message: str) -> None:
    error, changed = BAD[message]
    with pytest.raises(error) as raised:
        int8_matmul.scaled_product(**GOOD | changed)
    assert message in str(raised.value)
