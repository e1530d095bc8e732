"""`loop.py` as a process of its own with one thread, and what it printed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainings import Training

__all__ = ["ONE_THREAD", "Failed", "environment", "run", "words"]

LOOP = Path(__file__).resolve().parent / "loop.py"
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_SETUP_S = 120.0


class Failed(RuntimeError):
    """The loop ended without an answer; the message is the last line that it wrote."""


def environment() -> dict[str, str]:
    """This process's environment, with one thread."""
    return {**os.environ, **dict.fromkeys(ONE_THREAD, "1")}


def words(
    training: Training, batch_size: int, lr: float, seed: int, *, max_seconds: float, more: Sequence[str] = ()
) -> list[str]:
    """The command that trains a recipe, evaluated as often as the training says unless `more` says otherwise."""
    options: Mapping[str, Any] = {
        "--batch-size": batch_size,
        "--lr": f"{lr:.9g}",
        "--seed": seed,
        "--target": training.target,
        "--every": training.every(batch_size),
        "--max-seconds": f"{max_seconds:.6g}",
    }
    given = [str(word) for pair in options.items() for word in pair]
    return [sys.executable, str(LOOP), str(training.file), *given, *more]


def run(command: Sequence[str], max_seconds: float) -> dict[str, Any]:
    """What the loop prints; where it hangs, it is ended with its loader's workers.

    Args:
        command: of `words`.
        max_seconds: of its steps; evaluations and set-up may take three times as long and two minutes.

    Raises:
        Failed: it did not print a JSON object.
    """
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=environment(),
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=4 * max_seconds + _SETUP_S)
    except subprocess.TimeoutExpired:
        raise Failed(f"it hung for {4 * max_seconds + _SETUP_S:.0f} s") from None
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    try:
        return json.loads(out)
    except ValueError:
        raise Failed((err.strip().splitlines() or [f"status {process.returncode}"])[-1]) from None
