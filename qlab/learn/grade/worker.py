"""Run a merged notebook, inside the box: `python -m qlab.learn.grade.worker`, with QLAB_BOX in the environment.

Reads `in/plan.json`, and writes `out/cell-N.json` after each cell: how it ended and what it printed, cut to a limit.
A cell that fails, hangs or kills the kernel does not end the run. In the last case a new kernel repeats the cells so
far, without those that killed one, so that the questions behind it are graded, too.

Nothing here is trusted: the learner's code runs in a child of this process and may have done anything to it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from queue import Empty
from typing import Any

from ..files import write_whole

MAX_TEXT = 20_000  # characters that are kept of the outputs of a cell
MAX_IMAGE = 300_000  # and of one image, in base64
MAX_KERNELS = 4
GRACE = 5.0  # seconds for a cell to end after it was interrupted
START = 60.0  # seconds for a kernel to start, and again for it to load what collecting needs


class Outputs:
    """The outputs of one cell, up to the limit."""

    def __init__(self) -> None:
        self.kept: list[dict[str, str]] = []
        self.failed = ""  # the exception of the cell, in one line
        self._left = MAX_TEXT

    def add(self, kind: str, content: dict[str, Any]) -> None:
        """Take one message of the kernel; everything but text and PNG images is dropped."""
        if kind == "stream":
            self._text("text", str(content.get("text", "")))
        elif kind == "error":
            self.failed = f"{content.get('ename', '')}: {content.get('evalue', '')}"[:500]
            self._text("error", "\n".join(map(str, content.get("traceback", [])))[-MAX_TEXT // 2 :])
        elif kind in ("execute_result", "display_data"):
            data = content.get("data", {})
            image = data.get("image/png")
            if isinstance(image, str) and len(image) <= MAX_IMAGE and len(self.kept) < 20:
                self.kept.append({"kind": "png", "text": image})
            else:
                self._text("text", str(data.get("text/plain", "")) + "\n")

    def _text(self, kind: str, text: str) -> None:
        if self._left <= 0:
            return
        if len(text) >= self._left:
            text = text[: self._left] + "\n… (the rest was cut off)\n"
        self._left -= len(text)
        if self.kept and kind == "text" == self.kept[-1]["kind"]:
            self.kept[-1]["text"] += text
        else:
            self.kept.append({"kind": kind, "text": text})


class Kernel:
    """A kernel of this very interpreter, whatever kernels the machine knows by name, and over sockets in files."""

    def __init__(self, folder: Path, number: int) -> None:
        from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
        from jupyter_client.manager import KernelManager

        class OnlyThisPython(KernelSpecManager):
            def get_kernel_spec(self, kernel_name: str) -> Any:
                launch = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
                return KernelSpec(argv=[*launch, "--HistoryManager.enabled=False"], language="python")

        self._manager = KernelManager(
            transport="ipc",
            connection_file=str(Path(os.environ["TMPDIR"]) / f"k{number}.json"),
            kernel_spec_manager=OnlyThisPython(),
        )
        self._manager.start_kernel(cwd=str(folder))
        self._client = self._manager.blocking_client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=START)
        # So that on a busy machine the seconds that torch takes are not those of the learner's first cell.
        self.execute('__import__("qlab.learn.grade.collect")', START)
        # exit() and quit() end a kernel some time after their cell, and a later cell would get the blame.
        self.execute("get_ipython().ask_exit = lambda: None", START)

    def execute(self, source: str, seconds: float) -> tuple[str, Outputs]:
        """Run one cell: ("ok" | "error" | "timeout" | "died", its outputs). After "died" there is no kernel left."""
        outputs = Outputs()
        message_id = self._client.execute(source, allow_stdin=False, stop_on_error=False)
        deadline = time.monotonic() + seconds
        interrupted = replied = False
        while True:
            kind, content = self._next(message_id)
            if kind == "status" and content.get("execution_state") == "idle":
                break
            if kind is not None:
                outputs.add(kind, content)
            elif not self._manager.is_alive():
                return ("timeout" if interrupted else "died"), outputs
            elif replied:  # and a moment later there is still no word that it is idle: its output channel is broken
                break
            else:
                replied = self._replied(message_id)
            if time.monotonic() > deadline:
                if interrupted:
                    self.kill()
                    return "timeout", outputs
                self._manager.interrupt_kernel()
                interrupted, deadline = True, time.monotonic() + GRACE
        return ("timeout" if interrupted else "error" if outputs.failed else "ok"), outputs

    def alive(self) -> bool:
        return bool(self._manager.is_alive())

    def kill(self) -> None:
        with suppress(Exception):
            self._client.stop_channels()
        with suppress(Exception):
            self._manager.shutdown_kernel(now=True)

    def _next(self, message_id: str) -> tuple[str | None, dict[str, Any]]:
        """The next message that belongs to that cell; None where there is none for a moment."""
        try:
            message = self._client.get_iopub_msg(timeout=0.2)
        except Empty:
            return None, {}
        except Exception:  # a message that somebody forged, or one that is too large to be held
            return "", {}
        if message.get("parent_header", {}).get("msg_id") != message_id:
            return "", {}
        return message["msg_type"], message["content"]

    def _replied(self, message_id: str) -> bool:
        with suppress(Exception):
            while True:
                if self._client.get_shell_msg(timeout=0)["parent_header"].get("msg_id") == message_id:
                    return True
        return False


def main() -> int:
    """Run the notebook of the plan."""
    box = Path(os.environ["QLAB_BOX"])
    plan = json.loads((box / "in" / "plan.json").read_text(encoding="utf-8"))
    folder = Path.cwd()
    seconds, cells = plan["cell_seconds"], plan["cells"]
    kernels = 0
    deadly: set[int] = set()
    kernel: Kernel | None = None
    for number, cell in enumerate(cells):
        if cell["kind"] != "code":
            continue
        if kernel is None:
            if kernels == MAX_KERNELS:
                break
            kernel = Kernel(folder, kernels)
            kernels += 1
            if not _repeat(kernel, cells, number, deadly, seconds):
                break
        status, outputs = kernel.execute(cell["source"], seconds)
        record = {"status": status, "failed": outputs.failed, "outputs": outputs.kept}
        write_whole(box / "out" / f"cell-{number}.json", json.dumps(record))
        if not kernel.alive():
            deadly.add(number)
            kernel.kill()
            kernel = None
    if kernel:
        kernel.kill()
    return 0


def _repeat(kernel: Kernel, cells: list[dict[str, Any]], before: int, deadly: set[int], seconds: float) -> bool:
    """Run the cells before that one again, but for those that are deadly and those whose answers are written."""
    for number, cell in enumerate(cells[:before]):
        if cell["kind"] == "code" and number not in deadly and not cell["collects"]:
            kernel.execute(cell["source"], seconds)
            if not kernel.alive():  # deadly the second time only
                return False
    return True


if __name__ == "__main__":
    sys.exit(main())
