"""A training of several processes, as users write it: `RANK=0 WORLD_SIZE=2 ... python -m tests.support.ranks_loop STEPS`."""

from __future__ import annotations

import os
import random
import sys

import torch
from torchdata.stateful_dataloader import StatefulDataLoader
from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler

import ckptvcs
from tests.support.loop import digest


def main(total: int, stop_at: int) -> None:
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    random.seed(rank)
    torch.manual_seed(0)
    inputs = torch.randn(64, 6)
    bare = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Dropout(0.3), torch.nn.Linear(16, 1))
    torch.manual_seed(100 + rank)  # each rank drops others
    model = torch.nn.parallel.DistributedDataParallel(bare)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    sampler = StatefulDistributedSampler(inputs, shuffle=True)
    loader = StatefulDataLoader(inputs, batch_size=8, sampler=sampler)
    with ckptvcs.Checkpointer(
        run="ranks", model=model, optimizer=optimizer, dataloader=loader, policy={"every_n_steps": 3}
    ) as ck:
        start = ck.resume()
        step, epoch = (start.step + 1, start.epoch) if start else (0, 0)
        while step < total:
            sampler.set_epoch(epoch)
            for rows in loader:
                loss = model(rows + random.random()).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                print(f"step {step} {loss.item().hex()}", flush=True)
                ck.step(step, metrics={"loss": loss}, epoch=epoch)
                step += 1
                if step == stop_at:
                    ck.wait_until_finished()
                    torch.distributed.barrier()
                    os._exit(9)
                if step == total:
                    break
            epoch += 1
    print(f"end {digest(model.state_dict(), optimizer.state_dict())}", flush=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else -1)
