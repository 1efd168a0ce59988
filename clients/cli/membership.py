"""Who takes part: making a namespace, inviting, joining, leaving."""

import sys

import click

import transport
from clients.cli import control
from clients.cli.context import Context, command
from clients.cli.output import (
    exit_code,
)
from clients.cli.seconds import CONNECT_SECONDS, check_seconds, duration, within
from syncengine.errors import SyncError
from syncengine.trust.invite import parse as parse_invite


@click.command()
@click.argument("name", default="main")
@command
async def init(context: Context, name: str) -> None:
    """Make a replica and a namespace in it, called NAME."""
    path = context.settings.db
    async with context.open(create=True) as replica:
        fresh = not any(space.name == name for space in replica.spaces())
        space = await replica.namespace(name)
        data = {
            "db": path,
            "namespace": name,
            "namespace_id": space.id,
            "device": replica.id,
            "recovery_key": space.recovery_key,
            "created": fresh,
        }
        if not fresh:
            text = f"{path} has the namespace {name} already."
            if space.recovery_key is not None:
                text += (
                    f"\n\nIts recovery key is still in {path}-sync/recovery-*.txt: "
                    "write it down, keep it apart, then delete that file."
                )
            context.out.result(data, text)
            return
        context.out.result(
            data,
            f"{path} holds the namespace {name}.\n\n"
            f"Recovery key (write it down, keep it apart from this device, then delete "
            f"{path}-sync/recovery-*.txt):\n\n    {space.recovery_key}",
        )


@click.command()
@click.option("--lose-unsent", is_flag=True, help="Also what is on no other disk.")
@command
async def clear(context: Context, lose_unsent: bool) -> None:
    """Take a namespace out of the file; others keep what they have of it."""
    async with context.open() as replica:
        space = await context.space(replica)
        name = space.name or space.id
        await space.clear(lose_unsent=lose_unsent)
        data = {"cleared": name, "namespace_id": space.id}
        context.out.result(data, f"{name} is not in {context.settings.db} any more.")


@click.command()
@click.option(
    "--ops",
    type=click.Choice(["read", "write", "lead"]),
    default="write",
    show_default=True,
    help="lead: vote, and be elected.",
)
@click.option("--expires", default="24h", show_default=True, help="30m, 24h, 7d.")
@click.option("--uses", default=1, show_default=True)
@click.option("--hub", "address", help="The hub to be dialled by the newcomer.")
@click.option("--qr", is_flag=True, help="Show it as a QR code too.")
@click.option("--offline", is_flag=True, help="Do not tell the hub now.")
@click.option(
    "--timeout",
    "seconds",
    default=CONNECT_SECONDS,
    show_default=True,
    help="Seconds to wait for the hub.",
)
@command
async def invite(
    context: Context,
    ops: str,
    expires: str,
    uses: int,
    address: str | None,
    qr: bool,
    offline: bool,
    seconds: float,
) -> int:
    """Invite a device into the namespace."""
    check_seconds(seconds)
    if control.is_there(context.settings.db):
        seconds_left = duration(expires).total_seconds()
        asked = {"ops": ops, "uses": uses, "expires": seconds_left}
        text = await control.ask(
            context.settings.db, {"do": "invite", "hub": address or "", **asked}
        )
        if text is not None:  # a node has the file
            context.out.result({"invite": text, "uses": uses, "ops": ops}, text)
            return 0
    async with context.open() as replica:
        space = await context.space(replica)
        known = replica.invited_addresses()
        hub = address or context.settings.address or next(iter(known), "")
        made = await space.invite(ops, hub=hub, expires=duration(expires), uses=uses)
        context.out.result({"invite": str(made), "uses": uses, "ops": ops}, str(made))
        if qr:
            context.out.note(made.qr())
        if hub and not offline:
            try:
                async with transport.connect(replica, hub) as link:
                    await within(link.synced(), link, seconds)
            except (TimeoutError, SyncError) as error:
                context.out.note(
                    f"The hub has not been told of it ({error}). Run `syncengine sync` "
                    "before it is used."
                )
                return exit_code(error)
        elif not offline:
            context.out.note(
                "No hub is known: the newcomer is told none. `syncengine sync ADDRESS` "
                "first, or name one with --hub."
            )
        return 0


@click.command()
@click.argument("invitation")
@click.option("--name", help="Its name here.  [default: main]")
@click.option("--adopt", is_flag=True, help="Bring a local namespace of that name in.")
@command
async def join(
    context: Context, invitation: str, name: str | None, adopt: bool
) -> None:
    """Join a namespace by INVITATION (- reads it); works offline. Then `sync`.

    A restored or copied file is let in again by a fresh invitation.
    """
    if invitation == "-":
        invitation = sys.stdin.read()
    invite = parse_invite(invitation)
    async with context.open(create=True) as replica:
        here = any(space.engine.keeper.namespace == invite.namespace
                   for space in replica.spaces())  # fmt: skip
        if name is None and not here:
            name = "main"
        space = await replica.join(invite, name=name, adopt=adopt)
        data = {"namespace": space.name, "namespace_id": space.id, "device": replica.id}
        context.out.result(data, f"Joined as {space.name}. Next: syncengine sync")


@click.command()
@click.option("--namespace-id", help="Which, when it is not in the file.")
@click.option("--name", default="main", show_default=True, help="Its name here then.")
@click.option(
    "--key", prompt="Recovery key", hide_input=True, help="Asked for if not given."
)
@command
async def recover(
    context: Context, namespace_id: str | None, name: str, key: str
) -> None:
    """Make this device an owner's again, by the key that `init` printed. Then `sync`.

    In a restored backup; or, with --namespace-id, of what a hub still has.
    """
    async with context.open(create=namespace_id is not None) as replica:
        space = await replica.recover(key, namespace_id, name=name)
        data = {"namespace": space.name, "namespace_id": space.id, "device": replica.id}
        context.out.result(data, f"Owner of {space.name} again. Next: syncengine sync")


COMMANDS = [init, clear, invite, join, recover]
