"""Sizes: every number that the reference arithmetic prints, to its digits; and the closed form against real codes."""

from __future__ import annotations

import pytest

from qlab.deploy import memory, spec
from qlab.deploy.claims import Assumptions, claim


def digits(number: str) -> int:
    """Digits after the point of a printed number."""
    return len(number.partition(".")[2])


@pytest.mark.parametrize(
    ("id", "name", "printed"),
    [
        ("C001", "parameters", "70553706496"),
        ("C001", "fp32", "282.2"),
        ("C001", "bf16", "141.1"),
        ("C002", "floor", "70.55"),
        ("C002", "loaded", "72.66"),
        ("C002", "loaded_gib", "67.67"),
        ("C003", "to_fp32", "3.88"),
        ("C003", "to_bf16", "1.94"),
        ("C004", "floor", "35.28"),
        ("C004", "bits", "4.125"),
        ("C004", "loaded", "39.50"),
        ("C004", "g32", "42.71"),
        ("C004", "nf4", "42.71"),
        ("C004", "nf4_dq", "39.52"),
        ("C005", "to_fp32", "7.14"),
        ("C005", "to_bf16", "3.57"),
        ("C005", "llama_8b", "2.82"),
        ("C005", "qwen_half_b", "2.16"),
        ("C006", "ratio", "1.84"),
        ("C007", "least", "41.7"),
        ("C009", "per_token", "327680"),
        ("C009", "mha", "2621440"),
        ("C009", "mla", "70272"),
        ("C009", "cache", "21.5"),
        ("C009", "share", "0.54"),
        ("C024", "gib", "131.4"),
        ("C027", "mmlu", "1.07"),
        ("C027", "mmlu_older", "1.29"),
        ("C027", "average_0", "0.17"),
        ("C027", "average_1", "0.47"),
        ("C027", "long", "59"),
        ("C027", "nf4", "32"),
        ("C029", "eight", "0.515"),
        ("C029", "four", "0.280"),
        ("C029", "eight_8b", "0.565"),
        ("C029", "llama_8b", "0.355"),
        ("C029", "qwen_half_b", "0.462"),
        ("C030", "saved", "0.485"),
        ("C031", "saved", "0.720"),
        ("C031", "llama_8b", "0.645"),
        ("C031", "qwen_half_b", "0.538"),
        ("C032", "llama_70b", "0.106"),
        ("C032", "llama2_7b", "0.136"),
        ("C032", "llama_8b", "0.369"),
        ("C032", "qwen_7b", "0.393"),
        ("C032", "qwen_half_b", "0.596"),
        ("C034", "g128_bits", "0.125"),
        ("C034", "g64_bits", "0.25"),
        ("C034", "g32_bits", "0.5"),
        ("C034", "g64_asym_bits", "0.3125"),
        ("C034", "g32_asym_bits", "0.625"),
        ("C034", "gain", "2.6"),
    ],
)
def test_numbers_of_the_reference(id: str, name: str, printed: str) -> None:
    assert round(float(claim(id).evidence.numbers[name]), digits(printed)) == float(printed)


def test_tokens_of_the_deployment_size() -> None:
    """48 to 60 GB: 20 to 58 thousand tokens; 16 requests of 4,096: 63 GB with 2 GB of overhead."""
    numbers = claim("C007").evidence.numbers
    assert 20_000 < float(numbers["tokens_48"]) < 22_000
    assert round(float(numbers["tokens_60"]), -3) == 58_000
    assert round(float(claim("C007", Assumptions(overhead_gb=2)).evidence.numbers["busy"])) == 63


@pytest.mark.parametrize(("name", "thousands"), [("llama2_7b", 36.7), ("llama_8b", 158), ("llama_70b", 620)])
def test_where_the_cache_saves_more(name: str, thousands: float) -> None:
    assert float(claim("C033").evidence.numbers[name]) / 1000 == pytest.approx(thousands, rel=0.002)
    assert round(float(claim("C033").evidence.numbers["to_int8"]), -3) == 418_000


def test_a_deployment_shrinks_less_than_its_weights() -> None:
    short, long = (claim("C006", Assumptions(context=context)).evidence.numbers for context in (1024, 8192))
    assert float(short["ratio"]) == float(long["ratio"])
    assert float(long["in_all"]) < float(short["in_all"]) < float(short["ratio"])


def test_bytes_of_the_group_sizes_that_the_sentence_names() -> None:
    for group, bits in ((64, 4.25), (32, 4.5)):
        assert claim("C004", Assumptions(group_size=group)).evidence.numbers["bits"] == bits
    assert memory("Llama-3-70B", "int4-g128-asym").bits_per_weight == 4.15625
    assert spec("Llama-3-70B").norm_and_bias_parameters * 2 < 1e-4 * memory("Llama-3-70B").weights


# Measured on normally distributed weights, 4 bits; asymmetric ones with 4-bit zero-points. The reference's own runs.
MEASURED = {
    "g4096": 16.0,
    "g128": 18.6,
    "g64": 19.4,
    "g32": 20.3,
    "g128_asym": 19.9,
    "g64_asym": 20.8,
    "g32_asym": 21.9,
}


def test_noise_by_integration_is_what_was_measured() -> None:
    numbers = claim("C034").evidence.numbers
    assert {name: float(numbers[name]) for name in MEASURED} == pytest.approx(MEASURED, abs=0.1)


@pytest.mark.parametrize("name", MEASURED)
def test_noise_by_integration_is_that_of_the_library_s_codes(name: str) -> None:
    """8 million normal weights through the packed format: the noise of the sample strays by some hundredths of a dB."""
    import torch

    from qlab.formats import affine

    group, _, asymmetric = name[1:].partition("_")
    w = torch.randn(2048, 4096, generator=torch.Generator().manual_seed(5))
    back = affine.quantize(w, bits=4, group_size=int(group), symmetric=not asymmetric).dequantize(torch.float32)
    decibels = 10 * torch.log10(w.square().sum() / (w - back).square().sum()).item()
    assert float(claim("C034").evidence.numbers[name]) == pytest.approx(decibels, abs=0.06)
