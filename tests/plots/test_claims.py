"""The ledger's figures: bars as long as the counts and the bytes, bands where the verdict changes, frames on flips."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb

from qlab.deploy.claims import VERDICTS, Assumptions, claim, claims, flips
from qlab.plots import claims as plots
from qlab.plots.style import INK


@pytest.fixture(scope="module")
def ledger():
    return claims()


def test_the_words_letters_and_colors_of_the_verdicts_differ():
    for look in (plots.WORDS, plots.LETTERS, plots.COLORS):
        assert tuple(look) == VERDICTS and len(set(look.values())) == 4


def test_words_stand_out_from_the_color_behind_them():
    def lightness(color):
        parts = np.array(to_rgb(color))
        return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    for verdict in VERDICTS:
        high, low = sorted((lightness(plots.COLORS[verdict]), lightness(plots.INKS[verdict])), reverse=True)
        assert (high + 0.05) / (low + 0.05) > 3.8, verdict


def test_tally_shows_every_claim_once(ledger):
    figure = plots.tally(ledger)
    axis = figure.axes[0]
    sections = [label.get_text() for label in axis.get_yticklabels()]
    assert set(sections) == {one.claim.section for one in ledger}
    for y, section in enumerate(sections):
        bars = [bar for bar in axis.patches if bar.get_width() and bar.get_y() < y < bar.get_y() + bar.get_height()]
        found = {to_hex(bar.get_facecolor()): bar.get_width() for bar in bars}
        wanted = Counter(plots.COLORS[one.verdict].lower() for one in ledger if one.claim.section == section)
        assert found == wanted
    assert sum(int(text.get_text()) for text in axis.texts) == len(ledger)
    assert f"{len(ledger)} claims" in figure.alt


def test_tally_of_a_few():
    figure = plots.tally([claim("C004"), claim("C021"), claim("C031")])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["sizes", "capacity"]
    assert "sizes: 1 true only if, 1 true; capacity: 1 true only if." in figure.alt


def test_sums_are_as_long_as_their_parts():
    rows = {
        "all": {"weights": 60e9, "left for the cache": 20e9},
        "less": {"weights": 62e9, "overhead": 2e9, "not used": 8e9, "left for the cache": 8e9},
    }
    figure = plots.sums(rows, per_token=100_000, title="Two sums")
    axis = figure.axes[0]
    bars = [(bar.get_x(), bar.get_width(), to_hex(bar.get_facecolor())) for bar in axis.patches if bar.get_width()]
    blue, orange, gray, green = (color.lower() for color in plots.PARTS.values())
    wanted = [(0, 60, blue), (60, 20, green), (0, 62, blue), (62, 2, orange), (64, 8, gray), (72, 8, green)]
    assert bars == [(pytest.approx(x), pytest.approx(width), color) for x, width, color in wanted]
    said = " ".join(text.get_text() for text in axis.texts)
    assert "20.00 GB left" in said and "about 200,000 tokens" in said and "about 80,000 tokens" in said
    assert figure.alt.startswith("Two sums. all: weights 60.00 GB; 20.00 GB or about 200,000 tokens are left; less: ")
    # Each part has its number: inside where there is room, below the bar where it is narrow.
    numbers = {(text.get_text(), text.get_position()[1]) for text in axis.texts if "GB" not in text.get_text()}
    assert {(number, y) for number, y in numbers if y in (0, 1)} == {("60.00", 0), ("62.00", 1), ("8.00", 1)}
    assert [number for number, y in numbers if y not in (0, 1)] == ["2.00"]


def test_headroom_has_a_band_for_every_verdict():
    levels = {"few": 40, "many": 90}
    verdicts = ["false", "conditional", "conditional", "true"]
    figure = plots.headroom([0.1, 0.2, 0.3, 0.4], [10, 50, 70, 95], verdicts, levels, "share", at=0.25)
    axis = figure.axes[0]
    assert list(axis.lines[0].get_ydata()) == [10, 50, 70, 95]
    assert [line.get_ydata()[0] for line in axis.lines[1:3]] == [40, 90]
    assert axis.lines[3].get_xdata()[0] == 0.25
    assert axis.get_ylim()[1] > 95
    bands = [(band.get_x(), band.get_x() + band.get_width()) for band in axis.patches]
    assert np.allclose(bands, [(0.1, 0.15), (0.15, 0.35), (0.35, 0.4)])
    assert "Verdict: false from 0.1 to 0.15, true only if from 0.15 to 0.35, true from 0.35 to 0.4." in figure.alt
    assert "what is left" in [text.get_text() for text in axis.texts] and axis.get_ylim()[0] == 0


def test_headroom_shows_what_is_missing():
    figure = plots.headroom([0.1, 0.2], [-50, 50], ["false", "false"], {"few": 40}, "share", at=0.1)
    axis = figure.axes[0]
    assert axis.get_ylim()[0] < -50 and "Below 0 the weights do not fit" in figure.alt
    assert "below: the weights do not fit" in [text.get_text() for text in axis.texts]


def test_strips_change_where_the_verdict_does():
    found = {"C1": ["false", "conditional", "conditional"], "C2": ["true", "true", "true"]}
    figure = plots.strips([0.0, 0.5, 1.0], found, "share", at=0.5)
    axis = figure.axes[0]
    strips = [(bar.get_x(), bar.get_width(), to_hex(bar.get_facecolor())) for bar in axis.patches]
    colors = {verdict: color.lower() for verdict, color in plots.COLORS.items()}
    assert strips == [(0, 0.25, colors["false"]), (0.25, 0.75, colors["conditional"]), (0, 1, colors["true"])]
    words = [text.get_text() for text in axis.texts if text.get_text().strip()]
    assert words == ["false", "true only if", "true"]
    assert "C1 false up to 0.25, true only if up to 1; C2 true up to 1." in figure.alt


def test_a_strip_without_room_for_its_word_has_it_at_the_right():
    values = [i / 100 for i in range(101)]
    axis = plots.strips(values, {"C1": ["false"] * 100 + ["true"]}, "share", at=0.5).axes[0]
    assert [(text.get_text().strip(), text.get_position()[0]) for text in axis.texts][-1] == ("true", 1.0)


def test_strips_of_nothing_are_refused():
    with pytest.raises(ValueError, match="verdicts: got none; no claim flips along overhead_gb"):
        plots.strips([0, 1], {}, "overhead_gb", at=1)


def tiles(figure):
    """Face and edge of every tile, row by row."""
    rows = figure.axes[0].collections
    looks = [(row.get_facecolors(), row.get_edgecolors()) for row in rows]
    return [(to_hex(face), to_hex(edge)) for faces, edges in looks for face, edge in zip(faces, edges, strict=True)]


@pytest.mark.parametrize("changes", [{}, {"gpu_memory_utilization": 0.88, "overhead_gb": 4.0}, {"group_size": 32}])
def test_the_map_has_a_tile_for_every_claim_and_a_frame_for_every_flip(changes):
    figure = plots.flip_map(**changes)
    judged, flipped = claims(Assumptions(**changes)), flips(Assumptions(**changes))
    found = tiles(figure)
    assert Counter(face for face, _ in found) == Counter(plots.COLORS[one.verdict].lower() for one in judged)
    framed = Counter(face for face, edge in found if edge == INK)
    assert framed == Counter(plots.COLORS[one.verdict].lower() for one in flipped)
    words = {text.get_text() for text in figure.axes[0].texts}
    assert words == {f"{int(one.id[1:])}\n{plots.LETTERS[one.verdict]}" for one in judged}
    listed = figure.axes[1].texts[0].get_text()
    assert all(one.id in listed and one.claim.says in figure.alt for one in flipped)
    assert all(one.claim.says in " ".join(listed.split()) for one in flipped)
    assert listed == "No verdict flips." or flipped
    assert f"{len(flipped)} of {len(judged)} verdicts flip" in figure.axes[0].get_title(loc="left")


def test_a_long_list_of_flips_is_cut_and_counted(monkeypatch):
    monkeypatch.setattr(plots, "LINES", 1)
    changes = {"gpu_memory_utilization": 0.88, "overhead_gb": 4.0}
    cut = plots.flip_map(**changes)
    lines = cut.axes[1].texts[0].get_text().splitlines()
    assert len(lines) == 2 and lines[1] == f"and {len(flips(Assumptions(**changes))) - 1} more"
    monkeypatch.undo()
    assert plots.flip_map(**changes).get_figheight() > cut.get_figheight()  # as high as its list


def test_the_map_refuses_what_the_assumptions_refuse():
    with pytest.raises(ValueError, match="gpu_memory_utilization"):
        plots.flip_map(gpu_memory_utilization=2.0)
    with pytest.raises(TypeError, match="utilisation"):
        plots.flip_map(utilisation=0.9)
