"""The interview in a notebook: choose one, think, answer, be pressed, read your score. Made by `coach()`."""

from __future__ import annotations

import html
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import ipywidgets as widgets

from .. import progress
from ..progress import Unavailable
from . import history, scenario, session, whiteboard
from .page import page
from .report import minutes
from .session import CODE, Interview

LONGEST = 24 * 3600  # ticks of the clock
_TEXT = "max-width:60em; line-height:1.5"
_WIDE = {"width": "100%", "max_width": "60em"}  # no Layout: two widgets with one Layout would hide together


class Coach(widgets.VBox):
    """Everything that is on the page. What was said is on disk after every step, and can be resumed.

    Attributes:
        choice: the menu of interviews, those that were stopped first.
        begin: the button that begins the chosen one.
        text: where the answer is typed.
        ready, done, stop: the buttons that end think-time, the answer, and the interview for now.
        clock: ticks once a second in the page, and stops with it.
        result: the score, as HTML.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.interview: Interview | None = None
        self._last = 0.0
        self._warned = False  # that the answer is empty
        self.choice = widgets.Dropdown(description="Interview", layout=_WIDE)
        self.begin = widgets.Button(description="Begin", button_style="primary")
        self.situation = widgets.HTML()
        self.question = widgets.HTML()
        self.time = widgets.HTML()
        self.text = widgets.Textarea(placeholder="Say it as you would say it aloud.", rows=10, layout=_WIDE)
        self.ready = widgets.Button(description="I am ready")
        self.done = widgets.Button(description="Done", button_style="primary")
        self.stop = widgets.Button(description="Stop for now")
        self.message = widgets.HTML()
        self.result = widgets.HTML()
        # Hidden: it is there for its clock, which runs in the page and tells the kernel each second.
        self.clock = widgets.Play(max=LONGEST, interval=1000, layout=widgets.Layout(display="none"))
        for button in (self.begin, self.ready, self.done, self.stop):
            button.tooltip = button.description
        for widget in (self.choice, self.text):
            widget.tooltip = widget.description or widget.placeholder
        self.begin.on_click(lambda _: self._begin())
        self.ready.on_click(lambda _: self._begin_answer())
        self.done.on_click(lambda _: self._answer())
        self.stop.on_click(lambda _: self._stop())
        self.text.observe(self._typed, names="value")
        self.clock.observe(lambda _: self._tick(), names="value")
        buttons = widgets.HBox([self.ready, self.done, self.stop, self.time])
        children = [
            self.choice,
            self.begin,
            self.situation,
            self.question,
            self.text,
            buttons,
            self.message,
            self.result,
        ]
        super().__init__(children=[*children, self.clock])
        self._offer()

    def __repr__(self) -> str:
        return "Coach()"

    def _offer(self) -> None:
        """The interviews to choose from: stopped ones, those with criteria that are due, the others."""
        try:
            events = progress.events()
        except Unavailable:
            events = []
        due = {one.scenario.id for one in history.due(events, datetime.now(UTC))}
        stopped = [session.resume(path) for path in session.unfinished()]
        options = [(f"Go on: {one.scenario.title}, begun {one.started:%Y-%m-%d %H:%M} UTC", one.id) for one in stopped]
        ordered = sorted(scenario.names(), key=lambda name: name not in due)
        for name in ordered:
            one = scenario.load(name)
            again = " (due again)" if name in due else ""
            options.append((f"{one.title}, {one.role}, {one.minutes} minutes{again}", name))
        self.choice.options = options
        self.choice.index = 0
        self._show()

    def _begin(self) -> None:
        name = self.choice.value
        self.interview = session.begin(name) if name in scenario.names() else session.find(name)
        self.result.value = self.message.value = ""
        self._show()

    def _begin_answer(self) -> None:
        if self.interview is not None:
            self._tick()
            self.interview.begin_answer()
            self._show()
            self.text.focus()

    def _answer(self) -> None:
        one = self.interview
        # The second click of a double click would answer the next question with nothing.
        if one is None or one.asked is None or self.done.disabled:
            return
        self._tick()
        if not self.text.value.strip() and not self._warned:
            self._warned = True
            self.message.value = "<p>You have said nothing. Done once more goes on without an answer.</p>"
            return
        if one.asked.step == CODE:
            self.message.value = "<p>The exercise's own check runs …</p>"
        turn = one.answer(self.text.value)
        self.message.value = ""
        if turn.written is not None:
            self.message.value = f"<pre>{html.escape(turn.written.message)}</pre>"
        if one.asked is None:
            self._finish(one)
        self._show()

    def _stop(self) -> None:
        """Back to the menu, where this interview stands first."""
        self._tick()
        self.interview = None
        self.situation.value = self.message.value = ""
        self._offer()

    def _finish(self, one: Interview) -> None:
        self.result.value = page(one.scenario, one.scores())
        self.situation.value = ""
        try:
            one.record()
        except Unavailable as error:
            self.message.value = f"<p>This was not noted in your progress: {html.escape(str(error))}</p>"
        self._offer()  # it is no longer one to go on with

    def _show(self) -> None:
        """The page as the interview stands."""
        one = self.interview
        asked = one.asked if one is not None else None
        running = one is not None and asked is not None
        for widget in (self.choice, self.begin):
            widget.layout.display = "none" if running else None
        for widget in (self.text, self.done, self.stop, self.time):
            widget.layout.display = None if running else "none"
        self.ready.layout.display = "none"
        self.clock.playing = running
        self._warned = False
        if one is None or asked is None:
            self.question.value = ""
            return
        self._last = self._now()
        about = html.escape(one.scenario.shown(one.scenario.situation).strip())
        self.situation.value = f"<h3>{html.escape(one.scenario.title)}</h3><p style='{_TEXT}'>{about}</p>"
        what = f"Question {asked.number} of {len(one.questions)}" if asked.step == session.ANSWER else "Follow-up"
        what = "At the whiteboard" if asked.step == CODE else what
        self.question.value = f"<h4>{what}</h4><p style='{_TEXT}'>{html.escape(asked.text.strip())}</p>"
        if asked.step == CODE and not one.draft:
            one.draft = whiteboard.stub(asked.question.code or "")
        self.text.rows = 22 if asked.step == CODE else 10
        self.text.value = one.draft
        thinking = not one.answering and asked.think > 0
        self.ready.layout.display = None if thinking else "none"
        self.text.disabled = self.done.disabled = thinking
        if not thinking and not one.answering:
            one.begin_answer()
        self._say_time()

    def _typed(self, change: Any) -> None:
        if self.interview is not None and self.interview.asked is not None:
            self.interview.draft = change["new"]

    def _tick(self) -> None:
        """Count the time since the last tick; a page that was closed does not tick."""
        if self.interview is None or self.interview.asked is None:
            return
        now = self._now()
        self.interview.spend(min(now - self._last, 2.0))  # no more than a late tick: the page may have slept
        self._last = now
        self._say_time()

    def _say_time(self) -> None:
        one = self.interview
        asked = one.asked if one is not None else None
        if one is None or asked is None:
            return
        if one.answering:
            over = ", time is over" * (one.spent > asked.seconds)
            self.time.value = f"{minutes(one.spent)} of {minutes(asked.seconds)}{over}"
        else:
            self.time.value = f"{minutes(one.thought)} of {minutes(asked.think)} to think"


def coach() -> Coach:
    """The coach, as the last line of a cell."""
    return Coach()
