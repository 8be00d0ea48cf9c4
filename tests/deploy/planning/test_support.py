from __future__ import annotations

import pytest

from qlab.deploy import gpu, gpus
from qlab.deploy.planning.support import KERNELS, kernels, missing, served, usual

CAN = {
    "bf16": {"A10G", "L4", "A100-80GB", "H100-80GB", "B200"},
    "fp16": {"V100-16GB", "T4", "A10G", "L4", "A100-80GB", "H100-80GB", "B200"},
    "fp8": {"L4", "H100-80GB", "B200"},
    "w8a8": {"T4", "A10G", "L4", "A100-80GB", "H100-80GB"},
    "int4-g128": {"T4", "A10G", "L4", "A100-80GB", "H100-80GB", "B200"},
    "int8-channel": {"T4", "A10G", "L4", "A100-80GB", "H100-80GB", "B200"},
    "nvfp4": {"B200"},
}


@pytest.mark.parametrize("precision", CAN)
def test_who_computes_what(precision: str) -> None:
    asked = ("V100-16GB", "T4", "A10G", "L4", "A100-80GB", "H100-80GB", "B200")
    assert {name for name in asked if missing(precision, gpu(name)) is None} == CAN[precision]


def test_nothing_runs_where_the_data_sheet_has_no_such_rate() -> None:
    rates = {"fp8": "fp8_tensor_tflops", "w8a8": "int8_tensor_tops", "nvfp4": "fp4_tensor_tflops"}
    for where in gpus().values():
        for precision, rate in rates.items():
            assert missing(precision, where) or getattr(where, rate), (precision, where.name)


def test_reasons_name_the_kernels_and_the_capability() -> None:
    assert missing("w8a8", gpu("V100-16GB")) == (
        "no INT8 W8A8 kernels on Volta (compute capability 7.0, not from 7.5 to below 10.0)"
    )
    assert missing("fp8", gpu("A100-40GB")) == "no FP8 W8A8 kernels on Ampere (compute capability 8.0, not from 8.9)"


def test_the_usual_three_run_wherever_anything_does() -> None:
    assert usual(gpu("V100-16GB")) == ("fp16", "w8a8", "int4-g128")
    assert usual(gpu("A100-80GB")) == ("bf16", "w8a8", "int4-g128")
    assert usual(gpu("B300")) == usual(gpu("L40S")) == ("bf16", "fp8", "int4-g128")
    for where in gpus().values():
        if where.architecture != "Volta":
            assert all(missing(precision, where) is None for precision in usual(where)), where.name


def test_all_kernels_have_a_source() -> None:
    assert all(one.source and one.first < one.end for one in KERNELS.values())
    assert kernels("int4-channel") is kernels("int8") is KERNELS["weight-only (Marlin)"]


@pytest.mark.parametrize("precision", ["nf4", "fp32", "int3-g128"])
def test_no_server_kernels(precision: str) -> None:
    with pytest.raises(
        ValueError, match=f"precision: servers have no fast kernels for '{precision}'.*choose from fp16"
    ):
        served(precision)
