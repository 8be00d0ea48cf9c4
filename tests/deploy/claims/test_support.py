"""Claims on hardware support: the reference's numbers, and what turns a verdict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from qlab.deploy import gpu, gpus
from qlab.deploy.claims import Assumptions, claim
from qlab.deploy.claims.support import even_batch, ratio, runs


@pytest.mark.parametrize(
    ("id", "name", "printed"),
    [
        ("C035", "dp4a", "63"),
        ("C035", "fp16", "125"),
        ("C036", "int8", "624"),
        ("C036", "fp16", "312"),
        ("C038", "hopper_fp8", "1979"),
        ("C038", "cut", "30"),
        ("C039", "a100_int4", "1248"),
        ("C039", "b200_fp4", "9000"),
        ("C041", "a100", "2.0"),
        ("C041", "rtx_4090", "4.0"),
        ("C041", "b300", "0.07"),
        ("C041", "fused_low", "1.30"),
        ("C041", "fused_high", "1.56"),
        ("C041", "served_low", "0.96"),
        ("C041", "served_high", "4.78"),
        ("C042", "w4a16", "312"),
        ("C042", "w4a8", "624"),
        ("C042", "saved", "3.57"),
        ("C042", "linears", "3.88"),
        ("C043", "torchao", "0.65"),
        ("C043", "transformers", "0.78"),
        ("C043", "long", "0.90"),
        ("C043", "llm_int8", "0.30"),
        ("C045", "a10g", "58"),
        ("C045", "a100", "77"),
        ("C045", "h100", "148"),
        ("C045", "l40s", "209"),
        ("C045", "fp8", "2.10"),
        ("C045", "int4", "0.88"),
        ("C045", "raw_fp8", "1.05"),
        ("C045", "raw_int4", "0.44"),
        ("C045", "served_w4a16", "358"),
        ("C045", "served_w8a8", "235"),
        ("C046", "e4m3_top", "448"),
        ("C046", "e5m2_top", "57344"),
        ("C046", "e4m3", "31.5"),
        ("C046", "e5m2", "25.6"),
    ],
)
def test_numbers_of_the_reference(id: str, name: str, printed: str) -> None:
    digits = len(printed.partition(".")[2])
    assert f"{claim(id).evidence.numbers[name]:.{digits}f}" == printed


def test_crossovers_of_the_reference() -> None:
    """Batches at which W8A8 overtakes W4A16, from its anchor arithmetic."""
    printed = {"T4": 102, "A10G": 58, "A100-80GB": 77, "L4": 202, "L40S": 209, "H100-80GB": 148, "H200": 103}
    assert {name: round(even_batch(name)) for name in printed} == printed
    assert (round(even_batch("A100-80GB"), 2), round(even_batch("L40S"), 2)) == (76.51, 209.49)


def test_the_support_table() -> None:
    assert [runs("INT8 W8A8", gpu(name)) for name in ("V100-16GB", "T4", "H100-80GB", "B200", "RTX-5090")] == [
        False, True, True, False, False,
    ]  # fmt: skip
    assert [runs("FP8 W8A8", gpu(name)) for name in ("A100-80GB", "L4", "B300")] == [False, True, True]
    assert [runs(method, gpu("V100-16GB")) for method in ("GPTQ", "AWQ")] == [True, False]


def test_a_gpu_of_another_maker() -> None:
    other = replace(gpu("H100-80GB"), name="other", compute_capability="gfx942", fp16_tensor_tflops=None)
    assert other.capability == 0 and not runs("GPTQ", other)
    assert ratio(other, "int8") == 0


def test_gpus_without_the_unit_are_named() -> None:
    without = [name for name, one in gpus().items() if not (one.int4_tensor_tops or one.fp4_tensor_tflops)]
    assert all(name in claim("C039").because for name in without)
    assert "B300" in str(claim("C037").evidence.numbers["without_int8"])
    assert claim("C044").evidence.numbers["elsewhere"] == "L4, L40S, RTX-4090"


def test_other_hardware_turns_verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("instances:\n  p3.8xlarge: {gpu: T4, source: a wish, date: 2026}\n")
    monkeypatch.setenv("QLAB_DATA", str(file))
    assert claim("C035").verdict == "true" and claim("C036").verdict == "true"


def test_tolerance_decides_what_fourfold_means() -> None:
    """W4A8 has the INT8 rate, W4A16 has not: whatever the memory, the claim holds for one of the two alone."""
    assert claim("C042", Assumptions(tolerance=0.5)).verdict == "conditional"
    assert claim("C041", Assumptions(tolerance=0.9)).verdict == "conditional"  # a V100 has no rate at all
