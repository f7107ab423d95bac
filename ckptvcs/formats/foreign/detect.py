"""Which format a file or folder has: recognised by its content, never by its name.

| format | recognised by |
|---|---|
| `pt` | a zip archive with `data.pkl` (torch 1.6 and later); `lightning` if it says so itself |
| `pt-legacy` | the magic number of older torch files, or a tar archive |
| `safetensors` | a header that describes the file |
| `artifact` | a folder with `*/tree.json`: one of ours |
| `dcp` | a folder with `.metadata` and `*.distcp`: see `dcp_directory` |
| `hf` | a folder with safetensors files, torch files or a `config.json`: see `hf_directory` |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ckptvcs.errors import FormatError, UsageError
from ckptvcs.formats.foreign import artifact_directory, dcp_directory, hf_directory, safetensors_source
from ckptvcs.formats.foreign.heads import LEGACY_MAGIC, looks_like_safetensors
from ckptvcs.formats.foreign.lightning_facts import scores_of
from ckptvcs.formats.foreign.source import Source, facts_of
from ckptvcs.formats.foreign.zip_pt import PtFile, looks_like_zip

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

_TAR_MAGIC: Final = b"ustar"


def folder_format(path: Path) -> str | None:
    """What a folder is if it is a checkpoint as a whole: `artifact`, `dcp` or `hf`; None if checkpoints lie in it, or nothing.

    Raises:
        OSError: it cannot be listed.
    """
    if artifact_directory.is_artifact(path):
        return "artifact"
    if artifact_directory.is_component(path):
        return None
    if dcp_directory.is_dcp(path):
        return "dcp"
    return "hf" if hf_directory.is_checkpoint(path) else None


def open_source(path: Path, *, follow_links: bool = False, leave_out: Collection[Path] = ()) -> Source:
    """Read a file or folder. No code in it runs, and its tensors are not copied.

    Args:
        path: what the user named; it may itself be a link.
        follow_links: also read links in a folder that lead out of it, as in the cache of the Hugging Face hub.
        leave_out: what lies in a folder of Hugging Face's and is none of it, as full paths.

    Raises:
        UsageError: there is nothing at `path`.
        FormatError: it is of no format that we know, or damaged.
    """
    try:
        path = path.resolve(strict=True)
    except FileNotFoundError as err:
        raise UsageError(
            f"cannot read '{path}'", why="there is no such file or folder", next_step="check the path"
        ) from err
    except (OSError, RuntimeError) as err:
        raise UsageError(
            f"cannot read '{path}'", why=f"it cannot be followed: {err}", next_step="check its links"
        ) from err
    try:
        if path.is_dir():
            return _open_directory(path, follow_links=follow_links, leave_out=leave_out)
        return open_file(path)
    except OSError as err:
        why = (err.strerror or str(err)).lower()
        raise UsageError(f"cannot read '{err.filename or path}'", why=why, next_step="check its permissions") from err


def open_file(path: Path) -> Source:
    """Read a single file.

    Raises:
        FormatError: it is of no format that we know, or damaged.
        OSError: it cannot be read.
    """
    if not path.is_file():
        raise FormatError(f"cannot read '{path}'", why="it is neither a file nor a folder", next_step="name a file")
    with path.open("rb") as file:
        head = file.read(512)
    if looks_like_zip(head):
        return _open_pt(path)
    if head.startswith(LEGACY_MAGIC) or head[257:262] == _TAR_MAGIC:
        return _open_legacy(path)
    if looks_like_safetensors(head, path.stat().st_size):
        return safetensors_source.open_safetensors(path)
    raise FormatError(
        f"cannot read '{path}'",
        why="it is empty" if not head else "it is neither a torch checkpoint nor a safetensors file",
        next_step="give a .pt, .pth, .ckpt or .safetensors file or a Hugging Face folder, or save the state with torch.save",
        path=str(path),
    )


def open_trusted(path: Path) -> Source:
    """Read a torch file by unpickling it, which runs whatever it says. Only where the user asked for it."""
    from ckptvcs.formats import torch_state

    state = torch_state.read_trusted(path)
    return Source(
        format="pt",
        name=path.name,
        state=state,
        adapt=torch_state.adapt,
        is_leaf=torch_state.is_leaf,
        facts=facts_of(state),
    )


def _open_directory(path: Path, *, follow_links: bool, leave_out: Collection[Path]) -> Source:
    if artifact_directory.is_artifact(path):
        return artifact_directory.open_artifact(path)
    if dcp_directory.is_dcp(path):
        return dcp_directory.open_dcp(path)
    if hf_directory.is_hf(path):
        return hf_directory.open_hf(path, open_file, follow_links=follow_links, leave_out=leave_out)
    raise FormatError(
        f"cannot read folder '{path}'",
        why="it holds no safetensors file, no torch file and no config.json",
        next_step="name the folder that holds the checkpoint itself",
        path=str(path),
    )


def _open_pt(path: Path) -> Source:
    state = PtFile(path).state()
    lightning = isinstance(state, dict) and "pytorch-lightning_version" in state
    facts = facts_of(state)
    if lightning:
        scores = scores_of(state, path.name)
        facts |= {**scores, "metrics": {**scores["metrics"], **facts["metrics"]}}
    return Source(format="lightning" if lightning else "pt", name=path.name, state=state, facts=facts, watched=(path,))


def _open_legacy(path: Path) -> Source:
    from ckptvcs.formats import torch_state

    state = torch_state.read_legacy(path)
    return Source(
        format="pt-legacy",
        name=path.name,
        state=state,
        adapt=torch_state.adapt,
        is_leaf=torch_state.is_leaf,
        facts=facts_of(state),
    )
