"""`batchscope claims digits` with two master seeds: how long it takes, how much it decides, and whether both agree.

    python benchmarks/claims.py

Each is the whole command in a process of its own. Verdicts are compared statement by statement, those that are not
testable left out. The result goes to `benchmarks/results/claims.json`; the results folders to the folder that `--runs`
names, where a repeated call decides again from the runs that are there, and keeps the times of the first.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from record import write

SEEDS = (0, 100)
DECIDED = ("held", "not held", "depends")


def answered(seed: int, runs: Path) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """The claims by id, and what the command took."""
    out = runs / f"claims-{seed}"
    first = runs / f"claims-{seed}.json"
    words = ["claims", "digits", "--seed", str(seed), "--out", str(out), "--json"]
    load, started = os.getloadavg(), time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-m", "batchscope", *words], stdout=subprocess.PIPE, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = {
        "command": f"batchscope claims digits --seed {seed}",
        "wall_s": time.perf_counter() - started,
        "processor_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "load_before": load,
        "load_after": os.getloadavg(),
        "runs": len(list((out / "runs").iterdir())),
    }
    if first.exists():
        took = json.loads(first.read_text())
    else:
        first.write_text(json.dumps(took))
    return {claim["id"]: claim for claim in json.loads(done.stdout)["claims"]}, took


def figures(claims: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    testable = [c for c in claims.values() if c["verdict"] != "not testable"]
    decided = [c for c in testable if c["verdict"] in DECIDED]
    return {
        "testable": len(testable),
        "decided": len(decided),
        "share_decided": len(decided) / len(testable),
        "verdicts": dict(Counter(c["verdict"] for c in claims.values())),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("batchscope-runs") / "benchmark")
    asked = parser.parse_args()
    (first, took_first), (second, took_second) = (answered(seed, asked.runs) for seed in SEEDS)
    compared = [i for i in first if "not testable" not in (first[i]["verdict"], second[i]["verdict"])]
    other = {
        i: [first[i]["verdict"], second[i]["verdict"]] for i in compared if first[i]["verdict"] != second[i]["verdict"]
    }
    opposite = {i: v for i, v in other.items() if "undecided" not in v}
    write(
        "claims",
        {
            "commands": [took_first, took_second],
            "figures": [figures(first), figures(second)],
            "compared": len(compared),
            "same_verdict": 1 - len(other) / len(compared),
            "other_verdict": other,
            "decided_otherwise": opposite,
            "verdicts": {i: [first[i]["verdict"], second[i]["verdict"]] for i in first},
        },
    )
    print(f"{figures(first)}\n{figures(second)}")
    print(f"same verdict: {1 - len(other) / len(compared):.3f} of {len(compared)}; others: {other}")
    for took in (took_first, took_second):
        print(f"{took['command']}: {took['wall_s']:.0f} s, {took['processor_s']:.0f} s of the processor")


if __name__ == "__main__":
    main()
