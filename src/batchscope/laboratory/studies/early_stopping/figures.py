"""Where stopping rules end a run, what they cost and lose, and the minimum validation value by batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ....fits.early_stopping import Rule
from ....report.blocks import Figure, Json, Key, Row
from ....report.charts import (
    LINE,
    PointMark,
    batch_axis,
    layout,
    line,
    log_axis,
    metric_axis,
    points,
    safe,
    with_errors,
)
from ....store.records import Estimate
from ....wording import count, joined, number, percent, plural, with_interval
from ...page.lines import Line, marks_of, value_of
from ...records import Study, SummaryRow
from .replay import Curve, Replayed, by_rule, oracle

__all__ = ["minimum_row", "stop_figures", "trade_off"]

_MARKS: Mapping[str, tuple[PointMark, str]] = {
    "patience": ("open", "var(--series-1)"),
    "GL": ("cross", "var(--series-2)"),
    "PQ": ("arrow", "var(--series-3)"),
    "UP": ("disc", "var(--size-0)"),
}
_IN_A_ROW = 2
_BELOW = 0.6
"""How far below the best validation value a chart of losses reaches, as a share of it; the training loss goes on."""


def stop_figures(study: Study, curves: Sequence[Curve], rules: Sequence[Rule]) -> tuple[Row, ...]:
    """One seed's runs, a figure each: validation and training curve, the best epoch, and where the rules stop."""
    figures = [_stops(study, curve, rules) for curve in curves]
    return tuple(Row(tuple(figures[i : i + _IN_A_ROW])) for i in range(0, len(figures), _IN_A_ROW))


def _stops(study: Study, curve: Curve, rules: Sequence[Rule]) -> Figure:
    epochs, values = curve.epochs[1:], curve.metrics[study.metric][1:]
    training = curve.metrics.get(f"train_{study.metric.partition('_')[2]}_eval", ())[1:]
    best = oracle(curve).chosen
    traces: list[Json] = []
    if training:
        dotted = line(epochs, training)
        traces.append({**dotted, "line": {"color": LINE, "width": 1.3, "dash": "dot"}})
    traces.append(line(epochs, values))
    keys = [Key("line", LINE, "validation"), *([Key("dot", LINE, "training")] if training else [])]
    details: list[str] = []
    for rule in rules:
        pick, (mark, colour) = by_rule(rule)(curve), _MARKS[rule.kind]
        if pick is None:
            continue
        keys.append(Key(mark, colour, str(rule)))
        epoch = number(curve.epochs[pick.stop])
        details.append(f"{rule} at epoch {epoch}" if pick.by_itself else f"{rule} never")
        if pick.by_itself:
            at = curve.metrics[study.metric][pick.stop]
            hover = f"{safe(rule)} stops at epoch {epoch}<br>{safe(study.metric)} there {number(at)}"
            traces.append(points([curve.epochs[pick.stop]], [at], [hover], mark=mark, colour=colour))
    hover = f"best: {number(curve.metrics[study.metric][best])} at epoch {number(curve.epochs[best])}"
    traces.append(points([curve.epochs[best]], [curve.metrics[study.metric][best]], [hover], colour="var(--text)"))
    keys.append(Key("disc", "var(--text)", "best epoch"))
    low = _BELOW * min(values) if training and min(values) > 0 and not study.larger_is_better else None
    frame = layout(log_axis(epochs, title="epochs (log scale)", labels=6), metric_axis([values], low), height=320)
    caption = (
        f"The best {study.metric} is {number(curve.metrics[study.metric][best])}, at epoch "
        f"{number(curve.epochs[best])}{'' if best < len(curve.epochs) - 1 else ', the last'}."
        f"{f' Stops: {joined(details)}.' if details else ''}"
    )
    title = f"{study.metric}, batch size {count(curve.batch_size)}, seed {curve.seed}"
    return Figure(f"stops-{curve.batch_size}", title, tuple(traces), frame, caption, tuple(keys))


def minimum_row(study: Study, arms: Sequence[SummaryRow]) -> Row:
    """The best value and its epoch against batch size, means over the seeds."""
    lines = tuple(Line(arm, f"batch size {count(arm.batch_size)}", LINE, "") for arm in arms)
    ends = [arms[0], arms[-1]]
    figures: list[Figure] = []
    for name, what, scale in (
        (f"best_{study.metric}", f"best {study.metric}", ""),
        ("best_epoch", "epochs to it", " (log scale)"),
    ):
        measured = [arm.estimates[name] for arm in arms]
        inside = [v for e in measured for v in (e.value, e.low, e.high) if v is not None]
        positive = [v for v in inside if v > 0]
        axis = log_axis(positive, labels=6) if name == "best_epoch" else metric_axis([inside])
        phrase = joined([f"{with_interval(arm.estimates[name])} at batch size {count(arm.batch_size)}" for arm in ends])
        late = [arm for arm in arms if _ends_at_best(arm)]
        note = f" Still improving at the end: batch size {joined([count(a.batch_size) for a in late])}." if late else ""
        frame = layout(batch_axis([arm.batch_size for arm in arms], labels=6), axis, height=300)
        caption = f"{what.capitalize()}: {phrase}.{note if name == 'best_epoch' else ''}"
        slug = "value" if name != "best_epoch" else "epoch"
        figures.append(Figure(f"minimum-{slug}", f"{what}{scale}", (marks_of(lines, name),), frame, caption))
    return Row(tuple(figures))


def _ends_at_best(arm: SummaryRow) -> bool:
    best, end = value_of(arm, "best_epoch"), value_of(arm, "epochs")
    return best is not None and end is not None and best > 0.95 * end


def trade_off(study: Study, found: Mapping[Rule, Replayed], last: Replayed, test: str) -> Figure:
    """Epochs that a rule spends against what its weights lose on the test part; better is left and below."""
    traces: list[Json] = []
    keys: list[Key] = []
    for kind, (mark, colour) in _MARKS.items():
        own = sorted(((r, o) for r, o in found.items() if r.kind == kind), key=lambda pair: pair[0].amount)
        if not own:
            continue
        x = [_percent(o.spent.value) for _, o in own]
        y = [_percent(o.excess.value if o.excess else None) for _, o in own]
        hover = [_hover(str(rule), o, test) for rule, o in own]
        course = {**line(x, y, colour=colour), "line": {"color": colour, "width": 1, "dash": "dot"}}
        marks = points(x, y, hover, mark=mark, colour=colour)
        below, above = _bars([o.excess for _, o in own])
        traces += [{**course, "legendgroup": kind}, {**with_errors(marks, below, above), "legendgroup": kind}]
        amounts = ", ".join(number(rule.amount) for rule, _ in own)
        keys.append(Key(mark, colour, f"{kind} {amounts}", kind))
    end = [_percent(last.spent.value)], [_percent(last.excess.value if last.excess else None)]
    traces.append(points(*end, [_hover("the last epoch", last, test)], colour="var(--text)"))
    keys.append(Key("disc", "var(--text)", "last epoch"))
    means = [v for trace in traces for v in trace["y"]]
    margin = 0.1 * (max(means) - min(means)) or 1.0
    reach = [v for trace in traces if "error_y" in trace for v in _reach(trace)]
    inside = [v for v in reach if min(means) - margin <= v <= max(means) + margin]
    up = metric_axis([[max([*means, *inside], key=abs), *means, *inside]])
    across = [v for trace in traces for v in trace["x"]]
    title = "epochs until it stops, % of the long run (log scale)"
    frame = layout(log_axis(across, title=title), up, height=400)
    return Figure(
        "trade-off", f"{test} above the best epoch's, %", tuple(traces), frame, _conclude(found, last), tuple(keys)
    )


def _bars(found: Sequence[Estimate | None]) -> tuple[list[float], list[float]]:
    """Error bars: how far intervals reach below and above their values, in per cent."""
    below = [_percent(e.value) - _percent(e.low) if e and e.low is not None else 0.0 for e in found]
    above = [_percent(e.high) - _percent(e.value) if e and e.high is not None else 0.0 for e in found]
    return below, above


def _reach(trace: Json) -> list[float]:
    bars = trace["error_y"]
    ends = zip(trace["y"], bars["arrayminus"], bars["array"], strict=True)
    return [v for y, below, above in ends if y is not None for v in (y - (below or 0.0), y + (above or 0.0))]


def _percent(share: float | None) -> float:
    return 100.0 * (share or 0.0)


def _hover(name: str, o: Replayed, test: str) -> str:
    lost = with_interval(o.excess, percent) if o.excess else "unknown"
    never = f"<br>never stops in {o.never} of {plural(o.runs, 'run')}" if o.never else ""
    return f"{safe(name)}<br>{percent(o.spent.value)} of the epochs<br>{safe(test)} worse by {lost}{never}"


def _conclude(found: Mapping[Rule, Replayed], last: Replayed) -> str:
    """The rules at the two ends, and training on."""
    ordered = sorted(found.items(), key=lambda pair: pair[1].spent.value or 0.0)
    ends = [ordered[0], ordered[-1]]
    phrase = joined([f"{rule} spends {percent(o.spent.value)} of the epochs and loses {_loss(o)}" for rule, o in ends])
    return (
        f"{phrase}; the last epoch loses {_loss(last)}. Left and below is better. Bars are 90 % t intervals over the "
        "seeds, cut where they leave the chart; numbers in the key are the rules of a class, the fastest first."
    )


def _loss(o: Replayed) -> str:
    return f"{number(float(f'{_percent(o.excess.value if o.excess else None):.2g}'))} %"
