"""Tiny pairs and a tiny run, and clean processes to train in, for the tests of training."""
import multiprocessing
import os
import socket
import time
from contextlib import contextmanager

import pytest
import torch

import mmvae
from mmvae import distributed, gaussian
from mmvae.data import Rows
from mmvae.train import Settings, fit, load_run

LOCAL = {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
BASE = dict(iterations=40, batch=8, warmup=5, log_every=5, checkpoint_every=10)
CLEAN = multiprocessing.get_context("forkserver")  # forks of a process that has imported PyTorch and run nothing
CLEAN.set_forkserver_preload(["mmvae.train", "mmvae.experiment.table", "torch._dynamo"])  # the second is what an optimiser imports when it steps


def rows(seed=0) -> Rows:
    """Random pairs of pictures, as bytes."""
    g = torch.Generator().manual_seed(seed)
    return Rows({m: torch.randint(0, 256, (60, 1, 16, 16), generator=g, dtype=torch.uint8) for m in "IT"}, images="IT")


def build(model="poe-v2", seed=0, **options):
    """One of the book's models, 16 pixels a side, from weights that depend on the seed alone."""
    torch.manual_seed(seed)
    return mmvae.MODELS[model](size=16, **options)


@contextmanager
def noiseless():
    """In here every draw of a Gaussian is its mean."""
    alone, gaussian.noise = gaussian.noise, torch.zeros_like
    try:
        yield
    finally:
        gaussian.noise = alone


def weights(model) -> dict:
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def names(folder) -> list[str]:
    """The files of a run's checkpoints, also those half written."""
    return sorted(p.name for p in folder.glob("*checkpoint-*"))


def run(folder, compile=False, model="poe-v2", options=None, data=None, **changes):
    """`fit` of a fresh model on tiny rows; changes: fields of the settings."""
    settings = Settings(**BASE | changes)
    return fit(build(model, settings.seed, **options or {}), data or rows(), folder, settings, progress=False, compile=compile)


def load(folder, model="poe-v2", **options):
    return load_run(folder, build(model, **options))


def stop_at(monkeypatch, iteration):
    """Interrupt `fit` as Ctrl-C does, when it asks for the learning rate of this iteration."""
    rate = Settings.rate

    def interrupted(self, i):
        if i == iteration:
            raise KeyboardInterrupt
        return rate(self, i)

    monkeypatch.setattr(Settings, "rate", interrupted)


def stopped(folder, monkeypatch, iteration=25, **changes):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, iteration)
        run(folder, **changes)


def train(changes: dict, folder, before=None, *args):
    """`fit` on one thread, after before(*args)."""
    torch.set_num_threads(1)
    if before:
        before(*args)
    run(folder, **changes)


def start(*args, target=train):
    process = CLEAN.Process(target=target, args=args)
    process.start()
    return process


def side_by_side(count: int, *args, target=train) -> list[int]:
    """target(*args) in `count` processes that know each other, as torchrun starts them; their exit codes."""
    port = free_port()
    processes = [start(rank, count, port, target, *args, target=_member) for rank in range(count)]
    deadline = time.monotonic() + 100
    for process in processes:
        process.join(max(deadline - time.monotonic(), 0))
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in processes]


def _member(rank: int, count: int, port: int, target, *args):
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_PORT": str(port)} | LOCAL
    distributed.start("cpu")
    target(*args)
    distributed.stop()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]

