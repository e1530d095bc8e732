"""The whole page: escaping, size, order, and a sentence for everything that is missing."""

from __future__ import annotations

import dataclasses
import html.parser
import json
import random
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
import pytest

from batchscope.report import build
from batchscope.report.page import SECTIONS
from batchscope.store.records import Plan, PlanStatus, RunStatus, Target
from batchscope.store.runs import StoredRun

from . import plans

HOSTILE = "</script><img src=x onerror=alert(1)><!--%{x}'\"&amp;{{7*7}}"
VOID = {"meta", "img", "br", "path", "rect", "circle"}


class Reader(html.parser.HTMLParser):
    """Elements, their attributes and their text, as a browser sees them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.misnested: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.misnested.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    @property
    def visible(self) -> str:
        return " ".join(" ".join(t for tag, t in self.texts if tag not in ("script", "style")).split())

    def drawings(self) -> list[dict[str, Any]]:
        return [json.loads(t) for tag, t in self.texts if tag == "script" and t.startswith('{"data"')]


def hostile(plan: Plan, runs: Sequence[StoredRun]) -> tuple[Plan, tuple[StoredRun, ...]]:
    """The same search by someone whose every name is an attack."""
    target = Target(metric=HOSTILE, value=0.12, mode="min")

    def renamed(row: Any) -> Any:
        return {**row, "metrics": {HOSTILE: row["metrics"]["val_loss"]}} if row["kind"] == "evaluation" else row

    attacked = tuple(
        dataclasses.replace(
            run,
            id=HOSTILE + str(i),
            rows=tuple(renamed(row) for row in run.rows),
            config=dataclasses.replace(run.config, purpose=HOSTILE, target=target if run.config.target else None),
            result=run.result and dataclasses.replace(run.result, best={HOSTILE: run.result.best["val_loss"]}),
        )
        for i, run in enumerate(runs)
    )
    recipe = plan.recipe and dataclasses.replace(plan.recipe, optimizer_changes={HOSTILE: HOSTILE}, schedule=HOSTILE)
    bench = plan.bench and dataclasses.replace(
        plan.bench, notes=(HOSTILE,), profile=dataclasses.replace(plan.bench.profile, name=HOSTILE)
    )
    words = {name: HOSTILE for name in ("task", "message")}
    return dataclasses.replace(
        plan,
        **words,
        target=target,
        recipe=recipe,
        bench=bench,
        notes=(HOSTILE,),
        evidence=tuple(dataclasses.replace(e, statement=HOSTILE, source=HOSTILE) for e in plan.evidence),
        alternatives=tuple(dataclasses.replace(a, why=HOSTILE) for a in plan.alternatives),
        environment=dataclasses.replace(plan.environment, device_name=HOSTILE, platform=HOSTILE),
    ), attacked


@pytest.fixture(scope="module")
def page() -> str:
    return build(plans.ok(), plans.runs())


def test_sections_come_in_order(page: str) -> None:
    names = [attributes["id"] for tag, attributes in Reader(page).elements if tag == "section"]
    built = [section(plans.ok(), ()) for section in SECTIONS]
    assert names == [section.name for section in built if section.blocks]
    assert names[:3] == ["recipe", "alternatives", "time"]


def test_the_markup_is_well_formed(page: str) -> None:
    reader = Reader(page)
    assert not reader.misnested
    assert not reader.open
    names = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(names) == len(set(names))


def test_nothing_is_loaded_from_anywhere(page: str) -> None:
    elements = Reader(page).elements
    assert not [a for _, a in elements if a.get("src") or (a.get("href") or "#")[0] != "#"]
    policies = [
        a["content"] for tag, a in elements if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert "default-src 'none'" in (policies[0] or "")
    assert "unsafe-inline" not in (policies[0] or "").partition("script-src")[2]


def test_every_figure_has_a_caption_and_a_drawing_that_plotly_accepts(page: str) -> None:
    reader = Reader(page)
    figures = [a["id"] for tag, a in reader.elements if tag == "figure"]
    assert figures == [
        "time-to-target",
        "steps-to-target",
        "examples-to-target",
        "learning-rate",
        "step-time",
        "throughput",
        "memory",
        "loss-curves",
        "noise-scale",
    ]
    captions = [t for tag, t in reader.texts if tag == "figcaption"]
    assert len(captions) == len(figures)
    assert all(re.search(r"\d", caption) for caption in captions), "a caption is computed from the numbers"
    drawings = reader.drawings()
    assert len(drawings) == len(figures)
    for drawing in drawings:
        go.Figure(data=drawing["data"], layout=drawing["layout"])  # raises where a property is unknown or wrong
        for switch in drawing["switches"]:
            assert all(len(option["data"]) == len(drawing["data"]) for option in switch["options"])
            for option in switch["options"]:
                go.Layout(option["layout"])


@pytest.mark.parametrize("which", ["ok", "keep_current", "not_reached"])
def test_hostile_names_are_text(which: str) -> None:
    plan, runs = hostile(getattr(plans, which)(), plans.runs())
    attacked = build(plan, runs)
    reader = Reader(attacked)
    assert not [tag for tag, _ in reader.elements if tag == "img"]
    assert sum(tag == "script" for tag, _ in reader.elements) == len(reader.drawings()) + 2
    assert not reader.misnested
    assert "<!--" not in re.sub(r"<script>.*?</script>", "", attacked, flags=re.DOTALL)
    assert HOSTILE[:20] in reader.visible
    assert "{{7*7}}" in reader.visible
    strings = [s for d in reader.drawings() for s in strings_in(d)]
    assert not [s for s in strings if re.search(r"<(?!br>|extra>|/extra>)", s)], "Plotly reads tags in text"


def strings_in(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [s for part in parts for s in strings_in(part)]


def test_an_ordinary_search_has_a_page_under_1_mb(page: str) -> None:
    assert len(page.encode()) < 1e6


def test_200_runs_stay_under_2_mb() -> None:
    runs = many_runs(200, evaluations=400)
    page = build(plans.ok(), runs)
    assert len(page.encode()) < 2e6
    curves = next(d for d in Reader(page).drawings() if d["switches"])
    assert len(curves["data"]) == 200
    assert max(len(x) for option in curves["switches"][0]["options"] for x in option["data"]) <= 100


@pytest.mark.parametrize("status", list(PlanStatus))
@pytest.mark.parametrize("runs", [(), plans.runs()], ids=["no runs", "runs"])
def test_whatever_is_missing_becomes_a_sentence(status: PlanStatus, runs: Sequence[StoredRun]) -> None:
    nothing = dataclasses.replace(plans.bare(), status=status)
    bare = {f.name: getattr(nothing, f.name) for f in dataclasses.fields(Plan) if f.name not in ("status", "schema")}
    whole = dataclasses.replace(plans.ok(), status=status)
    for plan in (nothing, *(dataclasses.replace(whole, **{name: value}) for name, value in bare.items())):
        reader = Reader(build(plan, runs))
        assert not reader.misnested
        assert "None" not in reader.visible
        assert "nan" not in reader.visible.split()
        for drawing in reader.drawings():
            assert drawing["data"]
            lengths = [len(trace["x"]) for trace in drawing["data"]]
            assert all(lengths) or drawing["switches"]


def test_runs_that_are_unfinished_or_empty_are_shown_as_far_as_they_go() -> None:
    first, second, *rest = plans.runs()
    begun = dataclasses.replace(second, result=None, rows=second.rows[:5])
    empty = dataclasses.replace(first, result=None, rows=())
    visible = Reader(build(plans.ok(), (empty, begun, *rest))).visible
    assert "unfinished" in visible


def test_rows_with_numbers_that_json_lacks() -> None:
    run = plans.run(64)
    broken = tuple(
        {**row, "train_loss": float("nan"), "metrics": {"val_loss": float("inf") if i % 2 else None}}
        for i, row in enumerate(run.rows)
    )
    page = build(plans.ok(), (dataclasses.replace(run, rows=broken),))
    assert Reader(page).drawings()


def test_the_page_needs_no_torch() -> None:
    """torch is made to look as if it were not installed, and the page is built all the same."""
    script = """
import sys
from importlib.abc import MetaPathFinder

class NotInstalled(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
from tests.report import plans
from batchscope.report import build
assert build(plans.ok(), plans.runs())
"""
    root = __file__.partition("/tests/")[0]
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120, cwd=root)


def test_wording_imports_neither_plotly_nor_jinja() -> None:
    script = "import sys, batchscope.report.summary; assert not {'plotly', 'jinja2'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_the_same_plan_gives_the_same_page(page: str) -> None:
    assert build(plans.ok(), plans.runs()) == page


def many_runs(n: int = 200, evaluations: int = 110) -> tuple[StoredRun, ...]:
    endings = (
        [RunStatus.REACHED] * 5
        + [RunStatus.BEHIND] * 2
        + [RunStatus.DIVERGED, RunStatus.STALLED, RunStatus.OUT_OF_STEPS]
    )
    chance = random.Random(0)
    return tuple(
        plans.run(
            2 ** chance.randrange(3, 11),
            2 ** chance.uniform(-2, 2),
            seed=i,
            status=chance.choice(endings),
            noise=i < 3,
            evaluations=evaluations,
        )
        for i in range(n)
    )
