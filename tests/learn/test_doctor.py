from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from qlab.learn import doctor
from qlab.learn.doctor import Machine


@pytest.fixture
def laptop() -> Machine:
    """A complete Linux machine without a GPU."""
    return Machine(
        python="3.11.7",
        system="Linux 6.1 on x86_64",
        packages=dict.fromkeys(doctor._PACKAGES, "1.0"),
        cuda=None,
        cuda_note="this build of PyTorch is for the CPU",
        gpus=[],
        cores=2,
        memory=8 * 2**30,
        memory_free=3 * 2**30,
        disk_free=50 * 2**30,
        chromium="/usr/bin/chromium",
    )


def without(machine: Machine, *names: str) -> Machine:
    return replace(machine, packages=machine.packages | dict.fromkeys(names))


def runs(machine: Machine) -> dict[str, str]:
    return {part.name: part.runs for part in doctor.course(machine)}


LESSONS, LIBRARIES, LAB, MEMORY, KERNELS, BROWSER = (
    "Lessons and exercises",
    "Comparison with other libraries",
    "JupyterLab (make lab)",
    "Deployment memory (qlab memory)",
    "Triton kernels (lesson 09)",
    "Browser test of the lessons",
)


def test_a_complete_laptop_runs_everything_live_and_kernels_interpreted(laptop: Machine) -> None:
    live = dict.fromkeys([LESSONS, LIBRARIES, LAB, MEMORY, BROWSER], "live")
    assert runs(laptop) == live | {KERNELS: "interpreted"}


def test_a_gpu_runs_kernels_live(laptop: Machine) -> None:
    machine = replace(laptop, cuda="13.0", cuda_note="CUDA 13.0, 1 GPU", gpus=["NVIDIA L4, 22.0 GiB"])
    assert runs(machine)[KERNELS] == "live"
    assert ("GPU", "NVIDIA L4, 22.0 GiB") in doctor.rows(machine)


@pytest.mark.parametrize("gone", ["torch", "triton"])
def test_kernels_fall_back_to_recorded_results(laptop: Machine, gone: str) -> None:
    assert runs(without(laptop, gone))[KERNELS] == "recorded"


def test_kernels_are_recorded_away_from_linux(laptop: Machine) -> None:
    assert runs(replace(laptop, system="Darwin 24.0 on arm64"))[KERNELS] == "recorded"


@pytest.mark.parametrize(
    ("gone", "part"),
    [
        ("transformers", LESSONS),
        ("ipywidgets", LESSONS),
        ("gguf", LIBRARIES),
        ("jupyterlab", LAB),
        ("playwright", BROWSER),
    ],
)
def test_a_missing_package_is_named_where_it_is_missed(laptop: Machine, gone: str, part: str) -> None:
    found = {p.name: p for p in doctor.course(without(laptop, gone))}[part]
    assert found.runs == "not yet"
    assert gone in found.why


def test_chromium_matters_to_the_browser_test_only(laptop: Machine) -> None:
    before, after = runs(laptop), runs(replace(laptop, chromium=None))
    assert {name for name in before if before[name] != after[name]} == {BROWSER}


def test_rows_are_words_even_when_nothing_is_known(laptop: Machine) -> None:
    bare = replace(without(laptop, *doctor._PACKAGES), memory=None, memory_free=None, chromium=None)
    text = dict(doctor.rows(bare))
    assert text["PyTorch"] == text["Triton"] == text["JupyterLab"] == "not installed"
    assert text["Memory"] == "unknown, unknown of it free"
    assert text["Chromium"].startswith("not found")
    assert all(what and found and "None" not in found for what, found in doctor.rows(bare))


def test_this_machine_is_examined() -> None:
    machine = doctor.examine()
    assert machine.python == ".".join(map(str, sys.version_info[:3]))
    assert machine.cores >= 1 and machine.disk_free > 0
    assert machine.packages["torch"] is not None
    assert bool(machine.gpus) == (machine.cuda is not None)
    assert json.loads(json.dumps(doctor.to_dict(machine)))["course"][0]["name"] == LESSONS


def test_it_answers_where_nothing_is_installed() -> None:
    # -S leaves out site-packages: the standard library and this repository are all that is there.
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from qlab.learn import doctor;"
        "machine = doctor.examine(); print(dict(doctor.rows(machine))['CUDA'], '|', doctor.course(machine)[0].why)"
    )
    repository = str(Path(doctor.__file__).parents[2])
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, repository], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("torch is not installed | missing: torch, transformers")


def test_a_torch_that_does_not_import_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # `import torch` now raises ImportError
    cuda, note, gpus = doctor._cuda()
    assert cuda is None and gpus == []
    assert "does not import" in note
