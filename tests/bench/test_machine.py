from __future__ import annotations

from pathlib import Path

import torch

from qlab.bench import machine


def test_what_tells_two_files_apart() -> None:
    found = machine.hardware(torch.device("cpu"))
    assert found["name"] and found["cores"] >= 1 and found["threads"] == torch.get_num_threads()
    versions = machine.versions()
    assert versions["torch"] == torch.__version__ and "gemlite" in versions
    assert all(value is None or isinstance(value, str) for value in versions.values())


def test_the_digest_follows_the_text_of_the_kernels(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1")
    before = machine._digest(tmp_path)
    assert before == machine._digest(tmp_path)
    (tmp_path / "a.py").write_text("x = 2")
    assert machine._digest(tmp_path) != before
    assert machine.KERNELS.is_dir()
