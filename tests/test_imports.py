"""What `import qlab` and `qlab memory` leave out. Each runs in an interpreter of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import qlab

HEAVY = {"torch", "transformers", "matplotlib", "numpy", "ipywidgets", "pandas", "scipy", "triton"}

_REPORT = "import sys; print(); print(*{name.partition('.')[0] for name in sys.modules})"


def loaded_after(code: str) -> set[str]:
    """Top-level modules that an interpreter holds after running `code`."""
    environment = os.environ | {"QLAB_HOME": os.devnull}  # not the progress of whoever runs the tests
    command = [sys.executable, "-c", f"{code}\n{_REPORT}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return set(done.stdout.splitlines()[-1].split())


def test_the_probe_sees_a_heavy_import() -> None:
    assert "numpy" in loaded_after("import numpy")


@pytest.mark.parametrize(
    "code",
    [
        "import qlab",
        "import qlab; dir(qlab); qlab.deploy",
        "import qlab; qlab.learn.predict",
        "import qlab.learn.questions; assert qlab.learn.questions.all_ids()",
        "from qlab.learn import check, hint, made_for, reset, solution, status; made_for('02', '0.1.0'); status()",
        "import qlab.cli; assert qlab.cli.main(['memory', 'Llama-3-70B']) == 0",
        "import qlab.cli; assert qlab.cli.main(['memory', 'nano', '--json']) == 0",
        "import qlab.cli; assert qlab.cli.main(['--help']) == 0",
        "import qlab.cli; assert qlab.cli.main(['progress']) == 0",
        "import qlab.cli; assert qlab.cli.main(['progress', '--json']) == 0",
        "import qlab.cli; assert qlab.cli.main(['interview', 'list']) == 0",
    ],
)
def test_light_paths_load_nothing_heavy(code: str) -> None:
    assert loaded_after(code) & HEAVY == set()


def test_every_public_name_is_there() -> None:
    for name in qlab.__all__:
        assert getattr(qlab, name) is not None
    assert set(qlab.__all__) == set(dir(qlab))


def test_public_functions_are_those_of_their_modules() -> None:
    from qlab.models import evaluate, load, quantize

    assert qlab.load is load.load
    assert qlab.evaluate is evaluate.evaluate
    assert qlab.quantize_model is quantize.quantize_model


@pytest.mark.parametrize(
    "first", ["qlab.learn.predict", "qlab.learn.explorer", "qlab.learn.desk", "qlab.learn.progress", "qlab.learn"]
)
def test_learn_offers_functions_whatever_was_imported_first(first: str) -> None:
    names = "check, explore, hint, made_for, predict, reset, solution, status"
    code = f"import {first}; from qlab.learn import {names}; assert all(map(callable, ({names})))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_module_of_learn_takes_the_place_of_a_function() -> None:
    from qlab import learn

    modules = {path.stem for path in Path(learn.__file__).parent.iterdir()}
    # predict is bound when the package is imported; the others come later, when the module would have won.
    assert modules & set(learn.__all__) == {"predict"}


def test_unknown_names_are_refused_by_name() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'quantise'.*quantize_model"):
        qlab.quantise  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'explorer_'.*explore"):
        qlab.learn.explorer_  # noqa: B018
