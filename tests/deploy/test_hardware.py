from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qlab.deploy import Gpu, gpu, gpus
from qlab.deploy.hardware import DATA, compiled, read_gpus


def test_the_gpus_that_a_learner_meets() -> None:
    known = gpus()
    assert {"T4", "V100-16GB", "A10G", "L4", "L40S", "A100-40GB", "A100-80GB", "H100-80GB", "H200", "B200"} <= set(
        known
    )
    assert {"RTX-3090", "RTX-4090", "RTX-5090"} <= set(known)
    assert all(name == found.name for name, found in known.items())


@pytest.mark.parametrize("found", gpus().values(), ids=list(gpus()))
def test_every_entry_is_plausible(found: Gpu) -> None:
    assert found.source
    assert found.confidence
    assert 300 <= found.bandwidth_gb_per_s <= 8000
    if found.memory_visible_gib is not None:
        # What CUDA shows is below the size on the box, whether that is read in GB or in GiB.
        assert 0.9 * found.memory_gb < found.visible_bytes / 2**30 < found.memory_gb
        assert found.memory_visible_source
    if found.int8_tensor_tops and found.fp16_tensor_tflops and found.name != "B300":
        assert found.int8_tensor_tops >= 1.99 * found.fp16_tensor_tflops


def test_what_the_generations_can_do() -> None:
    assert gpu("V100-16GB").int8_tensor_tops is None
    assert gpu("T4").bf16_tensor_tflops is None
    assert gpu("A100-80GB").fp8_tensor_tflops is None
    assert gpu("A100-80GB").int4_tensor_tops == 1248
    assert gpu("H100-80GB").int4_tensor_tops is None
    assert gpu("H100-80GB").fp8_tensor_tflops == 1978.9
    assert gpu("B200").fp4_tensor_tflops == 9000


@pytest.mark.parametrize("written", ["rtx-4090", "RTX 4090", " rtx_4090 "])
def test_names_in_any_case(written: str) -> None:
    assert gpu(written).name == "RTX-4090"
    assert gpu(gpu(written)) is gpu(written)


def test_bad_names() -> None:
    with pytest.raises(ValueError, match="gpu: 'H2O0' is not known; did you mean H200"):
        gpu("H2O0")
    with pytest.raises(ValueError, match="gpu: 'xyz' is not known; choose from T4, .*RTX-5090"):
        gpu("xyz")
    with pytest.raises(TypeError, match="gpu: got int"):
        gpu(4090)  # type: ignore[arg-type]


def test_the_table_cannot_be_changed_by_its_readers() -> None:
    gpus().clear()
    assert gpus()


def test_the_data_say_when_they_were_compiled() -> None:
    assert compiled().startswith("20")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": []}, "T4 has no source"),
        ({"source": [" "]}, "T4 has no source"),
        ({"source": ...}, "T4 misses 'source'"),
        ({"date": ...}, "T4 misses 'date'"),
        ({"date": "last year"}, "T4 has the date 'last year'"),
        ({"confidence": " "}, "T4 does not say how far to trust it"),
        ({"memory_gib": 16}, "T4 has unknown 'memory_gib'; did you mean memory_gb"),
        ({"compute_capability": 7.5}, "T4: compute_capability is 7.5; it must be a text"),
        ({"memory_gb": "16"}, "T4: memory_gb is '16'"),
        ({"bandwidth_gb_per_s": None}, "T4: bandwidth_gb_per_s is None"),
        ({"bandwidth_gb_per_s": float("inf")}, "T4: bandwidth_gb_per_s is inf"),
        ({"int8_tensor_tops": -1}, "T4: int8_tensor_tops is -1"),
        ({"memory_visible_gib": True}, "T4: memory_visible_gib is True"),
    ],
)
def test_incomplete_data_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    entry = json.loads(DATA.read_text(encoding="utf-8"))["gpus"]["T4"] | changes
    entry = {field: value for field, value in entry.items() if value is not ...}
    file = tmp_path / "hardware.json"
    file.write_text(json.dumps({"gpus": {"T4": entry}}), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_gpus(file)
