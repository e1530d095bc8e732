"""How often a recipe was within 5 % of the best where a search told how probable that is: the reliability table.

    python benchmarks/search/ours.py --seeds 3 --part mine     # searches, with what each told
    python benchmarks/search/reliability.py mine

"Within 5 %" is by the yardstick: the recipe's time on nine fresh seeds ÷ that of the table's best cell is at most 1.05.
Searches that told nothing are counted apart. Resolution is the share of pairs, one search within 5 % and one not, in
which the first was told the higher probability; 0.5 is none at all.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from results import read

__all__ = ["resolution", "table"]

_BINS = (0.0, 0.3, 0.4, 0.5, 0.6, 1.0)
_WITHIN = 1.05
Row = Mapping[str, Any]


def held(rows: Sequence[Row]) -> np.ndarray:
    """Whether each recipe was within 5 % of the best."""
    return np.array([row["regret"] is not None and row["regret"] <= _WITHIN for row in rows], dtype=bool)


def told(rows: Sequence[Row]) -> np.ndarray:
    """The probability that each search told."""
    return np.array([row["probability_within_5_percent"] for row in rows], dtype=float)


def resolution(rows: Sequence[Row]) -> float:
    """Share of pairs in the right order, ties by half.

    >>> resolution([{"regret": 1.0, "probability_within_5_percent": 0.6}] + [
    ...     {"regret": 1.2, "probability_within_5_percent": p} for p in (0.5, 0.6)])
    0.75
    """
    probability, was = told(rows), held(rows)
    gap = probability[was][:, None] - probability[~was][None, :]
    return float(((gap > 0) + 0.5 * (gap == 0)).mean()) if gap.size else float("nan")


def table(rows: Sequence[Row]) -> str:
    """The table of each half, in Markdown: searches, what they told in the mean, how many were within 5 %."""
    lines = ["| half | told | searches | mean told | within 5 % |", "| --- | --- | --- | --- | --- |"]
    for half in ("design", "held-out"):
        own = [row for row in rows if row["half"] == half]
        known = [row for row in own if row.get("probability_within_5_percent") is not None]
        for low, high in itertools.pairwise(_BINS):
            here = [row for row in known if low <= row["probability_within_5_percent"] < high]
            lines += [_line(half, f"{low:g} to {high:g}", here)] if here else []
        lines.append(_line(half, f"**all** (resolution {resolution(known):.2f})", known))
        if len(own) > len(known):
            lines.append(f"| {half} | nothing | {len(own) - len(known)} | | |")
    return "\n".join(lines)


def _line(half: str, name: str, rows: Sequence[Row]) -> str:
    return f"| {half} | {name} | {len(rows)} | {told(rows).mean():.2f} | {held(rows).mean():.2f} |"


def main() -> None:
    """Print the table of one results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", default="reliability", help="name of the results file")
    print(table(read(parser.parse_args().part)))


if __name__ == "__main__":
    main()
