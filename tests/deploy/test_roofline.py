from __future__ import annotations

import pytest

from qlab.deploy import spec
from qlab.deploy.roofline import Limits, Work, datasheet, dequantized, product


def test_every_byte_of_a_product_is_counted_once() -> None:
    """2 x 3 weights in 4 bits with their scales, 5 tokens: by hand."""
    work = product(5, 2, 3, weight_bits=4.5, x_bits=8, y_bits=32)
    assert work.bytes == 2 * 3 * 4.5 / 8 + 5 * 3 * 1 + 5 * 2 * 4
    assert work.operations == 2 * 5 * 2 * 3
    assert work.intensity == work.operations / work.bytes


def test_the_longer_of_the_two_times_counts() -> None:
    limits = Limits(bandwidth=100.0, rates={"fp16": 1000.0, "int8": 4000.0})
    assert limits.ridge() == 10 and limits.ridge("int8") == 40
    assert (found := limits.time(Work(300, 2000))).seconds == 3.0 and found.bound == "memory"
    assert (found := limits.time(Work(100, 2000))).seconds == 2.0 and found.bound == "compute"
    assert limits.time(Work(100, 2000), "int8").bound == "memory"
    assert limits.time(Work(100, 1000)).bound == "memory", "at the ridge both are equal; memory is named"


def test_one_token_is_bound_by_memory_and_gains_what_the_bytes_say() -> None:
    h100 = datasheet("H100-80GB")
    for matrix in spec("Llama-3-70B").matrices():
        wide, narrow = (h100.time(product(1, matrix.rows, matrix.columns, bits)) for bits in (16, 4.125))
        assert wide.bound == narrow.bound == "memory"
        assert 3.8 < wide.seconds / narrow.seconds < 16 / 4.125


def test_many_tokens_gain_nothing_from_a_small_weight_and_all_from_small_integers() -> None:
    h100 = datasheet("H100-80GB")
    plain, small = (h100.time(product(8192, 8192, 8192, bits)) for bits in (16, 4.125))
    assert plain == small and plain.bound == "compute"
    integers = h100.time(product(8192, 8192, 8192, 8, x_bits=8), "int8")
    assert plain.seconds / integers.seconds == pytest.approx(2, rel=0.01)


def test_dequantizing_first_reads_the_codes_and_writes_the_weight() -> None:
    work = dequantized(8, 16, 4.5)
    assert work.bytes == 8 * 16 * (4.5 + 16) / 8 and work.operations == 0


def test_a_datasheet_has_the_rates_that_the_hardware_has() -> None:
    assert datasheet("A100-80GB").rates.keys() == {"fp16", "bf16", "int8", "int4"}
    assert datasheet("H100-80GB").rates.keys() == {"fp16", "bf16", "fp8", "int8"}
    assert datasheet("H100-80GB").bandwidth == 3350e9
    assert datasheet("A100-80GB").rates["fp16"] == 312e12


def test_refused() -> None:
    with pytest.raises(ValueError, match="rate: got 'fp8'; this device has fp16, bf16, int8, int4"):
        datasheet("A100-80GB").time(product(1, 2, 3), "fp8")
    with pytest.raises(ValueError, match="rate: got 'fp4'"):
        datasheet("A100-80GB").ridge("fp4")
    with pytest.raises(ValueError, match="tokens: got 0; it must be positive"):
        product(0, 2, 3)
    with pytest.raises(ValueError, match=r"weight_bits: got -4; it must be positive"):
        dequantized(2, 3, -4)
