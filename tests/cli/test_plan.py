"""`qlab plan` and `qlab compare`, called in this process, and once in an interpreter of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qlab.bench import seconds
from qlab.deploy.planning import advice
from qlab.deploy.planning.compare import compare
from qlab.deploy.planning.plan import plan
from qlab.deploy.planning.replica import Assumptions

Run = Callable[..., tuple[int, str, str]]
ASKED = ["--model", "llama-3-70b", "--workload", "recommend", "--latency", "500ms", "--qps", "50"]
FEW = ["--instance", "p5.48xlarge", "--instance", "g6e.12xlarge", "--instance", "p3.8xlarge"]


def test_plan_gives_the_numbers_of_the_library(run: Run) -> None:
    given = [
        "--set",
        "gpu_memory_utilization=0.9",
        "--set",
        "kernels=vllm",
        "--precision",
        "fp8",
        "--precision",
        "bf16",
    ]
    code, out, err = run("plan", *ASKED, *FEW, *given, "--output", "4", "--json")
    assert code == 0 and err == ""
    expected = plan(
        "Llama-3-70B", "recommend", latency=0.5, qps=50, precisions=["fp8", "bf16"], output=4,
        among=["p5.48xlarge", "g6e.12xlarge", "p3.8xlarge"],
        given=Assumptions(gpu_memory_utilization=0.9, kernels="vllm"),
    )  # fmt: skip
    found = json.loads(out)
    assert found.pop("paragraph") == advice.paragraph(expected)
    assert found == json.loads(json.dumps(expected.to_dict()))


def test_plan_in_words(run: Run) -> None:
    code, out, err = run("plan", *ASKED, *FEW)
    assert code == 0 and err == ""
    assert "RECOMMENDED" in out and "dearer by" in out
    assert "Target: the whole answer within 500 ms for 95 % of the requests." in out
    assert "(assumed: the last hundred items" in out and "days old" in out
    assert "no weight-only (Marlin) kernels" in " ".join(out.split())
    everything = run("plan", *ASKED, *FEW, "--all")[1]
    assert everything.count("p3.8xlarge") == 3 > out.count("p3.8xlarge")


def test_plan_that_finds_nothing_is_an_answer(run: Run) -> None:
    code, out, _ = run("plan", "--model", "llama-3-70b", *FEW, "--workload", "recommend", "--latency", "20ms")
    assert code == 0
    assert "RECOMMENDED" not in out and "Nothing that is known meets the target." in out and "a limit above" in out


def test_compare_in_words_and_as_json(run: Run) -> None:
    asked = ["compare", "int4-g128", "int8", "--model", "llama-3-70b", "--instance", "g6e.12xlarge"]
    code, out, err = run(*asked)
    assert code == 0 and err == ""
    assert "CHEAPEST" in out and "int4-g128 on 4 x L40S against int8 on 4 x L40S" in out and "days old" in out
    code, out, _ = run(*asked, "--token-latency", "60ms", "--json")
    assert code == 0
    found = json.loads(out)
    expected = compare(["int4-g128", "int8"], "Llama-3-70B", "g6e.12xlarge", per_token=0.06)
    said = found.pop("sentences")
    assert found == json.loads(json.dumps(expected.to_dict()))
    assert said[: len(advice.comparison(expected))] == advice.comparison(expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "max_batch=-1"], "max_batch: got -1; give 1 to"),
        (["--prompt", "20000"], "context: got 60,768; Llama-3-70B was made for at most 8,192 tokens"),
        (["--instance", "g5.12xlrge"], "'g5.12xlrge' is not known; did you mean g5.12xlarge"),
        (["--latency", "200"], "latency: got '200'; give a time above 0 with its unit"),
        (["--token-latency", "fast"], "token-latency: got 'fast'"),
        (["--workload", "recomend"], "did you mean recommend"),
        (["--precision", "nf4"], "precision: servers have no fast kernels for 'nf4'"),
        (["--qps", "0"], "qps: got 0.0"),
    ],
)
def test_nonsense_gets_one_line_and_exit_code_2(run: Run, arguments: list[str], message: str) -> None:
    code, out, err = run("plan", "--model", "llama-3-70b", *arguments)
    assert code == 2 and out == ""
    assert err.startswith("error: ") and message in err and err.count("\n") == 1


def test_a_price_without_a_date_is_refused(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("instances:\n  g6.xlarge:\n    price_usd_per_hour: 0.5\n    source: my bill\n    date: 2026-11-02\n")
    monkeypatch.setenv("QLAB_DATA", str(own))
    code, out, err = run("plan", "--model", "llama-3-8b")
    assert code == 2 and out == "" and "price without a date" in err
    own.write_text(own.read_text() + "    price_date: 2026-11-02\n")
    code, out, _ = run("plan", "--model", "llama-3-8b", "--workload", "classify", "--instance", "g6.xlarge", "--json")
    assert code == 0 and json.loads(out)["options"][0]["price_usd_per_hour"] == 0.5


def test_no_heavy_module_is_loaded() -> None:
    heavy = {"torch", "transformers", "matplotlib", "numpy", "pandas", "scipy"}
    for command in (
        ["plan", *ASKED, *FEW],
        ["compare", "fp8", "bf16", "--model", "llama-3-8b", "--instance", "g6.xlarge"],
    ):
        code = (
            f"import sys, qlab.cli; assert qlab.cli.main({command!r}) == 0; print(); "
            "print(*{name.partition('.')[0] for name in sys.modules})"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"COLUMNS": "200"},
        )
        assert set(done.stdout.splitlines()[-1].split()) & heavy == set()


def test_the_benchmark_has_the_promise_of_the_whole_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []
    monkeypatch.setattr(seconds, "_wall_clock", lambda command: asked.append(command) or 1.0)
    promise = next(one for one in seconds.promises(tmp_path) if one.name.startswith("qlab plan"))
    assert promise.bar == 3 and promise.measure() == 1.0
    assert asked[0][3:] == "plan --model Llama-3-70B --workload recommend --latency 200ms --qps 50".split()
