"""Quantize a checkpoint from disk to disk, a layer at a time: the model is never in memory.

For methods without calibration (RTN, NF4, FP4, HQQ) a layer's weight is all that is needed. A checkpoint of 8 billion
parameters takes 16 GB; its largest layer, 0.1 GB. So a laptop is enough.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from tqdm.auto import tqdm
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.pytorch_utils import Conv1D

from qlab.formats import affine

from .export import card, check_architecture, check_recipe, layout_of, new_folder, outline, write_description
from .recipe import METHODS, linear_layers, resolve
from .shards import ShardReader, ShardWriter

NOTE = "run.json"  # what the finished files belong to
FLUSH_BYTES = 128 * 2**20  # what is held before it goes to a file; writing takes as much again


@dataclass(frozen=True)
class StreamReport:
    """What `quantize_checkpoint` wrote; bytes of all tensors."""

    folder: Path
    layers: int
    bytes_before: int
    bytes_after: int
    bits_per_weight: float  # over the quantized layers, scales and zero-points included

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"folder": str(self.folder)}

    def __str__(self) -> str:
        return (
            f"{self.layers} linear layers quantized, {self.bits_per_weight:.4g} bits per quantized weight\n"
            f"{self.bytes_before:,} bytes before, {self.bytes_after:,} after "
            f"({self.bytes_before / self.bytes_after:.2f} times smaller), in {self.folder}"
        )


def quantize_checkpoint(
    source: str | Path,
    folder: str | Path,
    method: str = "rtn",
    bits: int | dict[str, int] | None = None,
    group_size: affine.GroupSize | None = None,
    symmetric: bool | None = None,
    skip: str | tuple[str, ...] = ("lm_head",),
    format: str = "compressed-tensors",
    progress: bool = True,
    **options: Any,
) -> StreamReport:
    """Quantize the checkpoint in folder `source` and write it to `folder`, as `qlab.export` would.

    Finished files stay in a hidden folder beside the target until all are there. The same call after a kill goes on
    after the last of them.

    Args:
        source: a folder with config.json and safetensors, in one file or many.
        folder: a new or empty folder.
        method: "rtn", "nf4", "fp4", "hqq", "w8a8" or "fp8"; the other arguments are those of `qlab.quantize_model`.
        format: as in `qlab.export`.

    Raises:
        ValueError: a method that needs calibration, a layer that the format cannot hold, a bad argument, a damaged
            checkpoint, or a target that is in use.
    """
    origin, target = Path(source), new_folder(folder)
    if METHODS.get(method) and METHODS[method].calibrated:
        raise ValueError(f"method: {method} has to run the model; use qlab.load, qlab.quantize_model and qlab.export")
    layout_of(format)
    config = AutoConfig.from_pretrained(origin, local_files_only=True)
    if getattr(config, "quantization_config", None) is not None:
        raise ValueError(f"source: {origin} is quantized already")
    check_architecture(config, format)
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(config)
    layers = linear_layers(model)
    recipe = resolve(layers, method, bits, group_size, symmetric, skip, options)
    if recipe.calibrated:
        raise ValueError("static: it has to run the model; use qlab.load, qlab.quantize_model and qlab.export")
    layout = layout_of(format, recipe.activations)
    shapes = {name: _shape(layers[name]) for name in recipe.layers}
    check_recipe(shapes, recipe, format)
    if format == "gptq" and not recipe.symmetric:
        raise ValueError(
            "format: version 1 of gptq cannot hold a zero-point 0, which shows too late; use gptq_v2 or awq"
        )
    reader = ShardReader(origin)
    names = _names(recipe.layers, reader, model.base_model_prefix)
    shared = set(model.all_tied_weights_keys) if config.tie_word_embeddings else set()

    dtype = config.dtype or torch.float32
    outlines = {name: outline(method, shapes[name], given, dtype) for name, given in recipe.layers.items()}

    partial = target.with_name(f".{target.name}.partial")
    _begin(partial, {"source": str(origin.resolve()), "format": format, "recipe": repr(recipe)})
    writer = ShardWriter(partial, FLUSH_BYTES)
    finished = {name.rpartition(".")[0] if name not in reader.files else name for name in writer.written}
    order = sorted(reader.files, key=lambda key: (str(reader.files[key]), key))
    before = 0
    for key in tqdm(order, desc=f"streaming ({method})", unit="tensor", disable=not progress, file=sys.stdout):
        if key in shared:
            continue
        tensor = reader[key]
        before += tensor.nbytes
        if key not in names:
            if key not in finished:
                writer.add({key: tensor})
            continue
        layer, prefix = names[key], key.removesuffix(".weight")
        if {prefix, key} & finished:  # bitsandbytes' own endings begin with "weight."
            continue
        affine.check_weight(tensor, key)
        w = tensor.t() if isinstance(layers[layer], Conv1D) else tensor
        weight = METHODS[method].quantize(w, **recipe.layers[layer])
        layout.check({layer: weight}, dtype)
        writer.add({f"{prefix}.{part}": t for part, t in layout.encode(weight).items()})
        del tensor, w, weight
    writer.finish()

    weights = sum(rows * columns for rows, columns in shapes.values())
    bits_per_weight = 8 * sum(weight.nbytes for weight in outlines.values()) / weights
    label = next(iter(outlines.values())).label
    try:
        tokenizer = AutoTokenizer.from_pretrained(origin, local_files_only=True)
    except (OSError, ValueError):
        tokenizer = None  # a folder of weights alone
    write_description(
        partial,
        config,
        dtype,
        layout.settings(outlines, recipe.skipped),
        tokenizer,
        card(config, format, label, bits_per_weight, len(outlines)),
    )
    if (origin / "generation_config.json").is_file():
        GenerationConfig.from_pretrained(origin).save_pretrained(partial)
    (partial / NOTE).unlink()
    if target.exists():
        target.rmdir()  # it is empty
    partial.rename(target)
    after = sum(sum(file.values()) for file in writer.files)
    return StreamReport(target, len(outlines), before, after, bits_per_weight)


def _begin(partial: Path, run: dict[str, str]) -> None:
    """Make the folder for finished files; what another run left in it is thrown away."""
    note = partial / NOTE
    if partial.exists() and not (note.is_file() and json.loads(note.read_text(encoding="utf-8")) == run):
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(run), encoding="utf-8")


def _shape(layer: torch.nn.Module) -> tuple[int, int]:
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    return (weight.shape[1], weight.shape[0]) if isinstance(layer, Conv1D) else (weight.shape[0], weight.shape[1])


def _names(layers: Iterable[str], reader: ShardReader, base: str) -> dict[str, str]:
    """{tensor in the checkpoint: layer}; a checkpoint of the bare decoder leaves out the model's first name."""
    found: dict[str, str] = {}
    for layer in layers:
        key = f"{layer}.weight" if f"{layer}.weight" in reader.files else f"{layer.removeprefix(f'{base}.')}.weight"
        if key not in reader.files:
            raise ValueError(f"source: the checkpoint has no {layer}.weight; its tensors are named differently")
        found[key] = layer
    return found
