"""A training script as anybody would write it; `Checkpointer` is all it knows of ckptvcs.

usage: python train.py RUN STEPS [--from REV] [--lr LR] [--pause-at STEP]
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import numpy
import torch
from gpt import GPT, batch, corpus
from torch.nn import functional

import ckptvcs

SAVE_EVERY = 50


def main() -> None:
    """Train; write a line of JSON for every step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("steps", type=int)
    parser.add_argument("--from", dest="revision", help="fork from this checkpoint")
    parser.add_argument("--lr", type=float, help="a new learning rate")
    parser.add_argument("--pause-at", type=int, default=-1, help="wait at this step (to be killed there)")
    args = parser.parse_args()

    random.seed(1)
    numpy.random.seed(1)
    torch.manual_seed(1)
    torch.set_num_threads(2)
    text, model = corpus(), GPT()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=300)

    with ckptvcs.Checkpointer(
        run=args.run, model=model, optimizer=optimizer, scheduler=scheduler, params={"lr": args.lr or 1e-3}
    ) as ck:
        start = ck.resume(args.revision)
        if args.lr:
            scheduler.base_lrs = [args.lr]
            optimizer.param_groups[0]["lr"] = args.lr
        with Path(f"{args.run}.losses").open("a") as losses:
            for step in range(start.step + 1 if start else 0, args.steps):
                if step == args.pause_at:
                    ck.wait_until_finished()
                    losses.write("paused\n")
                    losses.flush()
                    time.sleep(600)
                inputs, targets = batch(text, 12)
                loss = functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                scheduler.step()
                losses.write(json.dumps({"step": step, "loss": loss.item().hex()}) + "\n")
                losses.flush()
                if step % SAVE_EVERY == 0 or step == args.steps - 1:
                    ck.save(step, metrics={"loss": loss.item()})


if __name__ == "__main__":
    main()
