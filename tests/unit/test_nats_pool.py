"""The turns in which servers are tried."""

from collections import Counter

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


def test_what_the_cluster_tells_is_tried_too_until_it_tells_otherwise() -> None:
    pool = ServerPool((A,), retry_s=2.0)
    pool.next(now_s=0.0)
    pool.learn([B, A, C])
    assert {pool.next(now_s=0.0)[0] for _ in range(3)} == {A, B, C}
    pool.learn([C])
    assert {pool.next(now_s=0.0)[0] for _ in range(4)} == {A, C}
    pool.learn([])
    assert {pool.next(now_s=0.0)[0] for _ in range(2)} == {A}
