"""Revision expressions: every form, and what is nearly one."""

from __future__ import annotations

import pytest

from ckptvcs.domain.revisions import AtStep, Best, Latest, Plain, Revision, mode_of, parse
from ckptvcs.errors import UsageError


@pytest.mark.parametrize(
    ("text", "revision"),
    [
        ("main@latest", Latest("main")),
        ("@latest", Latest(None)),
        ("feature/x@latest", Latest("feature/x")),
        ("a@b@latest", Latest("a@b")),
        ("main@best", Best("main", None)),
        ("@best", Best(None, None)),
        ("main@best:val_loss", Best("main", "val_loss")),
        ("@best:val/loss", Best(None, "val/loss")),
        ("main@best:a:b", Best("main", "a:b")),
        ("main@best:top 1", Best("main", "top 1")),
        ("main@step:1200", AtStep("main", 1200)),
        ("@step:0", AtStep(None, 0)),
        ("main@step:007", AtStep("main", 7)),
        ("main@step:" + "9" * 18, AtStep("main", 10**18 - 1)),
    ],
)
def test_a_selector_is_parsed(text: str, revision: Revision):
    assert parse(text) == revision


@pytest.mark.parametrize(
    "text",
    [
        *("HEAD", "main", "v1.0~3^2", "3f9a1c77", "golden/base", "HEAD@{1}", "@{u}", "@", "main..exp", ":/fix"),
        *("main@LATEST", "main@bestest", "main@latests", "main@stepper", "model#production#3", "main @latest x"),
    ],
)
def test_anything_else_is_left_to_git(text: str):
    assert parse(text) == Plain(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        *(
            (f"main@step{end}", "a step is a number")
            for end in ("", ":", ":x", ":-1", ":1.0", ":1_0", ": 1", ":٣", ":1\n")
        ),
        ("main@step:" + "9" * 19, "a step is a number"),
        ("main@latest:", "nothing may follow"),
        ("main@latest:5", "nothing may follow"),
        ("main@best:", "a metric is missing"),
    ],
)
def test_what_begins_like_a_selector_and_ends_otherwise_is_refused(text: str, why: str):
    with pytest.raises(UsageError) as caught:
        parse(text)

    assert why in caught.value.why
    assert "BRANCH@step:N" in caught.value.next_step
    assert "\n" not in caught.value.what


def test_an_empty_revision_is_refused_and_head_is_offered():
    with pytest.raises(UsageError) as caught:
        parse("")

    assert "HEAD" in caught.value.next_step


@pytest.mark.parametrize(
    ("metric", "mode"),
    [
        *(
            (name, "min")
            for name in ("loss", "val_loss", "loss/train", "top1_error", "Val.Perplexity", "eval-WER", "MSE")
        ),
        *((name, "max") for name in ("acc", "top5_acc", "acc1", "Accuracy", "f1", "rouge1", "mAP", "BLEU-4", "R2")),
        *((name, None) for name in ("lr", "", "lossless", "global_step", "time", "map50")),
        ("loss_of_acc", "min"),
    ],
)
def test_the_name_of_a_metric_tells_which_way_is_better(metric: str, mode: str | None):
    assert mode_of(metric) == mode
