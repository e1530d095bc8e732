"""A recipe as arguments of the library whose trainer a task was made of."""

from __future__ import annotations

from ...store.records import LibraryArguments, Plan, Recipe
from ...wording import quoted
from ..summary import changes_in_words, schedule_in_words
from .loop import last_step

__all__ = ["library_call"]


def library_call(plan: Plan, recipe: Recipe, library: LibraryArguments) -> str:
    """Call that tells the library's trainer the recipe; what it has no argument for stands above it as a comment."""
    names, steps, above = library.names, last_step(plan, recipe), list[str]()
    told = {"micro_batch_size": str(recipe.micro_batch_size), "grad_accum_steps": str(recipe.grad_accum_steps)}
    told["lr"] = "..." if recipe.lr is None else f"{recipe.lr:.8g}"
    told["steps"] = str(steps)
    shares = {}
    if recipe.schedule == "task":
        shares = {argument: str(round(share * steps)) for argument, share in library.shares.items()}
    elif recipe.schedule in library.schedules and not recipe.final_lr:
        told["schedule"] = quoted(library.schedules[recipe.schedule])
        told["warmup_steps"] = str(recipe.warmup_steps)
    else:
        above.append(f"# learning rate: {schedule_in_words(recipe)}")
    above += [f"# {form.format(told[member])}" for member, form in library.elsewhere.items() if member in told]
    if recipe.optimizer_changes:
        above.append(f"# in the optimizer: {changes_in_words(recipe)}")
    if recipe.world_size > 1:
        above.append(f"# on {recipe.world_size} devices, one process each")
    arguments = {names[member]: value for member, value in told.items() if member in names} | shares
    lines = (f"    {name}={value}," for name, value in arguments.items())
    return "\n".join([*above, f"{library.call}(", "    ...,  # every other argument as it is", *lines, ")"])
