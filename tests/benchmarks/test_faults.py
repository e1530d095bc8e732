"""The bench of faults: what counts as held, and one fault of a few kinds, tried for real."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="needs benchmarks/, which a source distribution lacks")


@pytest.fixture(scope="session")
def bench(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("faults")


@pytest.mark.parametrize(
    ("held", "lost", "status"), [(True, 0, 0), (False, 0, 1), (True, 1, 1)], ids=["holds", "does not", "loses a run"]
)
def test_a_fault_that_does_not_hold_or_loses_something_ends_with_one(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, held: bool, lost: int, status: int
) -> None:
    def faults(quick: bool) -> Iterator[object]:
        seen = bench.Seen(held=held, lost=lost)
        yield bench.Fault(what="one", tried=lambda folder: seen)

    monkeypatch.setitem(sys.modules, "fault_kinds.made_up", SimpleNamespace(faults=faults))  # type: ignore[arg-type]
    monkeypatch.setattr(bench, "KINDS", {"made_up": "made up", "other": "other"})
    assert bench.main(["--quick", "--only", "made_up", "--keep", str(tmp_path)]) == status
    assert f"| made up | 1 | {int(held)} | {lost} |" in bench.table([{"kind": "made_up", "held": held, "lost": lost}])


def test_a_fault_that_raises_does_not_hold(bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def tried(folder: Path) -> object:
        raise ValueError("the driver is wrong")

    def faults(quick: bool) -> Iterator[object]:
        yield bench.Fault(what="one", tried=tried)

    monkeypatch.setitem(sys.modules, "fault_kinds.made_up", SimpleNamespace(faults=faults))  # type: ignore[arg-type]
    monkeypatch.setattr(bench, "KINDS", {"made_up": "made up", "other": "other"})
    assert bench.main(["--quick", "--only", "made_up", "--keep", str(tmp_path)]) == 1


@pytest.mark.slow
def test_every_kind_has_faults_in_its_quick_form(bench: ModuleType) -> None:
    for kind in bench.KINDS:
        assert next(iter(bench.faults_of(kind, quick=True))).what, kind


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["questions", "planted", "hostile", "outputs", "disks"])
def test_a_fault_holds(bench: ModuleType, tmp_path: Path, kind: str) -> None:
    fault = next(iter(bench.faults_of(kind, quick=True)))
    seen = fault.tried(tmp_path)
    assert (seen.held, seen.lost) == (True, 0), seen.said
