"""Git for training state: every checkpoint of a run is a DVC artifact and a git commit.

```
 cli   train   web            faces: click | torch training loops | starlette. They word things; they decide nothing
   \\     |     /
    porcelain                 one module per verb: look, plan, act, report
   /     |      \\
domain  storage  formats      pure rules | bytes under names | what a state is
   \\     |      /
   digest, errors, paths
```

The public names are loaded when they are used: importing `ckptvcs` imports neither torch nor pygit2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ckptvcs._version import VERSION as __version__

if TYPE_CHECKING:
    from ckptvcs.errors import (
        CkptvcsError,
        Conflict,
        FormatError,
        IntegrityError,
        NoRepository,
        NotFound,
        Refused,
        StorageError,
        UsageError,
    )
    from ckptvcs.porcelain.api import Repo
    from ckptvcs.porcelain.api import load_from as load
    from ckptvcs.train.checkpointer import Checkpointer

__all__ = [
    "Checkpointer",
    "CkptvcsError",
    "Conflict",
    "FormatError",
    "IntegrityError",
    "NoRepository",
    "NotFound",
    "Refused",
    "Repo",
    "StorageError",
    "UsageError",
    "__version__",
    "load",
]

_WHERE = {
    "Checkpointer": ("ckptvcs.train.checkpointer", "Checkpointer"),
    "Repo": ("ckptvcs.porcelain.api", "Repo"),
    "load": ("ckptvcs.porcelain.api", "load_from"),
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module 'ckptvcs' has no attribute '{name}'")
    module, attribute = _WHERE.get(name, ("ckptvcs.errors", name))
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
