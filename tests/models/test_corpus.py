"""The texts: held-out excerpts are fixed, and training never sees them."""

import pytest

from qlab.models import corpus


@pytest.fixture(scope="module")
def training() -> tuple[str, str]:
    prose, code = corpus.training_texts()
    return "\n".join(prose), "\n".join(code)


@pytest.mark.parametrize("kind", ["prose", "code"])
def test_held_out_text_ships_with_the_package(kind):
    text = corpus.held_out_text(kind)
    assert 40_000 < len(text) < 65_000
    assert "\x00" not in text and text.endswith("\n")


@pytest.mark.parametrize("kind", ["prose", "code"])
def test_training_does_not_contain_the_held_out_text(kind, training):
    text = corpus.held_out_text(kind)
    pieces = [text[i : i + 300] for i in range(0, len(text) - 300, 3000)]
    assert not [piece for piece in pieces if any(piece in source for source in training)]


def test_training_text_is_large_enough_and_leaves_out_the_held_out_modules(training):
    prose, code = training
    assert len(prose) > 1_000_000 and len(code) > 4_000_000
    names = [name for name, _ in corpus.modules()]
    assert "json.decoder" in names and "argparse" in names
    assert "class ArgumentParser" not in code


def test_docstrings_are_those_of_modules_classes_and_functions():
    source = '"""A module docstring that is long enough to be kept by the sixty character rule."""\nx = 1\n'
    assert corpus.docstrings(source) == [
        "A module docstring that is long enough to be kept by the sixty character rule."
    ]
    assert corpus.docstrings("x = 1\n") == []


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="prose"):
        corpus.held_out_text("poetry")
