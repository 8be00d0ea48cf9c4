"""quantize_model on a tiny random model of each supported family. No network, no trained weights."""

from __future__ import annotations

import copy
import functools
import gc
import weakref
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)
from transformers.pytorch_utils import Conv1D

from qlab.formats import affine
from qlab.methods import rtn
from qlab.models import recipe
from qlab.models.linear import QuantLinear
from qlab.models.quantize import quantize_model, report

_LLAMA: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 44,  # not a multiple of the group
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
CONFIGS = {
    "llama": LlamaConfig(**_LLAMA),
    "llama, tied": LlamaConfig(**_LLAMA | {"tie_word_embeddings": True}),
    "llama, biases": LlamaConfig(**_LLAMA, attention_bias=True, mlp_bias=True),
    "mistral": MistralConfig(**_LLAMA),
    "qwen2": Qwen2Config(**_LLAMA),
    "qwen3": Qwen3Config(**_LLAMA, head_dim=8),
    "opt": OPTConfig(
        vocab_size=61,
        hidden_size=32,
        ffn_dim=44,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        word_embed_proj_dim=16,
    ),
    "gpt2": GPT2Config(vocab_size=61, n_embd=32, n_inner=44, n_layer=2, n_head=4, n_positions=64),
}
TOKENS = torch.randint(0, 61, (2, 9), generator=torch.Generator().manual_seed(0))


def tiny(family: str = "llama") -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[family])).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # they start at zero, where a lost one would not show
                parameter.normal_(std=0.1)
    return model


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    return model(TOKENS).logits


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D)}


@torch.no_grad()
def rounded(model: PreTrainedModel, skip: tuple[str, ...] = ("lm_head",), **options: Any) -> PreTrainedModel:
    """A copy of the model with every weight replaced by its rounded self: what the quantized model must equal."""
    model = copy.deepcopy(model)
    for name, layer in linear_layers(model).items():
        if name in skip:
            continue
        assert isinstance(layer.weight, nn.Parameter)
        transposed = isinstance(layer, Conv1D)
        weight = layer.weight.T if transposed else layer.weight
        back = affine.quantize(weight.detach().contiguous(), **options).dequantize()
        layer.weight = nn.Parameter(back.T if transposed else back)  # a new parameter: a tied embedding keeps its own
    return model


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("family", CONFIGS)
def test_it_equals_a_model_with_rounded_weights(family: str, symmetric: bool) -> None:
    model = tiny(family)
    options: dict[str, Any] = {"bits": 3, "group_size": 8, "symmetric": symmetric}
    expected, before = logits(rounded(model, **options)), logits(model)
    names = [name for name in linear_layers(model) if name != "lm_head"]
    assert quantize_model(model, progress=False, **options) is model
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-5)
    assert float((expected - before).abs().max()) > 1e-3, "rounding to 3 bits changed nothing: the test sees nothing"
    assert [name for name, m in model.named_modules() if isinstance(m, QuantLinear)] == names
    assert report(model).quantized == tuple(names) and report(model).skipped == ("lm_head",)


@pytest.mark.parametrize("family", ["llama, tied", "gpt2", "opt"])
def test_a_tied_head_stays_tied_when_it_is_skipped(family: str) -> None:
    model = quantize_model(tiny(family), progress=False)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert model.config.tie_word_embeddings


@pytest.mark.parametrize("family", ["llama", "llama, tied", "gpt2", "opt"])
def test_a_quantized_head_has_its_own_copy(family: str) -> None:
    model = tiny(family)
    embedding = model.get_input_embeddings().weight.clone()
    expected = logits(rounded(model, skip=(), bits=4, group_size=16))
    quantize_model(model, bits=4, group_size=16, skip=(), progress=False)
    assert not model.config.tie_word_embeddings
    model.tie_weights()  # what transformers does after loading or resizing: it must not bring the old head back
    assert isinstance(model.get_output_embeddings(), QuantLinear)
    assert torch.equal(model.get_input_embeddings().weight, embedding)
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("skip", "kept"),
    [
        ("down_proj", {"model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"}),
        (["lm_head", "model.layers.0.mlp.up_proj"], {"lm_head", "model.layers.0.mlp.up_proj"}),
        (("model.layers.1.mlp.*",), {f"model.layers.1.mlp.{part}_proj" for part in ("gate", "up", "down")}),
        (("[qk]_proj",), {f"model.layers.{i}.self_attn.{part}_proj" for i in (0, 1) for part in "qk"}),
        ((), set()),
    ],
)
def test_skip_takes_names_last_parts_and_patterns(skip: Any, kept: set[str]) -> None:
    model = quantize_model(tiny(), skip=skip, progress=False)
    assert set(linear_layers(model)) == kept == set(report(model).skipped)


def test_biases_norms_and_embeddings_are_left_alone() -> None:
    model = tiny("llama, biases")
    before = {
        name: p.clone() for name, p in model.named_parameters() if "proj.weight" not in name and "lm_head" not in name
    }
    assert any(name.endswith("q_proj.bias") for name in before)
    quantize_model(model, bits=2, progress=False)
    after = dict(model.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_in_16_bits_stays_in_16_bits(dtype: torch.dtype) -> None:
    model = quantize_model(tiny().to(dtype), bits=8, group_size="channel", progress=False)
    assert logits(model).dtype == dtype and bool(torch.isfinite(logits(model)).all())


def test_the_report_counts_what_is_held() -> None:
    model = tiny("llama, tied")
    shared = sum(b.nbytes for b in model.buffers())
    before = 4 * sum(p.numel() for p in model.parameters()) + shared
    quantize_model(model, bits=4, group_size=16, progress=False)
    found = report(model)
    layers = [m.weight for m in model.modules() if isinstance(m, QuantLinear)]
    assert found.bytes_before == before
    # Hidden size 32 and groups of 16; only down_proj (44 columns) has a short group.
    by_hand = sum(w.shape[0] * (w.shape[1] // 2 + 2 * -(-w.shape[1] // 16)) for w in layers)
    kept = 4 * sum(p.numel() for p in model.parameters())
    assert found.bytes_after == by_hand + kept + shared
    assert found.bits_per_weight == pytest.approx(8 * by_hand / sum(w.shape[0] * w.shape[1] for w in layers))
    assert found.float32_scales == 0
    text = str(found)
    assert "14 linear layers quantized, 1 left alone" in text and f"{before:,} bytes before" in text
    assert "float32 scales" not in text


def test_the_report_counts_tensors_that_keep_float32_scales() -> None:
    model = tiny()
    model.model.layers[0].mlp.up_proj.weight.data[3] *= 1e-7
    model.model.layers[1].self_attn.q_proj.weight.data[0, 0] = 1e6
    copied = copy.deepcopy(model)
    quantize_model(model, group_size=8, progress=False)
    assert report(model).float32_scales == 2 and "2 tensors keep float32 scales" in str(report(model))
    quantize_model(copied, group_size=8, progress=False, scale_dtype=torch.float32)
    assert report(copied).float32_scales == 0


def test_the_original_weights_are_let_go_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    originals: list[weakref.ref[nn.Parameter]] = []
    alive: list[int] = []
    for name, layer in linear_layers(model).items():
        if name != "lm_head":
            assert isinstance(layer.weight, nn.Parameter)
            originals.append(weakref.ref(layer.weight))
    del layer

    @functools.wraps(rtn.quantize)
    def counting(w: torch.Tensor, **options: Any) -> affine.AffineWeight:
        alive.append(sum(original() is not None for original in originals))
        return rtn.quantize(w, **options)

    monkeypatch.setitem(recipe.METHODS, "counting", recipe.Method(counting))
    quantize_model(model, "counting", progress=False)
    # The last layer may still be bound in the loop; none before it.
    total = len(originals)
    assert all(count <= total - i + 1 for i, count in enumerate(alive)), alive
    gc.collect()
    assert not any(original() is not None for original in originals)


def test_the_bar_goes_to_stdout(capfd: pytest.CaptureFixture[str]) -> None:
    quantize_model(tiny(), progress=True)
    out, err = capfd.readouterr()
    assert "quantizing (rtn, 4 bits)" in out and "14/14" in out and err == ""
    quantize_model(tiny(), progress=False)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "magic"}, ValueError, "method: 'magic' is unknown; choose from rtn"),
        ({"bits": 1}, ValueError, "bits: got 1"),
        ({"group_size": 0}, ValueError, "group_size: got 0"),
        ({"symmetric": 1}, TypeError, "symmetric: got 1"),
        ({"scale_dtype": torch.int8}, ValueError, "scale_dtype: got torch.int8"),
        ({"damping": 0.1}, TypeError, "options: rtn has no 'damping'; it takes bits"),
        ({"skip": "down_prj"}, ValueError, "skip: 'down_prj' fits none of the layers"),
        ({"skip": [3]}, TypeError, r"skip: got \[3\]"),
        ({"skip": None}, TypeError, "skip: got None"),
        ({"skip": "*"}, ValueError, "model: it has no linear layer to quantize"),
    ],
)
def test_bad_arguments_change_nothing(options: dict[str, Any], error: type[Exception], message: str) -> None:
    model = tiny()
    before = list(model.named_modules())
    with pytest.raises(error, match=message):
        quantize_model(model, progress=False, **options)
    assert list(model.named_modules()) == before


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_bad_weight_in_the_last_layer_changes_nothing(value: float) -> None:
    model = tiny()
    before = list(model.named_modules())
    model.model.layers[-1].mlp.down_proj.weight.data[1, 2] = value
    with pytest.raises(ValueError, match=r"model\.layers\.1\.mlp\.down_proj: 1 of 1408 values are NaN or infinite"):
        quantize_model(model, progress=False)
    assert list(model.named_modules()) == before


def test_what_is_not_a_model_or_is_quantized_already_is_refused() -> None:
    with pytest.raises(TypeError, match="model: got str"):
        quantize_model("nano")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="model: got Linear"):
        quantize_model(nn.Linear(2, 2))  # type: ignore[arg-type]
    model = tiny()
    with pytest.raises(ValueError, match="has not been quantized"):
        report(model)
    quantize_model(model, progress=False)
    with pytest.raises(ValueError, match="quantized already"):
        quantize_model(model, progress=False)


def test_a_copy_of_a_quantized_model_is_quantized() -> None:
    model = quantize_model(tiny(), progress=False)
    again = copy.deepcopy(model)
    assert torch.equal(logits(again), logits(model)) and report(again) == report(model)
