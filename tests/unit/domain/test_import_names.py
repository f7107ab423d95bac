"""Names of checkpoints: what they say, how users say what they say, and who counts where a file says something else."""

from __future__ import annotations

from typing import Any

import pytest

from ckptvcs.domain.import_names import Facts, Named, read_name, says_when, settled, template
from ckptvcs.errors import UsageError

COMMON = {
    "step_1000.pt": {"step": "1000"},
    "step1000.pt": {"step": "1000"},
    "model-step=1000.ckpt": {"step": "1000"},
    "model_step=7.pt": {"step": "7"},
    "epoch=3-step=1200.ckpt": {"epoch": "3", "step": "1200"},
    "epoch=3-step=1200-v1.ckpt": {"epoch": "3", "step": "1200"},
    "epoch=3-step=1200-val_loss=0.31.ckpt": {"epoch": "3", "step": "1200", "val_loss": "0.31"},
    "epoch=09-val_loss=-1.5e-05.ckpt": {"epoch": "09", "val_loss": "-1.5e-05"},
    "x-val_loss=nan-step=3.ckpt": {"val_loss": "nan", "step": "3"},
    "model_step100_val_loss=0.25.pt": {"step": "100", "val_loss": "0.25"},
    "recall_at_5=0.75-step=3.ckpt": {"recall_at_5": "0.75", "step": "3"},
    "checkpoint-500": {"step": "500"},
    "checkpoint12.pt": {"step": "12"},
    "checkpoint_1_500.pt": {"epoch": "1", "step": "500"},
    "ckpt_0010.pt": {"step": "0010"},
    "iter_000100": {"step": "000100"},
    "global_step100": {"step": "100"},
    "000100.pt": {"step": "000100"},
    "10000steps.pt": {"step": "10000"},
    "step_500k.pt": {"step": "500000"},
    "network-snapshot-000100.pt": {"step": "000100"},
    "unet_epoch-07.safetensors": {"epoch": "07"},
    "model_epoch_3_loss_0.1234.pth": {"epoch": "3", "loss": "0.1234"},
    "best_acc_0.95.pth": {"acc": "0.95"},
    "model.pth.tar": {},
    "last.ckpt": {},
    "best.pt": {},
    "resnet50.pt": {},
    "gpt2-124.pt": {},
    "vit-b-16.pt": {},
    "model-00001-of-00003.safetensors": {},
    "": {},
    ".pt": {},
}


@pytest.mark.parametrize(("name", "says"), COMMON.items(), ids=list(COMMON))
def test_common_names_are_read(name: str, says: dict[str, str]):
    assert dict(read_name(f"runs/step_9/{name}").values) == says


def test_a_name_alone_says_when():
    assert says_when("step_100.pt")
    assert says_when("epoch=3.ckpt")
    assert not says_when("optimizer.pt")
    assert not says_when("val_loss=0.3.pt")


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        ("epoch={epoch}-step={step}-val_loss={val_loss}.ckpt", "a/epoch=3-step=7-val_loss=0.5.ckpt", ("3", "7", "0.5")),
        ("m_{step}", "runs/m_12.pt", ("12",)),
        ("m_{step}", "runs/m_12", ("12",)),
        ("{epoch}-{val_loss:.2f}", "x/epoch=3-val_loss=0.31.ckpt", ("3", "0.31")),
        ("{lr}/m_*_{step}.pt", "runs/3e-4/m_last_12.pt", ("3e-4", "12")),
        ("{}_{global_step}_{_}.pt", "runs/abc_7_xyz.pt", ("7",)),
        ("model.{step}+{loss}.pt", "model.5+-1.25.pt", ("5", "-1.25")),
        ("M{STEP}", "m3.pt", ("3",)),
    ],
)
def test_a_template_reads_names(text: str, path: str, says: tuple[str, ...]):
    found = template(text).read(path)

    assert found is not None
    assert tuple(found.values()) == says


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("m_{step}.pt", "x/mm_1.pt"),
        ("m_{step}.pt", "m_1.pt.bak"),
        ("m_{step}.pt", "m_x.pt"),
        ("m_{step}.pt", "m_1.5.pt"),
        ("m.{step}.pt", "m+1.pt"),
        ("a*{step}.pt", "a/1.pt"),
    ],
)
def test_a_template_that_does_not_fit_reads_nothing(text: str, path: str):
    assert template(text).read(path) is None
    assert not read_name(path, [template(text)]).told


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("step.pt", "nothing in it is read"),
        ("*", "nothing in it is read"),
        ("{step}-{global_step}", "says 'step' twice"),
        ("{loss}-{loss}", "says 'loss' twice"),
        ("{a+b}", "cannot be the name"),
        ("{\x1b[31m}", "cannot be the name"),
    ],
)
def test_a_template_that_makes_no_sense_is_refused(text: str, why: str):
    with pytest.raises(UsageError) as caught:
        template(text)

    assert why in caught.value.why
    assert "\x1b" not in f"{caught.value}{caught.value.next_step}"


def test_the_first_template_that_fits_counts_alone():
    templates = [template("a_{step}"), template("{epoch}_{step}")]

    assert read_name("3_4.pt", templates) == Named(values={"epoch": "3", "step": "4"}, told=True)
    assert read_name("step_3.pt", templates) == Named(values={"step": "3"})


@pytest.mark.parametrize(
    ("values", "told", "held", "step", "metrics", "notes"),
    [
        ({"step": "0010"}, False, Facts(), 10, {}, 0),
        ({"step": "10"}, False, Facts(step=10), 10, {}, 0),
        ({"step": "10"}, False, Facts(step=12), 12, {}, 1),
        ({"step": "10"}, True, Facts(step=12), 10, {}, 1),
        ({"loss": "0.31"}, False, Facts(metrics={"loss": 0.3141}), None, {"loss": 0.3141}, 0),
        ({"loss": "0.31"}, True, Facts(metrics={"loss": 0.3141}), None, {"loss": 0.3141}, 0),
        ({"loss": "0.31"}, False, Facts(metrics={"loss": 0.5}), None, {"loss": 0.5}, 1),
        ({"loss": "3.1e-1"}, False, Facts(metrics={"loss": 0.3141}), None, {"loss": 0.3141}, 0),
        ({"loss": "0.31"}, False, Facts(metrics={"acc": 1}), None, {"acc": 1, "loss": 0.31}, 0),
    ],
)
def test_the_file_counts_unless_the_user_said_how_names_are_read(
    values: dict[str, str], told: bool, held: Facts, step: int | None, metrics: dict[str, Any], notes: int
):
    found = settled(Named(values=values, told=told), held)

    assert (found.step, dict(found.metrics), len(found.notes)) == (step, metrics, notes)


def test_an_epoch_may_be_a_part_of_one():
    assert settled(Named(values={"epoch": "3.5"}), Facts()).epoch == 3.5
    assert settled(Named(values={"epoch": "3.0"}), Facts()).epoch == 3
    assert settled(Named(values={"epoch": "-1"}), Facts()).epoch is None
    assert settled(Named(values={"epoch": "inf"}), Facts(epoch=2)).epoch == 2
