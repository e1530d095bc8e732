"""The advice to begin small and grow, followed: each trial with what it led to."""

from __future__ import annotations

from dataclasses import replace

from .....report.blocks import Block, Column, Section, Table, Text
from .....wording import count, duration, joined, metric_in_words, number, sentence
from ....studies.trial_and_error.figures import trial_path
from ....studies.trial_and_error.sequence import Choice, Followed
from ...records import Claims
from ...results import Setting, TaskResults
from ...tuning import followed
from ..drawing import named, over_seeds
from ..themes import THEMES
from ..wording import no_runs, theme_section

_TEXTBOOKS = (
    "Begin with few epochs and a small batch, and raise both step by step until time and quality balance: trial and "
    "error, say the texts, finds good values. Here the advice is one fixed rule, at one learning rate and followed "
    "with each seed: the epochs are doubled as long as that betters the result, then the batch is enlarged as long as "
    "it is as good in less time."
)


def build(claims: Claims, e: TaskResults) -> Section:
    """One seed's sequence as a table and as a path, and what all seeds chose."""
    seed = e.plan.seeds[0]
    sequence = followed(e, seed)
    if not sequence.trials:
        return theme_section(claims, THEMES[9], _TEXTBOOKS, [], [no_runs("trials")])
    grid = [row for arm in e.arms("") for row in e.rows(arm) if row.seed == seed]
    path = replace(trial_path(e.study, {"trial and error": sequence}, grid, seed), name="trial-path")
    drawn: list[Block] = [Text((f"The sequence of seed {seed}:",), tone="note"), _table(e, sequence), path]
    return theme_section(claims, THEMES[9], _TEXTBOOKS, [_chosen(e)], drawn)


def _table(e: TaskResults, sequence: Followed) -> Table:
    columns = (
        Column("what followed"),
        Column("batch size", numeric=True),
        Column("epochs", numeric=True),
        Column(f"best {metric_in_words(e.study.metric)}", numeric=True),
        Column("training", numeric=True),
    )
    rows = tuple(
        (
            sentence(decision.reason),
            count(trial.batch_size),
            number(trial.epochs),
            "diverged" if trial.value is None else number(trial.value),
            duration(trial.seconds),
        )
        for trial, decision in zip(sequence.trials, sequence.decisions, strict=True)
    )
    chosen = sequence.choice.trial if isinstance(sequence.choice, Choice) else None
    bold = next((i for i, trial in enumerate(sequence.trials) if trial is chosen), None)
    return Table(columns, rows, bold)


def _chosen(e: TaskResults) -> str:
    """What the seeds chose, against the best of the grid."""
    found: dict[tuple[int, float], list[int]] = {}
    for seed in e.plan.seeds:
        choice = followed(e, seed).choice
        if choice is not None and choice.trial is not None:
            found.setdefault((choice.trial.batch_size, choice.trial.epochs), []).append(seed)
    best = _best(e)
    if not found or best is None:
        return ""
    detail = joined(
        [
            f"batch size {count(b)} for {number(epochs)} epochs ({len(seeds)} of {len(e.plan.seeds)} seeds)"
            for (b, epochs), seeds in found.items()
        ]
    )
    value = over_seeds(e, best, f"best_{e.study.metric}")
    return (
        f"The trials choose {detail}; the best of the whole grid is {named(best)}, with a "
        f"{metric_in_words(e.study.metric)} of {number(value.value)}."
    )


def _best(e: TaskResults) -> Setting | None:
    arms = [arm for b in e.plan.batch_sizes if (arm := e.at_best(b)) is not None]

    def value(arm: Setting) -> float:
        return e.metric.sign * (over_seeds(e, arm, f"best_{e.study.metric}").value or 0.0)

    return max(arms, key=value, default=None)
