"""Trainings of other people's frameworks as programs of their own, to be killed: shuffled data, dropout, a scheduler.

usage: python -m tests.support.trainings KIND    in a repository

The environment says what happens: `END` is `STEP:SIGNAL:DELAY_S`, and the process sends itself that signal so long after
that step was made. The one that gets to the end writes `result.json`: digests of all parameters, and every loss.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
STEPS = 24


def run(kind: str, repo: Path, *, end: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    """Run one of them in a repository."""
    env = {**os.environ, "END": end, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore", **more}
    command = [sys.executable, "-m", "tests.support.trainings", kind]
    return subprocess.run(command, cwd=repo, env=env, capture_output=True, text=True, timeout=300, check=False)


def result(repo: Path) -> Any:
    """What the training came to."""
    return json.loads((repo / "result.json").read_text())


def main() -> None:
    {"trainer": trainer, "accelerate": accelerate}[sys.argv[1]]()


def trainer() -> None:
    """A small BERT with Hugging Face's Trainer; a log every third step, a save every fourth."""
    import torch
    from transformers import BertConfig, BertForMaskedLM, Trainer, TrainerCallback, TrainingArguments, set_seed

    from ckptvcs.train.transformers import CkptCallback

    class End(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            end_at(state.global_step)

    set_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertForMaskedLM(BertConfig(vocab_size=50, **size))
    texts = torch.randint(50, (40, 8))
    arguments = TrainingArguments(
        "runs",
        max_steps=STEPS,
        per_device_train_batch_size=4,
        learning_rate=1e-3,
        lr_scheduler_type="cosine",
        warmup_steps=4,
        logging_steps=3,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    callback = CkptCallback(run="bert", policy={"every_n_steps": 4, "on_preemption": True, "on_exit": True})
    data = [{"input_ids": text, "labels": text} for text in texts]
    training = Trainer(model, arguments, train_dataset=data, callbacks=[End(), callback])
    callback.train(training)
    losses = {entry["step"]: entry["loss"] for entry in training.state.log_history if "loss" in entry}
    write_result(model.state_dict(), losses)


def accelerate() -> None:
    """A small network with Accelerate; a save every fourth step."""
    import torch
    from accelerate import Accelerator
    from accelerate.utils import set_seed

    from ckptvcs.train.accelerate import CkptAccelerate

    set_seed(0)
    accelerator = Accelerator(cpu=True)
    model: Any = torch.nn.Sequential(torch.nn.Linear(6, 12), torch.nn.Dropout(0.3), torch.nn.Linear(12, 1))
    optimizer: Any = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler: Any = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    loader: Any = torch.utils.data.DataLoader(torch.randn(32, 6), batch_size=4, shuffle=True)
    model, optimizer, scheduler, loader = accelerator.prepare(model, optimizer, scheduler, loader)
    history = History()
    accelerator.register_for_checkpointing(history)
    policy = {"every_n_steps": 4, "on_preemption": True, "on_exit": True}
    with CkptAccelerate(accelerator, run="mlp", policy=policy) as keep:
        start = keep.resume()
        step = start.step if start else 0
        for epoch in range(keep.first_epoch, STEPS // 8):
            for batch in keep.batches(loader, epoch):
                loss = model(batch).square().mean()
                accelerator.backward(loss)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
                step += 1
                history.losses[step] = loss.item()
                end_at(step)
                keep.step(step, metrics={"loss": loss})
    write_result(accelerator.unwrap_model(model).state_dict(), history.losses)


class History:
    """An object of the user's that is saved too."""

    def __init__(self) -> None:
        self.losses: dict[int, float] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"losses": self.losses, "a set, which needs pickle": {1, 2}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.losses = state["losses"]


def end_at(step: int) -> None:
    """Send the signal if it is time."""
    at, _, rest = os.environ["END"].partition(":")
    if at and int(at) == step:
        number, _, delay_s = rest.partition(":")
        kill: Callable[[], None] = lambda: os.kill(os.getpid(), int(number))  # noqa: E731
        timer = threading.Timer(float(delay_s), kill)
        timer.daemon = True
        timer.start() if float(delay_s) else kill()


def write_result(parameters: Mapping[str, Any], losses: Mapping[int, float]) -> None:
    digests = {name: hashlib.sha256(value.numpy().tobytes()).hexdigest() for name, value in parameters.items()}
    told = {str(step): repr(loss) for step, loss in losses.items()}
    Path("result.json").write_text(json.dumps({"parameters": digests, "losses": told}))


if __name__ == "__main__":
    main()
