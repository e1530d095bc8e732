"""The recipe as a program to copy, and as arguments of the library that the task was made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...store.records import Plan, Recipe, TaskProgram
from ...wording import joined, number, plural
from ..blocks import Code, Section, Text
from ..program import library_call, program

if TYPE_CHECKING:
    from ...store.runs import StoredRun

TITLE = "How to apply it"

_OF_THE_TASK = {
    "collate": "its collate",
    "loader_options": "its loader options",
    "sampler": "its sampler",
    "loss_weight": "the weights of its micro-batches",
    "before_update": "its before_update",
    "precision": "its precision",
    "ema_decay": "its averaged weights",
}
"""Members that make a training another one, in words."""


def build(plan: Plan, runs: Sequence[StoredRun]) -> Section:
    """Section with the program, what it is, and what it leaves to the reader."""
    if plan.recipe is None:
        return Section("apply", TITLE, (Text(("Without a recommendation there is nothing to apply.",)),))
    notes = [*_what_it_is(plan), *_what_is_left(plan, plan.recipe)]
    whole = (Text(tuple(notes)), Code(program(plan, plan.recipe)))
    library = plan.program.library if plan.program is not None else None
    if library is None:
        return Section("apply", TITLE, whole)
    said = f"In the training that the task was made of, with every other argument of {library.call} as it is:"
    return Section("apply", TITLE, (Text((said,)), Code(library_call(plan, plan.recipe, library)), *whole))


def _what_it_is(plan: Plan) -> list[str]:
    if plan.program is None:
        return [
            "The names model, train_data, make_optimizer, loss and evaluate stand for those of the task; "
            "a batch must be moved to the model's device if the data are not there."
        ]
    has = [words for member, words in _OF_THE_TASK.items() if member in plan.program.members]
    with_ = f", with {joined(has)}" if has else ""
    once = "" if plan.program.loading == "stream" else " Batches run on into the next epoch, so that all are full."
    said = [
        f"A whole program in plain PyTorch{with_}: it begins with the seed of the search, takes the examples in the "
        f"same order, and writes the weights of its best evaluation to best.pt.{once}"
    ]
    if plan.program.tokens_per_example is not None:
        said.append(
            f"An example has {number(plan.program.tokens_per_example)} tokens on average, by loss_weight(batch)."
        )
    return said


def _what_is_left(plan: Plan, recipe: Recipe) -> list[str]:
    """What the reader has to do."""
    said: list[str] = []
    if plan.program is not None and not plan.program.spec:
        said.append("Fill in the line that imports the task: it was made in Python, and the page cannot see where.")
    elif plan.program is not None and _names_a_file(plan.program):
        said.append("Save it and run it in the folder where the command was run.")
    if recipe.world_size > 1:
        said.append(
            f"Run it in {plural(recipe.world_size, 'process', 'processes')}, one a device: wrap the model in "
            "DistributedDataParallel, and give each process its own examples, as a DistributedSampler does."
        )
    return said


def _names_a_file(task: TaskProgram) -> bool:
    """Whether the task, or what an integration makes it of, is called by the path of a file."""
    named = [task.spec, *(text.strip("'\"") for text in task.arguments.values() if task.library is not None)]
    return any((each.rpartition(":")[0] or each).endswith(".py") for each in named)
