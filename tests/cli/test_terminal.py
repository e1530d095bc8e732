"""Progress in a file, a pipe and on a terminal: what a run is for, how far it is, what is left."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from batchscope.cli.terminal import LiveProgress
from batchscope.cli.views import prediction_in_words, renewed_in_words
from batchscope.store.records import Estimate, RunConfig, RunStatus, Target
from batchscope.testing import evaluation, stored_run
from batchscope.training.progress import Prediction

CONFIG = RunConfig(
    task="line",
    settings={},
    batch_size=8,
    micro_batch_size=8,
    lr=0.1,
    seed=0,
    target=Target.parse("val_loss<=0.1"),
    max_steps=10,
    device="cpu",
    purpose="study",
)
FORECAST = Prediction(seconds=300, low=100, high=900, budget_s=600, assumption="8 runs", spent_s=20)


def seconds(low: float, value: float, high: float) -> Estimate:
    return Estimate(value=value, low=low, high=high, n=0, unit="s", method="")


class Watched:
    """Progress on a console whose clock is set by hand."""

    def __init__(self, *, terminal: bool = False) -> None:
        self.now, self.file = 1000.0, io.StringIO()
        console = Console(file=self.file, force_terminal=terminal, width=200)
        self.progress = LiveProgress(console, clock=lambda: self.now)

    def lines(self) -> list[str]:
        """What was printed since the last call."""
        said = self.file.getvalue().splitlines()
        self.file.seek(0)
        self.file.truncate()
        return said

    def drawn(self) -> list[str]:
        """The lines that move, as the console's thread would draw them now."""
        console = Console(file=io.StringIO(), width=200)
        with console.capture() as drawn:
            console.print(self.progress.drawn())
        return [line[2:].rstrip() for line in drawn.get().splitlines()]

    def begin(self, expected_steps: float | None = None, **config: Any) -> None:
        self.progress.run_started(replace(CONFIG, **config), "", "", expected_steps)
        self.progress.row(evaluation(0, {"val_loss": 1.0}, batch_size=8))
        self.lines()

    def steps(self, first: int, last: int, step_s: float) -> Iterator[str]:
        """Steps of a run, and the lines that they bring."""
        for step in range(first, last + 1):
            self.now += step_s
            self.progress.step(step)
            yield from self.lines()


@pytest.mark.parametrize(
    ("why", "left", "said"),
    [
        ("why", "much left", "run 1: batch size 8, learning rate 0.1 (why); much left"),
        ("for its weights", "", "run 1: batch size 8, learning rate 0.1 (for its weights)"),
        ("", "", "run 1: batch size 8, learning rate 0.1"),
    ],
)
def test_a_part_that_is_empty_is_left_out(why: str, left: str, said: str) -> None:
    watched = Watched()
    watched.progress.run_started(CONFIG, why, left)
    assert watched.lines() == [said]


def test_a_run_without_a_reason_says_what_it_is_for() -> None:
    watched = Watched()
    watched.progress.run_started(replace(CONFIG, purpose="probe"), "", "")
    assert watched.lines() == ["run 1: batch size 8, learning rate 0.1 (is it faster?)"]


def test_in_a_pipe_a_run_is_seen_after_10_s_and_then_every_30_s() -> None:
    watched = Watched()
    watched.begin(expected_steps=400.0)
    (first,) = watched.steps(1, 10, 1.0)
    assert first == "  step 10 of about 400, 80 examples, val_loss 1 at step 0, about 7 min left of this run"
    assert list(watched.steps(11, 39, 1.0)) == []
    assert list(watched.steps(40, 40, 1.0)) == [
        "  step 40 of about 400, 320 examples, val_loss 1 at step 0, about 6 min left of this run"
    ]
    assert len(list(watched.steps(41, 101, 1.0))) == 2


@pytest.mark.parametrize(("until", "of"), [({}, " of about 900"), ({"until": "60s"}, "")])
def test_a_run_of_a_study_ends_at_its_last_step_unless_something_else_ends_it(until: dict[str, Any], of: str) -> None:
    watched = Watched()
    watched.begin(max_steps=900, settings=until)
    (line,) = watched.steps(1, 10, 1.0)
    assert line.startswith(f"  step 10{of}, 80 examples")


def test_a_short_run_is_not_seen_inside_and_each_run_begins_anew() -> None:
    watched = Watched()
    for _ in range(2):
        watched.begin()
        assert list(watched.steps(1, 9, 1.0)) == []


def test_on_a_terminal_the_line_moves_between_evaluations() -> None:
    watched = Watched(terminal=True)
    watched.progress.predicted(FORECAST)
    watched.begin(expected_steps=100.0)
    assert list(watched.steps(1, 20, 1.0)) == []
    assert watched.drawn() == [
        "run 1: batch size 8, learning rate 0.1",
        "step 20 of about 100, 160 examples, val_loss 1 at step 0, about 80 s left of this run",
        "search: about 4 min 20 s left, at most 10 min",
    ]
    watched.progress.run_finished(stored_run(8, 0.1, [evaluation(20, {"val_loss": 0.5}, batch_size=8)]), "batch size 8")
    assert "choosing what to run next" in watched.drawn()[0]
    assert watched.drawn()[1] == "best so far: batch size 8"


def test_a_run_that_goes_on_is_timed_from_where_it_went_on() -> None:
    watched = Watched(terminal=True)
    watched.progress.run_started(CONFIG, "", "", 60.0)
    watched.progress.row(evaluation(41, {"val_loss": 1.0}, batch_size=8))
    list(watched.steps(42, 50, 1.0))
    assert watched.drawn()[1].endswith("about 10 s left of this run")


@pytest.mark.parametrize(
    ("budget_s", "passed", "said"),
    [
        (600, 0.0, "search: about 4 min 40 s left, at most 10 min"),
        (600, 300.0, "search: longer than was forecast, at most 4 min 40 s"),
        (200, 0.0, "the budget ends the search in 3 min"),
        (200, 300.0, "the budget is used up"),
    ],
)
def test_what_is_left_by_the_forecast_and_by_the_budget(budget_s: float, passed: float, said: str) -> None:
    watched = Watched(terminal=True)
    watched.progress.predicted(replace(FORECAST, budget_s=budget_s))
    watched.begin()
    watched.now += passed
    assert watched.drawn()[2] == said


def test_a_renewed_forecast_is_a_line_in_a_pipe_only_where_it_is_another() -> None:
    watched = Watched()
    watched.progress.predicted(FORECAST)
    watched.lines()
    watched.progress.renewed(replace(FORECAST, seconds=320))
    assert watched.lines() == []
    watched.progress.renewed(replace(FORECAST, seconds=620, high=1000, training_s=seconds(50, 100, 200)))
    assert watched.lines() == [
        "  about 10 min (80 s to 17 min) left of the search, but its budget is likely to end in 10 min "
        "(one training: about 1 min 40 s (50 s to 3 min 20 s))"
    ]


def test_a_renewed_forecast_is_drawn_in_place_on_a_terminal() -> None:
    watched = Watched(terminal=True)
    watched.progress.predicted(FORECAST)
    watched.lines()
    watched.progress.renewed(replace(FORECAST, seconds=120, low=100, high=200, spent_s=50))
    assert watched.lines() == []
    watched.begin()
    assert watched.drawn()[2:] == [
        "search: about 70 s left, at most 10 min",
        "about 70 s (50 s to 2 min 30 s) left of the search",
    ]


def test_a_training_that_is_part_of_a_measurement_is_seen_too() -> None:
    watched = Watched(terminal=True)
    watched.progress.stage("training a short run")
    watched.progress.row(evaluation(7, {"val_loss": 1.0, "test_loss": 2.0}, batch_size=8))
    watched.progress.step(8)
    watched.now += 3.0
    assert watched.lines() == []
    assert watched.drawn() == ["training a short run (3 s)", "val_loss 1 at step 7"]


@pytest.mark.parametrize(
    ("status", "end"),
    [
        (RunStatus.PAUSED, "paused on the way, to go on if none is better"),
        (RunStatus.BEHIND, "stopped early, clearly slower than the best run"),
        (RunStatus.DIVERGED, "diverged"),
    ],
)
def test_how_a_run_ended_needs_no_legend(status: RunStatus, end: str) -> None:
    watched = Watched()
    rows = [evaluation(20, {"val_loss": 0.5}, batch_size=8, device_seconds=192.0)]
    watched.begin()
    watched.progress.run_finished(stored_run(8, 0.1, rows, status=status), "")
    assert watched.lines() == [f"  run 1   batch size      8  learning rate 0.1      20 steps, 3 min 12 s: {end}"]


def test_a_run_that_gained_nothing_is_not_called_slower() -> None:
    watched = Watched()
    rows = [evaluation(step, {"val_loss": loss}, batch_size=8) for step, loss in ((0, 2.0), (10, 2.1), (20, 1.99))]
    watched.begin()
    watched.progress.run_finished(stored_run(8, 0.1, rows, status=RunStatus.BEHIND, target=CONFIG.target), "")
    assert watched.lines()[0].endswith(": stopped early, no better than fresh weights")


# --- the forecast in words ----------------------------------------------------------------------------------------


def test_the_forecast_of_a_search_tells_the_time_of_one_training() -> None:
    told = prediction_in_words(
        Prediction(
            seconds=700,
            low=170,
            high=3000,
            budget_s=1200,
            assumption="a target that takes about 100 steps",
            training_s=seconds(20, 143, 900),
            trainings=2.8,
        )
    )
    assert told == (
        "This search will take about 12 min (2 min 50 s to 50 min), assuming a target that takes about 100 steps. "
        "Its runs are as long as about 3 trainings of 2 min 30 s (20 s to 15 min) each, evaluations included. "
        "No training goes on after 20 min (--budget)."
    )


def test_a_forecast_is_not_cut_at_the_budget_and_says_that_it_is_too_long() -> None:
    told = prediction_in_words(
        Prediction(seconds=15055, low=3700, high=6e4, budget_s=600, assumption="8 runs", what="study")
    )
    assert told == (
        "This study would take about 4 h 11 min (1 h 2 min to 16 h 40 min), assuming 8 runs. The budget is likely to "
        "end it before that. No training goes on after 10 min (--budget)."
    )


def test_what_earlier_commands_used_counts_against_the_budget() -> None:
    told = Prediction(seconds=400, low=400, high=400, budget_s=600, assumption="x", earlier_s=240, spent_s=60)
    assert told.too_long
    assert told.budget_left_s == 300
    assert prediction_in_words(told).endswith(
        "after 10 min (--budget), of which earlier commands with this question used 4 min."
    )


def test_an_end_of_an_interval_that_says_nothing_is_left_out() -> None:
    told = Prediction(seconds=2000, low=70, high=1e6, budget_s=6e4, assumption="x", spent_s=10)
    assert renewed_in_words(told) == "about 34 min (at least 60 s) left of the search"


def test_a_training_of_milliseconds_is_told_in_them() -> None:
    told = Prediction(seconds=9, low=6, high=30, budget_s=60, assumption="x", training_s=seconds(0.003, 0.0312, 0.4))
    assert "(one training: about 30 ms (3 ms to 400 ms))" in renewed_in_words(told)


def test_a_paused_run_that_goes_on_keeps_its_number() -> None:
    watched, other = Watched(), replace(CONFIG, lr=0.2)
    for config, status in ((CONFIG, RunStatus.PAUSED), (other, RunStatus.REACHED), (CONFIG, RunStatus.REACHED)):
        watched.progress.run_started(replace(config, purpose="probe"), "why", "")
        run = stored_run(8, config.lr, [evaluation(20, {"val_loss": 0.05})], status=status)
        watched.progress.run_finished(run, "")
    watched.progress.run_started(other, "for its weights", "")
    begun = [line for line in watched.lines() if line.startswith("run ")]
    assert begun == [
        "run 1: batch size 8, learning rate 0.1 (why)",
        "run 2: batch size 8, learning rate 0.2 (why)",
        "run 1 goes on: batch size 8, learning rate 0.1 (why)",
        "run 2 again: batch size 8, learning rate 0.2 (for its weights)",
    ]
