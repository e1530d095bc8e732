"""The documents do not lie: their Python runs, their commands and options exist, their links lead somewhere.

A fenced `python` block is run, the blocks of one document in order and in one namespace. A block whose first line is
`# not run: REASON` is only compiled, and so is one that begins with the file it belongs to (`tests/test_added_parts.py`
runs those). One whose first line is `# needs: LIBRARY` is only compiled where a library is absent, and the test of its
document is then skipped at its end, with the reason.
"""

from __future__ import annotations

import re
import shlex
from contextlib import redirect_stdout
from functools import cache
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")])
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(batchscope [^`]+)`")
ONLY_COMPILED = ("# not run:", "# src/batchscope/", "# tests/")
NEEDS = re.compile(r"# needs: ([\w, ]+)\n")
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)[^)]*\)")

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{message}")
    for message in (
        r".*does not have many workers",  # Lightning, of loaders without workers
        r".*isinstance\(treespec, LeafSpec\)",  # Lightning on torch 2.13
        r".*`torch.jit",
        r".*number of training batches .* is smaller than the logging interval",
        r".*pin_memory",
    )
]
"""Warnings of the libraries in which people train; ours stay errors."""

document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def find_commands(text: str) -> list[list[str]]:
    """Every `batchscope ...` command of a document, as words; prompts, comments and pipes are left out."""
    shell = [block[2] for block in FENCE.finditer(text) if block[1] in ("bash", "console", "sh")]
    lines = [line.removeprefix("$ ") for block in shell for line in block.replace("\\\n", " ").splitlines()]
    lines += INLINE.findall(FENCE.sub("", text))
    commands = (part.strip() for line in lines for part in re.split(r"&&|\|\s|;", line))
    return [words[1:] for command in commands if (words := _split(command))[:1] == ["batchscope"]]


def _split(command: str) -> list[str]:
    try:
        return shlex.split(command, comments=True)
    except ValueError:  # an apostrophe in the output that a console block shows
        return []


@cache
def read_help(*command: str) -> str:
    """What `batchscope COMMAND --help` prints."""
    from batchscope.cli import main

    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as out:
        patch.setenv("COLUMNS", "200")  # so that no option is broken over two lines
        with pytest.raises(SystemExit) as ended:
            main([*command, "--help"])
    assert ended.value.code == 0
    return out.getvalue()


def missing_libraries(block: str) -> set[str]:
    """Libraries that a block says it needs, and that are not installed."""
    needed = NEEDS.match(block)
    return {name for name in needed[1].replace(" ", "").split(",") if find_spec(name) is None} if needed else set()


@document
def test_python_blocks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    absent: set[str] = set()
    for block in FENCE.finditer(path.read_text(encoding="utf-8")):
        if block[1] == "python":
            code = compile(block[2], f"{path.name}: block at character {block.start()}", "exec")
            missing = missing_libraries(block[2])
            absent |= missing
            if not missing and not block[2].startswith(ONLY_COMPILED):
                exec(code, namespace)
    if absent:
        pytest.skip(f"all its other blocks ran; not installed: {', '.join(sorted(absent))}")


@document
def test_commands_exist(path: Path) -> None:
    for name, *words in find_commands(path.read_text(encoding="utf-8")):
        if name.startswith("-"):
            continue
        assert re.search(rf"^\W*{re.escape(name)}\s", read_help(), re.MULTILINE), f"batchscope {name} is not a command"
        for option in (word.partition("=")[0] for word in words if word.startswith("--")):
            assert re.search(rf"{option}(?![\w-])", read_help(name)), f"batchscope {name} has no option {option}"


@document
def test_links_lead_somewhere(path: Path) -> None:
    targets = LINK.findall(path.read_text(encoding="utf-8"))
    assert not [target for target in targets if not (path.parent / target).exists()]


def test_commands_are_found() -> None:
    text = "Try `batchscope count --examples 5`.\n"
    text += "```bash\n$ pip install . && batchscope find digits \\\n  --seed 1 # x\n```\n"
    assert find_commands(text) == [["find", "digits", "--seed", "1"], ["count", "--examples", "5"]]


def test_a_block_names_the_libraries_that_it_needs() -> None:
    assert missing_libraries("# needs: torch, no_such_library\nimport torch\n") == {"no_such_library"}
    assert missing_libraries("import no_such_library\n") == set()


def test_a_script_becomes_a_task_in_ten_lines_at_most() -> None:
    text = (ROOT / "docs" / "inside-a-training.md").read_text(encoding="utf-8")
    section = text.partition("## A task of what the script has")[2].partition("\n## ")[0]
    blocks = [block[2] for block in FENCE.finditer(section) if block[1] == "python"]
    tasks = [block for block in blocks if re.search(r"^def \w*task\(|import task as", block, re.MULTILINE)]
    lines = [sum(bool(line.strip()) and not line.startswith("#") for line in block.splitlines()) for block in tasks]
    assert lines == [10, 10, 2, 2], "a plain loop, Accelerate, Lightning, the Trainer"
