"""Safetensors files of a checkpoint, written and read a piece at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

INDEX = "model.safetensors.index.json"
SHARD_BYTES = 4 * 2**30


class ShardWriter:
    """Collects tensors and writes a file whenever `limit` bytes have come together.

    Files are written under another name and renamed when they are whole. A writer on a folder with such files goes on
    after them: `written` names their tensors.
    """

    def __init__(self, folder: Path, limit: int = SHARD_BYTES) -> None:
        self.folder, self.limit = folder, limit
        self.held: dict[str, torch.Tensor] = {}
        self.files: list[dict[str, int]] = []  # for every file {tensor: bytes}
        for renamed in (*folder.glob("model*.safetensors"), folder / INDEX):
            renamed.unlink(missing_ok=True)  # `finish` was cut off: what it had renamed is written again
        while (path := self._part(len(self.files))).exists():
            self.files.append({name: tensor.nbytes for name, tensor in tensors_of(path)})

    @property
    def written(self) -> set[str]:
        """Names of the tensors that are on disk."""
        return {name for file in self.files for name in file}

    def add(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take tensors that stay together in one file."""
        coming = sum(tensor.nbytes for tensor in tensors.values())
        if self.held and sum(tensor.nbytes for tensor in self.held.values()) + coming > self.limit:
            self._flush()
        # A copy of its own memory: safetensors refuses views that share, and a view would keep a whole input alive.
        self.held |= {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}

    def finish(self) -> None:
        """Write what is left, give the files their final names, and write the index if there are several."""
        if self.held:
            self._flush()
        count = len(self.files)
        if count == 1:
            self._part(0).rename(self.folder / "model.safetensors")
            return
        names = [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
        index = {
            "metadata": {"total_size": sum(sum(file.values()) for file in self.files)},
            "weight_map": {
                tensor: name for name, file in zip(names, self.files, strict=True) for tensor in sorted(file)
            },
        }
        (self.folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        for i in reversed(range(count)):  # so that those which keep their first name are the first ones
            self._part(i).rename(self.folder / names[i])

    def _part(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.safetensors"

    def _flush(self) -> None:
        path = self._part(len(self.files))
        partial = path.with_suffix(".partial")
        save_file(self.held, partial, metadata={"format": "pt"})
        partial.rename(path)
        self.files.append({name: tensor.nbytes for name, tensor in self.held.items()})
        self.held = {}


class ShardReader:
    """The tensors of a checkpoint folder by name; each is read when it is asked for, and nothing is kept."""

    def __init__(self, folder: Path) -> None:
        """Raises ValueError if the folder holds no safetensors, or its index names files that are not there."""
        if (folder / INDEX).is_file():
            try:
                weight_map = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
            except (ValueError, KeyError) as error:
                raise ValueError(f"name_or_path: {folder / INDEX} is damaged ({error!r})") from error
            self.files = {name: folder / file for name, file in weight_map.items()}
        else:
            paths = sorted(folder.glob("*.safetensors"))
            self.files = {name: path for path in paths for name in names_in(path)}
        if missing := sorted({path.name for path in self.files.values() if not path.is_file()}):
            raise ValueError(f"name_or_path: {folder} lacks {', '.join(missing)}; copy or download it again")
        if not self.files:
            raise ValueError(f"name_or_path: {folder} has no *.safetensors file; other weight formats are not read")

    def __getitem__(self, name: str) -> torch.Tensor:
        # Opened for each tensor: an open file keeps what was read of it in memory.
        try:
            with safe_open(self.files[name], "pt") as file:
                return file.get_tensor(name).clone()
        except SafetensorError as error:
            raise ValueError(
                f"name_or_path: {self.files[name]} is damaged or cut off ({error}); copy or download it again"
            ) from error


def names_in(path: Path) -> list[str]:
    """The names of the tensors in a file. Raises ValueError if it is damaged."""
    try:
        with safe_open(path, "pt") as file:
            return list(file.keys())
    except SafetensorError as error:
        raise ValueError(f"name_or_path: {path} is damaged or cut off ({error}); copy or download it again") from error


def tensors_of(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of a file."""
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118 (not a dict)
            yield name, file.get_tensor(name)
