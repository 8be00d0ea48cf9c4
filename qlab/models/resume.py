"""Finished blocks on disk, so that a killed calibration goes on where it stopped.

One safetensors file for every block, written and then renamed, and beside them the fingerprint of the run: weights,
recipe and calibration data. What belongs to another run is refused, not mixed in.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from qlab.formats.activations import Activations
from qlab.formats.affine import AffineWeight
from qlab.formats.codebook import CodebookWeight
from qlab.formats.float8 import Float8Weight
from qlab.formats.weight import QuantizedWeight

from .calibration import Batch
from .linear import QuantLinear
from .recipe import Recipe

FORMATS: dict[str, Any] = {format.__name__: format for format in (AffineWeight, CodebookWeight, Float8Weight)}
_SCHEME = ("data_type", "granularity", "threshold")  # the fields of Activations that are not tensors
SAMPLED = 4096  # values of every tensor that enter the fingerprint


class Progress:
    """The folder of one run."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        """Raises ValueError if the folder holds something else than this run."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        note = folder / "run.json"
        if note.exists():
            if json.loads(note.read_text(encoding="utf-8"))["fingerprint"] != fingerprint:
                raise ValueError(
                    f"resume: {folder} holds another run (other weights, arguments or calibration data); "
                    "give another folder, or delete this one"
                )
        elif any(folder.iterdir()):
            raise ValueError(f"resume: {folder} holds other files; give a new folder")
        else:
            partial = folder / "run.json.partial"
            partial.write_text(json.dumps({"fingerprint": fingerprint}), encoding="utf-8")
            partial.rename(note)

    def _path(self, index: int) -> Path:
        return self.folder / f"block-{index:04d}.safetensors"

    def save(self, index: int, block: nn.Module, losses: Mapping[str, float | None]) -> None:
        """Keep a finished block: every tensor in it, for norms may have taken up scales."""
        kinds = {name: _describe(layer) for name, layer in block.named_modules() if isinstance(layer, QuantLinear)}
        tensors = {name: tensor.detach().contiguous().clone() for name, tensor in block.state_dict().items()}
        metadata = {"layers": json.dumps(kinds), "losses": json.dumps(losses)}
        partial = self._path(index).with_suffix(".partial")
        save_file(tensors, partial, metadata=metadata)
        partial.rename(self._path(index))

    def restore(self, index: int, block: nn.Module) -> dict[str, float | None] | None:
        """Make the block what it was when it was saved and give its losses; None if it was not finished."""
        path = self._path(index)
        if not path.exists():
            return None
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except SafetensorError as error:
            raise ValueError(f"resume: {path} is damaged ({error}); delete it to compute the block again") from error
        device = next(block.parameters()).device
        for name, kind in json.loads(metadata["layers"]).items():
            bias, scale = tensors.get(f"{name}.bias"), tensors.get(f"{name}.input_scale")
            scheme = None if kind["inputs"] is None else Activations(**kind["inputs"], scale=scale)
            block.set_submodule(name, QuantLinear(_weight(name, kind, tensors), bias, scheme).to(device))
        block.load_state_dict(tensors)
        return json.loads(metadata["losses"])


def fingerprint(model: nn.Module, recipe: Recipe, batches: list[Batch]) -> str:
    """A digest of what decides the result: names, shapes and samples of all weights, the recipe, the tokens."""
    digest = hashlib.sha256(repr((recipe.method, sorted(recipe.layers.items()), recipe.extra)).encode())
    for name, tensor in model.state_dict().items():
        values = tensor.detach().reshape(-1)
        step = max(1, values.numel() // SAMPLED)
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(values[::step].float().cpu().numpy().tobytes())
    for batch in batches:
        digest.update(batch.ids.numpy().tobytes() + batch.counted.numpy().tobytes())
    return digest.hexdigest()


def _describe(layer: QuantLinear) -> dict[str, Any]:
    """The fields of a layer's weight that are not tensors, as JSON can hold them, and the type of each that is."""
    weight = layer.weight
    fields = {field.name: getattr(weight, field.name) for field in dataclasses.fields(weight)}
    plain = {name: value for name, value in fields.items() if not isinstance(value, torch.Tensor)}
    plain["dtype"] = str(weight.dtype).removeprefix("torch.")
    scheme = layer.activations
    return {
        "inputs": None if scheme is None else {field: getattr(scheme, field) for field in _SCHEME},
        "format": type(weight).__name__,
        "plain": plain,
        "tensors": [name for name, value in fields.items() if isinstance(value, torch.Tensor)],
    }


def _weight(name: str, kind: dict[str, Any], tensors: dict[str, torch.Tensor]) -> QuantizedWeight:
    plain = kind["plain"] | {"dtype": getattr(torch, kind["plain"]["dtype"]), "shape": tuple(kind["plain"]["shape"])}
    stored = {field: tensors[f"{name}.{field}"] for field in kind["tensors"]}
    weight: QuantizedWeight = FORMATS[kind["format"]](**plain, **stored)
    return weight
