"""The `syncengine` command."""

import sys


def main() -> None:
    """The console script: what it needs is imported here, where Ctrl-C is quiet."""
    try:
        from clients.cli.main import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.exit(f"the command line needs {error.name}: pip install 'syncengine[cli]'")
    run()


__all__ = ["main"]
