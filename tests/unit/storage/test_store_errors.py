"""Errors of stores: told apart by their codes, without the libraries that raise them."""

from __future__ import annotations

import pytest

from ckptvcs.errors import StorageError, TierFull, TierReadOnly
from ckptvcs.storage import store_errors


class ClientError(Exception):
    """As botocore has it."""

    def __init__(self, code: str, status: int) -> None:
        super().__init__(f"An error occurred ({code})")
        self.response = {"Error": {"Code": code, "Message": None}, "ResponseMetadata": {"HTTPStatusCode": status}}


class HTTPError(Exception):
    """As webdav4 and Azure have it."""

    def __init__(self, status_code: int, error_code: str | None = None) -> None:
        super().__init__(f"received {status_code}")
        self.status_code = status_code
        self.error_code = error_code


def caused(err: Exception, cause: Exception) -> Exception:
    err.__cause__ = cause
    return err


@pytest.mark.parametrize(
    ("err", "why", "kind"),
    [
        (
            caused(PermissionError(None), ClientError("InvalidAccessKeyId", 403)),
            "does not know this access key",
            StorageError,
        ),
        (
            caused(PermissionError(None), ClientError("AccessDenied", 403)),
            "may not do that (AccessDenied)",
            TierReadOnly,
        ),
        (caused(PermissionError("Forbidden"), ClientError("403", 403)), "may not do that (Forbidden)", TierReadOnly),
        (
            caused(FileNotFoundError(None), ClientError("NoSuchBucket", 404)),
            "no such bucket (NoSuchBucket)",
            StorageError,
        ),
        (caused(OSError(22, None), ClientError("QuotaExceeded", 403)), "no room left (QuotaExceeded", TierFull),
        (HTTPError(401), "does not let us in with these credentials (received 401)", StorageError),
        (HTTPError(507), "there is no room left", TierFull),
        (HTTPError(403, "AuthenticationFailed"), "does not let us in", StorageError),
        (ConnectionResetError("reset"), "reset", StorageError),
        (OSError(5, None), "", StorageError),
    ],
)
def test_an_error_says_why_and_what_next(err: Exception, why: str, kind: type[StorageError]):
    found = store_errors.storage_error("cannot push", "team{x}", err)

    assert why in found.why
    assert type(found) is kind
    assert found.next_step
    assert "{name}" not in found.next_step
    assert found.facts["remote"] == "team{x}"


@pytest.mark.parametrize(
    ("err", "passes"),
    [
        (ClientError("SlowDown", 503), True),
        (ClientError("InternalError", 500), True),
        (TimeoutError(), True),
        (ConnectionRefusedError(), True),
        (ClientError("NoSuchUpload", 404), True),
        (ClientError("AccessDenied", 403), False),
        (HTTPError(401), False),
        (FileNotFoundError(), False),
    ],
)
def test_only_what_may_pass_is_tried_again(err: Exception, passes: bool):
    assert store_errors.meaning(err).passes is passes


def test_that_a_name_is_taken_is_something_else_than_that_it_failed():
    taken = [FileExistsError(), caused(OSError(22, None), ClientError("PreconditionFailed", 412)), HTTPError(412)]
    failed = [PermissionError(), ConnectionResetError(), OSError(22, "no"), ClientError("AccessDenied", 403)]

    assert [store_errors.says_exists(err) for err in taken] == [True] * 3
    assert [store_errors.says_exists(err) for err in failed] == [False] * 4


def test_control_characters_of_a_server_do_not_reach_the_terminal():
    assert "\x1b" not in store_errors.storage_error("cannot push", "r", OSError("\x1b[2J")).why


def test_a_chain_of_causes_that_bites_its_tail_ends():
    one, two = OSError("one"), OSError("two")
    one.__cause__, two.__cause__ = two, one

    assert store_errors.meaning(one).passes
