"""A training loop as users write it, to be killed and started again: `python -m tests.support.loop STEPS [KEY=VALUE]...`.

It tells each step and its loss, bit for bit, on stdout, and at the end a digest of every parameter and moment.
"""

from __future__ import annotations

import hashlib
import random
import sys
import time

import numpy as np
import torch
from torchdata.stateful_dataloader import StatefulDataLoader

import ckptvcs

SIZE, BATCH = 96, 8


def main(total: int, *, policy: str = "every_n_steps: 3", run: str = "loop", pause_s: float = 0.0) -> None:
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(7)
    inputs = torch.randn(SIZE, 6)
    data = [(row, row.sum()) for row in inputs]
    model = torch.nn.Sequential(
        torch.nn.Linear(6, 32), torch.nn.BatchNorm1d(32), torch.nn.Dropout(0.2), torch.nn.Linear(32, 1)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=total)
    loader = StatefulDataLoader(data, BATCH, shuffle=True)
    with ckptvcs.Checkpointer(
        run=run,
        model=model,
        optimizer=optimizer,
        scheduler=scheduler,
        dataloader=loader,
        policy=dict(map(_pair, policy.split(","))),
    ) as ck:
        start = ck.resume()
        step, epoch = (start.step + 1, start.epoch) if start else (0, 0)
        print(f"start {step}", flush=True)
        while step < total:
            for rows, sums in loader:
                loss = one_step(model, optimizer, scheduler, rows, sums)
                print(f"step {step} {loss.hex()} {random.random().hex()}", flush=True)
                ck.step(step, metrics={"loss": loss}, epoch=epoch)
                step += 1
                time.sleep(pause_s)
                if step == total:
                    break
            epoch += 1
    print(f"end {digest(model.state_dict(), optimizer.state_dict())}", flush=True)


def _pair(text: str) -> tuple[str, object]:
    key, _, value = text.partition(":")
    value = value.strip()
    return key.strip(), int(value) if value.isdigit() else {"true": True}.get(value, value)


def one_step(model, optimizer, scheduler, rows, sums) -> float:  # type: ignore[no-untyped-def]
    noise = random.random() + float(np.random.rand())
    loss = (model(rows + noise).squeeze(1) - sums).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
    return loss.item()


def digest(*states: object) -> str:
    """A digest of every tensor in nested states."""
    found, stack = hashlib.sha256(), list(states)
    while stack:
        item = stack.pop()
        if isinstance(item, torch.Tensor):
            found.update(item.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, (list, tuple)):
            stack.extend(item)
        else:
            found.update(repr(item).encode())
    return found.hexdigest()


if __name__ == "__main__":
    options = dict(argument.split("=", 1) for argument in sys.argv[2:])
    pause_s = float(options.pop("pause_s", "0"))
    main(int(sys.argv[1]), pause_s=pause_s, **options)
