"""The quantized store: what it holds depends on how many tokens came, not how; every byte is counted."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from qlab.methods import kv_cache
from qlab.methods.kv_cache import QuantizedStore

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def tensors(store: QuantizedStore) -> dict[str, torch.Tensor]:
    """Everything a store holds, by name."""
    held = {} if store.window is None else {"window": store.window}
    if store.groups is not None:
        fields = dataclasses.asdict(store.groups)
        held |= {name: value for name, value in fields.items() if isinstance(value, torch.Tensor)}
    return held


def assert_same(a: QuantizedStore, b: QuantizedStore) -> None:
    ours, theirs = tensors(a), tensors(b)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype and torch.equal(tensor, theirs[name]), name


def filled(x: torch.Tensor, **options: Any) -> QuantizedStore:
    store = QuantizedStore(**options)
    store.append(x)
    return store


# --- the numbers ----------------------------------------------------------------------------


@pytest.mark.parametrize("granularity", ["channel", "token"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_every_group_by_hand(bits: int, granularity: str) -> None:
    # float16: the minimum is one of the numbers, and is held exactly.
    x = normal(2, 3, 16, 8, dtype=torch.float16)
    store = filled(x, bits=bits, granularity=granularity, group_size=4, residual=0)
    assert store.window is not None and store.window.shape[2] == 0
    back = store.read()
    levels = 2**bits - 1
    for b in range(2):
        for h in range(3):
            for start in range(0, 16 if granularity == "channel" else 8, 4):
                for line in range(8 if granularity == "channel" else 16):
                    run = slice(start, start + 4)
                    at = (b, h, run, line) if granularity == "channel" else (b, h, line, run)
                    low, high = float(x[at].min()), float(x[at].max())
                    scale = torch.tensor((high - low) / levels).half()
                    if float(scale) < (high - low) / levels:
                        scale = (scale.view(torch.int16) + 1).view(torch.float16)  # the next float16 up
                    codes = ((x[at].float() - low) / scale.float()).round().clamp(0, levels)
                    assert torch.equal(back[at], (low + codes * scale.float()).half())


@given(
    tokens=st.integers(1, 40),
    bits=st.sampled_from([2, 3, 4, 8]),
    granularity=st.sampled_from(["channel", "token"]),
    dtype=st.sampled_from(DTYPES),
    scale_dtype=st.sampled_from([None, torch.float16, torch.bfloat16, torch.float32]),
    kind=st.sampled_from(["normal", "heavy", "far off", "below", "flat", "integers"]),
    size=st.sampled_from([1e-6, 1.0, 300.0]),
    seed=st.integers(0, 10_000),
)
def test_no_number_moves_by_more_than_half_a_step(
    tokens: int,
    bits: int,
    granularity: str,
    dtype: torch.dtype,
    scale_dtype: torch.dtype | None,
    kind: str,
    size: float,
    seed: int,
) -> None:
    x = normal(1, 2, tokens, 8, seed=seed)
    if kind == "heavy":
        x = x**3
    elif kind == "far off":
        x = x * 1e-2 + 40
    elif kind == "below":
        x = x * 1e-2 - 40
    elif kind == "flat":
        x = torch.full_like(x, float(x[0, 0, 0, 0]))
    elif kind == "integers":
        x = x.round()
    x = (x * size).to(dtype)
    store = filled(x, bits=bits, granularity=granularity, group_size=4, residual=3, scale_dtype=scale_dtype)
    if store.groups is None:
        assert torch.equal(store.read(), x)
        return
    groups = store._in_groups(x[:, :, : store.quantized_tokens]).double()
    assert bool((store.groups.minima.double() <= groups.amin(-1)).all())
    moved = (store.groups.dequantize().double() - groups).abs()
    noise = 2.0**-22 * groups.abs().amax(-1, keepdim=True)  # of the arithmetic in float32
    assert bool((moved <= store.groups.scales.double()[..., None] / 2 + noise).all())
    # And the steps are those of the range: neither wider than the rounding of minimum and scale explains.
    ulp = torch.finfo(store.groups.scales.dtype).eps
    span = groups.amax(-1) - groups.amin(-1)
    widest = (span + ulp * groups.amin(-1).abs() + 2.0**-23) / (2**bits - 1) * (1 + ulp) + 2.0**-24
    assert bool((store.groups.scales.double() <= widest).all())


@pytest.mark.parametrize("granularity", ["channel", "token"])
@pytest.mark.parametrize("value", [0.0, 1.5, -3.25])
def test_a_group_of_equal_numbers_comes_back_exactly(value: float, granularity: str) -> None:
    x = torch.full((1, 1, 8, 8), value, dtype=torch.float16)
    store = filled(x, granularity=granularity, group_size=4, residual=0)
    assert store.groups is not None and bool((store.groups.scales == 0).all())
    assert torch.equal(store.read(), x)


class NoNaN(TorchDispatchMode):
    """Refuses an operation that gives NaN. Converted to uint8, NaN is 0 on one processor and 255 on another."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.is_floating_point():
            assert not bool(torch.ne(result, result).any()), func
        return result


def test_equal_numbers_are_never_divided_by_zero() -> None:
    with NoNaN():
        store = filled(torch.full((1, 1, 8, 8), 1.5, dtype=torch.float16), group_size=4, residual=0)
    assert store.groups is not None and bool((store.groups.codes() == 0).all())


def test_a_large_channel_spoils_its_token_but_not_its_neighbors_per_channel() -> None:
    x = normal(1, 1, 32, 32)
    x[..., 5] *= 50
    others = torch.arange(32) != 5
    error = {
        g: (filled(x, granularity=g, residual=0).read() - x)[..., others].abs().mean() for g in kv_cache.GRANULARITIES
    }
    assert float(error["token"]) > 10 * float(error["channel"])


# --- how tokens come ------------------------------------------------------------------------


@given(
    parts=st.lists(st.integers(0, 13), min_size=1, max_size=8),
    bits=st.sampled_from([2, 4, 8, 16]),
    granularity=st.sampled_from(["channel", "token"]),
    group_size=st.sampled_from([1, 2, 4, 8]),
    residual=st.integers(0, 20),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 10_000),
)
def test_the_state_does_not_depend_on_how_the_tokens_came(
    parts: list[int], bits: int, granularity: str, group_size: int, residual: int, dtype: torch.dtype, seed: int
) -> None:
    options: dict[str, Any] = {
        "bits": bits,
        "granularity": granularity,
        "group_size": group_size,
        "residual": residual,
    }
    x = normal(2, 2, sum(parts), 8, seed=seed, dtype=dtype)
    whole, split, single = filled(x, **options), QuantizedStore(**options), QuantizedStore(**options)
    for part in x.split(parts, dim=2):
        split.append(part)
    single.append(x[:, :, :0])
    for part in x.split(1, dim=2) if sum(parts) else ():
        single.append(part)
    assert_same(whole, split)
    assert_same(whole, single)


@pytest.mark.parametrize("tokens", range(0, 23))
def test_the_window_grows_until_a_group_is_full(tokens: int) -> None:
    x = normal(1, 2, tokens, 8)
    for granularity, block in (("channel", 4), ("token", 1)):
        store = filled(x, granularity=granularity, group_size=4, residual=6)
        assert store.quantized_tokens == max(0, tokens - 6) // block * block
        assert store.tokens == tokens and store.read().shape == x.shape and store.read().dtype == x.dtype
        newest = slice(store.quantized_tokens, tokens)
        assert torch.equal(store.read()[:, :, newest], x[:, :, newest])
        assert tokens < 6 or tokens - store.quantized_tokens >= 6


def test_what_is_held_is_nobody_elses() -> None:
    x = normal(1, 1, 10, 8)
    store = filled(x, group_size=4, residual=4)
    before = store.read()
    x.zero_()
    store.read().zero_()
    assert torch.equal(store.read(), before)
    fresh = filled(normal(1, 1, 2, 8), group_size=4)
    fresh.read().zero_()
    assert torch.equal(fresh.read(), normal(1, 1, 2, 8))


# --- bytes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale_dtype", [None, torch.float32])
@pytest.mark.parametrize("granularity", ["channel", "token"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8, 16])
def test_bytes_are_those_of_the_formula(
    bits: int, granularity: str, scale_dtype: torch.dtype | None, dtype: torch.dtype
) -> None:
    store = filled(
        normal(3, 2, 150, 64, dtype=dtype), bits=bits, granularity=granularity, residual=20, scale_dtype=scale_dtype
    )
    for part in normal(3, 2, 7, 64, seed=1, dtype=dtype).split(1, dim=2):
        store.append(part)
    scale_bytes = 4 if scale_dtype else 2
    quantized = kv_cache.bytes_per_token(64, bits, 32, scale_bytes, dtype.itemsize)
    window = 64 * dtype.itemsize
    assert store.nbytes == 6 * (store.quantized_tokens * quantized + (157 - store.quantized_tokens) * window)
    # Nothing larger hides behind a view.
    assert store.nbytes == sum(tensor.untyped_storage().nbytes() for tensor in tensors(store).values())
    store.crop(137)
    store.crop(50)
    assert store.nbytes == sum(tensor.untyped_storage().nbytes() for tensor in tensors(store).values())


def test_bytes_by_hand() -> None:
    # A head of 64 numbers in groups of 32, with two float16 numbers for each group.
    assert kv_cache.bytes_per_token(64, bits=16) == 128
    assert kv_cache.bytes_per_token(64, bits=8) == 64 + 2 * 4
    assert kv_cache.bytes_per_token(64, bits=4) == 32 + 2 * 4
    assert kv_cache.bytes_per_token(64, bits=2) == 16 + 2 * 4
    codes = filled(normal(1, 1, 32, 64), bits=4, residual=0).groups
    assert codes is not None and codes.packed.dtype == torch.uint8 and codes.packed.numel() == 32 * 64 // 2
    assert codes.scales.dtype == codes.minima.dtype == torch.float16
    wide = filled(normal(1, 1, 32, 64, dtype=torch.bfloat16), bits=4, residual=0).groups
    assert wide is not None and wide.scales.dtype == wide.minima.dtype == torch.bfloat16


# --- crop, select, reset --------------------------------------------------------------------


@pytest.mark.parametrize("granularity", ["channel", "token"])
@pytest.mark.parametrize("keep", [0, 1, 4, 7, 8, 11, 12, 15, 19, 20, 25])
def test_crop_keeps_the_oldest(keep: int, granularity: str) -> None:
    x = normal(2, 2, 20, 8)
    store = filled(x, granularity=granularity, group_size=4, residual=6)
    before = store.read()
    store.crop(keep)
    assert store.tokens == min(keep, 20) and torch.equal(store.read(), before[:, :, :keep])
    store.append(x[:, :, keep:])
    assert store.tokens == 20 and torch.equal(store.read()[:, :, -1], before[:, :, -1])


def test_select_and_reset() -> None:
    x = normal(3, 2, 20, 8)
    for granularity in kv_cache.GRANULARITIES:
        store = filled(x, granularity=granularity, group_size=4, residual=6)
        store.select(torch.tensor([2, 0, 0, 1]))
        assert_same(store, filled(x[[2, 0, 0, 1]], granularity=granularity, group_size=4, residual=6))
        store.reset()
        assert store.tokens == store.nbytes == 0
        store.select(torch.tensor([0]))
        store.append(x[:1])  # another batch
        assert_same(store, filled(x[:1], granularity=granularity, group_size=4, residual=6))


# --- errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"bits": 1}, ValueError, "bits: got 1; allowed is 2 to 8"),
        ({"bits": 9}, ValueError, "bits: got 9"),
        ({"bits": 4.0}, TypeError, "bits: got 4.0"),
        ({"granularity": "head"}, ValueError, "granularity: got 'head'; choose 'channel' or 'token'"),
        ({"group_size": 0}, ValueError, "group_size: got 0"),
        ({"group_size": True}, TypeError, "group_size: got True"),
        ({"residual": -1}, ValueError, "residual: got -1"),
        ({"residual": None}, TypeError, "residual: got None"),
        ({"scale_dtype": torch.float64}, ValueError, "scale_dtype: got torch.float64"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        QuantizedStore(**options)


@pytest.mark.parametrize(
    ("x", "error", "text"),
    [
        ([1.0], TypeError, "x: got list"),
        (torch.zeros(2, 2, 1, 8, dtype=torch.int8), TypeError, "x: got torch.int8"),
        (torch.zeros(2, 2, 8), ValueError, r"x: shape \(2, 2, 8\); it must be \(batch, heads, tokens, head_dim\)"),
        (torch.zeros(1, 2, 1, 8), ValueError, r"what is held needs \(2, 2, tokens, 8\)"),
        (torch.zeros(2, 2, 1, 4), ValueError, r"what is held needs \(2, 2, tokens, 8\)"),
        (torch.zeros(2, 2, 1, 8).half(), ValueError, "what is held is torch.float32"),
        (torch.full((2, 2, 1, 8), float("nan")), ValueError, "x: 32 of 32 values are NaN or infinite"),
        (torch.full((2, 2, 1, 8), -float("inf")), ValueError, "x: 32 of 32 values are NaN or infinite"),
        (
            torch.full((2, 2, 1, 8), -4e4),
            ValueError,
            r"x: reaches 4e\+04; minima in torch.float16 hold up to 3.28e\+04",
        ),
    ],
)
def test_bad_tokens_change_nothing(x: Any, error: type[Exception], text: str) -> None:
    store = filled(normal(2, 2, 20, 8), group_size=4)
    with pytest.raises(error, match=text):
        store.append(x)
    assert_same(store, filled(normal(2, 2, 20, 8), group_size=4))


def test_groups_of_channels_must_divide_a_head() -> None:
    with pytest.raises(
        ValueError, match="group_size: got 5; per token it must divide head_dim 12: choose 1, 2, 3, 4, 6"
    ):
        QuantizedStore(granularity="token", group_size=5).append(normal(1, 1, 1, 12))
    assert filled(normal(1, 1, 11, 12), granularity="channel", group_size=5, residual=0).quantized_tokens == 10


def test_the_other_errors() -> None:
    with pytest.raises(ValueError, match="holds 0 tokens"):
        QuantizedStore().read()
    with pytest.raises(ValueError, match="tokens: got -1"):
        QuantizedStore().crop(-1)


def test_large_numbers_with_wide_scales() -> None:
    x = normal(1, 1, 8, 8) * 1e30
    back = filled(x, bits=8, group_size=4, residual=0, scale_dtype=torch.float32).read()
    torch.testing.assert_close(back, x, rtol=0, atol=3e28)
    ends = torch.tensor([-3e4, 3e4]).half().repeat(1, 1, 4, 4)
    assert bool(filled(ends, bits=2, group_size=4, residual=0, granularity="token").read().isfinite().all())
