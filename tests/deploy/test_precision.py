from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlab.deploy import Precision, parse_precision


def _count(rows: int, columns: int, bits: int, group: int, zero_points: bool) -> tuple[int, int]:
    """Bytes of codes and of scales with zero-points, found by walking over every weight."""
    codes = overhead = 0
    for _ in range(rows):
        used = groups = 0
        for column in range(columns):
            used += bits
            groups += column % group == 0
        while used % 8:
            used += 1
        codes += used // 8
        overhead += 2 * groups
        if zero_points:
            used = sum(bits for _ in range(groups))
            while used % 8:
                used += 1
            overhead += used // 8
    return codes, overhead


@given(
    rows=st.integers(1, 12),
    columns=st.integers(1, 300),
    bits=st.integers(2, 8),
    group=st.integers(1, 320),
    zero_points=st.booleans(),
)
def test_closed_form_equals_a_count(rows: int, columns: int, bits: int, group: int, zero_points: bool) -> None:
    precision = parse_precision(f"int{bits}-g{group}{'-asym' if zero_points else ''}")
    counted = _count(rows, columns, bits, group, zero_points)
    assert (precision.code_bytes(rows, columns), precision.overhead_bytes(rows, columns)) == counted
    assert precision.matrix_bytes(rows, columns) == sum(counted)


@given(rows=st.integers(1, 12), columns=st.integers(1, 300), bits=st.integers(2, 8), zero_points=st.booleans())
def test_channel_is_one_group_per_row(rows: int, columns: int, bits: int, zero_points: bool) -> None:
    asym = "-asym" if zero_points else ""
    channel, group = parse_precision(f"int{bits}-channel{asym}"), parse_precision(f"int{bits}-g{columns}{asym}")
    assert channel.matrix_bytes(rows, columns) == group.matrix_bytes(rows, columns)


@given(rows=st.integers(1, 40), columns=st.integers(1, 400))
def test_nf4_blocks_ignore_rows(rows: int, columns: int) -> None:
    weights = rows * columns
    blocks = len(range(0, weights, 64))
    codes = len(range(0, weights, 2))
    assert parse_precision("nf4").matrix_bytes(rows, columns) == codes + 4 * blocks
    second = len(range(0, blocks, 256))
    assert parse_precision("nf4-dq").matrix_bytes(rows, columns) == codes + blocks + 4 * second + 4


@pytest.mark.parametrize(
    "kind", [f"{size}{asym}" for size in ("g16", "g7", "channel", "tensor") for asym in ("", "-asym")]
)
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_bytes_are_those_of_a_real_quantized_weight(bits: int, kind: str) -> None:
    import torch

    from qlab.formats import affine

    size, _, asymmetric = kind.partition("-")
    weight = torch.randn(5, 45, generator=torch.Generator().manual_seed(0))
    group: Any = int(size[1:]) if size.startswith("g") else size
    held = affine.quantize(weight, bits=bits, group_size=group, symmetric=not asymmetric)
    assert parse_precision(f"int{bits}-{kind}").matrix_bytes(5, 45) == held.nbytes


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("fp32", 32),
        ("bf16", 16),
        ("fp16", 16),
        ("fp8", 8),
        ("int8", 8),
        ("int4", 4),
        ("int4-g128", 4.125),
        ("int4-g64", 4.25),
        ("int4-g32", 4.5),
        ("int4-g128-asym", 4.15625),
        ("int3-g128", 3.125),
        ("int8-channel", 8 + 16 / 8192),
        ("nf4", 4.5),
    ],
)
def test_bits_per_weight_of_a_large_matrix(text: str, bits: float) -> None:
    assert parse_precision(text).bits_per_weight(8192, 8192) == bits


def test_double_quantization() -> None:
    assert parse_precision("nf4-dq").bits_per_weight(8192, 8192) == pytest.approx(4.127, abs=5e-4)


def test_one_scale_per_tensor() -> None:
    assert parse_precision("int8-tensor").overhead_bytes(10, 10) == 2
    assert parse_precision("int8-tensor-asym").overhead_bytes(10, 10) == 3


def test_reading_is_lenient_about_case_and_idempotent() -> None:
    precision = parse_precision(" INT4-G128 ")
    assert precision == Precision("int4-g128", 4, "group", 128)
    assert parse_precision(precision) is precision


@pytest.mark.parametrize(
    "text",
    ["", "int", "int1", "int9-g128", "int16", "int4-g0", "int4-g-1", "int4-128", "int4-g128-sym", "q4_k_m", "nf4-g64"],
)
def test_unknown_forms_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"precision: .*int4-g128"):
        parse_precision(text)


def test_zero_points_need_scales() -> None:
    with pytest.raises(ValueError, match="as in int8-g128-asym"):
        parse_precision("int8-asym")


@pytest.mark.parametrize("text", [4, None, 4.5])
def test_only_strings(text: object) -> None:
    with pytest.raises(TypeError, match="precision: got"):
        parse_precision(text)  # type: ignore[arg-type]


@given(st.text(alphabet="intfpbgasymchel-0123456789 ", max_size=16))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        precision = parse_precision(text)
    except ValueError:
        return
    assert parse_precision(precision.name) == precision
