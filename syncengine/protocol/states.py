"""The states of a session, as a table.

Rules for editing it: every (state, input) that is legal has a line; whatever has
none closes the connection with 4400. `protocol.md` section 5 shows the same table,
and `tests/test_documents.py` compares the two.
"""

from enum import Enum


class State(Enum):
    """Where a session stands."""

    CONNECTING = "connecting"  # dialler: HELLO is sent
    LISTENING = "listening"  # listener: waits for HELLO
    CHALLENGED = "challenged"  # dialler: has CHALLENGE, AUTH is to be sent
    PROVING = "proving"  # listener: CHALLENGE is sent, waits for AUTH
    JUDGING = "judging"  # listener: has AUTH, READY is to be sent
    AUTHENTICATING = "authenticating"  # dialler: AUTH is sent, waits for READY
    LIVE = "live"
    CLOSED = "closed"


TRANSITIONS: dict[tuple[State, str], State] = {
    (State.CONNECTING, "receive CHALLENGE"): State.CHALLENGED,
    (State.CHALLENGED, "send AUTH"): State.AUTHENTICATING,
    (State.AUTHENTICATING, "receive READY"): State.LIVE,
    (State.LISTENING, "receive HELLO"): State.PROVING,
    (State.PROVING, "receive AUTH"): State.JUDGING,
    (State.JUDGING, "send READY"): State.LIVE,
    (State.LIVE, "receive message"): State.LIVE,
    (State.LIVE, "send message"): State.LIVE,
}
