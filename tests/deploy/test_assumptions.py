from __future__ import annotations

from dataclasses import dataclass

import pytest

from qlab.deploy.assumptions import assumed, changed, check


@dataclass(frozen=True)
class Kitchen:
    heat: float = assumed(180.0, "degrees", "of the oven", 50, 300)
    trays: int = assumed(2, "trays", "at once", 1)
    rack: int = assumed(3, "level", "of the tray", among=(1, 3))
    fuel: str = assumed("gas", "name", "of what burns", among=("gas", "wood"))

    def __post_init__(self) -> None:
        check(self)


def test_changes_from_text() -> None:
    assert changed(Kitchen(), "heat=200", " trays = 4", "fuel=wood") == Kitchen(200.0, 4, 3, "wood")
    assert changed(Kitchen(trays=5), "heat=60") == Kitchen(60.0, 5), "the others stay as they were"
    assert changed(Kitchen()) == Kitchen()


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("heat", ValueError, "set: got 'heat'; give NAME=VALUE"),
        ("haet=1", ValueError, "set: no assumption 'haet'; did you mean heat"),
        ("heat=hot", TypeError, "heat: got 'hot'; give a number"),
        ("trays=1.5", TypeError, "trays: got '1.5'; give a whole number"),
        ("heat=301", ValueError, "heat: got 301.0; give 50 to 300"),
        ("heat=nan", ValueError, "heat: got nan; give 50 to 300"),
        ("trays=0", ValueError, "trays: got 0; give 1 or more"),
        ("rack=2", ValueError, "rack: got 2; choose from 1, 3"),
        ("fuel=coal", ValueError, "fuel: got 'coal'; choose from gas, wood"),
    ],
)
def test_refused(text: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        changed(Kitchen(), text)


@pytest.mark.parametrize("values", [{"trays": 2.0}, {"trays": True}, {"heat": "180"}])
def test_wrong_kinds(values: dict[str, object]) -> None:
    with pytest.raises(TypeError, match="give a (whole )?number"):
        Kitchen(**values)  # type: ignore[arg-type]
