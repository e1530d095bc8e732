"""Chart library of the pages: the part of plotly.js that draws on x and y axes, packed.

`plotly-cartesian.min.js.gz` holds the file of the npm package `plotly.js-cartesian-dist-min` as it is, MIT-licensed
(`PLOTLY-LICENSE.txt`). It has every kind of trace that `charts.py` writes and is a third of the whole library, which
packed alone would fill the 2 MB that a page may have. CONTRIBUTING.md says how it is renewed.
"""

from __future__ import annotations

import base64
import gzip
from functools import cache
from importlib.resources import files

__all__ = ["packed", "source"]


@cache
def packed() -> str:
    """Chart library as gzip in base64: what a self-contained page holds, and unpacks in the browser."""
    return base64.b64encode(_stored()).decode("ascii")


@cache
def source() -> str:
    """Chart library as JavaScript: what pages that share one file load."""
    return gzip.decompress(_stored()).decode("utf-8")


def _stored() -> bytes:
    return (files("batchscope.report") / "plotly-cartesian.min.js.gz").read_bytes()
