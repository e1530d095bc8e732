"""A vertical axis that leaves nothing out: for what is no loss, so that a large value is no run that blew up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ....report.blocks import Figure, Json
from ....report.charts import metric_axis

__all__ = ["whole_axis", "with_whole_axes"]


def whole_axis(values: Iterable[Sequence[float | None]], title: str = "") -> Json:
    """Axis from the minimum to the maximum: logarithmic where all are positive and span a factor of three."""
    return metric_axis([[v] for series in values for v in series if v is not None], title=title)


def with_whole_axes(figure: Figure, labels: Sequence[str]) -> Figure:
    """A figure whose vertical switch has such an axis at the positions with these labels."""
    switches = tuple(
        replace(
            switch,
            options=tuple(
                replace(option, layout={"yaxis": whole_axis(option.data)}) if option.label in labels else option
                for option in switch.options
            ),
        )
        if switch.axis == "y"
        else switch
        for switch in figure.switches
    )
    first = next((switch.options[0].layout for switch in switches if switch.axis == "y"), {})
    return replace(figure, switches=switches, layout={**figure.layout, **first})
