from __future__ import annotations

import os
from pathlib import Path

import pytest

from qlab.deploy import fits, gpu, gpus, instance, instances, memory, names, smallest_instance, spec, user

GPU = """
gpus:
  My-GPU:
    architecture: Future
    compute_capability: "12.1"
    form_factor: PCIe
    memory_gb: 64
    memory_type: GDDR7
    memory_visible_gib: 63.0
    memory_visible_source: torch.cuda.mem_get_info
    bandwidth_gb_per_s: 2000
    tdp_w: 500
    fp32_cuda_tflops: null
    tf32_tensor_tflops: null
    fp16_tensor_tflops: 400
    bf16_tensor_tflops: 400
    fp8_tensor_tflops: 800
    int8_tensor_tops: 800
    int4_tensor_tops: null
    fp4_tensor_tflops: null
    source: my bench
    date: 2026-11
"""
MODEL = """
models:
  My-1B:
    layers: 4
    hidden_size: 64
    intermediate_size: 128
    attention_heads: 4
    kv_heads: 2
    head_dim: 16
    vocab_size: 100
    tied_embeddings: true
    max_context: 50
    source: my config.json
    date: 2026
"""
PRICE = """
instances:
  P4D.24xlarge:
    price_usd_per_hour: 1.5
    price_date: 2026-11-02
    source: our contract
    date: 2026-11-02
"""
NEW = """
instances:
  box.large:
    gpu: My-GPU
    count: 2
    vcpus: 32
    host_memory_gib: 256
    interconnect: PCIe
    region: our cellar
    source: the invoice
    date: 2026-11-02
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "data.yaml"
    monkeypatch.setenv("QLAB_DATA", str(file))
    return file


def test_without_a_file_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QLAB_DATA", raising=False)
    assert user.complete("gpus", {}) == ({}, "")
    monkeypatch.setenv("QLAB_DATA", "")
    assert not user.given()


def test_entries_are_added(own: Path) -> None:
    own.write_text(GPU + MODEL + NEW)
    assert gpu("my gpu").fp8_tensor_tflops == 800
    assert gpu("my gpu").source == ("my bench",) and gpu("my gpu").date == "2026-11"
    assert gpu("my gpu").confidence == "as its owner states"
    assert list(gpus())[-1] == "My-GPU" and len(gpus()) == 18
    assert "My-1B" in names() and spec("my-1b").date == "2026"
    assert memory("My-1B", context=50).spec.hidden_size == 64
    assert instance("box.large").gpu == gpu("My-GPU")
    assert instance("box.large").price_usd_per_hour is None
    assert fits("Llama-3-70B", "box.large").gpus == 2


def test_a_price_of_one_s_own(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own.write_text(PRICE)
    found = instance("p4d.24xlarge")
    assert (found.price_usd_per_hour, found.price_date, found.source) == (1.5, "2026-11-02", ("our contract",))
    assert (found.count, found.gpu.name, found.confidence) == (8, "A100-40GB", "high")
    assert len(instances()) == 43
    best = smallest_instance("Llama-3-70B", batch=16)
    assert best is not None and best.instance.name == "p4d.24xlarge"
    monkeypatch.delenv("QLAB_DATA")
    assert instance("p4d.24xlarge").price_usd_per_hour == 21.957642


def test_a_changed_gpu_changes_the_instances_that_have_it(own: Path) -> None:
    own.write_text("gpus: {L4: {memory_visible_gib: 22.5, source: mine, date: 2026-11-02}}")
    assert gpu("L4").memory_visible_gib == 22.5
    assert gpu("L4").bandwidth_gb_per_s == 300
    assert instance("g6.12xlarge").visible_bytes == 4 * gpu("L4").visible_bytes


def test_the_file_is_read_again_when_it_changed(own: Path) -> None:
    own.write_text(PRICE)
    assert instance("p4d.24xlarge").price_usd_per_hour == 1.5
    own.write_text(PRICE.replace("1.5", "2.5"))
    os.utime(own, ns=(1, 1))
    assert instance("p4d.24xlarge").price_usd_per_hour == 2.5


def test_an_empty_file_is_no_mistake(own: Path) -> None:
    own.write_text("# nothing yet\ngpus:\n")
    assert len(gpus()) == 17


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpus: [", "not a YAML file"),
        ("- gpus", "holds a list; give a mapping with gpus, instances, models"),
        ("gpu: {}", "unknown section 'gpu'; did you mean gpus"),
        ("gpus: 7", "gpus is 7; it must be a mapping"),
        ("gpus: {L4: 7}", "gpus: L4 is 7; give a name, and below it a mapping"),
        ("gpus: {7: {}}", "gpus: 7 is {}; give a name"),
        ("gpus: {L4: {memory_gb: 25, date: 2026-11-02}}", "gpus: L4 has no source"),
        ("gpus: {L4: {memory_gb: 25, source: ' ', date: 2026-11-02}}", "L4 has no source"),
        ("gpus: {L4: {memory_gb: 25, source: mine}}", "gpus: L4 has the date None; say when"),
        ("gpus: {L4: {memory_gb: 25, source: mine, date: undated}}", "gpus: L4 has the date 'undated'; say when"),
        ("gpus: {L4: {memory_gb: 0, source: mine, date: 2026}}", "gpus: the entry of L4: memory_gb is 0"),
        (
            "gpus: {L4: {memory: 25, source: mine, date: 2026}}",
            "the entry of L4 has unknown 'memory'; did you mean memory",
        ),
        ("gpus: {L5: {memory_gb: 25, source: mine, date: 2026}}", "the entry of L5 misses 'architecture'"),
    ],
)
def test_bad_files_are_named_with_the_place_in_them(own: Path, text: str, message: str) -> None:
    own.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        gpus()
    assert str(own) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PRICE.replace("    price_date: 2026-11-02\n", ""), "P4D.24xlarge has a price without a date"),
        (PRICE.replace("price_date: 2026-11-02", "price_date: 2026-11"), "p4d.24xlarge has a price without a date"),
        (PRICE.replace("1.5", "-1.5"), "p4d.24xlarge: a price is -1.5"),
        (PRICE.replace("    source: our contract\n", ""), "P4D.24xlarge has no source"),
        (NEW, "box.large: gpu is 'My-GPU', which is not known"),
        (GPU + NEW.replace("box.large", "box"), "got the name 'box'; names of instances have a dot"),
        (GPU.replace("My-GPU", "My.GPU"), "got the name 'My.GPU'; names of GPUs have no dot"),
    ],
)
def test_bad_instances(own: Path, text: str, message: str) -> None:
    own.write_text(text)
    with pytest.raises(ValueError, match=message):
        instances()


def test_bad_models(own: Path) -> None:
    own.write_text(MODEL.replace("kv_heads: 2", "kv_heads: 3"))
    with pytest.raises(ValueError, match=r"data\.yaml: models: the entry of My-1B: kv_heads: My-1B has 3"):
        spec("My-1B")


def test_a_missing_file(own: Path) -> None:
    with pytest.raises(ValueError, match=r"QLAB_DATA: .*data\.yaml cannot be read \(No such file"):
        gpus()


def test_a_file_that_is_not_text(own: Path) -> None:
    own.write_bytes(b"\xff\xfe\x00\x00")
    with pytest.raises(ValueError, match="not a YAML file"):
        gpus()
