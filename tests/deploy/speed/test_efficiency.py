"""What stacks reach: every number has a basis and a source, recordings are read, and names are found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qlab.deploy import gpu, gpus
from qlab.deploy.speed.efficiency import (
    DATASHEET,
    FIELDS,
    HOSTS,
    PARAMETERS,
    RECORDED,
    STACKS,
    Stack,
    from_table,
    link_bandwidth,
    origins,
    recorded,
    stack,
)

H200 = gpu("H200")


def run(date: str = "2026-03-01T00:00:00+00:00", name: str = "NVIDIA H200", device: str = "cuda") -> dict[str, Any]:
    """What `qlab bench` writes, as far as it matters here."""

    def row(kernel: str, tokens: int, gb_per_s: float, flops: float = 1.0, seconds: float = 1.0) -> dict[str, Any]:
        return {"kernel": kernel, "tokens": tokens, "gb_per_s": gb_per_s, "flops": flops, "seconds": seconds}

    rows = [row("dense", 1, value) for value in (2400, 3600, 4700)]
    rows += [row("qlab-int4-g128", 1, 1200), row("dense", 64, 1)]
    rows += [row("dense", 8192, 0, 494.7e12), row("qlab-int4-g128", 2048, 0, 494.7e12, 2.0)]
    return {"date": date, "settings": {"device": device}, "hardware": {"name": name}, "rows": rows}


def test_every_number_has_a_basis_and_a_source() -> None:
    for name, parameter in (PARAMETERS | HOSTS).items():
        assert parameter.basis in ("published", "assumed"), name
        assert len(parameter.source) > 5, name
        assert parameter.value >= 0, name
    assert all(name.partition(".")[2] in FIELDS and name.partition(".")[0] in (*STACKS, "all") for name in PARAMETERS)
    assert {f"all.{field}" for field in FIELDS} <= PARAMETERS.keys()


def test_parts_are_parts() -> None:
    for name, parameter in PARAMETERS.items():
        if name.partition(".")[2] in ("read_16", "read_8", "read_4", "cache", "matrix_16", "unpack", "link"):
            assert 0 < parameter.value <= 1, name


def test_a_stack_takes_its_own_number_before_that_of_its_family_before_that_of_all() -> None:
    found = stack("transformers int8 outliers")
    assert found.host_product == PARAMETERS["transformers int8 outliers.host_product"].value
    assert found.host_layer == PARAMETERS["transformers.host_layer"].value
    assert found.read_8 == PARAMETERS["all.read_8"].value
    assert origins("transformers int8 outliers")["host_layer"] == PARAMETERS["transformers.host_layer"]
    table = {f"all.{field}": 0.5 for field in FIELDS} | {"transformers.layer": 2.0, "transformers int8.step": 3.0}
    changed = from_table("transformers int8", table)
    assert (changed.layer, changed.step, changed.cache) == (2.0, 3.0, 0.5)


def test_the_data_sheet_loses_nothing() -> None:
    assert stack("datasheet") is DATASHEET
    assert {origin.source for origin in origins("datasheet").values()} == {"the data sheet"}
    own = Stack("mine", read_16=0.5)
    assert stack(own) is own and own.read(16) == 0.5 and own.read(8) == own.read(4) == 1
    widths = Stack("mine", read_16=1, read_8=2, read_4=3, matrix_16=4, matrix_8=5, matrix_4=6)
    assert [widths.read(bits) for bits in (32, 16, 8, 5, 4, 2)] == [1, 1, 2, 2, 3, 3]
    assert [widths.matrix(bits) for bits in (16, 8, 4)] == [4, 5, 6]


def test_nothing_recorded_means_published(tmp_path: Path) -> None:
    assert recorded(H200, tmp_path) == {}


def test_a_recording_gives_medians_as_parts_of_the_data_sheet(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text(json.dumps(run()))
    (tmp_path / "a.json").write_text(json.dumps(run("2025-03-01T00:00:00+00:00")))
    (tmp_path / "c.json").write_text(json.dumps(run("2027-03-01T00:00:00+00:00", "NVIDIA H100 80GB HBM3")))
    (tmp_path / "d.json").write_text(json.dumps(run("2027-03-01T00:00:00+00:00", device="cpu")))
    found = recorded(H200, tmp_path)
    assert {name: parameter.value for name, parameter in found.items()} == pytest.approx(
        {"server.read_16": 3600 / 4800, "server.read_4": 1200 / 4800, "server.matrix_16": 0.5, "server.unpack": 0.5}
    )
    assert {parameter.basis for parameter in found.values()} == {"recorded"}
    assert found["server.read_16"].source == "qlab bench on H200, 2026-03-01, b.json"


def test_the_server_says_which_of_its_numbers_were_recorded(monkeypatch: Any) -> None:
    from qlab.deploy.speed import efficiency

    monkeypatch.setattr(efficiency, "recorded", lambda where: {"server.read_4": PARAMETERS["all.cache"]})
    found = origins("server", "H200")
    assert found["read_4"] == PARAMETERS["all.cache"]
    assert found["step"] == PARAMETERS["vllm.step"] and found["read_16"] == PARAMETERS["all.read_16"]
    assert origins("vllm", "H200")["read_4"] == PARAMETERS["all.read_4"], "recordings are of our kernels"


@pytest.mark.parametrize(
    ("cuda", "name"),
    [
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("NVIDIA A100 80GB PCIe", "A100-PCIe-80GB"),
        ("NVIDIA H100 80GB HBM3", "H100-80GB"),
        ("NVIDIA H100 PCIe 80GB", "H100-PCIe-80GB"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L4", "L4"),
        ("Tesla T4", "T4"),
        ("NVIDIA GeForce RTX 4090", "RTX-4090"),
    ],
)
def test_a_device_is_known_by_the_name_that_cuda_gives_it(cuda: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(run(name=cuda)))
    assert [known for known, one in gpus().items() if recorded(one, tmp_path)] == [name]


def test_a_damaged_recording_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(ValueError, match=r"file: a\.json is no recording of qlab bench"):
        recorded(H200, tmp_path)
    assert RECORDED.parent.name == "bench"


def test_links() -> None:
    speeds = {name: link_bandwidth(name) / 1e9 for name in ("A100-80GB", "H100-80GB", "H200", "B200", "T4", "L40S")}
    assert speeds == {"A100-80GB": 300, "H100-80GB": 450, "H200": 450, "B200": 900, "T4": 16, "L40S": 32}
    assert link_bandwidth("A100-PCIe-80GB") == 32e9


def test_refused() -> None:
    with pytest.raises(ValueError, match="kernels: 'vlm' is not known; did you mean vllm"):
        stack("vlm")
    with pytest.raises(TypeError, match="kernels: got int"):
        stack(3)  # type: ignore[arg-type]
