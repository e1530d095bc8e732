"""Random argument lines: commands and options with values that people mistype, and that nobody types."""

from __future__ import annotations

import random
from pathlib import Path

__all__ = ["argument_line"]

_WHOLE = [
    "0",
    "-1",
    "1",
    "64",
    "1000",
    "1e3",
    "64.0",
    "1000.5",
    "1_000",
    "1,000",
    "1e308",
    "10" * 200,
    "nan",
    "inf",
    "",
    " 8 ",
    "eight",
    "0x10",
    "True",
    "٣",
    "-0",
    "1e-400",
]
_REAL = ["0.5", "1e-3", "-2", "0", "1e308", "1e400", "nan", "-inf", "", "half", "50%", "1,5"]
_DURATION = [
    "2s",
    "0s",
    "-1s",
    "1e400s",
    "nan",
    "5",
    "2 s",
    "1d",
    "0.001s",
    "1h30m",
    "soon",
    "infs",
    "3epochs",
    "7steps",
]
_TARGET = [
    "val_loss<=0.5",
    "val_accuracy>=0.9",
    "val_accuracy>=1.5",
    "val_loss<=nan",
    "val_loss<=-1",
    "val_loss",
    "<=1",
    "val_loss=<0.5",
    "val_loss>=0.5",
    "nothing<=1",
    "val_loss<=1e999",
    "val_loss <= 0.5",
    "",
    "val_loss<=0,5",
]
_RECIPE = [
    "batch_size=32,lr=0.001",
    "batch_size=0,lr=1",
    "batch_size=32",
    "lr=0.1",
    "batch_size=1e9,lr=1e99",
    "32,0.1",
    "",
    "batch_size=32.5,lr=0.1",
    "batch_size=32,lr=nan",
    "batch_size=32,batch_size=64,lr=0.1",
    "batch_size=32;lr=0.1",
]
_SIZES = ["16,32", "0", "16,16", "a,b", "", "1e9", "16, 32", "16,-1", "1:64", "32.5"]
_MEMORY = ["8GiB", "0", "-1GB", "500MB", "1e400GB", "much", "1 GB", "12", ""]
_NAMES = ["digits", "arrays", "nothing", "no/such/file.py", "no.module:task", "digits:task", "", ".", "digits\x1b[31m"]
_SETTINGS = [
    "problem=tabular",
    "nothing=1",
    "=",
    "a",
    "noise=1e400",
    "examples=-3",
    "hidden=nan",
    "hidden=1e9",
    "x=y=z",
]
_METRICS = ["val_loss", "val_loss:min", "val_loss:up", "depth", "depth:max", "", ":max", "a:b:c"]
_COMMON = {"--json": None, "--seed": _WHOLE, "--out": ["out", "given-file/out", "", "o ut", "."]}
_TASK = {"--set": _SETTINGS, "--device": ["cpu", "cuda", "tpu", "", "cpu:9"], "--memory-limit": _MEMORY}
_OPTIONS: dict[str, dict[str, list[str] | None]] = {
    "count": {
        "--examples": _WHOLE,
        "--batch-size": _WHOLE,
        "--epochs": _REAL,
        "--steps": _WHOLE,
        "--last-batch": ["keep", "drop", "stream", "none"],
        "--json": None,
    },
    "find": _COMMON
    | _TASK
    | {
        "--target": _TARGET,
        "--within": _DURATION,
        "--metric": _METRICS,
        "--current": _RECIPE,
        "--max-batch-size": _WHOLE,
        "--objective": ["time", "examples", "money"],
        "--schedule": ["constant", "cosine", "wsd", "step"],
        "--warmup": ["100steps", "5%", "500%", "-1steps", "many", "0.5"],
        "--final-lr": ["0%", "10%", "-1", "200%", "nan"],
        "--trainings": _REAL,
        "--evaluation-share": ["10%", "0", "0%", "100%", "101%", "nan"],
        "--confirm": _WHOLE,
        "--dry-run": None,
    },
    "bench": _COMMON | _TASK | {"--max-batch-size": _WHOLE},
    "noise": _COMMON | _TASK | {"--batch-size": _WHOLE, "--lr": _REAL, "--steps": _WHOLE},
    "study": _COMMON | _TASK | {"--batch-sizes": _SIZES, "--lrs": ["0.1", "0", "a", "1e99"], "--seeds": _WHOLE},
    "claims": _COMMON | _TASK,
    "runs": {"--json": None},
    "report": {},
    "init": {},
}
_FIRST = {"study": ["digits", "fixed_epochs", "no_such_study", "fixed_epochs digits", ""]}
_FOLDERS = {"runs", "report", "init"}


def argument_line(random: random.Random, folder: Path) -> list[str]:
    """A command with some of its options, each with one of the values above; a task gets little time."""
    (folder / "given-file").write_text("not a folder")
    (folder / "given.json").write_text('{"step_time_s": ')
    command = random.choice(["count", "count", "find", "find", "find", *_OPTIONS])
    options = _OPTIONS[command]
    words = [command]
    if command in _FOLDERS:
        words += [random.choice(["", ".", "nowhere", "given-file", "given.json", "digits"])] * random.randrange(2)
    elif command != "count" and random.random() < 0.95:
        words += random.choice(_FIRST.get(command, ["digits"] * 8 + _NAMES)).split(" ")
    for option in random.sample(list(options), min(len(options), random.choice([0, 1, 1, 2, 2, 3, 4]))):
        values = options[option]
        words += [option] if values is None else [option, random.choice(values)]
    if command in ("find", "bench", "noise", "study", "claims"):
        words += ["--budget", random.choice(_DURATION) if random.random() < 0.2 else "2s"]
    return words
