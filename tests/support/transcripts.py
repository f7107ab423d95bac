"""Documents whose commands are run: what a page says a command prints is what it prints.

In a page, a block of ```` ```console ```` holds lines `$ COMMAND` with what they print below; a block after the comment
`<!-- file: NAME -->` is written to that file first. Ids, times and speeds differ from run to run and are compared as such;
a line `...` stands for any lines.

usage: python -m tests.support.transcripts PAGE...    write what the commands print today into the pages
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(
    r"(?:<!-- file: (?P<file>\S+) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Step:
    """A command and what it is said to print."""

    command: str
    expected: str


@dataclass(frozen=True)
class File:
    """A file that the reader is told to write."""

    name: str
    text: str


def steps(page: str) -> Iterator[Step | File]:
    """Everything that a page tells its reader to do, in order."""
    for block in _BLOCK.finditer(page):
        if block["file"]:
            yield File(block["file"], block["text"])
        elif block["kind"] == "console":
            for part in re.split(r"^\$ ", block["text"], flags=re.MULTILINE)[1:]:
                command, _, expected = part.partition("\n")
                while command.endswith("\\"):
                    more, _, expected = expected.partition("\n")
                    command += "\n" + more
                yield Step(command, expected.rstrip("\n"))


_ENVIRONMENT = {
    "COLUMNS": "100",
    "PYTHONWARNINGS": "ignore",
    **{
        f"GIT_{role}_{what}": at
        for role in ("AUTHOR", "COMMITTER")
        for what, at in (("NAME", "You"), ("EMAIL", "you@example.com"))
    },
}


class Shell:
    """Runs commands one after the other in a folder, as one shell would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._here = folder / ".here"

    def run(self, command: str) -> str:
        script = f"{command}\nstatus=$?; pwd > '{self._here}'; exit $status"
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self._here.read_text().strip() if self._here.exists() else self.folder,
            env={**os.environ, **_ENVIRONMENT, "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        said = done.stdout.replace(str(self.folder), "/home/you").rstrip("\n")
        return said + (f"\n[exit status {done.returncode}]" if done.returncode else "")

    def write(self, file: File) -> None:
        here = Path(self._here.read_text().strip()) if self._here.exists() else self.folder
        (here / file.name).parent.mkdir(parents=True, exist_ok=True)
        (here / file.name).write_text(file.text)


def differences(page: str, folder: Path) -> list[str]:
    """Run a page; what it says and what happens, wherever the two differ."""
    shell, numbers, found = Shell(folder), dict[str, str](), []
    for step in steps(page):
        if isinstance(step, File):
            shell.write(step)
        else:
            actual = shell.run(step.command)
            if not matches(step.expected, actual, numbers):
                found.append(f"$ {step.command}\n--- the page says\n{step.expected}\n--- it prints\n{actual}")
    return found


def matches(expected: str, actual: str, numbers: dict[str, str] | None = None) -> bool:
    """Whether an output is what was expected, apart from what differs from run to run or from machine to machine.

    Args:
        expected: what the page says.
        actual: what was printed.
        numbers: a loss may end in other digits on another processor, but what is equal on the page must be equal here:
            number on the page -> number here, for all of a page.
    """
    pattern = re.escape(_without_numbers(expected)).replace(re.escape("..."), r"(?:.|\n)*")
    if re.fullmatch(pattern, _without_numbers(actual)) is None or not _same_sizes(expected, actual):
        return False
    pairs = zip(_NUMBER.findall(expected), _NUMBER.findall(actual), strict=False)
    return all(numbers.setdefault(there, here) == here for there, here in pairs) if numbers is not None else True


_NUMBER = re.compile(r"\d+\.\d{4,}")
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ([kMGT]?B)\b")


def _without_numbers(text: str) -> str:
    return _SIZE.sub("SIZE", _NUMBER.sub("NUMBER", _plain(text)))


def _same_sizes(expected: str, actual: str) -> bool:
    """Sizes differ a little: Python's random state is written in as many digits as it has."""
    pairs = zip(_SIZE.findall(expected), _SIZE.findall(actual), strict=False)
    return all(unit == other and abs(float(a) - float(b)) <= 0.02 * float(a) + 0.1 for (a, unit), (b, other) in pairs)


def _plain(text: str) -> str:
    for pattern, word in (
        (r"\b[0-9a-f]{64}\b", "DIGEST"),
        (r"\b[0-9a-f]{40}\b", "COMMIT"),
        (r"\b[0-9a-f]{2}/[0-9a-f]{30}\b", "OBJECT"),
        (r"\bAAAAC3NzaC1lZDI1NTE5[A-Za-z0-9+/]{48}", "KEY"),
        (r"\bSHA256:[A-Za-z0-9+/]{43}", "FINGERPRINT"),
        (r"\b[0-9a-f]{16}\b", "RUN"),
        (r"\b(?=[0-9a-f]*\d)[0-9a-f]{7,12}\b", "ID"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?( [+-]\d{4})?", "TIME"),
        (r"\b(condemned|dropped|collected)\b([a-z, ]*) \d{4}-\d\d-\d\d\b", r"\1\2 DAY"),
        (r"^environment: .*$", "environment: ..."),
        (r" +$", ""),
    ):
        text = re.sub(pattern, word, text, flags=re.MULTILINE)
    return text


def rewritten(page: str, folder: Path) -> str:
    """The page with what its commands print today."""
    shell = Shell(folder)

    def block(match: re.Match[str]) -> str:
        out = []
        for step in steps(match[0]):
            if isinstance(step, File):
                shell.write(step)
                return match[0]
            actual = shell.run(step.command)
            said = step.expected if matches(step.expected, actual) else actual
            out.append(f"$ {step.command}\n" + (f"{said}\n" if said else ""))
        return "```console\n" + "".join(out) + "```" if out else match[0]

    return _BLOCK.sub(block, page)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as home:
            os.environ |= {"HOME": home, "DVC_NO_ANALYTICS": "1", "GIT_CONFIG_NOSYSTEM": "1"}
            (Path(home) / ".gitconfig").write_text(
                "[user]\n\tname = You\n\temail = you@example.com\n[init]\n\tdefaultBranch = main\n"
            )
            work = Path(home) / "work"
            work.mkdir()
            Path(name).write_text(rewritten(Path(name).read_text(), work))
