"""Model, optimizer and their update in a program."""

from __future__ import annotations

from keyword import iskeyword

from ...fits.schedules import STABLE_SHARE
from ...wording import quoted
from ..summary import threads_in_words
from .data import held_back_lines, two_examples
from .facts import Facts

__all__ = ["factor_function", "gradient_lines", "made_lines", "update_lines"]


def factor_function(facts: Facts) -> list[str]:
    """Function of the factor on the learning rate; `fits.schedules` has the formulas."""
    recipe = facts.recipe
    if not facts.scheduled or recipe.schedule == "task":
        return []
    warm, rest = recipe.warmup_steps, max(1, recipe.steps - recipe.warmup_steps)
    lines = ["def lr_factor(step):", '    """Factor on the learning rate in a step, the first of which is 0."""']
    if warm:
        lines += [f"    if step < {warm}:", f"        return (step + 1) / {warm}"]
    if recipe.schedule == "constant":
        return [*lines, "    return 1.0"]
    passed = f"(step - {warm}) / {rest}" if warm else f"step / {rest}"
    left = {
        "linear": "1.0 - progress",
        "cosine": "0.5 * (1.0 + math.cos(math.pi * progress))",
        "wsd": f"min(1.0, (1.0 - progress) / {1.0 - STABLE_SHARE:.6g})",
    }.get(recipe.schedule, "1.0")
    lines.append(f"    progress = min(1.0, {passed})")
    if not recipe.final_lr:
        return [*lines, f"    return {left}"]
    return [*lines, f"    return {recipe.final_lr:.6g} + {1.0 - recipe.final_lr:.6g} * ({left})"]


def made_lines(facts: Facts) -> list[str]:
    """The task, its data, the model, and what changes its weights."""
    task, recipe, lines = facts.task, facts.recipe, list[str]()
    if threads_in_words(facts.plan, recipe):
        had = facts.plan.environment.threads
        lines.append(f"torch.set_num_threads({recipe.num_threads})  # steps are faster so than with {had}")
    if facts.known:
        lines += [*_task_lines(facts), *held_back_lines(facts), "seed_everything(SEED)"]
        lines.append("model = task.model()" + (f".to({facts.device})" if facts.device else ""))
        lines += _size_lines(facts)
    parameters = "model" if task.optimizer_takes_model else "model.parameters()"
    make = "task.optimizer" if facts.known else "make_optimizer"
    lines.append(f"optimizer = {make}({parameters}, LEARNING_RATE)")
    if recipe.optimizer_changes:
        lines.append("for group in optimizer.param_groups:")
        lines += [f"    group[{quoted(key)}] = {_literal(value)}" for key, value in recipe.optimizer_changes.items()]
    if facts.scheduled:
        lines.append(f"schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, {_factor(facts)})")
    if facts.scaled:
        lines.append(f"scaler = torch.amp.GradScaler({facts.device_type})")
    if facts.averaged:
        lines.append(f"averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn({task.ema_decay:.8g}))")
    return lines


def _size_lines(facts: Facts) -> list[str]:
    """First call of a model with lazy layers, before copies of it are made."""
    if not facts.task.lazy:
        return []
    return [
        "model.eval()",
        "with torch.no_grad():  # lazy layers learn their input size",
        f"    task.loss(model, {two_examples(facts)})",
        "model.train()",
    ]


def _task_lines(facts: Facts) -> list[str]:
    arguments = ", ".join(_argument(name, text) for name, text in facts.task.arguments.items())
    made = ["seed_everything(0)", f"task = make_task({arguments})"] if facts.task.spec else []
    data_seed = facts.data_seed if facts.task.loading == "stream" else "0"
    return [*made, f"seed_everything({data_seed})", "train_data = task.train_data()"]


def _argument(name: str, text: str) -> str:
    """Keyword argument of a call; a factory with `**settings` takes names that are none in Python."""
    named = name.isidentifier() and not iskeyword(name)
    return f"{name}={text}" if named else f"**{{{quoted(name)}: {text}}}"


def _factor(facts: Facts) -> str:
    task_s_own = f"lambda step: task.schedule(step / {facts.recipe.steps})"
    return task_s_own if facts.recipe.schedule == "task" else "lr_factor"


def _literal(value: object) -> str:
    """Setting as Python; JSON has lists where optimizers want tuples."""
    return repr(tuple(value)) if isinstance(value, list) else repr(value)


def gradient_lines(facts: Facts) -> list[str]:
    """Gradient of a step: that of its batch, or of its micro-batches with their weights."""
    following = "to_device(next(batches))" if facts.device and not facts.in_memory else "next(batches)"
    if facts.parts == 1:
        return _backward(facts, following, "")
    loaded = f"micro_batches = [{following} for _ in range(PARTS)]"
    if not facts.has("loss_weight") and (facts.in_memory or facts.has_workers):
        return ["for _ in range(PARTS):", *_indented(_backward(facts, following, " / PARTS"))]
    if not facts.has("loss_weight"):  # loading draws from the generators of this process, as in a run before the losses
        return [loaded, "for batch in micro_batches:", *_indented(_backward(facts, "batch", " / PARTS"))]
    return [
        loaded,
        "tokens = [float(task.loss_weight(batch)) for batch in micro_batches]",
        "for batch, number in zip(micro_batches, tokens, strict=True):",
        *_indented(_backward(facts, "batch", " * number / sum(tokens)")),
    ]


def _backward(facts: Facts, batch: str, share: str) -> list[str]:
    loss = f"{facts.prefix}loss(model, {batch}){facts.task.loss_at}{share}"
    scaled = "scaler.scale({}).backward()" if facts.scaled else "{}.backward()"
    if facts.autocast:
        return [f"with {facts.autocast}:", f"    batch_loss = {loss}", scaled.format("batch_loss")]
    return [scaled.format(f"({loss})" if share and not facts.scaled else loss)]


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def update_lines(facts: Facts) -> list[str]:
    """Change of the weights by the gradient."""
    clips = facts.has("before_update")
    averages = ["averaged.update_parameters(model)"] if facts.averaged else []
    if averages and facts.scaled:
        averages = ["if scaler.get_scale() >= scale:  # else no step was made", f"    {averages[0]}"]
    return [
        *(["scale = scaler.get_scale()"] if averages and facts.scaled else []),
        *(["scaler.unscale_(optimizer)"] if facts.scaled and clips else []),
        *(["task.before_update(model)"] if clips else []),
        *(["scaler.step(optimizer)", "scaler.update()"] if facts.scaled else ["optimizer.step()"]),
        "optimizer.zero_grad()",
        *(["schedule.step()"] if facts.scheduled else []),
        *averages,
    ]
