"""The statements that a plan rests on, each with its tag and its source. Numbers only, no torch."""

from __future__ import annotations

from typing import Literal

from ..fits.curves import steps_to_target
from ..report.basis import rests_on_in_words
from ..report.summary import spacing_in_words
from ..store.endings import endings_of
from ..store.records import Evidence, RestsOn
from ..wording import duration, number, percent, plural, with_interval
from .evaluation_spacing import FEWEST, evaluations_at
from .follow import NAMES
from .horizon import evidence_of_schedule
from .state import SearchState
from .whole_runs import evidence_of_lengths
from .within import MOST_TRAININGS, WORTH

__all__ = ["evidence_of", "rests_on"]


def evidence_of(state: SearchState) -> tuple[Evidence, ...]:
    """Statements that the plan of a search rests on: measured, fitted, from the literature, assumed."""
    return (
        *_of_hardware(state),
        *_of_lrs(state),
        *_of_runs(state),
        *(state.law.statements if state.answerable and state.question.within is None else ()),
        *_of_choices(state),
    )


def rests_on(state: SearchState) -> RestsOn:
    """The runs that an answer rests on: all that have ended, those apart that only fix the length of a schedule."""
    runs = [run.config for run in state.finished if run.config.purpose != "horizon"]
    counted = state.target is not None and state.question.within is None
    return RestsOn(
        batch_sizes=tuple(sorted({config.batch_size for config in runs})),
        lrs=tuple(sorted({config.lr for config in runs})) if state.recorded.lrs else (),
        runs=len(runs),
        reached=sum(map(len, state.reached.values())) if counted else None,
    )


def _of_hardware(state: SearchState) -> list[Evidence]:
    bench, readings = state.bench, len(state.bench.profile.step_time_s)
    source = f"{plural(readings, 'step time')} on {bench.profile.name}"
    found = [
        Evidence(
            statement="the time of a step hardly depends on the batch size well below "
            f"{with_interval(state.step_time.hardware_knee)} examples (the hardware knee), and grows in proportion to "
            "it well above",
            tag="measured" if state.bench_counts else "assumption",
            source=source if state.bench_counts else f"{source}, read from the given profile",
        )
    ]
    found += _of_loading(state, "measured" if state.bench_counts else "assumption")
    largest = bench.largest_micro_batch_size
    if bench.memory_bound:
        found.append(
            Evidence(
                statement=f"at most {largest} examples fit into memory at once",
                tag="measured" if bench.largest_verified else "fitted",
                source="one real step at that size" if bench.largest_verified else "memory fitted to smaller steps",
            )
        )
    return found


def _of_loading(state: SearchState, tag: Literal["measured", "assumption"]) -> list[Evidence]:
    """Both parts of a step of the recipe's batch size; before there is a recipe, of the largest that fits."""
    step_time = state.measured_step_time
    if step_time.loading is None:
        return []
    size = state.decision.batch_size if state.answerable else state.bench.largest_micro_batch_size
    whole, (compute, loading) = step_time.of_batch(size), map(duration, step_time.parts_of_batch(size))
    longer = "the longer of the two" if step_time.loading_is == "overlapped" else "both together"
    said = f"at batch size {size} computing takes {compute} and loading the batch {loading}; a step takes {longer}, "
    if step_time.loading_is == "included":
        said = f"at batch size {size}, where loading a batch takes {loading}, a step takes "
    source = f"{plural(len(step_time.loading.points), 'loading time')} of the task's own stream of batches"
    return [Evidence(statement=f"{said}{duration(whole)}", tag=tag, source=source)]


def _of_lrs(state: SearchState) -> list[Evidence]:
    test = state.rate_range
    if test is None:
        return []
    size = test.tested_batch_size or test.batch_size
    end = f"{'diverges at' if test.broke else 'does not diverge up to'} {number(test.ceiling_lr)}"
    rule = "the square root of the batch size" if test.normalised else "the batch size"
    return [
        Evidence(
            statement=f"training at batch size {size} {end} when the learning rate doubles every step",
            tag="measured",
            source=f"range test of {test.steps} steps (after Smith 2017; used as a prior only)",
        ),
        Evidence(
            statement=f"before the runs, the best learning rate was expected to grow with {rule} below the critical "
            f"batch size, and to be {number(test.best_lr)} at batch size {test.batch_size}, give or take a factor of "
            f"{number(test.expected_factor)}",
            tag="literature",
            source="Malladi et al. 2022 for optimizers that normalise the gradient; McCandlish et al. 2018, "
            "equation 2.6, for SGD; the range test and the optimizer's class; the factor is one standard deviation",
        ),
    ]


def _of_runs(state: SearchState) -> list[Evidence]:
    if state.target is None:
        return []
    if state.question.within is not None:
        rests = [_rests(state), *evidence_of_lengths(state, _how_often(state))]
        return [*rests, *_of_noise_scale(state)]
    reached = sum(len(steps) for steps in state.reached.values())
    without = [run for run in state.finished if steps_to_target(run.rows, state.target) is None]
    lost = [f"{n} {ending}" for ending, n in endings_of(without)]
    others = f"; of the others, {', '.join(lost)}" if lost else ""
    found = [
        _rests(state),
        Evidence(
            statement=f"{reached} of {len(state.finished)} runs reached {state.target}{others}",
            tag="measured",
            source=f"{_how_often(state)}, and is kept in the results folder",
        ),
    ]
    if state.question.target is None:
        found.append(
            Evidence(
                statement=f"the target {state.target} was chosen: there the pilot had 5 % of its whole "
                "improvement left",
                tag="assumption",
                source="the pilot run; give --target to set your own",
            )
        )
    return [*found, *_of_noise_scale(state)]


def _rests(state: SearchState) -> Evidence:
    return Evidence(
        statement=f"the answer {rests_on_in_words(rests_on(state))}",
        tag="measured",
        source="the runs in the results folder",
    )


def _of_noise_scale(state: SearchState) -> list[Evidence]:
    noise = state.noise_scale
    if not noise.n:
        return []
    return [
        Evidence(
            statement=f"the gradient noise scale of the pilot is {with_interval(noise)} examples, a weak hint at "
            "the critical batch size: the prior puts that at three times as much, one standard deviation being a "
            "factor of 6",
            tag="measured",
            source="unbiased estimates from micro-batch groups (McCandlish et al. 2018, appendix A.1)",
        )
    ]


def _how_often(state: SearchState) -> str:
    """How often the runs were evaluated."""
    if all(run.config.evaluation_every == 1 for run in state.runs):
        return "every run was evaluated whenever its steps had grown by 5 %"
    share = percent(state.question.evaluation_share)
    often = f"every run was evaluated as often as {share} of its time allow, but at least {FEWEST} times in a training"
    found = evaluations_at(state, state.decision.batch_size, state.decision.lr) if state.answerable else None
    return f"{often} (the run at the recipe {spacing_in_words(found)})" if found else often


def _of_search(state: SearchState) -> Evidence:
    if state.question.within is not None:
        return Evidence(
            statement=f"a further run was made as long as it was expected to improve {state.lengths.metric.name} "
            f"by {percent(WORTH)} of its value, and the search with it had not taken {MOST_TRAININGS:.0f} trainings",
            tag="assumption",
            source="the expected improvement by the law of where trainings of this length end",
        )
    if state.question.search != "anchors":
        return Evidence(
            statement=f"the runs were chosen by {NAMES[state.question.search]}, and the recipe is the best of "
            "them; the fitted law gives the intervals and the curves, and chose nothing",
            tag="measured",
            source=f"{len(state.finished)} runs, one at each pair: the best of many looks a little better than it is",
        )
    return Evidence(
        statement=f"the recipe will be used for {state.question.trainings:g} trainings: a further run was made as long "
        "as it was expected to save more over them than it cost",
        tag="assumption",
        source="set the number of trainings with --trainings",
    )


def _of_choices(state: SearchState) -> list[Evidence]:
    return [
        _of_search(state),
        *evidence_of_schedule(state),
        Evidence(
            statement="momentum, betas and weight decay were left as the task sets them: "
            "every learning rate was tuned with them in place",
            tag="assumption",
            source="no change was measured; at very small batches a longer second moment can help (Marek et al. 2025)",
        ),
    ]
