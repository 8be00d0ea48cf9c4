from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from qlab.deploy import gpu, spec
from qlab.deploy.planning import replica as module
from qlab.deploy.planning.replica import BATCHING, Assumptions, Replica, calibration, quick_step
from qlab.deploy.planning.support import served
from qlab.deploy.serving.workloads import workload
from qlab.deploy.speed.efficiency import origins
from qlab.deploy.speed.phases import step_time

CHAT = workload("chat")


def replica(precision: str, where: str, gpus: int, model: str = "Llama-3-70B") -> Replica:
    return Replica(spec(model), served(precision), gpu(where), gpus, CHAT, CHAT.target(), Assumptions())


@pytest.mark.parametrize("kernels", BATCHING)
@pytest.mark.parametrize(("model", "precision", "where"), [
    ("Llama-3-70B", "int4-g128", "A100-80GB"), ("Mixtral-8x7B-v0.1", "fp8", "L40S"), ("DeepSeek-V3", "fp8", "H200"),
])  # fmt: skip
def test_a_quick_step_is_the_step(kernels: str, model: str, precision: str, where: str) -> None:
    how = served(precision)
    step = step_time(model, how, where, tensor_parallel=4, kv_bits=8, kernels=kernels)
    quick = quick_step(spec(model), how, gpu(where), 4, 8, kernels)
    for _ in range(2):
        for given in ((512, 0, 0), (0, 1, 700), (0, 40, 40_000), (2048, 200, 300_000), (17, 3, 5), (1, 255, 9_999)):
            assert quick(*given) == pytest.approx(step(*given), rel=1e-9)


def test_a_step_is_worked_out_once_for_each_number_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = module.forward
    monkeypatch.setattr(module, "forward", lambda *given, **named: asked.append(named) or real(*given, **named))
    quick = quick_step(spec("Llama-3-8B"), served("fp8"), gpu("L40S"), 1, 16, "vllm")
    at_first = len(asked)
    for cached in range(100):
        quick(0, 5, cached)
        quick(3, 2, cached)
    assert len(asked) - at_first == 3  # 5 tokens in all, heads of 5 and of 3


def test_obstacles_are_all_named() -> None:
    found = replica("w8a8", "V100-16GB", 4).obstacles
    assert len(found) == 2
    assert found[0].startswith("the weights do not fit: ") and found[0].endswith("GB are missing on each of 4 GPUs")
    assert found[1].startswith("no INT8 W8A8 kernels on Volta")
    assert replica("int4-g128", "H100-80GB", 1).obstacles == ()


def test_the_longest_request_has_to_fit() -> None:
    at = replica("int4-g128", "L40S", 1)
    assert at.fit.tokens >= CHAT.longest and not at.obstacles
    tight = replace(at, given=Assumptions(gpu_memory_utilization=0.87))
    assert 0 < tight.fit.tokens < CHAT.longest
    missing = (CHAT.longest * 327_680 - tight.fit.budget) / 1e9
    assert tight.obstacles == (f"the longest request does not fit: {missing:.2f} GB are missing",)


def test_calibration_counts_what_is_recorded_published_and_assumed() -> None:
    where = gpu("L40S")
    found = origins("server", where)
    said = calibration("server", where)
    assert f"of {len(found)} numbers" in said
    for basis, words in (("published", "fitted to published speeds"), ("assumed", "assumed")):
        assert f"{sum(one.basis == basis for one in found.values())} {words}" in said
    assert calibration("datasheet", where) == "no losses: a bound that no software reaches"
    assert replica("fp8", "L40S", 1).calibration == said


def test_every_assumption_says_what_it_is() -> None:
    assert all(one.metadata["unit"] and one.metadata["meaning"] for one in fields(Assumptions))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_batch": -1}, "max_batch: got -1; give 1 to 100,000"),
        ({"kv_bits": 5}, "kv_bits: got 5; choose from 2, 4, 8, 16, 32"),
        ({"kernels": "transformers"}, "kernels: got 'transformers'; choose from server"),
        ({"gpu_memory_utilization": 1.1}, "gpu_memory_utilization: got 1.1; give 0.1 to 1"),
    ],
)
def test_senseless_assumptions(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Assumptions(**values)
