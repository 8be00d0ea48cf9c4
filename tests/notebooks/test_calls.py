"""What a lesson calls takes the arguments that it gives, also in cells that only a GPU runs.

nbval would find most of this, after twenty minutes.
"""

from __future__ import annotations

import re
from pathlib import Path

from IPython.core.inputtransformer2 import TransformerManager
from mypy import api

from qlab.learn.execute import read

NOTEBOOKS = [path for folder in ("notebooks", "solutions") for path in sorted(Path(folder).glob("*.ipynb"))]
# Lessons use names again for other things, which mypy may not like; what is not there cannot be used in any order.
WRONG = re.compile(r"(.+) \[call-arg\]|Module\b.* has no attribute .*|Cannot find implementation .*")
# What others wrote is not looked at: with it the test takes twice as long.
CONFIG = """
[mypy]
allow_redefinition = True
check_untyped_defs = True
follow_imports = silent
ignore_missing_imports = True
[mypy-torch.*,transformers.*,numpy.*,matplotlib.*,triton.*,IPython.*,ipywidgets.*,bitsandbytes.*,gguf.*,pandas.*]
follow_imports = skip
"""
OWN = re.compile(r"^ *(?:def|class) (\w+)", re.MULTILINE)


def script(path: Path) -> str:
    """The code of a notebook, each cell under its number."""
    code = [
        f"# cell {number}\n{TransformerManager().transform_cell(cell.source)}"
        for number, cell in enumerate(read(path).cells, 1)
        if cell.cell_type == "code"
    ]
    return "\n".join(code)


def test_calls_fit_what_they_call(tmp_path: Path) -> None:
    assert NOTEBOOKS
    scripts = {f"_{path.parent.name}_{path.stem}": script(path) for path in NOTEBOOKS}
    for name, code in scripts.items():
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
    (tmp_path / "mypy.ini").write_text(CONFIG, encoding="utf-8")
    options = [f"--config-file={tmp_path / 'mypy.ini'}", "--no-error-summary"]
    printed, trouble, _ = api.run([*options, *map(str, sorted(tmp_path.glob("*.py")))])
    assert not trouble
    wrong = []
    for line in printed.splitlines():
        place, _, message = line.partition(": error: ")
        notebook = Path(place.partition(":")[0]).stem
        called = re.search(r'"(\w+)"', message)
        if WRONG.match(message.strip()) and not (called and called[1] in OWN.findall(scripts[notebook])):
            wrong.append(line)
    assert not wrong, "\n".join(wrong)
