"""An explorer: a pure function that draws a figure, with a control for each of its parameters.

The figure goes through `widgets.Image`, and not through `widgets.Output`: an Image has a value, so a test can
see it change, and it leaves nothing in the notebook file that differs from run to run.
"""

from __future__ import annotations

import html
import inspect
import io
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ipywidgets as widgets
from matplotlib.figure import Figure
from traitlets import Unicode

Draw = Callable[..., Figure]
Values = dict[str, Any]  # label on the control: value for the draw function


class DescribedImage(widgets.Image):
    """An image with a title, which is what browsers and screen readers use where there is no alternative text.

    ipywidgets 8 has no alternative text for images, and its tooltip, which becomes the title, asks for the
    length of a description that images do not have: without this trait the page shows an error instead.
    """

    description = Unicode("").tag(sync=True)


class Explorer(widgets.VBox):
    """Controls above the figure that they draw. Made by `explore`.

    Attributes:
        controls: parameter name to the widget that sets it.
        image: the `widgets.Image` with the current figure as PNG.
        message: the `widgets.HTML` that tells, in words, why a figure could not be drawn; hidden otherwise.
    """

    def __init__(self, draw: Draw, controls: Mapping[str, widgets.Widget], grids: Mapping[str, list[Any]]) -> None:
        self.draw = draw
        self.controls = dict(controls)
        self._grids = dict(grids)
        # Without this layout the image is stretched to the width of the page.
        layout = widgets.Layout(width="max-content", max_width="100%", align_self="flex-start")
        self.image = DescribedImage(format="png", layout=layout)
        self.message = widgets.HTML(layout=widgets.Layout(display="none"))
        # Here an exception is left to rise: a figure that fails at its first values is seen by everything that
        # runs the notebook. Later ones have nowhere to rise to, and become a message.
        self._show(_figure(draw(**self.values)))
        super().__init__(children=[*self.controls.values(), self.message, self.image])
        for control in self.controls.values():
            control.observe(self._on_change, names="value")

    @property
    def values(self) -> dict[str, Any]:
        """The parameters as the controls stand now."""
        return {name: control.value for name, control in self.controls.items()}

    def grid(self) -> Iterator[dict[str, Any]]:
        """Every combination of parameters that the controls can reach."""
        for combination in itertools.product(*self._grids.values()):
            yield dict(zip(self._grids, combination, strict=True))

    def check_all(self, render_every: int = 1) -> int:
        """Draw the whole grid; the number of figures. An exception carries the parameters in a note.

        Args:
            render_every: turn only each n-th figure into an image, which takes longer than drawing it.
        """
        count = 0
        for params in self.grid():
            try:
                figure = _figure(self.draw(**params))
                if count % render_every == 0:
                    _png(figure)
            except Exception as error:
                error.add_note(f"while drawing {_written(params)}")
                raise
            count += 1
        return count

    def __repr__(self) -> str:
        # The same in every run: this text is what a committed notebook holds of the widget.
        return f"Explorer({', '.join(self.controls)})"

    def _on_change(self, _change: object) -> None:
        try:
            self._show(_figure(self.draw(**self.values)))
        except Exception as error:  # any of them: what is not caught here would vanish in the kernel's log
            self.message.value = (
                f'<div role="alert"><b>No figure for {html.escape(_written(self.values))}.</b><br>'
                f"{html.escape(f'{type(error).__name__}: {error}')}</div>"
            )
            self.message.layout.display = None
            self.image.layout.display = "none"

    def _show(self, figure: Figure) -> None:
        self.image.value = _png(figure)
        self.image.tooltip = getattr(figure, "alt", "") or f"Figure for {_written(self.values)}"
        self.message.layout.display = "none"
        self.image.layout.display = None


def explore(draw: Draw, *, continuous_update: bool = True, **controls: Any) -> Explorer:
    """Put controls above a figure: `explore(draw, bits=(2, 8), group_size=[32, 64, 128], symmetric=True)`.

    Args:
        draw: a pure function that takes the controls as keyword arguments and returns a matplotlib `Figure`
            (not pyplot: such a figure would show twice). Its defaults are where the controls start.
            A figure may carry an attribute `alt`, its description in words.
        continuous_update: redraw while a slider moves; False, if drawing takes longer than a blink, redraws on release.
        controls: one for each parameter of `draw`. `(low, high)` or `(low, high, step)`: a slider (a step is needed
            with fractions). `True` or `False`: a checkbox. A list of values, or a dict of label to value: a menu.

    Raises:
        TypeError: `draw` takes other parameters, returns something else, or a control has no known form.
        ValueError: an empty or backward range, an empty menu, or a default that the control cannot reach.
    """
    if not controls:
        raise TypeError("controls: none was given; explore needs at least one, such as bits=(2, 8)")
    signature = inspect.signature(draw)
    try:
        signature.bind(**controls)
    except TypeError as error:
        raise TypeError(f"draw does not take exactly the controls {', '.join(controls)}: {error}") from None
    grids = {name: _grid(name, spec) for name, spec in controls.items()}
    width = f"{max(len(_label(name)) for name in controls) + 1}ch"  # one column of labels, none of them cut off
    built = {}
    for name, spec in controls.items():
        start = _start(name, signature, spec, grids[name])
        built[name] = _control(name, spec, grids[name], start, continuous_update)
        built[name].style.description_width = width
        built[name].tooltip = _label(name)  # the page would write "null" for a label without one
    return Explorer(draw, built, {name: list(grid.values()) for name, grid in grids.items()})


def _grid(name: str, spec: Any) -> Values:
    """Every value that a control can take, by label."""
    if isinstance(spec, bool):
        return {"no": False, "yes": True}
    if isinstance(spec, Mapping) and spec:
        return dict(spec)
    if isinstance(spec, list) and spec:
        return {str(value): value for value in spec}
    if isinstance(spec, tuple) and len(spec) in (2, 3) and all(type(number) in (int, float) for number in spec):
        low, high, *rest = spec
        if not rest and not (type(low) is type(high) is int):
            raise ValueError(f"{name}={spec!r}: a slider over fractions needs a step, ({low!r}, {high!r}, step)")
        step = rest[0] if rest else 1
        if low >= high or step <= 0:
            raise ValueError(f"{name}={spec!r}: a slider needs low < high and a step above 0")
        count = int((high - low) / step + 1e-9) + 1
        numbers = [low + i * step for i in range(count)]
        if float in map(type, spec):
            numbers = [float(f"{number:.12g}") for number in numbers]  # 0.1 + 2 * 0.1 is 0.3 on the slider
        return {str(number): number for number in numbers}
    if isinstance(spec, (Mapping, list)):
        raise ValueError(f"{name}={spec!r}: a menu needs at least one value")
    raise TypeError(
        f"{name}={spec!r}: a control is (low, high), (low, high, step), True or False, a list of values, "
        "or a dict of label to value"
    )


def _start(name: str, signature: inspect.Signature, spec: Any, grid: Values) -> Any:
    """The value to begin with: the control's own if it is a checkbox, draw's default, or the first."""
    if isinstance(spec, bool):
        return spec
    parameter = signature.parameters.get(name)
    if parameter is None or parameter.default is inspect.Parameter.empty:
        return next(iter(grid.values()))
    if parameter.default not in grid.values():
        raise ValueError(f"{name}={spec!r}: draw starts at {parameter.default!r}, which this control cannot reach")
    return parameter.default


def _control(name: str, spec: Any, grid: Values, start: Any, continuous_update: bool) -> widgets.Widget:
    label = _label(name)
    if isinstance(spec, bool):
        return widgets.Checkbox(value=start, description=label, indent=True)
    if not isinstance(spec, tuple):
        # index and not value: ipywidgets compares values with ==, and 1 == True
        return widgets.Dropdown(options=list(grid.items()), index=list(grid.values()).index(start), description=label)
    numbers = list(grid.values())
    slider = widgets.IntSlider if isinstance(numbers[0], int) else widgets.FloatSlider
    options: dict[str, Any] = {} if slider is widgets.IntSlider else {"readout_format": ".4"}  # without trailing zeros
    return slider(
        value=start,
        min=numbers[0],
        max=numbers[-1],
        step=spec[2] if len(spec) == 3 else 1,
        description=label,
        continuous_update=continuous_update,
        **options,
    )


def _label(name: str) -> str:
    return name.replace("_", " ")


def _written(params: Mapping[str, Any]) -> str:
    return ", ".join(f"{_label(name)} {value}" for name, value in params.items())


def _figure(drawn: object) -> Figure:
    if not isinstance(drawn, Figure):
        raise TypeError(f"draw returned a {type(drawn).__name__}; a matplotlib.figure.Figure is needed")
    return drawn


def _png(figure: Figure) -> bytes:
    with io.BytesIO() as buffer:
        figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
        return buffer.getvalue()
