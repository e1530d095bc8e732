"""Which column is what: names of spreadsheets, of W&B, Optuna, MLflow and of the loggers of Lightning and Keras.

A column is found by its own name, by the last part of a dotted or prefixed one (`config.optimizer.lr`,
`params_batch_size`, `summary/steps_to_target`), or by another name for the same thing. Where two could be meant, and
differ, it is asked for.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ...errors import TableError
from ...store.records import Target
from ...wording import joined
from .numbers import SECONDS

__all__ = ["ROLES", "TARGETS", "TIMES", "Found", "Names", "Unit", "chosen_of", "plain", "shortened"]

Unit = Literal["steps", "epochs", "examples"]

TARGETS: dict[str, Unit] = {"steps_to_target": "steps", "epochs_to_target": "epochs", "examples_to_target": "examples"}
"""Roles that say how far it was to the target."""
TIMES = ("step_time_s", "epoch_time_s")
"""Roles that say what time something took."""
ROLES = ("batch_size", *TARGETS, *TIMES, "lr", "seed", "run", "step", "epoch", "examples", "state")
"""What a column may be taken for."""

_ALSO: dict[str, tuple[str, ...]] = {
    "batch_size": (
        *("batchsize", "bs", "train_batch_size", "global_batch_size", "total_batch_size", "effective_batch_size"),
        *("total_train_batch_size", "minibatch_size", "mini_batch_size", "train_batchsize", "batch_sz"),
    ),
    "steps_to_target": ("iterations_to_target", "iters_to_target", "updates_to_target", "steps_to_goal"),
    "epochs_to_target": ("epochs_to_converge", "epochs_to_convergence", "epochs_to_goal"),
    "examples_to_target": ("samples_to_target", "images_to_target", "samples_to_converge"),
    "lr": (
        *("learning_rate", "learningrate", "lr0", "base_lr", "max_lr", "peak_lr", "init_lr", "initial_lr", "eta"),
        *("initial_learning_rate", "lr_sgd", "lr_adam", "lr_adamw", "lr_rmsprop", "step_size_lr"),
    ),
    "seed": ("random_seed", "random_state", "rng_seed", "manual_seed", "seed_everything"),
    "run": ("run_id", "run_uuid", "trial_id", "trial", "trial_number", "number", "run_name", "id", "name", "job_id"),
    "step": ("steps", "global_step", "iteration", "iterations", "iter", "update", "updates", "num_steps"),
    "epoch": ("epochs", "num_epochs"),
    "examples": ("samples", "examples_seen", "samples_seen", "images_seen", "num_examples", "num_samples"),
    "state": ("status",),
}
_LAST_OF_ALL = {"step": ("_step",)}
"""W&B counts its calls of `log` there, which need not be steps."""
_TIME = re.compile(
    r"(?:train_|avg_|mean_|median_)*(?:(?P<of>step|iter|iteration|update|epoch)_(?:time|duration)(?:_(?P<in>[a-zµ]+))?"
    r"|(?P<unit>time|[a-zµ]+)_(?:per_)?(?P<per>step|it|iter|iteration|update|epoch)(?:_(?P<in2>[a-zµ]+))?)(?:_mean|_avg)?"
)
_RATE = re.compile(
    r"(?:train_|avg_|mean_)*(?P<what>steps|its?|iterations|examples|samples|images|epochs)_(?:per_)?(?:s|sec|second)"
)
_PREFIXES = re.compile(
    r"(?:.*[./:]|(?:config|params?|hparams|hyperparameters|summary|metrics?|user_attrs|attrs|values)_)(?=.)"
)
_PARTS = {"validation": "val", "valid": "val", "eval": "val", "dev": "val", "acc": "accuracy", "ppl": "perplexity"}
_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class Found:
    """A column that was found.

    Attributes:
        role: what it is taken for.
        index: from the left.
        name: in the file.
        scale: seconds in its unit, for times.
        rate: what its numbers count each second, where they are no times but the inverse; empty: times.
        assumed: what its name leaves open, in words; empty: nothing.
    """

    role: str
    index: int
    name: str
    scale: float = 1.0
    rate: str = ""
    assumed: str = ""


@dataclass(frozen=True, kw_only=True)
class Names:
    """Column names of a file.

    Attributes:
        where: file and line of the names, for messages.
        written: as they stand there.
        chosen: roles, or metrics, with the name of the column that the caller gave for them.
    """

    where: str
    written: tuple[str, ...]
    chosen: Mapping[str, str] = field(default_factory=dict[str, str])

    def candidates(self, role: str) -> list[Found]:
        """Columns that may be meant, all as good as one another; empty: there is none.

        Raises:
            TableError: the column that was given for it is not there.
        """
        if role in self.chosen:
            return [self._given(role)]
        ranked = [(rank, found) for i, name in enumerate(self.written) for rank, found in _as(role, i, name)]
        best = min((rank for rank, _ in ranked), default=0.0)
        return [found for rank, found in ranked if rank == best]

    def metric(self, target: Target) -> list[Found]:
        """Columns that may hold the target's metric; `value`, Optuna's objective, where no other does."""
        if target.metric in self.chosen:
            return [self._given(target.metric)]
        wanted = plain(target.metric)
        names = [(i, name, shortened(name)) for i, name in enumerate(self.written)]
        for alike in (
            [(i, name) for i, name, _ in names if _flat(plain(name)) == _flat(wanted)],
            [(i, name) for i, name, short in names if _flat(short) == _flat(wanted)],
            [(i, name) for i, name, short in names if _same_metric(short, wanted) or _same_metric(name, wanted)],
            [(i, name) for i, name, _ in names if plain(name) == "value"],
        ):
            if alike:
                return [Found(role=target.metric, index=i, name=name) for i, name in alike]
        return []

    def _given(self, role: str) -> Found:
        name = self.chosen[role]
        exact = [i for i, each in enumerate(self.written) if each.strip() == name.strip()]
        alike = exact or [i for i, each in enumerate(self.written) if plain(each) == plain(name)]
        if not alike:
            near = difflib.get_close_matches(plain(name), [plain(each) for each in self.written], n=1, cutoff=0.5)
            hint = f"; write {near[0]}" if near else ""
            raise TableError(
                f"{self.where}: --column {role}={name}: there is no such column; the names are {self.shown}{hint}"
            )
        own = [found for _, found in _as(role, alike[0], self.written[alike[0]])]
        return own[0] if own else Found(role=role, index=alike[0], name=self.written[alike[0]].strip())

    @property
    def shown(self) -> str:
        """The names, or the first few of many."""
        names = [name.strip() for name in self.written if name.strip()]
        if len(names) > _SHOWN:
            return f"{', '.join(names[:_SHOWN])} and {len(names) - _SHOWN:,} more"
        return ", ".join(names) or "nothing"

    def missing(self, wanted: Sequence[str], example: str) -> str:
        """What to say where none of the wanted roles is there."""
        names = [plain(name) for name in self.written if name.strip()]
        unknown = [name for name in names if name not in ROLES]
        near = [(name, difflib.get_close_matches(name, wanted, n=1, cutoff=0.5)) for name in unknown]
        hint = next(
            (f"write {close[0]} for {name}, or give --column {close[0]}={name}" for name, close in near if close), ""
        )
        hint = hint or f"write for example {example}, or give --column {wanted[0]}=NAME"
        lacks = wanted[0] if len(wanted) == 1 else f"one of {', '.join(wanted)}"
        return f"{self.where}: the column names are {self.shown}, and {lacks} is missing; {hint}"

    def ask(self, role: str, found: Sequence[Found]) -> TableError:
        """What to say where several columns could be meant, and differ."""
        names = [each.name for each in found]
        if len({plain(name) for name in names}) == 1:
            return TableError(f"{self.where}: the column {plain(names[0])} is there {len(names)} times; keep one")
        return TableError(
            f"{self.where}: {joined(names[:_SHOWN])} could each be {role}; give --column {role}={names[0]}, or another"
        )


def chosen_of(texts: Sequence[str]) -> dict[str, str]:
    """Roles with the names of their columns, from `ROLE=NAME`.

    Raises:
        TableError: a text is not of that form, or a role is there twice.

    >>> chosen_of(["lr=config.optim.lr"])
    {'lr': 'config.optim.lr'}
    """
    found: dict[str, str] = {}
    for text in texts:
        role, equals, name = (part.strip() for part in text.partition("="))
        if not (role and equals and name):
            raise TableError(f"--column {text}: write ROLE=NAME, for example --column lr=config.optimizer.lr")
        if role in found:
            raise TableError(f"--column {role} is there twice, with {found[role]} and {name}; keep one")
        found[role] = name
    return found


def plain(name: str) -> str:
    """Name in lower case with underscores; a unit in brackets is its last part.

    >>> plain(" Batch Size "), plain("Step time (ms)"), plain("batchSize"), plain("lr-Adam")
    ('batch_size', 'step_time_ms', 'batch_size', 'lr_adam')
    """
    text = unicodedata.normalize("NFKC", name).strip().strip("\ufeff\u200b'\"")
    text = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", "_", text)
    text = re.sub(r"\s*[(\[](.*?)[)\]]", r"_\1", text).lower().replace("\u03bc", "µ")
    return re.sub(r"[\s-]+", "_", text)


def shortened(name: str) -> str:
    """Plain name without what loggers put before it.

    >>> shortened("config.optimizer.lr"), shortened("params_batch_size"), shortened("summary/val_loss")
    ('lr', 'batch_size', 'val_loss')
    """
    return _PREFIXES.sub("", plain(name), count=1)


def _as(role: str, index: int, name: str) -> list[tuple[float, Found]]:
    """How well a name goes with a role: 0 its own, 1 its own behind a prefix, 2 another name; empty: not at all."""
    full, short = plain(name), shortened(name)
    found = Found(role=role, index=index, name=name.strip())
    if full == role:
        return [(0, found)]
    if short == role:
        return [(1, found)]
    if role in TIMES:
        return _as_time(found, full, short)
    for rank, names in ((2, _ALSO.get(role, ())), (3, _LAST_OF_ALL.get(role, ()))):
        if full in names or short in names:
            more = names.index(short if short in names else full) / len(names) if role == "run" else 0.0
            return [(rank + more, found)]
    return []


def _as_time(found: Found, full: str, short: str) -> list[tuple[float, Found]]:
    epoch = found.role == "epoch_time_s"
    for name in (full.replace("/", "_per_"), short):
        if (match := _TIME.fullmatch(name)) is not None:
            of = match["of"] or match["per"]
            unit = match["in"] or match["in2"] or ("" if match["unit"] in (None, "time") else match["unit"])
            if (of == "epoch") == epoch and (not unit or unit in SECONDS):
                assumed = "" if unit else f"{found.name} is taken to be in seconds where its cells name no unit"
                return [(2, replace(found, scale=SECONDS.get(unit, 1.0), assumed=assumed))]
        if (match := _RATE.fullmatch(name)) is not None and (match["what"] == "epochs") == epoch:
            examples = match["what"] in ("examples", "samples", "images")
            return [(2, replace(found, rate="examples" if examples else "one"))]
    return []


def _flat(name: str) -> str:
    return re.sub(r"[./:]", "_", name)


def _same_metric(name: str, wanted: str) -> bool:
    """Whether two names are one metric but for `val`, `valid`, `validation`, `eval`, and the like."""

    def parts(text: str) -> list[str]:
        return [_PARTS.get(part, part) for part in _flat(plain(text)).split("_") if part]

    return parts(name) == parts(wanted)
