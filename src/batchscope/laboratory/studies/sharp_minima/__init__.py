"""Where small and large batches end: Keskar's sharpness, a box that knows the weights' scale, and the Hessian.

Keskar et al. (2017) train with batches of 256 and of a tenth of the data until the loss stops improving, and search the
largest loss in a small box around the weights; Chang and Pathak (2020) do the same in a box ten times as wide. Measured
are the last weights of every run, on training data in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from ....fits import intervals
from ....report.blocks import Block, Column, Section, Table, Text
from ....store.ranges import NOT_NEGATIVE
from ....wording import count, number, with_interval
from ...demands import needs_several_sizes
from ...published import SHEN_SETTINGS, Setup, Value, published_section
from ...readings import end_metric_of, over_seeds
from ...records import Arm, Finding, Length, NamedStudy, Study, StudyQuestion, grid
from .conclusions import SOURCE, sharpness_findings
from .figures import by_size_figures, edge_figure, gap_figures, ratio_table
from .sharpness import (
    EPS,
    KESKAR,
    gradient_norms,
    late_change,
    mean_of_box,
    measurement_name,
    ratio_of,
    reasons,
    size_pairs,
)

if TYPE_CHECKING:
    from torch import nn

    from ....store.runs import StoredRun
    from ...engine import Laboratory

__all__ = ["STUDY"]

_EXAMPLES = 2000
"""Of the training set, that sharpness is measured on: a fixed draw."""
_RANDOM_STARTS = 1
"""Of a search, besides those at the weights and at the best point of the smaller box."""
_VECTORS = 10
"""For the trace, unless --repeats says another number."""
_TOLERANCE = 0.01
"""Of the eigenvalue, relative."""
_PUBLISHED = Setup(
    who="Keskar et al. 2017",
    data="MNIST (their network F1)",
    examples=60_000,
    length="until the loss stopped improving",
    seeds=5,
    settings={"hidden": 512, "depth": 5, "optimizer": "adam"},
    more=(
        "the published network has batch normalisation in each of its five layers; here there is none",
        "the published batches were of 256 examples and of a tenth of the data",
        "the published loss was that of all training data",
    ),
)


def arms(question: StudyQuestion, examples: int) -> Sequence[Arm]:
    """Every batch size at every learning rate."""
    needs_several_sizes("sharp_minima", question)
    return grid(question, examples)


def measure_all(laboratory: Laboratory) -> None:
    """Seed by seed the grid, and what the last weights of each of its runs are like."""
    for seed in laboratory.question.seeds:
        for arm in laboratory.arms:
            run = laboratory.run(arm, seed, keep=("last",))
            if run is not None and run.result is not None and run.result.status.value != "diverged":
                _measure(laboratory, run)


def _measure(laboratory: Laboratory, run: StoredRun) -> None:
    """Three measurements, each noted as it is made."""
    from ....probes.hessian import measure_curvature
    from ....probes.sharpness import measure_box_sharpness
    from ....store.not_applicable import NotApplicable

    workload, vectors = laboratory.workload, laboratory.question.repeats or _VECTORS

    def box(kind: Literal["keskar", "relative"]) -> Callable[[nn.Module], Any]:
        def search(model: nn.Module) -> Any:
            found = measure_box_sharpness(
                workload,
                model,
                neighbourhood=kind,
                eps=EPS[kind],
                random_starts=_RANDOM_STARTS,
                examples=_EXAMPLES,
                seed=run.config.seed,
            )
            return found if isinstance(found, NotApplicable) else {"boxes": found}

        return search

    def curvature(model: nn.Module) -> Any:
        return measure_curvature(
            workload, model, vectors=vectors, tolerance=_TOLERANCE, examples=_EXAMPLES, seed=run.config.seed
        )

    model: nn.Module | None = None
    for name, measure in (
        (measurement_name("keskar", run.id), box("keskar")),
        (measurement_name("relative", run.id), box("relative")),
        (measurement_name("curvature", run.id), curvature),
    ):
        if laboratory.read_note(name) is not None:
            continue
        if laboratory.late:
            laboratory.cut_off = True
            return
        model = model or laboratory.model(laboratory.weights(run, "last"))
        laboratory.note(name, measure(model))


def conclude(study: Study, runs: Sequence[StoredRun]) -> Sequence[Finding]:
    """Keskar's conclusions, and what stands beside them."""
    return sharpness_findings(study, runs)


# --- the page -------------------------------------------------------------------------------------------------------

_WHAT = (
    "φ = 100 · (the largest loss in a box around the weights − the loss there) ÷ (1 + the loss there). Keskar's box "
    "reaches ε (|w| + 1) to either side of each weight w, the relative box ε |w|. ε of 0.0005 and 0.001 are Keskar's, "
    "0.01 is Chang and Pathak's.",
    "The largest loss is searched, by ten iterations of L-BFGS-B from several starts, and not known: φ is a lower "
    "bound, and a small φ bounds nothing. Chang and Pathak's public code adds up the gradients of all batches and "
    "averages their losses, two functions that differ by the number of batches; here both are means over the same "
    "examples. Their search begins at the weights, where it may stop at once; so others begin elsewhere.",
    "Dinh et al. (2017) object that sharpness is no property of the function: multiplying one ReLU layer by a number "
    "and dividing the next by it leaves every output as it was, and makes Keskar's φ and the Hessian's eigenvalue as "
    "large as one likes. The relative box is carried along, and its φ stays. So where the two boxes disagree on which "
    "batch is sharper, the answer depends on the scale of the weights. Neither predicts the test error.",
)
_RATIOS = (
    "Geometric means over the seeds with 90 % t intervals of the logarithm. Where a row's interval lies above 1, the "
    "large batch ended at a sharper place by that measure. Learning rates may differ in the last column, and sharpness "
    "follows the learning rate."
)
_REACHED = (
    "Of the training loss in evaluation mode on a fixed part of the training data, and its change over the last tenth "
    f"of a run. The norm of the gradient is that of the mean loss over {count(_EXAMPLES)} training examples at most, "
    "where sharpness was measured; at a minimum it is zero. The words sharp and flat minimum presume one."
)


def sections(study: Study, runs: Sequence[StoredRun]) -> Sequence[Section]:
    """The published values, sharpness by batch size, its ratios, the gap, the learning rate, and the losses reached."""
    found = [published_section(study, runs, _PUBLISHED, _values(study))]
    by_size, ratios, gaps, edge = by_size_figures(study), ratio_table(study), gap_figures(study), edge_figure(study)
    missing = [Text((f"Not measured: {reason.rstrip('.')}.",), tone="note") for reason in reasons(study)]
    nothing = Text(("No run was measured: none went to its end, or the budget was used up before.",))
    what = Text(_WHAT, tone="note")
    blocks: list[Block] = [by_size] if by_size else [] if missing else [nothing]
    found.append(Section("sharpness", "Sharpness of where training ended", (*blocks, *missing, what)))
    if ratios:
        found.append(Section("ratios", "Large batch against small", (ratios, Text((_RATIOS,), tone="note"))))
    if gaps:
        found.append(Section("sharpness-and-gap", "Sharpness and the generalisation gap", (gaps,)))
    if edge:
        found.append(Section("edge", "Sharpness and the learning rate", (edge,)))
    if table := _reached(study, runs):
        found.append(Section("reached", "Whether these are minima", (table, Text((_REACHED,), tone="note"))))
    return found


def _values(study: Study) -> list[Value]:
    values: list[Value] = []
    outcome = end_metric_of(study)
    for comparison in size_pairs(study):
        for arm, phi, accuracy in (
            (comparison.small, "1.23 ± 0.83", "0.9803"),
            (comparison.large, "205 ± 70", "0.9781"),
        ):
            named = f"batch size {count(arm.batch_size)}, learning rate {number(arm.lr)}"
            ours = mean_of_box(study, arm, KESKAR)
            values.append(Value(what=f"φ at ε = 0.001 in per cent: {named}", published=phi, ours=ours))
            if outcome.name == "test_accuracy":
                values.append(
                    Value(what=f"test accuracy: {named}", published=accuracy, ours=arm.estimates["final_test_accuracy"])
                )
        ratio = ratio_of(study, comparison, KESKAR)
        values.append(
            Value(what=f"φ of the large batch over that of the small, {comparison.how}", published="167", ours=ratio)
        )
    return values


def _reached(study: Study, runs: Sequence[StoredRun]) -> Table | None:
    rows: list[tuple[str, ...]] = []
    for arm in (a for a in study.summary if not a.diverged):
        change = over_seeds(study, runs, arm, lambda run: late_change(study, run))[0]
        percent = [None if v is None else 100.0 * v for v in (change.value, change.low, change.high)]
        norms = gradient_norms(study, arm)
        rows.append(
            (
                f"batch size {count(arm.batch_size)}, learning rate {number(arm.lr)}",
                with_interval(arm.estimates.get("final_train_loss_eval")),
                "not measured" if percent[0] is None else f"{number(percent[0])} %",
                with_interval(intervals.mean(norms, within=NOT_NEGATIVE)) if norms else "not measured",
            )
        )
    heads = ("training loss at the end", "its change over the last tenth", "norm of the gradient")
    return Table((Column("arm"), *(Column(head, numeric=True) for head in heads)), tuple(rows)) if rows else None


STUDY = NamedStudy(
    name="sharp_minima",
    summary="sharpness of where small and large batches end: two boxes, and the Hessian",
    source=f"{SOURCE}; Chang and Pathak 2020, sharpness (B4)",
    question=StudyQuestion(batch_sizes=(64, 1024), lrs=(0.1, 0.3), length=Length(unit="epochs", amount=60)),
    quick={"lrs": (0.1,), "seeds": (0,), "repeats": 2, "length": Length(unit="epochs", amount=3)},
    settings={**SHEN_SETTINGS, "hidden": 32},
    array_settings={**SHEN_SETTINGS, "hidden": 128, "evaluate_at_most": 10_000},
    arms=arms,
    measure_all=measure_all,
    conclude=conclude,
    sections=sections,
)
