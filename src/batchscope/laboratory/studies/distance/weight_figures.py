"""The weights before and after training: their histograms, and their widths in a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ....report.blocks import Column, Figure, Json, Key, Option, Row, Switch, Table
from ....report.charts import CENSORED, finite, layout, log_axis, safe
from ....wording import count, number

__all__ = ["MOST_FIGURES", "weight_figures", "weight_table"]

MOST_FIGURES = 6
"""Weight matrices that are drawn: the largest."""
_MOST_ROWS = 24


def weight_figures(parameters: Sequence[Json], moments: Sequence[Json], colours: Sequence[str]) -> Row | None:
    """Small figures of the share of a matrix's weights by value, before training and after it.

    Args:
        parameters: records of `ParameterHistograms` as they were noted, of weights.
        moments: what their moments are: `label`, `short` for a key, `head` for a column, and `learning rate`, which is
            empty for the one before training.
        colours: of the moments after training at one learning rate, in their order; a learning rate that has not as
            many (where a run diverged) is not drawn.
    """
    labels = [m["rate"] for m in moments if m["rate"]]
    rates = [rate for rate in dict.fromkeys(labels) if labels.count(rate) == len(colours)]
    drawn = sorted(sorted(parameters, key=lambda p: -p["size"])[:MOST_FIGURES], key=parameters.index)
    if not drawn or not rates:
        return None
    return Row(tuple(_figure(parameter, moments, rates, colours, i) for i, parameter in enumerate(drawn)))


def _figure(
    parameter: Json, moments: Sequence[Json], rates: Sequence[str], colours: Sequence[str], index: int
) -> Figure:
    counts = parameter["moments"]
    before = next(i for i, m in enumerate(moments) if not m["rate"])
    of_rate = {rate: [i for i, m in enumerate(moments) if m["rate"] == rate] for rate in rates}
    shown = {rate: [before, *own] for rate, own in of_rate.items()}
    shares = {rate: [_shares(parameter, counts[i]) for i in own] for rate, own in shown.items()}
    bins = len(counts[before]["counts"])
    x = [(i - bins // 2) * 2 * parameter["limit"] / bins for i in range(bins)]
    up = log_axis([v for rows in shares.values() for row in rows for v in row], title="share of the weights", labels=5)
    first = rates[0]
    looks = [(CENSORED, "dot"), *((colour, "solid") for colour in colours)]
    traces: list[Json] = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": finite(x),
            "y": finite(row),
            "name": safe(moments[i]["label"]),
            "line": {"color": colour, "width": 1.8, "dash": dash, "shape": "hvh"},
            "hovertemplate": "%{fullData.name}<br>%{x:.3g}: share %{y:.3g}<extra></extra>",
        }
        for i, row, (colour, dash) in zip(shown[first], shares[first], looks, strict=True)
    ]
    keys = tuple(
        Key("dot" if dash == "dot" else "line", colour, moments[i]["short"])
        for i, (colour, dash) in zip(shown[first], looks, strict=True)
    )
    options = tuple(
        Option(rate, tuple(tuple(finite(row)) for row in rows), {"yaxis": up}) for rate, rows in shares.items()
    )
    across: Json = {
        **log_axis([1.0], title="value of a weight"),
        "type": "linear",
        "tickmode": "auto",
        "nticks": 5,
        "tickvals": None,
        "ticktext": None,
        "range": [-parameter["limit"], parameter["limit"]],
    }
    return Figure(
        f"weights-{index}",
        safe(parameter["name"]),
        tuple(traces),
        layout(across, up, height=260),
        _conclude(parameter, moments, shown),
        keys,
        (Switch("y", "learning rate", options),) if len(rates) > 1 else (),
    )


def _shares(parameter: Json, moment: Mapping[str, Any]) -> list[float | None]:
    return [n / parameter["size"] if n else None for n in moment["counts"]]


def _conclude(parameter: Json, moments: Sequence[Json], shown: Mapping[str, Sequence[int]]) -> str:
    counts = parameter["moments"]
    first = next(iter(shown.values()))[0]
    most = max((i for own in shown.values() for i in own), key=lambda i: counts[i]["deviation"])
    ratio = counts[most]["deviation"] / counts[first]["deviation"] if counts[first]["deviation"] else None
    if most == first:
        return f"{count(parameter['size'])} weights; no run made the distribution wider."
    wider = f"{number(ratio)} times as wide as" if ratio else "where there was no width"
    return f"{count(parameter['size'])} weights. After {moments[most]['label']} they are widest, {wider} at the start."


def weight_table(parameters: Sequence[Json], moments: Sequence[Json]) -> Table:
    """The root mean square about the mean of each parameter at each moment, and the largest magnitude."""
    shown = sorted(sorted(parameters, key=lambda p: -p["size"])[:_MOST_ROWS], key=parameters.index)
    columns = (
        Column("parameter"),
        Column("numbers", numeric=True),
        *(Column(m["head"], numeric=True) for m in moments),
    )
    rows = tuple(
        (
            p["name"],
            count(p["size"]),
            *(f"{number(m['deviation'])} ({number(m['largest'])})" for m in p["moments"]),
        )
        for p in shown
    )
    return Table(columns, rows)
