"""Kernels compiled for GPUs that are not here: Triton and the assembler in its wheel need none.

This file runs itself as a program: compiling needs a process in which Triton does not interpret. There, the launch of
a kernel is replaced by its compilation for the arguments of that launch, which all lie on the device "meta".
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

N, K = 4096, 4096
WEIGHTS = ("int4, groups of 128", "int4, groups of 32, asymmetric", "int8, per channel", "NF4, double", "HQQ")
SHARED = {80: 163 * 1024, 90: 227 * 1024}  # bytes a program may have: A100, H100
TOKENS = {"gemv": 1, "split-k": 16, "gemm": 100, "dequantize": 600}
POINTERS = {
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.int32: "*i32",
    torch.int8: "*i8",
    torch.uint8: "*u8",
}


def compile_all() -> None:
    """Print one line of JSON for every kernel compiled.

    Each case is compiled for one architecture and one type of x, in turns, so that every kernel meets both of either.
    """
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from qlab.kernels import configs, dequantize, int8_matmul, planes, quantize_tokens, weight_only

    case: dict[str, Any] = {}

    class Compiled:
        def __init__(self, kernel: Any) -> None:
            self.kernel = kernel

        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            def launch(*args: Any, **options: Any) -> None:
                types, constants, facts = {}, {}, {}
                for i, (parameter, value) in enumerate(zip(self.kernel.params, args, strict=True)):
                    tensor = isinstance(value, torch.Tensor)
                    if parameter.is_constexpr or value is None or (not tensor and value == 1):  # Triton does so, too
                        types[parameter.name], constants[parameter.name] = "constexpr", value
                        continue
                    types[parameter.name] = POINTERS[value.dtype] if tensor else "i32" if value < 2**31 else "i64"
                    if tensor or value % 16 == 0:
                        facts[i,] = [["tt.divisibility", 16]]
                source = ASTSource(self.kernel, types, constants, facts)
                made = compile(source, target=GPUTarget("cuda", case["architecture"], 32), options=options)
                Path("kernel.cubin").write_bytes(made.asm["cubin"])
                usage = subprocess.run(
                    [cuobjdump(), "-res-usage", "kernel.cubin"], capture_output=True, text=True, check=True
                ).stdout
                stack, local = (int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("STACK", "LOCAL"))
                found = {"kernel": self.kernel.fn.__name__, "shared": made.metadata.shared, "spilled": stack + local}
                print(json.dumps(case | found | {"dots": re.findall(r"tt\.dot .*", made.asm["ttir"])}))

            return launch

    modules = {weight_only: ("_gemv", "_matmul", "_add"), dequantize: ("_dequantize",)}
    for module, names in (modules | {int8_matmul: ("_product",), quantize_tokens: ("_quantize",)}).items():
        for name in names:
            setattr(module, name, Compiled(getattr(module, name)))
    configs.processors = lambda _: 132  # type: ignore[assignment]

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(*shape, dtype=dtype, device="meta")

    for i, kind in enumerate(WEIGHTS):
        prepared = planes.repack(_weight(kind))
        for name in ("words", "scales", "zeros"):
            if (tensor := getattr(prepared, name)) is not None:
                object.__setattr__(prepared, name, empty(len(tensor), N, dtype=tensor.dtype))
        object.__setattr__(prepared, "shape", (N, K))
        for j, (path, tokens) in enumerate(TOKENS.items()):
            turn = (i + j) % 2
            dtype = (torch.float16, torch.bfloat16)[turn]
            case = {"weight": kind, "path": path, "architecture": (90, 80)[turn]}
            weight_only.linear(empty(tokens, K, dtype=dtype), prepared, empty(N, dtype=dtype), path)
    for architecture, dtype in ((80, torch.float16), (90, torch.bfloat16)):
        for tokens in (1, 100):
            case = {"weight": "W8A8", "path": f"{tokens} tokens", "architecture": architecture}
            codes, scales = quantize_tokens.quantize_tokens(empty(tokens, K, dtype=dtype))
            b, b_scales = empty(N, K, dtype=torch.int8), empty(N, 1)
            int8_matmul.scaled_product(codes, scales, b, b_scales, empty(N, dtype=dtype), dtype)


def _weight(kind: str) -> Any:
    """16 rows of it."""
    from qlab.formats import affine, codebook
    from qlab.methods import hqq

    w = torch.randn(16, K)
    make: dict[str, Callable[[], Any]] = {
        "int4, groups of 128": lambda: affine.quantize(w, 4, 128),
        "int4, groups of 32, asymmetric": lambda: affine.quantize(w, 4, 32, symmetric=False),
        "int8, per channel": lambda: affine.quantize(w, 8, "channel"),
        "NF4, double": lambda: codebook.quantize(w, "nf4", 64, double_quant=True),
        "HQQ": lambda: hqq.quantize(w, 4, 64, iterations=1),
    }
    return make[kind]()


def cuobjdump() -> str:
    import triton

    return str(Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What every compilation gave: the case, the kernel, bytes of shared memory and of spilled registers."""
    if platform.machine() != "x86_64":
        pytest.skip("Triton's wheel for this processor may hold no assembler")
    folder = tmp_path_factory.mktemp("compiled")
    settings = {
        "TRITON_INTERPRET": "0",
        "TRITON_CACHE_DIR": str(folder / "cache"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, __file__], cwd=folder, env=os.environ | settings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_kernel_compiles_for_every_case(compiled: list[dict[str, Any]]) -> None:
    made = {(c["weight"], c["path"], c["kernel"]) for c in compiled}
    kernels = {"gemv": "_gemv", "split-k": "_matmul", "gemm": "_matmul", "dequantize": "_dequantize"}
    assert made >= {(kind, path, kernel) for kind in WEIGHTS for path, kernel in kernels.items()}
    assert made >= {("W8A8", f"{m} tokens", kernel) for m in (1, 100) for kernel in ("_product", "_quantize")}
    for kernel in ("_gemv", "_matmul", "_add", "_dequantize", "_product", "_quantize"):
        assert {c["architecture"] for c in compiled if c["kernel"] == kernel} == {80, 90}, kernel


def test_no_register_is_spilled_to_memory(compiled: list[dict[str, Any]]) -> None:
    assert [c for c in compiled if c["spilled"]] == []


def test_shared_memory_suffices(compiled: list[dict[str, Any]]) -> None:
    assert [c for c in compiled if c["shared"] > SHARED[c["architecture"]]] == []


def test_integers_are_multiplied_as_integers(compiled: list[dict[str, Any]]) -> None:
    dots = [dot for c in compiled if c["kernel"] == "_product" for dot in c["dots"]]
    assert dots and all(re.search(r": tensor<\w+xi8> \* tensor<\w+xi8> -> tensor<\w+xi32>", dot) for dot in dots)


if __name__ == "__main__":
    compile_all()
