"""No script of the benchmarks imports itself on a detour, not even inside a function or for the type checker alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
FOLDERS = (BENCHMARKS, BENCHMARKS / "search")
"""What the scripts have on their path: modules of both are imported by their bare names."""

pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="needs benchmarks/, which a source distribution lacks")


def module_files() -> dict[str, Path]:
    """The file of every module, by the name under which it is imported."""
    files = {path.stem: path for folder in FOLDERS for path in folder.glob("*.py")}
    for package in (path.parent for folder in FOLDERS for path in folder.glob("*/__init__.py")):
        files |= {f"{package.name}.{path.stem}": path for path in package.glob("*.py")}
    return {name.removesuffix(".__init__"): path for name, path in files.items()}


def imported(source: str, package: str) -> Iterator[str]:
    """Every name that a module imports, at any level; `package` is what a leading dot stands for."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            where = ".".join(part for part in (package if node.level else "", node.module or "") if part)
            yield where
            yield from (f"{where}.{alias.name}" for alias in node.names)


def graph(files: Mapping[str, Path]) -> dict[str, set[str]]:
    """The modules that each module imports, itself left out."""
    package_of = {name: name if path.name == "__init__.py" else name.rpartition(".")[0] for name, path in files.items()}
    return {
        name: {other for other in imported(path.read_text(encoding="utf-8"), package_of[name]) if other in files}
        - {name, package_of[name]}
        for name, path in files.items()
    }


def circle(imports: Mapping[str, set[str]]) -> list[str]:
    """One circle of imports, each imported by the next; empty where there is none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_script_imports_itself_on_a_detour() -> None:
    imports = graph(module_files())
    assert {"record", "run", "rivals", "rivals.asha"} <= set(imports)
    assert "replay" in imports["rivals.asha"]
    assert "rivals.asha" in imports["rivals"]
    assert circle(imports) == []


def test_every_bare_name_is_one_module() -> None:
    stems = [path.stem for folder in FOLDERS for path in folder.glob("*.py")]
    assert sorted(stems) == sorted(set(stems))


@pytest.mark.parametrize(
    "line", ["import finders", "def late():\n    from finders import found", "if TYPE_CHECKING:\n    import finders"]
)
def test_a_circle_is_seen_wherever_the_import_stands(line: str, tmp_path: Path) -> None:
    for name, source in {"finders": "from rivals import FINDERS", "rivals": line}.items():
        (tmp_path / f"{name}.py").write_text(source)
    files = {name: tmp_path / f"{name}.py" for name in ("finders", "rivals")}
    assert set(circle(graph(files))) == {"finders", "rivals"}
