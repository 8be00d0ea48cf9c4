"""A second opinion by a language model, beside the score and never in its place.

The model sees the rubric and the answer, and is asked for a level and a quote for each criterion. A level whose quote
is not in the answer is left out. It is asked only where somebody chose it: by a URL that speaks the chat protocol of
OpenAI, or by a folder with a model that transformers can load.
"""

from __future__ import annotations

import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .scenario import LEVELS, Scenario
from .score import Score

KEY = "QLAB_JUDGE_KEY"  # environment variable with the key for a URL
SECONDS = 120.0  # for an answer over the network
LONGEST = 1200  # tokens of the model's answer
Ask = Callable[[str], str]  # from a prompt to what the model says


class OpinionError(ValueError):
    """The model could not be asked, or what it said is no opinion."""


@dataclass(frozen=True)
class Opinion:
    """Levels with quotes by criterion, whose model they are from, and what was left out."""

    source: str
    levels: dict[str, int]
    quotes: dict[str, str]
    left_out: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        levels = {name: {"level": level, "quote": self.quotes[name]} for name, level in self.levels.items()}
        return {"source": self.source, "criteria": levels, "left_out": list(self.left_out)}


Judge = Callable[[Scenario, Score], Opinion]


def judge(place: str, model: str | None = None) -> Judge:
    """What asks for opinions at a URL or with a folder's model.

    Raises:
        OpinionError: neither a URL nor a folder, or a URL without the name of a model.
    """
    if re.match(r"https?://", place):
        if not model:
            raise OpinionError("judge: a URL serves many models; name one with --judge-model")
        ask, source = _by_url(place, model), f"{model} at {place}"
    elif Path(place).is_dir():
        ask, source = _by_folder(Path(place)), f"the model in {place}"
    else:
        raise OpinionError(f"judge: got {place!r}; give a URL that begins with http, or a folder with a model")
    return lambda scenario, score: read(ask(prompt(scenario, score)), score, source)


def prompt(scenario: Scenario, score: Score) -> str:
    """The rubric with its anchors, and the answer."""
    rubric = []
    for judged in score.criteria:
        one = judged.criterion
        rubric.append(f"{one.id}: {one.title}")
        rubric += [f"  {level}: {scenario.shown(one.levels[level].anchor)}" for level in LEVELS]
        rubric += [f"  - the answer {scenario.shown(point.says)}" for point in one.points]
    return (
        "You judge one answer of a technical interview. For each criterion choose the level whose anchor fits, from 0 "
        "to 4, and copy the words of the answer that show it. Judge what is said, not how. Reply with JSON only: "
        '{"criterion": {"level": 2, "quote": "words of the answer"}}\n\n'
        f"Situation: {scenario.shown(scenario.situation)}\nQuestion: {scenario.shown(score.question.ask)}\n\n"
        f"Criteria, their levels, and what counts:\n" + "\n".join(rubric) + f"\n\nAnswer:\n{score.text}\n\nJSON:"
    )


def read(said: str, score: Score, source: str) -> Opinion:
    """The opinion in what a model said.

    Raises:
        OpinionError: there is no JSON object in it.
    """
    found = re.search(r"\{.*\}", said, re.DOTALL)
    try:
        given = json.loads(found[0]) if found else None
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise OpinionError(f"judge: {source} replied without JSON: {said[:200]!r}; ask another model")
    levels: dict[str, int] = {}
    quotes: dict[str, str] = {}
    left_out = []
    for judged in score.criteria:
        one = given.get(judged.criterion.id)
        level, quote = (one.get("level"), one.get("quote")) if isinstance(one, dict) else (None, None)
        if type(level) is not int or level not in LEVELS:
            left_out.append(f"{judged.criterion.id}: no level from 0 to 4")
        elif level and not (isinstance(quote, str) and quote.strip() and _plain(quote) in _plain(score.text)):
            left_out.append(f"{judged.criterion.id}: level {level} with a quote that is not in the answer")
        else:
            levels[judged.criterion.id], quotes[judged.criterion.id] = level, str(quote or "")
    return Opinion(source, levels, quotes, tuple(left_out))


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _by_url(url: str, model: str) -> Ask:
    def ask(text: str) -> str:
        body = {"model": model, "temperature": 0, "messages": [{"role": "user", "content": text}]}
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(KEY):
            headers["Authorization"] = f"Bearer {key}"
        address = url.rstrip("/") + ("" if url.rstrip("/").endswith("/chat/completions") else "/chat/completions")
        request = urllib.request.Request(address, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as reply:
                return str(json.load(reply)["choices"][0]["message"]["content"])
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            raise OpinionError(f"judge: {address} gave no answer ({error}); is it a chat completions URL?") from None

    return ask


def _by_folder(folder: Path) -> Ask:
    def ask(text: str) -> str:
        import qlab

        model, tokenizer = qlab.load(str(folder))
        if getattr(tokenizer, "chat_template", None):
            text = tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
            )
        tokens = tokenizer(text, return_tensors="pt")
        out = model.generate(**tokens, max_new_tokens=LONGEST, do_sample=False)
        return str(tokenizer.decode(out[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True))

    return ask
