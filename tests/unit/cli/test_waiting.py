"""A bar and a spinner: late, on a terminal alone, and gone afterwards. The terminal is a real one."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import textwrap

import pytest

from ckptvcs.cli import waiting

CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def on_terminal(script: str) -> str:
    """Run a script whose stderr is a terminal; returns what appeared there, with its control sequences."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.DEVNULL, stderr=theirs, env=environment
    )
    os.close(theirs)
    parts = []
    try:
        while part := os.read(ours, 1 << 16):
            parts.append(part)
    except OSError:  # how Linux says that nobody holds the other end any more
        pass
    os.close(ours)
    assert process.wait() == 0, b"".join(parts).decode()
    return b"".join(parts).decode()


SLOW_BAR = """
    import time
    from ckptvcs.cli import waiting

    with waiting.progress("writing", 4_000_000) as advance:
        for _ in range(4):
            advance(1_000_000)
            time.sleep(0.45)
"""
SLOW_SPINNER = """
    import time
    from ckptvcs.cli import waiting

    with waiting.busy("reading x.pt"):
        time.sleep(2.2)
"""


@pytest.mark.parametrize(("script", "shown"), [(SLOW_BAR, "writing .* MB"), (SLOW_SPINNER, "reading x.pt 0:00:0[012]")])
def test_what_takes_longer_than_a_second_is_shown(script: str, shown: str):
    assert re.search(shown, CONTROL.sub("", on_terminal(script)))


@pytest.mark.parametrize("script", [SLOW_BAR, SLOW_SPINNER])
def test_nothing_of_it_is_left_on_the_screen(script: str):
    assert re.search(r"\x1b\[2K\s*$", on_terminal(script)), "the last thing is that the line is cleared"


@pytest.mark.parametrize("script", [SLOW_BAR, SLOW_SPINNER])
def test_quick_work_shows_nothing_and_imports_nothing(script: str):
    quick = re.sub(r"sleep\([0-9.]+\)", "sleep(0)", script) + "\n    import sys; assert 'rich' not in sys.modules\n"

    assert on_terminal(quick) == ""


def test_a_name_is_shown_as_it_is_and_steers_nothing():
    shown = on_terminal(SLOW_SPINNER.replace('"reading x.pt"', '"reading [/b][red]x\\x1b]0;evil\\x07.pt"'))

    assert "reading [/b][red]x" in CONTROL.sub("", shown)
    assert "\x1b]0;" not in shown
    assert "Traceback" not in shown


def test_an_error_ends_the_spinner_and_goes_on():
    script = SLOW_SPINNER.replace("time.sleep(2.2)", "time.sleep(1.6); raise SystemExit(0)")

    assert re.search(r"\x1b\[2K\s*$", on_terminal(script))


def test_nothing_is_shown_where_nobody_looks(capsys: pytest.CaptureFixture[str]):
    with waiting.progress("writing", 100) as advance, waiting.busy("reading"):
        advance(50)

    assert capsys.readouterr() == ("", "")
