"""Who may write: the file is OpenSSH's, and says the same to us and to `ssh-keygen`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ckptvcs.domain import signers
from ckptvcs.domain.signers import BadSigners, Signer
from ckptvcs.signatures import KIND, new_key

KEY, OTHER = new_key(), new_key()
NOON = "2026-06-15T12:00:00.000000+00:00"
LINE = f"{KIND} {KEY.public}"


def test_lines_are_read_comments_and_blanks_left_out():
    found = signers.parse(f"# who may write\n\nada@example.com {LINE} Ada's laptop\n  bob {KIND} {OTHER.public}\n")

    assert [(s.name, s.key) for s in found.listed] == [("ada@example.com", KEY.public), ("bob", OTHER.public)]
    assert found.name_of(KEY.public) == "ada@example.com"
    assert found.name_of(new_key().public) is None
    assert found.may_write(OTHER.public, NOON)
    assert not found.may_write(new_key().public, NOON)
    assert not found.may_write(None, NOON)


@pytest.mark.parametrize(
    ("options", "may"),
    [
        ('valid-after="20260615Z"', True),
        ('valid-after="20260616Z"', False),
        ('valid-before="20260615Z"', False),
        ('valid-before="20260616Z"', True),
        ('valid-after="20260615115959Z"', True),
        ('valid-after="202606151201Z"', False),
        ('valid-before="202606151200Z"', True),
        ('valid-before="20260615115959Z"', False),
        ('valid-before="20260615120001Z"', True),
        ('namespaces="git"', True),
        ('namespaces="file,git"', True),
        ('namespaces="file"', False),
        ('namespaces="git",valid-after="20260101Z",valid-before="20270101Z"', True),
        ('namespaces="git",valid-after="20260101Z",valid-before="20260201Z"', False),
        ("cert-authority", False),
    ],
)
def test_options_say_when_and_what_for_as_ssh_keygen_has_it(tmp_path: Path, options: str, may: bool):
    text = f"ada {options} {LINE}\n"
    (tmp_path / "signers").write_text(text)
    (tmp_path / "sig").write_bytes(KEY.sign(b"x") + b"\n")
    command = [
        "ssh-keygen",
        "-Y",
        "verify",
        "-f",
        tmp_path / "signers",
        "-I",
        "ada",
        "-n",
        "git",
        "-s",
        tmp_path / "sig",
    ]
    done = subprocess.run(
        [*map(str, command), "-Overify-time=20260615120000Z"],
        input=b"x", capture_output=True, check=False, env={"TZ": "UTC"},
    )  # fmt: skip

    assert signers.parse(text).may_write(KEY.public, NOON) is may
    # OpenSSH 9.2 ignores the Z, and takes the time of `verify-time` for the place's own: with TZ=UTC that is the same.
    assert (done.returncode == 0) is may


def test_a_key_may_have_two_lines():
    text = f'ada valid-before="20260101Z" {LINE}\nada valid-after="20260601Z" {LINE}\n'

    assert signers.parse(text).may_write(KEY.public, NOON)
    assert not signers.parse(text).may_write(KEY.public, "2026-03-01T00:00:00.000000+00:00")


def test_keys_of_other_kinds_stand_there_and_sign_no_ledger():
    assert signers.parse("ada ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQ== ada\n").listed == ()


@pytest.mark.parametrize(
    "line",
    [
        "ada",
        "ada ssh-ed25519",
        f"ada {KIND} AAAA",
        f'ada valid-after="20260101" {LINE}',
        f'ada valid-after="soon" {LINE}',
        f'ada valid-after="20260101Z {LINE}',
        f'"two words" {LINE}',
        f"*@example.com {LINE}",
        f"!ada {LINE}",
    ],
    ids=range(9),
)
def test_a_line_that_cannot_be_understood_is_told_by_its_number(line: str):
    with pytest.raises(BadSigners) as caught:
        signers.parse(f"# first\n{line}\n")

    assert caught.value.line == 2


@pytest.mark.parametrize("name", ["", "two words", 'a"b', "a,b", "*", "!a", "#a", "a" * 201])
def test_what_cannot_stand_as_a_name_is_none(name: str):
    assert not signers.is_name(name)


def test_a_line_is_read_as_it_was_written():
    for signer in (
        Signer(name="ada@example.com", key=KEY.public),
        Signer(name="ada", key=KEY.public, after=NOON, before="2027-01-01T00:00:00.000000+00:00"),
    ):
        assert signers.parse(signers.line_of(signer)).listed == (signer,)
