"""Laws of import: names say what was written into them, and the order depends on nothing but what is known."""

from __future__ import annotations

import math
import random

import pygit2
from hypothesis import assume, given
from hypothesis import strategies as st

from ckptvcs.domain.import_names import Facts, Named, read_name, settled, template
from ckptvcs.domain.import_order import Moment, in_order, natural, precedes, run_names

steps = st.integers(0, 10**12)
epochs = st.integers(0, 10**6)
reals = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: f"{value:.4g}")
words = st.from_regex(r"[a-z]{1,8}(_[a-z]{1,8})?", fullmatch=True)
moments = st.builds(
    Moment,
    step=st.none() | st.integers(0, 9),
    epoch=st.none() | st.integers(0, 3) | st.sampled_from([0.5, 1.5]),
    date=st.integers(0, 5).map(float),
    name=st.text("ab019._", min_size=1, max_size=5),
)


@given(st.text(max_size=60))
def test_any_name_is_read_and_numbers_are_numbers(name: str):
    for word, text in read_name(name).values.items():
        assert math.isfinite(float(text)) or text.lower().strip("+-") in ("nan", "inf")
        assert word != "step" or text.isdigit()
    settled(read_name(name), Facts())


@given(step=steps, epoch=epochs, loss=reals)
def test_what_lightning_writes_is_read(step: int, epoch: int, loss: str):
    values = dict(read_name(f"epoch={epoch}-step={step}-val_loss={loss}.ckpt").values)

    assert (int(values["step"]), int(values["epoch"]), float(values["val_loss"])) == (step, epoch, float(loss))


@given(
    step=steps, width=st.integers(0, 12), word=st.sampled_from(["step", "iter", "ckpt", "checkpoint", "global_step"])
)
def test_a_padded_step_is_read(step: int, width: int, word: str):
    for join in ("_", "-", ""):
        assert int(read_name(f"{word}{join}{step:0{width}}.pt").values["step"]) == step


@given(
    st.lists(st.tuples(words, reals), min_size=1, max_size=4, unique_by=lambda pair: pair[0]), st.sampled_from("-_, ")
)
def test_a_template_reads_back_what_it_wrote(pairs: list[tuple[str, str]], join: str):
    assume(
        not any(
            word in ("step", "steps", "epoch", "epochs", "ep", "it", "iter", "iters", "update") for word, _ in pairs
        )
    )
    text = join.join(f"{word}={{{word}}}" for word, _ in pairs)
    name = join.join(f"{word}={value}" for word, value in pairs)

    assert template(text).read(f"a/{name}.pt") == dict(pairs)


@given(st.text(max_size=40), st.text(max_size=40))
def test_a_template_is_refused_or_can_be_asked(text: str, name: str):
    from ckptvcs.errors import UsageError

    try:
        found = template(text)
    except UsageError:
        return
    found.read(name)


@given(st.lists(moments, max_size=8, unique_by=lambda m: m.name), st.randoms(use_true_random=False))
def test_the_order_of_what_is_given_does_not_matter(given_: list[Moment], chance: random.Random):
    shuffled = list(given_)
    chance.shuffle(shuffled)

    assert [given_[n] for n in in_order(given_)] == [shuffled[n] for n in in_order(shuffled)]


@given(st.lists(moments, max_size=8, unique_by=lambda m: m.name))
def test_nothing_is_lost_and_steps_and_epochs_never_go_back(given_: list[Moment]):
    places = in_order(given_)
    ordered = [given_[n] for n in places]

    assert sorted(places) == list(range(len(given_)))
    known = [m.step for m in ordered if m.step is not None]
    assert known == sorted(known)
    epochs_alone = [m.epoch for m in ordered if m.step is None and m.epoch is not None]
    assert epochs_alone == sorted(epochs_alone)
    if not known and not epochs_alone:
        assert [(m.date, natural(m.name)) for m in ordered] == sorted((m.date, natural(m.name)) for m in ordered)


@given(moments, moments)
def test_nothing_precedes_what_precedes_it(one: Moment, other: Moment):
    assert not (precedes(one, other) and precedes(other, one))


@given(
    st.lists(
        st.lists(st.text(max_size=8).filter(lambda t: "/" not in t), max_size=4).map(tuple), max_size=6, unique=True
    )
)
def test_every_folder_has_a_run_of_its_own_that_git_takes(folders: list[tuple[str, ...]]):
    found = run_names(folders)

    assert set(found) == set(folders)
    assert len(set(found.values())) == len(folders)
    for name in found.values():
        assert pygit2.reference_is_valid_name(f"refs/heads/{name}")
        assert "/" not in name


@given(reals, st.floats(-1e6, 1e6))
def test_a_rounded_number_gives_way(text: str, other: float):
    exact = float(text)

    found = settled(Named(values={"loss": text}), Facts(metrics={"loss": exact}))

    assert found.metrics == {"loss": exact}
    assert not found.notes
    assert settled(Named(values={"loss": text}), Facts(metrics={"loss": other})).metrics == {"loss": other}
