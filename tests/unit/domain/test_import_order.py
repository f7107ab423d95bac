"""The order in which checkpoints became, and the names of runs."""

from __future__ import annotations

from ckptvcs.domain.import_order import Moment, in_order, natural, precedes, run_names


def moment(name: str, step: int | None = None, epoch: float | None = None, date: float = 0) -> Moment:
    return Moment(step=step, epoch=epoch, date=date, name=name)


def ordered(*moments: Moment) -> list[str]:
    return [moments[n].name for n in in_order(moments)]


def test_steps_are_numbers():
    assert ordered(moment("a", 1000), moment("b", 200), moment("c", 30)) == ["c", "b", "a"]


def test_the_step_goes_before_the_date():
    assert ordered(moment("a", 2, date=1), moment("b", 1, date=2)) == ["b", "a"]


def test_of_equal_steps_the_epoch_then_the_date_then_the_name_decides():
    assert ordered(moment("a", 1, 2), moment("b", 1, 1)) == ["b", "a"]
    assert ordered(moment("a", 1, date=2), moment("b", 1, date=1)) == ["b", "a"]
    assert ordered(moment("x10", 1), moment("x9", 1)) == ["x9", "x10"]


def test_what_has_no_step_goes_by_its_epoch():
    assert ordered(moment("c", epoch=10), moment("b", epoch=9), moment("a", epoch=1)) == ["a", "b", "c"]
    steps = [moment("s1", 100, 1), moment("s2", 200, 2), moment("s3", 300, 3)]
    assert ordered(*steps, moment("e2", epoch=2)) == ["s1", "s2", "e2", "s3"]


def test_what_has_neither_goes_by_its_date():
    steps = [moment("s1", 100, date=10), moment("s2", 200, date=20)]
    assert ordered(moment("best", date=15), *steps) == ["s1", "best", "s2"]
    assert ordered(moment("init", date=5), *steps) == ["init", "s1", "s2"]
    assert ordered(moment("last", date=20), *steps) == ["s1", "s2", "last"]


def test_where_all_dates_are_those_of_a_copy_what_says_nothing_is_last():
    assert ordered(moment("last"), moment("m", 10), moment("n", 9)) == ["n", "m", "last"]


def test_names_are_in_the_order_of_their_numbers():
    assert sorted(["a10", "a9", "a1b2", "a1b10", "b"], key=natural) == ["a1b2", "a1b10", "a9", "a10", "b"]
    assert natural("a01") != natural("a1")


def test_what_precedes_is_told_by_what_both_say():
    assert precedes(moment("", 1, date=9), moment("", 2, date=1))
    assert not precedes(moment("", 2), moment("", 2))
    assert precedes(moment("", None, 1, 9), moment("", 5, 2, 1))
    assert precedes(moment("", 5, date=1), moment("", None, date=2))


# ---------------------------------------------------------------------------------------------------------------- runs


def names(*folders: str) -> list[str]:
    parts = [tuple(folder.split("/")) if folder else () for folder in folders]
    found = run_names(parts)
    return [found[one] for one in parts]


def test_a_run_is_called_as_its_folder():
    assert names("runs/exp-a", "runs/exp-b") == ["exp-a", "exp-b"]


def test_a_folder_whose_name_says_nothing_has_that_above_it():
    assert names("exp-a/checkpoints", "exp-b/ckpt/weights") == ["exp-a", "exp-b"]
    assert names("exp-a/lightning_logs/version_0/checkpoints") == ["exp-a-version_0"]
    assert names("runs/3") == ["runs-3"]
    assert names("checkpoints") == ["checkpoints"]


def test_the_root_of_a_repository_is_no_training():
    assert names("") == ["imported"]


def test_two_folders_of_one_name_have_different_runs():
    assert names("x/a", "y/a", "z") == ["x-a", "y-a", "z"]
    assert names("a/b", "a_b", "a-b") == ["b", "a_b", "a-b"]
    assert names("x y", "x-y") == ["x-y", "x-y-2"] or names("x y", "x-y") == ["x-y-2", "x-y"]


def test_a_name_is_one_that_git_takes():
    assert names("runs/lr=3e-4 (best)", "..", "HEAD", "a.lock", "b..c", "größe 1") == [
        *("lr-3e-4-best", "imported", "run-HEAD", "a", "b.c", "größe-1"),
    ]


def test_a_long_name_is_cut_where_it_says_least():
    (name,) = names("a/" + "ü" * 300 + "-7")

    assert len(name.encode()) <= 100
    assert name.endswith("ü-7")
