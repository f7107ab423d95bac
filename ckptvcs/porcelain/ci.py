"""`ci init`: files that carry the policy out every night, and check it on pull requests; made of `ckptvcs/templates`.

It only writes files. To install them, and to give them credentials, is for who runs the machine; it says how.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from ckptvcs.digest import digest
from ckptvcs.domain.basics import FILE
from ckptvcs.errors import UsageError, WouldOverwrite, from_os_error
from ckptvcs.porcelain.remotes import known
from ckptvcs.storage.history import settings, worktree
from ckptvcs.storage.history.transport import without_password

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ckptvcs.porcelain.repo import Repository

Kind = Literal["github", "gitlab", "cron", "systemd", "kubernetes"]
KINDS: Final[dict[Kind, str]] = {
    "github": "a workflow of GitHub Actions: every night, and on pull requests that change ckpt.yaml",
    "gitlab": "jobs of GitLab CI: on a schedule, and on merge requests that change ckpt.yaml",
    "cron": "a line for crontab: every night, in this clone",
    "systemd": "a service and a timer of systemd: every night, in this clone",
    "kubernetes": "a CronJob: every night, in a clone of its own",
}

FOLDER: Final = "ops"
SCRIPT: Final = f"{FOLDER}/ckpt-apply.sh"
_PATHS: Final[dict[Kind, dict[str, str]]] = {
    "github": {".github/workflows/ckpt.yml": "github.yml"},
    "gitlab": {".gitlab/ckpt.yml": "gitlab.yml"},
    "cron": {SCRIPT: "ckpt-apply.sh", f"{FOLDER}/ckpt.cron": "ckpt.cron"},
    "systemd": {
        SCRIPT: "ckpt-apply.sh",
        f"{FOLDER}/ckpt-apply.service": "ckpt-apply.service",
        f"{FOLDER}/ckpt-apply.timer": "ckpt-apply.timer",
    },
    "kubernetes": {SCRIPT: "ckpt-apply.sh", f"{FOLDER}/ckpt-cronjob.yaml": "kubernetes.yaml"},
}
"""What is written, relative to the root of git, and of which template."""

_EXTRAS: Final = {
    "s3": "s3",
    "ssh": "ssh",
    "sftp": "ssh",
    "azure": "azure",
    "gs": "gs",
    "webdav": "webdav",
    "webdavs": "webdav",
}
"""The extra of the package that brings what a remote of some scheme needs."""

_SECRETS: Final[dict[str, tuple[str, ...]]] = {
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"),
    "azure": ("AZURE_STORAGE_CONNECTION_STRING",),
}
"""Credentials that the libraries of a store take from the environment."""

_MAX_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A file."""

    path: str
    """Relative to the root of git."""
    deed: Literal["make", "replace", "keep"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CiPlan:
    """What is to be written, and what is left for people."""

    files: tuple[Made, ...]
    next_steps: tuple[str, ...]

    @property
    def done(self) -> list[Made]:
        """The files that change."""
        return [file for file in self.files if file.deed != "keep"]


# ---------------------------------------------------------------------------------------------------------------- plan


def plan(repo: Repository, kinds: Sequence[Kind], *, force: bool = False) -> CiPlan:
    """Look at everything, change nothing.

    Args:
        repo: the repository.
        kinds: for what.
        force: whether files that say something else are replaced.

    Raises:
        UsageError: no kind is named, or a value has no place in a file.
        WouldOverwrite: a file says something else.
    """
    if not kinds:
        raise UsageError("it is not said for what", next_step=f"name one or more: --kind {' --kind '.join(KINDS)}")
    values = _values(repo)
    wanted = {path: template for kind in dict.fromkeys(kinds) for path, template in _PATHS[kind].items()}
    found = tuple(_file(repo, path, _filled(template, values)) for path, template in wanted.items())
    other = [file.path for file in found if file.deed == "replace"]
    if other and not force:
        raise WouldOverwrite(
            f"cannot write '{other[0]}'{f' and {len(other) - 1} more' if len(other) > 1 else ''}",
            why="there is such a file, and it says something else",
            next_step="look what you changed in it; --force writes it anew",
            paths=other,
        )
    steps = tuple(step for kind in dict.fromkeys(kinds) for step in _next_steps(repo, kind))
    return CiPlan(files=found, next_steps=(f"git add {_shown(wanted)} && git commit", *steps))


def _shown(paths: Mapping[str, str]) -> str:
    return " ".join(map(shlex.quote, paths))


def _file(repo: Repository, path: str, text: str) -> Made:
    where = repo.history.root / path
    try:
        if where.is_symlink() or (where.exists() and not where.is_file()):
            return Made(path=path, deed="replace", text=text)
        with where.open("rb") as file:
            same = file.read(_MAX_BYTES) == text.encode("utf-8")
    except FileNotFoundError:
        return Made(path=path, deed="make", text=text)
    except OSError as err:
        raise from_os_error(err, doing=f"read '{path}'") from err
    return Made(path=path, deed="keep" if same else "replace", text=text)


def _filled(template: str, values: Mapping[str, str]) -> str:
    """A template with its values. What is filled in is not looked at again: a path may hold anything."""
    text = resources.files("ckptvcs").joinpath("templates", template).read_text(encoding="utf-8")
    if not values["SECRETS"]:
        text = text.replace("%%SECRETS%%\n", "")
    quoted = {name: values[f"{name}.{kind}"] for kind, names in _QUOTED.get(template, {}).items() for name in names}
    return re.sub(r"%%([A-Z]+)%%", lambda found: quoted.get(found[1]) or values[found[1]], text)


_QUOTED: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "ckpt-apply.sh": {"sh": ("WHERE",)},
    "github.yml": {"json": ("WHERE",)},
    "gitlab.yml": {"gitlab": ("CD",)},
    "ckpt.cron": {"cron": ("SCRIPT", "PATH", "FILE")},
    "ckpt-apply.service": {"systemd": ("SCRIPT", "FOLDER", "ENVIRONMENT")},
    "kubernetes.yaml": {"yaml": ("SCRIPT",)},
}
"""Values of which each format has its own way to quote them."""


def _values(repo: Repository) -> dict[str, str]:
    root, programs = str(repo.history.root), str(Path(sys.executable).parent)
    script, where = str(repo.history.root / SCRIPT), repo.git_path("").rstrip("/") or "."
    for text in (root, programs, where):
        if not text.isprintable():
            raise UsageError(
                "cannot write the path of this clone into a file",
                why="it holds control characters, or is no UTF-8",
                next_step="move the clone somewhere else",
            )
    return {
        "MINUTE": f"{int(digest(os.fsencode(root))[:8], 16) % 60:02d}".lstrip("0") or "0",
        "CONFIG": json.dumps(repo.git_path(FILE)),
        "PACKAGE": _package(repo),
        "SECRETS": _secrets(repo),
        "URL": json.dumps(_url(repo)),
        "WHERE.sh": shlex.quote(where),
        "WHERE.json": json.dumps(where),
        "CD.gitlab": json.dumps(f"cd {shlex.quote(where)}"),
        "FILE.cron": shlex.quote(f"{root}/{FOLDER}/ckpt.cron"),
        "SCRIPT.cron": _for_cron(script),
        "PATH.cron": _for_cron(programs),
        "SCRIPT.systemd": _for_systemd(script),
        "FOLDER.systemd": root.replace("%", "%%"),
        "ENVIRONMENT.systemd": _for_systemd(f"PATH={programs}:/usr/local/bin:/usr/bin:/bin"),
        "SCRIPT.yaml": SCRIPT,
    }


def _for_cron(text: str) -> str:
    """Quoted for the shell, and then for cron, which takes a `%` for the end of the command."""
    return shlex.quote(text).replace("%", "\\%")


def _for_systemd(text: str) -> str:
    """As systemd quotes an argument; in it `%` begins a specifier and `$` a variable."""
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{quoted.replace("$", "$$") if not text.startswith("PATH=") else quoted}"'


def _schemes(repo: Repository) -> list[str]:
    return sorted({one.url.partition("://")[0] for one in known(repo) if "://" in one.url})


def _package(repo: Repository) -> str:
    extras = sorted({_EXTRAS[scheme] for scheme in _schemes(repo) if scheme in _EXTRAS})
    return f"'ckptvcs[{','.join(extras)}]'" if extras else "ckptvcs"


def _secret_names(repo: Repository) -> list[str]:
    return [name for scheme in _schemes(repo) for name in _SECRETS.get(scheme, ())]


def _secrets(repo: Repository) -> str:
    return "\n".join(f"      {name}: ${{{{ secrets.{name} }}}}" for name in _secret_names(repo))


def _url(repo: Repository) -> str:
    url = settings.value(repo.history, "remote.origin.url")
    return without_password(url) if url else "https://git.example.com/team/repository.git"


# ---------------------------------------------------------------------------------------------------------- next steps


def _next_steps(repo: Repository, kind: Kind) -> list[str]:
    steps = []
    if repo.config.retain is None:
        steps.append(
            "write rules into 'retain' of ckpt.yaml: without any, everything is kept and there is nothing to do"
        )
    secrets, root = _secret_names(repo), repo.history.root
    named = ", ".join(secrets) or "the credentials of your remote, by the names that its library reads"
    if kind == "github":
        steps.append(f"secrets of the repository, under Settings > Secrets and variables > Actions: {named}")
        steps.append("let workflows write: Settings > Actions > General; try it: Actions > ckpt > Run workflow")
    elif kind == "gitlab":
        steps.append("into .gitlab-ci.yml: include: [{local: .gitlab/ckpt.yml}]")
        steps.append(f"masked variables, under Settings > CI/CD: CKPT_GIT_TOKEN (a token that may push), {named}")
        steps.append("a schedule on the main branch, under Build > Pipeline schedules")
    elif kind == "cron":
        steps.append(f"(crontab -l; cat {shlex.quote(str(root / FOLDER / 'ckpt.cron'))}) | crontab -")
    elif kind == "systemd":
        units = " ".join(shlex.quote(str(root / FOLDER / f"ckpt-apply.{end}")) for end in ("service", "timer"))
        steps.append(f"credentials into ~/.config/ckpt.env, mode 0600: {named}")
        steps.append(f"systemctl --user link {units} && systemctl --user enable --now ckpt-apply.timer")
    else:
        literal = " ".join(f"--from-literal={name}=..." for name in ("GIT_TOKEN", *secrets))
        steps.append(f"kubectl create secret generic ckpt {literal}")
        steps.append(
            f"look at REPOSITORY in {FOLDER}/ckpt-cronjob.yaml, then: kubectl apply -f {FOLDER}/ckpt-cronjob.yaml"
        )
    return steps


# ----------------------------------------------------------------------------------------------------------------- act


def execute(repo: Repository, planned: CiPlan) -> None:
    """Write the files. What is a link is replaced, and none is followed.

    Raises:
        StorageError: the disk is full, read-only or failing.
        HostileInput: a folder on the way is a link.
    """
    for file in planned.done:
        worktree.write(repo.history, file.path, file.text.encode("utf-8"))
