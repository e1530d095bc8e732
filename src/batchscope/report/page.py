"""Page as HTML from its sections: the order of the page, the template, and the scripts that it may run."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from ..store.records import Plan
from ..wording import showable, target_in_words
from . import chart_script
from .blocks import Section
from .sections import (
    alternatives,
    easier_targets,
    ends,
    environment,
    evidence,
    hardware,
    how_to_apply,
    learning_rate,
    loss_curves,
    noise_scale,
    notes,
    recipe,
    runs_table,
    search_cost,
    steps_and_examples,
    time_to_target,
    what_if,
)

if TYPE_CHECKING:
    from ..store.runs import StoredRun

__all__ = ["SECTIONS", "Contents", "Head", "contents", "draw"]

SECTIONS: tuple[Callable[[Plan, Sequence[StoredRun]], Section], ...] = (
    recipe.build,
    easier_targets.build,
    alternatives.build,
    what_if.build,
    ends.build,
    time_to_target.build,
    steps_and_examples.build,
    learning_rate.build,
    hardware.build,
    loss_curves.build,
    noise_scale.build,
    runs_table.build,
    evidence.build,
    how_to_apply.build,
    search_cost.build,
    environment.build,
    notes.build,
)
"""The page from top to bottom."""
_ONLY_OF_SEARCHES = ("curves", "noise")
"""What measurements made elsewhere have nothing to show for."""
_ONLY_OF_TARGETS = ("time", "steps", "learning-rates")
"""What a search for a given length has nothing to show for: steps and time to a target."""


_ALLOWED = "img-src data: blob:; style-src 'unsafe-inline';"
_UNIT = re.compile(r"(?<=\d) (?=(?:%|µs|ms|s|min|h|days|B|[KMGTP]iB|×)(?!\w))")


@dataclass(frozen=True, kw_only=True)
class Head:
    """Head of a page: what stands above its sections."""

    task: str
    status: str
    """For the title of the window."""
    question: tuple[str, str, str]
    """What was asked; the middle part is set in bold."""
    version: str


@dataclass(frozen=True, kw_only=True)
class Contents:
    """Contents of a page: all that it says, before it is drawn."""

    head: Head
    sections: tuple[Section, ...]


def contents(plan: Plan, runs: Sequence[StoredRun]) -> Contents:
    """Contents of the page of a plan; see `batchscope.report.build`."""
    sections = [build(plan, runs) for build in SECTIONS]
    soonest = "soonest" if plan.objective == "time" else "with the fewest examples"
    asked = ("No target was set", "", "")
    if plan.target is not None:
        asked = ("The batch size that reaches", target_in_words(plan.target), soonest)
    if plan.within is not None:
        best = f"the best {plan.target.metric}" if plan.target else "the best end"
        asked = (f"The recipe with {best} within", plan.within, "of training")
    left_out = (_ONLY_OF_SEARCHES if plan.table else ()) + (_ONLY_OF_TARGETS if plan.within else ())
    return Contents(
        head=Head(task=plan.task, status=plan.status.value, question=asked, version=plan.environment.batchscope),
        sections=tuple(s for s in sections if s.blocks and s.name not in left_out),
    )


def draw(contents: Contents, *, shared_script: str = "") -> str:
    """HTML of any page.

    Args:
        contents: what it says.
        shared_script: where the page finds `chart_script.source()` as a file, relative to itself, for pages that stand
            in one folder; empty: the page holds it, and is one self-contained file.
    """
    templates = _templates()
    drawing = _source("page.js")
    # A page opened from a disk is of no origin in some browsers: there 'self' alone would let no file through.
    library = "'self' file:" if shared_script else _hash(chart_script.source())
    page = templates.get_template("page.html.j2").render(
        head=contents.head,
        sections=contents.sections,
        style=Markup(_source("page.css")),
        shared_script=shared_script,
        packed_script="" if shared_script else chart_script.packed(),
        drawing=Markup(drawing),
        policy=f"default-src 'none'; {_ALLOWED} script-src {library} {_hash(drawing)}",
    )
    return page.strip() + "\n"


def tight(text: str) -> str:
    r"""Text in which no number is parted from its unit at the end of a line.

    >>> tight("1.9 s (1.7–2.3), 5 % of it")
    '1.9\xa0s (1.7–2.3), 5\xa0% of it'
    """
    return _UNIT.sub("\N{NO-BREAK SPACE}", text)


def _shown(value: Any) -> Any:
    """What the template writes, before it is escaped: a text of anyone's is made showable, wherever it stands."""
    return showable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _lines(text: str) -> Markup:
    """Text whose line breaks are meant."""
    return Markup("\n").join(escape(showable(line)) for line in text.split("\n"))


def _drawing(value: Any, **how: Any) -> str:
    """JSON for the script that draws the charts, its texts as showable as the page's."""
    return json.dumps(_all_shown(value), **how)


def _all_shown(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_shown(key): _all_shown(each) for key, each in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [each if isinstance(each, float) else _all_shown(each) for each in cast("Sequence[Any]", value)]
    return _shown(value)


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("batchscope", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters |= {"tight": tight, "lines": _lines}
    environment.policies["json.dumps_function"] = _drawing
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment


def _source(name: str) -> str:
    environment = _templates()
    loader = cast(PackageLoader, environment.loader)
    return loader.get_source(environment, name)[0]


@cache
def _hash(script: str) -> str:
    """Hash that the browser compares a script with: one that is not ours, as an injected one, never runs."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
