"""The figures that the README quotes are those of the committed results."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, float | None]]:
    return json.loads((ROOT / "benchmarks" / "search" / "results" / "ours.json").read_text())["summary"]


def test_every_row_of_the_regret_table_is_measured(measured: dict[str, dict[str, float | None]]) -> None:
    readme = (ROOT / "README.md").read_text().splitlines()
    for name, figures in measured.items():
        (row,) = [line for line in readme if line.startswith(f"| {name} |")]
        quoted = [float(cell) for cell in row.strip("| ").split("|")[1:]]
        keys = ("searches", "regret_median", "regret_p95", "cost_median", "covered_90")
        values = [math.inf if figures[key] is None else figures[key] for key in keys]
        assert quoted == pytest.approx(values, abs=0.006)


def test_the_searches_are_near_the_best_for_a_few_trainings(
    measured: dict[str, dict[str, float | None]],
) -> None:
    everything = measured["**all**"]
    assert everything["regret_median"] is not None
    assert everything["regret_median"] <= 1.15
    assert everything["cost_median"] is not None
    assert everything["cost_median"] <= 4
    assert everything["covered_90"] is not None
    assert everything["covered_90"] >= 0.85


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / "results" / "zeus.json").read_text())["figures"]


def test_every_row_of_the_table_of_recorded_trainings_is_measured(recorded: dict[str, Any]) -> None:
    document = (ROOT / "docs" / "how-it-works.md").read_text().splitlines()
    for name, three in recorded["triples"].items():
        (row,) = [line for line in document if line.startswith(f"| {name} |")]
        two = recorded["pairs"][name]
        measured = [three["median"], three["p95"], three["worst"], two["median"], two["p95"]]
        quoted = [math.inf if cell == " never " else float(cell) for cell in row.strip("|").split("|")[1:]]
        assert quoted == pytest.approx([math.inf if m is None else m for m in measured], abs=0.006)


def test_fit_is_near_the_best_recorded_batch_size_or_refuses(recorded: dict[str, Any]) -> None:
    three, two = recorded["triples"]["fit"], recorded["pairs"]["fit"]
    assert (three["tables"], two["tables"]) == (665, 250)
    assert three["median"] <= 1.05
    assert three["p95"] <= 1.4
    assert three["nearest"]["p95"] <= 1.4
    assert three["refused"] <= 0.25
    assert three["refused_rightly"] >= 0.5
    assert two["refused"] <= 0.25
    assert three["p95"] < recorded["triples"]["the best of those measured"]["p95"]
    left_out = recorded["leave_one_out"]["left_out"]
    document = " ".join((ROOT / "docs" / "how-it-works.md").read_text().split())
    for said in (
        f"refused {three['refused']:.0%} of the tables",
        f"right in {three['refused_rightly']:.0%} of them",
        f"and {two['refused']:.0%} of those of two, right in {two['refused_rightly']:.0%}",
        f"at {three['without_refusing']['p95']:.2f} in the 95th percentile",
        f"median and 95th percentile are {left_out['median']:.2f} and {left_out['p95']:.2f}",
    ):
        assert said.replace("%", " %") in document


@pytest.fixture(scope="module")
def two_seeds() -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / "results" / "claims.json").read_text())


def test_what_is_said_of_the_verdicts_of_two_seeds_is_measured(two_seeds: dict[str, Any]) -> None:
    document = " ".join((ROOT / "docs" / "laboratory.md").read_text().split())
    first, second = two_seeds["figures"]
    minutes = [command["wall_s"] / 60 for command in two_seeds["commands"]]
    for said in (
        f"{first['decided']} and {second['decided']} of {first['testable']} testable statements were decided",
        f"in {minutes[0]:.1f} and {minutes[1]:.1f} minutes",
        f"the same for {100 * two_seeds['same_verdict']:.1f} % of them",
    ):
        assert said in document
    assert not two_seeds["decided_otherwise"]
    assert min(first["share_decided"], second["share_decided"]) >= 0.75
    assert two_seeds["same_verdict"] >= 0.9
    assert max(minutes) < 10


PAGES = sorted((ROOT / "benchmarks" / "results" / "pages").glob("*.json"))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_page_has_its_rows_and_is_linked(path: Path) -> None:
    data = json.loads(path.read_text())
    assert data["command"].startswith("batchscope ")
    assert data["environment"]["torch"]
    assert data.get("rows") or data.get("claims")
    assert (ROOT / "docs" / "pages" / f"{path.stem}.html").is_file()
    assert f"(pages/{path.stem}.html)" in (ROOT / "docs" / "laboratory.md").read_text()
