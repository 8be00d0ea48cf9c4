from __future__ import annotations

from typing import Any

import pytest

from qlab.bench import decode
from qlab.deploy import ModelSpec, spec

TINY = ModelSpec(
    name="tiny", layers=3, hidden_size=8, intermediate_size=16, attention_heads=2, kv_heads=1, head_dim=4,
    vocab_size=32, tied_embeddings=True, max_context=64, source="made up",
)  # fmt: skip
SECONDS = {  # of q and o, k and v, gate and up, down, and the head; at 2 tokens
    ("fast", 8, 8, 2, "float16"): 0.1,
    ("fast", 4, 8, 2, "float16"): 0.01,
    ("fast", 16, 8, 2, "float16"): 0.2,
    ("fast", 8, 16, 2, "float16"): 0.3,
    ("dense", 32, 8, 2, "float16"): 5.0,
}


def test_the_estimate_by_hand() -> None:
    found = decode.estimate(TINY, "fast", "float16", 2, 10, SECONDS, copy=100.0)
    assert found is not None
    assert found.layers == pytest.approx(3 * (2 * 0.1 + 2 * 0.01 + 2 * 0.2 + 0.3))
    assert found.head == 5.0, "the head stays in 16 bits, and is multiplied also where it shares the embedding"
    # Keys and values of 3 layers, 1 head of 4 numbers, 2 bytes each, for 10 tokens of 2 requests.
    assert found.kv_cache == pytest.approx(2 * 3 * 1 * 4 * 2 * 10 * 2 / 100)
    assert found.tokens_per_s == pytest.approx(2 / (2.76 + 5.0 + 9.6))
    assert found.to_dict()["step"] == pytest.approx(17.36)


@pytest.mark.parametrize("gone", list(SECONDS))
def test_what_was_not_measured_is_not_guessed(gone: tuple[str, int, int, int, str]) -> None:
    rest = {key: seconds for key, seconds in SECONDS.items() if key != gone}
    assert decode.estimate(TINY, "fast", "float16", 2, 10, rest, copy=100.0) is None


def test_a_run_gives_an_estimate_for_each_kernel_with_all_layers(row: Any, made: Any) -> None:
    model = spec("Llama-3-8B")
    sizes = {(matrix.rows, matrix.columns) for matrix in model.matrices()}
    rows = [row(kernel=name, outputs=n, inputs=k, seconds=0.001) for name in ("dense", "fast") for n, k in sizes]
    rows += [row(kernel="half", outputs=4096, inputs=4096), row(outputs=128256, inputs=4096, seconds=0.5)]
    rows += [row(kernel="torch-int-mm", outputs=n, inputs=k) for n, k in sizes]
    found = decode.of_results(made(*rows), context=100)
    assert [(one["model"], one["kernel"]) for one in found] == [("Llama-3-8B", "dense"), ("Llama-3-8B", "fast")]
    # 32 layers of seven matrices; 2 * 32 * 8 * 128 numbers of 2 bytes for each of 100 tokens.
    assert found[0]["step"] == pytest.approx(32 * 7 * 0.001 + 0.5 + 2 * 32 * 8 * 128 * 2 * 100 / 1e9)
