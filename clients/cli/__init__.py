"""The `syncengine` command."""

from clients.cli.main import main

__all__ = ["main"]
