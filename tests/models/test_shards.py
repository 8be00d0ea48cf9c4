"""Checkpoints in pieces: what is written comes back, a cut-off writer goes on, damage is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from qlab.models import shards
from qlab.models.shards import INDEX, ShardReader, ShardWriter


def tensors(count: int = 5) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {f"layer.{i}.weight": torch.randn(3, 4) for i in range(count)}  # 48 bytes each


def write(folder: Path, limit: int, count: int = 5) -> dict[str, torch.Tensor]:
    folder.mkdir(exist_ok=True)
    writer = ShardWriter(folder, limit)
    for name, tensor in tensors(count).items():
        writer.add({name: tensor})
    writer.finish()
    return tensors(count)


@pytest.mark.parametrize(("limit", "files"), [(10**6, 1), (100, 3), (48, 5), (1, 5)])
def test_what_is_written_is_read_back(tmp_path: Path, limit: int, files: int) -> None:
    given = write(tmp_path, limit)
    assert len(list(tmp_path.glob("*.safetensors"))) == files
    assert (tmp_path / INDEX).exists() == (files > 1)
    assert not list(tmp_path.glob("part-*")) and not list(tmp_path.glob("*.partial"))
    reader = ShardReader(tmp_path)
    assert reader.files.keys() == given.keys()
    assert all(torch.equal(reader[name], tensor) for name, tensor in given.items())
    if files > 1:
        index = json.loads((tmp_path / INDEX).read_text())
        assert index["metadata"]["total_size"] == 5 * 48
        assert all(name.endswith(f"-of-{files:05d}.safetensors") for name in index["weight_map"].values())


def test_tensors_that_belong_together_stay_in_one_file(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, limit=100)
    for i in range(3):
        writer.add({f"{i}.codes": torch.zeros(40, dtype=torch.uint8), f"{i}.scales": torch.zeros(10)})
    writer.finish()
    files = ShardReader(tmp_path).files
    assert len(set(files.values())) == 3
    assert all(files[f"{i}.codes"] == files[f"{i}.scales"] for i in range(3))


def test_views_and_shared_memory_are_written_as_tensors_of_their_own(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    writer = ShardWriter(tmp_path)
    writer.add({"transposed": whole.t(), "row": whole[1], "whole": whole})
    writer.finish()
    reader = ShardReader(tmp_path)
    assert torch.equal(reader["transposed"], whole.t()) and torch.equal(reader["row"], whole[1])


def test_a_cut_off_writer_goes_on_after_its_last_whole_file(tmp_path: Path) -> None:
    given = list(tensors().items())
    writer = ShardWriter(tmp_path, limit=100)
    for name, tensor in given[:4]:  # two of them are in a file, two are held and lost
        writer.add({name: tensor})
    (tmp_path / "part-00001.partial").write_bytes(b"half a file")
    again = ShardWriter(tmp_path, limit=100)
    assert again.written == {given[0][0], given[1][0]}
    for name, tensor in given:
        if name not in again.written:
            again.add({name: tensor})
    again.finish()
    reader = ShardReader(tmp_path)
    assert all(torch.equal(reader[name], tensor) for name, tensor in given)


@pytest.mark.parametrize("renamed", [1, 2])
def test_a_finish_that_was_cut_off_loses_nothing(tmp_path: Path, renamed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rename, calls = Path.rename, []

    def cut(self: Path, target: Path) -> Path:
        if self.name.startswith("part-") and self.suffix == ".safetensors":
            calls.append(self)
            if len(calls) > renamed:
                raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", cut)
        write(tmp_path, 100)
    again = ShardWriter(tmp_path, 100)
    for name, tensor in tensors().items():
        if name not in again.written:
            again.add({name: tensor})
    again.finish()
    reader = ShardReader(tmp_path)
    assert reader.files.keys() == tensors().keys()
    assert len(list(tmp_path.glob("*.safetensors"))) == len(set(reader.files.values()))


def test_damage_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no \\*.safetensors file"):
        ShardReader(tmp_path)
    write(tmp_path, 100)
    last = sorted(tmp_path.glob("*.safetensors"))[-1]
    last.write_bytes(last.read_bytes()[:-8])
    with pytest.raises(ValueError, match=f"{last.name} is damaged or cut off"):
        ShardReader(tmp_path)["layer.4.weight"]
    last.unlink()
    with pytest.raises(ValueError, match=f"lacks {last.name}"):
        ShardReader(tmp_path)
    (tmp_path / INDEX).write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        ShardReader(tmp_path)


def test_nothing_is_kept_of_what_was_read(tmp_path: Path) -> None:
    write(tmp_path, 10**6)
    reader = ShardReader(tmp_path)
    first = reader["layer.0.weight"]
    first.zero_()
    assert not torch.equal(reader["layer.0.weight"], first), "a read tensor must not be a window into the file"
    assert shards.names_in(tmp_path / "model.safetensors") == sorted(tensors())
