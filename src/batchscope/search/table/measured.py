"""A plan without the numbers that stand in for what a table does not say: rates, epochs, times."""

from __future__ import annotations

from dataclasses import replace

from ...store.records import Alternative, Curve, Curves, EarlyStop, Measured, Plan, Predicted, Recipe
from ..recipe import NOT_MEASURED
from .state import TableFindings, UntunedFindings

__all__ = ["drawn", "only_what_is_known"]

_DRAWN_WIDTH = 30.0
"""A curve is drawn as far as its interval reaches no more than this factor up."""
_NEVER = 1e15


def drawn(curves: Curves) -> Curves:
    """The curves where they are known within a factor; beyond a wall they are nowhere."""
    curve = curves.examples_to_target
    keep = [i for i, value in enumerate(curve.value) if curve.high[i] < _DRAWN_WIDTH * value < _NEVER]

    def cut(curve: Curve) -> Curve:
        return Curve(
            batch_size=tuple(curve.batch_size[i] for i in keep),
            value=tuple(curve.value[i] for i in keep),
            low=tuple(curve.low[i] for i in keep),
            high=tuple(curve.high[i] for i in keep),
        )

    return Curves(
        time_to_target_s=cut(curves.time_to_target_s),
        steps_to_target=cut(curves.steps_to_target),
        examples_to_target=cut(curves.examples_to_target),
        lr=cut(curves.lr),
    )


def only_what_is_known(plan: Plan, findings: TableFindings) -> Plan:
    """The plan without the numbers that stood in for what the table does not say."""

    def of_recipe(recipe: Recipe | None, predicted: Predicted | None) -> Recipe | None:
        if recipe is None:
            return None
        return replace(
            recipe,
            lr=recipe.lr if rates_known else None,
            steps_per_epoch=recipe.steps_per_epoch if findings.examples_known else None,
            epochs=recipe.epochs if findings.examples_known else None,
            early_stop=_early_stop(recipe, predicted, findings),
        )

    def of_prediction(predicted: Predicted | None) -> Predicted | None:
        if predicted is None or findings.times_known:
            return predicted
        unknown = replace(NOT_MEASURED, unit="s", method="the table has no times")
        return replace(predicted, step_time_s=unknown, time_to_target_s=unknown)

    def of_alternative(other: Alternative) -> Alternative:
        recipe, predicted = of_recipe(other.recipe, other.predicted), of_prediction(other.predicted)
        assert recipe is not None
        assert predicted is not None
        return replace(other, recipe=recipe, predicted=predicted)

    rates_known = not isinstance(findings, UntunedFindings) or bool(findings.rates.points)
    nothing = Curve(batch_size=(), value=(), low=(), high=())
    curves = plan.curves
    if curves is not None:
        curves = replace(curves, lr=curves.lr if rates_known else nothing)
        curves = curves if findings.times_known else replace(curves, time_to_target_s=nothing)
    equivalents = plan.search.run_equivalents if findings.times_known else None
    return replace(
        plan,
        recipe=of_recipe(plan.recipe, plan.predicted),
        predicted=of_prediction(plan.predicted),
        current=of_recipe(plan.current, plan.current_predicted),
        current_predicted=of_prediction(plan.current_predicted),
        alternatives=tuple(map(of_alternative, plan.alternatives)) if findings.times_known else (),
        measured=_measured(plan.measured, findings),
        search=replace(plan.search, run_equivalents=equivalents, device_seconds=_trained(plan, findings)),
        curves=curves,
        bench=plan.bench if findings.times_known else None,
        examples_in_training_set=findings.examples if findings.examples_known else 0,
    )


def _trained(plan: Plan, findings: TableFindings) -> float:
    return plan.search.device_seconds if findings.times_known else 0.0


def _early_stop(recipe: Recipe, predicted: Predicted | None, findings: TableFindings) -> EarlyStop:
    """Give up where nine of ten trainings would have ended."""
    high = predicted.steps_to_target.high if predicted else None
    if not findings.examples_known or recipe.epochs is None:
        return EarlyStop(best_epoch=None, patience=None)
    late = max(high - recipe.steps, 0.0) * recipe.batch_size / findings.examples if high is not None else recipe.epochs
    return EarlyStop(best_epoch=recipe.epochs, patience=max(1.0, late))


def _measured(measured: Measured, findings: TableFindings) -> Measured:
    if not findings.times_known:
        measured = replace(measured, hardware_knee=replace(NOT_MEASURED, unit="examples"))
    if findings.bench.memory_bound or findings.bench.profile.peak_memory_bytes:
        return measured
    return replace(measured, largest_micro_batch_size=replace(NOT_MEASURED, unit="examples"))
