"""The figure class: a PNG, and words for those who cannot see it."""

import base64
import io
import struct

import numpy as np
from PIL import Image

from qlab.plots.style import DPI, PALETTE, new_figure, with_palette


def test_a_figure_shows_itself_with_its_description():
    figure, axis = new_figure(4, 2)
    axis.plot([0, 1], [0, 1])
    figure.alt = "A rising line."
    data, metadata = figure._repr_mimebundle_()
    png = base64.b64decode(data["image/png"])
    assert png.startswith(b"\x89PNG")
    assert struct.unpack(">II", png[16:24]) == (4 * DPI, 2 * DPI)
    assert data["text/plain"] == metadata["image/png"]["alt"] == "A rising line."


def test_the_same_figure_has_the_same_bytes():
    def draw():
        figure, axis = new_figure(3, 2)
        axis.bar(["a", "b"], [1, 2])
        return figure.png()

    assert draw() == draw()


def test_palette_colors_differ_in_lightness_or_hue():
    assert len(set(PALETTE)) == len(PALETTE) == 8


def test_a_grid_of_axes():
    _, axes = new_figure(4, 4, rows=2, columns=2)
    assert axes.shape == (2, 2)


def test_a_picture_is_small_and_keeps_its_colors():
    figure, axis = new_figure(6, 4)
    axis.imshow(np.random.default_rng(0).random((40, 40)), cmap="cividis")
    axis.plot([0, 39], [0, 39], color=PALETTE[1], linewidth=4)
    plain = io.BytesIO()
    figure.savefig(plain, format="png", dpi=DPI)
    png = with_palette(plain.getvalue())
    assert len(png) < len(plain.getvalue()) / 2
    few, many = (np.asarray(Image.open(io.BytesIO(b)).convert("RGB"), int) for b in (png, plain.getvalue()))
    assert np.abs(few - many).max() <= 16, "of 255"
    assert figure.png()[25] == 3, "a PNG with a palette"
