"""Members of a task that cannot be meant so: misspelt ones, its own update, and what takes other arguments."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..errors import TaskError
from .members import MEMBERS, Member
from .protocol import PartsTask
from .settings import nearest

__all__ = [
    "OWN_UPDATE",
    "refuse_own_update",
    "refuse_unknown_arguments",
    "refuse_unknown_members",
    "refuse_wrong_arguments",
]

OWN_UPDATE = ("step", "train_step", "training_step", "configure_optimizers")
"""Methods by which other trainers let a task make its own steps."""

_CUTOFF = 0.75
_MEANT = {
    "collate_fn": "collate",
    "scheduler": "schedule",
    "lr_scheduler": "schedule",
    "lr_schedule": "schedule",
    "clip_gradients": "before_update",
    "clip_grad": "before_update",
    "validate": "evaluate",
    "num_workers": "loader_options",
}
"""What other libraries call a member."""
_MEANT_BY_ARGUMENT = _MEANT | {
    "clip": "before_update",
    "ema": "ema_decay",
    "train_data": "train",
    "train_dataset": "train",
    "val_data": "val",
    "val_dataset": "val",
}
"""What an argument of `batchscope.task` may be called; a member of these names may be the task's own."""
_NOT_THEIRS = frozenset({"builtins", "torch", "lightning", "pytorch_lightning", "typing", "abc", "enum"})
_TYPES: Mapping[str, type | tuple[type, ...]] = {"str": str, "float": (int, float), "dict": Mapping}


def refuse_own_update(task: object, what: str) -> None:
    """Refuse a task that wants to make its own steps.

    Args:
        task: the user's object.
        what: the task, for the message: who made it, and its type.

    Raises:
        TaskError: it has a method by which other trainers let a task do so.
    """
    own = [name for name in OWN_UPDATE if callable(getattr(task, name, None))]
    if own:
        raise TaskError(
            f"{what}: it has an update of its own ({', '.join(own)}), and the update is batchscope's, because it "
            "varies batch size, micro-batches and learning rate: give the task loss(model, batch) and one "
            "optimizer(params, lr) instead, with a parameter group for each part, or "
            "an Optimizer whose step() steps several (docs/tasks.md, own updates)"
        )


def refuse_unknown_members(task: object, what: str) -> None:
    """Refuse a task with a public member that is very likely meant for one that batchscope knows.

    Only what can be it counts: a method for a method, a value of its type for a value, and only where the known member
    is not there.

    Args:
        task: the user's object.
        what: the task, for the message: who made it, and its type.

    Raises:
        TaskError: there is one.
    """
    absent = {m.name: m for m in MEMBERS if not m.required and m.name != "name" and not hasattr(task, m.name)}
    for name, value in _public(task):
        meant = _MEANT.get(name) or nearest(name, list(absent), cutoff=_CUTOFF)
        if meant in absent and (_can_be(value, absent[meant]) or name in _MEANT):
            member = absent[meant]
            raise TaskError(
                f"{what}: it has the member {name!r}, which batchscope does not know; did you mean "
                f"{meant!r} ({member.line})? Call it so, or, if it is your own, begin its name with an underscore"
            )


def refuse_unknown_arguments(given: Iterable[str]) -> None:
    """Refuse arguments of `batchscope.task` that are none of its own.

    Raises:
        TaskError: there is one; the message names the nearest that there is.
    """
    known = {member.argument or member.name: f" ({member.signature})" for member in MEMBERS} | {"val": ""}
    for name in given:
        meant = _MEANT_BY_ARGUMENT.get(name) or nearest(name, list(known))
        hint = f"did you mean {meant!r}{known[meant]}?" if meant else f"it has {', '.join(known)}"
        raise TaskError(f"batchscope.task has no argument {name!r}; {hint}")


def refuse_wrong_arguments(task: object, what: str) -> None:
    """Refuse a task with a member that cannot be called as batchscope calls it.

    Args:
        task: the user's object.
        what: the task, for the message: who made it, and its type.

    Raises:
        TaskError: there is one; the message says how it is written.
    """
    made_of_parts = isinstance(task, PartsTask)
    for member in MEMBERS:
        given: Any = getattr(task, member.name, None)
        if not member.called or given is None or _takes(given, len(member.arguments)):
            continue
        names = ", ".join(member.arguments)
        write = f"{member.name}=lambda {names}: ..." if made_of_parts else member.line
        if member.name == "sampler":
            drawn = "WeightedRandomSampler(w, n, generator=torch.Generator().manual_seed(seed))"
            write = f"sampler=lambda seed: {drawn}" if made_of_parts else f"def sampler(self, seed): return {drawn}"
        raise TaskError(
            f"{what}: its {member.name} {_called_so_far(given)}, and batchscope calls {member.name}({names}); write "
            f"{write}"
        )


def _takes(given: Any, number: int) -> bool:
    """Whether something can be called with so many arguments, as far as its signature tells."""
    if not callable(given):
        return False
    try:
        signature = inspect.signature(given)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*[None] * number)
    except TypeError:
        return False
    return True


def _called_so_far(given: Any) -> str:
    if not callable(given):
        return f"is {type(given).__name__}, which cannot be called"
    return f"takes {inspect.signature(given)}"


def _public(task: object) -> Iterator[tuple[str, Any]]:
    """Public members that the task's own classes and itself define."""
    known = {member.name for member in MEMBERS}
    classes = [kind for kind in type(task).__mro__ if kind.__module__.partition(".")[0] not in _NOT_THEIRS]
    names = [name for kind in classes for name in vars(kind)] + list(getattr(task, "__dict__", {}))
    for name in dict.fromkeys(names):
        if not name.startswith("_") and name not in known:
            yield name, inspect.getattr_static(task, name)


def _can_be(value: Any, member: Member) -> bool:
    return callable(value) if member.called else isinstance(value, _TYPES[member.signature])
