"""Test your own application against a whole world in one process.

    from syncengine.testing import World, assert_converged, simulate

    async def story(world):
        async with await world.replica("a") as a: ...

    def test_story():
        simulate(story, seeds=20)

The real engine runs in it: the same sessions, pump, back-off and storage code. What
is replaced is the event loop's clock, the wall clock, randomness, the network and
the disk. A failure prints the one command that repeats it.
"""

from syncengine.testing.world import (
    Invariant,
    Node,
    Report,
    World,
    assert_converged,
    simulate,
)

__all__ = ["Invariant", "Node", "Report", "World", "assert_converged", "simulate"]
