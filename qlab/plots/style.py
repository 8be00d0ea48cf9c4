"""One look for every figure: a palette that color-blind readers can tell apart, and words for who cannot see it."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Callable
from typing import Any, ParamSpec

import matplotlib
from matplotlib.figure import Figure as MatplotlibFigure
from PIL import Image

# Okabe and Ito's palette, ordered so that neighbors differ in lightness as well.
BLUE, ORANGE, GREEN, PINK, SKY, RED, YELLOW, GRAY = [
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#F0E442",
    "#7F7F7F",
]
PALETTE = (BLUE, ORANGE, GREEN, PINK, SKY, RED, YELLOW, GRAY)
INK = "#333333"
DPI = 100

_STYLE: Any = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titlepad": 10,
    "axes.labelsize": 10,
    "font.size": 10,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
}


P = ParamSpec("P")


class Figure(MatplotlibFigure):
    """A matplotlib figure that carries its description in words and shows itself in a notebook.

    Set `alt` after drawing; it becomes the plain-text form of the output, which screen readers and
    readers without images get.
    """

    alt: str = ""

    def png(self) -> bytes:
        with io.BytesIO() as buffer:
            self.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
            return with_palette(buffer.getvalue())

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, str], dict[str, Any]]:
        image = base64.b64encode(self.png()).decode()
        return {"image/png": image, "text/plain": self.alt}, {"image/png": {"alt": self.alt}}


def with_palette(png: bytes) -> bytes:
    """The same image in its 256 most useful colors: a figure looks alike, and takes a third of the bytes."""
    with Image.open(io.BytesIO(png)) as image, io.BytesIO() as buffer:
        few = image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(buffer, format="png", dpi=(DPI, DPI), optimize=True)
        return buffer.getvalue()


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw with the course's style and leave the reader's own matplotlib settings alone."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return drawn


def new_figure(
    width: float = 7.0, height: float = 3.2, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, Any]:
    """A figure of `width` x `height` inches and its axes (one, or an array as from `Figure.subplots`)."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    return figure, figure.subplots(rows, columns, **options)
