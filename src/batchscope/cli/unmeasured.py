"""Commands that measure nothing: the arithmetic of epochs, a first task file, and what results folders hold."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ..errors import UsageError
from .options import Amount, Flag, Whole
from .output import answer
from .pages import write_page

__all__ = ["count", "init", "report", "runs"]


def count(
    *,
    examples: Whole | None = None,
    batch_size: Whole | None = None,
    epochs: Amount | None = None,
    steps: Whole | None = None,
    last_batch: Literal["keep", "drop", "stream"] = "stream",
    json: Flag = False,
) -> int:
    """Convert between epochs and steps (iterations), for a batch size and a number of examples.

    Args:
        examples: Number of training examples.
        batch_size: Examples in a step.
        epochs: Number of epochs; or give --steps.
        steps: Number of optimizer steps; or give --epochs.
        last_batch: A partial last batch of an epoch is kept, dropped, or filled up from the next epoch (stream, as find
            does).
        json: Print one JSON object.
    """
    from ..store.codec import encode
    from ..training.count import count as arithmetic
    from ..training.glossary import check_glossary
    from .views import count_view

    if examples is None or batch_size is None:
        lacking = " and ".join(
            name for name, n in (("--examples", examples), ("--batch-size", batch_size)) if n is None
        )
        raise UsageError(
            f"{lacking} {'are' if 'and' in lacking else 'is'} not given; write for example "
            "batchscope count --examples 60000 --batch-size 256 --epochs 30, or --steps instead of --epochs"
        )
    result = arithmetic(examples=examples, batch_size=batch_size, epochs=epochs, steps=steps, last_batch=last_batch)
    glossary = check_glossary(result)
    answer(json, {**encode(result), "glossary": encode(glossary)}, count_view(result, glossary))
    return 0


def init(file: Path, /) -> int:
    """Write a commented task file that runs as it is.

    Args:
        file: Name of the new file.
    """
    from ..tasks.template import FACTORY, write_task_file

    path = write_task_file(file)
    answer(False, None, [f"Wrote {path}. Try it: batchscope find {path}:{FACTORY}"])
    return 0


def report(folder: Path, /) -> int:
    """Rebuild the page of a results folder.

    Args:
        folder: The --out of a search, of a study or of claims.
    """
    answer(False, None, [f"Wrote {write_page(folder)}."])
    return 0


def runs(folder: Path, /, *, json: Flag = False) -> int:
    """List the runs of a results folder.

    Args:
        folder: The --out of a search.
        json: Print one JSON object.
    """
    from ..store.files import read_record
    from ..store.records import Plan
    from ..store.runs import read_runs
    from .views import runs_view

    found = read_runs(folder)
    plan = folder / "plan.json"
    target = read_record(plan, Plan).target if plan.exists() else None
    if json:
        answer(json, {"runs": [{"id": r.id, "config": r.config, "result": r.result} for r in found]}, ())
    else:
        answer(json, None, runs_view(found, target))
    return 0
