"""Loop of a program: how long it trains, when it evaluates, when it stops, and what it keeps."""

from __future__ import annotations

import math

from ...store.records import Plan, Recipe
from ..summary import length_of
from .facts import Facts
from .update import gradient_lines, update_lines

__all__ = ["last_step", "limits_lines", "loop_lines"]


def last_step(plan: Plan, recipe: Recipe) -> int:
    """Step at which training ends at the latest.

    A decaying learning rate fixes the length, and so may the question; otherwise a run may go on to the upper end of
    the predicted interval.
    """
    if recipe.schedule != "constant" or plan.predicted is None or plan.within is not None:
        return recipe.steps
    return max(recipe.steps, math.ceil(plan.predicted.steps_to_target.high or 0))


def limits_lines(facts: Facts) -> list[str]:
    """Steps of the training, between evaluations, and without a better one."""
    plan, recipe = facts.plan, facts.recipe
    last, per_epoch = last_step(plan, recipe), recipe.steps_per_epoch
    patience = last
    if per_epoch is not None and recipe.early_stop.patience is not None:
        patience = max(1, math.ceil(recipe.early_stop.patience * per_epoch))
    every = max(1, min(math.ceil(per_epoch or last), patience // 4))
    if plan.evaluations is not None and recipe == plan.recipe:
        every = min(plan.evaluations.every_steps, patience)
    return [
        f"LAST_STEP = {last}  # expected: about {length_of(plan, recipe)}",
        f"EVERY, PATIENCE = {every}, {patience}  # steps between evaluations, and without a better one",
    ]


def loop_lines(facts: Facts) -> list[str]:
    """The steps, the evaluations, and the weights of the best one."""
    worst = "inf" if facts.target.mode == "min" else "-inf"
    counted = ["in_a_row = 0"] if facts.aimed and facts.target.confirm > 1 else []
    both = facts.averaged and not facts.judges_averaged
    return [
        f'best, best_step, weights = float("{worst}"), 0, {{}}',
        *counted,
        "for step in range(1, LAST_STEP + 1):",
        *(f"    {line}" for line in ("model.train()", *gradient_lines(facts), *update_lines(facts))),
        "    if step % EVERY and step < LAST_STEP:",
        "        continue",
        *(f"    {line}" for line in _evaluation(facts)),
        'torch.save(weights, "best.pt")',
        *(['torch.save(averaged.module.state_dict(), "averaged.pt")'] if both else []),
    ]


def _evaluation(facts: Facts) -> list[str]:
    """Evaluation, what is kept of the best one, and whether it is the last."""
    target, judged = facts.target, "averaged" if facts.judges_averaged else "model"
    smaller, metric = target.mode == "min", target.metric
    value = f"{facts.prefix}evaluate({judged})"
    if facts.task.held_back:
        value = f"evaluate({judged}, task, held_back)"
    own = metric.replace("ema_", "", 1) if facts.judges_averaged else metric
    weights = "averaged.module" if facts.judges_averaged else "model"
    met = f"value {'<=' if smaller else '>='} {target.value:.8g}"
    lines = [
        f"{judged}.eval()",
        f"with {', '.join(filter(None, ['torch.no_grad()', facts.autocast]))}:",
        f'    value = {value}["{own}"]',
        f'print(f"step {{step}}: {metric} {{value:.6g}}")',
        f"if value {'<' if smaller else '>'} best:",
        f"    best, best_step, weights = value, step, copy.deepcopy({weights}.state_dict())",
    ]
    if facts.aimed and target.confirm > 1:
        lines.append(f"in_a_row = in_a_row + 1 if {met} else 0")
        met = f"in_a_row == {target.confirm}"
    reached = f"{met} or " if facts.aimed else ""
    return [*lines, f"if {reached}step - best_step >= PATIENCE:", "    break"]
