"""Which source a monitor reads, and what it says where there is none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from batchscope import NoiseMonitor, UsageError
from batchscope.live.choice import Choice
from batchscope.live.guard import Guard
from batchscope.live.sources import CANDIDATES, Candidate, Situation

from .trainings import cut, examples, mlp, step, watch


class TestChoice:
    """Sources in order: the first that gives a number."""

    class Fixed:
        """A source that gives rows from its `first` window on."""

        def __init__(self, name: str, first: int) -> None:
            self.name, self.reason, self._left = name, "", first

        def attach(self, *_: Any) -> None:
            pass

        def detach(self) -> None:
            pass

        def take(self, window: Any) -> Any:
            self._left -= 1
            self.reason = "not yet" if self._left >= 0 else ""
            return None if self._left >= 0 else {"kind": "noise", "step": window.step}

    def situation(self) -> Situation:
        model = mlp()
        return Situation(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            loss=None,
            geometry=None,
            layers=False,
            guard=Guard(),
            world_size=1,
        )

    def candidate(self, name: str, first: int, against: str = "") -> Candidate:
        return Candidate(name=name, suits=lambda _: against, make=lambda _: self.Fixed(name, first))

    def test_one_that_gives_nothing_is_passed_over(self) -> None:
        candidates = [self.candidate("a", 0, "no"), self.candidate("b", 10**9), self.candidate("c", 1)]
        choice = Choice.of(self.situation(), candidates=candidates)
        window: Any = type("W", (), {"step": 0})
        found = [choice.take(window) is not None for _ in range(6)]
        assert found == [False] * 4 + [True] * 2
        assert choice.source.name == "c"
        assert choice.passed_over == {"a": "no", "b": "not yet"}

    def test_one_that_was_slow_is_tried_again(self) -> None:
        choice = Choice.of(self.situation(), candidates=[self.candidate("a", 4), self.candidate("b", 10**9)])
        window: Any = type("W", (), {"step": 0})
        assert [choice.take(window) is not None for _ in range(8)] == [False] * 7 + [True]
        assert choice.source.name == "a"

    def test_one_that_does_not_suit_cannot_be_forced(self) -> None:
        candidates = [self.candidate("a", 0, "there is one process"), self.candidate("b", 0)]
        with pytest.raises(UsageError, match="there is one process"):
            Choice.of(self.situation(), only="a", candidates=candidates)
        assert Choice.of(self.situation(), only="b", candidates=candidates).source.name == "b"

    def test_one_that_measures_another_number_must_be_named(self) -> None:
        candidates = [self.candidate("a", 0, "no"), replace(self.candidate("b", 0), by_name_only=True)]
        assert Choice.of(self.situation(), candidates=candidates).reason == "a: no"
        assert Choice.of(self.situation(), only="b", candidates=candidates).source.name == "b"

    def test_where_none_suits_the_monitor_is_off_and_says_why(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two processes and micro-batches alone: nothing is measured, and the training goes on."""
        alone = [each for each in CANDIDATES if each.name == "micro-batches"]
        monkeypatch.setattr(Choice.of.__func__, "__kwdefaults__", {"only": None, "candidates": alone})  # pyright: ignore
        monkeypatch.setattr("batchscope.live.monitor.world_size", lambda: 2)
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        monitor = NoiseMonitor(model, optimizer, batch_size=12)
        for _ in range(3):
            monitor.micro_batch(examples=4)
            step(model, optimizer, cut(examples(12), [4, 4, 4]))
        assert monitor.read().reason == "micro-batches: gradients are reduced over 2 processes"
        assert monitor.read().gradient_noise_scale.value is None
        monitor.close()

    @pytest.mark.parametrize(("name", "asked"), [("per-example", None), ("moments", None), ("moments", "euclidean")])
    def test_a_default_geometry_refuses_no_source(self, name: str, asked: str | None) -> None:
        model = mlp()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        with pytest.raises(UsageError, match="the sign norm needs gradients of groups"):
            watch(model, optimizer, source=name, geometry="sign")
        with watch(model, optimizer, source=name, geometry=asked) as monitor:
            for _ in range(8):
                step(model, optimizer, [examples(12)])
            reading = monitor.read()
        assert reading.geometry == "euclidean"
        assert reading.gradient_noise_scale.n > 0
        assert any("not in the optimizer's own geometry (sign)" in note for note in reading.notes) == (asked is None)
