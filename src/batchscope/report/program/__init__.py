"""Program that trains a task with a recipe in plain PyTorch: only the lines that this task and this recipe need.

It does what a run of the search did: the same seed, the same order of the examples, batches that run on into the next
epoch so that all are full, the same weights of the micro-batches, the same learning rate in each step. What it leaves
away is what only a search needs: runs that are compared, paused and resumed.
"""

from __future__ import annotations

from ...store.records import Plan, Recipe
from .data import batches_lines, evaluate_function, indices_function, to_device_function
from .facts import Facts
from .library import library_call
from .loop import last_step, limits_lines, loop_lines
from .opening import constants_lines, import_lines
from .randomness import random_functions
from .update import factor_function, made_lines

__all__ = ["last_step", "library_call", "program"]


def program(plan: Plan, recipe: Recipe) -> str:
    """Python program that trains with the recipe until the target, the end of patience, or the last step.

    Where the plan does not say what the task is (an older one, or one made from a table of measurements), the names
    `model`, `train_data`, `make_optimizer`, `loss` and `evaluate` stand for those of the reader's own script.
    """
    facts = Facts(plan=plan, recipe=recipe)
    functions = [*random_functions(facts), indices_function(facts), factor_function(facts), to_device_function(facts)]
    functions.append(evaluate_function(facts))
    main = [*made_lines(facts), *batches_lines(facts), "", *limits_lines(facts), "", *loop_lines(facts)]
    if facts.has_workers:  # where processes are spawned, each imports the file
        main = ['if __name__ == "__main__":', *(f"    {line}".rstrip() for line in main)]
    apart = [["", "", *lines] for lines in functions if lines]
    between = ["", ""] if apart else [""]
    head = [*import_lines(facts), "", *constants_lines(facts)]
    return "\n".join([*head, *(line for lines in apart for line in lines), *between, *main])
