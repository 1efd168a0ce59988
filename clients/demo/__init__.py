"""The main job on real input: a hub and devices in processes of their own edit one
text together, go offline, are killed, come back, and end with the same text."""

from clients.demo.play import play
from clients.demo.replay import replay

__all__ = ["play", "replay"]
