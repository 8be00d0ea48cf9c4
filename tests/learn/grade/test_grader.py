"""One file and a class: points, names, seeds, and a grader that is killed."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from qlab.learn.grade import grade_file, grade_files, grader
from qlab.learn.grade.isolation import Limits
from qlab.learn.question import Case
from qlab.learn.questions import SETS, exercise_set, question

WRONG = "def zero_point_quantize(x, bits):\n    return torch.zeros_like(x, dtype=torch.uint8), 1.0, 0\n"


def write(path: Path, submission: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(submission))
    return path


@pytest.fixture(scope="module")
def graded(workshop: Any, level: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[grader.Result]]:
    """A class of five, graded once."""
    folder = tmp_path_factory.mktemp("class")
    write(folder / "alice/02_linear.ipynb", workshop.submission())
    write(folder / "bob/02_linear.ipynb", workshop.submission(second=WRONG))
    (folder / "carol").mkdir()
    (folder / "carol/02_linear.ipynb").write_text("not a notebook")
    write(folder / "=cmd() 02_linear.ipynb", workshop.submission(*map(workshop.stub, workshop.right)))
    write(folder / ".ipynb_checkpoints/02_linear-checkpoint.ipynb", workshop.submission())
    (folder / "readme.txt").write_text("x")
    results = grade_files([folder], master=workshop.master, out=folder / "out", isolation=level, force=True, jobs=2)
    return folder, results


def test_one_result_for_each_student(graded: Any) -> None:
    folder, results = graded
    assert {result.name.as_posix(): (result.points, result.of) for result in results} == {
        "alice/02_linear": (4, 4),
        "bob/02_linear": (2, 4),
        "carol/02_linear": (0, 0),
        "=cmd() 02_linear": (0, 4),
    }
    written = sorted(path.relative_to(folder / "out").as_posix() for path in (folder / "out").rglob("*.*"))
    names = sorted(f"{result.name.as_posix()}.{kind}" for result in results for kind in ("html", "json"))
    assert written == names
    assert "JSON" in next(result.error for result in results if result.error)


def test_verdicts_say_what_it_looks_like(graded: Any) -> None:
    [bob] = [result for result in graded[1] if result.name.parts[0] == "bob"]
    assert [one.verdict.outcome for one in bob.questions] == ["passed", "failed"]
    assert bob.questions[1].text.splitlines()[0] == "linear.zero_point: failed"
    assert bob.for_a_person == (("linear-defend", 5),)


def test_untouched_is_not_attempted(graded: Any) -> None:
    [untouched] = [result for result in graded[1] if result.name.name.startswith("=")]
    assert {one.verdict.outcome for one in untouched.questions} == {"not attempted"}


def test_table_of_the_class(graded: Any) -> None:
    from qlab.learn.grade import report

    rows = list(csv.DictReader(report.table(graded[1]).splitlines()))
    assert [row["submission"] for row in rows] == [
        "'=cmd() 02_linear", "alice/02_linear", "bob/02_linear", "carol/02_linear",
    ]  # fmt: skip
    assert [row["points"] for row in rows] == ["0", "4", "2", "0"]
    assert [row["linear.zero_point"] for row in rows] == ["0", "2", "0", ""]
    assert [bool(row["error"]) for row in rows] == [False, False, False, True]
    assert rows[1]["for a person"] == "5"


def test_result_holds_what_a_regrade_needs(graded: Any) -> None:
    folder, results = graded
    documents = [json.loads((folder / f"out/{result.name}.json").read_text()) for result in results]
    assert len({document["seed"] for document in documents}) == 1
    assert {document["isolation"] for document in documents} <= {"namespaces", "watchdog"}
    [bob] = [document for document in documents if document["name"] == "bob/02_linear"]
    assert bob["questions"][1]["outcome"] == "failed"
    assert bob["for_a_person"] == [{"cell": "linear-defend", "of": 5.0}]
    assert bob["exercise"] == "02_linear" and bob["made_for"] == "0.1.0"


def test_same_seed_gives_the_same_result(graded: Any, workshop: Any, level: str) -> None:
    [bob] = [result for result in graded[1] if result.name.parts[0] == "bob"]
    again = grade_file(bob.file, master=workshop.master, isolation=level, force=True, seed=bob.seed)
    assert [one.text for one in again.questions] == [one.text for one in bob.questions]
    assert again.seed == bob.seed


def test_inputs_come_from_two_seeds_and_are_new_ones() -> None:
    asked = question("linear.zero_point")
    cases = grader.cases_of(asked.id, 7)
    assert [case.name for case in cases] == [case.name for case in asked.cases(7)] * 2
    assert str(cases) == str([*asked.cases(7), *asked.cases(8)])
    assert str(cases) != str(grader.cases_of(asked.id, 9))


def test_nothing_that_is_right_gets_into_the_box(workshop: Any, tmp_path: Path) -> None:
    from qlab.learn.grade.isolation import Box
    from qlab.learn.grade.submission import merge, read_master, read_notebook

    master = read_master(workshop.master)
    submission = read_notebook(write(tmp_path / "s.ipynb", workshop.submission(*map(workshop.stub, workshop.right))))
    box = Box(tmp_path / "box")
    box.inputs.mkdir(parents=True)
    cases = grader._fill(box, master, merge(submission, master), 3, Limits())
    assert sorted(path.name for path in box.inputs.iterdir()) == [
        "linear-absmax.safetensors", "linear-zero_point.safetensors", "plan.json",
    ]  # fmt: skip
    everything = b"".join(path.read_bytes() for path in box.inputs.iterdir())
    assert b"only the teacher knows" not in everything and b"qmax" not in everything
    assert not any(case.name.encode() in everything for calls in cases.values() for case in calls)


def test_master_is_found_by_the_set(workshop: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(grader, "CHECKOUT", tmp_path)
    file = write(tmp_path / "any name.ipynb", workshop.submission())
    monkeypatch.setattr(grader, "run", lambda *a: grader.Ended(0, 0.1))
    result = grade_file(file, isolation="watchdog", force=True)
    assert "no master of 02_linear; name it with --master" in result.error
    write(tmp_path / "solutions/02_linear.ipynb", json.loads(workshop.master.read_text()))
    result = grade_file(file, isolation="watchdog", force=True)
    assert result.error is None
    assert [one.verdict.message for one in result.questions] == [
        "It was not reached: the notebook broke off before it."
    ] * 2


def test_a_bug_of_ours_costs_one_result(workshop: Any, tmp_path: Path, monkeypatch: Any) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("\x1b[31mbroken")

    monkeypatch.setattr(grader, "run", broken)
    file = write(tmp_path / "s.ipynb", workshop.submission())
    result = grade_file(file, master=workshop.master, isolation="watchdog", force=True)
    assert result.error == "the grader failed: RuntimeError: broken"


def test_what_cannot_be_judged_is_an_error(monkeypatch: Any) -> None:
    def broken(*_: Any) -> Any:
        raise OverflowError

    monkeypatch.setattr(grader, "judge", broken)
    merged = grader.Merged((), {"linear.absmax": ()})
    verdict = grader._verdict("linear.absmax", [Case("", ())], [], merged, (), grader.Ended(0, 1.0), Limits())
    assert (verdict.outcome, verdict.message) == ("error", "The answer cannot be judged (OverflowError).")


@pytest.mark.parametrize(
    ("paths", "options", "says"),
    [
        (["none.ipynb"], {}, "file: there is no none.ipynb"),
        ([], {}, "file: no notebook in no path"),
        (["."], {"jobs": 0}, "jobs: at least 1, not 0"),
        (["."], {"isolation": "docker"}, "no level 'docker'"),
        (["."], {"master": "none.ipynb"}, "master: there is no file none.ipynb"),
    ],
)
def test_bad_input_is_named(paths: Any, options: Any, says: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.ipynb").write_text("{}")
    with pytest.raises(ValueError, match=says):
        grade_files(paths, **{"force": True, "isolation": "watchdog"} | options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ipynb"]


def test_killed_while_it_writes_leaves_whole_results(tmp_path: Path) -> None:
    """Fifty times: a process that rewrites a result without pause is killed at some moment."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom qlab.learn.files import write_whole\n"
        "n = 0\nwhile True:\n    n += 1\n    write_whole(Path(sys.argv[1]), '%d ' % n * 200_000 + 'end')\n"
        "    if n == 1: print(flush=True)"
    )
    random.seed(0)
    target = tmp_path / "out" / "result.json"
    for _ in range(50):
        process = subprocess.Popen([sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(random.random() * 0.02)
        process.kill()
        process.wait()
        process.stdout.close()
        words = target.read_text().split()
        assert words[-1] == "end"
        assert len(set(words)) == 2 and len(words) == 200_001
        assert {path.name for path in target.parent.iterdir()} <= {"result.json", ".result.json.partial"}
    grader.remove_partial(tmp_path / "out")
    assert [path.name for path in target.parent.iterdir()] == ["result.json"]


@pytest.mark.parametrize("seconds", [0.5, 2.0, 3.5])
def test_killed_while_it_grades_leaves_nothing_behind(
    seconds: float, workshop: Any, tmp_path: Path, level: str
) -> None:
    mark = f"killed-{os.getpid()}-{seconds}"
    sleep = (
        f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)', '{mark}'])"
    )
    loop = workshop.with_cell(f"{sleep}\nimport time; time.sleep(300)", behind="linear-absmax")
    write(tmp_path / "class/a.ipynb", workshop.submission())
    write(tmp_path / "class/b.ipynb", loop)
    code = (
        "import sys\nfrom qlab.learn.grade import grade_files\n"
        f"print(flush=True)\ngrade_files([{str(tmp_path / 'class')!r}], master={str(workshop.master)!r}, jobs=2,\n"
        f"    out={str(tmp_path / 'out')!r}, isolation={level!r}, force=True)"
    )
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, "TMPDIR": str(temporary)}
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(seconds)
    family = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    _, alive = psutil.wait_procs(family, timeout=30)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
    assert [p.pid for p in psutil.process_iter(["cmdline"]) if mark in (p.info["cmdline"] or [])] == []
    for path in (tmp_path / "out").rglob("[!.]*.json"):
        assert json.loads(path.read_text())["points"] == 4


def test_ctrl_c_ends_the_boxes(workshop: Any, tmp_path: Path, level: str) -> None:
    loop = workshop.with_cell("import time; time.sleep(300)", behind="linear-absmax")
    for name in ("a", "b", "c"):
        write(tmp_path / f"class/{name}.ipynb", loop)
    process = subprocess.Popen(
        [sys.executable, "-m", "qlab.cli", "grade", str(tmp_path / "class"), "--master", str(workshop.master),
         "--out", str(tmp_path / "out"), "--isolation", level, "--force"],
        stderr=subprocess.PIPE,
    )  # fmt: skip
    for _ in range(600):  # until the first box is there
        if len(psutil.Process(process.pid).children(recursive=True)) >= 3:
            break
        time.sleep(0.05)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) != 0
    _, alive = psutil.wait_procs(family, timeout=30)
    assert alive == []
    assert process.stderr is not None
    process.stderr.close()
    assert list((tmp_path / "out").rglob("*.json")) == []


@pytest.mark.parametrize("name", [one.name for one in SETS])
def test_masters_get_all_points_and_exercises_none(name: str, level: str, tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    master, exercise = root / f"solutions/{name}.ipynb", root / f"exercises/{name}.ipynb"
    for path in (master, exercise):
        if not path.exists():
            pytest.skip(f"{path.name} is not there yet")
    (tmp_path / "solved").mkdir()
    solved = tmp_path / f"solved/{name}.ipynb"
    solved.write_bytes(master.read_bytes())
    full, none = grade_files([solved, exercise], isolation=level, force=True)
    assert [one.question for one in full.questions] == list(exercise_set(name).questions)
    assert {one.verdict.outcome for one in full.questions} == {"passed"}, [one.text for one in full.questions]
    assert full.points == full.of == none.of > 0
    assert {one.verdict.outcome for one in none.questions} == {"not attempted"}, [one.text for one in none.questions]
    assert none.points == 0
    assert full.for_a_person
