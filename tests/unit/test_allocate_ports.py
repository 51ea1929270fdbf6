"""Port leases: rest after release, affinity, order, exhaustion."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai_worker.domain.allocate_ports import NoFreePort, PortLease, PortPool
from localai_worker.domain.backend import ReplicaKey

A, B, C = ReplicaKey("a", 0), ReplicaKey("b", 0), ReplicaKey("c", 0)


def any_port(_port: int) -> bool:
    return True


def test_the_base_port_goes_out_last() -> None:
    """N-B25: an address equal to the node's own is never probed by the frontend."""
    pool = PortPool(range(100, 103))
    assert [pool.lease(key, now_s=0, usable=any_port).port for key in (A, B, C)] == [101, 102, 100]


def test_a_released_port_rests_before_another_replica_gets_it() -> None:
    """S-W31, G-F14: 15 s of quarantine, also for a port whose process failed to start."""
    pool = PortPool(range(100, 101))
    pool.release(pool.lease(A, now_s=0, usable=any_port), now_s=10)
    with pytest.raises(NoFreePort) as caught:
        pool.lease(B, now_s=24.9, usable=any_port)
    assert caught.value.resting == 1
    assert pool.lease(B, now_s=25, usable=any_port).port == 100


def test_a_freed_port_goes_back_to_its_own_key() -> None:
    """S-W32: the same model finds the port it had, for five minutes."""
    pool = PortPool(range(100, 110))
    first = pool.lease(A, now_s=0, usable=any_port)
    pool.lease(B, now_s=0, usable=any_port)
    pool.release(first, now_s=0)
    assert pool.lease(C, now_s=20, usable=any_port).port != first.port
    assert pool.lease(A, now_s=20, usable=any_port).port == first.port


def test_a_claim_ends_after_five_minutes() -> None:
    pool = PortPool(range(100, 110))
    first = pool.lease(A, now_s=0, usable=any_port)
    pool.release(first, now_s=0)
    assert pool.lease(B, now_s=299, usable=any_port).port != first.port
    assert pool.lease(C, now_s=300, usable=any_port).port == first.port


def test_a_claimed_port_is_taken_rather_than_failing_the_newest_release_first() -> None:
    """S-W32: affinity is a preference, not a reason to refuse work."""
    pool = PortPool(range(100, 102))
    leases = [pool.lease(key, now_s=0, usable=any_port) for key in (A, B)]
    pool.release(leases[1], now_s=1)
    pool.release(leases[0], now_s=2)
    assert pool.lease(C, now_s=30, usable=any_port).port == leases[0].port


def test_exhaustion_names_the_range_and_the_remedy() -> None:
    """S-W28: never beyond the range, and the error says what to widen."""
    pool = PortPool(range(100, 102))
    pool.release(pool.lease(A, now_s=0, usable=any_port), now_s=0)
    pool.lease(B, now_s=0, usable=any_port)
    with pytest.raises(NoFreePort) as caught:
        pool.lease(C, now_s=1, usable=any_port)
    assert str(caught.value) == (
        "allocating gRPC port for backend c#0: no free gRPC port in range: 100-101 is fully consumed by "
        "1 running backend(s) and 1 port(s) still in quarantine; "
        "raise LOCALAI_GRPC_MAX_PORT to widen the range"
    )


def test_a_port_taken_by_another_program_is_skipped() -> None:
    """N-B16: the bind test decides, and the error counts what it found taken."""
    pool = PortPool(range(100, 103))
    assert pool.lease(A, now_s=0, usable=lambda port: port != 101).port == 102
    with pytest.raises(NoFreePort, match="2 taken by other programs"):
        pool.lease(B, now_s=0, usable=lambda _port: False)


def test_a_crash_loop_does_not_use_up_the_range() -> None:
    """S-W29: every release gives the port back, so two ports serve any number of crashes."""
    pool = PortPool(range(100, 102))
    for start in range(200):
        lease = pool.lease(A, now_s=start * 16, usable=any_port)
        pool.release(lease, now_s=start * 16)
    assert pool.leased == {}


def test_releasing_twice_never_frees_the_port_of_a_replacement() -> None:
    """S-W27: the second release of an old lease leaves the new holder alone."""
    pool = PortPool(range(100, 101))
    old = pool.lease(A, now_s=0, usable=any_port)
    pool.release(old, now_s=0)
    new = pool.lease(B, now_s=20, usable=any_port)
    pool.release(old, now_s=21)
    assert pool.leased == {new.port: B}


def test_an_adopted_port_is_leased_whatever_its_state() -> None:
    pool = PortPool(range(100, 102))
    pool.claim(PortLease(A, 101))
    assert pool.leased == {101: A}
    assert pool.lease(B, now_s=0, usable=any_port).port == 100


@given(
    steps=st.lists(
        st.tuples(st.booleans(), st.integers(0, 5), st.floats(0, 40, allow_nan=False)), max_size=80
    )
)
def test_whatever_happens_no_port_has_two_owners_and_none_is_handed_out_unrested(
    steps: list[tuple[bool, int, float]],
) -> None:
    """S-W26 in small: leases are exclusive and quarantine holds for every order of events."""
    pool = PortPool(range(100, 104))
    held: dict[int, PortLease] = {}
    released_at: dict[int, float] = {}
    now_s = 0.0
    for take, which, passes_s in steps:
        now_s += passes_s
        if take:
            try:
                lease = pool.lease(ReplicaKey("m", which), now_s=now_s, usable=any_port)
            except NoFreePort:
                resting = sum(now_s - at_s < 15 for at_s in released_at.values())
                assert len(held) + resting == 4
                continue
            assert lease.port not in held
            assert now_s - released_at.pop(lease.port, -15) >= 15
            held[lease.port] = lease
        elif held:
            lease = held.pop(sorted(held)[which % len(held)])
            pool.release(lease, now_s=now_s)
            released_at[lease.port] = now_s
    assert pool.leased == {port: lease.key for port, lease in held.items()}
