"""SIGKILL at random moments of a command, then the same command to its end: no finished run is lost or made again."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from .case import Ended, Fault, Seen, begin, end, run
from .commands import COMMANDS, Command, finished_rows, lost_rows, prepare

__all__ = ["faults"]

_SEED, _TRIALS, _QUICK = 127, 60, 1
_KILLS = 2
"""Of one folder, one after another."""


def faults(quick: bool) -> Iterator[Fault]:
    drawn = random.Random(_SEED)
    names = ("study",) if quick else ("find", "study", "claims")
    commands = [COMMANDS[name, workers] for name in names for workers in (0, 2)]
    for i in range(_QUICK if quick else _TRIALS):
        command = commands[i % len(commands)]
        at = [drawn.uniform(0.3, 0.95) for _ in range(_KILLS)]
        moments = " and ".join(f"{share:.0%}" for share in at)
        yield Fault(what=f"SIGKILL after {moments} of {command.name}", tried=partial(_tried, command, at))


def _tried(command: Command, at: list[float], folder: Path) -> Seen:
    prepare(folder)
    undisturbed, lost = command.undisturbed(folder), 0
    for share in at:
        before = finished_rows(folder / "out")
        process = begin(command.line, folder)
        try:
            time.sleep(share * undisturbed.seconds)
            os.kill(process.pid, signal.SIGKILL)
        finally:
            end(process, folder)
        lost += lost_rows(before, finished_rows(folder / "out"))
    before = finished_rows(folder / "out")
    whole = run([*command.line, "--json"], folder, limit_s=600.0)
    lost += lost_rows(before, finished_rows(folder / "out"))
    if whole.status not in (0, 3) or "Traceback" in whole.stderr:
        return Seen(held=False, lost=lost, said=f"status {whole.status}: {whole.stderr[-300:]}")
    if command.words[0] == "claims":  # what it plans depends on the time that is left
        return Seen(held=True, lost=lost, said=f"{len(before)} runs kept")
    same = _answer(whole, command) == _answer(undisturbed, command)
    return Seen(held=same, lost=lost, said=f"{len(before)} runs kept" if same else "another answer")


def _answer(ended: Ended, command: Command) -> Any:
    """What a command found, without anything that a clock measured."""
    found = json.loads(ended.stdout)
    if command.words[0] == "find":
        return found["status"], found["recipe"]
    kept = ("batch_size", "lr", "seed", "steps", "status", "final_val_loss")
    return sorted(tuple(str(row[name]) for name in kept) for row in found["rows"])
