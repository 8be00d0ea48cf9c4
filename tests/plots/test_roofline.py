"""Pictures of the model of time: every row a point, every miss ringed, every part of a bar as long as it takes."""

from __future__ import annotations

import numpy as np
import pytest

from qlab.deploy.speed.phases import PARTS, decode
from qlab.deploy.speed.validation import Validation, left_out, validate
from qlab.plots import roofline as plots


@pytest.fixture(scope="module")
def found() -> Validation:
    return validate()


def test_every_row_is_a_point_and_every_miss_is_ringed(found: Validation) -> None:
    figure = plots.predicted(found)
    axis = figure.axes[0]
    lines = {line.get_label(): line.get_xydata() for line in axis.lines}
    rings = lines.pop("error above 50 %")
    points = np.concatenate([data for label, data in lines.items() if not str(label).startswith("_")])
    expected = sorted((one.published, one.predicted) for one in found.comparisons)
    assert sorted(map(tuple, points.tolist())) == expected
    assert sorted(map(tuple, rings.tolist())) == sorted((one.published, one.predicted) for one in found.misses)
    assert axis.get_xscale() == axis.get_yscale() == "log"
    assert f"Median absolute error {found.median:.0%}" in figure.alt and f"{len(found.misses)} are ringed" in figure.alt


def test_bands_are_the_errors_that_they_name(found: Validation) -> None:
    bands = plots.predicted(found).axes[0].collections
    for band, (error, _) in zip(bands, plots.BANDS, strict=True):
        points = band.get_paths()[0].vertices
        ratios = points[:, 1] / points[:, 0]
        assert ratios.min() == pytest.approx(1 - error) and ratios.max() == pytest.approx(1 + error)


def test_without_misses_nothing_is_ringed(found: Validation) -> None:
    good = Validation(tuple(one for one in found.comparisons if abs(one.error) < 0.1), ())
    assert "error above 50 %" not in [line.get_label() for line in plots.predicted(good).axes[0].lines]


def test_the_curve_of_errors_passes_the_median_and_the_quarter(found: Validation) -> None:
    figure = plots.errors({"all": found, "left out": left_out()})
    for line, one in zip(figure.axes[0].lines, (found, left_out()), strict=False):
        sizes, share = line.get_xydata().T
        assert share[np.searchsorted(sizes, 25, side="right") - 1] == pytest.approx(100 * one.within(0.25))
        assert np.interp(50, share, sizes) == pytest.approx(100 * one.median, abs=1)
        assert f"median {one.median:.0%}" in figure.alt


def test_bars_are_the_parts_of_a_phase() -> None:
    found = {str(batch): decode("Llama-3-8B", "fp8", "H100-80GB", batch, 1000) for batch in (1, 64)}
    figure = plots.phases(found, "title")
    bars = {container.get_label(): container for container in figure.axes[0].containers}
    assert set(bars) == {part for part in PARTS if any(phase.parts[part] for phase in found.values())}
    for part, container in bars.items():
        assert [bar.get_width() for bar in container] == pytest.approx([1e3 * p.parts[part] for p in found.values()])
    ends = [bar.get_x() + bar.get_width() for bar in bars["overhead"]]
    assert ends == pytest.approx([1e3 * phase.seconds for phase in found.values()])
    assert all(f"bound by {phase.bound}" in figure.alt for phase in found.values())
