"""The turns in which servers are tried."""

from collections import Counter
from itertools import pairwise

from localai_worker.adapters.nats.pool import ServerPool
from localai_worker.adapters.nats.servers import Server

A, B, C = (Server("nats", host, 4222) for host in "abc")


def test_every_server_gets_its_turn_and_rests_between_two() -> None:
    pool = ServerPool((A, B, C), retry_s=2.0)
    turns = [pool.next(now_s=100.0) for _ in range(9)]
    assert [Counter(server for server, _ in turns[start : start + 3]) for start in (0, 3, 6)] == [
        Counter((A, B, C))
    ] * 3
    for server in (A, B, C):
        first, second, third = (at_s for which, at_s in turns if which == server)
        assert first == 100.0
        assert 2.0 <= second - first <= 2.1
        assert 2.0 <= third - second <= 2.1


def test_a_server_that_has_rested_is_tried_at_once() -> None:
    pool = ServerPool((A,), retry_s=2.0)
    pool.next(now_s=100.0)
    assert pool.next(now_s=500.0) == (A, 500.0)


def test_after_a_loss_a_server_is_tried_again_soon_then_more_and_more_seldom() -> None:
    """A restarted server is found within a moment, one that stays away costs no more than before."""
    pool = ServerPool((A,), retry_s=2.0)
    pool.lost()
    times = [pool.next(now_s=100.0)[1] for _ in range(9)]
    rests = [after - before for before, after in pairwise(times)]
    for rest_s, wanted_s in zip(rests, (0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0), strict=True):
        assert wanted_s <= rest_s <= wanted_s * 1.051
    assert len(set(rests)) == len(rests)


def test_what_the_cluster_tells_is_tried_too_until_it_tells_otherwise() -> None:
    pool = ServerPool((A,), retry_s=2.0)
    pool.next(now_s=0.0)
    pool.learn([B, A, C])
    assert {pool.next(now_s=0.0)[0] for _ in range(3)} == {A, B, C}
    pool.learn([C])
    assert {pool.next(now_s=0.0)[0] for _ in range(4)} == {A, C}
    pool.learn([])
    assert {pool.next(now_s=0.0)[0] for _ in range(2)} == {A}
