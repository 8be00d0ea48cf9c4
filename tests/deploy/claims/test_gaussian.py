"""The closed forms of quantization noise, against the real formats on random numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from qlab.deploy.claims import gaussian
from qlab.deploy.claims.accuracy import CHANNELS, CLEAN, SMOOTHED
from qlab.deploy.claims.gaussian import E4M3, E5M2, decibels, integers, nf4, noise, sqnr, sqnr_asymmetric, sqnr_product
from qlab.deploy.claims.methods import GGUF_BLOCKS
from qlab.formats import affine, codebook, float8


def measured(w: torch.Tensor, back: torch.Tensor) -> float:
    return decibels(float(w.double().square().mean()), float((w - back).double().square().mean()))


@pytest.fixture(scope="module")
def w() -> torch.Tensor:
    return torch.randn(256, 4096, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("predicted", "quantize"),
    [
        (lambda: sqnr(integers(8), 4096), lambda w: affine.quantize(w, 8, "channel")),
        (lambda: sqnr_asymmetric(8, 128), lambda w: affine.quantize(w, 8, 128, symmetric=False)),
        (lambda: sqnr_asymmetric(3, 128), lambda w: affine.quantize(w, 3, 128, symmetric=False)),
        (lambda: sqnr_asymmetric(2, 128), lambda w: affine.quantize(w, 2, 128, symmetric=False)),
        (lambda: sqnr(nf4(), 64), lambda w: codebook.quantize(w, "nf4", 64)),
        (lambda: sqnr(E4M3, 4096), lambda w: float8.quantize(w, "e4m3")),
        (lambda: sqnr(E5M2, 4096), lambda w: float8.quantize(w, "e5m2")),
    ],
)
def test_noise_of_weights(
    w: torch.Tensor, predicted: Callable[[], float], quantize: Callable[[torch.Tensor], affine.AffineWeight]
) -> None:
    assert predicted() == pytest.approx(measured(w, quantize(w).dequantize()), abs=0.1)


@pytest.mark.parametrize(
    ("levels", "data_type"), [(E4M3, torch.float8_e4m3fn), (E5M2, torch.float8_e5m2)], ids=["e4m3", "e5m2"]
)
def test_levels_of_8_bit_floats(levels: gaussian.Levels, data_type: torch.dtype) -> None:
    values = torch.arange(256, dtype=torch.int16).to(torch.uint8).view(data_type).double()
    real = sorted(set(values[values.isfinite()].tolist()))
    assert [level * torch.finfo(data_type).max for level in levels] == pytest.approx(real, rel=1e-12)


def test_noise_with_one_scale_for_a_matrix() -> None:
    """One largest number is behind each measurement, so that they spread over more than a decibel: take their mean."""
    drawn = [torch.randn(256, 4096, generator=torch.Generator().manual_seed(seed)) for seed in range(16)]
    noises = [10 ** (-measured(w, affine.quantize(w, 8, "tensor").dequantize()) / 10) for w in drawn]
    assert sqnr(integers(8), 256 * 4096) == pytest.approx(decibels(len(noises), sum(noises)), abs=0.25)


def test_levels_of_nf4() -> None:
    assert nf4() == pytest.approx(sorted(codebook.CODES["nf4"].tolist()), abs=2e-7)


def test_levels_of_integers() -> None:
    assert integers(4) == tuple(code / 7 for code in range(-7, 8)) and len(integers(8)) == 255


def _outliers(tokens: int) -> torch.Tensor:
    x = torch.randn(tokens, 4096, generator=torch.Generator().manual_seed(0))
    x[:, 4090:] *= 100
    return x


def test_noise_beside_outliers() -> None:
    x = _outliers(2048)
    by_token = affine.quantize(x, 8, "channel").dequantize()  # a token is a row here
    assert decibels(1, noise(integers(8), CHANNELS)) == pytest.approx(
        measured(x[:, :4090], by_token[:, :4090]), abs=0.2
    )
    by_tensor = float8.quantize(x, "e4m3", "tensor").dequantize()
    parts = tuple((2048 * count, sigma) for count, sigma in CHANNELS)
    assert decibels(1, noise(E4M3, parts)) == pytest.approx(measured(x[:, :4090], by_tensor[:, :4090]), abs=0.1)


def test_products_with_and_without_smoothing() -> None:
    x, w = _outliers(512), torch.randn(256, 4096, generator=torch.Generator().manual_seed(1))

    def output(x: torch.Tensor, w: torch.Tensor) -> float:
        back = [affine.quantize(t, 8, "channel").dequantize() for t in (x, w)]
        return measured(x @ w.T, back[0] @ back[1].T)

    smooth = (x.abs().amax(0) / w.abs().amax(0)).sqrt()
    assert sqnr_product(integers(8), CHANNELS, CLEAN) == pytest.approx(output(x, w), abs=0.3)
    # Smoothing by the largest number of a channel makes all channels a little more alike than by its deviation.
    assert sqnr_product(integers(8), SMOOTHED, SMOOTHED) == pytest.approx(output(x / smooth, w * smooth), abs=0.5)


def test_blocks_of_gguf() -> None:
    assert {name: GGML_QUANT_SIZES[GGMLQuantizationType[name]] for name in GGUF_BLOCKS} == GGUF_BLOCKS
    least = min(size / count for count, size in GGML_QUANT_SIZES.values())
    assert least == min(size / count for count, size in GGUF_BLOCKS.values())
