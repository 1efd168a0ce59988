"""A second implementation, made from protocol.md alone, syncs with the real hub."""

import zlib
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from websockets.asyncio.client import connect

import syncengine
import transport
from syncengine.ids import DeviceId, base32
from syncengine.log.batch import Batch
from syncengine.replication.address import parse_address
from syncengine.trust.entry import entry_id
from tests.second_decoder import Dialler, pack, read_rows, unpack


async def test_it_shakes_hands_and_reads_what_a_member_wrote(tmp_path: Path) -> None:
    device = Ed25519PrivateKey.generate()
    public = device.public_key().public_bytes_raw()
    async with (
        syncengine.open_hub(str(tmp_path / "hub.db")) as hub,
        transport.serve(hub) as server,
        syncengine.open(":memory:") as member,
        transport.connect(member, server.address) as link,
    ):
        space = await member.namespace("home")
        for number in range(3):
            async with space.transaction() as tx:
                tx["note/1"]["title"] = f"title {number}"
        await space.grant_device(base32(public), "read")
        await link.synced()
        keeper = space.engine.keeper
        grant = keeper.membership.grant_of(DeviceId(public))
        assert grant is not None
        # What an invite or a member hands over: the namespace, and who vouches for us.
        entries = [
            [e.kind, e.body, e.signature] for e in keeper.membership.chain(grant)
        ]
        address = parse_address(server.address)

        async with connect(address.url, subprotocols=["sync.v1"]) as socket:  # type: ignore[list-item]
            dialler = Dialler(device, address.device)
            await socket.send(dialler.hello)
            opening: list[Any] = [
                *(10, 0, keeper.namespace, grant, None, 0, None, bytes(16), 0, None),
                *(bytes(32), entries, None),
            ]
            await socket.send(dialler.auth(await _frame(socket), [opening]))
            ready = unpack(dialler.theirs.open(await _frame(socket)))
            assert ready[0] == 4
            (opened,) = ready[3]
            assert opened[:2] == [11, 0]

            # Its cursor is void: it says that it has nothing, and is sent everything.
            await socket.send(dialler.ours.seal(pack([20, 0, [], []])))
            seen: list[bytes] = []
            position = 0
            while position < opened[3]:
                message = unpack(dialler.theirs.open(await _frame(socket)))
                if message[0] == 21:
                    _, _, (position, _), _, packed, body = message
                    body = zlib.decompress(body) if packed else body
                    seen += read_rows(body, keeper.namespace, member.key.public)
            await socket.send(dialler.ours.seal(pack([22, 0, position])))

        stored = [row for _, row in keeper.rows_after(0, 100)]
    assert set(seen) == {
        row.id if isinstance(row, Batch) else entry_id(row) for row in stored
    }


async def _frame(socket: Any) -> bytes:
    frame = await socket.recv()
    assert isinstance(frame, bytes)
    return frame
