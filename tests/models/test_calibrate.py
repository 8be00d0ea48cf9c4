"""Calibrated quantization of whole models: what each block sees, what is folded, and how a run resumes."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from qlab.methods import gptq
from qlab.methods.gptq import Hessian
from qlab.models import blocks, calibrate, calibrate_weights, resume
from qlab.models.calibration import Batch, batches
from qlab.models.linear import QuantLinear
from qlab.models.quantize import quantize_model, report
from qlab.models.recipe import linear_layers, resolve

Family = Callable[..., PreTrainedModel]
FAMILIES = ("llama", "llama, tied", "llama, biases", "mistral", "qwen2", "qwen3", "opt", "gpt2")
TOKENS = torch.randint(0, 61, (12, 24), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(model: PreTrainedModel, ids: torch.Tensor = TOKENS) -> torch.Tensor:
    return model(ids).logits


@torch.no_grad()
def inputs_of(model: PreTrainedModel, name: str, ids: torch.Tensor) -> torch.Tensor:
    """What a layer sees when the whole model runs."""
    seen: list[torch.Tensor] = []
    handle = model.get_submodule(name).register_forward_pre_hook(lambda layer, args: seen.append(args[0]))
    model(ids)
    handle.remove()
    return seen[0].reshape(-1, seen[0].shape[-1])


# --- walking through the blocks -------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_running_block_by_block_is_running_the_model(family: Family, name: str) -> None:
    model = family(name)
    data = [*batches(TOKENS, None), *batches(TOKENS[:5, :11], None), *batches(TOKENS[:5, 3:14], None)]
    found = blocks.decoder_blocks(model)
    flow = blocks.enter(model, found, data)
    last = list(found)[-1]
    expected = []
    handle = model.get_submodule(last).register_forward_hook(
        lambda block, args, out: expected.append(out[0] if isinstance(out, tuple) else out)
    )
    for batch in data:
        model(batch.ids)
    handle.remove()
    for index, block in enumerate(found.values()):
        flow.advance(index, block)
    assert len(flow.hidden) == len(expected) == 3
    assert all(torch.equal(a, b) for a, b in zip(flow.hidden, expected, strict=True))


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="model: it has no list of blocks"):
        blocks.decoder_blocks(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama", [{"q_proj", "k_proj", "v_proj"}, {"o_proj"}, {"gate_proj", "up_proj"}, {"down_proj"}]),
        ("opt", [{"q_proj", "k_proj", "v_proj"}, {"out_proj"}, {"fc1"}, {"fc2"}]),
        ("gpt2", [{"c_attn"}, {"c_proj"}, {"c_fc"}, {"c_proj"}]),
    ],
)
@torch.no_grad()
def test_stages_are_the_layers_that_see_the_same_input(family: Family, name: str, expected: list[set[str]]) -> None:
    model = family(name)
    found = blocks.decoder_blocks(model)
    flow = blocks.enter(model, found, batches(TOKENS, None))
    block = next(iter(found.values()))
    order = blocks.stages(flow, 0, block, linear_layers(block))
    assert [{part.rpartition(".")[2] for part in stage} for stage in order] == expected


# --- what the methods are given -------------------------------------------------------------


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """{layer: (weight, Hessian)} that GPTQ is called with."""
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    original = gptq.quantize

    def note(w: torch.Tensor, hessian: torch.Tensor, **rest: Any) -> Any:
        seen[rest["name"]] = (w.clone(), hessian.clone())
        return original(w, hessian, **rest)

    monkeypatch.setattr(calibrate_weights.gptq, "quantize", note)
    return seen


@pytest.mark.parametrize("name", ["llama", "opt", "gpt2"])
def test_each_stage_is_calibrated_on_what_the_quantized_layers_before_it_give(
    family: Family, name: str, given: dict[str, Any]
) -> None:
    model = family(name)
    quantize_model(model, "gptq", 3, 8, calibration=TOKENS, progress=False)
    # Seen from the finished model, the inputs of every layer are those that it was calibrated on.
    for layer, (_, hessian) in given.items():
        expected = Hessian(hessian.shape[0])
        expected.add(inputs_of(model, layer, TOKENS))
        torch.testing.assert_close(hessian, expected.matrix, rtol=1e-4, atol=1e-6)
    assert set(given) == set(report(model).quantized)


def test_without_true_sequential_a_block_sees_itself_unquantized(family: Family, given: dict[str, Any]) -> None:
    original = family()
    model = quantize_model(
        copy.deepcopy(original), "gptq", 2, 8, calibration=TOKENS, progress=False, true_sequential=False
    )
    first = "model.layers.0.mlp.down_proj"
    expected = Hessian(48)
    expected.add(inputs_of(original, first, TOKENS))
    torch.testing.assert_close(given[first][1], expected.matrix, rtol=1e-4, atol=1e-6)
    other = Hessian(48)
    other.add(inputs_of(model, first, TOKENS))
    assert float((given[first][1] - other.matrix).abs().max()) > 1e-3 * float(other.matrix.abs().max())


def test_padding_is_not_counted(family: Family, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    short, long = TOKENS[:4, :10], TOKENS[4:8]
    ids = torch.cat([torch.nn.functional.pad(short, (0, 14), value=7), long])
    counted = torch.ones_like(ids, dtype=torch.bool)
    counted[:4, 10:] = False
    monkeypatch.setattr("qlab.models.calibration.batches", lambda *_: [Batch(ids, counted)])
    quantize_model(family(), "gptq", 8, 8, calibration="padded", progress=False)
    padded = dict(given)
    given.clear()
    monkeypatch.setattr(
        "qlab.models.calibration.batches",
        lambda *_: [Batch(x, torch.ones_like(x, dtype=torch.bool)) for x in (short, long)],
    )
    quantize_model(family(), "gptq", 8, 8, calibration="apart", progress=False)
    first = "model.layers.0.self_attn.q_proj"
    torch.testing.assert_close(padded[first][1], given[first][1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["gptq", "awq"])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_quantized(family: Family, name: str, method: str) -> None:
    original = family(name)
    model = quantize_model(copy.deepcopy(original), method, 8, 8, calibration=TOKENS, progress=False)
    expected = [layer for layer in linear_layers(original) if layer != "lm_head"]
    found = report(model)
    assert list(found.quantized) == expected and set(found.losses) == set(expected)
    assert all(isinstance(model.get_submodule(layer), QuantLinear) for layer in expected)
    # Eight bits in groups of eight: next to nothing is lost, so a layer with the wrong weights would show.
    before = logits(original)
    assert float((logits(model) - before).abs().max()) < 0.03 * float(before.abs().max())


def test_the_head_is_calibrated_on_the_quantized_model(family: Family, given: dict[str, Any]) -> None:
    model = quantize_model(family(), "gptq", 3, 8, calibration=TOKENS, skip=(), progress=False)
    assert isinstance(model.lm_head, QuantLinear) and list(given)[-1] == "lm_head"
    expected = Hessian(32)
    expected.add(inputs_of(model, "lm_head", TOKENS))
    torch.testing.assert_close(given["lm_head"][1], expected.matrix, rtol=1e-4, atol=1e-6)


def test_losses_are_relative_output_errors(family: Family) -> None:
    original = family()
    model = quantize_model(copy.deepcopy(original), "gptq", 3, 8, calibration=TOKENS, progress=False)
    name = "model.layers.1.mlp.up_proj"
    x = inputs_of(model, name, TOKENS)
    exact = x @ original.get_submodule(name).weight.detach().t()
    layer = model.get_submodule(name)
    assert isinstance(layer, QuantLinear)
    error = x @ layer.weight.dequantize().t() - exact
    assert report(model).losses[name] == pytest.approx(float(error.square().mean() / exact.square().mean()), rel=1e-3)


# --- AWQ ------------------------------------------------------------------------------------


def test_awq_moves_scales_and_changes_nothing_else(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """With weights left unrounded the scaled model computes what the original computes."""

    original = family("qwen2")
    model = copy.deepcopy(original)
    monkeypatch.setattr(calibrate_weights, "_round", lambda parent, name, *rest: parent.get_submodule(name) and 0.0)
    monkeypatch.setattr(calibrate, "_weight_in", lambda parent, name: None)
    data = batches(TOKENS, None)
    recipe = resolve(linear_layers(model), "awq", 3, 8, True, (), {})
    calibrate.quantize_blocks(model, recipe, data, lambda *_: None, None)
    torch.testing.assert_close(logits(model), logits(original), rtol=1e-4, atol=1e-5)
    gains = {name: gain for name, gain in original.named_parameters() if "norm" in name}
    moved = dict(model.named_parameters())
    assert any(not torch.equal(moved[name], gain) for name, gain in gains.items()), "no scale moved: this shows nothing"


def test_a_block_that_works_differently_from_its_names_is_refused(family: Family) -> None:
    class Shifted(nn.Module):
        """A norm that adds one to its gain, as Gemma's does, under a name that does not tell."""

        def __init__(self, weight: torch.Tensor) -> None:
            super().__init__()
            self.weight = nn.Parameter(weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * (1 + self.weight)

    model = family()
    for block in model.model.layers:
        block.input_layernorm = Shifted(block.input_layernorm.weight.detach() - 1)
    with pytest.raises(ValueError, match=r"model\.layers\.0: scaling changed its output|norm"):
        quantize_model(model, "awq", 3, 8, calibration=TOKENS, progress=False)


# --- resuming -------------------------------------------------------------------------------


class Killed(Exception):
    pass


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("method", ["gptq", "awq"])
@pytest.mark.parametrize("survived", [0, 1, 2])
def test_a_killed_run_goes_on_and_ends_the_same(
    family: Family, tmp_path: Path, method: str, survived: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments: dict[str, Any] = {"method": method, "bits": 3, "group_size": 8, "calibration": TOKENS, "progress": False}
    whole = quantize_model(family("qwen2"), **arguments)
    original, worked = calibrate_weights.quantize_block, []

    def until(last: int) -> Callable[..., dict[str, float]]:
        def counted(place: Any, recipe: Any) -> dict[str, float]:
            if place.index == last:
                raise Killed
            worked.append(place.index)
            return original(place, recipe)

        return counted

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(calibrate_weights, "quantize_block", until(survived))
        quantize_model(family("qwen2"), **arguments, resume=tmp_path / "run")
    assert len(list((tmp_path / "run").glob("block-*.safetensors"))) == survived
    worked.clear()
    with monkeypatch.context() as patch:
        patch.setattr(calibrate_weights, "quantize_block", until(3))
        resumed = quantize_model(family("qwen2"), **arguments, resume=tmp_path / "run")
    assert worked == list(range(survived, 3)), "finished blocks are not computed again"
    assert same(state(resumed), state(whole))
    assert report(resumed) == report(whole)
    assert torch.equal(logits(resumed), logits(whole))


def test_another_run_is_not_mixed_in(family: Family, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"method": "gptq", "bits": 3, "group_size": 8, "progress": False}
    quantize_model(family(), **arguments, calibration=TOKENS, resume=tmp_path / "run")
    files = sorted((tmp_path / "run").iterdir())
    for change in ({"bits": 4}, {"calibration": (TOKENS + 1) % 61}, {"damping": 0.02}):
        with pytest.raises(ValueError, match="resume: .* holds another run"):
            quantize_model(family(), **{"calibration": TOKENS, **arguments, **change}, resume=tmp_path / "run")
    model = family()
    model.model.layers[2].mlp.up_proj.weight.data[0, 0] += 1
    with pytest.raises(ValueError, match="resume: .* holds another run"):
        quantize_model(model, **arguments, calibration=TOKENS, resume=tmp_path / "run")
    assert sorted((tmp_path / "run").iterdir()) == files
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "to_mum.txt").write_text("dear mum")
    with pytest.raises(ValueError, match="resume: .* holds other files"):
        quantize_model(family(), **arguments, calibration=TOKENS, resume=tmp_path / "letters")


def test_a_damaged_block_is_named(family: Family, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"method": "gptq", "bits": 3, "group_size": 8, "calibration": TOKENS, "progress": False}
    quantize_model(family(), **arguments, resume=tmp_path / "run")
    path = tmp_path / "run" / "block-0001.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"resume: .*block-0001\.safetensors is damaged .* delete it"):
        quantize_model(family(), **arguments, resume=tmp_path / "run")
    path.unlink()
    quantize_model(family(), **arguments, resume=tmp_path / "run")
    assert path.exists() and not list((tmp_path / "run").glob("*.partial"))


def test_activations_are_kept_for_one_block_only(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """At no time are there more hidden states than one for each batch, and the one that is being made."""
    alive = []
    original = calibrate_weights.quantize_block

    def count(place: Any, recipe: Any) -> dict[str, float]:
        gc.collect()
        shape = place.flow.hidden[0].shape
        alive.append(sum(type(x) is torch.Tensor and x.shape == shape for x in gc.get_objects()))
        return original(place, recipe)

    monkeypatch.setattr(calibrate_weights, "quantize_block", count)
    rows = torch.randint(0, 61, (6, 900))  # one row in each batch
    quantize_model(family(max_position_embeddings=1024), "gptq", 4, 8, calibration=rows, progress=False)
    assert len(alive) == 3 and max(alive) <= 6 + 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "gptq"}, "calibration: this method looks at activations"),
        ({"method": "rtn", "calibration": TOKENS}, "calibration: rtn looks at no data"),
        ({"method": "rtn", "resume": "somewhere"}, "resume: rtn looks at no data"),
        ({"method": "nf4", "bits": 4}, "bits: got 4, but nf4 leaves no choice"),
        ({"method": "hqq", "symmetric": True}, "symmetric: got True, but hqq leaves no choice"),
        ({"method": "rtn", "bits": {"*.down_prj": 8}}, r"bits: '\*\.down_prj' fits none"),
        ({"method": "rtn", "bits": {"down_proj": 9}}, "bits: got 9"),
        ({"method": "nf4", "group_size": "channel"}, "group_size: got 'channel'"),
    ],
)
def test_what_makes_no_sense_changes_nothing(family: Family, arguments: dict[str, Any], message: str) -> None:
    model = family()
    before = state(model)
    with pytest.raises(ValueError, match=message):
        quantize_model(model, progress=False, **arguments)
    assert same(state(model), before)


@pytest.mark.parametrize("method", ["rtn", "gptq", "awq"])
def test_layers_may_have_bits_of_their_own(family: Family, method: str) -> None:
    data = {} if method == "rtn" else {"calibration": TOKENS}
    bits = {"model.layers.0.*": 2, "*.down_proj": 8}
    model = quantize_model(family(), method, bits, 8, progress=False, **data)
    found = {name: m.weight.bits for name, m in model.named_modules() if isinstance(m, QuantLinear)}
    assert {found[name] for name in found if name.startswith("model.layers.0.")} == {2}, "the first pattern wins"
    assert {found[name] for name in found if name.endswith("down_proj") and "layers.0" not in name} == {8}
    assert {found[name] for name in found if "layers.0" not in name and "down" not in name} == {4}


@pytest.mark.parametrize("method", ["nf4", "fp4", "hqq"])
def test_methods_without_data_hold_their_formats(family: Family, method: str) -> None:
    original = family("gpt2")
    model = quantize_model(copy.deepcopy(original), method, progress=False)
    layer = model.get_submodule("transformer.h.0.mlp.c_fc")
    assert isinstance(layer, QuantLinear)
    assert type(layer.weight).__name__ == ("AffineWeight" if method == "hqq" else "CodebookWeight")
    drift = float((logits(model) - logits(original)).abs().mean() / logits(original).abs().mean())
    assert 0.001 < drift < 0.5


def test_resume_keeps_formats_whole(family: Family, tmp_path: Path) -> None:
    """Act-order weights carry a group index, asymmetric ones zero-points: both come back from disk."""
    arguments: dict[str, Any] = {
        "method": "gptq",
        "bits": 3,
        "group_size": 8,
        "symmetric": False,
        "act_order": True,
        "calibration": TOKENS,
        "progress": False,
    }
    whole = quantize_model(family("llama, biases"), **arguments, resume=tmp_path / "run")
    again = quantize_model(family("llama, biases"), **arguments, resume=tmp_path / "run")
    assert same(state(again), state(whole)) and torch.equal(logits(again), logits(whole))
    layer = again.get_submodule("model.layers.0.mlp.down_proj")
    assert isinstance(layer, QuantLinear) and layer.weight.group_index is not None
    assert resume.FORMATS.keys() == {"AffineWeight", "CodebookWeight", "Float8Weight"}
