"""The committed lessons: the policy of `qlab.learn.lint`, quizzes, what is to be said in thirty seconds, and every
explorer over its whole grid.

nbval, which `make test` runs beside this, compares what the cells print.

A lesson with an explorer has an entry in `EXPLORERS`: the file's name, and for each `explore(...)` in it, in
order, a function that returns the draw function the lesson uses. The controls are not repeated here: they are
read from the lesson's own call, so that what is drawn here is what the learner can reach. Therefore a lesson
writes its controls as literals: `explore(draw, bits=(2, 8), group_size=[32, 64, 128])`.
"""

from __future__ import annotations

import ast
import functools
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from nbformat.v4 import new_code_cell, new_notebook

import qlab
from qlab.learn import explore
from qlab.learn.execute import printed, read
from qlab.learn.lint import lint

LESSONS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))

Draw = Callable[..., Figure]


def number_line() -> Draw:
    from qlab.plots.quantization import number_line

    model, _ = qlab.load("nano")
    w = model.model.layers[0].self_attn.q_proj.weight.detach()  # (out, in)
    return lambda bits, first_weight: number_line(w[0, first_weight : first_weight + 12], bits=bits)


def gpus_that_fit() -> Draw:
    from qlab.plots.memory import gpus_that_fit

    return gpus_that_fit


def grid_and_error() -> Draw:
    from qlab.plots.quantization import grid_and_error

    model, _ = qlab.load("nano")
    return functools.partial(grid_and_error, model.model.layers[2].mlp.down_proj.weight.detach())


def codebook_and_error() -> Draw:
    import torch

    from qlab.plots.codebook import codebook_and_error

    model, _ = qlab.load("nano")
    u = torch.rand(64, 768, generator=torch.Generator().manual_seed(1)) - 0.5
    samples = {
        "normal": torch.randn(64, 768, generator=torch.Generator().manual_seed(2)),
        "heavy tails": -u.sign() * torch.log1p(-2 * u.abs()),
        "uniform": 2 * u,
        "nano": model.model.layers[2].mlp.down_proj.weight.detach(),
    }
    return lambda data_type, block_size, distribution: codebook_and_error(samples[distribution], data_type, block_size)


def threshold_and_factor() -> Draw:
    import torch

    from qlab.models import corpus
    from qlab.plots.outliers import threshold_and_factor

    model, tokenizer = qlab.load("nano")
    layer = model.model.layers[2].mlp.gate_proj
    seen: list[torch.Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _layer, args: seen.append(args[0].flatten(0, -2)))
    with torch.no_grad():
        model(torch.tensor([tokenizer(corpus.held_out_text("prose"), verbose=False)["input_ids"][:128]]))
    hook.remove()
    return functools.partial(threshold_and_factor, layer.weight.detach(), seen[0])


def ratio_and_grid() -> Draw:
    from qlab.plots.awq import ratio_and_grid, toy_layer

    return functools.partial(ratio_and_grid, *toy_layer())


def correlation_and_bits() -> Draw:
    from qlab.plots.gptq import correlation_and_bits

    return correlation_and_bits


def alpha_and_factor() -> Draw:
    from qlab.plots.smoothquant import alpha_and_factor, toy_layer

    return functools.partial(alpha_and_factor, *toy_layer())


def inputs_and_outliers() -> Draw:
    import torch

    from qlab.plots.float8 import inputs_and_outliers

    x = torch.randn(1024, 256, generator=torch.Generator().manual_seed(0))  # the shape of the lesson's, 8 x 128 tokens
    return functools.partial(inputs_and_outliers, x, [7, 133])


def keys_in_bits() -> Draw:
    import torch

    from qlab.plots.kv_cache import keys_in_bits

    keys = torch.randn(96, 64, generator=torch.Generator().manual_seed(0))  # (tokens, head size), as in the lesson
    return functools.partial(keys_in_bits, keys, [5, 7, 37, 39])


def one_program() -> Draw:
    from qlab.plots.kernels import one_program

    return one_program


def one_product() -> Draw:
    from qlab.plots.speed import one_product

    return one_product


def bill_by_load() -> Draw:
    from qlab.plots.four_or_eight import bill_by_load

    return bill_by_load


def flip_map() -> Draw:
    from qlab.plots.claims import flip_map

    return lambda utilization, **others: flip_map(gpu_memory_utilization=utilization, **others)


def path_through_the_tree() -> Draw:
    from qlab.plots.choosing import chosen

    return chosen


EXPLORERS: dict[str, list[Callable[[], Draw]]] = {
    "00_start_here.ipynb": [number_line],
    "01_memory_math.ipynb": [gpus_that_fit],
    "02_linear_quantization.ipynb": [grid_and_error],
    "03_nf4_and_codebooks.ipynb": [codebook_and_error],
    "05_smoothquant_w8a8.ipynb": [alpha_and_factor],
    "04_outliers_and_llm_int8.ipynb": [threshold_and_factor],
    "06_gptq.ipynb": [correlation_and_bits],
    "07_awq_and_hqq.ipynb": [ratio_and_grid],
    "08_fp8_and_kv_cache.ipynb": [inputs_and_outliers, keys_in_bits],
    "09_triton_dequant.ipynb": [one_program],
    "10_speed_on_gpu.ipynb": [one_product],
    "11_choosing_a_method.ipynb": [path_through_the_tree],
    "12_four_or_eight_bits.ipynb": [bill_by_load],
    "13_claims_audit.ipynb": [flip_map],
}


def explorer_calls(notebook: Any) -> list[dict[str, Any]]:
    """The keyword arguments of every `explore(...)` in the notebook, in order."""
    calls = []
    for cell in notebook.cells:
        if cell.cell_type != "code" or cell.source.startswith("%"):
            continue
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "explore":
                calls.append({word.arg: ast.literal_eval(word.value) for word in node.keywords if word.arg})
    return calls


@pytest.fixture
def explorer_grid() -> Callable[..., int]:
    """Draws everything that an `explore(draw, **controls)` can show, and returns the number of figures."""
    return lambda draw, **controls: explore(draw, **controls).check_all(render_every=10)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_the_policy(path: Path) -> None:
    assert [str(finding) for finding in lint(read(path), path)] == []


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_every_explorer_draws_its_whole_grid(path: Path, explorer_grid: Callable[..., int]) -> None:
    calls = explorer_calls(read(path))
    sources = EXPLORERS.get(path.name, [])
    assert len(sources) == len(calls), f"{path.name} has {len(calls)} explorers and {len(sources)} entries in EXPLORERS"
    for draw, controls in zip(sources, calls, strict=True):
        assert explorer_grid(draw(), **controls) > 1


def test_no_entry_without_a_lesson() -> None:
    assert set(EXPLORERS) <= {path.name for path in LESSONS}


def test_explorer_calls_are_found(explorer_grid: Callable[..., int]) -> None:
    cells = ["x = 1", "import qlab\nqlab.learn.explore(draw, bits=(2, 8))", "explore(draw, size=[1, 2], exact=True)"]
    calls = explorer_calls(new_notebook(cells=[new_code_cell(cell) for cell in cells]))
    assert calls == [{"bits": (2, 8)}, {"size": [1, 2], "exact": True}]
    assert explorer_grid(lambda size, exact: Figure((1, 1)), **calls[1]) == 4


def test_the_first_lesson_and_the_readme_lead_to_every_lesson_and_exercise() -> None:
    first, *others = LESSONS
    course = "".join(cell.source for cell in read(first).cells)
    readme = (first.parents[1] / "README.md").read_text(encoding="utf-8")
    for path in others:
        assert f"]({path.name})" in course
        minutes = re.search(r"\*\*Time\*\* \| (\d+) minutes(.*)", read(path).cells[0].source)
        row = re.search(rf"\]\(notebooks/{re.escape(path.name)}\) \|.*\| (\d+) \|", readme)
        assert minutes and row and minutes[1] == row[1], path.name
        assert int(minutes[1]) <= 40 or "two sittings" in minutes[2], path.name
    for path in (first.parents[1] / "exercises").glob("*.ipynb"):
        assert f"](../exercises/{path.name})" in course and f"](exercises/{path.name})" in readme


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_quiz_explains_each_of_its_options(path: Path) -> None:
    text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    _, quiz = re.split(r"^## .*quiz.*$", text, flags=re.MULTILINE | re.IGNORECASE)
    items = re.split(r"\n\*\*(?=\d\. )", quiz)[1:]
    assert 3 <= len(items) <= 5
    for item in items:
        explained = re.findall(r"<details><summary>[A-D]\. .+?</summary>\s*(.+?)</details>", item, re.DOTALL)
        wrong = [text for text in explained if not text.startswith("Right")]
        assert len(wrong) == len(explained) - 1 >= 2 and all(len(text.split()) >= 4 for text in wrong), item


def answers_to_say(notebook: Any) -> list[str]:
    """What the notebook prints after a text that announces thirty seconds."""
    announced = re.compile(r"thirty-second answer[^.]*:|another thirty seconds:", re.IGNORECASE)
    return [
        "\n".join(map(printed, after.outputs))
        for cell, after in itertools.pairwise(notebook.cells)
        if cell.cell_type == "markdown" and announced.search(cell.source)
    ]


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_thirty_seconds_are_enough_for_their_answer(path: Path) -> None:
    answers = answers_to_say(read(path))
    assert answers or not "01" <= path.name[:2] <= "13"
    for answer in answers:
        assert 25 <= len(answer.split()) <= 80, f"{len(answer.split())} words; people say 150 to 160 in a minute"


def test_the_readme_says_what_lesson_12_computes() -> None:
    (lesson,) = (path for path in LESSONS if path.name.startswith("12"))
    answer = " ".join(answers_to_say(read(lesson))[0].split())
    readme = (lesson.parents[1] / "README.md").read_text(encoding="utf-8")
    times, four, eight = (
        re.findall(found, answer) for found in (r"([\d.]+) times", r"([\d.]+) dollars", r"against ([\d.]+),")
    )
    assert f"cost a recommender {times[0]} times as much as FP8" in readme
    assert f"pays {four[0]} dollars per million tokens with them against {eight[0]} in 8 bits" in readme
