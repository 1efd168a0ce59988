"""An invite: the one string by which a device is brought into a namespace.

`sync1:` and base64url of `[1, namespace, grant, secret, accept_by, ops, address]` and,
behind it, the first four bytes of its SHA-256: a slip in copying is noticed at once.
The secret seeds the key that the grant names; the new device signs its own grant
link with that key, so joining works with nobody else online. Whoever holds the
string can use it: treat it like a password until it is used or expired.
"""

import base64
import hashlib
from dataclasses import dataclass, field
from typing import Any

from syncengine import values
from syncengine.errors import Invalid
from syncengine.ids import EntryId, NamespaceId
from syncengine.trust.keys import PrivateKey, Scheme

PREFIX = "sync1:"
SECRET_BYTES = 16
CHECK_BYTES = 4


@dataclass(frozen=True)
class Invite:
    """An invitation into a namespace; `str()` gives it, `repr()` hides its secret."""

    namespace: NamespaceId
    grant: EntryId
    secret: bytes = field(repr=False)
    accept_by_ms: int
    ops: int
    address: str
    """The hub's address without its ticket; empty when none was named."""

    def __str__(self) -> str:
        fields = [
            1,
            self.namespace,
            self.grant,
            self.secret,
            self.accept_by_ms,
            self.ops,
            self.address,
        ]
        packed = values.encode(fields)
        body = base64.urlsafe_b64encode(packed + _check(packed)).decode()
        return PREFIX + body.rstrip("=")

    def key(self, scheme: Scheme) -> PrivateKey:
        """Return the key that signs the newcomer's grant."""
        return invite_key(self.secret, scheme)

    def qr(self) -> str:
        """Return the invite as a QR code for a terminal (needs `segno`)."""
        import io

        try:
            import segno
        except ModuleNotFoundError:
            raise Invalid(
                "a QR code needs segno: pip install 'syncengine[cli]'"
            ) from None

        out = io.StringIO()
        segno.make(str(self), error="l").terminal(out=out, compact=True)
        return out.getvalue()


def invite_key(secret: bytes, scheme: Scheme) -> PrivateKey:
    """Return the key that an invite with this secret speaks for."""
    return scheme.private_key(hashlib.sha256(b"sync1:invite\0" + secret).digest())


def parse(text: str) -> Invite:
    """Return the invite in `text`; raises `Invalid` when it is not one."""
    text = "".join(text.split())
    if not text.startswith(PREFIX):
        raise Invalid("an invite begins with 'sync1:'")
    body = text[len(PREFIX) :]
    try:
        raw = base64.b64decode(
            body + "=" * (-len(body) % 4), altchars=b"-_", validate=True
        )
        packed, check = raw[:-CHECK_BYTES], raw[-CHECK_BYTES:]
        if _check(packed) != check:
            raise ValueError("the check does not match")
        version, namespace, grant, secret, accept_by, ops, address, *_ = values.decode(
            packed
        )
    except (*values.DECODE_ERRORS, TypeError) as error:
        raise Invalid("this invite is damaged; copy it again as a whole") from error
    if version != 1:
        raise Invalid("this invite was made by a newer version; update to use it")
    if not (
        _is(namespace, 32)
        and _is(grant, 32)
        and _is(secret, SECRET_BYTES)
        and type(accept_by) is int
        and type(ops) is int
        and isinstance(address, str)
    ):
        raise Invalid("this invite is damaged; copy it again as a whole")
    return Invite(
        NamespaceId(namespace), EntryId(grant), secret, accept_by, ops, address
    )


def _check(packed: bytes) -> bytes:
    return hashlib.sha256(packed).digest()[:CHECK_BYTES]


def _is(value: Any, length: int) -> bool:
    return isinstance(value, bytes) and len(value) == length
