"""Which path and which tiles: plain functions, so their promises can be checked for every shape."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qlab.kernels import configs

PROCESSORS = (1, 108, 132)  # the interpreter, A100, H100
SHAPES = {
    "tokens": st.integers(1, 5000),
    "outputs": st.integers(1, 200_000),
    "tiles": st.integers(1, 300),
    "processors": st.sampled_from(PROCESSORS),
}


def power_of_two(n: int) -> bool:
    return n >= 1 and n & (n - 1) == 0


@pytest.mark.parametrize(
    ("tokens", "path"),
    [(1, "gemv"), (2, "split-k"), (64, "split-k"), (65, "gemm"), (511, "gemm"), (512, "dequantize")],
)
def test_the_path_follows_the_number_of_tokens(tokens: int, path: str) -> None:
    assert configs.path(tokens) == path


@given(**{name: SHAPES[name] for name in ("outputs", "tiles", "processors")})
def test_one_token(outputs: int, tiles: int, processors: int) -> None:
    c = configs.gemv(outputs, tiles, processors)
    assert c.tokens == 1
    assert all(map(power_of_two, (c.outputs, c.tiles, c.splits, c.warps)))  # Triton takes no other ranges
    assert (c.splits - 1) * c.tiles < tiles  # no program without work
    programs = -(-outputs // c.outputs) * c.splits
    if processors > 1 and tiles >= 512:
        assert programs >= 2 * processors or c.splits == 32


@given(**SHAPES, split=st.booleans())
def test_more_tokens(tokens: int, outputs: int, tiles: int, processors: int, split: bool) -> None:
    c = configs.matmul(tokens, outputs, tiles, processors, split)
    assert all(map(power_of_two, (c.tokens, c.outputs, c.splits, c.warps))) and c.tiles == 1
    assert c.tokens >= 16 and c.outputs >= 16  # the least that a tensor core multiplies
    assert c.splits <= tiles
    assert c.splits == 1 or split
    if split and tokens <= configs.SPLIT_UP_TO:
        assert c.tokens >= tokens or processors == 1  # the weight is unpacked once


@given(**{name: SHAPES[name] for name in ("tokens", "outputs", "processors")})
def test_integers(tokens: int, outputs: int, processors: int) -> None:
    c = configs.int8(tokens, outputs, processors)
    assert all(map(power_of_two, (c.tokens, c.outputs, c.inputs, c.warps)))
    assert c.tokens >= 16 and c.outputs >= 16 and c.inputs >= 32


def test_the_interpreter_counts_as_one_processor() -> None:
    assert configs.processors(torch.device("cpu")) == 1


@pytest.mark.gpu
def test_a_gpu_has_more_than_one_processor() -> None:
    expected = torch.cuda.get_device_properties(0).multi_processor_count
    assert configs.processors(torch.device("cuda:0")) == expected > 1
