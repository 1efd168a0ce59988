"""What people hold: the command line, the demo, and clients of several nodes."""

from clients.routing import CAUSAL, ReadRouter, RegionRouter, SessionConsistentClient

__all__ = ["CAUSAL", "ReadRouter", "RegionRouter", "SessionConsistentClient"]
