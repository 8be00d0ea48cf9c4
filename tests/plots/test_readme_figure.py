"""The figure of the README shows the recorded scores: it is drawn again and compared, pixel by pixel."""

import io

import numpy as np
from matplotlib import image

from qlab.plots.__main__ import FIGURE, damage_of_nano


def test_the_committed_figure_is_the_one_that_the_code_draws():
    committed = image.imread(FIGURE)
    drawn = image.imread(io.BytesIO(damage_of_nano()))
    assert committed.shape == drawn.shape
    # Another build of the font library may smooth letters differently; a bar of another height is far more.
    assert np.abs(committed - drawn).mean() < 0.002
