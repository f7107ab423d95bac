"""What git's configuration says: of a repository, or of its user where there is none yet."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pygit2

from ckptvcs.storage.history.repository import git_errors

if TYPE_CHECKING:
    from ckptvcs.storage.history.repository import History


def value(history: History, name: str) -> str | None:
    """A value of the configuration; None if it is not set."""
    with git_errors("read the git configuration"):
        return _value(history.repo.config, name)


def identity(history: History) -> tuple[str | None, str | None]:
    """`user.name` and `user.email`."""
    return value(history, "user.name"), value(history, "user.email")


def identity_of_user() -> tuple[str | None, str | None]:
    """The same where there is no repository yet: what the user and the system have configured."""
    for read in (pygit2.Config.get_global_config, pygit2.Config.get_xdg_config, pygit2.Config.get_system_config):
        with contextlib.suppress(pygit2.GitError, OSError):
            config = read()
            found = _value(config, "user.name"), _value(config, "user.email")
            if all(found):
                return found
    return None, None


def _value(config: pygit2.Config, name: str) -> str | None:
    return config[name] if name in config else None  # noqa: SIM401 - it has no `get`
