"""What is kept of a cell's outputs; how cells are run is seen in test_hostile."""

from __future__ import annotations

from qlab.learn.grade.worker import MAX_IMAGE, MAX_TEXT, Outputs


def test_text_is_cut_once() -> None:
    outputs = Outputs()
    for _ in range(1000):
        outputs.add("stream", {"name": "stdout", "text": "x" * 999})
    [kept] = outputs.kept
    assert MAX_TEXT < len(kept["text"]) < MAX_TEXT + 100
    assert kept["text"].endswith("… (the rest was cut off)\n")
    outputs.add("error", {"ename": "E", "evalue": "y" * 9999, "traceback": ["z" * 99_999]})
    assert outputs.failed.startswith("E: yyy") and len(outputs.failed) == 500
    assert sum(len(one["text"]) for one in outputs.kept) < MAX_TEXT + 100


def test_only_text_and_small_images_are_kept() -> None:
    outputs = Outputs()
    outputs.add("display_data", {"data": {"text/html": "<b>", "text/plain": "plain"}})
    outputs.add("execute_result", {"data": {"application/javascript": "alert(1)"}})
    outputs.add("display_data", {"data": {"image/png": "abcd", "text/plain": "figure"}})
    outputs.add("display_data", {"data": {"image/png": "x" * (MAX_IMAGE + 1), "text/plain": "large figure"}})
    outputs.add("comm_open", {"data": {"text/plain": "no"}})
    assert outputs.kept == [
        {"kind": "text", "text": "plain\n\n"},
        {"kind": "png", "text": "abcd"},
        {"kind": "text", "text": "large figure\n"},
    ]


def test_many_images_do_not_add_up() -> None:
    outputs = Outputs()
    for _ in range(100):
        outputs.add("display_data", {"data": {"image/png": "abcd"}})
    assert [one["kind"] for one in outputs.kept].count("png") == 20


def test_messages_of_odd_shapes_are_survived() -> None:
    outputs = Outputs()
    outputs.add("stream", {})
    outputs.add("stream", {"text": 5})
    outputs.add("error", {"traceback": [None, 3]})
    outputs.add("display_data", {"data": {"image/png": 7}})
    assert all(isinstance(one["text"], str) for one in outputs.kept)
