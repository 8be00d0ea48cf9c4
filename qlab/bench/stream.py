"""How much memory streaming takes: `python -m qlab.bench.stream`.

A checkpoint of two gigabytes with random weights is made in a temporary folder and quantized from disk to disk, in a
process of its own. Its peak resident memory, the library's own half gigabyte included, is to stay below 1.2 GB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import LlamaConfig

from ..models.shards import ShardWriter

BAR = 1.2e9  # bytes
SIZE = 2.0e9  # bytes of weights
SHARD = 500 * 10**6

# Linux hands the peak of the process that starts another on to it: `ru_maxrss` would be at least our own. The
# high-water mark in /proc is that of the new process alone.
_STREAM = """
import resource, sys
from pathlib import Path
from qlab.models.stream import quantize_checkpoint
print(quantize_checkpoint(sys.argv[1], sys.argv[2], progress=False))
status = Path("/proc/self/status")
lines = status.read_text().splitlines() if status.exists() else []
marks = [line.split()[1] for line in lines if line.startswith("VmHWM")]
print(marks[0] if marks else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def write_checkpoint(folder: Path, size: float = SIZE, shard: int = SHARD) -> int:
    """A Llama of about `size` bytes in float16, sharded; its bytes. Only one shard is held while it is written."""
    hidden, intermediate = 2048, 5632
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_attention_heads=16,
        num_key_value_heads=4,
        tie_word_embeddings=True,
        dtype="float16",
    )
    layer = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (hidden // 4, hidden),
        "self_attn.v_proj": (hidden // 4, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (intermediate, hidden),
        "mlp.up_proj": (intermediate, hidden),
        "mlp.down_proj": (hidden, intermediate),
    }
    config.num_hidden_layers = round(size / (2 * sum(rows * columns for rows, columns in layer.values())))
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    generator = torch.Generator().manual_seed(0)
    writer = ShardWriter(folder, shard)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).mul_(0.02).half()

    writer.add({"model.embed_tokens.weight": random(config.vocab_size, hidden)})
    for i in range(config.num_hidden_layers):
        for name, shape in layer.items():
            writer.add({f"model.layers.{i}.{name}.weight": random(*shape)})
        for name in ("input_layernorm", "post_attention_layernorm"):
            writer.add({f"model.layers.{i}.{name}.weight": torch.ones(hidden).half()})
    writer.add({"model.norm.weight": torch.ones(hidden).half()})
    writer.finish()
    return sum(sum(file.values()) for file in writer.files)


def peak_of_streaming(source: Path, target: Path) -> int:
    """The peak resident bytes of a process that rounds `source` to 4 bits in `target`.

    Raises:
        RuntimeError: the process failed; the message is its last line.
    """
    command = [sys.executable, "-c", _STREAM, str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1])
    unit = 1 if sys.platform == "darwin" else 1024  # what the system counts in
    return int(done.stdout.split()[-1]) * unit


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m qlab.bench.stream", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of lines")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        size = write_checkpoint(Path(name) / "checkpoint")
        peak = peak_of_streaming(Path(name) / "checkpoint", Path(name) / "quantized")
    verdict = "kept" if peak <= BAR else "broken"
    if options.json:
        print(json.dumps({"checkpoint": size, "peak": peak, "bar": BAR, "verdict": verdict}, indent=2))
    else:
        print(f"streaming {size / 1e9:.2f} GB: peak {peak / 1e9:.2f} GB  at most {BAR / 1e9:.1f} GB: {verdict}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
