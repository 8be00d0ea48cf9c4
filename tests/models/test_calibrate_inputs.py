"""SmoothQuant and static scales in whole models: nothing changes before rounding, ranges are those of the inputs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

import qlab
from qlab.models import calibrate, calibrate_inputs, outliers
from qlab.models.calibration import batches
from qlab.models.linear import QuantLinear
from qlab.models.quantize import quantize_model, report
from qlab.models.recipe import linear_layers, resolve

Family = Callable[..., PreTrainedModel]
FAMILIES = ("llama", "llama, tied", "llama, biases", "mistral", "qwen2", "qwen3", "opt", "gpt2")
TOKENS = torch.randint(0, 61, (12, 24), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(model: PreTrainedModel, ids: torch.Tensor = TOKENS) -> torch.Tensor:
    return model(ids).logits


def smoothed(model: PreTrainedModel, alpha: float, ids: torch.Tensor, patch: pytest.MonkeyPatch) -> PreTrainedModel:
    """The model with its scales moved and nothing rounded."""
    patch.setattr(calibrate_inputs, "_round", lambda *rest: None)
    patch.setattr(calibrate, "_weight_in", lambda parent, name: None)
    model = copy.deepcopy(model)
    recipe = resolve(linear_layers(model), "smoothquant", None, None, None, ("lm_head",), {"alpha": alpha})
    calibrate.quantize_blocks(model, recipe, batches(ids, None), lambda *_: None, None)
    return model


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_before_rounding_nothing_changes(
    family: Family, name: str, alpha: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = family(name)
    changed = smoothed(model, alpha, TOKENS, monkeypatch)
    assert (logits(changed) - logits(model)).abs().max() < 1e-4
    parameters = dict(model.named_parameters())
    assert any(not torch.equal(value, parameters[name]) for name, value in changed.named_parameters())


@pytest.mark.parametrize("factor", [1.0, 64.0])
def test_before_rounding_nano_computes_the_same(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = qlab.load("nano")
    ids = tokenizer("Return the number of items. " * 8, return_tensors="pt").input_ids
    exact = logits(model, ids)
    outliers.implant(model, [7, 133], factor)
    assert (logits(smoothed(model, 0.8, ids, monkeypatch), ids) - exact).abs().max() < 1e-4


def largest_inputs(model: PreTrainedModel, names: list[str]) -> dict[str, torch.Tensor]:
    seen: dict[str, torch.Tensor] = {}
    handles = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda layer, args, name=name: seen.update({name: args[0].abs().flatten(0, -2).amax(0)})
        )
        for name in names
    ]
    logits(model)
    for handle in handles:
        handle.remove()
    return seen


def test_at_1_inputs_are_flat_and_at_0_weights(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    model = family("llama")
    names = ["model.layers.1.self_attn.q_proj", "model.layers.1.mlp.gate_proj", "model.layers.1.mlp.down_proj"]
    inputs = largest_inputs(smoothed(model, 1.0, TOKENS, monkeypatch), names)
    for name in names:
        torch.testing.assert_close(inputs[name], torch.ones_like(inputs[name]), rtol=1e-3, atol=0)
    # Scales for o and down move rows of v and up, so those places have to come before the norms, or this is not 1.
    changed = smoothed(model, 0.0, TOKENS, monkeypatch)
    for layers in ("self_attn.q_proj self_attn.k_proj self_attn.v_proj", "mlp.gate_proj mlp.up_proj", "mlp.down_proj"):
        weights = [changed.get_submodule(f"model.layers.1.{name}").weight for name in layers.split()]
        largest = torch.cat(weights).abs().amax(0)
        torch.testing.assert_close(largest, torch.ones_like(largest), rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "recipe", [{"method": "smoothquant"}, {"method": "w8a8", "activations": "tensor", "static": True}]
)
def test_every_family_is_quantized(family: Family, name: str, recipe: dict[str, Any]) -> None:
    model, exact = family(name), logits(family(name))
    quantize_model(model, **recipe, calibration=TOKENS, skip=(), progress=False)
    assert all(isinstance(model.get_submodule(layer), QuantLinear) for layer in report(model).quantized)
    assert float((logits(model) - exact).norm() / exact.norm()) < 0.06
    assert report(model).losses == {}


def test_static_scales_are_the_largest_inputs(family: Family) -> None:
    names = ["model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj"]
    inputs = largest_inputs(family("llama"), names)
    for method, largest in (("w8a8", 127), ("fp8", 448)):
        model = quantize_model(
            family("llama"), method, activations="tensor", static=True, calibration=TOKENS, progress=False
        )
        for name in names:
            layer = model.get_submodule(name)
            assert isinstance(layer, QuantLinear) and layer.activations is not None
            assert layer.activations.scale is not None
            assert float(layer.activations.scale) == pytest.approx(float(inputs[name].max()) / largest)


def test_a_killed_run_goes_on_and_ends_the_same(family: Family, tmp_path: Path) -> None:
    recipe: dict[str, Any] = {"method": "smoothquant", "calibration": TOKENS, "activations": "tensor", "static": True}
    whole = quantize_model(family("llama"), **recipe, progress=False)
    quantize_model(family("llama"), **recipe, resume=tmp_path / "run", progress=False)
    (tmp_path / "run" / "block-0002.safetensors").unlink()
    again = quantize_model(family("llama"), **recipe, resume=tmp_path / "run", progress=False)
    assert torch.equal(logits(again), logits(whole))
    layer = again.get_submodule("model.layers.0.mlp.down_proj")
    assert isinstance(layer, QuantLinear) and layer.activations is not None and layer.activations.scale is not None


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"method": "smoothquant"}, ValueError, "calibration"),
        ({"method": "w8a8", "calibration": TOKENS}, ValueError, "calibration: w8a8 looks at no data"),
        ({"method": "w8a8", "activations": "row"}, ValueError, "activations: got 'row'; choose token or tensor"),
        ({"method": "w8a8", "static": 1}, TypeError, "options: got static=1; give True or False"),
        ({"method": "w8a8", "static": True, "calibration": TOKENS}, ValueError, "static: .*activations='tensor'"),
        ({"method": "w8a8", "group_size": 128}, ValueError, "group_size: got 128; w8a8 takes 'channel' or 'tensor'"),
        ({"method": "w8a8", "bits": 4}, ValueError, "bits: got 4, but w8a8 leaves no choice"),
        ({"method": "smoothquant", "alpha": 2, "calibration": TOKENS}, ValueError, "alpha: got 2; allowed is 0 to 1"),
        ({"method": "llm_int8", "threshold": -1}, ValueError, "threshold: got -1"),
        ({"method": "llm_int8", "activations": "tensor"}, ValueError, "threshold|activations"),
        ({"method": "fp8", "data_type": "e3m4"}, ValueError, "data_type: got 'e3m4'"),
        ({"method": "fp8", "granularity": "row"}, ValueError, "granularity: got 'row'"),
        ({"method": "fp8", "alpha": 0.5}, TypeError, "options: fp8 has no 'alpha'"),
    ],
)
def test_what_makes_no_sense_changes_nothing(
    family: Family, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    model = family("llama")
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=message):
        quantize_model(model, progress=False, **arguments)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(isinstance(module, QuantLinear) for module in model.modules())
