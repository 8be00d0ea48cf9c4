from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from qlab.learn.interview import scenario, second_opinion
from qlab.learn.interview.score import Score, score
from qlab.learn.interview.second_opinion import OpinionError, judge, prompt, read

TEXT = "Weights take 73 GB in FP8. It all fits."


@pytest.fixture(scope="module")
def scored() -> Score:
    one = scenario.load("recommender_on_aws")
    return score(one, one.questions[0], TEXT)


class Model(BaseHTTPRequestHandler):
    """A server that speaks the chat protocol, and says what it was told to say."""

    says: Any = ""
    seen: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append({"path": self.path, "key": self.headers["Authorization"], **body})
        reply = json.dumps(
            self.says if isinstance(self.says, dict) else {"choices": [{"message": {"content": self.says}}]}
        )
        self.send_response(200)
        self.end_headers()
        self.wfile.write(reply.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    Model.seen = []
    http = HTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}/v1"
    http.shutdown()
    http.server_close()


def test_a_model_at_a_url_is_asked_with_rubric_and_answer(
    server: str, scored: Score, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(second_opinion.KEY, "secret")
    levels = {"memory": {"level": 2, "quote": "weights take 73 GB"}, "traffic": {"level": 0, "quote": ""}}
    Model.says = f"Sure!\n```json\n{json.dumps(levels)}\n```"
    one = scenario.load("recommender_on_aws")
    opinion = judge(server, "some-model")(one, scored)
    assert opinion.levels == {"memory": 2, "traffic": 0} and "some-model" in opinion.source
    assert opinion.left_out == ("speed: no level from 0 to 4", "evidence: no level from 0 to 4")
    (seen,) = Model.seen
    assert seen["path"] == "/v1/chat/completions" and seen["key"] == "Bearer secret" and seen["model"] == "some-model"
    asked = seen["messages"][0]["content"]
    assert TEXT in asked and "Counts the memory" in asked and "{" not in asked.split("JSON only:")[0]
    assert opinion.to_dict()["criteria"]["memory"]["level"] == 2


def test_a_level_whose_quote_is_not_in_the_answer_is_left_out(scored: Score) -> None:
    said = json.dumps({"memory": {"level": 4, "quote": "an excellent derivation"}, "speed": {"level": 7, "quote": "x"}})
    opinion = read(said, scored, "m")
    assert opinion.levels == {}
    assert "memory: level 4 with a quote that is not in the answer" in opinion.left_out


@pytest.mark.parametrize("said", ["", "The candidate did well.", "{not json}", "[1, 2]"])
def test_what_is_no_opinion(scored: Score, said: str) -> None:
    with pytest.raises(OpinionError, match="replied without JSON"):
        read(said, scored, "m")


def test_a_url_that_is_none(scored: Score, server: str) -> None:
    one = scenario.load("recommender_on_aws")
    with pytest.raises(OpinionError, match="gave no answer"):
        judge("http://127.0.0.1:9", "m")(one, scored)
    Model.says = {"error": "no such model"}
    with pytest.raises(OpinionError, match="gave no answer"):
        judge(server, "m")(one, scored)


def test_a_judge_is_chosen_explicitly(tmp_path: Path) -> None:
    with pytest.raises(OpinionError, match="name one with --judge-model"):
        judge("https://example.org/v1")
    with pytest.raises(OpinionError, match="give a URL that begins with http, or a folder"):
        judge("gpt-5")
    with pytest.raises(OpinionError, match="or a folder"):
        judge(str(tmp_path / "missing"))


def test_a_local_model_is_asked(scored: Score, monkeypatch: pytest.MonkeyPatch) -> None:
    """nano cannot judge, but it is asked: what it says is no JSON, and that is said."""
    from qlab.models.load import NANO

    monkeypatch.setattr(second_opinion, "LONGEST", 4)
    one = scenario.load("recommender_on_aws")
    monkeypatch.setattr(second_opinion, "prompt", lambda scenario, score: "def f(")
    with pytest.raises(OpinionError, match="the model in .* replied without JSON"):
        judge(str(NANO))(one, scored)


def test_the_prompt_holds_every_anchor(scored: Score) -> None:
    one = scenario.load("recommender_on_aws")
    text = prompt(one, scored)
    for judged in scored.criteria:
        for described in judged.criterion.levels.values():
            assert one.shown(described.anchor) in text
