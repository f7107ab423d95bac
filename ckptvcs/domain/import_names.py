"""What the name of a checkpoint says: step, epoch, metrics; and who counts where the file itself says something else.

A name is read by what the user says of names (a template), else by the names that trainers and people commonly give. What it
says is kept as text until it is settled against the file: a name has fewer digits.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ckptvcs.errors import UsageError
from ckptvcs.paths import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Number = int | float

STEP: Final = "step"
EPOCH: Final = "epoch"
SUFFIXES: Final = (".pt", ".pth", ".ckpt", ".safetensors", ".bin", ".tar")

_ALIASES: Final = {
    **dict.fromkeys(("step", "steps", "global_step", "iter", "iters", "iteration", "it", "update", "updates"), STEP),
    **dict.fromkeys(("epoch", "epochs", "ep"), EPOCH),
}
_COUNT: Final = r"\d{1,18}"
_REAL: Final = r"[+-]?(?:\d{1,18}(?:\.\d{1,18})?(?:[eE][+-]?\d{1,3})?|nan|inf)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What a name says: `step`, `epoch` and metrics, as text."""

    values: Mapping[str, str] = field(default_factory=dict)
    told: bool = False
    """Whether the user said how names are read, and this one fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a checkpoint."""

    step: int | None = None
    epoch: Number | None = None
    metrics: Mapping[str, Number] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """Where name and file contradict each other."""


# ------------------------------------------------------------------------------------------------------------ templates


@dataclass(frozen=True, slots=True)
class Template:
    """How the user says that names are made: `epoch={epoch}-step={step}-val_loss={val_loss}.ckpt`.

    A word in braces stands for a number, `*` and `{}` for any text within a part of a path. A template of several parts
    (`{lr}/step_*`) is held against as many last parts of a path. The suffix of a file may be left out.
    """

    text: str
    pattern: re.Pattern[str]
    words: tuple[str, ...]

    def read(self, path: str) -> dict[str, str] | None:
        """What a path with POSIX separators says by this template, or None if it does not fit."""
        found = self.pattern.search(path)
        return None if found is None else {word: found[n + 1] for n, word in enumerate(self.words)}


_PLACE: Final = re.compile(r"\{([^{}]*)\}|(\*+)")
_WORD: Final = re.compile(r"[A-Za-z_][\w.@/ -]{0,63}\Z")


def template(text: str) -> Template:
    """Read a template.

    Raises:
        UsageError: it reads nothing, or something twice, or has a word that cannot be the name of a metric.
    """
    pattern, words, at = r"(?:^|/)", list[str](), 0
    for place in _PLACE.finditer(text):
        pattern += re.escape(text[at : place.start()])
        at = place.end()
        word = (place[1] or "").partition(":")[0].strip()  # a format, as Lightning has it, says how it was written
        if not word or word == "_":
            pattern += r"[^/]*?"
            continue
        if not _WORD.match(word):
            raise _bad(text, f"'{word}' cannot be the name of a number")
        kind = _ALIASES.get(word.lower(), word)
        if kind in words:
            raise _bad(text, f"it says '{kind}' twice")
        words.append(kind)
        # Lightning writes `{epoch}` as `epoch=3`
        pattern += rf"(?:{re.escape(word)}=)?({_COUNT if kind == STEP else _REAL})"
    pattern += re.escape(text[at:])
    if not words:
        raise _bad(text, "nothing in it is read: a word in braces stands for a number")
    suffix = "" if text.lower().endswith(SUFFIXES) else rf"(?:{'|'.join(map(re.escape, SUFFIXES))})?"
    return Template(text, re.compile(rf"{pattern}{suffix}\Z", re.IGNORECASE), tuple(words))


def _bad(text: str, why: str) -> UsageError:
    return UsageError(
        f"cannot read names by '{printable(text)}'",
        why=printable(why),
        next_step="write it as names are, with words in braces for numbers: 'model_{step}_loss{val_loss}.pt'",
    )


# --------------------------------------------------------------------------------------------------------- common names

_EDGE: Final = r"(?:^|(?<=[-_. ,(\[]))"
_END: Final = r"(?=$|[-_. ,)\]])"
_PAIR: Final = re.compile(rf"{_EDGE}([A-Za-z][A-Za-z0-9_.@]{{0,63}})=({_REAL}){_END}", re.IGNORECASE)
_OF_STEP: Final = r"(?:global_?)?steps?|iter(?:ation)?s?|it|updates?"
_STEP_WORD: Final = re.compile(rf"{_EDGE}(?:{_OF_STEP})[-_. ]?({_COUNT})(k?){_END}", re.IGNORECASE)
_WORD_STEP: Final = re.compile(
    rf"{_EDGE}({_COUNT})(k?)[-_ ]?(?:steps|iters|it|iterations|updates){_END}", re.IGNORECASE
)
_EPOCH_WORD: Final = re.compile(rf"{_EDGE}(?:epochs?|ep)[-_. ]?(\d{{1,9}}){_END}", re.IGNORECASE)
_FAIRSEQ: Final = re.compile(rf"checkpoint_(\d{{1,9}})_({_COUNT})\Z")
_NUMBERED: Final = re.compile(
    rf"(?:(?:.*[-_. ])?(?:checkpoint|ckpt|model|weights|params|state|net|snapshot|save|backup)[-_. ]?)?({_COUNT})(k?)\Z",
    re.IGNORECASE,
)
_METRIC: Final = re.compile(
    rf"{_EDGE}(?:best[-_]?)?((?:(?:val|valid|validation|eval|test|dev|train)_?)?"
    r"(?:loss|acc|accuracy|err|error|f1|auc|auroc|map|iou|miou|dice|psnr|ssim|fid|wer|cer|bleu|ppl|perplexity|mse|mae|rmse|score|reward))"
    rf"[-_ ]?([+-]?\d{{1,9}}\.\d{{1,18}}(?:[eE][+-]?\d{{1,3}})?){_END}",
    re.IGNORECASE,
)
_COUNTED: Final = re.compile(rf"\A(?:.*_)?(?:{_OF_STEP}|epochs?|ep)_?\d+_(?=[A-Za-z])", re.IGNORECASE)
_VERSION: Final = re.compile(r"-v\d+\Z")


def stem_of(name: str) -> str:
    """A name without the suffixes of checkpoints."""
    while name.lower().endswith(SUFFIXES) and name.rpartition(".")[0]:
        name = name.rpartition(".")[0]
    return name


def read_name(path: str, templates: Sequence[Template] = ()) -> Named:
    """What the name of a file or folder says.

    Args:
        path: with POSIX separators; of it, common names look at the last part alone.
        templates: how the user says that names are made; the first one that fits counts, alone.
    """
    for one in templates:
        values = one.read(path)
        if values is not None:
            return Named(values=values, told=True)
    return Named(values=_common(_VERSION.sub("", stem_of(path.rpartition("/")[2]))))


def _common(stem: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for pair in _PAIR.finditer(stem):
        key = pair[1].lower()
        kind = _ALIASES.get(key) or _ALIASES.get(key.rpartition("_")[2], pair[1])
        if kind not in (STEP, EPOCH):
            kind = _COUNTED.sub("", kind)  # `step100_val_loss=0.3` is no metric of its own
        if kind != STEP or pair[2].isdigit():
            values.setdefault(kind, pair[2])
    for metric in _METRIC.finditer(stem):
        values.setdefault(metric[1].lower(), metric[2])
    both = _FAIRSEQ.match(stem)
    if both:
        return {EPOCH: both[1], STEP: both[2], **values}
    epoch = _EPOCH_WORD.search(stem)
    if epoch:
        values.setdefault(EPOCH, epoch[1])
    step = _STEP_WORD.search(stem) or _WORD_STEP.search(stem)
    if step is None and EPOCH not in values:
        step = _NUMBERED.match(stem)
    if step:
        values.setdefault(STEP, step[1] + "000" * bool(step[2]))
    return values


def says_when(name: str) -> bool:
    """Whether a name, by itself, says a step or an epoch."""
    values = _common(_VERSION.sub("", stem_of(name)))
    return STEP in values or EPOCH in values


# ------------------------------------------------------------------------------------------------------------- settling


def settled(named: Named, held: Facts) -> Facts:
    """What counts: what the user says of names, before what the file says, before what its name seems to say.

    A number of a name that is that of the file, rounded, gives way to it in any case.

    Args:
        named: from the name.
        held: from the file itself.
    """
    ours: dict[str, Number | None] = {STEP: held.step, EPOCH: held.epoch, **held.metrics}
    found, notes = dict(ours), list(held.notes)
    for word, text in named.values.items():
        value, known = _number(word, text), ours.get(word)
        if value is None or (known is not None and _agrees(text, value, known)):
            continue
        if known is not None:
            who = f"--names counts: {value}" if named.told else f"the file counts: {known}"
            notes.append(f"its name says {word} {text}, the file itself {known}; {who}")
        if known is None or named.told:
            found[word] = value
    step, epoch = found.pop(STEP), found.pop(EPOCH)
    metrics = {word: value for word, value in found.items() if value is not None}
    return Facts(step=None if step is None else int(step), epoch=epoch, metrics=metrics, notes=tuple(notes))


def _number(word: str, text: str) -> Number | None:
    if word == STEP or text.isdigit():
        return int(text)
    value = float(text)
    if word == EPOCH:
        return None if not math.isfinite(value) or value < 0 else int(value) if value == int(value) else value
    return value


def _agrees(text: str, value: Number, known: Number) -> bool:
    """Whether a number of a name is that of the file, in as many digits as the name has."""
    if value == known or (math.isnan(value) and math.isnan(known)):
        return True
    mantissa, _, exponent = text.lower().partition("e")
    decimals = len(mantissa.partition(".")[2]) - int(exponent or 0)
    last: float = 10.0**-decimals
    return math.isfinite(value) and math.isfinite(known) and isinstance(known, float) and abs(value - known) < last
