"""SIGINT, SIGTERM and SIGHUP at random moments: 130, 143, 129, one sentence, one JSON object, nobody left behind."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .case import Fault, Seen, begin, end, processes_of
from .commands import COMMANDS, Command, finished_rows, lost_rows, prepare

__all__ = ["faults"]

_SEED, _TRIALS, _QUICK = 13, 100, 4
_TRIES = 4
"""Each at half the moment of the one before: a command that is over before its signal was none that got one."""
_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SENTENCE = "finished runs are kept, and the same command goes on from there"
_BY_ITSELF_S = 30.0
"""Until a command must be over; the grace for code that cannot be interrupted is 10 s on a quiet machine."""


@dataclass(frozen=True, kw_only=True)
class _Trial:
    command: Command
    number: signal.Signals
    share: float
    """Of the time that the command takes, from when it has taken its signals."""
    to_group: bool
    """As a terminal does it, and a service manager: to all processes."""
    twice: bool

    @property
    def what(self) -> str:
        how = f"{self.number.name}{' twice' if self.twice else ''}{' to all processes' if self.to_group else ''}"
        return f"{how} after {self.share:.0%} of {self.command.name}"


def faults(quick: bool) -> Iterator[Fault]:
    for number in _NUMBERS:
        if signal.getsignal(number) is signal.SIG_IGN:  # of a job in the background: commands would ignore it too
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    drawn = random.Random(_SEED)
    commands = [COMMANDS["find", 2], COMMANDS["bench", 0]] if quick else list(COMMANDS.values())
    for i in range(_QUICK if quick else _TRIALS):
        trial = _Trial(
            command=commands[i % len(commands)],
            number=drawn.choice(_NUMBERS),
            share=drawn.uniform(0.0, 0.95),
            to_group=drawn.random() < 0.5,
            twice=drawn.random() < 0.3,
        )
        yield Fault(what=trial.what, tried=partial(_tried, trial))


def _tried(trial: _Trial, folder: Path) -> Seen:
    prepare(folder)
    seconds = trial.command.undisturbed(folder).seconds
    for i in range(_TRIES):
        place = folder / str(i)
        place.mkdir()
        prepare(place)
        if (seen := _sent_into(trial, place, trial.share * seconds / 2**i)) is not None:
            return seen
    return Seen(held=False, said="it was always over before")


def _sent_into(trial: _Trial, folder: Path, after_s: float) -> Seen | None:
    """What became of a command that got its signal; `None` where it was over before."""
    process = begin([*trial.command.line, "--json"], folder)
    try:
        _wait_until_taken(process)
        time.sleep(after_s)
        before = finished_rows(folder / "out")
        if process.poll() is not None:
            return None
        sent_at = time.monotonic()
        for _ in range(1 + trial.twice):
            _send(process, trial)
            time.sleep(0.05)
        try:
            process.wait(_BY_ITSELF_S)
        except subprocess.TimeoutExpired:
            return Seen(held=False, said=f"it was not over after {_BY_ITSELF_S:.0f} s")
        took, left = time.monotonic() - sent_at, processes_of(process.pid)
    finally:
        ended = end(process, folder)
    lost = lost_rows(before, finished_rows(folder / "out"))
    wrong = [
        f"status {ended.status}" * (ended.status != 128 + trial.number),
        f"{ended.stderr.count(_SENTENCE)} sentences" * (ended.stderr.count(_SENTENCE) != 1),
        "a traceback" * ("Traceback" in ended.stderr or "Exception ignored" in ended.stderr),
        f"{len(left)} processes left" * bool(left),
        "stdout is no JSON object" * (not _is_object(ended.stdout)),
    ]
    said = ", ".join(filter(None, wrong))
    return Seen(held=not said, lost=lost, said=said or f"{took:.1f} s, {len(before)} finished runs kept")


def _wait_until_taken(process: subprocess.Popen[str]) -> None:
    """Wait until the program takes SIGTERM; what comes before is the interpreter's start."""
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        caught = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt"))
        if int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.005)


def _send(process: subprocess.Popen[str], trial: _Trial) -> None:
    if process.poll() is None:
        (os.killpg if trial.to_group else os.kill)(process.pid, trial.number)


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict) and text.count("\n") == 1
    except ValueError:
        return False
