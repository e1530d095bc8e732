"""The recipe as plain PyTorch, to copy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...store.records import Plan, Recipe, Target
from ...wording import count, plural
from ..blocks import Code, Section, Text
from ..loading import loader_arguments
from ..summary import threads_in_words

if TYPE_CHECKING:
    from ...store.runs import StoredRun

TITLE = "How to apply it"


def build(plan: Plan, runs: Sequence[StoredRun]) -> Section:
    """Section with the program, and what it leaves to the reader."""
    if plan.recipe is None:
        return Section("apply", TITLE, (Text(("Without a recommendation there is nothing to apply.",)),))
    notes = [
        "The names model, train_data, make_optimizer, loss and evaluate stand for those of the task; "
        "a batch must be moved to the model's device if the data are not there."
    ]
    if plan.recipe.world_size > 1:
        notes.append(
            f"Run it in {plural(plan.recipe.world_size, 'process', 'processes')}, one a device: wrap the model in "
            "DistributedDataParallel and give the loader a DistributedSampler instead of shuffle=True."
        )
    return Section("apply", TITLE, (Text(tuple(notes)), Code(program(plan, plan.recipe))))


def program(plan: Plan, recipe: Recipe) -> str:
    """Python program that trains with the recipe until the target, the end of patience, or the last step."""
    parts = [_threads(plan, recipe), _loader(plan, recipe), _optimizer(recipe), _schedule(recipe), _loop(plan, recipe)]
    return "\n".join(part for part in parts if part)


def last_step(plan: Plan, recipe: Recipe) -> int:
    """Step at which training ends at the latest.

    A decaying learning rate fixes the length, and so may the question; otherwise a run may go on to the upper end of
    the predicted interval.
    """
    if recipe.schedule != "constant" or plan.predicted is None or plan.within is not None:
        return recipe.steps
    return max(recipe.steps, math.ceil(plan.predicted.steps_to_target.high or 0))


def _threads(plan: Plan, recipe: Recipe) -> str:
    if not threads_in_words(plan, recipe):
        return ""
    had = plan.environment.threads
    return f"import torch\n\ntorch.set_num_threads({recipe.num_threads})  # steps are faster so than with {had}\n"


def _loader(plan: Plan, recipe: Recipe) -> str:
    """Loader at the measured pace: that of the task's options, or batches cut from tensors in memory at once."""
    size, lines = recipe.batch_size, list[str]()
    if recipe.grad_accum_steps > 1 or recipe.world_size > 1:
        size, parts, devices = recipe.micro_batch_size, recipe.grad_accum_steps, recipe.world_size
        factors = f"{size} * {parts}" + (f" * {devices}" if devices > 1 else "")
        lines.append(f"ACCUMULATE = {parts}  # batch size {recipe.batch_size} = {factors}")
    if plan.bench is not None and plan.bench.in_memory and recipe.world_size == 1:
        return "\n".join(
            [
                "from torch.utils.data import BatchSampler, DataLoader, RandomSampler",
                "",
                *lines,
                "# a TensorDataset gives a whole batch at once, which is much faster than one example after another",
                f"batches = BatchSampler(RandomSampler(train_data), batch_size={size}, drop_last=True)",
                "loader = DataLoader(train_data, sampler=batches, batch_size=None)",
            ]
        )
    options = ["train_data", f"batch_size={size}", "shuffle=True", "drop_last=True", loader_arguments(plan.bench)]
    lines.append(f"loader = DataLoader({', '.join(filter(None, options))})")
    return "\n".join(["from torch.utils.data import DataLoader", "", *lines])


def _optimizer(recipe: Recipe) -> str:
    lr = f"lr={recipe.lr:.4g})" if recipe.lr is not None else "lr=lr)  # the learning rate in use at this batch size"
    lines = [f"optimizer = make_optimizer(model.parameters(), {lr}"]
    if recipe.optimizer_changes:
        lines.append("for group in optimizer.param_groups:")
        lines += [f"    group[{str(key)!r}] = {_literal(value)}" for key, value in recipe.optimizer_changes.items()]
    return "\n".join(lines)


def _literal(value: object) -> str:
    """Setting as Python; JSON has lists where optimizers want tuples."""
    return repr(tuple(value)) if isinstance(value, list) else repr(value)


def _schedule(recipe: Recipe) -> str:
    if recipe.schedule == "constant" and not recipe.warmup_steps:
        return ""
    warm, total = recipe.warmup_steps, recipe.steps
    progress = f"(step - {warm}) / {max(1, total - warm)}" if warm else f"step / {max(1, total)}"
    after = {"linear": f"max(0.0, 1 - {progress})", "cosine": f"0.5 * (1 + math.cos(math.pi * min(1.0, {progress})))"}
    factor = after.get(recipe.schedule, "1.0")
    if warm:
        factor = f"(step + 1) / {warm} if step < {warm} else {factor}"
    lines = ["", "import math"] if recipe.schedule == "cosine" else [""]
    lines += ["import torch", "", f"schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: {factor})"]
    return "\n".join(lines)


def _loop(plan: Plan, recipe: Recipe) -> str:
    last, per_epoch = last_step(plan, recipe), recipe.steps_per_epoch
    patience = last
    if per_epoch is not None and recipe.early_stop.patience is not None:
        patience = max(1, math.ceil(recipe.early_stop.patience * per_epoch))
    every = max(1, min(per_epoch or last, patience // 4))
    epoch = f"; {count(per_epoch)} an epoch" if per_epoch is not None else ""
    target = plan.target or Target(metric="val_loss", value=-math.inf, mode="min")
    smaller = target.mode == "min"
    accumulated = recipe.grad_accum_steps > 1
    scheduled = recipe.schedule != "constant" or recipe.warmup_steps > 0
    aimed = plan.target is not None and plan.within is None
    reached = f" or value {'<=' if smaller else '>='} {target.value:.6g}" if aimed else ""
    lines = [
        "",
        f"LAST_STEP = {last}  # about {count(recipe.steps)} expected{epoch}",
        f"EVERY, PATIENCE = {every}, {patience}  # steps between evaluations, and without a better one",
        "",
        *(("micro = 0",) if accumulated else ()),
        f"step, best, best_step, done = 0, float({('inf' if smaller else '-inf')!r}), 0, False",
        "while not done:",
        "    for batch in loader:",
        "        model.train()",
        f"        {'(loss(model, batch) / ACCUMULATE).backward()' if accumulated else 'loss(model, batch).backward()'}",
        *(("        micro += 1", "        if micro % ACCUMULATE:", "            continue") if accumulated else ()),
        "        optimizer.step()",
        "        optimizer.zero_grad()",
        *(("        schedule.step()",) if scheduled else ()),
        "        step += 1",
        "        if step % EVERY == 0 or step >= LAST_STEP:",
        "            model.eval()",
        f"            value = evaluate(model)[{target.metric!r}]",
        f"            if value {'<' if smaller else '>'} best:",
        "                best, best_step = value, step  # keep a copy of the weights here",
        f"            done = step >= LAST_STEP or step - best_step >= PATIENCE{reached}",
        "            if done:",
        "                break",
    ]
    return "\n".join(lines)
