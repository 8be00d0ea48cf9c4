"""Figures of a KV cache: what they draw and say, against the store itself."""

import re

import pytest
import torch

from qlab.methods import kv_cache
from qlab.plots import kv_cache as plots


@pytest.fixture(scope="module")
def keys():
    return torch.randn(64, 64, generator=torch.Generator().manual_seed(0))


def test_maps_show_magnitudes_and_name_the_largest_channel(keys):
    large = keys.clone()
    large[:, 7] *= 20
    figure = plots.tokens_by_channels({"plain": keys, "large": large})
    panels = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title(loc="left") for axis in panels] == ["plain", "large"]
    for axis, panel in zip(panels, (keys, large), strict=True):
        assert torch.equal(torch.from_numpy(axis.images[0].get_array().data), panel.abs())
        assert axis.get_xlabel() == "channel of the head"
    plain, huge = (float(x) for x in re.findall(r"largest channel ([\d.]+) times", figure.alt))
    limits = [axis.images[0].get_clim() for axis in panels]
    assert limits[0] == limits[1] == (0, pytest.approx(float(keys.abs().max()))), "one scale: colors can be compared"
    assert plain < 2 and huge == pytest.approx(
        float(large.abs().mean(0).max() / large.abs().mean(0).median()), abs=0.05
    )


def scores(figure):
    return float(re.search(r"wrong by ([\d.e+]+) %", figure.alt)[1])


def test_scores_suffer_per_token_and_not_per_channel(keys):
    def drawn(granularity, factor):
        return scores(plots.keys_in_bits(keys, [5, 37], 4, granularity, 32, factor))

    assert drawn("channel", 16) == pytest.approx(drawn("channel", 1), rel=0.02)
    assert drawn("token", 16) > 3 * drawn("token", 1)


def test_squares_are_the_keys_dots_the_errors_and_bits_those_held(keys):
    figure = plots.keys_in_bits(keys, [5], 2, "channel", 16, 4)
    axis = figure.axes[0]
    gains = torch.ones(64)
    gains[5] = 4
    store = kv_cache.QuantizedStore(2, "channel", 16, residual=0)
    store.append((keys * gains)[None, None])
    squares, dots = axis.lines
    assert list(squares.get_ydata()) == pytest.approx((keys * gains).abs().mean(0).tolist())
    error = (store.read()[0, 0] - keys * gains).abs().mean(0)
    assert list(dots.get_ydata()) == pytest.approx(error.tolist())
    assert f"{8 * store.nbytes / keys.numel():g} bits a number" in axis.get_title(loc="left")  # 2 + 32 / 16
    assert "groups of 16 tokens: 4 bits a number" in axis.get_title(loc="left")
