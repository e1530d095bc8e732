"""The questions, and how they are put: commands as a user types them, in an empty folder, for machines of fixed speed.

The recorded trainings are those of `../shared/data`: see the `README.md` of each folder there.
"""

from __future__ import annotations

import csv
import fnmatch
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from answers import find_answer, fit_answer, study_answer

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[2] / "shared" / "data"

SOURCES = HERE.parents[1] / "src"

_THREADS = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
_INSTRUCTIONS = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
}
"""What every x86 machine of the last ten years has, so that the last bits of a sum depend little on which one it is.
What the environment says already stands: so the answers can be seen in another machine's arithmetic."""

FIND, STUDY = "--budget 100000s --seed 0", "--quick --budget 100000s --seed 0"
"""No run comes near the budget, whatever the machine's speed is."""
_NO_TIME = ("--budget", "0.000001s")

_STEP_S = 1e-3
_EVALUATION_S = {"dear evaluations": 4e-3}
"""Seconds of an evaluation as they were measured before the search (0: runs are evaluated as densely as they get), by
question: its time beside a step decides how often runs are evaluated, and would be another one on each machine."""

FINDS_ON_DIGITS = {
    "no target": "digits --hardware fast.json",
    "several targets": "digits --hardware fast.json --target val_loss<=0.2 --target val_loss<=0.4",
    "within a length": "digits --hardware fast.json --within 6epochs",
    "current, cosine": "digits --hardware slow.json --current batch_size=32,lr=0.1 --schedule cosine",
    "another seed, small memory": "digits --hardware small.json --target val_loss<=0.2 --seed 3",
    "fewest examples, bounded": "digits --hardware fast.json --objective examples --max-batch-size 64",
    "adamw": "digits --hardware slow.json --target val_accuracy>=0.95 --set optimizer=adamw",
    "grid": "digits --hardware fast.json --target val_loss<=0.2 --search grid",
    "halving": "digits --hardware fast.json --target val_accuracy>=0.95 --search halving",
    "dear evaluations": "digits --hardware slow.json --target val_loss<=0.15",
}
FINDS_ON_LETTER = {
    "adamw": "arrays --set path={data}/letter/letter.npz --set model=mlp --set optimizer=adamw --hardware fast.json",
    "sgd": "arrays --set path={data}/letter/letter.npz --set model=mlp --target val_accuracy>=0.8 --hardware slow.json",
}
FINDS_ON_BIKE_SHARING = {
    "sgd": "arrays --set path={data}/bike_sharing/bike_sharing.npz --set model=mlp --hardware fast.json",
    "adamw": "arrays --set path={data}/bike_sharing/bike_sharing.npz --set model=mlp --set optimizer=adamw "
    "--target val_loss<=0.2 --hardware slow.json",
}
FITS_OF_THE_TABLE = {
    "plain": "{here}/table.csv --examples 20000",
    "fewest examples": "{here}/table.csv --objective examples",
    "current": "{here}/table.csv --examples 20000 --current batch_size=64,lr=0.1",
    "bounded": "{here}/table.csv --examples 20000 --max-batch-size 128",
    "another machine": "{here}/table.csv --examples 20000 --hardware small.json",
}
_MLPERF = {
    "bert": None,
    "cosmoflow": 524_288,
    "dlrm_dcnv2": 4_195_197_692,
    "maskrcnn": 117_266,
    "resnet": 1_281_167,
    "retinanet": 1_170_301,
    "stable_diffusion": None,
}
FITS_OF_MLPERF = {
    name: f"{{data}}/mlperf_rcp/{name}.csv --hardware fast.json" + (f" --examples {examples}" if examples else "")
    for name, examples in _MLPERF.items()
}
_QUICK_STUDIES = ("distance", "fixed_steps", "gradient_competition", "recovery", "sharp_minima", "train_longer")
"""Those whose trainings are short and calm: they come out as recorded under other vector instructions, too."""
_STUDIES = (
    *_QUICK_STUDIES,
    "batch_norm",
    "early_stopping",
    "fixed_epochs",
    "gradient_size",
    "learning_rate_compensation",
    "modes",
    "regularising_noise",
    "sgd_against_adam",
    "trial_and_error",
)
"""All. Some train so long, or at such rates, that last bits grow to whole digits: under other vector instructions
(`ATEN_CPU_CAPABILITY=default MKL_CBWR=AVX512`) `modes` (one example a step at rate 0.3), `early_stopping` (30 epochs)
and `batch_norm` (rate 1) come out otherwise by percents and more. Held at one set they repeat to the last bit, and are
compared like the others."""
_ZEUS_TARGETS = {"cifar100": ("0.65", 50_000), "movielens-1m": ("0.41", 994_169), "squad": ("84.0", 88_524)}
"""The metric at which a recorded training of the data set is done, and its training examples."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Questions whose answers stand in one file.

    Attributes:
        name: of the file.
        command: of `batchscope`.
        questions: by a name of their own, the words that follow the command.
        quick: whether it is part of the check that takes under three minutes.
        tolerance: of numbers, relative.
    """

    name: str
    command: str
    questions: Mapping[str, str]
    quick: bool
    tolerance: float

    def refusal(self) -> str | None:
        """Why it cannot be put here; `None`: it can."""
        shared = any("{data}" in words for words in self.questions.values()) or self.name == "fit-zeus"
        return "needs ../shared/data, which is not there" if shared and not DATA.is_dir() else None

    def answers(self, folder: Path) -> dict[str, Any]:
        """What the code answers now, question by question; `folder` is empty and may be written to."""
        _write_profiles(folder)
        questions = self.questions or dict(_write_recordings(folder))
        return {
            name: self._answer(name, words.format(data=DATA, here=HERE), folder, f"out-{number}")
            for number, (name, words) in enumerate(questions.items())
        }

    def _answer(self, name: str, words: str, folder: Path, out: str) -> dict[str, Any]:
        more = {"find": FIND, "study": STUDY, "fit": "--seed 0"}[self.command].split()
        given = words.split()
        more = more[: more.index("--seed")] if "--seed" in given else more
        if self.command == "find":
            _printed(["find", *given, "--json", *_NO_TIME, "--out", f"{out}-asked"], folder)
            _write_timing(folder / out, folder / f"{out}-asked" / "question.json", _EVALUATION_S.get(name, 0.0))
        ended = _printed([self.command, *given, *more, "--json", "--out", out], folder)
        printed = json.loads(ended.stdout)
        answer = {"find": find_answer, "study": study_answer, "fit": fit_answer}[self.command]
        return {"exit_status": ended.returncode, **answer(printed, folder / out)}


def cases() -> list[Case]:
    """All of them: quick ones first."""
    trained = {"command": "find", "tolerance": 1e-3}
    fitted = {"command": "fit", "tolerance": 1e-6}
    found = [
        Case(name="fit-table", questions=FITS_OF_THE_TABLE, quick=True, **fitted),
        Case(name="fit-mlperf", questions=FITS_OF_MLPERF, quick=True, **fitted),
        Case(name="find-digits", questions=FINDS_ON_DIGITS, quick=True, **trained),
        Case(name="fit-zeus", questions={}, quick=False, **fitted),
        Case(name="find-letter", questions=FINDS_ON_LETTER, quick=False, **trained),
        Case(name="find-bike-sharing", questions=FINDS_ON_BIKE_SHARING, quick=False, **trained),
    ]
    found += [
        Case(name=f"study-{s}", command="study", questions={"quick": s}, quick=s in _QUICK_STUDIES, tolerance=1e-3)
        for s in _STUDIES
    ]
    return sorted(found, key=lambda case: not case.quick)


def chosen(names: Iterable[str], *, quick: bool) -> list[Case]:
    """Those of the names, which may be patterns or beginnings; without names all, or the quick ones.

    Raises:
        LookupError: a name is of none.
    """
    found = [case for case in cases() if case.quick or not quick]
    for name in names:
        if not any(fnmatch.fnmatch(case.name, f"{name}*") for case in found):
            raise LookupError(f"no case is called {name!r}; there are {', '.join(case.name for case in found)}")
    patterns = [f"{name}*" for name in names] or ["*"]
    return [case for case in found if any(fnmatch.fnmatch(case.name, pattern) for pattern in patterns)]


def _environment() -> dict[str, str]:
    """Of the command: the code of this checkout, one thread, the arithmetic of any machine."""
    return {**_INSTRUCTIONS, **os.environ, **_THREADS, "PYTHONPATH": str(SOURCES)}


def _write_profiles(folder: Path) -> None:
    """Three machines: a step takes 1 ms x (1 + B/512) or (1 + B/64), and one has little memory."""
    sizes = (1, 8, 64, 512, 4096)
    for name, knee in (("fast", 512), ("slow", 64), ("small", 64)):
        profile: dict[str, Any] = {"name": name, "step_time_s": [[b, 1e-3 * (1 + b / knee)] for b in sizes]}
        if name == "small":
            profile["peak_memory_bytes"] = [[b, 3e6 + 5e4 * b] for b in sizes]
            profile["capacity_bytes"] = 8_000_000
        (folder / f"{name}.json").write_text(json.dumps(profile), encoding="utf-8")


def _printed(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A command that ended with an answer, or with none to rely on."""
    line = [sys.executable, "-m", "batchscope", *words]
    ended = subprocess.run(line, cwd=folder, env=_environment(), capture_output=True, text=True, check=False)
    if ended.returncode not in (0, 3):
        raise RuntimeError(f"{' '.join(words)}: exit status {ended.returncode}\n{ended.stderr[-2000:]}")
    return ended


def _write_timing(folder: Path, question: Path, evaluation_s: float) -> None:
    """What a search with this question measured of this machine, and reads when it goes on."""
    folder.mkdir()
    shutil.copy(question, folder)
    timing = {"evaluation_s": evaluation_s, "step_s": _STEP_S, "budget_s": 100_000.0}
    (folder / "timing.json").write_text(json.dumps(timing), encoding="utf-8")


def _write_recordings(folder: Path) -> Iterator[tuple[str, str]]:
    """Recorded trainings as tables: of each data set and card all batch sizes, and some pairs and triples of them."""
    train = _rows("summary_train.csv")
    for (data_set, (target, examples)), card in itertools.product(
        _ZEUS_TARGETS.items(), ("v100", "a40", "p100", "rtx6000")
    ):
        own = [r for r in train if r["dataset"] == data_set and float(r["target_metric"]) == float(target)]
        optimizer = own[0]["optimizer"]
        powers = [
            r for r in _rows(f"summary_power_{card}.csv") if (r["dataset"], r["optimizer"]) == (data_set, optimizer)
        ]
        powers.sort(key=lambda r: float(r["power_limit"]))
        seconds = {int(r["batch_size"]): float(r["time_per_epoch"]) for r in powers}
        runs: dict[int, list[str]] = {}
        for row in own:
            if row["optimizer"] == optimizer and int(row["batch_size"]) in seconds:
                epochs = "" if row["target_epoch"] in ("", "nan") else row["target_epoch"]
                cells = (row["batch_size"], epochs, f"{seconds[int(row['batch_size'])]:.6g}", row["learning_rate"])
                runs.setdefault(int(row["batch_size"]), []).append(",".join(cells))
        sizes = sorted(runs)
        wholes = [b for b in sizes if all(line.split(",")[1] for line in runs[b])]
        parts = {"all": sizes, "ends": [wholes[0], wholes[-1]], "middle": wholes[len(wholes) // 2 - 1 :][:2]}
        parts["triple"] = [wholes[0], wholes[math.ceil(len(wholes) / 3)], sizes[-1]]
        for part, chosen_sizes in parts.items():
            name = f"{data_set}-{card}-{part}"
            lines = ["batch_size,epochs_to_target,epoch_time_s,lr", *(line for b in chosen_sizes for line in runs[b])]
            (folder / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
            yield name, f"{name}.csv --examples {examples}"


def _rows(name: str) -> list[dict[str, str]]:
    with (DATA / "zeus_traces" / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
