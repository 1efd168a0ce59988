"""Invites: one string, read back whole, and shy."""

import pytest

from syncengine.errors import Invalid
from syncengine.ids import EntryId, NamespaceId
from syncengine.trust.invite import Invite, parse
from syncengine.trust.keys import ED25519

INVITE = Invite(
    NamespaceId(b"n" * 32), EntryId(b"g" * 32), b"secret-secret-se", 99, 7, "wss://h/#x"
)


def test_an_invite_is_read_back_even_when_a_mail_program_broke_it() -> None:
    text = str(INVITE)

    assert parse(f" {text[:40]}\n {text[40:]} ") == INVITE


def test_its_secret_hides_from_logs() -> None:
    assert "secret" not in repr(INVITE).replace("secret=", "")


def test_its_key_follows_from_its_secret() -> None:
    assert INVITE.key(ED25519).public == parse(str(INVITE)).key(ED25519).public


def test_a_qr_code_can_be_shown() -> None:
    assert INVITE.qr().count("\n") > 10


@pytest.mark.parametrize("at", range(6, len(str(INVITE))))
def test_a_slip_in_copying_is_noticed(at: int) -> None:
    text = str(INVITE)
    other = "A" if text[at] != "A" else "B"

    with pytest.raises(Invalid, match="damaged"):
        parse(text[:at] + other + text[at + 1 :])


@pytest.mark.parametrize(
    "text", ["", "hello", "sync1:", "sync1:xx", str(INVITE)[:-9], "sync1:kQI"]
)
def test_what_is_no_invite_says_so(text: str) -> None:
    with pytest.raises(Invalid, match="invite"):
        parse(text)
