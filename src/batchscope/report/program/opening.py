"""Opening of a program: what it imports, the task among it, and its numbers."""

from __future__ import annotations

from pathlib import PurePosixPath

from ...wording import quoted
from .facts import Facts

__all__ = ["constants_lines", "import_lines"]

_CONTEXT = "from contextlib import contextmanager"
_PATH = "from pathlib import Path"


def import_lines(facts: Facts) -> list[str]:
    """Import statements, the task's last."""
    task, (where, factory) = facts.task, _place(facts)
    module = _module(where)
    by_name = all(part.isidentifier() for part in module.split("."))
    folder = str(PurePosixPath(where).parent) if where.endswith(".py") else "."
    cosine, sampled = facts.recipe.schedule == "cosine", facts.has("sampler") and task.loading != "stream"
    needed = {"copy": True, "importlib": not by_name, "itertools": sampled, "math": cosine, "random": facts.known}
    lines = [f"import {name}" for name, needs in {**needed, "sys": folder != "."}.items() if needs]
    lines += [_CONTEXT] if facts.known else []
    lines += [line for line in task.imports if line == _PATH]
    lines += ["", *(["import numpy as np"] if facts.known else []), "import torch"]
    if facts.averaged:
        lines.append("from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn")
    if names := _of_data(facts):
        lines.append(f"from torch.utils.data import {', '.join(names)}")
    lines += ["", *([f"sys.path.insert(0, {quoted(folder)})"] if folder != "." else [])]
    others = [line for line in task.imports if line != _PATH]
    if not facts.known:
        return [*lines, "# model, train_data, make_optimizer, loss, evaluate: those of your training script"]
    if not task.spec:
        return [*lines, *others, f"from your_script import task  # fill in: where the task {facts.plan.task!r} is made"]
    if by_name:
        return [*lines, *others, f"from {module} import {factory} as make_task"]
    return [*lines, *others, f"make_task = importlib.import_module({quoted(module)}).{factory}"]


def _place(facts: Facts) -> tuple[str, str]:
    """File or module of the task, and its factory; a module of batchscope's for one that is built in."""
    spec = facts.task.spec
    where, colon, factory = spec.rpartition(":")
    if colon:
        return where, factory
    if spec.endswith(".py") or "." in spec or "/" in spec:
        return spec, "task"
    return (f"batchscope.tasks.builtin.{spec}", spec) if spec else ("your_script", "task")


def _module(where: str) -> str:
    return PurePosixPath(where).stem if where.endswith(".py") else where


def _of_data(facts: Facts) -> list[str]:
    """Names that the program needs from `torch.utils.data`, in order."""
    names = [] if facts.in_memory else ["DataLoader"]
    if facts.task.held_back:
        names.append("Subset")
        names += [] if facts.in_memory or facts.has("collate") else ["default_collate"]
    return names


def constants_lines(facts: Facts) -> list[str]:
    """Batch size, learning rate and seed."""
    recipe = facts.recipe
    lines = [f"BATCH_SIZE = {recipe.batch_size}"]
    if recipe.grad_accum_steps > 1 or recipe.world_size > 1:
        devices = f" * {recipe.world_size} devices" if recipe.world_size > 1 else ""
        how = f"batch size {recipe.batch_size} = {recipe.micro_batch_size} * {facts.parts}{devices}"
        lines = [f"BATCH_SIZE, PARTS = {recipe.micro_batch_size}, {facts.parts}  # {how}"]
    lr = f"{recipe.lr:.8g}" if recipe.lr is not None else "lr  # the one that is in use at this batch size"
    return [*lines, f"LEARNING_RATE = {lr}", f"SEED = {facts.task.seed}"]
