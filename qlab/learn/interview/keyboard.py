"""Lines from somebody at a keyboard: a clock runs beside them, pasted text stays whole, what is half typed is kept."""

from __future__ import annotations

import sys
from collections.abc import Callable

Prompt = Callable[[str], str]  # asked again each second, with what is typed so far
Listen = Callable[[Prompt], str]

REFRESH = 1.0  # seconds


def keyboard() -> Listen:
    """What reads the next line; of a file or a pipe line by line, with no clock.

    A text that is pasted comes as one line, whatever empty lines are in it.

    Raises, when it is called:
        EOFError: Ctrl-D, or the end of a pipe.
        KeyboardInterrupt: Ctrl-C; the prompt has been told what was typed.
    """
    if not sys.stdin.isatty():
        return lambda prompt: input(prompt(""))
    from prompt_toolkit import PromptSession

    line: PromptSession[str] = PromptSession()

    def listen(prompt: Prompt) -> str:
        def asked() -> str:
            return prompt(line.default_buffer.text)

        try:
            return line.prompt(asked, refresh_interval=REFRESH)
        except KeyboardInterrupt:
            asked()
            raise

    return listen
