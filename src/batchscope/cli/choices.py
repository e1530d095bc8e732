"""What a command can be given, for one that is called without its argument: tasks, studies, folders. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cyclopts import CycloptsError, MissingArgumentError

from ..laboratory.studies import named_study, names
from ..wording import showable
from .options import RESULTS

__all__ = ["TASKS", "choices_for"]

TASKS = (
    ("digits", "8 x 8 pictures of digits: comes with the package, needs no file"),
    ("arrays", "your own pictures or table: --set path=DATA.npz"),
    ("text", "your own text: --set path=BOOK.txt"),
    ("path/to/file.py", "your own model, data and loss; batchscope init FILE.py writes a first one"),
    ("package.module:factory", "the same, importable; :factory may be left out where it is named task"),
)
"""What a task can be, each with what it is."""
_EXAMPLES = {
    "find": "batchscope find digits",
    "bench": "batchscope bench digits",
    "noise": "batchscope noise digits",
    "claims": "batchscope claims digits --budget 5m",
    "study": "batchscope study fixed_epochs --quick, "
    "or batchscope study digits --batch-sizes 16,64,256 --lrs 0.03,0.1 --epochs 10",
    "fit": "batchscope fit runs.csv --examples 50000",
    "init": "batchscope init my_task.py",
    "report": f"batchscope report {RESULTS}/digits",
    "runs": f"batchscope runs {RESULTS}/digits",
}
_MOST_FOLDERS = 12


def choices_for(error: CycloptsError) -> str:
    """What there is for a command that was called without its argument, as lines; empty for any other error."""
    command = error.command_chain[0] if error.command_chain else ""
    argument = error.argument
    if not isinstance(error, MissingArgumentError) or argument is None or command not in _EXAMPLES:
        return ""
    if any(name.startswith("--") for name in argument.parameter.name or ()):
        return ""
    lines = [*_what(command), f"For example: {_EXAMPLES[command]}", f"All options: batchscope {command} --help"]
    return "\n".join(lines)


def _what(command: str) -> list[str]:
    if command == "fit":
        return [
            "fit needs a table (CSV) of trainings that you have made, one row each, with the columns",
            *_listed(
                (
                    ("batch_size", "examples a step"),
                    ("steps_to_target", "or epochs_to_target, or examples_to_target; empty where never reached"),
                    ("step_time_s", "or epoch_time_s, in seconds; not needed with --hardware"),
                    ("lr, seed", "if known"),
                )
            ),
            "Or curves, one row an evaluation: run, batch_size, step and a metric, with --target 'val_loss<=0.3'.",
            "Names of W&B, Optuna and MLflow (config.lr, params_lr) are known; --column lr=NAME gives any other.",
        ]
    if command == "init":
        return ["init needs the name of the task file that it is to write."]
    if command in ("report", "runs"):
        folders = [(showable(str(path)), "") for path in _folders()]
        here = [f"{command} needs a results folder. There are, the latest first:", *_listed(folders)]
        none = [f"{command} needs a results folder: the --out of an earlier command. There is none in {RESULTS}/ here."]
        return here if folders else none
    if command == "study":
        return [
            "study needs a published experiment or a task. Experiments:",
            *_listed((name, named_study(name).summary) for name in names()),
            "Tasks:",
            *_listed(TASKS),
        ]
    return [f"{command} needs a task. Tasks:", *_listed(TASKS)]


def _folders() -> list[Path]:
    """Results folders where commands put them by themselves, the latest first."""
    found = [path for path in RESULTS.glob("*") if path.is_dir()]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)[:_MOST_FOLDERS]


def _listed(pairs: Iterable[tuple[str, str]]) -> list[str]:
    found = list(pairs)
    width = max((len(name) for name, _ in found), default=0)
    return [f"  {name:<{width}}  {what}".rstrip() for name, what in found]
