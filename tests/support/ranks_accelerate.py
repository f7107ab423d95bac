"""A training of several processes with Accelerate: `RANK=0 WORLD_SIZE=2 ... python -m tests.support.ranks_accelerate STEPS`."""

from __future__ import annotations

import os
import sys
import warnings

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from ckptvcs.train.accelerate import CkptAccelerate
from tests.support.loop import digest


def main(total: int, stop_at: int) -> None:
    warnings.simplefilter("ignore")
    set_seed(0)
    accelerator = Accelerator(cpu=True)
    bare = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Dropout(0.3), torch.nn.Linear(16, 1))
    optimizer = torch.optim.AdamW(bare.parameters(), lr=0.01)
    loader = torch.utils.data.DataLoader(torch.randn(64, 6), batch_size=8, shuffle=True)
    set_seed(100 + accelerator.process_index)  # each rank drops others
    model, optimizer, loader = accelerator.prepare(bare, optimizer, loader)
    with CkptAccelerate(accelerator, run="ranks", policy={"every_n_steps": 3}) as ck:
        start = ck.resume()
        step, epoch = (start.step, ck.first_epoch) if start else (0, 0)
        while step < total:
            for rows in ck.batches(loader, epoch):
                loss = model(rows).square().mean()
                optimizer.zero_grad()
                accelerator.backward(loss)
                optimizer.step()
                step += 1
                print(f"step {step} {loss.item().hex()}", flush=True)
                ck.step(step, metrics={"loss": loss}, samples=16 * step)
                if step == stop_at:
                    ck.wait_until_finished()
                    accelerator.wait_for_everyone()
                    os._exit(9)
                if step == total:
                    break
            epoch += 1
    print(f"end {digest(model.state_dict(), optimizer.state_dict())}", flush=True)
    accelerator.end_training()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else -1)
