"""The masters, unchanged, in a real nbgrader course: released, submitted by students, graded, fed back."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from qlab.learn.execute import read, write
from qlab.learn.questions import SETS
from qlab.learn.workspace import reset

ROOT = Path(__file__).parents[2]
MASTERS, EXERCISES = ROOT / "solutions", ROOT / "exercises"

# In each set one line of one answer, a usual mistake in it, and what the feedback then says.
MISTAKES = {
    "01_memory_math": ("memory.kv_bytes", "2 * ", "", "keys"),
    "02_linear": ("linear.zero_point", "torch.round(x / scale + zero)", "(x / scale + zero)", "cut off instead"),
    "03_nf4_and_codebooks": (
        "codebook.pack_high_first",
        "row[0::2] << 4 | row[1::2]",
        "row[0::2] | row[1::2] << 4",
        "halves are swapped",
    ),
    "04_outliers_and_llm_int8": ("llm_int8.linear", "x.masked_fill(outliers, 0.0)", "x", "are in both parts"),
    "05_smoothquant_w8a8": (
        "smoothquant.scales",
        "dead = (input_max == 0) | (weight_max == 0)",
        "dead = input_max == 0",
        "one without weights does not",
    ),
    "06_gptq": ("gptq.damp", "diagonal[~dead].mean()", "diagonal.mean()", "mean is taken over the whole diagonal"),
    "07_awq_and_hqq": ("awq.scales", ".clamp(min=1e-4)", "", "lower limit of 1e-4 is missing"),
    "08_fp8_and_kv_cache": ("kv_cache.bytes_per_token", "+ 2 + 2)", "+ 2)", "minima are not counted"),
    "09_triton_dequant": (
        "kernels.unpack4",
        "mask=2 * j + 1 < columns",
        "mask=j < size",
        "spare half of an odd row is stored",
    ),
    "10_speed_on_gpu": (
        "roofline.decode_tokens_per_second",
        "context * batch / bandwidth",
        "context / bandwidth",
        "is read for one request",
    ),
    "11_choosing_a_method": (
        "choosing.route",
        "small_price + asked / requests * large_price",
        "(1 - asked / requests) * small_price + asked / requests * large_price",
        "pays for the large model alone",
    ),
    "12_four_or_eight_bits": (
        "deployment.serve",
        "clock = max(clock, requests[joined][0])",
        "clock = requests[joined][0]",
        "the clock goes back",
    ),
}
# A right answer may warn and chatter: nbgrader gives no points to a test cell with anything on stderr.
NOISE = "    import sys, warnings\n    warnings.warn('noise')\n    print('noise', file=sys.stderr)\n"


@dataclass(frozen=True)
class Course:
    """A course with one assignment, and what its gradebook says: student, then cell, then points; None if by hand."""

    name: str
    folder: Path
    home: Path
    points: dict[str, dict[str, float | None]]
    possible: dict[str, float]  # of the questions that are checked


# One test for each set: its course takes half a minute, and parallel workers would build it once each.
@pytest.mark.parametrize("name", [one.name for one in SETS])
def test_a_course(name: str, tmp_path: Path) -> None:
    if not (MASTERS / f"{name}.ipynb").is_file():
        pytest.skip(f"solutions/{name}.ipynb is not there yet")
    course = teach(name, tmp_path)
    released_is_what_is_committed(course)
    right_answers_get_every_point_that_a_check_gives(course)
    an_untouched_notebook_gets_none(course)
    a_mistake_costs_exactly_its_question(course)
    the_open_question_waits_for_a_person(course)
    every_student_gets_feedback_and_nothing_is_recorded(course)
    no_check_writes_to_stderr(course)


def teach(name: str, folder: Path) -> Course:
    home = folder / "home"
    (folder / "nbgrader_config.py").write_text('c = get_config()\nc.CourseDirectory.course_id = "qlab"\n')
    source = folder / "source" / name / f"{name}.ipynb"
    source.parent.mkdir(parents=True)
    source.write_bytes((MASTERS / f"{name}.ipynb").read_bytes())

    def nbgrader(*arguments: str) -> None:
        settings = {"QLAB_HOME": home, "JUPYTER_CONFIG_DIR": folder / "config", "IPYTHONDIR": folder / "ipython"}
        environment = {**os.environ, **{variable: str(path) for variable, path in settings.items()}}
        # nbgrader calls a program, alembic: the environment has to be active.
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        command = [sys.executable, "-m", "nbgrader", *arguments, name]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    nbgrader("generate_assignment")
    for student in ("right", "mistaken", "untouched"):
        submit(student, name, folder)
    nbgrader("autograde")
    nbgrader("generate_feedback")
    return Course(name, folder, home, *scores(folder, name))


def submit(student: str, name: str, folder: Path) -> None:
    """What the student hands in."""
    released = folder / "release" / name / f"{name}.ipynb"
    if student == "mistaken":  # the copy of `qlab start`, where the links lead elsewhere, is as good
        released = reset(name, root=ROOT, work=folder / "work").path
    notebook = read(released)
    solutions = {cell.id: cell.source for cell in read(MASTERS / f"{name}.ipynb").cells}
    question, line, mistake, _ = MISTAKES[name]
    answers = [cell for cell in notebook.cells if cell.id.endswith("-answer")]
    for number, cell in enumerate(answers if student != "untouched" else []):
        cell.source = solutions[cell.id]
        if student == "right" and number == 0:
            cell.source = cell.source.replace("    ### BEGIN SOLUTION\n", NOISE)
            assert NOISE in cell.source
        if student == "mistaken" and cell.id == f"{question.replace('.', '-')}-answer":
            assert line in cell.source
            cell.source = cell.source.replace(line, mistake)
    target = folder / "submitted" / student / name / f"{name}.ipynb"
    target.parent.mkdir(parents=True)
    write(notebook, target)


def scores(folder: Path, name: str) -> tuple[dict[str, dict[str, float | None]], dict[str, float]]:
    from nbgrader.api import Gradebook

    points: dict[str, dict[str, float | None]] = {}
    possible: dict[str, float] = {}
    with Gradebook(f"sqlite:///{folder / 'gradebook.db'}", "qlab") as gradebook:
        for submission in gradebook.assignment_submissions(name):
            (notebook,) = submission.notebooks
            points[submission.student_id] = {grade.cell.name: grade.auto_score for grade in notebook.grades}
            possible = {grade.cell.name: grade.max_score for grade in notebook.grades if not grade.needs_manual_grade}
    return points, possible


def released_is_what_is_committed(course: Course) -> None:
    """Also says that `make exercises` takes no other way than nbgrader does."""
    theirs = read(course.folder / "release" / course.name / f"{course.name}.ipynb")
    ours = read(EXERCISES / f"{course.name}.ipynb")
    assert theirs.cells == ours.cells


def right_answers_get_every_point_that_a_check_gives(course: Course) -> None:
    questions = next(one.questions for one in SETS if one.name == course.name)
    assert set(course.possible) == {question.replace(".", "-") for question in questions}
    assert checked(course, "right") == course.possible


def an_untouched_notebook_gets_none(course: Course) -> None:
    assert checked(course, "untouched") == dict.fromkeys(course.possible, 0)


def a_mistake_costs_exactly_its_question(course: Course) -> None:
    question, _, _, says = MISTAKES[course.name]
    assert checked(course, "mistaken") == {**course.possible, question.replace(".", "-"): 0}
    feedback = course.folder / "feedback" / "mistaken" / course.name / f"{course.name}.html"
    assert says in feedback.read_text(encoding="utf-8")


def the_open_question_waits_for_a_person(course: Course) -> None:
    for points in course.points.values():
        (by_hand,) = set(points) - set(course.possible)
        assert points[by_hand] is None


def every_student_gets_feedback_and_nothing_is_recorded(course: Course) -> None:
    given = {path.parent.parent.name for path in (course.folder / "feedback").glob("*/*/*.html")}
    assert given == set(course.points) == {"right", "mistaken", "untouched"}
    assert not course.home.exists(), "grading others is no progress of the teacher's"


def no_check_writes_to_stderr(course: Course) -> None:
    for student in course.points:
        graded = read(course.folder / "autograded" / student / course.name / f"{course.name}.ipynb")
        outputs = [(cell.id, one) for cell in graded.cells for one in cell.get("outputs", [])]
        assert [cell for cell, one in outputs if one.get("name") == "stderr"] == []


def checked(course: Course, student: str) -> dict[str, float | None]:
    return {cell: points for cell, points in course.points[student].items() if cell in course.possible}
