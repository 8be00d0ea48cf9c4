"""Drills in a notebook: choose a topic, reply, read the verdict and the way to the answer. Made by `drills()`.

What comes next, how a reply is judged and what is kept are as in the terminal: `session`, `mark`, `progress`.
"""

from __future__ import annotations

import html
import io
import random
from contextlib import redirect_stdout
from typing import Any

import ipywidgets as widgets

from .. import progress
from ..progress import Event, Unavailable
from . import TOPICS, Drill, chosen, judge, kind, session

ALL = "all"
AS_CALLED_FOR = 0  # a menu shows nothing for None
_WIDE = widgets.Layout(width="100%", max_width="60em")


class Drills(widgets.VBox):
    """Everything that is on the page. The progress file is not opened before the first question.

    Attributes:
        topic, level: the menus; a change counts from the next question on. `level.value` is AS_CALLED_FOR or 1, 2, 3.
        next, check: the buttons that bring a question, and give the reply.
        reply: the field for the reply; Enter gives it, too.
        question, verdict, solution, count, message: what is shown, as HTML.
        drill: the open question; None before the first one and once it is answered.
        answers: what was answered on this page, in its order.
    """

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng or random.Random()
        self._history: list[Event] | None = None
        self._unjudged: list[str] = []  # replies to the open question
        self._entered = False
        self.drill: Drill | None = None
        self.answers: list[session.Answered] = []
        levels = [("as my answers call for", AS_CALLED_FOR), *((str(level), level) for level in (1, 2, 3))]
        self.topic = widgets.Dropdown(description="Topic", options=[ALL, *TOPICS])
        self.level = widgets.Dropdown(description="Level", options=levels)
        self.next = widgets.Button(description="Next question", button_style="primary")
        self.reply = widgets.Text(placeholder="39.5 GB, or B", continuous_update=False)
        self.check = widgets.Button(description="Check", button_style="primary")
        self.question, self.verdict, self.solution, self.count, self.message = (
            widgets.HTML(layout=_WIDE) for _ in range(5)
        )
        for widget in (self.topic, self.level, self.next, self.check):
            widget.tooltip = widget.description
        self.reply.tooltip = "Your reply"
        self.next.on_click(lambda _: self._ask())
        self.check.on_click(lambda _: self._give())
        self.reply.on_msg(self._told)
        self.reply.observe(self._changed, names="value")
        menus, field = widgets.HBox([self.topic, self.level, self.next]), widgets.HBox([self.reply, self.check])
        shown = [self.question, field, self.verdict, self.solution, self.count, self.message]
        super().__init__(children=[menus, *shown])
        self._open(False)

    def __repr__(self) -> str:
        # The same in every run: this text is what a committed notebook holds of the widget.
        return "Drills()"

    def _ask(self) -> None:
        """Draw the next question; one that was left open is not counted."""
        self._open(False)
        self.verdict.value = self.solution.value = self.message.value = ""
        self.question.value = "<p>Drawing a question …</p>"  # the first one may have to load torch
        if self._history is None:
            self._history = self._read()
        kinds = chosen(topics=[] if self.topic.value == ALL else [self.topic.value])
        self.drill = next(session.adaptive(kinds, 1, self.level.value or None, self._history, self._rng))
        self.question.value = _lines(f"<b>{self.drill.kind}</b>, level {self.drill.level}") + _lines(
            *map(html.escape, (self.drill.text, *self.drill.lettered))
        )
        self._unjudged = []
        self.reply.value = ""
        self._open(True)
        self.reply.focus()

    # The page says "submit" for Enter and sends the value right after; on leaving the field it sends the value alone.
    # That is no reply yet: people leave it to compute something.

    def _told(self, _widget: Any, content: Any, _buffers: Any) -> None:
        self._entered = content.get("event") == "submit"

    def _changed(self, _change: Any) -> None:
        if self.drill is None or not self.reply.value.strip():
            return
        if self._entered:
            self._give()
        else:
            self.verdict.value = _lines("Press Check to give this reply.")

    def _give(self) -> None:
        """Judge what stands in the field; the same again, if it could not be judged, costs nothing."""
        self._entered = False
        reply = self.reply.value.strip()
        if self.drill is None or reply in self._unjudged:
            return
        if not reply:
            self.verdict.value = _lines("Write a reply, or ? to see the solution.")
            return
        marked = judge(self.drill, reply)
        if marked.again and len(self._unjudged) < session.PATIENCE - 1:
            self._unjudged.append(reply)
            self.verdict.value = _lines(f"Not judged: {html.escape(reply)}", html.escape(marked.why))
            return
        self._close(session.Answered(self.drill, reply, marked))

    def _close(self, answered: session.Answered) -> None:
        self.drill = None
        self.answers.append(answered)
        self._open(False)
        self.verdict.value = _lines(
            f"Your reply: {html.escape(answered.reply)}", f"<b>{html.escape(answered.marked.why)}</b>"
        )
        again = "" if answered.marked.right else f"Lesson: {kind(answered.drill.kind).lesson}"
        self.solution.value = _lines(*map(html.escape, answered.drill.worked), indent=2) + _lines(again)
        self.count.value = _lines(session.total(self.answers))
        self._keep(answered.event)

    def _read(self) -> list[Event]:
        said = io.StringIO()
        try:
            with redirect_stdout(said):  # it may have to say that the file was damaged
                return progress.events()
        except Unavailable:
            return []  # the answer will tell why
        finally:
            self.message.value = _lines(html.escape(said.getvalue()))

    def _keep(self, event: Event) -> None:
        if self._history is not None:
            self._history.append(event)
        said = io.StringIO()
        try:
            with redirect_stdout(said):
                progress.record(event)
        except Unavailable as error:
            print(f"This was not noted in your progress: {error}", file=said)
        self.message.value = _lines(html.escape(said.getvalue()))

    def _open(self, is_open: bool) -> None:
        """Let replies in, or not; the button to press next is the blue one."""
        self.reply.disabled = self.check.disabled = not is_open
        self.next.button_style = "" if is_open else "primary"


def drills() -> Drills:
    """Drills, as the last line of a cell."""
    return Drills()


def _lines(*lines: str, indent: int = 0) -> str:
    """A paragraph of lines that are HTML; "" where there is nothing to say."""
    text = "<br>".join(line for line in lines if line.strip())
    return text and f'<p style="margin: 0.4em 0 0 {indent}em; line-height: 1.5">{text}</p>'
