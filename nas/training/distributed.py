"""One training on several GPUs: a process each, which takes its part of every batch.

The processes hold equal weights, and average their gradients in every step
(`torch.nn.parallel.DistributedDataParallel`; Li et al., VLDB 2020). The first process decides: it
draws the order of the examples, holds the host for all of them, looks at the clock, judges the
network and returns the outcome; the others follow. Batch normalisation takes its statistics over
the whole batch on GPUs (`SyncBatchNorm`), and over a process's part of it on processors, where
PyTorch has no such layer. Random changes of images and dropped paths are drawn by every process for
its part, from the training's seed and the number of the process: they differ from those that one
process draws, and are the same whenever the training is repeated by as many processes.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import distributed as dist
from torch import nn
from torch.multiprocessing.spawn import start_processes
from torch.nn.parallel import DistributedDataParallel

from nas.core.errors import CandidateFailure, HwnasError
from nas.core.host import LEASE_FOLDER_VARIABLE

if TYPE_CHECKING:
    from nas.core.trial import Candidate, Outcome
    from nas.training.job import TrainingJob

_PAUSE_S = 0.05


def distributed(job: TrainingJob, candidate: Candidate, deadline: float) -> Outcome:
    """Train a candidate in `job.processes` processes of this host; see `nas.core.trial.Job`.

    Raises:
        CandidateFailure: As the job raises it in one process.
    """
    receiver, sender = multiprocessing.get_context("spawn").Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix="hwnas-") as folder:
        context = start_processes(  # type: ignore[no-untyped-call]
            _member,
            args=(job, candidate, deadline, Path(folder), sender),
            nprocs=job.processes,
            join=False,
            start_method="spawn",
        )
        assert context is not None
        try:
            # A process that dies is raised by `join`.
            while not receiver.poll(_PAUSE_S):
                context.join(timeout=0)
            ended: Outcome | Exception = receiver.recv()
        finally:
            for process in context.processes:
                process.terminate()
                process.join()
    if isinstance(ended, Exception):
        raise ended
    return ended


def _member(
    rank: int,
    job: TrainingJob,
    candidate: Candidate,
    deadline: float,
    folder: Path,
    sender: Connection,
) -> None:
    """Take part in a training; the first process sends what came of it."""
    on_gpus = torch.cuda.is_available()
    if on_gpus:
        torch.cuda.set_device(rank)
    if rank > 0:
        # The first process holds the host for all. Who waited for it on its own could wait for a
        # measurement that waits for a step of the others, which wait in turn for this process.
        os.environ[LEASE_FOLDER_VARIABLE] = str(folder / f"lease-{rank}")
    dist.init_process_group(
        "nccl" if on_gpus else "gloo",
        init_method=f"file://{folder / 'meeting'}",
        rank=rank,
        world_size=job.processes,
    )
    try:
        ended: Outcome | Exception = job.trained(candidate, deadline)
    except (CandidateFailure, HwnasError) as error:
        ended = error
    if rank == 0 or isinstance(ended, Exception):
        sender.send(ended)
    dist.destroy_process_group()


def processes() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process among those that train together, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def of_first(values: torch.Tensor) -> torch.Tensor:
    """Return the values that the first process has."""
    if processes() > 1:
        moved = values.to(_device())
        dist.broadcast(moved, src=0)
        values = moved.to(values.device)
    return values


def own_seed(seed: int) -> int:
    """Return this process's seed for a training; the first has the training's own."""
    own = int(np.random.SeedSequence([seed, rank()]).generate_state(1)[0])
    return own if rank() else seed


def of_all(values: torch.Tensor) -> torch.Tensor:
    """Return the values of all processes, `(processes, ...)`."""
    if processes() == 1:
        return values[None]
    moved = values.to(_device())
    gathered = [torch.empty_like(moved) for _ in range(processes())]
    dist.all_gather(gathered, moved)
    return torch.stack(gathered).to(values.device)


def agreed(*decisions: bool) -> tuple[bool, ...]:
    """Return what the first process has decided; the others wait for it."""
    if processes() == 1:
        return decisions
    return tuple(of_first(torch.tensor([True, *decisions])).tolist()[1:])


def own_part(positions: torch.Tensor) -> torch.Tensor:
    """Return this process's part of a batch."""
    return positions.tensor_split(processes())[rank()]


def synchronise(network: nn.Module) -> None:
    """Let the normalisations within a network see the whole batch, on GPUs."""
    if processes() > 1 and _device().type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]


def averaging(outputs: nn.Module, *, in_part: bool = False) -> nn.Module:
    """Return a module of the same outputs; its backward pass averages gradients.

    All processes then have the weights of the first one.

    Args:
        outputs: Returns what the loss is of.
        in_part: Whether outputs may depend on some of its parameters only.
    """
    if processes() == 1:
        return outputs
    return DistributedDataParallel(outputs, find_unused_parameters=in_part)


def _device() -> torch.device:
    """Return where processes exchange values."""
    if dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
