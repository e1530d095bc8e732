"""What was run, on what, and how the numbers are defined."""

from __future__ import annotations

from .....report.blocks import Facts, Section, Text
from .....wording import count, duration, number, plural, sentence
from ...records import Claims
from ...results import TaskResults

_DEFINITIONS = (
    "One learning rate is the learning rate at which the smallest batch size is best, as in the published experiments: "
    "it suits small batches. A best learning rate is the one with the best mean of the metric at its best epoch, among "
    "those at which no seed diverged.",
    "A training loss is of a fixed random part of the training data, in evaluation mode: the running mean that "
    "training prints is of weights that change meanwhile. Times are seconds of training steps; evaluations are not "
    "counted.",
    "Batches are cut from a stream of seeded permutations without gaps, so that all are full. A seed draws the initial "
    "weights and the order of the examples together; comparisons are made seed by seed.",
)


def build(claims: Claims, e: TaskResults) -> Section:
    """Definitions, then facts."""
    study, plan, here = claims.study, e.plan, claims.study.environment
    spent = sum(row.values.get("train_time_s") or 0.0 for row in study.rows)
    pairs = (
        ("batch sizes", ", ".join(count(b) for b in plan.batch_sizes)),
        ("learning rates", ", ".join(number(lr) for lr in plan.lrs)),
        ("one learning rate", number(e.one_rate)),
        ("seeds", ", ".join(str(s) for s in plan.seeds)),
        ("a run", plural(plan.epochs, "epoch") if plan.epochs == int(plan.epochs) else f"{number(plan.epochs)} epochs"),
        ("a long run", f"{number(plan.long_epochs)} epochs"),
        ("equal steps", f"{count(plan.fixed_steps(study.examples))} updates"),
        ("little data", f"{count(plan.few(study.examples))} examples"),
        ("training examples", count(study.examples)),
        ("metric for choices", study.metric),
        ("runs", f"{count(len(study.rows))}, {duration(spent)} of training steps"),
        ("device", f"{here.device_name} ({here.device})" if here.device_name else here.device),
        ("threads", count(here.threads)),
        ("versions", f"batchscope {here.batchscope}, torch {here.torch or 'none'}, Python {here.python}"),
    )
    cut = (
        ()
        if study.complete
        else ("The budget was not enough for everything; the same command goes on where it ended.",)
    )
    notes = tuple(sentence(note) for note in study.notes)
    return Section("conditions", "Conditions and definitions", (Text((*_DEFINITIONS, *cut, *notes)), Facts(pairs)))
