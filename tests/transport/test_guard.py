"""What one address may do before anybody is known."""

import pytest

from syncengine import limits
from transport.guard import Guard

OFFICE, OTHER = "192.0.2.1", "2001:db8::1"


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_an_address_has_so_many_connections(clock: Clock) -> None:
    guard = Guard(clock)
    stayed = 0
    for _ in range(2 * limits.CONNECTIONS_PER_ADDRESS_MAX):
        clock.now += 1.0
        stayed += guard.enter(OFFICE)
    assert stayed == limits.CONNECTIONS_PER_ADDRESS_MAX
    assert guard.enter(OTHER)
    for _ in range(limits.CONNECTIONS_PER_ADDRESS_MAX + 1):
        guard.leave(OFFICE)
    assert guard.enter(OFFICE)


def test_a_household_of_ipv6_is_one(clock: Clock) -> None:
    guard = Guard(clock)
    for n in range(limits.AUTH_FAILURES_MAX):
        guard.failed(f"2001:db8:0:1::{n:x}")
    assert not guard.enter("2001:db8:0:1:ffff::1")
    assert guard.enter("2001:db8:0:2::1")
    for _ in range(limits.AUTH_FAILURES_MAX):
        guard.failed("::ffff:192.0.2.1")
    assert not guard.enter(OFFICE)


def test_an_address_comes_so_often(clock: Clock) -> None:
    guard = Guard(clock)

    def come(times: int) -> int:
        stayed = 0
        for _ in range(times):
            stayed += guard.enter(OFFICE)
            guard.leave(OFFICE)
        return stayed

    assert come(100) == limits.ADDRESS_UPGRADES_BURST
    clock.now += 1.0
    assert come(100) == limits.ADDRESS_UPGRADES_PER_SECOND


def test_all_together_come_so_often(clock: Clock) -> None:
    """A flood from everywhere does not eat the machine; what it was stays open."""
    guard = Guard(clock)

    def come(network: int) -> int:
        return sum(
            guard.enter(f"198.{network}.{n // 250}.{n % 250}") for n in range(500)
        )

    assert come(18) == limits.UPGRADES_PER_SECOND
    clock.now += 0.5
    assert come(19) == limits.UPGRADES_PER_SECOND / 2


def test_who_cannot_prove_who_they_are_waits(clock: Clock) -> None:
    guard = Guard(clock)
    for _ in range(limits.AUTH_FAILURES_MAX):
        assert guard.enter(OFFICE)
        guard.failed(OFFICE)
        guard.leave(OFFICE)
    assert not guard.enter(OFFICE)
    assert guard.enter(OTHER)
    clock.now += limits.AUTH_REFUSED_SECONDS + 1
    assert guard.enter(OFFICE)


@pytest.mark.parametrize("here", ["127.0.0.1", "::1"])
def test_this_machine_is_not_bounded(clock: Clock, here: str) -> None:
    guard = Guard(clock)
    for _ in range(limits.AUTH_FAILURES_MAX):
        guard.failed(here)

    assert all(guard.enter(here) for _ in range(1_000))
    assert guard.open == 1_000


def test_what_is_remembered_is_bounded(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ADDRESSES_KEPT_MAX", 3)
    guard = Guard(clock)
    for number in range(10):
        guard.failed(f"192.0.2.{number}")
        guard.leave(f"192.0.2.{number}")

    assert len(guard._visitors) == 3  # pyright: ignore[reportPrivateUsage]
