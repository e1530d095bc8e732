"""The parts that CONTRIBUTING adds as examples work as they stand there, each one source file and one test file.

Every block that begins with a file's name is written to that file in a copy of the package; its tests, the linter and
the import contracts then run there, and no other file is touched.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```python\n# ((?:src/batchscope|tests)/\S+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KINDS = ("probes", "fits", "search/strategies", "tasks/builtin")

PARTS = {block[1]: block[2] for block in BLOCK.finditer((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))}
"""The text of each file of the examples, by its path."""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as it is and the examples' files besides."""
    folder = tmp_path_factory.mktemp("added")
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    for path, text in PARTS.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return folder


def run_in(folder: Path, *command: str) -> str:
    """What a command says in a folder, with the package that lies there; it must end well."""
    here = f"import sys; sys.path.insert(0, {str(folder / 'src')!r}); "
    call = [sys.executable, "-c", here + command[0], *command[1:]]
    done = subprocess.run(call, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_there_is_an_example_of_each_kind() -> None:
    sources = {str(PurePosixPath(path).parent) for path in PARTS if path.startswith("src/")}
    assert sources == {f"src/batchscope/{kind}" for kind in KINDS}


def test_each_part_is_one_new_source_file_and_one_new_test_file() -> None:
    assert not [path for path in PARTS if (ROOT / path).exists()]
    tests_of = {
        path: str(PurePosixPath("tests") / PurePosixPath(path).relative_to("src/batchscope").parent)
        + f"/test_{PurePosixPath(path).name}"
        for path in PARTS
        if path.startswith("src/")
    }
    assert sorted(tests_of.values()) == sorted(path for path in PARTS if path.startswith("tests/"))


def test_their_tests_and_their_docstrings_pass(copy: Path) -> None:
    said = run_in(copy, "import pytest; sys.exit(pytest.main())", "-n", "0", "-p", "no:cacheprovider", "-v", *PARTS)
    assert all(path in said for path in PARTS if path.startswith("tests/"))
    assert not re.search(r"\b(skipped|failed|error)", said)


def test_they_keep_the_import_contracts(copy: Path) -> None:
    call = "from importlinter.cli import lint_imports_command as command; command()"
    said = run_in(copy, call, "--no-cache", "--config", "pyproject.toml")
    assert re.search(r"\d+ kept, 0 broken", said)


def test_they_are_linted_and_formatted(copy: Path) -> None:
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent))
    if ruff is None:
        pytest.skip("ruff is not installed beside this Python")
    for command in ("check", "format --check"):
        words = [ruff, *command.split(), "--no-cache", *PARTS]
        done = subprocess.run(words, cwd=copy, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
