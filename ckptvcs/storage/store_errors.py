"""What the error of a store means: why it was, whether trying again can help, and what to do.

Every file system has errors of its own, and none of them is imported here: they are told apart by the code that the store
gave (`AccessDenied`, HTTP status 401), or by the name of their class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ckptvcs.errors import StorageError, TierFull, TierReadOnly
from ckptvcs.paths import printable

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an error of a store means. `{name}` in it is the remote."""

    why: str
    """Empty where the store said it well itself."""
    next_step: str
    kind: type[StorageError] = StorageError
    passes: bool = False
    """Whether it may be over in a moment."""


_ENDPOINT: Final = "check the address, and that the server runs: 'dvc remote modify --help' has 'url' and 'endpointurl'"
_LATER: Final = Meaning("", "run the command again: it goes on where it was", passes=True)
_UNREACHABLE: Final = Meaning("", f"{_ENDPOINT}; then run the command again", passes=True)
_DENIED: Final = Meaning(
    "these credentials may not do that",
    "ask who keeps the store for the right to do it, or use other credentials: 'dvc remote modify --local {name} --help'",
    TierReadOnly,
)
_UNKNOWN_USER: Final = Meaning(
    "it does not let us in with these credentials",
    "give others with 'dvc remote modify --local {name} OPTION VALUE'",
)
_UNKNOWN_KEY: Final = Meaning(
    "it does not know this access key",
    "mend it with 'dvc remote modify --local {name} access_key_id KEY', or choose a 'profile'",
)
_WRONG_SECRET: Final = Meaning(
    "the secret key does not belong to the access key",
    "mend it with 'dvc remote modify --local {name} secret_access_key KEY'",
)
_NO_BUCKET: Final = Meaning(
    "there is no such bucket", "make the bucket, or mend the address with 'dvc remote modify {name} url URL'"
)
_NO_FOLDER: Final = Meaning(
    "the folder of its address is not there, or may not be written to",
    "make that folder on the server, or mend the address with 'dvc remote modify {name} url URL'",
)
_NO_CREDENTIALS: Final = Meaning(
    "there are no credentials for it",
    "give some with 'dvc remote modify --local {name} OPTION VALUE', a 'profile', or the environment",
)
_EXPIRED: Final = Meaning("the credentials are no longer valid", "get new ones, then run the command again")
_REGION: Final = Meaning(
    "the bucket is in another region", "name the region with 'dvc remote modify {name} region REGION'"
)
_CLOCK: Final = Meaning("the clock of this machine is too far off", "set the clock, then run the command again")
_BAD_REQUEST: Final = Meaning(
    "it makes no sense of what it was asked", "look at the options of the remote: 'dvc config --list'"
)
_FULL: Final = Meaning("there is no room left", "free some space there, then run the command again", TierFull)

_NO_REASON: Final = Meaning(
    "it gives no reason, as SFTP does when a disk is full",
    "see whether there is room, then run the command again: it goes on where it was",
    passes=True,
)

_BY_CODE: Final = {
    "InvalidAccessKeyId": _UNKNOWN_KEY,
    "SignatureDoesNotMatch": _WRONG_SECRET,
    "AccessDenied": _DENIED,
    "AllAccessDisabled": _DENIED,
    "AuthorizationPermissionMismatch": _DENIED,
    "AuthorizationFailure": _DENIED,
    "AuthenticationFailed": _UNKNOWN_USER,
    "NoSuchBucket": _NO_BUCKET,
    "ContainerNotFound": _NO_BUCKET,
    "ExpiredToken": _EXPIRED,
    "InvalidToken": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "RequestTimeTooSkewed": _CLOCK,
    "PermanentRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "NoSuchUpload": _LATER,
    "QuotaExceeded": _FULL,
    "InsufficientStorage": _FULL,
    "XMinioStorageFull": _FULL,
    "301": _REGION,
    "400": _BAD_REQUEST,
    "401": _UNKNOWN_USER,
    "403": _DENIED,
    "507": _FULL,
}
"""What stores call it; the numbers, which say less, come last."""
_BY_CLASS: Final = {
    "EndpointConnectionError": _UNREACHABLE,
    "ConnectError": _UNREACHABLE,
    "ConnectionRefusedError": _UNREACHABLE,
    "ServiceRequestError": _UNREACHABLE,
    "gaierror": _UNREACHABLE,
    "NoCredentialsError": _NO_CREDENTIALS,
    "PartialCredentialsError": _NO_CREDENTIALS,
    "ProfileNotFound": _NO_CREDENTIALS,
    "ForbiddenOperation": _DENIED,
    "SFTPPermissionDenied": _DENIED,
    "InsufficientStorage": _FULL,
    "SFTPNoSpaceOnFilesystem": _FULL,
    "SFTPQuotaExceeded": _FULL,
    "SFTPFailure": _NO_REASON,
    "PermissionDenied": _UNKNOWN_USER,
    "ResourceConflict": _NO_FOLDER,
    "PermissionError": _DENIED,
    "FileNotFoundError": _NO_FOLDER,
}
"""What libraries call it, of those that are more than one of these the one that says more first."""


def meaning(err: BaseException) -> Meaning:
    """What an error means; something that may pass, where it is none that is known to stay."""
    for table, words in ((_BY_CODE, _codes(err)), (_BY_CLASS, _classes(err))):
        for word, found in table.items():
            if word in words:
                return found
    return _LATER


def storage_error(what: str, name: str, err: BaseException) -> StorageError:
    """The error that a user is shown.

    Args:
        what: what failed, as the first line of an error.
        name: of the remote.
        err: what the store or its file system said.
    """
    found = meaning(err)
    why = f"{found.why} ({_said(err)})" if found.why else _said(err)
    return found.kind(
        what,
        why=why,
        next_step=found.next_step.replace("{name}", printable(name)),
        remote=name,
    )


def is_unreachable(err: BaseException) -> bool:
    """Whether nobody answered at all."""
    return meaning(err) is _UNREACHABLE


def says_exists(err: BaseException) -> bool:
    """Whether it says that a name is taken already, and not only that something went wrong.

    OpenSSH has no word of its own for it: SFTP version 3 knows no more than `Failure`.
    """
    return bool(
        {"PreconditionFailed", "412"} & set(_codes(err))
        or {"FileExistsError", "ResourceAlreadyExists", "SFTPFileAlreadyExists", "SFTPFailure"} & set(_classes(err))
    )


def says_behind_the_end(err: BaseException) -> bool:
    """Whether a range was asked for that begins where an object has ended already."""
    return bool({"InvalidRange", "416"} & set(_codes(err))) or "range is not satisfiable" in str(err)


def says_unsupported(err: BaseException) -> bool:
    """Whether it says that a store, or the library that talks to it, cannot do that at all."""
    return bool(
        {"NotImplemented", "501", "InvalidArgument", "InvalidRequest", "400"} & set(_codes(err))
        or {"TypeError", "NotImplementedError", "ParamValidationError"} & set(_classes(err))
    )


def says_no_bucket(err: BaseException) -> bool:
    """Whether all that holds the objects is missing, and not one of them."""
    return meaning(err) is _NO_BUCKET


def says_no_why(err: BaseException | None) -> bool:
    """Whether a store refused with no more than a number, as S3 does where an answer has no body; another question may tell."""
    return isinstance(err, PermissionError) or (err is not None and bool({"301", "400", "403"} & set(_codes(err))))


def _chain(err: BaseException) -> Iterator[BaseException]:
    """An error and what it was raised from."""
    seen: BaseException | None = err
    for _ in range(5):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__


def _codes(err: BaseException) -> list[str]:
    """What the store called it: S3 in `response`, Azure in `error_code`; else the HTTP status."""
    found = []
    for one in _chain(err):
        response = getattr(one, "response", None)
        told = response if isinstance(response, dict) else {}
        code = told.get("Error", {}).get("Code") or getattr(one, "error_code", None)
        found.append(
            code or told.get("ResponseMetadata", {}).get("HTTPStatusCode") or getattr(one, "status_code", None)
        )
    return [str(code) for code in found if code]


def _classes(err: BaseException) -> list[str]:
    return [cls.__name__ for one in _chain(err) for cls in type(one).__mro__]


def _said(err: BaseException) -> str:
    """What it said, in one line: Ceph sends a code and no words, for which Python shows `None`."""
    text = next((line for line in str(err).splitlines() if line.strip()), "")
    words = next((code for code in _codes(err) if not code.isdigit()), "")
    if text in ("", "None"):
        return printable(words or type(err).__name__)
    return printable(text if not words or words in text else f"{words}: {text}")[:300]
