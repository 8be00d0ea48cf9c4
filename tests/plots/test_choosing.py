"""The figures of choosing a method draw what the answers and decisions say, and say it in words."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qlab.deploy.planning.choosing import PRECISIONS, Decision, Situation, Step, choose, obstacle, seconds
from qlab.deploy.quality.measured import REFERENCE, quality
from qlab.deploy.quality.power import Flips, flips
from qlab.plots import choosing as plots

METHODS = ["W8A8", "INT4 g128", "INT3 g128", "INT2 g32 asymmetric"]


def test_a_cell_says_lost_only_where_the_paired_test_does() -> None:
    known = quality()
    axis = plots.lost_map(known, METHODS).axes[0]
    texts = iter(axis.texts)
    for method in METHODS:
        for workload in known.workloads:
            found = flips(
                known.method(REFERENCE).answers[workload].correct, known.method(method).answers[workload].correct
            )
            said = next(texts).get_text()
            if found.lost + found.gained == 0:
                assert said == "0"
                continue
            assert said.startswith(f"{100 * found.change:+.1f} ± ")
            assert said.endswith("noise") == (found.p_value >= 0.05)
            if found.p_value < 0.05:
                assert said.endswith("lost" if found.lost > found.gained else "gained")
    shade = axis.images[0].get_array()
    assert shade is not None and shade.shape == (len(METHODS), len(known.workloads))


def test_the_map_tells_what_is_lost() -> None:
    alt = plots.lost_map(quality(), ["INT2 g32 asymmetric"]).alt
    assert "INT2 g32 asymmetric: " in alt and "sql -" in alt


def test_errors_of_pairs_and_strangers() -> None:
    """The paired one is the standard deviation of the differences; the other is that of two samples."""
    found = Flips(100, 4, 2)
    moved = np.array([-1] * 4 + [1] * 2 + [0] * 94)
    assert plots.paired_error(found) == pytest.approx(moved.std() / 10)
    before, after = 0.94, 0.92
    assert plots.unpaired_error(found, 90) == pytest.approx(math.sqrt((before * 0.06 + after * 0.08) / 100))


def test_the_table_of_pairs_holds_all_examples() -> None:
    figure = plots.pairs(Flips(100, 4, 2), 90)
    counts = [int(text.get_text().split("\n")[0]) for text in figure.axes[0].texts]
    assert sum(counts) == 100 and counts == [90, 4, 2, 4]
    assert "± 2.44" in [text.get_text() for text in figure.axes[1].texts]
    with pytest.raises(ValueError, match="both_right: got 95; allowed is 0 to 94"):
        plots.pairs(Flips(100, 4, 2), 95)


def test_bars_of_flips() -> None:
    axis = plots.flip_bars({"a": Flips(50, 3, 1), "b": Flips(50, 0, 0)}, "flips").axes[0]
    widths = [patch.get_width() for patch in axis.patches]
    assert widths == [-3, 1, 0, 0]
    assert [line.get_xdata()[0] for line in axis.lines if line.get_marker() == "D"] == [-2, 0]
    with pytest.raises(ValueError, match="rows: got none"):
        plots.flip_bars({}, "flips")


def test_spending_bits() -> None:
    figure = plots.spend({"uniform": [(3.1, 0.4), (4.1, 0.07)]}, {"two blocks": (4.8, 0.08)})
    axis = figure.axes[0]
    assert axis.get_yscale() == "log"
    assert list(axis.lines[0].get_xdata()) == [3.1, 4.1]
    assert "two blocks 0.08 at 4.800" in figure.alt
    with pytest.raises(ValueError, match="a KL of 0"):
        plots.spend({"uniform": [(3.1, 0.0)]}, {})
    with pytest.raises(ValueError, match="got 0 and 0"):
        plots.spend({}, {})


def test_decisions_that_begin_alike_share_their_branches() -> None:
    decisions = [choose(Situation(batch=4)), choose(Situation(batch=4, calibration=False)), choose(Situation(batch=4))]
    figure = plots.tree(decisions)
    texts = [text.get_text().replace("\n", " ") for text in figure.axes[0].texts]
    assert texts.count("What fits?") == 1 and texts.count("few") == 1
    for one in decisions:
        assert all(step.answer in texts and step.number in texts for step in one.steps)
        assert texts.count(str(one.method)) == 2  # as the answer to the last question, and as the leaf
        assert str(one.method) in figure.alt


def test_a_column_for_each_question_and_leaves_below_one_another() -> None:
    asked = [Situation(batch=4), Situation(prompt=3000, output=100), Situation(gpu="V100-32GB")]
    texts = plots.tree([choose(one) for one in asked]).axes[0].texts
    at = {text.get_text().replace("\n", " "): text.get_position() for text in texts}
    assert at["What takes the time?"][0] == at["tokens"][0] == at["prompt"][0] > at["Kernels?"][0]
    leaves = {at[name] for name in ("W8A8", "16-bit")} | {at["Method"]}
    assert at["16-bit"][0] == at["Method"][0] and len({y for _, y in leaves}) == 3


def test_no_tree() -> None:
    with pytest.raises(ValueError, match="decisions: got none"):
        plots.tree([])
    other = Decision("W8A8", (Step("Which way?", "left", "because"),))
    with pytest.raises(ValueError, match="after the same answers"):
        plots.tree([choose(Situation()), other])
    first, second = Step("A?", "yes", "because"), Step("B?", "yes", "because")
    turned = [Decision("W8A8", (Step("C?", word, "because"), *steps)) for word, steps in
              (("left", (first, second)), ("right", (second, first)))]  # fmt: skip
    with pytest.raises(ValueError, match="the same questions in two orders"):
        plots.tree(turned)


@pytest.mark.parametrize(
    "situation",
    [
        Situation(),
        Situation(gpu="T4", most_lost=0.01),
        Situation(most_lost=0.005),
        Situation(model="Llama-3-70B", gpu="T4"),
    ],
)
def test_a_path_has_a_bar_for_every_option_and_a_reason_for_the_others(situation: Situation) -> None:
    figure = plots.path(situation)
    bars = [patch.get_width() for patch in figure.axes[1].patches]
    names = (REFERENCE, *PRECISIONS)
    open_to = [name for name in names if obstacle(situation, name) is None]
    assert bars == pytest.approx([1000 * seconds(situation, name) for name in open_to])
    refused = [text.get_text() for text in figure.axes[1].texts if text.get_text().startswith("no option: ")]
    assert len(refused) == len(names) - len(open_to)
    assert f"Chosen: {choose(situation).method or 'nothing'}" in figure.alt
    assert bool(figure.axes[1].get_xlabel()) == bool(open_to)  # an axis only where there is a time


def test_a_bar_tells_what_a_user_waits() -> None:
    """Eight at once, so each waits for eight times the time that the GPU has for one."""
    situation = Situation(batch=8)
    texts = [text.get_text() for text in plots.path(situation).axes[1].texts]
    assert f"  {1000 * seconds(situation, 'W8A8'):.0f} ms, a user waits {8 * seconds(situation, 'W8A8'):.1f} s" in texts
    assert [text.endswith(": chosen") for text in texts].count(True) == 1


def test_the_explorer_draws_the_path_of_its_knobs() -> None:
    figure = plots.chosen(gpu="H100-80GB", at_once=32, traffic="summaries", calibration=False, floor=0.01)
    prompt, output = plots.TRAFFIC["summaries"]
    situation = Situation(gpu="H100-80GB", batch=32, prompt=prompt, output=output, calibration=False, most_lost=0.01)
    assert figure.alt == plots.path(situation).alt
    with pytest.raises(ValueError, match="traffic: 'poems' is not known"):
        plots.chosen(traffic="poems")
    with pytest.raises(ValueError, match="floor: got 1; allowed is 0 to 0.5"):
        plots.chosen(floor=1)
    with pytest.raises(TypeError, match="floor: got '1 point'"):
        plots.chosen(floor="1 point")  # type: ignore[arg-type]


def test_every_figure_has_an_image() -> None:
    for figure in (plots.lost_map(quality(), METHODS), plots.tree([choose(Situation())]), plots.path(Situation())):
        assert figure.png().startswith(b"\x89PNG")
