"""The pages of the published experiments, on Fashion-MNIST with the published models, and of the claims on `digits`.

    python benchmarks/pages.py                         all of them, about two hours of two cores
    python benchmarks/pages.py fixed_epochs claims     some
    python benchmarks/pages.py --redraw                all pages from committed records, about two seconds

To measure needs the data in `../shared`. Each study is run as its command runs it; what is made smaller than published,
so that the whole fits into an afternoon, stands in `PAGES` below. Rows, findings and environment go to
`benchmarks/results/pages/NAME.json`, what the page says to `benchmarks/results/contents/NAME.json`, and the page drawn
from it to `docs/pages/NAME.html`, beside the chart library that all pages there share. Runs are kept in the folder that
`--runs` names, and a repeated command goes on from them; the time that it took is then not known, and `wall_s` is null.

`--redraw` brings a change of the look or of the chart library into all pages. What they say stays as it was when they
were measured: the runs behind them are not committed. The first nine contents were read out of the pages themselves,
whose runs are gone; drawn again, they gave the same text, tables and charts byte for byte.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import page_contents
from batchscope.hardware.device import pick
from batchscope.hardware.environment import environment_of
from batchscope.report.chart_script import source
from batchscope.report.page import draw
from batchscope.store.files import write_json, write_text

HERE = Path(__file__).resolve().parent
DRAWN = HERE.parent / "docs" / "pages"
SHARED_SCRIPT = "plotly-cartesian.min.js"
FASHION = ("--set", "path=../shared/data/fashion_mnist/fashion_mnist.npz")
LESS_EVALUATION = ("--set", "evaluate_at_most=2000")

PAGES: Mapping[str, Sequence[str]] = {
    "fixed_epochs": ("study", "fixed_epochs", *FASHION),
    "gradient_size": ("study", "gradient_size", *FASHION, *LESS_EVALUATION),
    "sharp_minima": ("study", "sharp_minima", *FASHION, *LESS_EVALUATION, "--lrs", "0.1", "--epochs", "30"),
    "batch_norm": (
        *("study", "batch_norm", *FASHION, *LESS_EVALUATION),
        *("--batch-sizes", "64,512", "--lrs", "0.03,0.3,3", "--epochs", "8"),
    ),
    "learning_rate_compensation": (
        *("study", "learning_rate_compensation", *FASHION, *LESS_EVALUATION),
        *("--batch-sizes", "64,1024", "--lrs", "0.01,0.1"),
    ),
    "recovery": ("study", "recovery", *FASHION, *LESS_EVALUATION, "--epochs", "15"),
    "distance": ("study", "distance", *FASHION, *LESS_EVALUATION, "--batch-sizes", "64,1024"),
    "sgd_against_adam": (
        *("study", "sgd_against_adam", *FASHION, *LESS_EVALUATION),
        *("--batch-sizes", "256", "--lrs", "0.01,0.03", "--seeds", "2", "--epochs", "15"),
    ),
    "claims": ("claims", "digits"),
}


def measure(name: str, words: Sequence[str], runs: Path, budget: str) -> None:
    """Run the command, and keep its answer and what its page says."""
    out = runs.resolve() / name
    command = [sys.executable, "-m", "batchscope", *words, "--out", str(out), "--json", "--budget", budget]
    begun = out.exists()
    load, started = os.getloadavg(), time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=HERE.parent)
    wall_s = time.perf_counter() - started
    page_contents.write(name, page_contents.contents_of(out))
    result = HERE / "results" / "pages" / f"{name}.json"
    result.parent.mkdir(parents=True, exist_ok=True)
    write_json(
        result,
        {
            "environment": environment_of(pick("cpu")),
            "command": " ".join(["batchscope", *words]),
            "wall_s": None if begun else wall_s,
            "load_before": load,
            "load_after": os.getloadavg(),
            **json.loads(done.stdout),
        },
    )
    print(f"{name}: {wall_s:.0f} s")


def redraw(names: Iterable[str]) -> None:
    """Draw the pages from what is committed, and the chart library beside them."""
    DRAWN.mkdir(parents=True, exist_ok=True)
    write_text(DRAWN / SHARED_SCRIPT, source())
    for name in names:
        write_text(DRAWN / f"{name}.html", draw(page_contents.read(name), shared_script=SHARED_SCRIPT))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*PAGES, []], help="default: all")
    parser.add_argument("--redraw", action="store_true", help="measure nothing: draw them from committed records")
    parser.add_argument("--runs", type=Path, default=Path("batchscope-runs") / "pages", help="where runs are kept")
    parser.add_argument("--budget", default="2h", help="of each; a page that was cut off goes on when repeated")
    asked = parser.parse_args()
    for name in asked.names or PAGES:
        if not asked.redraw:
            measure(name, PAGES[name], asked.runs, asked.budget)
        redraw([name])


if __name__ == "__main__":
    main()
