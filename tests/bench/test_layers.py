from __future__ import annotations

import pytest

from qlab.bench import layers
from qlab.bench.layers import Shape


def test_the_matrices_of_llama() -> None:
    assert layers.shapes(["8b"]) == [
        Shape("8b q/o", 4096, 4096),
        Shape("8b k/v", 1024, 4096),
        Shape("8b gate/up", 14336, 4096),
        Shape("8b down", 4096, 14336),
        Shape("8b head", 128256, 4096, head=True),
    ]
    sizes = [(shape.outputs, shape.inputs) for shape in layers.shapes(["70B"]) if not shape.head]
    assert sizes == [(8192, 8192), (1024, 8192), (28672, 8192), (8192, 28672)]


def test_sizes_names_and_each_shape_once() -> None:
    assert layers.shapes([" 96 ", "32x64"]) == [Shape("96x96", 96, 96), Shape("32x64", 32, 64)]
    assert layers.shapes(["70b", "8192"]) == layers.shapes(["70b"])
    assert next(shape.name for shape in layers.shapes(["nano"])).startswith("nano q")


@pytest.mark.parametrize("name", ["9b", "0", "12x", "-4", "4096 x 4096", ""])
def test_unknown_shapes_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"shapes: got .*(8b|give)"):
        layers.shapes([name])
    with pytest.raises(ValueError, match="shapes: got none"):
        layers.shapes([])
