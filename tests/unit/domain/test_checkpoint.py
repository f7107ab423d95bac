"""Names that a track may have, and tags that retention obeys."""

from __future__ import annotations

import pytest

from ckptvcs.domain.checkpoint import check_track, mark_of
from ckptvcs.errors import UsageError


@pytest.mark.parametrize("name", ["model", "teacher", "G", "gan_d-2", "a" * 64])
def test_a_track_may_have_a_plain_name(name: str):
    assert check_track(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", "2nd", "-model", "_model", "a b", "a/b", "..", "a.b", "modèle", "model\n", "a" * 65),
        *("true", "No", "ON", "off", "null", "y", "N"),
    ],
)
def test_a_track_may_not_have_a_name_that_yaml_or_a_file_system_reads_otherwise(name: str):
    with pytest.raises(UsageError) as caught:
        check_track(name)

    assert f"'{name}'" in caught.value.what
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("tag", "mark"),
    [
        ("golden/base", "golden"),
        ("milestone/epoch-10", "milestone"),
        ("v1.0", None),
        ("golden", None),
        ("goldenrod/x", None),
        ("x/golden/base", None),
    ],
)
def test_a_mark_is_told_by_the_folder_of_the_tag(tag: str, mark: str | None):
    assert mark_of(tag) == mark
