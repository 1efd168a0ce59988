"""The protocol without I/O: bytes in, events out; no await, no socket, no clock."""
