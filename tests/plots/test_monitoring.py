"""The figures of monitoring draw what the table says, and say it in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qlab.deploy.quality.checks import canary, mean_kl, paired, rejections
from qlab.deploy.quality.degradation import HEALTHY, catalogue, healthy_world
from qlab.deploy.quality.monitoring import Table, simulate
from qlab.deploy.quality.power import ab_power
from qlab.plots import monitoring as plots


@pytest.fixture(scope="module")
def table() -> Table:
    return simulate(healthy_world(horizon=20_000), (paired(), mean_kl(), canary(), rejections()), runs=40)


def test_every_cell_shows_its_number_in_color_and_in_words(table: Table) -> None:
    axis = plots.caught(table).axes[0]
    shades = axis.images[0].get_array()
    texts = {text.get_position(): text.get_text() for text in axis.texts}
    assert len(texts) == len(table.checks) * len(table.rows)
    for y, check in enumerate(table.checks):
        for x, harm in enumerate(table.rows):
            one = table.get(check, harm)
            assert shades[y, x] == one.power
            first, *late = texts[(x, y)].split("\n")
            assert first == f"{100 * one.power:.0f}"
            assert late == ([f"{one.requests / 1000:.0f}k"] if one.requests else [])
    assert [label.get_text() for label in axis.get_yticklabels()] == list(table.checks)
    names = [label.get_text().replace("\n", " ") for label in axis.get_xticklabels()]
    assert names == list(table.rows)


def test_words_name_the_checks_that_see_it(table: Table) -> None:
    alt = plots.caught(table).alt
    for harm in table.rows[1:]:
        seen = [check for check in table.checks if table.get(check, harm).power >= 0.8]
        assert f"{harm}: {', '.join(seen) or 'no check'}" in alt


def test_paths_are_medians_and_the_limit_is_where_it_was_set() -> None:
    here, check = healthy_world(horizon=20_000), rejections()
    scores: dict[str, Any] = {}
    for harm in (HEALTHY, catalogue()[1]):
        times, scores[harm.name] = check.score(here, harm, 30, np.random.default_rng(0))
    figure = plots.paths(times, scores, limit=3.5)
    axis = figure.axes[0]
    for line, score in zip(axis.lines, scores.values(), strict=False):
        assert list(line.get_xdata()) == list(times)
        assert list(line.get_ydata()) == pytest.approx(list(np.median(score, axis=0)))
    assert axis.lines[-1].get_ydata()[0] == 3.5 and "the limit is 3.5" in figure.alt
    assert axis.get_xlabel() == "live requests"
    with pytest.raises(ValueError, match=r"scores: got .* each of shape \(runs, 3\)"):
        plots.paths(np.arange(3.0), scores)
    with pytest.raises(ValueError, match="scores: got {}"):
        plots.paths(times, {})


def test_ab_sizes_are_the_power_of_the_formula() -> None:
    sizes, drops = [2000, 1000, 50_000], [0.05, 0.1]
    figure = plots.ab_sizes(0.2, drops, sizes)
    for line, drop in zip(figure.axes[0].lines, drops, strict=False):
        assert list(line.get_xdata()) == sorted(sizes)
        assert list(line.get_ydata()) == pytest.approx(
            [100 * ab_power(0.2, 0.2 * (1 - drop), n) for n in sorted(sizes)]
        )
    assert "from a rate of 20 %" in figure.alt and "1,000 to 50,000 users" in figure.alt
    with pytest.raises(ValueError, match="drops, sizes: got 0 and 3"):
        plots.ab_sizes(0.2, [], sizes)
    with pytest.raises(ValueError, match="drops: got 9"):
        plots.ab_sizes(0.2, [0.01] * 9, sizes)
