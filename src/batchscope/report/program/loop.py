"""Loop of a program: how long it trains, when it evaluates, when it stops, and what it keeps."""

from __future__ import annotations

import math

from ...store.records import Plan, Recipe
from ...wording import quoted
from ..summary import length_of
from .facts import Facts
from .update import gradient_lines, update_lines

__all__ = ["last_step", "limits_lines", "loop_lines"]


_ROOM = 1.5
"""Times the steps of the verified run that another training may take to the target."""


def last_step(plan: Plan, recipe: Recipe) -> int:
    """Step at which training ends at the latest.

    A decaying learning rate fixes the length, and so may the question; otherwise a run may go on to the upper end of
    the predicted interval, or half as long again as the verified run, and until the target could be confirmed.
    """
    if _has_length(plan, recipe):
        return recipe.steps
    high = plan.predicted.steps_to_target.high if plan.predicted is not None else None
    verified = plan.verified.steps if plan.verified is not None and recipe == plan.recipe else 0.0
    expected = max(recipe.steps, math.ceil(high or 0), math.ceil(_ROOM * verified))
    confirm = plan.target.confirm if plan.target is not None else 1
    return expected + (confirm - 1) * _every(plan, recipe)


def _has_length(plan: Plan, recipe: Recipe) -> bool:
    """Whether the training has a length of its own, instead of ending at the target."""
    return recipe.schedule != "constant" or plan.within is not None


def _patience(recipe: Recipe) -> int | None:
    """Steps without a better evaluation after which the recipe would stop early; `None`: they are not known."""
    if recipe.steps_per_epoch is None or recipe.early_stop.patience is None:
        return None
    return max(1, math.ceil(recipe.early_stop.patience * recipe.steps_per_epoch))


def _every(plan: Plan, recipe: Recipe) -> int:
    """Steps between evaluations: as many as in the verified run, and several within patience."""
    patience = _patience(recipe) or recipe.steps
    if plan.evaluations is not None and recipe == plan.recipe:
        return min(plan.evaluations.every_steps, patience)
    return max(1, min(math.ceil(recipe.steps_per_epoch or recipe.steps), patience // 4))


def _stops_early(facts: Facts) -> bool:
    """Whether patience ends the training; a learning rate that decays has its best evaluations in the end."""
    return facts.recipe.schedule == "constant" and _patience(facts.recipe) is not None


def limits_lines(facts: Facts) -> list[str]:
    """Steps of the training, between evaluations, and without a better one."""
    plan, recipe = facts.plan, facts.recipe
    every, last = _every(plan, recipe), last_step(plan, recipe)
    spacing = f"EVERY = {every}  # steps between evaluations"
    if _stops_early(facts):
        spacing = (
            f"EVERY, PATIENCE = {every}, {_patience(recipe)}  # steps between evaluations, and without a better one"
        )
    return [f"LAST_STEP = {last}  # expected: about {length_of(plan, recipe)}", spacing]


def loop_lines(facts: Facts) -> list[str]:
    """The steps, the evaluations, and the weights of the best one."""
    worst = "inf" if facts.target.mode == "min" else "-inf"
    counted = ["in_a_row = 0"] if facts.aimed and facts.target.confirm > 1 else []
    both = facts.averaged and not facts.judges_averaged
    said = 'print(f"target reached at step {step}" if reached else "target not reached")'
    return [
        f'best, best_step, weights = float("{worst}"), 0, {{}}',
        *counted,
        "for step in range(1, LAST_STEP + 1):",
        *(f"    {line}" for line in ("model.train()", *gradient_lines(facts), *update_lines(facts))),
        "    if step % EVERY and step < LAST_STEP:",
        "        continue",
        *(f"    {line}" for line in [*_evaluation(facts), *_end(facts)]),
        *([said] if facts.aimed else []),
        'torch.save(weights, "best.pt")',
        *(['torch.save(averaged.module.state_dict(), "averaged.pt")'] if both else []),
    ]


def _evaluation(facts: Facts) -> list[str]:
    """Evaluation, and what is kept of the best one; what it draws at random is not taken from training."""
    value = f"{facts.prefix}evaluate({facts.judged})"
    if facts.task.held_back:
        value = f"evaluate({facts.judged}, task, held_back)"
    named = facts.target.metric.replace("{", "{{").replace("}", "}}")
    contexts = ["kept_random_state()" if facts.known else "", "torch.no_grad()", facts.autocast]
    return [
        f"{facts.judged}.eval()",
        f"with {', '.join(filter(None, contexts))}:",
        f"    value = {value}[{quoted(facts.metric)}]",
        f"print(f{quoted(f'step {{step}}: {named} {{value:.6g}}')})",
        f"if value {'<' if facts.target.mode == 'min' else '>'} best:",
        f"    best, best_step, weights = value, step, copy.deepcopy({facts.judged}.state_dict())",
    ]


def _end(facts: Facts) -> list[str]:
    """Whether the evaluation is the last."""
    target, lines, ends = facts.target, list[str](), list[str]()
    if facts.aimed:
        met = f"value {'<=' if target.mode == 'min' else '>='} {target.value:.8g}"
        if target.confirm > 1:
            lines.append(f"in_a_row = in_a_row + 1 if {met} else 0")
            met = f"in_a_row == {target.confirm}"
        lines.append(f"reached = {met}")
        ends.append("reached")
    if _stops_early(facts):
        ends.append("step - best_step >= PATIENCE")
    return [*lines, *([f"if {' or '.join(ends)}:", "    break"] if ends else [])]
