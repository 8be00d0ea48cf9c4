"""The quality file: every number has a source, and what is read is what was written."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qlab.deploy.entries import check_origin
from qlab.deploy.quality import measured as module
from qlab.deploy.quality.measured import DATA, NATS, REFERENCE, Answers, quality

DOCUMENT = json.loads(DATA.read_text(encoding="utf-8"))


def test_every_number_has_a_source_a_date_and_says_how_far_to_trust_it() -> None:
    for name, entry in DOCUMENT["methods"].items():
        check_origin(name, entry)
        assert DOCUMENT["command"] in entry["source"]
        assert "nano" in entry["confidence"]
    for field in ("about", "command", "seed", "split", "examples", "versions", "weights_sha256"):
        assert DOCUMENT[field] not in (None, "", {}), field
    assert DOCUMENT["split"] == "held-out"


def test_what_is_read_is_what_was_written() -> None:
    found = quality()
    assert list(found.methods) == list(DOCUMENT["methods"])
    assert found.workloads == tuple(DOCUMENT["tokens"])
    for name, entry in DOCUMENT["methods"].items():
        for workload, rows in entry["workloads"].items():
            answers = found.methods[name].answers[workload]
            assert answers.accuracy == pytest.approx(rows["accuracy"]["value"])
            assert answers.stderr == pytest.approx(rows["accuracy"]["stderr"])
            assert "".join("01"[one] for one in answers.same) == rows["same"]
            assert [round(-math.log(c) / NATS) for c in answers.confidence] == rows["doubt"]


def test_the_reference_is_itself() -> None:
    reference = quality().method(REFERENCE)
    assert reference.kl == 0
    assert all(all(answers.same) for answers in reference.answers.values())


def test_a_table_in_words() -> None:
    text = str(quality())
    assert "16-bit" in text and "arithmetic" in text and f"{DOCUMENT['examples']} held-out examples" in text


def test_unknown_methods_get_the_nearest_names() -> None:
    assert quality().method("int4 G128") is quality().methods["INT4 g128"]
    with pytest.raises(ValueError, match="method: 'INT4 g12' is not known; did you mean .*INT4 g128"):
        quality().method("INT4 g12")


def small() -> dict[str, Any]:
    rows = {"correct": "10", "same": "11", "doubt": [0, 69315]}
    entry = {
        "source": "a test", "date": "2026-11-22", "confidence": "none", "arguments": {}, "bits_per_weight": 16.0,
        "kl": {"value": 0.0, "stderr": 0.0}, "workloads": {"sql": rows},
    }  # fmt: skip
    return {"examples": 2, "tokens": {"sql": [3, 4]}, "methods": {"16-bit": entry}}


def read(tmp_path: Path, document: dict[str, Any]) -> module.Quality:
    path = tmp_path / "q.json"
    path.write_text(json.dumps(document))
    module.quality.cache_clear()
    return quality(path)


def test_a_file_by_hand(tmp_path: Path) -> None:
    found = read(tmp_path, small()).methods["16-bit"].answers["sql"]
    assert found.correct == (True, False) and found.same == (True, True)
    assert found.confidence == pytest.approx((1.0, 0.5), abs=1e-5)
    assert found.accuracy == 0.5 and found.stderr == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["methods"]["16-bit"].pop("source"), "q.json: 16-bit has no source"),
        (lambda d: d["methods"]["16-bit"].update(date="lately"), "q.json: 16-bit has the date 'lately'"),
        (lambda d: d["methods"]["16-bit"]["workloads"]["sql"].update(same="1"), "sql has .* answers for 2 prompts"),
        (lambda d: d["methods"]["16-bit"]["workloads"].clear(), "16-bit: its workloads are ; allowed is sql"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    document = small()
    change(document)
    with pytest.raises(ValueError, match=message):
        read(tmp_path, document)


def test_accuracy_of_answers() -> None:
    assert Answers((True,) * 4, (True,) * 4, (1.0,) * 4).stderr == 0


def test_quality_and_routing_need_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; from qlab.deploy.quality import fleet, power, routing; routing.quality();"
        "assert not {'torch', 'numpy', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_monitoring_needs_no_torch() -> None:
    code = "import sys, qlab.deploy.quality.checks as _; assert not {'torch', 'matplotlib'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
