"""The streaming benchmark: its checkpoint is a real one, and a failure is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoConfig

from qlab.bench import stream
from qlab.models.shards import ShardReader
from qlab.models.stream import quantize_checkpoint


def test_the_checkpoint_is_one_that_can_be_quantized(tmp_path: Path) -> None:
    size = stream.write_checkpoint(tmp_path / "checkpoint", size=1e8, shard=50 * 10**6)
    assert AutoConfig.from_pretrained(tmp_path / "checkpoint").num_hidden_layers == 1
    assert len(set(ShardReader(tmp_path / "checkpoint").files.values())) >= 2
    report = quantize_checkpoint(tmp_path / "checkpoint", tmp_path / "out", progress=False)
    assert report.layers == 7 and report.bytes_before == size and report.bits_per_weight == pytest.approx(4.125)


def test_a_failure_is_told(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"checkpoint|config\.json|nothing"):
        stream.peak_of_streaming(tmp_path / "nothing", tmp_path / "out")
