"""The sensitivity scan: one layer at a time, nothing left behind, and bits spent where they count."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedModel

from qlab.models import sensitivity
from qlab.models.quantize import quantize_model, report
from qlab.models.sensitivity import LayerDamage, Sensitivity, scan

Family = Callable[..., PreTrainedModel]
TOKENS = torch.randint(0, 61, (6, 24), generator=torch.Generator().manual_seed(1))


def test_each_layer_is_measured_alone_and_the_model_is_left_as_it_was(family: Family) -> None:
    model = family("gpt2")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    kinds = {name: type(module) for name, module in model.named_modules()}
    found = scan(model, TOKENS, bits=2, group_size=8, progress=False)
    assert {name: type(module) for name, module in model.named_modules()} == kinds
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [layer.kl for layer in found.layers] == sorted((layer.kl for layer in found.layers), reverse=True)
    assert len(found.layers) == 12 and all(layer.kl > 0 for layer in found.layers)

    # One layer by hand: quantize everything else not at all.
    name = found.layers[3].name
    alone = quantize_model(
        family("gpt2"), bits=2, group_size=8, skip=[x.name for x in found.layers if x.name != name] + ["lm_head"],
        progress=False,
    )  # fmt: skip
    with torch.no_grad():
        p, q = (torch.log_softmax(m(TOKENS).logits, -1) for m in (model, alone))
    assert found.layers[3].kl == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-3)
    assert name in str(found) and f"{found.layers[3].weights:,}" in str(found)


def test_a_layer_that_matters_more_comes_first(family: Family) -> None:
    model = family()
    with torch.no_grad():
        for block in model.model.layers[1:]:  # silence everything but the first block
            block.mlp.down_proj.weight.zero_()
            block.self_attn.o_proj.weight.zero_()
    found = scan(model, TOKENS, bits=2, group_size=8, progress=False)
    assert {layer.name.split(".")[2] for layer in found.layers[:7]} == {"0"}
    assert all(layer.kl == pytest.approx(0, abs=1e-6) for layer in found.layers[7:])


def test_an_interrupted_scan_puts_the_layer_back(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    model = family()
    layers = dict(model.named_modules())

    def interrupted(*_: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(sensitivity, "_mean_kl", interrupted)
    with pytest.raises(KeyboardInterrupt):
        scan(model, TOKENS, bits=2, group_size=8, progress=False)
    assert dict(model.named_modules()) == layers


DAMAGE = {"a": (100, 0.5), "b": (400, 0.4), "c": (100, 0.3), "d": (400, 0.1)}
SCAN = Sensitivity(tuple(LayerDamage(name, weights, kl, bits=3) for name, (weights, kl) in DAMAGE.items()))


@pytest.mark.parametrize(
    ("average", "grown"), [(3.0, ""), (3.5, "a"), (4.0, "ac"), (5.9, "ac"), (6.0, "abc"), (8.0, "abcd")]
)
def test_bits_go_where_a_weight_saves_most(average: float, grown: str) -> None:
    bits = SCAN.spend(average, high=8)
    assert {name for name, width in bits.items() if width == 8} == set(grown)
    assert set(bits) == set("abcd") and set(bits.values()) <= {3, 8}
    weights = {layer.name: layer.weights for layer in SCAN.layers}
    assert sum(bits[name] * weights[name] for name in bits) <= average * 1000


@pytest.mark.parametrize(
    ("arguments", "message"), [((4.0, 3), "high: got 3"), ((4.0, 9), "high: got 9"), ((2.9, 8), "average: got 2.9")]
)
def test_what_cannot_be_spent_is_refused(arguments: tuple[float, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SCAN.spend(*arguments)


def test_the_bits_that_it_names_can_be_given_to_quantize_model(family: Family) -> None:
    bits = scan(family(), TOKENS, bits=3, group_size=8, progress=False).spend(5.0)
    model = quantize_model(family(), bits=bits, group_size=8, progress=False)
    found = report(model)
    assert 3 + 2 <= found.bits_per_weight <= 5 + 2  # a 16-bit scale for 8 weights is two bits more
