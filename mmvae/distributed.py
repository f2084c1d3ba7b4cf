"""One run on several processes: each works on its rows of every batch, and their gradients are averaged.

    torchrun --nproc-per-node=N -m mmvae.experiment train MODEL data.h5 RUN_DIR [...]

Every process draws the indices and the noise of the whole batch and uses its own rows of both, so that N processes do
what one would do. The first reads and writes the run's folder. Outside of torchrun, or with N = 1, nothing in here
does anything.
"""
import os
import shutil
from contextlib import contextmanager
from copy import copy

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from . import gaussian

COMPILER = {"backend": "inductor", "options": {"fallback_random": True, "triton.cudagraphs": True}}


def start(device: str) -> str:
    """Join the other processes, if torchrun started more than one; the device of this one.

    gloo on CPUs, nccl on GPUs, of which a machine's k-th process takes the k-th. Raises ValueError if it has fewer.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return device
    gpu = torch.device(device).type == "cuda"
    if gpu:
        local, count = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= count:
            raise ValueError(f"--nproc-per-node: found a process {local + 1} on this machine, expected at most one "
                             f"for each of its GPUs, {count}")
        device = f"cuda:{local}"
        torch.cuda.set_device(device)
    with together():
        dist.init_process_group("nccl" if gpu else "gloo")
    return device


def stop():
    """Leave the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rows(batch: int) -> slice:
    """This process's rows of a batch. Raises ValueError if the batch cannot be shared out evenly."""
    if batch % size():
        raise ValueError(f"batch: found {batch}, expected a multiple of the number of processes, {size()}")
    share = batch // size()
    return slice(rank() * share, (rank() + 1) * share)


def average(values: Tensor) -> Tensor:
    """The mean of every process's values, of one shape, in all of them."""
    if size() > 1:
        dist.all_reduce(values)
        values = values / size()
    return values


def from_first(data: bytes, device: torch.device) -> bytes:
    """The first process's bytes, in all of them; sent as a tensor, so that nothing is pickled."""
    if size() == 1:
        return data
    length = torch.tensor([len(data)], device=device)
    dist.broadcast(length, 0)
    content = torch.empty(int(length), dtype=torch.uint8, device=device)
    if rank() == 0:
        content.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    dist.broadcast(content, 0)
    return content.cpu().numpy().tobytes()


@contextmanager
def together():
    """In here processes wait for each other: ConnectionError, not torch's own error, where another one has ended."""
    try:
        yield
    except RuntimeError as e:
        if not (isinstance(e, dist.DistError) or "gloo" in str(e).lower()):
            raise
        raise ConnectionError(f"another process of this run has ended, so this one stops "
                              f"({str(e).splitlines()[0].split('] ')[-1][:150]})") from e


def joint_noise(like: Tensor) -> Tensor:
    """`torch.randn_like` of the whole batch, as one process would draw it: this process's rows."""
    share = len(like)
    noise = torch.randn(share * size(), *like.shape[1:], dtype=like.dtype, device=like.device)
    return noise[rank() * share:(rank() + 1) * share]


class DataParallel(DistributedDataParallel):
    """A model whose `loss` is that of this process's rows, and whose gradients are the average of all processes'.

    idle: whether some parameters get no gradient, as those of encoders whose ELBO the loss has not.
    """

    def __init__(self, model: nn.Module, idle: bool = False):
        super().__init__(Loss(model), find_unused_parameters=idle)

    def loss(self, *arguments, **more) -> dict[str, Tensor]:
        alone, gaussian.noise = gaussian.noise, joint_noise
        try:
            return self(*arguments, **more)
        finally:
            gaussian.noise = alone


class Loss(nn.Module):
    """The loss as a module's `forward`, which is what DistributedDataParallel wraps."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, *arguments, **more) -> dict[str, Tensor]:
        return self.model.loss(*arguments, **more)


def prepared(model: nn.Module, rows, settings, part: slice, compile: bool):
    """What a training loop takes for the model: it itself, compiled, or on several processes.

    On several, two gradients of the first rows are let go of, and weights and random states left as they are. By their order
    DistributedDataParallel groups the parameters anew, and how they are grouped decides in which order three or more
    processes are summed up: a run that is resumed must begin as it would have gone on.
    """
    if size() == 1:
        return _compiled(model, rows.device) if compile else model
    if compile:
        raise ValueError(f"compile: found {size()} processes, expected one")
    x, present = rows.batch(torch.zeros(part.stop - part.start, dtype=torch.int64, device=rows.device))
    with torch.random.fork_rng(gpus(rows.device)):
        def step(of, iteration=0):
            of.loss(x, settings.weight, present, check=False, **settings.added_at(iteration))["total"].backward()
            idle = any(p.grad is None for p in model.parameters() if p.requires_grad)
            model.zero_grad()
            return idle

        stepped = DataParallel(model, idle=any([step(model, i) for i in (0, settings.iterations - 1)]))
        for _ in range(2):  # the new groups are made when the second begins
            step(stepped)
    return stepped


def gpus(device: torch.device) -> list[torch.device]:
    """Whose random states are saved and restored beside the CPU's."""
    return [device] if torch.device(device).type == "cuda" else []


def _compiled(model: nn.Module, device: torch.device) -> nn.Module:
    """The same weights with a compiled loss, and the noise as it is without: on a GPU one CUDA graph each way."""
    if device.type == "cpu" and not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++", "cl")):
        raise ValueError("compile: found no C++ compiler (CXX, g++, clang++ or cl), which it needs on a CPU")
    loss = model.loss

    def compiled(*arguments, **more) -> dict[str, Tensor]:
        terms = loss(*arguments, **more)  # only the total has a backward
        return {name: value if name == "total" else value.detach() for name, value in terms.items()}

    model = copy(model)  # shares its weights
    model.loss = torch.compile(compiled, fullgraph=True, dynamic=False, **COMPILER)
    return model
