"""From disk to disk: the same bytes as in memory, a bounded number of tensors held, and a run that resumes."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel

import qlab
from qlab.models import stream
from qlab.models.quantize import quantize_model, report
from qlab.models.recipe import Method
from qlab.models.shards import ShardReader
from qlab.models.stream import quantize_checkpoint

Family = Callable[..., PreTrainedModel]
RECIPES: dict[str, dict[str, Any]] = {
    "compressed-tensors": {"method": "rtn", "bits": 4, "group_size": 16},
    "gptq": {"method": "rtn", "bits": 4, "group_size": 16},
    "gptq_v2": {"method": "hqq", "bits": 4, "group_size": 16, "round_zeros": True},
    "awq": {"method": "rtn", "bits": 4, "group_size": 16, "symmetric": False},
    "bitsandbytes": {"method": "nf4", "double_quant": True},
}


@pytest.fixture
def checkpoint(family: Family, tmp_path: Path) -> Callable[..., Path]:
    def make(name: str = "llama", dtype: torch.dtype = torch.float32) -> Path:
        folder = tmp_path / f"checkpoint of {name}"
        sizes = (
            {"n_embd": 64, "n_inner": 96}
            if name == "gpt2"
            else {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
        )
        family(name, **sizes).to(dtype).save_pretrained(folder, max_shard_size="60KB")
        assert len(list(folder.glob("*.safetensors"))) > 2
        return folder

    return make


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def same(a: Path, b: Path) -> bool:
    x, y = tensors(a), tensors(b)
    return x.keys() == y.keys() and all(torch.equal(x[name], y[name]) and x[name].dtype == y[name].dtype for name in x)


@pytest.mark.parametrize("name", ["llama", "llama, tied", "llama, biases"])
@pytest.mark.parametrize("format", RECIPES)
def test_it_writes_what_export_writes(checkpoint: Callable[..., Path], tmp_path: Path, format: str, name: str) -> None:
    source = checkpoint(name, torch.float16)
    streamed = quantize_checkpoint(source, tmp_path / "streamed", format=format, progress=False, **RECIPES[format])
    model = stream.AutoModelForCausalLM.from_pretrained(source, dtype="auto")
    quantize_model(model, progress=False, **RECIPES[format])
    exported = qlab.export(model, tmp_path / "exported", format)
    assert same(tmp_path / "streamed", exported)
    assert (tmp_path / "streamed" / "config.json").read_text() == (exported / "config.json").read_text()
    assert (tmp_path / "streamed" / "README.md").read_text() == (exported / "README.md").read_text()
    found = report(model)
    assert streamed.layers == len(found.quantized) and streamed.bits_per_weight == pytest.approx(found.bits_per_weight)
    assert streamed.bytes_after == sum(tensor.nbytes for tensor in tensors(exported).values())
    assert "linear layers quantized" in str(streamed)


def test_gpt2_with_its_transposed_layers(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    source = checkpoint("gpt2")
    quantize_checkpoint(source, tmp_path / "streamed", group_size=32, format="gptq", progress=False)
    model = stream.AutoModelForCausalLM.from_pretrained(source)
    quantize_model(model, bits=4, group_size=32, progress=False)
    exported = qlab.export(model, tmp_path / "exported", "gptq")
    assert {k.removeprefix("transformer.") for k in tensors(tmp_path / "streamed")} >= {
        k.removeprefix("transformer.") for k in tensors(exported)
    }


def test_few_tensors_are_held_at_a_time(
    checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, held = checkpoint(), []
    original = ShardReader.__getitem__

    def counting(self: ShardReader, name: str) -> torch.Tensor:
        gc.collect()
        everything = [t for t in gc.get_objects() if type(t) in (torch.Tensor, nn.Parameter)]
        held.append(sum(t.nbytes for t in everything if t.layout is torch.strided and not t.is_meta))
        return original(self, name)

    monkeypatch.setattr(ShardReader, "__getitem__", counting)
    monkeypatch.setattr(stream, "FLUSH_BYTES", 10_000)
    quantize_checkpoint(source, tmp_path / "out", group_size=16, progress=False)
    largest = max(tensor.nbytes for tensor in tensors(source).values())
    assert max(held) - held[0] <= 10_000 + 2 * largest < sum(t.nbytes for t in tensors(source).values()) / 4


def test_a_killed_run_goes_on_and_ends_the_same(
    checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = checkpoint()
    monkeypatch.setattr(stream, "FLUSH_BYTES", 10_000)
    quantize_checkpoint(source, tmp_path / "whole", group_size=16, progress=False)
    original, read = ShardReader.__getitem__, []

    def killed(self: ShardReader, name: str) -> torch.Tensor:
        if len(read) == 20:
            raise KeyboardInterrupt
        read.append(name)
        return original(self, name)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ShardReader, "__getitem__", killed)
        quantize_checkpoint(source, tmp_path / "cut", group_size=16, progress=False)
    assert not (tmp_path / "cut").exists()
    kept = list((tmp_path / ".cut.partial").glob("part-*.safetensors"))
    assert kept
    quantized = []
    rtn = stream.METHODS["rtn"].quantize

    @functools.wraps(rtn)
    def counting(w: torch.Tensor, **rest: Any) -> Any:
        quantized.append(w.shape)
        return rtn(w, **rest)

    monkeypatch.setitem(stream.METHODS, "rtn", Method(counting))
    report = quantize_checkpoint(source, tmp_path / "cut", group_size=16, progress=False)
    assert same(tmp_path / "cut", tmp_path / "whole") and not (tmp_path / ".cut.partial").exists()
    assert 0 < len(quantized) < report.layers, "finished layers are not quantized again"


@pytest.mark.parametrize("format", ["compressed-tensors", "bitsandbytes"])
def test_other_leftovers_are_thrown_away(checkpoint: Callable[..., Path], tmp_path: Path, format: str) -> None:
    source = checkpoint()
    leftover = tmp_path / ".out.partial"
    leftover.mkdir()
    (leftover / "run.json").write_text("{}")
    (leftover / "part-00000.safetensors").write_bytes(b"of another run")
    quantize_checkpoint(source, tmp_path / "out", format=format, progress=False, **RECIPES[format])
    assert tensors(tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "gptq"}, "method: gptq has to run the model"),
        ({"method": "magic"}, "method: 'magic' is unknown"),
        ({"format": "onnx"}, "format: 'onnx' is unknown"),
        ({"group_size": 128}, "64 columns are not a multiple"),
        ({"group_size": 16, "symmetric": False, "format": "gptq"}, "format: version 1 of gptq"),
        ({"group_size": 16, "bits": 3}, "3 bits"),
    ],
)
def test_what_cannot_be_done_is_said_first(
    checkpoint: Callable[..., Path], tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    source = checkpoint()
    with pytest.raises(ValueError, match=message):
        quantize_checkpoint(source, tmp_path / "out", progress=False, **arguments)
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


def test_a_weight_with_nan_is_named(checkpoint: Callable[..., Path], family: Family, tmp_path: Path) -> None:
    model = family("llama", hidden_size=64, intermediate_size=128)
    model.model.layers[1].mlp.up_proj.weight.data[0, 0] = float("nan")
    model.save_pretrained(tmp_path / "broken")
    with pytest.raises(ValueError, match=r"model\.layers\.1\.mlp\.up_proj\.weight: 1 of 8192 values are NaN"):
        quantize_checkpoint(tmp_path / "broken", tmp_path / "out", group_size=16, progress=False)
    assert not (tmp_path / "out").exists()
