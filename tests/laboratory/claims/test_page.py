"""The page of the verdicts: every statement once, contradictions complete, figures that show what was measured."""

from __future__ import annotations

import dataclasses
import html.parser
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import plotly.graph_objects as go
import pytest

from batchscope.laboratory.claims.decide import DECISIONS, decide
from batchscope.laboratory.claims.outcome import above
from batchscope.laboratory.claims.page.disputes import contradictions
from batchscope.laboratory.claims.page.page import CLAIMS_SECTIONS, claims_contents
from batchscope.laboratory.claims.page.sections import (
    abstract,
    definitions,
    normalisation,
)
from batchscope.laboratory.claims.page.sections import contradictions as disputes
from batchscope.laboratory.claims.page.themes import THEMES, UNTESTABLE, claims_of, theme_of
from batchscope.laboratory.claims.page.wording import judged
from batchscope.laboratory.claims.plan import NORM
from batchscope.laboratory.claims.records import Claim, Claims, Verdict, in_words
from batchscope.laboratory.claims.results import TaskResults
from batchscope.laboratory.claims.statements import Kind, statements
from batchscope.laboratory.summary import row_of, summarise
from batchscope.report.blocks import Block, Dispute, Judged, Verdicts
from batchscope.report.page import draw
from batchscope.store.codec import decode
from batchscope.store.records import Estimate
from batchscope.store.runs import StoredRun

from .page_results import EXAMPLES, METRIC, PLAN, figures_of, found, measured, nothing

ROOT = Path(__file__).parents[3]
HOSTILE = "</script><img src=x onerror=alert(1)><!--%{x}'\"&amp;{{7*7}}"


# --- blocks --------------------------------------------------------------------------------------------------------


def items_of(blocks: Sequence[Block]) -> list[Judged]:
    return [item for block in blocks if isinstance(block, Verdicts) for item in block.items]


class Reader(html.parser.HTMLParser):
    """Elements and texts as a browser sees them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.misnested: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "br", "path", "rect", "circle", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.misnested.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    @property
    def visible(self) -> str:
        return " ".join(" ".join(t for tag, t in self.texts if tag not in ("script", "style")).split())


def page_of(claims: Claims, evidence: TaskResults) -> str:
    return draw(claims_contents(claims, tuple(evidence.runs.values()), evidence.plan))


# --- statements ----------------------------------------------------------------------------------------------------


def test_every_statement_belongs_to_exactly_one_theme() -> None:
    claims, _ = found()
    by_theme = [[claim.id for claim in claims_of(claims, theme)] for theme in (*THEMES, UNTESTABLE)]
    assert sorted(i for own in by_theme for i in own) == sorted(statements())
    assert all(by_theme)
    assert {need for theme in THEMES for need in theme.needs} == {n for s in statements().values() for n in s.needs}
    assert all(theme_of(s) is UNTESTABLE for s in statements().values() if not s.needs)


@pytest.mark.parametrize("made", [found, nothing])
def test_every_statement_stands_once_in_a_section_with_its_verdict(made: Any) -> None:
    claims, evidence = made()
    shown: Counter[str] = Counter()
    verdicts: dict[str, str] = {}
    for build in CLAIMS_SECTIONS:
        section = build(claims, evidence)
        for item in items_of(section.blocks):
            shown.update(one.id for one in item.statements)
            verdicts |= {one.id: item.verdict for one in item.statements}
    assert set(shown) == set(statements())
    assert set(shown.values()) == {1}
    assert verdicts == {claim.id: claim.verdict.value for claim in claims.claims}


def test_contradictions_are_complete_and_each_pair_has_two_sides() -> None:
    claims, evidence = found()
    against = {frozenset((s.id, other)) for s in statements().values() for other in s.contradicted_by}
    apart: set[frozenset[str]] = set()
    for one in contradictions(claims):
        first, second = ({claim.id for claim in side} for side in one.sides)
        assert not first & second
        apart |= {frozenset((a, b)) for a in first for b in second}
    assert against <= apart
    drawn = [block for block in disputes.build(claims, evidence).blocks if isinstance(block, Dispute)]
    ids = Counter(one.id for block in drawn for side in block.sides for item in side for one in item.statements)
    assert set(ids) == {i for both in against for i in both}
    assert set(ids.values()) == {1}
    assert len({block.name for block in drawn}) == len(drawn) == 5


def test_a_contradiction_ends_as_its_verdicts_say() -> None:
    claims, _ = found()
    (one,) = (c for c in contradictions(claims) if {x.id for s in c.sides for x in s} == {"S0.19b", "S1.14"})

    def ends(first: Verdict, second: Verdict, on: str | None = None) -> str:
        pairs = zip(one.sides, (first, second), strict=True)
        sides = tuple(tuple(dataclasses.replace(c, verdict=v, on=on) for c in side) for side, v in pairs)
        return dataclasses.replace(one, sides=sides).conclusion

    assert ends(Verdict.HELD, Verdict.NOT_HELD).startswith("This task sides with S0.19b")
    assert ends(Verdict.NOT_HELD, Verdict.HELD).startswith("This task sides with S1.14")
    assert ends(Verdict.HELD, Verdict.HELD).startswith("Both sides hold")
    assert ends(Verdict.NOT_HELD, Verdict.NOT_HELD).startswith("Neither side")
    assert "not enough" in ends(Verdict.UNDECIDED, Verdict.UNDECIDED)
    assert "depends on the learning rate" in ends(Verdict.DEPENDS, Verdict.DEPENDS, "the learning rate")
    assert ends(Verdict.HELD, Verdict.UNDECIDED).endswith("S0.19b holds and S1.14 is undecided.")


def test_statements_that_one_measurement_decides_stand_together() -> None:
    claims, _ = found()
    items = judged(claim for claim in claims.claims if claim.id in ("S0.5a", "S2.7b", "S3.7d"))
    assert sorted(sorted(one.id for one in item.statements) for item in items) == [["S0.5a", "S2.7b"], ["S3.7d"]]


def test_every_comparison_is_a_sentence_of_its_own() -> None:
    claims, _ = found()
    for claim in claims.claims:
        (item,) = judged([claim])
        assert [reason.lower() for reason in item.reasons] == [f"{c.sentence}.".lower() for c in claim.comparisons]
        assert claim.reason == in_words(claim.comparisons)


def test_words_of_the_user_do_not_cut_a_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of layers and metrics, and messages of a task, stand in reasons; they may hold anything."""
    effect = Estimate(value=2.0, low=1.5, high=2.5, n=3, unit="", method="")
    named = above(effect, 1.0, 0.05, "the norm of layer 'a; above b; c'")
    monkeypatch.setitem(cast(dict[str, Any], DECISIONS), "S0.5a", lambda e: named)
    _, evidence = found()
    claims = decide(evidence.study, list(evidence.runs.values()), evidence.plan)
    (item,) = judged(c for c in claims.claims if c.id == "S0.5a")
    detail = "is 2 (1.5–2.5); it holds where the interval lies above 1, and not where it lies below 1.05."
    assert item.reasons == (f"The norm of layer 'a; above b; c' {detail}",)


def test_definitions_are_counted_by_what_they_found_not_by_their_words() -> None:
    claims, evidence = found()
    own = [c for c in claims.claims if c.agrees]
    changed = tuple(
        dataclasses.replace(c, agrees=False) if c.id == own[0].id else dataclasses.replace(c, reason="a definition")
        for c in claims.claims
    )
    block = definitions.build(dataclasses.replace(claims, claims=changed), evidence).blocks[-1]
    assert isinstance(block, Verdicts)
    assert block.title.endswith("of them checked in real runs, 1 not as the text has it")


def test_a_record_of_an_earlier_version_is_read() -> None:
    entry = json.loads((ROOT / "benchmarks" / "results" / "pages" / "claims.json").read_text())["claims"][0]
    found = decode(Claim, {name: entry[name] for name in entry if name not in ("comparisons", "agrees")})
    assert (found.comparisons, found.agrees, found.reason) == ((), None, entry["reason"])


def test_a_record_without_comparisons_shows_its_reason_as_one_sentence() -> None:
    claims, evidence = found()
    old = tuple(dataclasses.replace(c, comparisons=(), agrees=None) for c in claims.claims)
    for claim in old:
        (item,) = judged([claim])
        assert len(item.reasons) == 1
    block = definitions.build(dataclasses.replace(claims, claims=old), evidence).blocks[-1]
    assert isinstance(block, Verdicts)
    assert block.title == "10 definitions"


def test_definitions_are_folded_at_the_end() -> None:
    claims, evidence = found()
    last = definitions.build(claims, evidence).blocks[-1]
    assert isinstance(last, Verdicts)
    assert last.title == "10 definitions, checked in real runs"
    assert all(statements()[one.id].kind is Kind.DEFINITION for item in last.items for one in item.statements)


def test_the_summary_counts_the_verdicts() -> None:
    claims, evidence = found()
    section = abstract.build(claims, evidence)
    counts = Counter(claim.verdict.value for claim in claims.claims)
    parts = next(dict(block.parts) for block in section.blocks if block.kind == "shares")
    assert parts == counts
    headlines = next(block.items for block in section.blocks if block.kind == "tagged")
    assert 4 <= len(headlines) <= 6
    assert len({topic for _, topic, _ in headlines}) == len(headlines)


def test_a_headline_follows_its_numbers() -> None:
    claims, evidence = found()
    phrase = {
        topic: text
        for text, topic, _ in next(b.items for b in abstract.build(claims, evidence).blocks if b.kind == "tagged")
    }
    assert "takes 4 times (4–4) as long" in phrase["speed"] or "takes 4 times as long" in phrase["speed"]
    assert "falls by a factor of 200" in phrase["gradients"]


# --- figures -------------------------------------------------------------------------------------------------------


# --- the page ------------------------------------------------------------------------------------------------------


def test_the_page_is_well_formed_and_plotly_accepts_its_figures() -> None:
    claims, evidence = found()
    reader = Reader(page_of(claims, evidence))
    assert not reader.misnested
    assert not reader.open
    names = [a["id"] for _, a in reader.tags if "id" in a]
    assert len(names) == len(set(names))
    sections = [build(claims, evidence) for build in CLAIMS_SECTIONS]
    assert [a["id"] for tag, a in reader.tags if tag == "section"] == [s.name for s in sections]
    figures = [figure for section in sections for figure in figures_of(section).values()]
    assert len(figures) == 23
    for figure in figures:
        go.Figure(data=list(figure.data), layout=figure.layout)
        assert re.search(r"\d", figure.caption), f"{figure.name}: a caption is computed from the numbers"
        for switch in figure.switches:
            assert all(len(option.data) <= len(figure.data) for option in switch.options)
            for option in switch.options:
                go.Layout(option.layout)
    for word in ("None", "nan", "unknown"):
        assert word not in re.findall(r"\w+", reader.visible.replace("None of the", "").replace("author not known", ""))


def test_a_page_without_a_run_says_what_is_missing() -> None:
    claims, evidence = nothing()
    assert not claims.decided
    reader = Reader(page_of(claims, evidence))
    assert not reader.misnested
    assert not [tag for tag, _ in reader.tags if tag == "figure"]
    text = reader.visible
    assert "no run was made" in text
    assert text.count("before the budget was used up") > len(THEMES)
    assert "None of the" in text
    assert "nan" not in text.split()


@pytest.mark.parametrize("name", sorted(measured()))
def test_a_measurement_that_is_missing_or_not_applicable_becomes_a_sentence(name: str) -> None:
    _, evidence = found()
    runs = tuple(evidence.runs.values())
    for value in (None, {"not_applicable": "it has no weights"}):
        notes = {k: v for k, v in measured().items() if k != name}
        if value is not None:
            if name.partition("-")[0] in ("sharpness", "robustness", "counters", "timing", "capacity"):
                continue
            notes[name] = value
        study = dataclasses.replace(evidence.study, measurements=notes)
        reader = Reader(page_of(decide(study, runs, PLAN), dataclasses.replace(evidence, study=study)))
        assert not reader.misnested
        if value is not None and name in ("gradients", "competition", "sums"):
            assert "it has no weights." in reader.visible


def test_a_task_without_hidden_layers_says_so() -> None:
    claims, evidence = found()
    study = dataclasses.replace(
        evidence.study, measurements={**measured(), NORM: {"not_applicable": "no hidden layer"}}
    )
    section = normalisation.build(claims, dataclasses.replace(evidence, study=study))
    assert not figures_of(section)
    assert "No figure of batch normalisation: no hidden layer." in str(section.blocks)


def test_a_hostile_task_name_stays_text() -> None:
    claims, evidence = found(HOSTILE)
    page = page_of(claims, evidence)
    reader = Reader(page)
    assert not [tag for tag, _ in reader.tags if tag == "img"]
    assert HOSTILE[:20] in reader.visible
    assert "{{7*7}}" in reader.visible
    assert "<!--" not in page


def test_hostile_metrics_stay_text_in_charts() -> None:
    _, evidence = found()

    def renamed(run: StoredRun) -> StoredRun:
        rows = tuple(
            {**row, "metrics": {HOSTILE: 1.0 / (1 + row["step"])}} if row["kind"] == "evaluation" else row
            for row in run.rows
        )
        return dataclasses.replace(run, rows=tuple(row for row in rows if row["kind"] != "train_part"))

    runs = tuple(renamed(run) for run in evidence.runs.values())
    metric = dataclasses.replace(METRIC, metric=HOSTILE)
    rows = tuple(row_of(run, metric, EXAMPLES) for run in runs)
    notes = {name: value for name, value in measured().items() if not name.startswith("robustness")}
    changes: dict[str, Any] = {"rows": rows, "summary": summarise(rows, metric), "metric": HOSTILE}
    study = dataclasses.replace(evidence.study, **changes, measurements=notes)
    claims = decide(study, runs, PLAN)
    attacked = TaskResults(study=study, runs={run.id: run for run in runs}, plan=PLAN)
    reader = Reader(page_of(claims, attacked))
    assert not [tag for tag, _ in reader.tags if tag == "img"]
    assert not reader.misnested
    for build in CLAIMS_SECTIONS:
        for figure in figures_of(build(claims, attacked)).values():
            texts = list(strings_in(figure.drawing()))
            assert not [s for s in texts if re.search(r"<(?!br>|extra>|/extra>)", s)], "Plotly reads tags in text"


def strings_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings_in(part)


def test_an_effect_with_an_open_end_is_told() -> None:
    claims, _ = found()
    open_ = Estimate(value=None, low=28.7, high=None, n=20, unit="times", method="")
    (item,) = judged([dataclasses.replace(claims.claims[0], effect=open_)])
    assert item.effect == "at least 28.7"
