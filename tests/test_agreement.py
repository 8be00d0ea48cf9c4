"""pyproject.toml, constraints.txt, environment.yml, the Makefile and .ci/run say the same thing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import qlab
from qlab.learn import doctor
from qlab.learn.grade import NOT_DEFENDED
from qlab.learn.questions import all_ids, question

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
PINS = [
    Requirement(line)
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
PINNED = {canonicalize_name(pin.name): pin for pin in PINS}
DIRECT = [
    Requirement(text)
    for group in [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for text in group
]


def version_of(pin: Requirement) -> Version:
    return Version(str(pin.specifier).removeprefix("=="))


def test_every_constraint_is_one_exact_public_version() -> None:
    assert len(PINNED) == len(PINS)
    for pin in PINS:
        assert re.fullmatch(r"==[^=<>!~*,]+", str(pin.specifier)), pin
        assert version_of(pin).local is None, f"{pin}: a local build is not on any index"
        assert not pin.name.startswith(("nvidia", "cuda")), f"{pin}: torch itself chooses its CUDA libraries"


@pytest.mark.parametrize("dependency", DIRECT, ids=lambda dependency: dependency.name)
def test_every_dependency_has_a_range_and_a_pin_inside_it(dependency: Requirement) -> None:
    assert any(part.operator == ">=" for part in dependency.specifier), "a range needs a lower end"
    assert version_of(PINNED[canonicalize_name(dependency.name)]) in dependency.specifier


def _needed(requirement: Requirement, seen: set[str]) -> Iterator[str]:
    """Names of the installed packages that a requirement pulls in on this machine, itself included."""
    name = canonicalize_name(requirement.name)
    key = f"{name}[{','.join(sorted(requirement.extras))}]"
    if key in seen:
        return
    seen.add(key)
    yield name
    try:
        needs = [Requirement(text) for text in requires(requirement.name) or []]
    except PackageNotFoundError:
        return
    for need in needs:
        extras = {"", *requirement.extras}
        if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras):
            yield from _needed(need, seen)


@pytest.mark.skipif(sys.platform != "linux", reason="the pins were made on Linux; other systems pull in a few more")
def test_what_the_dependencies_pull_in_is_pinned_and_nothing_else() -> None:
    seen: set[str] = set()
    needed = {name for dependency in DIRECT for name in _needed(dependency, seen)}
    needed = {name for name in needed if not name.startswith(("nvidia", "cuda"))}
    assert needed - set(PINNED) == set()
    if sys.version_info[:2] == (3, 11):  # a newer Python may need fewer of them
        assert set(PINNED) - needed == set()


def test_the_environment_installs_the_same_with_the_same_pins() -> None:
    pip = next(item["pip"] for item in ENVIRONMENT["dependencies"] if isinstance(item, dict))
    assert pip == ["-c constraints.txt", "-e .[lab,test]"]
    assert set(PROJECT["optional-dependencies"]) == {"lab", "test"}
    conda = [item for item in ENVIRONMENT["dependencies"] if isinstance(item, str)]
    assert "pip" in conda and len(conda) == 2, "everything but Python and pip comes through pip"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"pip install .*-e '\.\[lab,test\]' -c constraints\.txt", makefile)


def test_python_is_the_same_everywhere() -> None:
    oldest = PROJECT["requires-python"].removeprefix(">=")
    major, minor = map(int, oldest.split("."))
    assert f"python>={oldest}" in ENVIRONMENT["dependencies"]
    assert PYPROJECT["tool"]["ruff"]["target-version"] == f"py{major}{minor}"
    assert PYPROJECT["tool"]["mypy"]["python_version"] == oldest
    assert f">= ({major}, {minor})" in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert (major, minor) == doctor.OLDEST_PYTHON


def test_ci_calls_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "\nmake test\n" in script.read_text(encoding="utf-8")


def test_the_changelog_knows_this_version() -> None:
    assert f"## {qlab.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("python", "says"),
    [("echo 3.9 False #", "is 3.9"), ("no-such-python", "is not there")],
    ids=["old", "missing"],
)
@pytest.mark.parametrize("target", ["setup", "lab", "test"])
def test_an_old_python_gets_one_line(target: str, python: str, says: str, tmp_path: Path) -> None:
    command = ["make", "-C", str(ROOT), "--no-print-directory", target, f"VENV={tmp_path / 'venv'}", f"PYTHON={python}"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode != 0
    lines = (done.stdout + done.stderr).splitlines()
    assert len(lines) == 1
    assert "3.11 or newer" in lines[0] and says in lines[0]
    assert not (tmp_path / "venv").exists()


def test_the_readme_counts_the_wrong_answers_and_repeats_what_the_grader_does_not_defend_against() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    wrong = sum(len(question(one).mutants) for one in all_ids())
    assert f"\n{wrong} wrong answers fail," in readme
    for line in NOT_DEFENDED:
        assert f"- {line}" in readme
