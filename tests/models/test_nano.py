"""What the course promises about the embedded model, measured again on 1,000 held-out examples each."""

import json

import pytest

from qlab.models.evaluate import Evaluation, evaluate
from qlab.models.load import NANO, load
from qlab.models.quantize import quantize_model

EXAMPLES = 1000


@pytest.fixture(scope="module")
def reference():
    return load()[0]


@pytest.fixture(scope="module")
def full(reference) -> Evaluation:
    return evaluate(reference, texts={}, examples=EXAMPLES, progress=False)


def quantized(**options):
    return quantize_model(load()[0], method="rtn", progress=False, **options)


def test_files_are_small_and_ordinary():
    files = {path.name: path.stat().st_size for path in NANO.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md", "scores.json"} <= set(files)
    assert sum(files.values()) <= 16_000_000
    assert not [name for name in files if name.endswith((".bin", ".pt", ".py"))]


def test_shape(reference):
    linears = [m for m in reference.model.layers.modules() if m.__class__.__name__ == "Linear"]
    assert linears and all(linear.in_features % 128 == 0 for linear in linears)
    assert 4_000_000 <= reference.num_parameters() <= 6_000_000
    assert reference.config.num_key_value_heads < reference.config.num_attention_heads


def test_sixteen_bit_accuracy(full):
    good = [name for name, accuracy in full.accuracy.items() if accuracy.value >= 0.9]
    assert len(good) >= 5, full.accuracy


def test_int8_is_nearly_free(reference, full):
    int8 = evaluate(quantized(bits=8, group_size="channel"), texts={}, examples=EXAMPLES, progress=False)
    for name, verdicts in int8.correct.items():
        lost = full.correct[name].double() - verdicts.double()
        assert lost.mean() <= 0.01, name


def test_damage_depends_on_the_workload(full):
    low = evaluate(quantized(bits=3, group_size="tensor"), texts={}, examples=300, progress=False)
    # What the 16-bit model cannot do, quantization cannot damage: such a workload would win for free.
    lost = {name: a.value - low.accuracy[name].value for name, a in full.accuracy.items() if a.value >= 0.9}
    assert max(lost.values()) - min(lost.values()) >= 0.20, lost


def test_the_card_tells_what_is_measured(full):
    scores = json.loads((NANO / "scores.json").read_text())
    assert scores["examples"] == EXAMPLES
    card = (NANO / "README.md").read_text()
    for name, accuracy in full.accuracy.items():
        recorded = scores["scores"]["16-bit"]["accuracy"][name]["value"]
        # An argmax may flip on another processor where two logits nearly tie.
        assert recorded == pytest.approx(accuracy.value, abs=0.003)
        assert f" {100 * recorded:.1f} |" in card
