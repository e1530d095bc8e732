"""Hostile strings everywhere they can come from: what reaches a terminal, a page or a log steers nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from .case import Fault, Seen, run

__all__ = ["STRINGS", "faults"]

STRINGS = {
    "cursor": "m\x1b[2J\x1b[31m",
    "title": "m\x1b]0;title\x07",
    "overwriting": "m\r\x08\x7f",
    "lines": "m\nbatchscope: forged\x85\u2028",
    "C1": "m\x9b2J\x90",
    "direction": "m\u202egnp\u2066\u200f",
    "invisible": "m\ufeff\u200b\U000e0041",
    "not UTF-8": "m\udcff",
    "page": "m</script><img src=x onerror=alert(1)>&amp;",
    "terminal markup": "m[red][/]:smile:",
    "templates": "m{0}{{x}}%{y}%s",
    "code": "m\"]); import os #'\\",
}
_TASK = """
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

BAD = {bad!a}

class Hostile:
    def __init__(self, **settings):
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(120, 4, generator=generator)
        self.y = (self.x[:, 0] > 0).long() + (self.x[:, 1] > 0)
    def model(self):
        return nn.Linear(4, 3)
    def train_data(self):
        return TensorDataset(self.x[:100], self.y[:100])
    def loss(self, model, batch):
        return F.cross_entropy(model(batch[0]), batch[1])
    def optimizer(self, params, lr):
        made = torch.optim.SGD(params, lr=lr)
        made.param_groups[0][BAD] = BAD
        return made
    def evaluate(self, model):
        value = F.cross_entropy(model(self.x[100:]), self.y[100:])
        return {{BAD: value, "val_loss": value, "test_" + BAD: value}}

Hostile.__name__ = Hostile.__qualname__ = BAD.encode(errors="ignore").decode()

class Raises(Hostile):
    def loss(self, model, batch):
        raise RuntimeError(BAD)
"""


def faults(quick: bool) -> Iterator[Fault]:
    """Each string in each place; with `quick` all in a table, and one in a search."""
    for name, bad in STRINGS.items():
        yield Fault(what=f"{name}: header, cells and name of a table", tried=partial(_table, bad))
    for name, bad in [*STRINGS.items()][:1] if quick else STRINGS.items():
        yield Fault(what=f"{name}: metric, class, optimizer key, file, folder, setting", tried=partial(_search, bad))
        yield Fault(what=f"{name}: message of an exception", tried=partial(_exception, bad))
        yield Fault(what=f"{name}: arguments", tried=partial(_arguments, bad))


def _table(bad: str, folder: Path) -> Seen:
    header = cell = bad.encode(errors="ignore").decode().replace('"', '""')
    losses = ((size, step, 1 / (1 + step * size**0.5 / 300)) for size in (16, 64, 256) for step in range(0, 600, 30))
    rows = [f'{size},{step},{loss},"r{size}{cell}","{cell}",0.001' for size, step, loss in losses]
    text = "\n".join([f'batch_size,step,loss,run,"{header}",step_time_s', *rows, ""])
    name = f"t{bad.replace('/', '')}.csv"
    (folder / name).write_text(text, encoding="utf-8", newline="")
    return _seen(folder, [["fit", name, "--target", "loss<=0.3", "--out", "out"]], (0, 2, 3))


def _search(bad: str, folder: Path) -> Seen:
    file, out = f"t{bad.replace('/', '')}.py", f"o{bad.replace('/', '')}"
    (folder / file).write_text(_TASK.format(bad=bad), encoding="utf-8")
    find = ["find", f"{file}:Hostile", "--metric", f"{bad}:min", "--set", f"{bad.replace('=', '')}={bad}"]
    find += ["--max-batch-size", "16", "--trainings", "0.1", "--out", out]
    return _seen(folder, [find, ["runs", out], ["report", out], [*find, "--json"]], (0, 3), pages=1)


def _exception(bad: str, folder: Path) -> Seen:
    (folder / "mine.py").write_text(_TASK.format(bad=bad), encoding="utf-8")
    find = ["find", "mine.py:Raises"]
    return _seen(folder, [find, [*find, "--debug"], [*find, "--json"]], (2,))


def _arguments(bad: str, folder: Path) -> Seen:
    options = ("--target", "--set", "--device", "--budget", "--hardware", "--current", "--within", "--metric")
    words = [["find", "digits", option, bad] for option in options]
    words += [["find", bad], ["study", bad], ["fit", bad], ["report", bad], ["runs", bad], [bad], ["find", f"--{bad}"]]
    return _seen(folder, words, (2,))


def _seen(folder: Path, commands: Sequence[Sequence[str]], statuses: tuple[int, ...], *, pages: int = 0) -> Seen:
    wrong: list[str] = []
    for words in commands:
        ended = run(words, folder, limit_s=300.0)
        said = (folder / "stdout").read_bytes() + (folder / "stderr").read_bytes()
        if ended.status not in statuses:
            wrong.append(f"status {ended.status}: {ended.stderr[-200:]!a}")
        if ("Traceback" in ended.stderr) != ("--debug" in words) or "internal error" in ended.stderr:
            wrong.append("a traceback, or none where it was asked for")
        if bad := _harmful(said):
            wrong.append(f"printed {bad}")
        if "--json" in words and not json.loads(ended.stdout):
            wrong.append("no JSON")
    found = [Path(root, "report.html") for root, _, files in os.walk(folder) if "report.html" in files]
    for page in found:
        content = page.read_bytes()
        if (bad := _harmful(content)) or b"<img" in content:
            wrong.append(f"a page with {bad or '<img'}")
    if len(found) < pages:
        wrong.append("no page")
    return Seen(held=not wrong, said="; ".join(wrong)[:500])


def _harmful(content: bytes) -> str:
    """What does not print, line breaks and hard spaces apart; what is not UTF-8 is among it."""
    text = content.decode(errors="surrogateescape")
    return ascii("".join(sorted({c for c in text if not c.isprintable() and c not in "\n\N{NO-BREAK SPACE}"}))).strip(
        "'"
    )
