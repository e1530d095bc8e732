"""How long a study takes: `digits` at 5 batch sizes, 5 rates and 3 seeds for 30 epochs, in one process.

    python benchmarks/study.py

Wall time and the processor's, of the whole command; the load average before and after says how quiet the machine was.
Besides, the share of the training steps in it, from the runs' own clocks. The result goes to
`benchmarks/results/study.json`, the page to the folder that is named on the command line, if any.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

from batchscope.laboratory.records import Length, StudyQuestion
from batchscope.laboratory.study import study
from batchscope.tasks.loading import load_task
from record import write

QUESTION = StudyQuestion(
    batch_sizes=(8, 16, 32, 64, 128),
    lrs=(0.003, 0.01, 0.03, 0.1, 0.3),
    seeds=(0, 1, 2),
    length=Length(unit="epochs", amount=30),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, help="copy report.html to this file")
    asked = parser.parse_args()
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        started, busy = time.perf_counter(), time.process_time()
        found = study(load_task("digits"), QUESTION, out=Path(folder) / "out", budget_s=3600.0)
        wall_s, processor_s = time.perf_counter() - started, time.process_time() - busy
        if asked.page:
            shutil.copyfile(Path(folder) / "out" / "report.html", asked.page)
    write(
        "study",
        {
            "runs": len(found.rows),
            "steps": sum(row.steps for row in found.rows),
            "wall_s": wall_s,
            "processor_s": processor_s,
            "training_steps_s": sum(row.values["train_time_s"] or 0.0 for row in found.rows),
            "load_before": load,
            "load_after": os.getloadavg(),
            "findings": [finding.statement for finding in found.findings],
        },
    )


if __name__ == "__main__":
    main()
