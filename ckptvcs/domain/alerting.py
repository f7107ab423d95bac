"""What `alerts` of `ckpt.yaml` says, as values: what somebody wants to be told of. The rules themselves are in `alerts`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from ckptvcs.domain.keeping import check_size, check_span
from ckptvcs.domain.policy_values import STRICT, BadValue, check_positive, described

_MAX_ARGUMENTS: Final = 64


@dataclass(frozen=True, kw_only=True)
class Growth:
    """How much may be added in how long."""

    __pydantic_config__: ClassVar[Any] = STRICT

    max_bytes: str = field(
        metadata=described(
            "bytes that new checkpoints may add in the period, such as `500GB`; what they share counts once"
        )
    )
    period: str = field(default="7d", metadata=described("the period, such as `24h` or `7d`"))

    def __post_init__(self) -> None:
        """Check what types cannot say.

        Raises:
            BadValue: a value cannot be used.
        """
        check_size("max_bytes", self.max_bytes)
        check_span("period", self.period)


@dataclass(frozen=True, kw_only=True)
class Quota:
    """How many bytes a place has room for, and how long before it is full somebody wants to know."""

    __pydantic_config__: ClassVar[Any] = STRICT

    places: dict[str, str] = field(
        metadata=described(
            "bytes that a place has room for: `hot`, the local cache, or the name of a remote, and `20TB`"
        )
    )
    within: str = field(
        default="14d", metadata=described("tell when a place is full within that, at the growth of the period")
    )
    period: str = field(default="7d", metadata=described("the growth of how long is reckoned with"))

    def __post_init__(self) -> None:
        """Check what types cannot say.

        Raises:
            BadValue: a value cannot be used.
        """
        if not self.places:
            raise BadValue("places", "there is no place: say 'hot' or the name of a remote, and its bytes")
        for place, text in self.places.items():
            try:
                check_size(place, text)
            except BadValue as err:
                raise BadValue("places", f"'{place}': {err}") from err
        check_span("within", self.within)
        check_span("period", self.period)


@dataclass(frozen=True, kw_only=True)
class Alerts:
    """What somebody wants to be told of."""

    __pydantic_config__: ClassVar[Any] = STRICT

    growth: Growth | None = field(default=None, metadata=described("when checkpoints add more than that"))
    quota: Quota | None = field(default=None, metadata=described("when a place will be full before long"))
    save_within: str | None = field(
        default=None,
        metadata=described(
            "the recovery point: when a run that is under way would lose more work than that, such as `2h`, if it failed now"
        ),
    )
    restore_within: str | None = field(
        default=None,
        metadata=described(
            "the recovery time: when the last checkout, restore or export took longer than that. Only where this is said "
            "they tell the ledger how long they took"
        ),
    )
    push_within: str | None = field(
        default=None,
        metadata=described("when a checkpoint that is older than that is in no warm remote, such as `12h`"),
    )
    proof_within: str | None = field(
        default=None,
        metadata=described("when a golden mark has not been proved to restore for longer than that, such as `30d`"),
    )
    command: tuple[str, ...] = field(
        default=(),
        metadata=described(
            "a program and its arguments, run without a shell, that gets the alerts as JSON on its stdin; "
            "only where this machine [allows it](../howto/automate-retention.md#to-a-webhook)"
        ),
    )
    timeout_s: float = field(default=30.0, metadata=described("seconds that the program may take"))

    def __post_init__(self) -> None:
        """Check what types cannot say.

        Raises:
            BadValue: a value cannot be used.
        """
        for key in ("save_within", "restore_within", "push_within", "proof_within"):
            check_span(key, getattr(self, key))
        if len(self.command) > _MAX_ARGUMENTS or any("\0" in part for part in self.command):
            raise BadValue("command", f"at most {_MAX_ARGUMENTS} texts without a NUL character")
        if self.command and not self.command[0]:
            raise BadValue("command", "the first is the program, and cannot be empty")
        check_positive("timeout_s", self.timeout_s)
