"""The commands, together. Each does one thing through the public interface and prints
it."""

import asyncio
import logging
import math
import signal
import sys

import click

from clients.cli import (
    documents,
    files,
    fleet,
    history,
    linking,
    master,
    membership,
    node,
)
from clients.cli.context import Context, command
from clients.cli.output import (
    INTERRUPTED,
    USAGE,
    Output,
    stderr,
)
from syncengine.errors import Invalid


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--db", help="The replica's file [SYNCENGINE_DB; sync.db].")
@click.option("-n", "--namespace", help="Which namespace, where there are several.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Log what happens to stderr.")
@click.pass_context
def cli(
    ctx: click.Context,
    db: str | None,
    namespace: str | None,
    as_json: bool,
    verbose: bool,
) -> None:
    """Documents in a plain SQLite file that work offline and sync."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(levelname)s %(message)s",
        stream=sys.stderr,
    )
    ctx.obj = Context(as_json, db, namespace)


@cli.command()
@click.option("--trace", type=click.Path(exists=True), help="A recorded session.")
@click.option("--devices", default=3, show_default=True, help="Without --trace.")
@click.option("--speed", default=30.0, show_default=True, help="Times human typing.")
@click.option("--text", type=click.Path(exists=True), help="What is typed.")
@click.option("--keep", type=click.Path(), help="Leave the files in this folder.")
@command
async def demo(
    context: Context,
    trace: str | None,
    devices: int,
    speed: float,
    text: str | None,
    keep: str | None,
) -> int:
    """A hub and devices that edit one text, vanish, are killed, and meet again."""
    from clients.demo import play, replay

    if not 0 < speed < math.inf:
        raise Invalid(f"--speed is a number above 0, not {speed:g}")
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):  # what it started ends with it
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    if trace is not None:
        return await replay(context.out, trace, keep)
    return await play(context.out, devices, speed, text, keep)


MODULES = (membership, linking, documents, history, files, node, master)
for _command in (*(c for module in MODULES for c in module.COMMANDS), fleet.fleet):
    cli.add_command(_command)


def main() -> None:
    """The console script."""
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        if "--json" in sys.argv[1:]:
            Output(as_json=True).error(Invalid(error.format_message()))
        else:
            error.show()
        sys.exit(USAGE)
    except (KeyboardInterrupt, click.Abort):
        stderr.print("interrupted")
        sys.exit(INTERRUPTED)
