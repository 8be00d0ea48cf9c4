"""Settings for all tests. They come before anything imports torch or transformers, which read them once."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from hypothesis import settings

# No test may reach for the network, and parallel workers may not fight for the cores.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Nobody's own progress may be touched: what a test records goes to a folder of this run.
os.environ["QLAB_HOME"] = tempfile.mkdtemp(prefix="qlab-tests-")

# The same examples on every run: a failure here is a failure everywhere. No deadline: machines differ in speed.
settings.register_profile("qlab", derandomize=True, deadline=None, database=None, print_blob=True)
settings.load_profile("qlab")


@pytest.fixture
def products() -> Callable[[], AbstractContextManager[list[Any]]]:
    """`with products() as seen:` lists every matrix product that runs below it: (name, left factor, right factor)."""
    from torch import Tensor
    from torch.utils._python_dispatch import TorchDispatchMode

    names = ("mm", "_int_mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "linear", "_scaled_mm", "einsum")

    class Spy(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[tuple[str, Tensor, Tensor]] = []

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = func.overloadpacket.__name__
            if name in names:
                left, right = [a for a in args if isinstance(a, Tensor)][-2:]
                self.seen.append((name, left, right))
            return func(*args, **(kwargs or {}))

    @contextmanager
    def watch() -> Iterator[list[Any]]:
        with Spy() as spy:
            yield spy.seen

    return watch


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Call `qlab` in this process and get its exit code, stdout and stderr."""
    from qlab import cli

    def call(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
