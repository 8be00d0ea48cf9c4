"""Pictures of kernels: every element has the program that the kernel's own arithmetic gives it."""

import pytest
import torch
from matplotlib.colors import to_rgb

from qlab.plots import kernels as plots
from qlab.plots.kernels import MASKED, OTHER, SHARED, Panel


@pytest.fixture
def panels(monkeypatch):
    """A function that draws, and returns its panels by name."""
    seen = {}
    drawn = plots.programs

    def spy(rows, title=""):
        seen.update({panel.name: panel for row in rows for panel in row})
        seen["title"] = title
        return drawn(rows, title)

    monkeypatch.setattr(plots, "programs", spy)

    def draw(function, *args, **options):
        seen.clear()
        figure = function(*args, **options)
        assert figure.alt
        return dict(seen)

    return draw


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_an_element_has_its_programs_color_and_number_and_a_masked_one_a_hatch():
    figure = plots.programs([[Panel("x", torch.tensor([[0, 1, SHARED, MASKED, OTHER]]))]], "title")
    (mesh,), (hatched,) = figure.axes[0].collections, figure.axes[0].patches
    first, second, shared, masked, other = (tuple(color) for color in mesh.get_array()[0].tolist())
    assert len({first, second, shared, to_rgb("white")}) == 4
    assert masked == other == to_rgb("white")
    assert hatched.get_hatch() and hatched.get_xy()[0] == 3
    assert texts(figure) == ["title", "x", "0", "1", "2", "3", "4", "0", "1", "all"]
    assert figure.alt == (
        "title x: program 0 touches 1, program 1 touches 1, left to other programs 1, masked off 1, "
        "shared by programs 1."
    )


def test_many_programs_are_summed_up_in_words():
    assert Panel("x", torch.tensor([[0, 0, 1, 2, 3, 4]])).words() == "x: 5 programs touch 1 to 2 each"


def test_own_texts_replace_numbers():
    figure = plots.programs([[Panel("x", torch.tensor([[0], [1]]), [["a"], ["b"]])]])
    assert texts(figure)[-4:] == ["0", "1", "a", "b"]  # indices of the rows, then their texts


@pytest.mark.parametrize(("count", "block", "programs"), [(10, 4, 3), (8, 4, 2), (1, 4, 1)])
def test_copy_masks_what_lies_behind_the_end(panels, count, block, programs):
    x = panels(plots.copy, count, block)["x, read"].programs[0]
    assert len(x) == programs * block
    assert x[:count].tolist() == [i // block for i in range(count)] and set(x[count:].tolist()) <= {MASKED}


def test_scale_and_add_gives_each_rectangle_a_program(panels):
    seen = panels(plots.scale_and_add, rows=3, columns=5, tall=2, wide=4)
    grid = seen["x, read, and y, written"]
    assert tuple(grid.programs.shape) == (4, 8)
    for r in range(4):
        for c in range(8):
            inside = r < 3 and c < 5
            assert grid.text(r, c) == (f"{r // 2},{c // 4}" if inside else "")
            assert (int(grid.programs[r, c]) == MASKED) != inside
    assert seen["s"].text(2, 0) == "1,*" and seen["b"].text(0, 4) == "*,1"


def test_a_byte_gives_two_codes_to_the_same_program_its_low_half_first(panels):
    seen = panels(plots.nibbles, count=6, block=4)
    packed = seen["packed bytes, read"].programs[0]
    written = seen["codes, written: from the low half (L) or the high half (H) of a byte"]
    codes = written.programs[0]
    assert torch.equal(codes[0::2], packed) and torch.equal(codes[1::2], packed)
    assert [written.text(0, i) for i in (0, 1, 8, 11, 12)] == ["0L", "0H", "1L", "1H", ""]


def test_channels_are_rows_and_the_block_reaches_past_them(panels):
    seen = panels(plots.channels, out=6, columns=10, tall=2, block=16)
    grid = seen["codes, read, and weights, written (row: output)"].programs
    assert (grid[:, 10:] == MASKED).all()
    assert torch.equal(grid[:, :10], seen["scales"].programs.expand(6, 10))
    assert seen["scales"].programs.flatten().tolist() == [0, 0, 1, 1, 2, 2]


def test_a_weight_a_byte_and_a_scale_of_one_group_meet_in_one_program(panels):
    seen = panels(plots.groups, out=4, columns=16, group=8, tall=2)
    packed, scales = seen["packed bytes (row: output)"], seen["scales"]
    weights = seen["weights, written"]
    for n in range(4):
        for k in range(16):
            assert weights.text(n, k) == packed.text(n, k // 2) == scales.text(n, k // 8) == f"{n // 2},{k // 8}"


def test_blocks_beyond_the_last_are_masked(panels):
    seen = panels(plots.blocks, count=6, size=8, tall=4)
    assert seen["absmax"].programs.flatten().tolist() == [0] * 4 + [1] * 2 + [MASKED] * 2
    assert tuple(seen["packed bytes, a block in each row"].programs.shape) == (8, 4)
    assert (seen["the table of 16 values"].programs == SHARED).all()


def test_gemv_walks_along_the_inputs(panels):
    seen = panels(plots.gemv, out=6, columns=12, tall=2, block=4)
    weight, x = seen["w (row: output), read: color program, number step"], seen["x, read by all programs"]
    assert weight.programs[:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert all(weight.text(n, k) == x.text(0, k) == str(k // 4) for n in range(6) for k in range(12))


def test_a_step_of_the_fused_product_is_a_group(panels):
    seen = panels(plots.fused, out=4, columns=16, group=8, tall=2)
    packed = seen["packed (row: output): color program, number step"]
    assert all(
        packed.text(n, k // 2) == seen["scales"].text(n, k // 8) == seen["x, read by all programs"].text(0, k)
        for n in range(4)
        for k in range(16)
    )


def test_split_k_gives_every_partial_sum_one_writer(panels):
    seen = panels(plots.split_k, out=4, columns=16, splits=2, tall=2)
    packed, sums = seen["packed, read by program i,s"], seen["partial sums"]
    assert tuple(sums.programs.shape) == (2, 4)
    for n in range(4):
        for s in range(2):
            assert sums.text(s, n) == f"{n // 2},{s}"
            assert {packed.text(n, b) for b in range(4 * s, 4 * s + 4)} == {sums.text(s, n)}


def test_a_result_of_the_int8_product_has_one_program(panels):
    seen = panels(plots.int8_product, tokens=4, out=6, columns=8, tall=2, wide=2, block=4)
    results = seen["y (row: token), program i,j"]
    assert all(results.text(m, n) == f"{m // 2},{n // 2}" for m in range(4) for n in range(6))
    a, b = seen["a (row: token), number step"], seen["b (row: output), number step"]
    assert a.size == (4, 8) and b.size == (6, 8)
    assert all(a.text(m, k) == b.text(n, k) == str(k // 4) for m in range(4) for n in range(6) for k in range(8))


def test_the_two_layouts_are_those_of_the_library(panels):
    """A word of the right panel is what `planes.repack` packs; of the left one, what `affine` does."""
    from qlab.formats import affine

    planes = pytest.importorskip("qlab.kernels.planes")
    codes = torch.randint(0, 16, (1, 128), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    weight = affine.from_codes(codes, torch.ones(1, 1, dtype=torch.float16), None, 4, 128, torch.float32)
    seen = panels(plots.two_layouts)
    words = {"neighbors in a word": weight.packed[0].view(torch.int32), "planes": planes.repack(weight).words[:, 0]}
    for name, held in words.items():
        for r in range(16):
            shown = [int(codes[0, int(seen[name].text(r, i))]) for i in range(8)]
            assert shown == [int(held[r]) >> 4 * i & 15 for i in range(8)]


SIZES = {"packed bytes": 1, "scales": 2, "x": 2}  # bytes of an element


def said(codes, scales, x):
    return f"{codes} bytes of codes, {scales} of scales, {x} of x, {codes + scales + x} in all"


@pytest.mark.parametrize("rows", [2, 3, 8])
@pytest.mark.parametrize("splits", [1, 4])
@pytest.mark.parametrize("group_size", [8, 16, 32])
def test_all_programs_together_read_each_code_once_and_write_each_sum_once(panels, rows, splits, group_size):
    count = -(-8 // rows) * splits
    codes, sums, scales, x = torch.zeros(8, 16), torch.zeros(splits, 8), torch.zeros(8, 32 // group_size), 0
    written = "y, written" if splits == 1 else "partial sums, written"
    titles = []
    for program in range(count):
        seen = panels(plots.one_program, program, rows, splits, group_size)
        read = seen["packed bytes, read"].programs == 0
        codes += read
        sums += seen[written].programs == 0
        scales += seen["scales, read"].programs == 0
        bytes_read = [size * int((seen[f"{name}, read"].programs == 0).sum()) for name, size in SIZES.items()]
        assert f"reads {said(*bytes_read)}." in seen["title"]
        assert f"All partial sums: {0 if splits == 1 else 4 * splits * 8} bytes" in seen["title"]
        x += bytes_read[2]
        titles.append(seen["title"])
    assert (codes == 1).all() and (sums == 1).all()
    assert (scales == max(1, splits * group_size // 32)).all(), "a group that lies in several parts is read by each"
    assert all(f"together read {said(128, 2 * int(scales.sum()), x)}." in title for title in titles)
    again = panels(plots.one_program, count, rows, splits, group_size)
    assert f"Program (0, 0) of {-(-8 // rows)} x {splits}" in again["title"]
