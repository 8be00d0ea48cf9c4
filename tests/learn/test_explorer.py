from __future__ import annotations

import io
from typing import Any

import ipywidgets as widgets
import matplotlib.image
import pytest
from matplotlib.figure import Figure

from qlab.learn import Explorer, explore


def draw(bits: int = 4, group_size: int = 64, symmetric: bool = True) -> Figure:
    figure = Figure(figsize=(2, 1))
    figure.text(0.1, 0.5, f"{bits} {group_size} {symmetric}")
    return figure


def made(**options: Any) -> Explorer:
    return explore(draw, bits=(2, 8), group_size=[32, 64, 128], symmetric=True, **options)


def test_the_form_that_works_in_lab_and_under_nbval() -> None:
    explorer = made()
    assert isinstance(explorer, widgets.VBox)
    assert repr(explorer) == repr(made()) == "Explorer(bits, group_size, symmetric)"
    kinds = [widgets.IntSlider, widgets.Dropdown, widgets.Checkbox, widgets.HTML, widgets.Image]
    assert all(map(isinstance, explorer.children, kinds)) and len(explorer.children) == len(kinds)
    assert explorer.image.description == "", "without it the page cannot show an image with a tooltip"
    layout = explorer.image.layout
    assert (layout.width, layout.max_width, layout.align_self) == ("max-content", "100%", "flex-start")


def test_controls_start_at_the_defaults_of_draw_and_their_labels_line_up() -> None:
    explorer = made()
    assert explorer.values == {"bits": 4, "group_size": 64, "symmetric": True}
    assert [control.description for control in explorer.controls.values()] == ["bits", "group size", "symmetric"]
    assert {control.style.description_width for control in explorer.controls.values()} == {"11ch"}


def test_without_a_default_a_control_starts_at_its_first_value() -> None:
    explorer = explore(lambda a, b: draw(), a=(3, 5), b=[7, 8])
    assert explorer.values == {"a": 3, "b": 7}


def test_it_is_drawn_at_100_dots_per_inch() -> None:
    height, width, _ = matplotlib.image.imread(io.BytesIO(made().image.value)).shape
    assert (width, height) == (200, 100)


def test_moving_a_control_changes_the_image_and_its_description() -> None:
    explorer = made()
    image, description = explorer.image.value, explorer.image.tooltip
    explorer.controls["bits"].value = 5
    assert explorer.image.value != image and explorer.image.tooltip != description
    explorer.controls["bits"].value = 4
    assert explorer.image.value == image  # the same parameters, the same bytes


def test_the_description_is_the_alternative_text_of_the_figure() -> None:
    def described(bits: int) -> Figure:
        figure = draw(bits)
        figure.alt = f"{bits} bits in words"  # type: ignore[attr-defined]
        return figure

    explorer = explore(described, bits=(2, 3))
    explorer.controls["bits"].value = 3
    assert explorer.image.tooltip == "3 bits in words"
    assert "bits 4" in made().image.tooltip


def test_an_exception_is_shown_and_goes_away() -> None:
    def fragile(bits: int) -> Figure:
        if bits == 3:
            raise ValueError("3 < 4")
        return draw(bits)

    explorer = explore(fragile, bits=(2, 4))
    assert explorer.message.layout.display == "none" and explorer.image.layout.display is None
    explorer.controls["bits"].value = 3
    assert "ValueError: 3 &lt; 4" in explorer.message.value and "bits 3" in explorer.message.value
    assert explorer.message.layout.display is None and explorer.image.layout.display == "none"
    explorer.controls["bits"].value = 4
    assert explorer.message.layout.display == "none" and explorer.image.layout.display is None


def test_an_exception_at_the_first_values_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        explore(lambda bits: draw(1 // bits), bits=(0, 4))


def test_the_grid_is_every_combination() -> None:
    explorer = made()
    grid = list(explorer.grid())
    assert len(grid) == 7 * 3 * 2 == len({tuple(params.items()) for params in grid})
    assert {params["bits"] for params in grid} == set(range(2, 9))
    assert {params["symmetric"] for params in grid} == {True, False}


def test_check_all_draws_each_once_and_names_the_one_that_fails() -> None:
    seen = []

    def recorded(bits: int) -> Figure:
        seen.append(bits)
        if bits == 9:
            raise ValueError("no")
        return draw(bits)

    assert explore(recorded, bits=(2, 8, 2)).check_all() == 4
    assert seen == [2, 2, 4, 6, 8]  # the first one was for the widget
    with pytest.raises(ValueError, match="no") as caught:
        explore(recorded, bits=(2, 9)).check_all()
    assert caught.value.__notes__ == ["while drawing bits 9"]


def test_check_all_renders() -> None:
    """A figure may be built well and fail when it is rendered, as with broken mathematics in a title."""

    def title(bits: int) -> Figure:
        figure = draw(bits)
        figure.suptitle("$x$" if bits == 2 else r"$\frac{$")
        return figure

    with pytest.raises(ValueError):
        explore(title, bits=(2, 3)).check_all()
    assert explore(title, bits=(2, 3)).check_all(render_every=2) == 2


def test_steps_fractions_and_named_values() -> None:
    explorer = explore(lambda **params: draw(), a=(0, 10, 5), b=(0.1, 0.4, 0.1), c={"per row": "channel", "per 32": 32})
    assert [control.value for control in explorer.controls.values()] == [0, 0.1, "channel"]
    assert sorted({params["b"] for params in explorer.grid()}) == [0.1, 0.2, 0.3, 0.4]
    assert {params["a"] for params in explorer.grid()} == {0, 5, 10}
    assert {params["c"] for params in explorer.grid()} == {"channel", 32}
    assert isinstance(explorer.controls["b"], widgets.FloatSlider)


@pytest.mark.parametrize("continuous", [True, False])
def test_continuous_update(continuous: bool) -> None:
    assert made(continuous_update=continuous).controls["bits"].continuous_update is continuous


@pytest.mark.parametrize(
    ("spec", "error", "says"),
    [
        ((8, 2), ValueError, "low < high"),
        ((2, 8, 0), ValueError, "step above 0"),
        ((0.1, 0.5), ValueError, "needs a step"),
        ([], ValueError, "at least one value"),
        ("2-8", TypeError, "a control is"),
        ((2,), TypeError, "a control is"),
        ((5, 8), ValueError, "starts at 4"),
    ],
)
def test_bad_controls_are_named(spec: object, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=rf"(?s)^bits=.*{says}"):
        explore(draw, bits=spec)


def test_draw_has_to_take_the_controls_and_return_a_figure() -> None:
    with pytest.raises(TypeError, match="draw does not take exactly the controls bit.*'bit'"):
        explore(draw, bit=(2, 8))
    with pytest.raises(TypeError, match="none was given"):
        explore(draw)
    with pytest.raises(TypeError, match="draw returned a str"):
        explore(lambda bits: "figure", bits=(2, 8))
