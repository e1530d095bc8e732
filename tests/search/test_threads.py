"""Threads and loader of a recipe: from the bench into each run, the recipe, the terminal and the program to copy."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from batchscope.cli.views import plan_view
from batchscope.report.program import program
from batchscope.report.sections import recipe as recipe_section
from batchscope.report.summary import summary
from batchscope.search.find import find
from batchscope.search.plan import build_plan
from batchscope.search.question import Question
from batchscope.store.codec import decode, encode
from batchscope.store.records import Bench, Plan, Target
from batchscope.store.runs import read_runs
from batchscope.tasks.loading import load_task

from .searches import ENVIRONMENT, bench, search


def measured(up_to: int) -> Bench:
    """A bench in which one thread is faster up to a micro-batch size, and two from there on."""
    made = bench()
    readings = (replace(r, num_threads=1 if r.micro_batch_size <= up_to else 2) for r in made.readings)
    return replace(made, readings=tuple(readings))


def printed(plan: Plan) -> str:
    console = Console(width=10_000, file=io.StringIO())
    for part in plan_view(plan):
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def loader_in(text: str) -> list[str]:
    """Arguments of the loader in a program, each a line."""
    after = [line.strip() for line in text.splitlines()]
    after = after[after.index("loader = DataLoader(") + 1 :]
    return after[: after.index(")")]


def test_a_recipe_has_the_threads_that_were_faster_and_says_them_where_they_are_not_those_of_torch() -> None:
    two = replace(ENVIRONMENT, threads=2)
    one, both = (build_plan(search(bench=measured(up_to), environment=two)) for up_to in (256, 1))
    assert one.recipe is not None
    assert both.recipe is not None
    assert (one.recipe.num_threads, both.recipe.num_threads) == (1, 2)
    assert decode(Plan, encode(one)) == one
    said = "1 thread (torch.set_num_threads(1))"
    assert f"threads          {said}" in printed(one)
    assert said in summary(one)[0]
    assert ("threads", said) in recipe_section.facts(one, one.recipe)
    assert "torch.set_num_threads(1)  # steps are faster so than with 2" in program(one, one.recipe)
    assert "thread" not in printed(both)
    assert "set_num_threads" not in program(both, both.recipe)


def test_nothing_is_said_of_threads_where_the_hardware_is_not_a_cpu_of_which_that_is_known() -> None:
    plan = build_plan(search())
    assert plan.recipe is not None
    assert plan.recipe.num_threads is None
    assert "thread" not in printed(plan)


def test_the_program_has_the_loader_that_the_step_time_holds_for() -> None:
    loaded = replace(bench(), loader_workers=2, loader_options={"num_workers": 2, "worker_init_fn": "f"})
    plan = build_plan(search(bench=replace(loaded, loader_options={"num_workers": 2, "pin_memory": True})))
    assert plan.recipe is not None
    loader = ["train_data,", "batch_sampler=batches_of_indices(len(train_data)),"]
    loader.append("generator=torch.Generator().manual_seed(SEED + 1000003),")
    assert loader_in(program(plan, plan.recipe)) == [*loader, "num_workers=2,", "pin_memory=True,"]
    assert "step times hold for a loader with num_workers=2, pin_memory=True" in plan.notes[0]
    plain = build_plan(search())
    assert plain.recipe is not None
    assert loader_in(program(plain, plain.recipe)) == loader
    cut = build_plan(search(bench=replace(bench(), in_memory=True)))
    assert cut.recipe is not None
    assert "DataLoader" not in program(cut, cut.recipe)


def test_a_search_trains_with_the_threads_of_its_bench(tmp_path: Path) -> None:
    """This process has one thread: the recipe says so, and each run has it in its configuration."""
    question = Question(target=Target(metric="val_loss", value=1.5, mode="min"), trainings=2)
    plan = find(load_task("digits"), question, out=tmp_path / "out", budget_s=60.0)
    assert plan.recipe is not None
    assert plan.recipe.num_threads == plan.environment.threads
    assert {run.config.num_threads for run in read_runs(tmp_path / "out")} == {plan.environment.threads}
