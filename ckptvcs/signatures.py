"""Signatures: Ed25519 in OpenSSH's formats, so that git and `ssh-keygen` can check what is signed here without ckptvcs.

A signature is what `git commit -S` makes with `gpg.format=ssh`: https://github.com/openssh/openssh-portable/blob/master/PROTOCOL.sshsig
Who may sign is not known here; that a signature is right says only that its key was there.
"""

from __future__ import annotations

import base64
import binascii
import functools
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NewType

from ckptvcs.errors import UsageError
from ckptvcs.paths import printable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PublicKey = NewType("PublicKey", str)
"""As in a `.pub` file behind `ssh-ed25519`: base64 of type and key, `AAAAC3NzaC1lZDI1NTE5AAAA...`."""

KIND: Final = "ssh-ed25519"
_KEY_BYTES: Final = 32
_SIGNATURE_BYTES: Final = 64
_NAMESPACE: Final = b"git"
_HASH: Final = b"sha512"
_MAGIC: Final = b"SSHSIG"
_BEGIN: Final = b"-----BEGIN SSH SIGNATURE-----\n"
_END: Final = b"-----END SSH SIGNATURE-----"
_COLUMNS: Final = 70
"""Of base64 in a line, as `ssh-keygen` writes it."""


@dataclass(frozen=True, slots=True)
class Signed:
    """Bytes, and who vouches for them."""

    data: bytes
    payload: bytes = b""
    """What was signed, of which `data` is the end."""
    signature: bytes = b""
    """Armoured; empty if nobody signed."""


class SigningKey:
    """A private key, which never leaves this process but by `to_bytes`."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        raw = key.public_key().public_bytes_raw()
        self.public = PublicKey(base64.b64encode(_string(KIND.encode()) + _string(raw)).decode("ascii"))

    def sign(self, payload: bytes) -> bytes:
        """Sign bytes; the same bytes give the same signature, and that which `ssh-keygen -Y sign -n git` gives."""
        return _armoured(self.public, self._key.sign(_to_be_signed(payload)))

    def to_bytes(self) -> bytes:
        """The key as `ssh-keygen` stores it, without a passphrase."""
        from cryptography.hazmat.primitives import serialization

        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )


def new_key() -> SigningKey:
    """Make a key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return SigningKey(Ed25519PrivateKey.generate())


@functools.lru_cache(maxsize=2)
def read_key(data: bytes, *, where: str) -> SigningKey:
    """Read a private key as `ssh-keygen -t ed25519` makes them.

    Raises:
        UsageError: it is none, is of another kind, or has a passphrase, which nobody is there to type.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    try:
        key = load_ssh_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as err:
        raise _no_key(where, str(err).lower().rstrip(".")) from err
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key(where, "it is of another kind than Ed25519")
    return SigningKey(key)


def _no_key(where: str, why: str) -> UsageError:
    return UsageError(
        f"cannot sign with '{printable(where)}'",
        why=printable(why)[:200],
        next_step="name a private key without passphrase; 'ssh-keygen -t ed25519 -N \"\" -f NEWFILE' makes one",
    )


def public_key(text: str) -> PublicKey | None:
    """A public key in the one form that its bytes have; None if a text is none, or of another kind."""
    head = _string(KIND.encode()) + struct.pack(">I", _KEY_BYTES)
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(raw) != len(head) + _KEY_BYTES or not raw.startswith(head):
        return None
    return PublicKey(base64.b64encode(raw).decode("ascii"))


def fingerprint(key: PublicKey) -> str:
    """What people compare, as `ssh-keygen -l` prints it."""
    import hashlib  # loads OpenSSL, which a look at a repository without a ledger need not pay for

    hashed = hashlib.sha256(base64.b64decode(key)).digest()
    return f"SHA256:{base64.b64encode(hashed).decode('ascii').rstrip('=')}"


# ---------------------------------------------------------------------------------------------------------- signatures


def claimed_key(signature: bytes) -> PublicKey | None:
    """The key that a signature says it was made with; None if it is no signature of ours. It proves nothing."""
    parts = _parts(signature)
    return None if parts is None else parts[0]


def is_right(signed: Signed) -> bool:
    """Whether the key that a signature names made it of this payload, and the data are the end of the payload."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    parts = _parts(signed.signature)
    if parts is None or not signed.payload.endswith(signed.data):
        return False
    key, raw = parts
    try:
        Ed25519PublicKey.from_public_bytes(base64.b64decode(key)[-_KEY_BYTES:]).verify(
            raw, _to_be_signed(signed.payload)
        )
    except (InvalidSignature, ValueError):
        return False
    return True


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _to_be_signed(payload: bytes) -> bytes:
    import hashlib  # likewise

    return _MAGIC + b"".join(map(_string, (_NAMESPACE, b"", _HASH, hashlib.sha512(payload).digest())))


def _armoured(key: PublicKey, raw: bytes) -> bytes:
    signature = _string(KIND.encode()) + _string(raw)
    parts = (base64.b64decode(key), _NAMESPACE, b"", _HASH, signature)
    text = base64.b64encode(_MAGIC + struct.pack(">I", 1) + b"".join(map(_string, parts)))
    lines = [text[at : at + _COLUMNS] for at in range(0, len(text), _COLUMNS)]
    return _BEGIN + b"".join(line + b"\n" for line in lines) + _END


def _parts(signature: bytes) -> tuple[PublicKey, bytes] | None:
    """Key and raw signature. There is one form: what we would not write in the same bytes is none."""
    body = signature.removeprefix(_BEGIN).removesuffix(_END)
    try:
        blob = base64.b64decode(body.replace(b"\n", b""), validate=True)
    except (binascii.Error, ValueError):
        return None
    at = len(_MAGIC) + 4 + 4  # behind the version, and the length of the key
    size = len(_string(KIND.encode())) + 4 + _KEY_BYTES
    key, raw = public_key(base64.b64encode(blob[at : at + size]).decode("ascii")), blob[-_SIGNATURE_BYTES:]
    return (key, raw) if key is not None and _armoured(key, raw) == signature else None
