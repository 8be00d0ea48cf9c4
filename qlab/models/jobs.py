"""What the commands `qlab quantize` and `qlab generate` do, from a name to a result."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from . import stream as streaming
from .calibration import NAMES
from .evaluate import Evaluation, evaluate
from .export import check_architecture, check_recipe, export, layout_of, new_folder
from .folding import weight_of
from .generate import Answer, side_by_side
from .load import NANO, load
from .quantize import QuantizationReport, bytes_of, quantize_model, report
from .recipe import METHODS, linear_layers, resolve
from .workloads import examples as held_out_examples

# The arguments of `quantize_model` that are not options of a method.
_NAMED = ("method", "bits", "group_size", "symmetric", "skip", "calibration")


@dataclass(frozen=True)
class Quantized:
    """Size and damage of a quantized model, and where it was written."""

    model: str
    size: QuantizationReport
    evaluation: Evaluation
    folder: Path | None
    format: str | None

    def to_dict(self) -> dict[str, Any]:
        written = None if self.folder is None else {"folder": str(self.folder), "format": self.format}
        return {
            "model": self.model,
            "quantization": asdict(self.size),
            "evaluation": self.evaluation.to_dict(),
            "written": written,
        }

    def __str__(self) -> str:
        written = f"\n\nwritten to {self.folder} in the format {self.format}" if self.folder else ""
        return f"{self.size}\n\n{self.evaluation}{written}"


def quantize(
    name: str,
    recipe: Mapping[str, Any],
    calibration: str | None = None,
    out: str | None = None,
    format: str | None = None,
    examples: int = 200,
    progress: bool = True,
) -> Quantized:
    """Load, quantize, write to `out` if given, and measure against the model as it was.

    `recipe` holds the arguments of `quantize_model`. With `out`, the finished blocks of a calibrated method are kept
    beside it until it is written, so that the same call goes on after a kill. Raises what the parts raise.
    """
    recipe = dict(recipe)
    method = recipe["method"]
    # In the type in which it is stored, so that the bytes before are those that people download.
    model, tokenizer = load(name, dtype="auto")
    calibrated = method in METHODS and METHODS[method].needs_data(recipe)
    if calibrated:
        recipe |= {"calibration": _calibration(calibration or "mix")}
    elif calibration is not None:
        raise ValueError(f"calibration: {method} looks at no data and needs none; leave it out")
    target = None
    if out is not None:
        target = new_folder(out)
        if METHODS.get(method) and "scale_dtype" in METHODS[method].choices():
            recipe = {"scale_dtype": _scale_dtype(model.dtype)} | recipe
        format = format or default_format(recipe)
        layout_of(format)
        check_architecture(model.config, format)
        layers = linear_layers(model)
        options = {key: value for key, value in recipe.items() if key not in _NAMED}
        resolved = resolve(
            layers, method, recipe["bits"], recipe["group_size"], recipe["symmetric"], recipe["skip"], options
        )
        check_recipe({key: _shape(weight_of(layer)) for key, layer in layers.items()}, resolved, format)
        del layers
        if calibrated:
            recipe |= {"resume": _beside(target)}
    elif format is not None:
        raise ValueError("format: it is that of the folder which --out names; give --out too")
    stored, before = model.dtype, bytes_of(model)
    if calibrated and model.device.type == "cpu":
        model.float()  # processors compute slowly in 16 bits
    quantize_model(model, progress=progress, **recipe)
    for parameter in model.parameters():  # not model.to(): rotary frequencies, which are buffers, keep float32
        parameter.data = parameter.data.to(stored)
    size = replace(report(model), bytes_before=before, bytes_after=bytes_of(model))
    if target is not None and format is not None:
        export(model, target, format, tokenizer)
        shutil.rmtree(_beside(target), ignore_errors=True)
    # Both are measured in float32; the codes and the scales stay as they are.
    reference, _ = load(name)
    evaluation = evaluate(model.float(), reference, tokenizer=tokenizer, examples=examples, progress=progress)
    return Quantized(name, size, evaluation, target, format)


def stream(
    name: str, out: str, format: str | None, recipe: Mapping[str, Any], progress: bool = True
) -> streaming.StreamReport:
    """`quantize_checkpoint` on the folder of a model, with the format and the type of scales that suit it."""
    source = NANO if name == "nano" else Path(name)
    if not (source / "config.json").is_file():
        raise ValueError(f"model: {name} is not a folder with a config.json; download the model first")
    if METHODS.get(recipe["method"]) and "scale_dtype" in METHODS[recipe["method"]].choices():
        dtype = AutoConfig.from_pretrained(source, local_files_only=True).dtype
        recipe = {"scale_dtype": _scale_dtype(dtype)} | dict(recipe)
    format = format or default_format(recipe)
    return streaming.quantize_checkpoint(source, out, format=format, progress=progress, **recipe)


def default_format(recipe: Mapping[str, Any]) -> str:
    """The layout that holds what a recipe makes: compressed-tensors wherever it can."""
    bits = recipe["bits"]
    widths = set(bits.values()) | {4} if isinstance(bits, Mapping) else {bits or 4}
    if recipe["method"] in ("nf4", "fp4"):
        return "bitsandbytes"
    if recipe["method"] in METHODS and METHODS[recipe["method"]].rounds_inputs:
        return "compressed-tensors"
    if recipe["method"] == "hqq" or recipe["symmetric"] is False:
        return "awq" if widths == {4} else "gptq_v2"
    return "compressed-tensors" if widths <= {4, 8} else "gptq"


@dataclass(frozen=True)
class Shown:
    """One prompt and its continuations."""

    prompt: str
    answers: list[Answer]

    def to_dict(self) -> dict[str, Any]:
        return {"prompt": self.prompt, "answers": [asdict(answer) for answer in self.answers]}


def generate(
    name: str,
    prompt: str | None,
    bits: list[int],
    recipe: Mapping[str, Any],
    calibration: str | None = None,
    tokens: int = 48,
) -> Shown:
    """Continue one prompt at several widths; without a prompt, a question that nano was trained for."""
    recipe = dict(recipe)
    if prompt is None:
        prompt = held_out_examples("sql", 1)[0].prompt
    if METHODS.get(recipe["method"]) and METHODS[recipe["method"]].needs_data(recipe):
        recipe |= {"calibration": _calibration(calibration or "mix")}
    model, tokenizer = load(name, dtype="auto")
    return Shown(prompt, side_by_side(model, tokenizer, prompt, bits, tokens, **recipe))


def _calibration(name: str) -> str | list[str]:
    """A known name, or the text of a file."""
    if name in NAMES or not Path(name).is_file():
        return name  # an unknown one is refused where all names are listed
    return [Path(name).read_text(encoding="utf-8")]


def _scale_dtype(dtype: torch.dtype | None) -> torch.dtype:
    """Engines hold scales in the type of the model: bfloat16 models take scales that survive that."""
    return torch.bfloat16 if dtype == torch.bfloat16 else torch.float16


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.blocks")


def _shape(w: torch.Tensor) -> tuple[int, int]:
    return (w.shape[0], w.shape[1])
