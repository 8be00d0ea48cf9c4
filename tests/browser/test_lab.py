"""A lesson in the real JupyterLab, in a headless Chromium: run everything, move a slider, see the figure change.

The same routine has to fail on a lesson that does not run and on an explorer that does not listen, or it
would prove nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from qlab.learn.doctor import CHROMIUM
from qlab.learn.execute import execute, read, write
from qlab.learn.workspace import copy_lessons

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
SCREENSHOTS = ROOT / "build" / "screenshots"
LESSON, COACH = "02_linear_quantization.ipynb", "14_mock_interviews.ipynb"
WORKING, DEAF = "working.ipynb", "deaf.ipynb"
TOKEN = "lesson"
RUN_ALL = "notebook:run-all-cells"
PATIENCE = 120_000  # milliseconds: a busy machine is not a broken lesson

EXPLORER = """\
from matplotlib.figure import Figure
from qlab.learn import explore

def draw(bits=4, group_size=64, symmetric=True):
    figure = Figure(figsize=(6, 2.6), layout="constrained")
    axis = figure.subplots()
    levels = range(2**bits)
    axis.step(levels, levels, where="mid")
    axis.set(xlabel="weight in steps", ylabel="code", title=f"{bits} bits, groups of {group_size}, {symmetric}")
    figure.alt = f"A staircase of {2**bits} steps."
    return figure"""
SHOW = "explorer = explore(draw, bits=(2, 8), group_size=[32, 64, 128], symmetric=True)\nexplorer"
BREAK = 'explorer.controls["bits"].unobserve_all()'


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab and the page of a browser."""

    url: str
    work: Path
    page: Any


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lessons and two small notebooks, all executed and copied as a learner gets them."""
    root = tmp_path_factory.mktemp("course")
    lessons = root / "notebooks"
    lessons.mkdir()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        shutil.copy(path, lessons)
    text = new_markdown_cell("# A small lesson")
    for name, sources in {WORKING: [EXPLORER, SHOW, "1 + 1"], DEAF: [EXPLORER, SHOW, BREAK]}.items():
        write(new_notebook(cells=[text, *map(new_code_cell, sources)]), lessons / name)
        execute(lessons / name)
    copy_lessons(root)
    shutil.copy(lessons / WORKING, root / "work" / "committed.ipynb")  # with its outputs
    return root / "work"


@pytest.fixture(scope="module")
def server(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a JupyterLab of our own, with no settings of this machine's user."""
    home = tmp_path_factory.mktemp("home")
    settings = home / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    places = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    port = free_port()
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser"]
    command += [f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}"]
    command += [f"--ServerApp.root_dir={workspace}"]
    places["QLAB_HOME"] = "qlab"  # the history of interviews is not that of whoever runs the tests
    environment = {**os.environ, **{name: str(home / folder) for name, folder in places.items()}}
    with (home / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for_server(f"http://127.0.0.1:{port}/api?token={TOKEN}", process, home / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()  # the server ends its kernels
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.skip(f"no Chromium on this machine (none of {', '.join(CHROMIUM)} is installed)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        # Chromium's sandbox does not work for root, and the pages are our own.
        chromium = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def lab(browser: Any, server: str, workspace: Path) -> Iterator[Lab]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(PATIENCE)
    yield Lab(server, workspace, page)
    page.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_server(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < deadline:
        assert process.poll() is None, f"JupyterLab ended: {log.read_text()[-2000:]}"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not answer: {log.read_text()[-2000:]}")


def open_lesson(lab: Lab, name: str) -> None:
    """Open the notebook, wait until its kernel answers, and clear the outputs: committed ones would pass for new."""
    lab.page.goto(f"{lab.url}/lab/tree/{name}?token={TOKEN}&reset")
    lab.page.wait_for_selector(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Cell")
    # Before the kernel has answered, running all cells does nothing and reports success.
    lab.page.evaluate(
        """async () => {
            const context = jupyterapp.shell.currentWidget.sessionContext;
            await context.ready;
            await context.session.kernel.info;
            await jupyterapp.commands.execute('notebook:clear-all-cell-outputs');
        }"""
    )


def check_cells(lab: Lab) -> None:
    """Every code cell has run, in order, and none has an error."""
    cells = lab.page.evaluate(
        """() => jupyterapp.shell.currentWidget.content.widgets
            .filter(cell => cell.model.type === 'code')
            .map(cell => ({
                count: cell.model.executionCount,
                errors: cell.model.outputs.toJSON().filter(output => output.output_type === 'error')
                    .map(output => output.ename + ': ' + output.evalue),
            }))"""
    )
    assert [error for cell in cells for error in cell["errors"]] == []
    assert [cell["count"] for cell in cells] == list(range(1, len(cells) + 1)) != []


def move_slider(lab: Lab) -> None:
    """ArrowRight on the first slider changes the number beside it and the image under it."""
    explorer = lab.page.locator(".widget-vbox:has(.widget-slider):has(.widget-image)").first
    explorer.wait_for(state="attached", timeout=30_000)  # the cells are done: what is not there now will not come
    handle, readout = explorer.locator(".noUi-handle").first, explorer.locator(".widget-readout").first
    image = explorer.locator(".widget-image").first
    explorer.scroll_into_view_if_needed()
    before = readout.text_content(), image.get_attribute("src")
    assert image.get_attribute("title"), "the image has no description"
    handle.focus()
    handle.press("ArrowRight")
    for _ in range(100):
        after = readout.text_content(), image.get_attribute("src")
        if before[0] != after[0] and before[1] != after[1]:
            return
        lab.page.wait_for_timeout(100)
    raise AssertionError(f"readout {before[0]!r} → {after[0]!r}, image changed: {before[1] != after[1]}")


def use_lesson(lab: Lab, name: str, run: str = RUN_ALL) -> Path:
    """What a learner does with a lesson; the screenshot. `run` is the command that runs the cells."""
    open_lesson(lab, name)
    lab.page.evaluate("run => jupyterapp.commands.execute(run)", run)  # resolves when the cells are done
    check_cells(lab)
    move_slider(lab)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    screenshot = SCREENSHOTS / f"{Path(name).stem}.png"
    lab.page.screenshot(path=screenshot)
    return screenshot


def play_interview(lab: Lab, title: str, answer: str) -> str:
    """Choose an interview, answer every question and follow-up with the same words, and read the score."""
    from playwright.sync_api import TimeoutError as Late

    page = lab.page.locator(".widget-vbox:has(.widget-dropdown):has(textarea)").first
    page.wait_for(state="attached", timeout=30_000)
    page.scroll_into_view_if_needed()
    choice = page.locator("select").first
    option = choice.locator("option", has_text=title).first
    option.wait_for(state="attached")
    choice.select_option(label=option.text_content())
    page.get_by_role("button", name="Begin").click()
    ready, done = (page.get_by_role("button", name=name) for name in ("I am ready", "Done"))
    text = page.locator("textarea")
    page.get_by_text("Question 1 of").wait_for()
    page.get_by_text("0:02 of").wait_for()  # the clock runs in the page
    result = page.get_by_text("of the points").first
    for _ in range(20):
        if result.is_visible():
            break
        if ready.is_visible():
            ready.click()
        try:
            text.fill(answer, timeout=3_000)  # waits until it can be written in
        except Late:
            continue  # think-time had begun in between
        done.click()
        lab.page.wait_for_timeout(700)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    lab.page.screenshot(path=SCREENSHOTS / "interview.png")
    return str(page.text_content())


def test_a_learner_plays_an_interview_to_its_score(lab: Lab) -> None:
    open_lesson(lab, COACH)
    lab.page.evaluate("run => jupyterapp.commands.execute(run)", RUN_ALL)
    check_cells(lab)
    said = "You divide by a scale, round to the nearest code, and are off by half a step at most."
    text = play_interview(lab, "Explain quantization", said)
    assert "of the points" in text and said in text and "A strong answer" in text
    kept = list((lab.work.parent.parent).glob("home*/qlab/interviews/*.json"))
    assert kept and json.loads(kept[0].read_text())["turns"][0]["text"] == said


@pytest.mark.parametrize("name", [WORKING, LESSON])
def test_a_learner_runs_a_lesson_and_moves_a_slider(lab: Lab, name: str) -> None:
    if not (lab.work / name).exists():
        pytest.skip(f"notebooks/{name} does not exist yet")
    assert use_lesson(lab, name).stat().st_size > 10_000


def test_an_explorer_that_does_not_listen_fails(lab: Lab) -> None:
    with pytest.raises(AssertionError, match=r"readout '4' → '5', image changed: False"):
        use_lesson(lab, DEAF)


def test_outputs_of_an_earlier_run_do_not_pass_for_a_run(lab: Lab) -> None:
    """The lesson as committed, and a run that silently does nothing."""
    counts = [cell.execution_count for cell in read(lab.work / "committed.ipynb").cells if cell.cell_type == "code"]
    assert counts == [1, 2, 3], "the file does hold an earlier run"
    with pytest.raises(AssertionError, match=r"None, None, None"):
        use_lesson(lab, "committed.ipynb", run="notebook:deselect-all")
