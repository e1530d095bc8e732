"""Optuna behind the seam: resumable without its storage, inside the space, better than chance, and optional."""

from __future__ import annotations

import functools
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from batchscope.errors import UsageError
from batchscope.search.strategies.optuna import TreeParzen
from batchscope.search.strategies.space import Request, Space, Trial, best, cut_off

from .surface import SPACE, Surface, requests_after_a_kill, search

pytestmark = pytest.mark.filterwarnings("error")
SEEDS = range(8)


@pytest.fixture(autouse=True)
def installed(request: pytest.FixtureRequest) -> None:
    if "missing" not in request.node.name:
        pytest.importorskip("optuna", reason="the extra [optuna] is not installed")


@functools.cache
def searched(seed: int, *, prune: bool = False, edge: float = math.inf) -> tuple[Surface, tuple[Trial, ...]]:
    surface = Surface(edge=edge)
    return surface, tuple(search(TreeParzen(prune=prune), surface, seed=seed))


def reached(trials: tuple[Trial, ...]) -> float:
    found = best(trials)
    assert found is not None
    return found.cost


def test_finds_a_better_pair_than_drawing_as_many_at_random() -> None:
    by_chance: list[float] = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        by_chance.append(min(Surface().cost_to_target(*SPACE.draw(rng)) for _ in range(20)))
    found = [reached(searched(seed)[1]) for seed in SEEDS]
    assert np.log(found).mean() < np.log(by_chance).mean() - 0.08
    assert max(found) < 1.5 * Surface().floor


def test_proposals_lie_in_the_space_and_are_new() -> None:
    for seed in SEEDS:
        _, trials = searched(seed)
        assert len({trial.pair for trial in trials}) == len(trials) == 20
        assert all(SPACE.holds(trial.pair) for trial in trials)
    assert searched(0)[1] != searched(1)[1]


def test_runs_are_cut_off_at_twice_the_least_cost_so_far() -> None:
    surface, trials = searched(0)
    for number, request in enumerate(surface.requests):
        assert request.limit == cut_off(trials[:number], 2.0)
    assert "trial 20 of 20" in surface.requests[-1].why


def test_learns_from_runs_that_diverge() -> None:
    lrs = [[trial.lr for trial in searched(seed, edge=0.1)[1]] for seed in SEEDS]
    at_random, learnt = np.array([rates[:10] for rates in lrs]), np.array([rates[10:] for rates in lrs])
    assert (learnt > 0.1).mean() < 0.9 * (at_random > 0.1).mean()
    assert max(reached(searched(seed, edge=0.1)[1]) for seed in SEEDS) < 2.0 * Surface().floor


@pytest.mark.parametrize("prune", [False, True])
def test_a_killed_search_goes_on_where_it_was(prune: bool) -> None:
    surface, _ = searched(2, prune=prune)
    for killed_after in (0, 1, 11, len(surface.requests) - 1, len(surface.requests)):
        rest = requests_after_a_kill(TreeParzen(prune=prune), surface, killed_after, seed=2)
        assert rest == surface.requests[killed_after:]


def test_the_pruner_stops_what_is_worse_than_the_median_and_saves_cost() -> None:
    plain, pruned = searched(0), searched(0, prune=True)
    assert pruned[0].spent < 0.9 * plain[0].spent
    assert reached(pruned[1]) == pytest.approx(reached(plain[1]), rel=0.1)
    stopped = [t for t in pruned[1] if t.status == "stopped"]
    assert any(t.cost < 0.6 * max(s.cost for s in stopped) for t in stopped)


def test_the_pruner_lets_a_run_go_on_that_is_better_than_the_median() -> None:
    def made(lr: float, cost: float, limit: float) -> Trial:
        surface = Surface(floor=cost / Surface(floor=1.0).cost_to_target(64, lr))
        return surface.make(Request(batch_size=64, lr=lr, limit=limit, why=""))

    strategy = TreeParzen(prune=True)
    known = [made(lr, cost, 1e9) for lr, cost in ((0.01, 100), (0.02, 110), (0.03, 120), (0.04, 130), (0.05, 140))]
    fast, slow = made(0.06, 90, 12.5), made(0.06, 900, 12.5)
    goes_on = strategy(SPACE, [*known, fast], 0)
    assert goes_on == Request(batch_size=64, lr=0.06, limit=25.0, why="goes on by Optuna, trial 6 of 20")
    other = strategy(SPACE, [*known, slow], 0)
    assert other is not None
    assert other.lr != 0.06
    assert strategy(SPACE, [*known[:4], slow], 0) == replace(goes_on, why="goes on by Optuna, trial 5 of 20")


def test_runs_from_outside_the_space_are_counted_and_to_be_beaten() -> None:
    outside = Trial(batch_size=5, lr=0.05, status="reached", cost=10.0, cost_to_target=10.0)
    request = TreeParzen()(SPACE, [outside], 0)
    assert request is not None
    assert request.limit == 20.0
    assert TreeParzen(trials=1)(SPACE, [outside], 0) is None
    late = replace(outside, status="stopped", cost_to_target=None)
    assert TreeParzen(prune=True)(SPACE, [late], 0) is not None


def test_an_exhausted_space_ends_the_search() -> None:
    space = Space(batch_sizes=(8, 16), lr_low=0.1, lr_high=0.1)
    assert {t.pair for t in search(TreeParzen(), Surface(), space=space)} == {(8, 0.1), (16, 0.1)}


def test_is_quiet_and_leaves_the_log_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    import optuna

    level = optuna.logging.get_verbosity()
    TreeParzen()(SPACE, [], 0)
    assert optuna.logging.get_verbosity() == level
    assert capfd.readouterr() == ("", "")


def test_needs_no_torch() -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from batchscope.search.strategies.optuna import TreeParzen\n"
        "from batchscope.search.strategies.space import Space\n"
        "assert 'optuna' not in sys.modules\n"
        "assert TreeParzen()(Space.below(1.0, (8, 16)), [], 0).batch_size in (8, 16)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_missing_it_names_the_extra_and_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UsageError, match=r'pip install -c constraints\.txt "\.\[optuna\]"') as caught:
        TreeParzen()(SPACE, [], 0)
    assert caught.value.exit_status == 2
