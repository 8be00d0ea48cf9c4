from __future__ import annotations

import pytest

from qlab.deploy import parse_precision
from qlab.deploy.roofline import datasheet
from qlab.deploy.speed.scheme import WIDTHS, scheme


@pytest.mark.parametrize(
    ("text", "where", "rate", "bits"),
    [
        ("bf16", "H100-80GB", "fp16", 16),
        ("int4-g128", "H100-80GB", "fp16", 4.125),
        ("nf4", "A100-80GB", "fp16", 4.5),
        ("int8-channel", "A100-80GB", "fp16", 8 + 16 / 1024),
        ("w8a8", "A100-80GB", "int8", 8 + 16 / 1024),
        ("w8a8", "V100-16GB", "fp16", 8 + 16 / 1024),
        ("fp8", "H100-80GB", "fp8", 8),
        ("fp8", "A100-80GB", "fp16", 8),
        ("w4a8", "H200", "fp8", 4.125),
        ("w4a8", "A100-80GB", "int8", 4.125),
        ("nvfp4", "B200", "fp4", 4.5),
        ("NVFP4", "H100-80GB", "fp16", 4.5),
    ],
)
def test_a_precision_has_a_rate_on_a_device_and_a_size_in_memory(text: str, where: str, rate: str, bits: float) -> None:
    found = scheme(text)
    assert found.rate(datasheet(where)) == rate and rate in WIDTHS
    assert found.weights.bits_per_weight(1024, 1024) == bits


def test_schemes_and_precisions_are_taken_as_they_are() -> None:
    assert scheme(scheme("w8a8")) is scheme("w8a8")
    assert scheme(parse_precision("int4-g128")) == scheme("int4-g128")


def test_refused() -> None:
    with pytest.raises(ValueError, match="precision: 'w9a9' is not known"):
        scheme("w9a9")
    with pytest.raises(TypeError, match="precision: got int"):
        scheme(8)  # type: ignore[arg-type]
