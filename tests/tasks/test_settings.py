"""`--set KEY=VALUE`: converted by annotations, misspellings caught."""

from __future__ import annotations

import enum
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from batchscope.errors import TaskError
from batchscope.tasks.settings import bind, near_miss, plain


class Size(enum.Enum):
    SMALL = 1
    LARGE = 2


def factory(
    width: int = 8,
    *,
    rate: float = 0.5,
    fast: bool = False,
    name: str = "x",
    path: Path = Path("here"),
    kind: Literal["a", "b", 3] = "a",
    limit: int | None = None,
    either: int | str = 0,
    size: Size = Size.SMALL,
    layers: tuple[int, ...] = (1,),
    pair: tuple[int, str] = (1, "b"),
    names: list[str] | None = None,
    unannotated=2.5,  # the kind of the default decides
) -> None: ...


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("width=12", 12),
        ("width=-3", -3),
        ("width=1_000", 1000),
        ("width=1e3", 1000),
        ("rate=1", 1.0),
        ("rate=2.5e-4", 2.5e-4),
        ("fast=true", True),
        ("fast=No", False),
        ("name=a=b", "a=b"),
        ("name=7", "7"),
        ("path=/data/x.npz", Path("/data/x.npz")),
        ("kind=b", "b"),
        ("kind=3", 3),
        ("limit=5", 5),
        ("limit=none", None),
        ("either=5", 5),
        ("either=five", "five"),
        ("size=LARGE", Size.LARGE),
        ("size=2", Size.LARGE),
        ("layers=64,32", (64, 32)),
        ("layers=(64,)", (64,)),
        ("pair=4,c", (4, "c")),
        ("names=a, b", ["a", "b"]),
        ("unannotated=1", 1.0),
    ],
)
def test_conversion(text: str, value: Any) -> None:
    key = text.partition("=")[0]
    converted = bind(factory, [text], "task")[key]
    assert converted == value
    assert type(converted) is type(value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["widht=3"], r"task has no setting 'widht'; did you mean 'width'\?; its settings are width, rate"),
        (["zzz=3"], r"task has no setting 'zzz'; its settings are"),
        (["width"], r"--set width is not KEY=VALUE"),
        (["width=1", "width=2"], r"--set width is given twice: 1 and 2"),
        (["width=1.5"], r"--set width=1.5 must be a whole number"),
        (["width=many"], r"--set width=many must be a whole number"),
        (["width=1e999"], r"--set width=1e999 must be a whole number"),
        (["rate=fast"], r"--set rate=fast must be a number"),
        (["fast=2"], r"--set fast=2 must be true or false"),
        (["kind=bb"], r"--set kind=bb must be one of a, b, 3; did you mean 'b'\?"),
        (["size=HUGE"], r"--set size=HUGE must be one of 1, 2"),
        (["pair=4"], r"--set pair=4 must be 2 values"),
        (["layers=1,x"], r"must be a whole number"),
    ],
)
def test_refusals(settings: list[str], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        bind(factory, settings, "task")


def test_what_is_missing_is_named() -> None:
    def needs(path: Path, count: int, width: int = 3) -> None: ...

    with pytest.raises(
        TaskError, match="needs --set path=VALUE --set count=VALUE; its settings are path, count, width"
    ):
        bind(needs, [], "needs")


def test_defaults_are_part_of_the_settings() -> None:
    def small(
        width: int = 8, size: Size = Size.LARGE, where: Path = Path("a/b"), act: Callable[[], None] = print
    ) -> None: ...

    arguments = bind(small, ["width=4"], "small")
    assert arguments == {"width": 4, "size": Size.LARGE, "where": Path("a/b"), "act": print}
    assert plain(arguments) == {"size": 2, "where": "a/b", "width": 4}  # a function cannot stand in a file


def test_a_mapping_and_open_keywords() -> None:
    def takes_any(**settings: str) -> None: ...

    assert bind(takes_any, {"depth": 3, "kind": "a"}, "any") == {"depth": 3, "kind": "a"}


def test_classes_are_factories_too() -> None:
    class Made:
        def __init__(self, width: int = 3) -> None:
            self.width = width

    assert bind(Made, ["width=5"], "Made") == {"width": 5}


def test_near_miss() -> None:
    assert near_miss("optimzer", ["model", "optimizer"]) == "; did you mean 'optimizer'?"
    assert near_miss("colour", ["model", "optimizer"]) == ""
