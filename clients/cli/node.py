"""Commands for nodes of a namespace that one leads: run one, look at it, tell it."""

import asyncio
import contextlib
import json
import signal
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import click
from rich.markup import escape

import syncengine
from clients.cli import control
from clients.cli.context import Context, command
from clients.cli.listening import Listen, connected, listening, parse_listen
from clients.cli.master import show_master
from clients.cli.output import NO, Output, table
from syncengine.errors import Invalid, NotFound, NotLeader, SyncError
from syncengine.ids import parse_device_id

if TYPE_CHECKING:
    from syncengine import LeaderFollowerManager, Space
    from syncengine.replication.modes import Mode


async def run(
    context: Context,
    name: str,
    *,
    role: Any,
    voters: tuple[str, ...],
    listen: Listen | None,
    peers: tuple[str, ...],
    timeout_ms: int,
) -> None:
    """Take part as a node until interrupted; print what happens."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with context.open() as replica, contextlib.AsyncExitStack() as stack:
        space = await context.space(replica)
        address = await connected(stack, replica, listen, peers)
        manager = syncengine.LeaderFollowerManager(
            *(name, role, None, space, space.name or space.id),
            heartbeat_interval_ms=max(1, timeout_ms // 5),
            heartbeat_timeout_ms=timeout_ms,
            voters=voters,
        )
        for event in ("roleChanged", "leaderChanged", "leaderFailed", "writesRescued"):
            manager.on(event, _printing(context.out, event))
        node = _Node(manager, space, replica.id, address or "")
        await stack.enter_async_context(control.answering(context.settings.db, node.do))
        await stack.enter_async_context(manager)
        started = {"event": "started", "node": name, "device": replica.id}
        text = f"{name} takes part; its device is {replica.id}"
        if address:
            text += f"\nothers reach it at {address}"
        context.out.result({**started, "address": address}, text)
        await stop.wait()
        context.out.note("Stopping.")
        if manager.get_role() == "leader":
            # Somebody else goes on at once, where there is anybody.
            with contextlib.suppress(SyncError):
                await manager.demote(timeout_ms=5_000)


def _printing(out: Output, event: str) -> Any:
    def show(what: Any) -> None:
        fields = asdict(what)
        told = ", ".join(f"{key} {value}" for key, value in fields.items())
        out.result({"event": event, **fields}, f"{event}: {told}")

    return show


class _Node:
    """What commands can ask of a running node."""

    def __init__(
        self,
        manager: "LeaderFollowerManager",
        space: "Space",
        device: str,
        address: str,
    ):
        self._manager = manager
        self._space = space
        self._device_here = device
        self._address = address

    async def do(self, request: dict[str, Any]) -> Any:
        manager, rescue = self._manager, self._space.rescue
        options = {key: value for key, value in request.items() if key != "do"}
        match request["do"]:
            case "write":
                result = await manager.write(**options)
                told = {**asdict(result), "token": result.token}
                del told["named"]
                return told
            case "read":
                return await manager.read_result(**options)
            case "promote":
                lost = [self._device(one) for one in options.pop("without", [])]
                await manager.promote(**options, without=lost)
                return self.told()
            case "demote":
                await manager.demote(**options)
                return self.told()
            case "peers":
                return self.told()
            case "invite":
                expires = timedelta(seconds=options["expires"])
                made = await self._space.invite(
                    options["ops"],
                    hub=options["hub"] or self._address,
                    expires=expires,
                    uses=options["uses"],
                )
                return str(made)
            case "add voter":
                self._check_leads()
                await manager.add_voter(self._device(options["node"]))
                return self.told()
            case "remove voter":
                self._check_leads()
                await manager.remove_voter(self._device(options["node"]))
                return self.told()
            case "mode":
                named = [self._device(one) for one in options["voters"]]
                if options["mode"] == "multi-master":
                    await manager.switch_to_masters()
                elif options["mode"] is not None:
                    await self._space.switch_mode(options["mode"], voters=named)
                return self._space.mode
            case "rescue list":
                return [asdict(one) for one in await rescue.list(**options)]
            case "rescue export":
                return await rescue.export(**options)
            case "rescue replay":
                return await rescue.replay(**options)
            case "rescue dismiss":
                return await rescue.dismiss(**options)
            case other:
                raise Invalid(f"a node knows nothing of {other!r}")

    def _device(self, node: str) -> str:
        """Return the device of a node by its name, or by its device's id."""
        if node == self._manager.get_node_id():
            return self._device_here
        state = self._manager.get_leader_state()
        known = {} if state is None else state.followers
        if node in known and known[node].device is not None:
            return str(known[node].device)
        try:
            parse_device_id(node)
        except Invalid:
            raise Invalid(
                f"no node {node!r} is known here; its device's id can be given, too. "
                f"Nodes: {', '.join(sorted(known)) or 'none'}; voters: "
                f"{', '.join(self._manager.get_voters()) or 'none'}"
            ) from None
        return node

    def _check_leads(self) -> None:
        if self._manager.get_role() != "leader":
            raise NotLeader(leader_id=self._manager.leader_id)

    def told(self) -> dict[str, Any]:
        """Return what this node is, and what it knows of the others."""
        manager = self._manager
        leading, following = manager.get_leader_state(), manager.get_follower_state()
        return {
            "node": manager.get_node_id(),
            "role": manager.get_role(),
            "leader_id": manager.leader_id,
            "term": manager.term,
            "voters": manager.get_voters(),
            "leader": None if leading is None else asdict(leading),
            "follower": None if following is None else asdict(following),
            "metrics": asdict(manager.get_metrics()),
        }


async def asked(context: Context, do: str, **options: Any) -> Any:
    """Ask the running node; raises `NotFound` where none is."""
    answer = await control.ask(context.settings.db, {"do": do, **options})
    if answer is None:
        raise NotFound(
            f"no node has {context.settings.db} open; `syncengine node NAME` runs one, "
            "`syncengine master NAME` a master"
        )
    return answer


async def rescued(context: Context, do: str, **options: Any) -> Any:
    """Ask the running node about the rescue area, or look into the file where none
    is."""
    answer = await control.ask(context.settings.db, {"do": f"rescue {do}", **options})
    if answer is not None:
        return answer
    async with context.open() as replica:
        space = await context.space(replica)
        found = await getattr(space.rescue, do)(**options)
        return [asdict(one) for one in found] if do == "list" else found


def show_peers(out: Output, told: dict[str, Any]) -> None:
    """Print what a node is, and whom it knows."""
    role, leader = told["role"], told["leader_id"] or "nobody that is known"
    if told["leader"] is None:
        state = told["follower"]
        stale = "stale" if state["is_stale"] else f"{state['staleness_ms']} ms old"
        text = (
            f"{told['node']} follows {leader} in term {told['term']}: "
            f"{state['applied_sequence']} of {state['stored_sequence']} writes show, "
            f"{stale}"
        )
        out.result(told, text)
        return
    shown = table("follower", "behind", "voter", "connected", "device")
    state = told["leader"]
    for name, one in sorted(state["followers"].items()):
        behind = max(0, state["current_sequence"] - one["last_reported_sequence"])
        # It may have voted before its backup; `voters add` lets it vote again.
        forgot = "votes no more" if one["is_voter"] and not one["votes"] else None
        shown.add_row(
            escape(name),
            str(behind),
            forgot or ("yes" if one["is_voter"] else "-"),
            "yes" if one["is_connected"] else "no",
            (one["device"] or "")[:8],
        )
    out.note(
        f"{told['node']} is the {role} of term {told['term']}; "
        f"{state['current_sequence']} writes, a majority has {state['commit_sequence']}"
    )
    out.result(told, shown)


def show_rescued(out: Output, found: list[dict[str, Any]]) -> None:
    """Print the rescue area."""
    shown = table("id", "when", "written by", "what", "operation", "decided")
    shown.columns[0].no_wrap = True  # it is copied into other commands
    shown.columns[0].min_width = max((len(one["id"]) for one in found), default=0)
    for one in found:
        shown.add_row(
            one["id"],
            str(one["at"])[:19].replace("T", " "),
            escape(one["leader_id"] or one["author"][:8]),
            escape(", ".join(one["documents"])),
            escape(one["operation_id"] or "-"),
            one["decided"] or "-",
        )
    out.result({"rescued": found}, shown)


def value_of(text: str) -> Any:
    """Return a value as JSON, or as the text itself where it is none."""
    try:
        return json.loads(text)
    except ValueError as error:
        if text[:1] in ("{", "[", '"'):
            raise Invalid(f"VALUE begins like JSON and is none: {error}") from error
        return text


# --- the commands -----------------------------------------------------------------


@click.command("node")
@click.argument("name")
@click.option(
    "--role", type=click.Choice(["leader", "follower"]), default="follower",
    show_default=True, help="leader: of a namespace that has none yet, or this one.",
)  # fmt: skip
@click.option("--voter", "voters", multiple=True, help="A device that votes; the first "
              "leader names all, itself too.")  # fmt: skip
@click.option("--listen", help="HOST:PORT at which others reach it.")
@listening
@click.option("--peer", "peers", multiple=True, help="An address to be dialled.")
@click.option("--heartbeat-timeout", "timeout_ms", default=5000, show_default=True,
              type=click.IntRange(10), help="Milliseconds of silence after which a "
              "leader has failed.")  # fmt: skip
@command
async def node_(
    context: Context,
    name: str,
    role: str,
    voters: tuple[str, ...],
    listen: str | None,
    peers: tuple[str, ...],
    timeout_ms: int,
    **options: Any,
) -> None:
    """Take part as NAME in a namespace that one leads, until interrupted.

    Three voters or more elect another leader when theirs fails; who is asked to stop
    hands over first.
    """
    at = None if listen is None else parse_listen(listen, **options)
    await run(
        context, name, role=role, voters=voters, listen=at, peers=peers,
        timeout_ms=timeout_ms,
    )  # fmt: skip


@click.command()
@command
async def peers(context: Context) -> None:
    """Show what the running node or master is: how far its followers are, where its
    conflicts."""
    told = await asked(context, "peers")
    if "master" in told:
        show_master(context.out, told)
    else:
        show_peers(context.out, told)


@click.command()
@click.option("--force", is_flag=True, help="Without a majority: what only others have "
              "goes to the rescue area.")  # fmt: skip
@click.option("--reason", default="", help="Why it is forced; it stands in the log.")
@click.option("--without", multiple=True, help="A voter that is lost for good, and "
              "votes no more: an owner says so.")  # fmt: skip
@click.option("--expected-term", type=int, help="Only while this is the term, as "
              "`peers` shows it: nobody else has decided meanwhile.")  # fmt: skip
@command
async def promote(
    context: Context,
    force: bool,
    reason: str,
    without: tuple[str, ...],
    expected_term: int | None,
) -> None:
    """Make the running node the leader.

    A leader goes on only while it hears from a majority of the voters: --force goes
    with --without where those that are gone do not come back.
    """
    if force and not reason:
        raise Invalid("--force goes with --reason: why, for the log")
    if without and not force:
        raise Invalid("--without goes with --force: what only they have is lost")
    require = "i_accept_loss" if force else "majority"
    told = await asked(
        context, "promote", require=require, reason=reason, without=list(without),
        expected_term=expected_term,
    )  # fmt: skip
    context.out.result(told, f"{told['node']} leads, in term {told['term']}.")


@click.command()
@command
async def demote(context: Context) -> None:
    """Let another node lead; it has all that was written when this returns."""
    told = await asked(context, "demote")
    leader = told["leader_id"] or "nobody: no follower that may lead was there"
    context.out.result(told, f"{told['node']} follows; the leader is {leader}.")


@click.command()
@click.argument(
    "new", required=False, type=click.Choice(["multi-master", "leader-follower"])
)
@click.option("--voter", "voters", multiple=True, help="With leader-follower: a node "
              "that votes, by its name or its device's id.")  # fmt: skip
@command
async def mode(context: Context, new: str | None, voters: tuple[str, ...]) -> None:
    """Show whether all write here or a leader alone, or switch it to NEW.

    Everybody may be at work meanwhile: what is written in the old mode and comes too
    late is in the rescue area. Nobody leads at first after leader-follower: three
    voters or more elect somebody, else `promote` a node.
    """
    if voters and new != "leader-follower":
        raise Invalid("--voter goes with leader-follower")
    told = await control.ask(
        context.settings.db, {"do": "mode", "mode": new, "voters": list(voters)}
    )
    if told is None:
        async with context.open() as replica:
            space = await context.space(replica)
            if new is not None:
                await space.switch_mode(cast("Mode", new), voters=voters)
            told = space.mode
    who = "all write" if told == "multi-master" else "the leader writes"
    context.out.result({"mode": told}, f"{told}: {who}")


@click.group()
def voters() -> None:
    """Whose majority decides who leads; changed on the leader, one at a time."""


@voters.command("add")
@click.argument("name")
@command
async def voters_add(context: Context, name: str) -> None:
    """Let a node vote: by its name, or its device's id."""
    told = await asked(context, "add voter", node=name)
    context.out.result(told, f"{len(told['voters'])} vote now.")


@voters.command("remove")
@click.argument("name")
@command
async def voters_remove(context: Context, name: str) -> None:
    """Let a node vote no more."""
    told = await asked(context, "remove voter", node=name)
    context.out.result(told, f"{len(told['voters'])} vote now.")


@click.command("write")
@click.argument("key")
@click.argument("value")
@click.option("--operation", type=click.Choice(["create", "update", "delete"]),
              default="update", show_default=True)  # fmt: skip
@click.option("--id", "client_op_id", help="The write's own name: it is done once.")
@command
async def write(
    context: Context, key: str, value: str, operation: str, client_op_id: str | None
) -> int:
    """Write VALUE (JSON, or text) under KEY, through the running node or master."""
    result = await asked(
        context, "write", key=key, value=value_of(value), operation=operation,
        client_op_id=client_op_id,
    )  # fmt: skip
    if "master_id" in result:
        waits = "; it waits here for the others" if result["queued"] else ""
        text = f"written by {result['master_id']}{waits}"
        context.out.result(result, text if result["success"] else result["error"])
        return 0 if result["success"] else NO
    text = f"written as {result['sequence']}, acknowledged by {result['level']}"
    if not result["success"]:
        who = f" ({result['leader_id']} leads)" if result["leader_id"] else ""
        text = f"{result['status']}: {result['error']}{who}"
    context.out.result(result, text)
    return 0 if result["success"] else NO


@click.command("read")
@click.argument("key")
@click.option("--strong", is_flag=True, help="From the leader, as a majority confirms.")
@command
async def read(context: Context, key: str, strong: bool) -> None:
    """Print what is under KEY, as the running node or master has it."""
    consistency = "strong" if strong else "any"
    result = await asked(context, "read", key=key, consistency=consistency)
    if result["value"] is None:
        raise NotFound(f"there is nothing under {key!r}, as this node has it")
    context.out.result(result, json.dumps(result["value"], ensure_ascii=False))


@click.group()
def rescue() -> None:
    """What was written and does not count: look at it, write it again, dismiss it."""


@rescue.command("list")
@click.option("--all", "decided", is_flag=True, help="Decided ones, too.")
@command
async def rescue_list(context: Context, decided: bool) -> None:
    """List what waits for a decision, in the order in which it was written."""
    found = await rescued(context, "list", decided=decided)
    show_rescued(context.out, found)


@rescue.command("show")
@click.argument("ids", nargs=-1)
@command
async def rescue_show(context: Context, ids: tuple[str, ...]) -> None:
    """Print, as JSON, what changes would have done; all that wait without IDS."""
    records = await rescued(context, "export", ids=list(ids) or None)
    text = json.dumps(records, indent=2, ensure_ascii=False)
    context.out.result({"rescued": records}, text)


@rescue.command("replay")
@click.argument("ids", nargs=-1)
@click.option("--over", is_flag=True, help="Write over what somebody wrote since.")
@command
async def rescue_replay(context: Context, ids: tuple[str, ...], over: bool) -> None:
    """Write changes again, on the leader; all that wait without IDS."""
    how = "write" if over else "merge"
    found = list(ids) or [one["id"] for one in await rescued(context, "list")]
    wrote = await rescued(context, "replay", ids=found, how=how)
    kept = [one for one in found if one not in wrote]
    text = f"{len(wrote)} written again."
    if kept:
        text += (
            f" {len(kept)} changed nothing, as it was written over since or is there "
            f"already: {', '.join(kept)}."
        )
        if not over:
            text += " `syncengine rescue replay --over ID` writes it all the same."
    context.out.result({"replayed": wrote, "changed_nothing": kept}, text)


@rescue.command("dismiss")
@click.argument("ids", nargs=-1, required=True)
@command
async def rescue_dismiss(context: Context, ids: tuple[str, ...]) -> None:
    """Decide that changes are not wanted; they stay in the log."""
    count = await rescued(context, "dismiss", ids=list(ids))
    context.out.result({"dismissed": count}, f"{count} dismissed.")


COMMANDS = [node_, peers, promote, demote, mode, voters, write, read, rescue]
