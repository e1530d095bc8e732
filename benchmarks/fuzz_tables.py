"""Random tables for `fit`: runs that obey a law of steps to target, written as people and their tools write them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

__all__ = ["table_case"]

_BATCH = ["batch_size", "Batch size", "bs", "params_batch_size", "params.batch_size", "config.batch_size", "batch"]
_STEPS = ["steps_to_target", "epochs_to_target", "examples_to_target", "steps", "summary.steps_to_target"]
_TIME = ["step_time_s", "epoch_time_s", "step_time", "metrics.step_time_s", ""]
_LR = ["lr", "learning_rate", "params_lr", "params.lr", "config.optimizer.lr", ""]
_EMPTY = ["", "nan", "NaN", "None", "null", "-", "inf", "never", "n/a"]
_ODD = [
    "0",
    "-3",
    "1e308",
    "1e400",
    "1,5",
    "1.000",
    "32.5",
    "12 ms",
    "45%",
    "٣",
    "1_000",
    " 7 ",
    "true",
    '"',
    "\x00",
    "=1+1",
]
_METRICS = ["val_loss<=0.3", "val_loss<=0.3", "val_accuracy>=0.9"]
_NO_METRICS = ["epoch<=2", "step<=100", "run<=1", "state<=1", "lr<=0.1", "batch_size>=64", "steps_to_target<=100"]
_EXAMPLES = ["1000", "50000", "0", "1e9"]


def table_case(random: random.Random, folder: Path) -> list[str]:
    """A table in the folder and the command that reads it; a third are clean, the others have one to three flaws."""
    rows = [_row(random, size) for size in _sizes(random) for _ in range(random.choice([1, 1, 2, 3, 5]))]
    header = [random.choice(names) for names in (_BATCH, _STEPS, _TIME, _LR)]
    if random.random() < 0.5:
        header = ["batch_size", "steps_to_target", "step_time_s", "lr"]
    kept = [i for i, name in enumerate(header) if name]
    cells = [[header[i] for i in kept], *([row[i] for i in kept] for row in rows)]
    for flaw in random.sample(_FLAWS, random.choice([0, 0, 1, 1, 2, 3])):
        flaw(random, cells)
    separator = random.choice([",", ",", ",", ";", "\t", "|"])
    decimal = "," if separator == ";" and random.random() < 0.5 else "."
    lines = [separator.join(_written(cell, separator, decimal) for cell in line) for line in cells]
    text = random.choice(["\n", "\n", "\r\n"]).join(lines) + random.choice(["", "\n", "\n\n"])
    path = folder / "given.csv"
    encoding = random.choice(["utf-8"] * 6 + ["utf-8-sig", "utf-16", "latin-1"])
    path.write_bytes(text.encode(encoding, errors="replace"))
    return ["fit", path.name, "--out", "out", *_options(random)]


def _sizes(random: random.Random) -> list[int]:
    first = random.choice([1, 8, 16, 24, 32])
    return [first * 2**k for k in range(random.choice([0, 1, 2, 3, 4, 5, 6, 8]))]


def _row(random: random.Random, size: int) -> list[str]:
    """Batch size, steps to target, step time and learning rate of a run, about the law s (1 + B_c / B)."""
    steps = 200 * (1 + 300 / size) * random.lognormvariate(0, 0.1)
    seconds = 1e-3 * (1 + size / 100) * random.lognormvariate(0, 0.05)
    return [str(size), f"{steps:.0f}", f"{seconds:.6g}", f"{1e-3 * size**0.5:.3g}"]


def _options(random: random.Random) -> list[str]:
    words = ["--json"] if random.random() < 0.7 else []
    if random.random() < 0.5:
        words += ["--examples", random.choice(_EXAMPLES)]
    if random.random() < 0.2:
        words += ["--current", random.choice(["batch_size=32", "batch_size=32,lr=0.01", "batch_size=7"])]
    if random.random() < 0.2:
        words += ["--max-batch-size", random.choice(["64", "1", "3"])]
    if random.random() < 0.15:
        words += ["--target", random.choice(random.choice([_METRICS, _NO_METRICS]))]
    return words


def _written(cell: str, separator: str, decimal: str) -> str:
    if decimal == "," and cell.replace(".", "", 1).isdigit():
        cell = cell.replace(".", ",")
    return f'"{cell.replace(chr(34), 2 * chr(34))}"' if separator in cell or "\n" in cell else cell


Cells = list[list[str]]


def _some(random: random.Random, cells: Cells) -> list[str]:
    return random.choice(cells[1:]) if len(cells) > 1 else cells[0]


def _empty_cells(random: random.Random, cells: Cells) -> None:
    for _ in range(random.randint(1, 4)):
        row = _some(random, cells)
        row[random.randrange(len(row))] = random.choice(_EMPTY)


def _odd_cell(random: random.Random, cells: Cells) -> None:
    row = _some(random, cells)
    row[random.randrange(len(row))] = random.choice(_ODD)


def _odd_column(random: random.Random, cells: Cells) -> None:
    column, cell = random.randrange(len(cells[0])), random.choice(_EMPTY + _ODD)
    for row in cells[1:]:
        row[column : column + 1] = [cell]


def _scaled_time(random: random.Random, cells: Cells) -> None:
    row = _some(random, cells)
    row[-1] = "123456789012345678901234567890"


def _repeated_rows(random: random.Random, cells: Cells) -> None:
    cells += [list(row) for row in cells[1:]] * random.randint(1, 3)


def _short_row(random: random.Random, cells: Cells) -> None:
    row = _some(random, cells)
    del row[random.randint(1, len(row)) :]


def _long_row(random: random.Random, cells: Cells) -> None:
    _some(random, cells).extend(["7"] * random.randint(1, 3))


def _more_columns(random: random.Random, cells: Cells) -> None:
    count = random.choice([1, 3, 400])
    for i, row in enumerate(cells):
        row += [f"column_{k}" if i == 0 else random.choice(["", "x", "1.5"]) for k in range(count)]


def _twice_named(random: random.Random, cells: Cells) -> None:
    for row in cells:
        row.append(row[0])


def _no_header(random: random.Random, cells: Cells) -> None:
    del cells[0]
    if not cells:
        cells.append([""])


def _states(random: random.Random, cells: Cells) -> None:
    for i, row in enumerate(cells):
        row.append("state" if i == 0 else random.choice(["COMPLETE", "COMPLETE", "PRUNED", "FAIL", "RUNNING"]))


def _curves(random: random.Random, cells: Cells) -> None:
    """One row an evaluation instead of one a run."""
    runs = cells[1:]
    cells[:] = [["run", "batch_size", "step", "val_loss", "lr"]]
    for n, row in enumerate(runs):
        for step in (0, 50, 100, 200, 400, 800):
            loss = 2.0 / (1 + step / 40) * random.lognormvariate(0, 0.02)
            cells.append([f"run{n}", row[0], str(step), f"{loss:.5g}", "0.01"])


_FLAWS: list[Callable[[random.Random, Cells], None]] = [
    _empty_cells,
    _odd_cell,
    _odd_column,
    _scaled_time,
    _repeated_rows,
    _short_row,
    _long_row,
    _more_columns,
    _twice_named,
    _no_header,
    _states,
    _curves,
]
