"""Whether the code still answers what it answered: a safety net for changes that are to change no answer.

    python tests/golden/check.py               # everything; needs ../shared/data for a part, which is skipped without
    python tests/golden/check.py --quick       # what takes under three minutes
    python tests/golden/check.py --only fit study-modes
    python tests/golden/check.py --write       # record anew what the code answers now, after a change on purpose

`recorded/NAME.json` holds the answers of `find` on `digits` and on two real tasks for machines of fixed speed, of `fit`
on recorded trainings, and of the named studies in their small form: discrete things and numbers, no sentences
(`answers.py` says what is kept, and what is left out because it follows from measured time). The questions (`cases.py`)
are put as a user puts them, as commands with `--json` and a results folder: nothing here depends on how the code is
divided.

Whole numbers, learning rates, statuses, verdicts and lists of runs are compared exactly. Other numbers may differ: in
fits, which are pure NumPy, by 1e-6 of their size; where something was trained by 1e-3, because training carries on the
last bits in which processors differ. An estimate may differ by that share of the largest of its value and ends.

Commands run with one thread and a budget that no run comes near: how closely runs are evaluated follows from the
measured time of an evaluation and the budget, and with this one it is the same for every machine. Then all answers are
repeatable to the last bit on one machine, busy or not. To make them so on others of its kind (x86), vector instructions
are held at AVX2 and MKL at its compatible branch; a few of the studies, none of the quick part, are chaotic enough to
come out otherwise under other instructions (`cases.py` names them), and are then to be compared on one machine.

Exit status: 0, nothing differs; 1, something does, listed by case, path, expected and found. `--write` puts every
question twice, and refuses what does not come out the same twice.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from cases import HERE, Case, chosen

RECORDED = HERE / "recorded"
DIGITS = 7
_LEAST, _LEAST_TRAINED = 1e-9, 2e-5
"""Differences below this are none, in fits and where something was trained: many a number there is the difference of
two losses or accuracies in single precision."""
_MOST_LINES = 40

Difference = tuple[str, Any, Any]


def differences(
    expected: Any, found: Any, tolerance: float, path: str = "", scale: float = 0.0
) -> Iterator[Difference]:
    """Where two answers differ: the path, what was expected there, and what was found.

    Args:
        expected: JSON types.
        found: JSON types.
        tolerance: of numbers that are not whole, relative to the larger of their size and the scale.
        path: so far.
        scale: of the numbers beside these in one estimate.
    """
    if isinstance(expected, dict) and isinstance(found, dict):
        for name in sorted({*expected, *found}):
            there = expected.get(name, "nothing"), found.get(name, "nothing")
            yield from differences(*there, tolerance, f"{path}/{name}")
    elif isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            yield f"{path}/length", len(expected), len(found)
        # An estimate, or a point of a curve: value, low and high come first.
        largest = max((abs(v) for v in expected[:3] if _is_number(v)), default=0.0) if len(expected) > 3 else 0.0
        for place, (one, other) in enumerate(zip(expected, found, strict=False)):
            yield from differences(one, other, tolerance, f"{path}/{place}", largest)
    elif _is_number(expected) and _is_number(found) and not isinstance(expected, int):
        if path.endswith("/lr"):
            tolerance = 1e-6
        least = _LEAST if tolerance <= 1e-6 else _LEAST_TRAINED
        room = max(least, tolerance * max(abs(expected), scale))
        if not math.isclose(expected, found, rel_tol=0.0, abs_tol=room):
            yield path, expected, found
    elif expected != found or type(expected) is not type(found):
        yield path, expected, found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def rounded(value: Any) -> Any:
    """The same with numbers of seven significant digits; JSON types."""
    if isinstance(value, Mapping):
        return {str(name): rounded(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def as_text(value: Any, depth: int = 0) -> str:
    """JSON with sorted names, one line for what lies four levels deep."""
    if depth < 4 and value and isinstance(value, dict | list):
        pad, mark = " " * (depth + 1), "{}" if isinstance(value, dict) else "[]"
        if isinstance(value, dict):
            parts = [f"{json.dumps(name)}: {as_text(value[name], depth + 1)}" for name in sorted(value)]
        else:
            parts = [as_text(item, depth + 1) for item in value]
        inside = ",\n".join(f"{pad}{part}" for part in parts)
        return f"{mark[0]}\n{inside}\n{' ' * depth}{mark[1]}"
    return json.dumps(value, sort_keys=True, allow_nan=False)


def answers_of(case: Case) -> Any:
    """What the code answers now."""
    with tempfile.TemporaryDirectory() as folder:
        return rounded(case.answers(Path(folder)))


def check(case: Case) -> list[Difference]:
    """Where the code answers otherwise than recorded."""
    path = RECORDED / f"{case.name}.json"
    if not path.is_file():
        return [("", "a recorded answer (--write)", "none")]
    return list(differences(json.loads(path.read_text(encoding="utf-8")), answers_of(case), case.tolerance))


def write(case: Case) -> list[Difference]:
    """Record what the code answers, if it answers twice the same; else where the second answer differs."""
    answers = answers_of(case)
    unlike = list(differences(answers, answers_of(case), 0.0))
    if not unlike:
        RECORDED.mkdir(exist_ok=True)
        (RECORDED / f"{case.name}.json").write_text(as_text(answers) + "\n", encoding="utf-8")
    return unlike


def _shown(found: list[Difference]) -> str:
    lines = [f"    {path}: expected {json.dumps(one)}, found {json.dumps(other)}" for path, one, other in found]
    more = [f"    ... and {len(lines) - _MOST_LINES} more"] if len(lines) > _MOST_LINES else []
    return "\n".join([*lines[:_MOST_LINES], *more])


def _tried(case: Case, *, write_it: bool) -> tuple[str, list[Difference]]:
    """What to print of a case, and where it differs."""
    if refusal := case.refusal():
        return f"skipped, {refusal}", []
    started = time.monotonic()
    found = write(case) if write_it else check(case)
    verdict = f"{len(found)} differences" if found else "recorded" if write_it else "as recorded"
    return f"{verdict} ({time.monotonic() - started:.0f} s)", found


def main() -> int:
    """Check or record the cases asked for; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="cases whose name begins so")
    parser.add_argument("--quick", action="store_true", help="the part that takes under three minutes")
    parser.add_argument("--write", action="store_true", help="record what the code answers now")
    asked = parser.parse_args()
    try:
        cases = chosen(asked.only, quick=asked.quick)
    except LookupError as error:
        parser.error(str(error.args[0]))
    differ = 0
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:  # each case is one process on one thread
        for case, (verdict, found) in zip(cases, pool.map(partial(_tried, write_it=asked.write), cases), strict=True):
            differ += bool(found)
            print(f"{case.name}: {verdict}", flush=True)
            if found:
                print(_shown(found), flush=True)
    print(f"{differ} of {len(cases)} cases differ" if differ else "no answer differs")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
