"""The clocks: stamps only ever grow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncengine.clock import HybridClock, SteadyClock, ms_from_hlc


class Hand:
    """A clock whose hand the test moves."""

    def __init__(self, ms: int):
        self.ms = ms

    def now_ms(self) -> int:
        return self.ms


@given(st.lists(st.integers(0, 2**41), min_size=2))
def test_stamps_increase_whatever_the_wall_clock_does(times: list[int]) -> None:
    hand = Hand(0)
    clock = HybridClock(hand)
    stamps: list[int] = []
    for time in times:
        hand.ms = time
        stamps.append(clock.tick())

    assert stamps == sorted(set(stamps))


def test_a_stamp_exceeds_every_one_observed() -> None:
    clock = HybridClock(Hand(10))
    clock.observe(5_000 << 16)

    assert clock.tick() > 5_000 << 16


def test_a_restarted_clock_goes_on_from_its_high_water_mark() -> None:
    first = HybridClock(Hand(9_000))
    last = first.tick()

    assert HybridClock(Hand(1_000), last).tick() > last


def test_a_clock_set_back_by_an_hour_is_not_believed() -> None:
    hand, elapsed = Hand(10_000_000), [0.0]
    clock = SteadyClock(hand, lambda: elapsed[0])
    hand.ms -= 3_600_000
    elapsed[0] = 5.0

    assert clock.now_ms() == 10_005_000


def test_a_jump_forward_is_believed_since_machines_sleep() -> None:
    hand = Hand(10_000_000)
    clock = SteadyClock(hand, lambda: 0.0)
    hand.ms += 3_600_000

    assert clock.now_ms() == 13_600_000


def test_a_clock_that_was_set_right_is_not_corrected_any_more() -> None:
    hand = Hand(1_000_000)
    clock = SteadyClock(hand, lambda: 0.0)
    clock.hub_offset_ms = 3_600_000
    clock.saw(4_600_000)
    assert clock.now_ms() == 4_600_000
    hand.ms += 3_600_000

    assert clock.now_ms() == 4_600_000


def test_a_clock_that_catches_up_in_steps_does_not_run_ahead() -> None:
    hand = Hand(1_000_000)
    clock = SteadyClock(hand, lambda: 0.0)
    clock.hub_offset_ms = 100_000
    clock.saw(1_100_000)
    for _ in range(4):
        assert clock.now_ms() == 1_100_000
        hand.ms += 25_000  # each too little to be a clock that somebody set

    assert clock.now_ms() == 1_100_000


def test_reading_two_clocks_is_not_a_drift() -> None:
    """Both are cut to milliseconds, and one is read after the other."""
    hand = Hand(1_000_000)
    monotonic = 0.0
    clock = SteadyClock(hand, lambda: monotonic)
    clock.hub_offset_ms = 100_000
    clock.saw(1_100_000)
    for turn in range(10_000):
        hand.ms += 1 if turn % 2 else 0  # one of the two is always a bit late
        monotonic += 0.0 if turn % 2 else 0.001
        clock.now_ms()
    assert clock.offset_ms == 100_000


@pytest.mark.parametrize(
    ("hub", "member", "corrected"),
    [
        (90_000, None, 0),  # nobody agrees with the hub
        (90_000, 80_000, 80_000),
        (90_000, 400_000, 90_000),  # a member far ahead convinces nobody alone
        (0, 400_000, 0),
        (90_000, -5_000, 0),  # members agree with us
        (-90_000, None, -90_000),
        (-90_000, -100_000, -90_000),
        (-90_000, -3_000, -3_000),  # a hub that is behind what members signed lies
        (-90_000, 5_000, 0),
    ],
)
def test_a_hub_corrects_the_clock_as_far_as_members_agree(
    hub: int, member: int | None, corrected: int
) -> None:
    clock = SteadyClock(Hand(1_000_000), lambda: 0.0)
    clock.hub_offset_ms = hub
    if member is not None:
        clock.saw(1_000_000 + member - 70_000)
        clock.saw(1_000_000 + member)

    assert clock.now_ms() == 1_000_000 + corrected
    assert clock.own_ms() == 1_000_000


def test_milliseconds_are_read_back_from_a_stamp() -> None:
    assert ms_from_hlc(HybridClock(Hand(123_456)).tick()) == 123_456
