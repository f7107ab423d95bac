"""A garbage collector for tests, after the page of the remote layout and with no code of ours: it marks, waits, and sweeps."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

MAX_PUSH_S = 6 * 3600


@dataclass
class Collector:
    """One collector at a store in a folder; `live` are the names that refs lead to, as it is told."""

    store: Path
    run: str = "collector-1"
    writer: str = "c0ffee00c0ffee00"
    marked: set[str] = field(default_factory=set)

    @property
    def _marks(self) -> Path:
        return self.store / f".ckptvcs/gc/marks/{self.run}.json"

    def objects(self) -> dict[str, Path]:
        return {p.parent.name + p.name: p for p in (self.store / "files/md5").glob("[0-9a-f][0-9a-f]/*")}

    def leased(self) -> set[str]:
        """Names that leases name which are not too old, by the clock of the file system."""
        probe = self.store / f".now-{time.monotonic_ns()}"
        probe.write_bytes(b"")
        now = probe.stat().st_mtime
        probe.unlink()
        found: set[str] = set()
        for path in self.leases():
            if now - path.stat().st_mtime < MAX_PUSH_S:
                found.update(json.loads(path.read_bytes())["objects"])
        return found

    def leases(self) -> list[Path]:
        return sorted((self.store / ".ckptvcs/intents").glob("*/*.json"))

    def mark(self, names: set[str], *, hours_ago: float = 20.0) -> None:
        """Run 1, so long ago that its grace may end while a push is under way."""
        self.marked = set(names)
        self._marks.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "format": "ckptvcs-marks/1",
            "run": self.run,
            "writer": self.writer,
            "actor": "0" * 16,
            "objects": sorted(names),
        }
        tmp = self._marks.with_suffix(".tmp")
        tmp.write_text(json.dumps(document))
        os.utime(tmp, (time.time() - hours_ago * 3600,) * 2)
        os.rename(tmp, self._marks)

    def sweep(self, live: set[str]) -> set[str]:
        """Run 2, after the grace: leases first, then refs; remove what is left."""
        kill = self.marked - self.leased() - live
        for name in kill:
            path = self.objects().get(name)
            if path is not None:
                path.unlink()
        self.done()
        return kill

    def done(self) -> None:
        self._marks.unlink()
