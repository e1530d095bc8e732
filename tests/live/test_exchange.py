"""Exchange between ranks: sums, agreement and what happens when a rank is absent; all ranks in one process."""

import itertools

import pytest
import torch.distributed as dist

from batchscope.live.sources import exchange
from batchscope.live.sources.exchange import Exchange, Post, Total


def ranks(size: int, monkeypatch: pytest.MonkeyPatch) -> list[Exchange]:
    """Exchanges of one store, with the keys that they have in processes of their own."""
    made, store = [], dist.HashStore()
    for rank in range(size):
        monkeypatch.setattr(exchange, "_counts", itertools.count())
        made.append(Exchange(store, rank=rank, size=size, name="model"))
    return made


def window(group: list[Exchange], posts: list[Post], order=None) -> list[Total | None]:
    """One window's end on all ranks, in any order; the reduction before it is what they wait for."""
    answers: list[Total | None] = [None] * len(group)
    for rank in order or range(len(group)):
        answers[rank] = group[rank].end_window(posts[rank])
    return answers


@pytest.mark.parametrize("orders", [*itertools.product([(0, 1, 2), (2, 1, 0), (1, 0, 2)], repeat=2)])
def test_all_ranks_get_the_same_sums_whichever_rank_is_faster(orders, monkeypatch):
    group = ranks(3, monkeypatch)
    for k in range(7):
        posts = [Post(step=10 * k, values=(0.1 * k, r + 1.0), same=2.0, every=1 + r) for r in range(3)]
        answers = window(group, posts, orders[k % 2])
        if k < 2:
            assert answers == [None] * 3
        else:
            expected = Total(step=10 * (k - 2), values=(pytest.approx(0.3 * (k - 2)), 6.0), same=2.0, every=3)
            assert answers == [expected] * 3
            assert len({answer.values[0] for answer in answers if answer}) == 1


def test_a_rank_that_is_absent_ends_the_measurement_on_all_others_in_the_same_window(monkeypatch):
    group = ranks(3, monkeypatch)
    for k in range(3):
        window(group, [Post(step=k, values=(1.0,))] * 3)
    here = [group[0], group[2]]  # rank 1 is closed after window 2
    for k, reason in ((3, ""), (4, ""), (5, "rank 1 sent no numbers")):
        answers = [exchange.end_window(Post(step=k, values=(1.0,))) for exchange in here]
        assert [answer.step if not reason else None for answer in answers if answer] == [None if reason else k - 2] * 2
        assert all(
            answer and answer.reason.startswith(reason) and bool(answer.reason) == bool(reason) for answer in answers
        )


def test_the_first_rank_alone_and_the_others_without_it_end_too(monkeypatch):
    alone, _ = ranks(2, monkeypatch)
    answers = [alone.end_window(Post(step=k, values=(1.0,))) for k in range(3)]
    assert answers[2] is not None
    assert "rank 1 sent no numbers" in answers[2].reason
    _, other = ranks(2, monkeypatch)
    answers = [other.end_window(Post(step=k, values=(1.0,))) for k in range(3)]
    assert answers[2] is not None
    assert "rank 0 sent no numbers" in answers[2].reason


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (Post(step=0, values=(1.0,), same=1.0, reason="it broke"), "rank 1: it broke"),
        (Post(step=1, values=(1.0,), same=1.0), "counted 0 optimizer steps and rank 1 1"),
        (Post(step=0, values=(1.0,), same=1.1), "did not average their gradients"),
    ],
)
def test_a_disagreement_is_a_reason_for_all_ranks(other, reason, monkeypatch):
    group = ranks(2, monkeypatch)
    mine = Post(step=0, values=(1.0,), same=1.0)
    for _ in range(2):
        window(group, [mine, other])
    answers = window(group, [mine, other])
    assert answers[0] == answers[1]
    assert answers[0] is not None
    assert reason in answers[0].reason


def test_what_a_rank_overflows_to_arrives_as_it_is(monkeypatch):
    group = ranks(2, monkeypatch)
    posts = [Post(step=0, values=(float("inf"),), same=float("inf")), Post(step=0, values=(1.0,), same=float("inf"))]
    for _ in range(3):
        answers = window(group, posts)
    assert answers[0] is not None
    assert answers[0].values == (float("inf"),)
    assert not answers[0].reason
