"""The house keeps its shape: rooms in one order, a contract for each, torch where it is needed, files of a page or two.

The order stands here once, as docs/architecture.md draws it; what a contract in pyproject.toml must forbid is computed
from it, so that a room, or a contract, cannot be left out.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "batchscope"

MAY_IMPORT: dict[str, frozenset[str]] = {}
"""By room, the rooms below it."""

for _room in ("errors", "store", "wording", "fits"):
    MAY_IMPORT[_room] = frozenset(MAY_IMPORT)
_lowest = frozenset(MAY_IMPORT)
MAY_IMPORT["report"] = _lowest
for _number, _room in enumerate(_measuring := ("hardware", "tasks", "probes", "training")):
    MAY_IMPORT[_room] = _lowest | set(_measuring[:_number])
for _room in ("search", "live", "laboratory", "integrations", "cli"):
    MAY_IMPORT[_room] = frozenset(MAY_IMPORT)
MAY_IMPORT["testing"] = frozenset(MAY_IMPORT) - {"cli"}

ROOMS = sorted(MAY_IMPORT)
WITHOUT_TORCH = ("errors", "store", "wording", "fits", "report")
"""Rooms that never come to import torch, through whatever they import."""

MAY_IMPORT_TORCH = (
    "hardware/**/*.py",
    "tasks/**/*.py",
    "probes/**/*.py",
    "training/**/*.py",
    "testing/**/*.py",
    "search/find.py",
    "search/stages.py",
    "search/stages/*.py",
    "live/**/*.py",
    "laboratory/engine.py",
    "laboratory/study.py",
    "laboratory/**/measure.py",
    "integrations/**/*.py",
)
LIBRARIES = {
    "lightning": ("lightning", "pytorch_lightning"),
    "transformers": ("transformers",),
    "accelerate": ("accelerate",),
    "tensorboard": ("tensorboard",),
}
"""By file or folder of `integrations`, the packages that it alone imports."""
OF_NO_LIBRARY = {"trainers"}
"""Files of `integrations` with what several libraries have in common."""
AT_THE_ROOT = {"__init__.py", "__main__.py", "errors.py", "wording.py", "py.typed"}
MOST_LINES = 400


@cache
def contracts() -> list[dict[str, Any]]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["tool"]["importlinter"]["contracts"]


def contract_of(room: str) -> dict[str, Any]:
    """The one contract whose source is this room alone."""
    found = [c for c in contracts() if c["type"] == "forbidden" and c["source_modules"] == [f"batchscope.{room}"]]
    assert len(found) == 1, f"{room} needs one contract of its own in pyproject.toml; it has {len(found)}"
    return found[0]


def imported(node: ast.AST) -> Iterator[str]:
    """The first part of every absolute import, at any level and inside functions; not those for the type checker."""
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Import):
        yield from (alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
        yield node.module.partition(".")[0]
    for child in ast.iter_child_nodes(node):
        yield from imported(child)


def test_every_room_has_a_place_in_the_order() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders | {"errors", "wording"} == set(ROOMS), "a new room gets a place in MAY_IMPORT, and a contract"


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_a_contract_that_forbids_what_lies_above_it(room: str) -> None:
    contract = contract_of(room)
    above = {f"batchscope.{other}" for other in set(ROOMS) - MAY_IMPORT[room] - {room}}
    above |= {"torch"} if room in WITHOUT_TORCH else set()
    forbidden = set(contract["forbidden_modules"])
    assert forbidden == above, f"missing {sorted(above - forbidden)}, too many {sorted(forbidden - above)}"
    assert not {"ignore_imports", "allow_indirect_imports"} & set(contract), "a contract of a room has no way around it"


def test_the_picture_shows_every_room() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    picture = text.partition("```text")[2].partition("```")[0]
    assert sorted(room for room in ROOMS if room not in picture.split()) == []


def test_nothing_else_lies_at_the_root() -> None:
    assert {path.name for path in PACKAGE.iterdir() if path.is_file()} == AT_THE_ROOT


def test_torch_is_imported_only_where_something_is_measured_or_trained() -> None:
    allowed = {path for pattern in MAY_IMPORT_TORCH for path in PACKAGE.glob(pattern)}
    torch = {path for path in PACKAGE.glob("**/*.py") if "torch" in imported(ast.parse(path.read_bytes()))}
    assert sorted(str(path.relative_to(PACKAGE)) for path in torch - allowed) == []


@pytest.mark.parametrize("own", LIBRARIES)
def test_a_library_is_imported_in_its_own_part_of_integrations_alone(own: str) -> None:
    places = (PACKAGE / "integrations" / f"{own}.py", *PACKAGE.glob(f"integrations/{own}/**/*.py"))
    users = {path for path in PACKAGE.glob("**/*.py") if {*LIBRARIES[own]} & {*imported(ast.parse(path.read_bytes()))}}
    assert sorted(str(path.relative_to(PACKAGE)) for path in users.difference(places)) == []
    packages = list(LIBRARIES[own])
    contract = next(each for each in contracts() if each["forbidden_modules"] == packages)
    assert contract["source_modules"] == ["batchscope"], "no room may import it"
    around = {f"batchscope.integrations.{own}{below} -> {each}" for below in ("", ".**") for each in packages}
    assert set(contract["ignore_imports"]) == around, "but its own part"


def test_every_part_of_integrations_is_of_a_library_that_is_known() -> None:
    parts = {path.stem for path in (PACKAGE / "integrations").iterdir() if not path.name.startswith("_")}
    assert parts - OF_NO_LIBRARY <= set(LIBRARIES), "a new library gets a place in LIBRARIES, a contract, and an extra"


def test_no_circle_between_rooms() -> None:
    """Imports for the type checker alone count: a reader has to follow them as well."""
    graph = grimp.build_graph("batchscope", cache_dir=None)
    rooms: dict[str, set[str]] = {room: set() for room in ROOMS}
    for module in graph.modules - {"batchscope", "batchscope.__main__"}:
        room = module.split(".")[1]
        others = {other.split(".")[1] for other in graph.find_modules_directly_imported_by(module) if "." in other}
        rooms[room] |= others - {room}
    try:
        TopologicalSorter(rooms).prepare()
    except CycleError as error:
        pytest.fail(f"rooms import one another in a circle: {error.args[1]}")
    assert {room: sorted(others - MAY_IMPORT[room]) for room, others in rooms.items()} == {room: [] for room in ROOMS}


def test_no_file_is_longer_than_two_pages() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for folder in ("src", "tests", "benchmarks")
        for path in (ROOT / folder).glob("**/*.py")
    }
    assert {path: lines for path, lines in lengths.items() if lines > MOST_LINES} == {}
