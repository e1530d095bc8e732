"""The named studies, one file or folder each: the folder is the registry, `batchscope study NAME` runs `NAME`.

The seam
--------
A file or folder defines `STUDY = NamedStudy(...)` (from `batchscope.laboratory.records`) and may be imported without
torch: what needs torch (probes, a changed task) is imported inside the function that uses it, so that
`batchscope report DIR` rebuilds the page anywhere. Studies never import each other.

`measure_all(laboratory)` is the study. The `Laboratory` (`batchscope.laboratory.engine`) is all it is given:

```
laboratory.question                        batch sizes, learning rates, seeds, length: published, or the user's
laboratory.examples, .workload, .loaded    the task
laboratory.run_all(arms=None, ...)         every arm for every seed; without arms: `arms(question, examples)`
laboratory.run(arm, seed, ...)             one run, made or read where it is finished; None: no time is left
    workload=laboratory.changed("adam", optimizer=...)   a task with members exchanged, named by the arm's `variant`
    observers=, probes=                    of probes/: their rows are stored with the run, and read from `run.rows`
    keep=(2, 30, "best", "last")           epochs after which the weights are kept
laboratory.weights(run, 2)                 the state_dict kept there
laboratory.model(weights)                  a model with these weights
laboratory.read_note(name)                 a measurement of the study's own, in JSON types: found again on resumption
laboratory.note(name, data)                keeps one
laboratory.late                            whether the budget is used up: begin nothing more
```

Everything is resumable: a repeated command makes the same calls, and gets finished runs and notes instead of new ones.
So results are taken from `run.rows`, `run.result`, kept weights and notes, never from an observer or a model of this
process. Two runs that differ in anything but batch size, learning rate, seed, length, schedule or optimizer changes
need arms of different `variant`.

Rows, summary, the common part of the page (curves, heat map, gaps, times) and JSON follow from the stored runs by
themselves. `conclude(study, runs)` adds the study's own findings, sentences with numbers, and `sections(study, runs)`
its own figures; both work on `study.rows`, `study.summary`, `study.measurements[name]` and `run.rows`, the latter with
the blocks and charts of `batchscope.report`. What was published stands beside them: `batchscope.laboratory.published`.

What does not apply to a task (no layer of that kind, a loss that is not repeatable) is noted with its reason, said on
the page, and the study goes on.
"""

from __future__ import annotations

import importlib
import pkgutil

from ..records import NamedStudy

__all__ = ["named_study", "names"]


def names() -> tuple[str, ...]:
    """Names of all named studies."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def named_study(name: str) -> NamedStudy:
    """The study of that name, one of `names()`."""
    return importlib.import_module(f".{name}", __name__).STUDY
