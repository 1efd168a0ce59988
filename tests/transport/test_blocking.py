"""Links and servers without async, over real sockets."""

from pathlib import Path

import pytest

import syncengine.blocking as syncengine
import transport.blocking as transport


def test_two_devices_meet_through_a_hub(tmp_path: Path) -> None:
    with (
        syncengine.open_hub(str(tmp_path / "hub.db")) as hub,
        transport.serve(hub) as server,
        syncengine.open(str(tmp_path / "a.db")) as a,
        syncengine.open(":memory:") as b,
    ):
        space = a.namespace("home")
        with space.transaction() as tx:
            tx["note/1"]["title"] = "hello"
        with transport.connect(a, server.address) as link:
            link.synced(timeout=20)
            tx.receipt.durable_on("hub", timeout=20)
            invite = space.invite("write", hub=link.hub)
            link.synced(timeout=20)
            theirs = b.join(str(invite), name="home")
            with transport.connect(b) as other:
                other.connected(timeout=20)
                other.synced(timeout=20)
                assert theirs.get("note/1")["title"] == "hello"
                assert (link.state, other.state) == ("live", "live")
                watching = space.watch("note/1")
                next(watching)
                with theirs.transaction() as tx:
                    tx["note/1"]["title"] = "answer"
                assert next(watching)["title"] == "answer"
            assert len(space.peers()) == 1
        assert server.port


def test_nobody_there_is_a_timeout(tmp_path: Path) -> None:
    with syncengine.open(":memory:") as a:
        a.namespace("home")
        with transport.connect(a, f"ws://127.0.0.1:1/#{'a' * 51}q") as link:
            with pytest.raises(TimeoutError):
                link.synced(timeout=0.3)
            assert link.state in ("connecting", "waiting")
