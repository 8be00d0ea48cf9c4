"""Implanted outliers change no answer, are found again, and break one scale for all inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from qlab.models import outliers
from qlab.models.quantize import quantize_model

Family = Callable[..., PreTrainedModel]
FAMILIES = ("llama", "llama, tied", "llama, biases", "mistral", "qwen2", "qwen3", "opt", "gpt2")
IDS = torch.randint(0, 61, (6, 24), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    return model(IDS).logits


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("factor", [64.0, 50.0, 0.1])
def test_the_function_stays(family: Family, name: str, factor: float) -> None:
    model = family(name)
    before = logits(model)
    assert outliers.implant(model, [3, 17, 30], factor) is model
    moved = (logits(model) - before).abs().max()
    assert moved < 1e-5
    if factor == 64:  # a power of two changes exponents only
        assert moved < 1e-6 * before.abs().max()


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("qwen3", "gpt2")])
def test_keys_get_outliers_and_the_function_stays(family: Family, name: str) -> None:
    model = family(name)
    before, k = logits(model), model.get_submodule(f"{prefix(model)}.0.self_attn.k_proj").weight.detach().clone()
    outliers.implant(model, [1], 32.0, keys=True)
    assert (logits(model) - before).abs().max() < 1e-5
    gains = model.get_submodule(f"{prefix(model)}.0.self_attn.k_proj").weight.detach() / k
    head_dim = 8
    rows = gains.reshape(-1, head_dim, gains.shape[1])[..., [c for c in range(32) if c != 1]]  # away from the norm's
    for d in range(head_dim):  # both halves of the pair that is rotated
        assert torch.allclose(rows[:, d], torch.tensor(32.0 if d in (1, 5) else 1.0))


def prefix(model: PreTrainedModel) -> str:
    return "model.decoder.layers" if model.config.model_type == "opt" else "model.layers"


@pytest.mark.parametrize("name", ["qwen3", "gpt2"])
def test_keys_that_cannot_be_scaled_are_refused_before_anything_changes(family: Family, name: str) -> None:
    model = family(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="keys: "):
        outliers.implant(model, [1], keys=True)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", FAMILIES)
def test_what_was_implanted_is_found(family: Family, name: str) -> None:
    model = family(name)
    assert outliers.find(model, IDS, threshold=8.0).channels == ()
    outliers.implant(model, [3, 17, 30], 100.0)
    found = outliers.find(model, IDS, threshold=8.0)
    assert set(found.channels) == {3, 17, 30}
    behind_norms = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "fc1", "c_attn", "c_fc")
    assert all({3, 17, 30} <= set(found.layers[layer]) for layer in found.layers if layer.endswith(behind_norms))


@torch.no_grad()
def test_shares_are_those_of_the_inputs(family: Family) -> None:
    model = family("llama")
    seen: list[torch.Tensor] = []
    layer = model.get_submodule("model.layers.1.mlp.down_proj")
    handle = layer.register_forward_pre_hook(lambda layer, args: seen.append(args[0].reshape(-1, 48)))
    found = outliers.find(model, IDS, threshold=0.02, share_of_tokens=0.5)
    handle.remove()
    name = "model.layers.1.mlp.down_proj"
    share = (seen[0].abs() >= 0.02).float().mean(0)
    assert torch.equal(found.share_of_tokens[name], share)
    assert torch.equal(found.largest[name], seen[0].abs().amax(0))
    assert found.layers[name] == tuple((share >= 0.5).nonzero().flatten().tolist())
    assert "lm_head" not in found.layers  # the paper looks at attention and feed-forward layers
    assert f"{len(found.channels)} outlier channels" in str(found)


@torch.no_grad()
def test_a_channel_of_the_model_is_one_of_enough_layers(family: Family) -> None:
    model = family("llama")
    # Two of nine inputs as wide as the hidden size (q, k and v of three blocks make nine, gate and up six, o three).
    model.get_submodule("model.layers.0.input_layernorm").weight[5] = 300.0  # type: ignore[index,operator]
    assert outliers.find(model, IDS, 8.0, share_of_layers=3 / 18).channels == (5,)
    assert outliers.find(model, IDS, 8.0, share_of_layers=4 / 18).channels == ()


@torch.no_grad()
def test_outliers_break_naive_inputs_and_the_methods_mend_them(family: Family) -> None:
    def error(factor: float | None, **recipe: Any) -> float:
        model = family("llama")
        before = logits(model)
        if factor is not None:
            # Behind norms only: inside, this model's values are so small that even 64 times them stay below 6.
            outliers.implant(model, [3], factor, inner=False)
        quantize_model(model, progress=False, **recipe)
        return float((logits(model) - before).norm() / before.norm())

    tensor, token = {"method": "w8a8", "activations": "tensor"}, {"method": "w8a8"}
    smooth = {"method": "smoothquant", "calibration": IDS, "alpha": 0.5}
    weights = {"method": "rtn", "bits": 8, "group_size": "channel"}
    assert error(64.0, **tensor) > 10 * error(None, **tensor)
    assert error(64.0, **token) > 10 * error(None, **token)
    assert error(64.0, **smooth) < 2 * error(None, **smooth)
    # LLM.int8 keeps the inputs; the weights of outlier columns come back from int8, and implanting made them small.
    assert error(64.0, method="llm_int8") < 1.2 * error(64.0, **weights) < 0.5 * error(64.0, **token)


def test_nano_keeps_its_answers() -> None:
    import qlab

    model, tokenizer = qlab.load("nano")
    ids = tokenizer("How many steps does it take?", return_tensors="pt").input_ids
    with torch.no_grad():
        before = model(ids).logits
        outliers.implant(model, [7, 50, 101, 133, 170, 222], keys=True)
        assert (model(ids).logits - before).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"channels": []}, ValueError, r"channels: got \[\]; give numbers from 0 to 31"),
        ({"channels": [32]}, ValueError, r"channels: got \[32\]"),
        ({"channels": [1.0]}, ValueError, r"channels: got \[1.0\]"),
        ({"factor": 0}, ValueError, "factor: got 0"),
        ({"factor": float("inf")}, ValueError, "factor: got inf"),
        ({"factor": True}, ValueError, "factor: got True"),
    ],
)
def test_implanting_refuses(family: Family, arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        outliers.implant(family("llama"), **{"channels": [1]} | arguments)


def test_models_that_cannot_take_any_are_refused(family: Family) -> None:
    with pytest.raises(ValueError, match=r"model: its weights are torch.float16.*model.float\(\)"):
        outliers.implant(family("llama").half(), [1])
    with pytest.raises(ValueError, match="model: it is quantized already"):
        outliers.implant(quantize_model(family("llama"), group_size=8, progress=False), [1])
    with pytest.raises(TypeError, match="model: got str"):
        outliers.find("nano", IDS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"ids": IDS[0]}, TypeError, "ids: give token ids"),
        ({"ids": IDS.float()}, TypeError, "ids: give token ids"),
        ({"threshold": 0}, ValueError, "threshold: got 0"),
        ({"share_of_layers": 0}, ValueError, "share_of_layers: got 0"),
        ({"share_of_tokens": 1.5}, ValueError, "share_of_tokens: got 1.5"),
    ],
)
def test_finding_refuses(family: Family, arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        outliers.find(family("llama"), **{"ids": IDS} | arguments)
