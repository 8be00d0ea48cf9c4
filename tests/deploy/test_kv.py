from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlab.deploy import ModelSpec, spec
from qlab.deploy.kv import KV_BITS, bytes_per_token


@pytest.mark.parametrize(
    ("name", "bits", "size"),
    [
        ("Llama-2-7B", 16, 2 * 32 * 32 * 128 * 2),  # MHA
        ("Llama-3-70B", 16, 2 * 80 * 8 * 128 * 2),  # GQA
        ("Llama-3-70B", 8, 163_840),
        ("Llama-3-70B", 4, 81_920),
        ("Llama-3-70B", 2, 40_960),
        ("DeepSeek-V3", 16, 61 * (512 + 64) * 2),  # MLA
        ("DeepSeek-V3", 8, 35_136),
    ],
)
def test_bare_codes(name: str, bits: int, size: int) -> None:
    assert bytes_per_token(spec(name), bits) == size


@pytest.mark.parametrize(
    ("bits", "group", "bits_per_number"), [(2, 32, 3.0), (4, 32, 5.0), (4, 64, 4.5), (4, 128, 4.25), (8, 128, 8.25)]
)
def test_scales_and_minima_take_32_bits_a_group(bits: int, group: int, bits_per_number: float) -> None:
    model = spec("Llama-3-70B")
    assert 8 * bytes_per_token(model, bits, group) / model.kv_values_per_token == bits_per_number


def test_a_latent_vector_is_one_vector() -> None:
    assert bytes_per_token(spec("DeepSeek-V3"), 4, 64) == 61 * (576 // 2 + 9 * 4)


def test_a_group_does_not_reach_beyond_its_head() -> None:
    model = replace(spec("GPT-2"), head_dim=80)
    assert bytes_per_token(model, 8, 64) == 2 * 12 * 12 * (80 + 2 * 4)


@pytest.mark.parametrize("granularity", ["token", "channel"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_equal_to_what_the_library_s_cache_holds(bits: int, granularity: str) -> None:
    import torch

    from qlab.methods.kv_cache import QuantizedStore

    model = ModelSpec(
        name="small",
        layers=1,
        hidden_size=128,
        intermediate_size=8,
        attention_heads=4,
        kv_heads=2,
        head_dim=64,
        vocab_size=8,
        tied_embeddings=True,
        max_context=128,
        source="this test",
    )
    keys, values = (QuantizedStore(bits, granularity, group_size=32, residual=0) for _ in range(2))
    for store in (keys, values):
        store.append(torch.randn(3, 2, 96, 64, generator=torch.Generator().manual_seed(0)).half())
    assert keys.nbytes + values.nbytes == 3 * 96 * bytes_per_token(model, bits, 32)


@given(
    name=st.sampled_from(["Llama-3-8B", "DeepSeek-V3", "GPT-2"]),
    bits=st.sampled_from([2, 4, 8]),
    group=st.integers(1, 600),
)
def test_finer_groups_take_more(name: str, bits: int, group: int) -> None:
    model = spec(name)
    assert bytes_per_token(model, bits, group) >= bytes_per_token(model, bits, group + 1) > bytes_per_token(model, bits)


@pytest.mark.parametrize(
    ("bits", "group", "message"),
    [
        (3, None, "kv_bits: got 3; choose from 2, 4, 8, 16, 32"),
        (True, None, "kv_bits: got True"),
        ("8", None, "kv_bits: got '8'"),
        (4, 0, "kv_group_size: got 0"),
        (4, 32.0, "kv_group_size: got 32.0"),
        (16, 32, "kv_group_size: got 32 at 16 bits"),
    ],
)
def test_bad_arguments(bits: int, group: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bytes_per_token(spec("GPT-2"), bits, group)
    assert bits in KV_BITS or group is None
