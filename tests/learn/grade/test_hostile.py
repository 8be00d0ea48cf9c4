"""Submissions that are broken, or that want points they did not earn. Each runs in the real box.

None may crash the grader, exceed a limit or gain a point; and what was earned before is kept.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

WRONG = "def zero_point_quantize(x, bits):\n    return torch.zeros_like(x, dtype=torch.uint8), 1.0, 0\n"
OUT = "__import__('pathlib').Path(__import__('os').environ['QLAB_BOX'], 'out')"
PASSED, FAILED, ERROR, NOTHING = "passed", "failed", "error", "not attempted"


@dataclass(frozen=True)
class Attack:
    """A submission, and what it has to get: the outcome of each question, and words that the result has to say."""

    name: str
    make: Callable[[Any], Any]
    first: str = PASSED
    second: str = PASSED
    says: str = ""
    needs_namespaces: bool = False


def second(body: str) -> Callable[[Any], Any]:
    """The first answer is right; the body of the second is this."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return lambda w: w.submission(second=f"def zero_point_quantize(x, bits):\n{lines}\n")


def before(source: str, **answers: str) -> Callable[[Any], Any]:
    """Everything is right but for `answers`; this cell runs before them."""
    return lambda w: w.with_cell(source, **answers)


def between(source: str, **answers: str) -> Callable[[Any], Any]:
    """This cell runs after the first question was collected."""
    return lambda w: w.with_cell(source, behind="linear-absmax", **answers)


def without(*ids: str) -> Callable[[Any], Any]:
    def make(w: Any) -> Any:
        made = w.submission()
        made["cells"] = [cell for cell in made["cells"] if cell["id"] not in ids]
        return made

    return make


def changed(change: Callable[[dict[str, Any]], None], which: str = "", **answers: str) -> Callable[[Any], Any]:
    """Change some of the cells: those whose id ends like that."""

    def make(w: Any) -> Any:
        made = w.submission(**answers)
        for cell in made["cells"]:
            if cell["id"].endswith(which):
                change(cell)
        return made

    return make


def twice(earlier: str | None, later: str | None) -> Callable[[Any], Any]:
    """Two answer cells of the second question with one grade_id; the copy is at the end of the notebook."""

    def make(w: Any) -> Any:
        made = w.submission(second=earlier)
        copy = next(cell for cell in made["cells"] if cell["id"] == "linear-zero_point-answer")
        made["cells"].append({**copy, "id": "a-copy", "source": later or w.right["linear.zero_point"]})
        return made

    return make


ATTACKS = [
    # It does not end, or ends too much.
    Attack("infinite loop in the function", second("while True: pass"), PASSED, ERROR, "together may take 2 s"),
    Attack(
        "infinite loop in the cell",
        lambda w: w.submission(second="while True: pass\n" + w.right["linear.zero_point"]),
        PASSED,
        ERROR,
        "ran longer than 2 s",
    ),
    Attack(
        "infinite loop that catches the interrupt",
        lambda w: w.submission(
            first="def absmax_quantize(x, bits):\n    while True:\n        try:\n            while True: pass\n"
            "        except BaseException: pass\n"
        ),
        ERROR,
        PASSED,
    ),
    Attack(
        "memory bomb",
        second("held = []\nwhile True: held.append(bytearray(50_000_000))"),
        PASSED,
        ERROR,
    ),
    Attack(
        "nothing, and a check of one's own",
        lambda w: w.submission(second='check("linear.zero_point", None)\n' + w.right["linear.zero_point"]),
    ),
    Attack(
        "hints and a solution in the cell of the answer",
        lambda w: w.submission(
            second='from qlab.learn import hint, solution\nhint("linear.zero_point")\nhint("linear.zero_point", 2)\n'
            'solution("linear.zero_point")\n' + w.right["linear.zero_point"]
        ),
    ),
    Attack("sys.exit in a cell", before("import sys; sys.exit(0)")),
    Attack("exit() in a cell", before("exit()")),
    Attack(
        "os._exit in the function",
        lambda w: w.submission(first="def absmax_quantize(x, bits):\n    import os; os._exit(0)\n"),
        ERROR,
        PASSED,
        "Python ended while your function ran",
    ),
    Attack(
        "os._exit in a cell",
        lambda w: w.submission(second="import os; os._exit(0)\n" + w.right["linear.zero_point"]),
        PASSED,
        ERROR,
        "ended Python",
    ),
    Attack(
        "raises in an import",
        lambda w: w.submission(second="import no_such_module\n" + w.right["linear.zero_point"]),
        PASSED,
        ERROR,
        "ModuleNotFoundError",
    ),
    # The notebook is not what it was.
    Attack("untouched", lambda w: w.submission(*map(w.stub, w.right)), NOTHING, NOTHING),
    Attack("answer and check deleted", without("linear-zero_point", "linear-zero_point-answer"), PASSED, NOTHING),
    Attack("copied cell, the copy is wrong", twice(None, WRONG), PASSED, FAILED, "2 cells linear-zero_point-answer"),
    Attack(
        "locked cells are edited",
        changed(
            lambda cell: cell.update(source="torch = None") if not cell["id"].endswith("-answer") else None,
            second=WRONG,
        ),
        PASSED,
        FAILED,
    ),
    Attack(
        "answer as markdown",
        changed(lambda cell: cell.update(cell_type="markdown"), "zero_point-answer"),
        PASSED,
        NOTHING,
        "markdown",
    ),
    Attack("another kernel's name", lambda w: w.submission(kernelspec={"name": "../../evil", "language": "julia"})),
    Attack("empty notebook", lambda w: {"cells": [], "nbformat": 4, "metadata": {}}, NOTHING, NOTHING),
    # It wants to be judged by itself.
    Attack(
        "rebinds check and collect", between("check = collect = lambda *a, **k: True", second=WRONG), PASSED, FAILED
    ),
    Attack(
        "patches comparisons",
        before(
            "import numpy as np\nfor m in (torch, np):\n"
            "    for f in ('equal', 'allclose', 'isclose', 'all', 'any', 'abs'): setattr(m, f, lambda *a, **k: True)\n"
            "torch.Tensor.__eq__ = torch.Tensor.__le__ = lambda *a: True",
            second=WRONG,
        ),
        PASSED,
        FAILED,
    ),
    Attack(
        "patches builtins",
        between("import builtins\nbuiltins.all = builtins.any = lambda *a: True", second=WRONG),
        PASSED,
        FAILED,
    ),
    Attack(
        "another module in the collector's place",
        between("import sys, types\nsys.modules['qlab.learn.grade.collect'] = types.SimpleNamespace(collect=print)"),
        PASSED,
        ERROR,
        "No answer came back",
    ),
    Attack(
        "an answer that equals everything",
        second(
            "class Yes:\n    __eq__ = __le__ = __lt__ = lambda *a: True\n    __hash__ = None\n"
            "    def __getattr__(self, name): return self\nreturn Yes(), Yes(), Yes()"
        ),
        PASSED,
        FAILED,
    ),
    Attack(
        "a tensor that lies",
        second(
            "class Yes(torch.Tensor):\n    @classmethod\n    def __torch_function__(cls, *a, **k): return True\n"
            "return torch.zeros_like(x).to(torch.uint8).as_subclass(Yes), 1.0, 0"
        ),
        PASSED,
        FAILED,
    ),
    Attack("a generator", second("yield x"), PASSED, FAILED, "generator"),
    Attack(
        "a huge tensor",
        second("return torch.zeros(3_000_000, dtype=torch.uint8), 1.0, 0"),
        PASSED,
        ERROR,
        "far too many",
    ),
    Attack(
        "right on the learner's own seeds only",
        lambda w: w.with_cell(
            w.right["linear.zero_point"].replace("zero_point_quantize", "right")
            + "\ng = torch.Generator().manual_seed(0)\nknown = [torch.randn(33, generator=g)]",
            behind="linear-absmax",
            second="def zero_point_quantize(x, bits):\n"
            "    if any(torch.equal(x, k) for k in known): return right(x, bits)\n"
            "    return torch.zeros_like(x, dtype=torch.uint8), 1.0, 0\n",
        ),
        PASSED,
        FAILED,
    ),
    Attack(
        "an exception with a huge text",
        second("raise ValueError('\\x1b[2J<script>' + 'x' * 10**7)"),
        PASSED,
        ERROR,
        "ValueError",
    ),
    # It wants to reach what is right, or the result.
    Attack(
        "reads the master",
        lambda w: w.submission(second=f"print(open({str(w.master)!r}).read())\n" + w.right["linear.zero_point"]),
        PASSED,
        ERROR,
        "FileNotFoundError",
        needs_namespaces=True,
    ),
    Attack(
        "imports the reference",
        lambda w: w.submission(second="from qlab.learn.questions.linear.zero_point import zero_point_quantize"),
        PASSED,
        ERROR,
        "ModuleNotFoundError",
        needs_namespaces=True,
    ),
    Attack(
        "writes the result itself",
        lambda w: w.with_cell(
            f"text = '{{\"points\": 100, \"of\": 4}}'\nfor place in ('.', '..', '/tmp', {OUT}):\n"
            "    for name in ('student.json', 'grades.csv', 'result.json'):\n"
            "        try: __import__('pathlib').Path(place, name).write_text(text)\n        except OSError: pass",
            second=WRONG,
        ),
        PASSED,
        FAILED,
    ),
    Attack("answers written in advance", before(f"({OUT} / 'linear-absmax.safetensors').write_text('x' * 1000)")),
    Attack(
        "a folder in the place of the answers",
        before(f"({OUT} / 'linear-zero_point.safetensors').mkdir()"),
        PASSED,
        ERROR,
        "not a plain file",
    ),
    Attack(
        "answers overwritten afterwards",
        lambda w: w.with_cell(
            f"({OUT} / 'linear-zero_point.safetensors').write_bytes(b'\\xff' * 5000)", behind="linear-zero_point"
        ),
        PASSED,
        ERROR,
        "cannot be read",
    ),
    Attack(
        "a link in the place of the answers",
        lambda w: w.with_cell(
            f"f = {OUT} / 'linear-zero_point.safetensors'; f.unlink(); f.symlink_to('/etc/passwd')",
            behind="linear-zero_point",
        ),
        PASSED,
        ERROR,
        "cannot be read",
    ),
    Attack(
        "a pipe in the place of the answers",
        lambda w: w.with_cell(
            f"f = {OUT} / 'linear-zero_point.safetensors'; f.unlink(); __import__('os').mkfifo(f)",
            behind="linear-zero_point",
        ),
        PASSED,
        ERROR,
        "cannot be read",
    ),
    Attack(
        "answers forged from the inputs",
        lambda w: w.with_cell(
            "from qlab.learn.grade import exchange\nfrom qlab.learn.observe import Observation\n"
            f"cases = exchange.read_cases({OUT}.parent / 'in', 'linear-zero_point')\n"
            "zeros = [Observation('value', (torch.zeros_like(c.args[0], dtype=torch.uint8), 1.0, 0)) for c in cases]\n"
            f"exchange.write_observations({OUT}, 'linear-zero_point', zeros)",
            behind="linear-zero_point",
        ),
        PASSED,
        FAILED,
    ),
    # It wants to live on, to fill the machine, or to hurt the grader.
    Attack(
        "fork bomb",
        between("import os, time\nfor _ in range(300):\n    if os.fork() == 0:\n        time.sleep(60); os._exit(0)"),
        PASSED,
        ERROR,
        "more than 40 processes",
    ),
    Attack("prints megabytes", before("for _ in range(300): print('x' * 100_000)")),
    Attack("writes gigabytes", between("f = open('big', 'wb')\nwhile True: f.write(b'x' * 10**7)"), PASSED, PASSED),
    Attack(
        "shows active HTML",
        before(
            "from IPython.display import HTML, Javascript, display\n"
            "display(HTML('<script>alert(1)</script>' * 50_000), Javascript('alert(1)'))\n"
            "print('<script>alert(1)</script>')"
        ),
    ),
    Attack(
        "removes its folder", before("import os, shutil\nshutil.rmtree(os.getcwd(), ignore_errors=True)\nos.chdir('/')")
    ),
    Attack("closes its outputs", between("import os, sys\nsys.stdout.close()\nfor n in (0, 1, 2): os.close(n)")),
    Attack(
        "kills its parent", lambda w: w.with_cell("import os\nos.kill(os.getppid(), 9)", behind="linear-zero_point")
    ),
    Attack(
        "kills everything",
        lambda w: w.with_cell("import os\nos.kill(-1, 9)", behind="linear-zero_point"),
        needs_namespaces=True,
    ),
    Attack(
        "opens a connection",
        lambda w: w.submission(
            second="import socket\nsocket.create_connection(('127.0.0.1', 9), 3)\n" + w.right["linear.zero_point"]
        ),
        PASSED,
        ERROR,
        "Network is unreachable",
        needs_namespaces=True,
    ),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_submission_gets_what_it_earned(
    attack: Attack, workshop: Any, grade: Any, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if attack.needs_namespaces:
        request.getfixturevalue("namespaces")
    result = grade(attack.make(workshop))
    assert result.error is None
    outcomes = {graded.question: graded.verdict.outcome for graded in result.questions}
    said = "\n".join([graded.text for graded in result.questions] + list(result.notes))
    assert outcomes == {"linear.absmax": attack.first, "linear.zero_point": attack.second}, said
    assert attack.says in said
    assert result.points == 2 * [attack.first, attack.second].count(PASSED)
    assert result.of == 4
    assert "\x1b" not in said
    written = json.loads((tmp_path / "out/student.json").read_text())
    assert (written["points"], written["of"]) == (result.points, 4)
    page = (tmp_path / "out/student.html").read_text()
    assert "<script" not in page
    assert "only the teacher knows" not in page
    assert len(page) < 200_000
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["student.html", "student.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "student.ipynb"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "JSON"),
        (b'{"cells": [', "JSON"),
        (b"\xff\xfe\x00", "not text"),
        (b"[1, 2]", "no list of cells"),
        (b'{"cells": 5, "nbformat": 4}', "no list of cells"),
        (b'{"cells": [], "nbformat": 3}', "format is not 4"),
        (b'{"cells": [' + b"1," * 1000 + b'1], "nbformat": 4}', "1,001 cells"),
        (b"[" * 100_000, "deeply nested"),
        (b'"' + b"x" * (17 << 20) + b'"', "larger than"),
    ],
)
def test_file_that_is_no_notebook_is_a_result(content: bytes, says: str, grade: Any, tmp_path: Path) -> None:
    result = grade(content)
    assert says in result.error
    assert result.points == 0
    assert json.loads((tmp_path / "out/student.json").read_text())["error"] == result.error


def test_child_does_not_outlive_the_watchdog_that_it_killed(workshop: Any, grade: Any) -> None:
    mark = f"a-killer-of-{os.getpid()}"
    source = (
        "import os, psutil, sys, time\n"
        "guard = psutil.Process().parents()[1]\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        f"    os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(300)', '{mark}'])\n"
        "guard.kill()\ntime.sleep(9)"
    )
    result = grade(workshop.with_cell(source, behind="linear-absmax"), isolation="watchdog")
    assert [graded.verdict.outcome for graded in result.questions] == [PASSED, ERROR]
    assert [
        process.pid for process in psutil.process_iter(["cmdline"]) if mark in (process.info["cmdline"] or [])
    ] == []


def test_children_do_not_outlive_the_notebook(workshop: Any, grade: Any) -> None:
    mark = f"a-child-of-{os.getpid()}"
    source = (
        "import os, subprocess, sys\n"
        f"sleep = [sys.executable, '-c', 'import time; time.sleep(300)', '{mark}']\n"
        "subprocess.Popen(sleep, start_new_session=True)\n"
        "subprocess.Popen(sleep, start_new_session=True, env={})\n"
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: os.execv(sleep[0], sleep)\n    os._exit(0)"
    )
    for level in {grade(workshop.with_cell(source)).isolation, "watchdog"}:
        result = grade(workshop.with_cell(source), isolation=level)
        assert result.points == 4
        assert [
            process.pid for process in psutil.process_iter(["cmdline"]) if mark in (process.info["cmdline"] or [])
        ] == []


def test_watchdog_alone_keeps_the_limits(workshop: Any, grade: Any) -> None:
    forks = "import os, time\nfor _ in range(300):\n    if os.fork() == 0:\n        time.sleep(60); os._exit(0)"
    result = grade(workshop.with_cell(forks, behind="linear-absmax"), isolation="watchdog")
    assert [graded.verdict.outcome for graded in result.questions] == [PASSED, ERROR]
    assert "more than 40 processes" in result.notes[-1]
    loop = "import os\nos.kill(os.getppid(), 9)\nwhile True: pass"
    result = grade(workshop.with_cell(loop, behind="linear-absmax"), isolation="watchdog")
    assert [graded.verdict.outcome for graded in result.questions] == [PASSED, ERROR]


def test_total_time_ends_it_and_earned_points_stay(workshop: Any, grade: Any) -> None:
    from qlab.learn.grade.isolation import Limits

    slow = workshop.with_cell("import time\ntime.sleep(100)", behind="linear-absmax")
    result = grade(slow, limits=Limits(cell_seconds=100, total_seconds=12))
    assert [graded.verdict.outcome for graded in result.questions] == [PASSED, ERROR]
    assert "longer than 12 s in total" in result.questions[1].text
    assert result.seconds < 25


def test_memory_of_all_processes_together_is_limited(workshop: Any, grade: Any) -> None:
    from qlab.learn.grade.isolation import Limits

    # 40 children of 60 MB each: none exceeds its own limit.
    forks = (
        "import os, time\nfor _ in range(30):\n    if os.fork() == 0:\n"
        "        held = bytearray(os.urandom(1)) * 90_000_000; time.sleep(60); os._exit(0)\ntime.sleep(5)"
    )
    limits = Limits(cell_seconds=20, total_seconds=60, memory=1 << 30)
    result = grade(workshop.with_cell(forks, behind="linear-absmax"), limits=limits)
    assert "GiB of memory" in result.notes[-1]
    assert result.points == 2


def test_pipe_as_submission_is_a_result(workshop: Any, tmp_path: Path, level: str) -> None:
    from qlab.learn.grade.grader import grade_files

    os.mkfifo(tmp_path / "pipe_02_linear.ipynb")
    (tmp_path / "link_02_linear.ipynb").symlink_to("/etc/passwd")
    assert stat.S_ISFIFO((tmp_path / "pipe_02_linear.ipynb").stat().st_mode)
    results = grade_files([tmp_path], master=workshop.master, isolation=level, force=True)
    assert [result.error is not None for result in results] == [True, True]
    assert "root:" not in str([result.error for result in results])
