"""The reasoning half imports without torch, and `import batchscope` imports next to nothing."""

from __future__ import annotations

import subprocess
import sys

WITHOUT_TORCH = """
import sys
from importlib.abc import MetaPathFinder

class NotInstalled(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
"""


def run_python(script: str) -> None:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr


def test_package_imports_neither_torch_nor_numpy() -> None:
    run_python("import sys, batchscope; assert not {'torch', 'numpy', 'scipy', 'plotly'} & set(sys.modules)")


MODULES = (
    *("errors", "store", "wording", "fits", "report", "report.page"),
    *("search.plan", "search.state", "search.table.fit"),
    *("training.count", "training.glossary", "training.stopping", "training.limits", "training.progress"),
    *("cli.commands", "laboratory.records", "laboratory.files", "laboratory.page.page", "laboratory.studies"),
    *("laboratory.claims.decide", "laboratory.claims.files", "laboratory.claims.page.page"),
    *("live.reading", "live.csv_file"),
)
EACH_FROM_NOTHING = f"""
import importlib
for module in {MODULES}:
    for name in [name for name in sys.modules if name.partition(".")[0] == "batchscope"]:
        del sys.modules[name]
    importlib.import_module(f"batchscope.{{module}}")
"""


def test_imports_without_torch() -> None:
    """Each with nothing else of ours imported before; NumPy and SciPy are imported once."""
    run_python(f"{WITHOUT_TORCH}{EACH_FROM_NOTHING}")


def test_every_named_study_is_imported_without_torch() -> None:
    run_python(
        f"{WITHOUT_TORCH}\n"
        "from batchscope.laboratory.studies import named_study, names\nlist(map(named_study, names()))"
    )


def test_public_records_work_without_torch() -> None:
    run_python(f"{WITHOUT_TORCH}\nimport batchscope\nassert batchscope.Target.parse('val_loss<=0.1').met_by(0.1)")


def test_torch_really_is_out_of_reach() -> None:
    run_python(f"{WITHOUT_TORCH}\ntry: import torch\nexcept ModuleNotFoundError: pass\nelse: raise SystemExit(1)")
