"""Lines from somebody at a keyboard: a clock runs beside them, pasted text stays whole, what is half typed is kept."""

from __future__ import annotations

import sys
from collections.abc import Callable

Prompt = Callable[[], str]  # asked again each second while somebody types
Listen = Callable[[Prompt], str]

REFRESH = 1.0  # seconds


def keyboard() -> Listen:
    """What reads the next line; of a file or a pipe line by line, with no clock.

    A text that is pasted comes as one line, whatever empty lines are in it.

    Raises, when it is called:
        EOFError: Ctrl-D, or the end of a pipe.
        KeyboardInterrupt: Ctrl-C; its argument is what was typed and not yet handed in.
    """
    if not sys.stdin.isatty():
        return lambda prompt: input(prompt())
    from prompt_toolkit import PromptSession

    line: PromptSession[str] = PromptSession()

    def listen(prompt: Prompt) -> str:
        try:
            return line.prompt(prompt, refresh_interval=REFRESH)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(line.default_buffer.text) from None

    return listen
