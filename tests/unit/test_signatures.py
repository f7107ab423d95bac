"""Signatures are those of `ssh-keygen`, in both directions, and nothing else is one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptvcs.errors import UsageError
from ckptvcs.signatures import KIND, Signed, claimed_key, fingerprint, is_right, new_key, public_key, read_key

KEY = new_key()


def keygen(*args: str | Path, stdin: bytes = b"", status: int = 0) -> bytes:
    done = subprocess.run(["ssh-keygen", *map(str, args)], input=stdin, capture_output=True, check=False)
    assert done.returncode == status, done.stderr
    return done.stdout


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_bytes(KEY.to_bytes())
    path.chmod(0o600)
    return path


def test_a_signature_has_the_bytes_that_ssh_keygen_writes(key_file: Path):
    for payload in (b"", b"x", b"tree 1\n\nwords\n" * 999):
        assert KEY.sign(payload) + b"\n" == keygen("-Y", "sign", "-q", "-n", "git", "-f", key_file, stdin=payload)


def test_ssh_keygen_verifies_what_is_signed_here_and_refuses_what_was_changed(tmp_path: Path):
    (tmp_path / "signers").write_text(f"me {KIND} {KEY.public}\n")
    (tmp_path / "sig").write_bytes(KEY.sign(b"words") + b"\n")
    verify = ("-Y", "verify", "-f", tmp_path / "signers", "-I", "me", "-n", "git", "-s", tmp_path / "sig")

    keygen(*verify, stdin=b"words")
    keygen(*verify, stdin=b"other words", status=255)


def test_a_key_that_ssh_keygen_made_signs(tmp_path: Path):
    keygen("-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key")
    key = read_key((tmp_path / "key").read_bytes(), where="key")

    assert (tmp_path / "key.pub").read_text().split()[:2] == [KIND, key.public]
    assert is_right(Signed(b"words", b"words", key.sign(b"words")))
    assert fingerprint(key.public) in keygen("-l", "-f", tmp_path / "key.pub").decode().split()


@pytest.mark.parametrize(
    "options", [["-t", "rsa", "-N", ""], ["-t", "ed25519", "-N", "secret"], ["-t", "ecdsa", "-N", ""]]
)
def test_a_key_that_cannot_sign_unattended_is_refused(tmp_path: Path, options: list[str]):
    keygen("-q", *options, "-f", tmp_path / "key")

    with pytest.raises(UsageError, match="cannot sign with 'key'"):
        read_key((tmp_path / "key").read_bytes(), where="key")


@pytest.mark.parametrize(
    "data", [b"", b"garbage", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"]
)
def test_what_is_no_key_is_refused(data: bytes):
    with pytest.raises(UsageError):
        read_key(data, where="key")


def test_a_signature_is_of_one_payload_with_one_key():
    signature = KEY.sign(b"head words")
    other = new_key()

    assert is_right(Signed(b"words", b"head words", signature))
    assert claimed_key(signature) == KEY.public
    assert not is_right(Signed(b"words", b"head  words", signature))
    assert not is_right(Signed(b"other", b"head words", signature)), "the data are not what was signed"
    assert not is_right(Signed(b"words", b"head words", other.sign(b"something else")))
    assert claimed_key(other.sign(b"head words")) == other.public


@given(st.integers(0, len(KEY.sign(b"x")) - 1), st.integers(0, 7))
def test_one_changed_bit_is_no_signature(place: int, bit: int):
    changed = bytearray(KEY.sign(b"x"))
    changed[place] ^= 1 << bit

    assert not is_right(Signed(b"x", b"x", bytes(changed)))


@given(st.binary(max_size=300))
def test_anything_else_is_no_signature(data: bytes):
    assert claimed_key(data) is None
    assert not is_right(Signed(b"x", b"x", data))


def test_a_signature_for_something_else_is_none(key_file: Path):
    other = keygen("-Y", "sign", "-q", "-n", "file", "-f", key_file, stdin=b"x").rstrip(b"\n")

    assert claimed_key(other) is None
    assert not is_right(Signed(b"x", b"x", other))


def test_what_is_no_public_key_is_none():
    for text in ("", "AAAA", "!", KEY.public[:-4], KEY.public + "AAAA", " " + KEY.public, "ü"):
        assert public_key(text) is None


def test_a_public_key_is_itself():
    assert public_key(KEY.public) == KEY.public
