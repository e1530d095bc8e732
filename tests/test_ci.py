"""`.ci/run` makes two environments, runs each check in its own, and fails where one fails.

The script is run as it stands, by an interpreter that makes environments of commands which only write down that they
were called; one of them may be told to fail.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = ("pip", "pytest", "python", "ruff", "pyright", "lint-imports")

INTERPRETER = """#!/usr/bin/env bash
# `-m venv FOLDER`: an environment as venv makes it, whose commands write down FOLDER's name and their words.
folder=$3
mkdir -p "$folder/bin"
for command in {commands}; do
    cat > "$folder/bin/$command" <<END
#!/usr/bin/env bash
echo "$(basename "$folder"): $command \\$*" >> {log}
[ "$command \\$*" != "{failing}" ]
END
    chmod +x "$folder/bin/$command"
done
cat > "$folder/bin/activate" <<'END'
[ -z "${{before:-}}" ] || PATH=$before
before=$PATH
END
echo "PATH=$folder/bin:\\$PATH" >> "$folder/bin/activate"
"""


@dataclass(frozen=True, kw_only=True)
class Ended:
    status: int
    said: str
    calls: dict[str, list[str]]
    """By environment, the commands that were run in it, in order."""


def run(folder: Path, *, failing: str = "") -> Ended:
    log, interpreter = folder / "log", folder / "interpreter"
    log.touch()
    interpreter.write_text(INTERPRETER.format(commands=" ".join(COMMANDS), log=log, failing=failing.replace('"', "")))
    interpreter.chmod(0o755)
    given = {**os.environ, "PYTHON": str(interpreter), "TMPDIR": str(folder)}
    done = subprocess.run(["bash", str(ROOT / ".ci" / "run")], env=given, capture_output=True, text=True, timeout=60)
    calls: dict[str, list[str]] = {}
    for line in log.read_text().splitlines():
        environment, _, call = line.partition(": ")
        calls.setdefault(environment, []).append(call)
    return Ended(status=done.returncode, said=done.stdout + done.stderr, calls=calls)


def test_the_tests_of_integrations_run_in_an_environment_of_their_own(tmp_path: Path) -> None:
    ended = run(tmp_path)
    assert ended.status == 0, ended.said
    assert list(ended.calls) == ["plain", "integrations"]
    assert ended.calls["plain"][:2] == ["pip install -c constraints.txt -e .[test]"] * 2, "no library of integrations"
    installed, removed, *checks = ended.calls["integrations"]
    assert installed == "pip install -c constraints.txt -e .[test,integrations]"
    assert removed == "pip uninstall --yes torchvision"
    assert any("tests/integrations" in call for call in checks)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()], "what the checks made is taken away"


@pytest.mark.parametrize("failing", ["pytest --slow -m slow", "pip install -c constraints.txt -e .[test,integrations]"])
def test_one_failing_check_fails_the_whole_and_the_others_still_run(tmp_path: Path, failing: str) -> None:
    ended = run(tmp_path, failing=failing)
    assert ended.status == 1
    verdicts = [line for line in ended.said.partition("=== summary")[2].splitlines() if line]
    assert len([line for line in verdicts if line.startswith("FAILED")]) == 1
    assert any("tests/integrations" in call for call in ended.calls["integrations"])
    assert len(verdicts) == sum(map(len, ended.calls.values())) - 1, "the README's command is two calls"
