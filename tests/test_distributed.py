"""distributed.py: several processes do what one would do, and none of them is lost alone. All on loopback."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file

import mmvae
import tiny
from mmvae import checkpoint, distributed, gaussian
from mmvae.faces import Pairs
from mmvae.train import read_log
from tiny import LOCAL, free_port, load, names, rows, run, same, side_by_side, start, weights

TWELVE = {"batch": 12}


def gradient(model, x, weight) -> dict:
    """Of the model's loss at x, with the noise of seed 3."""
    torch.manual_seed(3)
    model.loss(x, weight)["total"].backward()
    return {name: p.grad for name, p in model.named_parameters()}


ROW_BY_ROW = [name for name in mmvae.MODELS if name != "idmvae"]  # its InfoNCE compares rows, those of one process


def save_gradients(folder):
    """In each of several processes: for every model, the gradient that it is left with."""
    for name in ROW_BY_ROW:
        model = distributed.DataParallel(tiny.build(name))
        index = rows().draw(12, torch.Generator().manual_seed(7))[distributed.rows(12)]
        found = gradient(model, rows().batch(index)[0], 16.0)
        assert all(g is not None for g in found.values())  # so no parameter is ever without one
        save_file({k.removeprefix("module.model."): g for k, g in found.items()},
                  folder / f"{name}-{distributed.rank()}.safetensors")


def test_the_averaged_gradient_is_that_of_the_joint_batch(tmp_path):
    assert side_by_side(2, tmp_path, target=save_gradients) == [0, 0]
    for name in ROW_BY_ROW:
        expected = gradient(tiny.build(name), rows().sample(12, torch.Generator().manual_seed(7))[0], 16.0)
        two = [load_file(tmp_path / f"{name}-{rank}.safetensors") for rank in range(2)]
        assert same(*two) and two[0].keys() == expected.keys()
        apart = torch.cat([(two[0][k] - g).flatten() for k, g in expected.items()]).norm()
        assert apart <= 1e-6 * torch.cat([g.flatten() for g in expected.values()]).norm(), name


def end_after(iteration: int):
    """From now on, this process ends without a word when its checkpoint of this iteration is written."""
    keep = checkpoint.keep
    checkpoint.keep = lambda folder, new: (keep(folder, new), new.iteration == iteration and os._exit(9))


@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_end_where_one_does_and_resume_bit_for_bit(count, tmp_path):
    """Three add up in an order that depends on how PyTorch groups the parameters; two cannot."""
    one = weights(run(tmp_path / "one", **TWELVE))
    assert side_by_side(count, TWELVE, tmp_path / "whole", target=tiny.train) == [0] * count
    codes = side_by_side(count, TWELVE, tmp_path / "cut", end_after, 20, target=tiny.train)
    assert codes[0] == 9 and all(codes)  # the first ended, and the others did not wait for it for ever
    assert names(tmp_path / "cut") == [f"checkpoint-000000{k}.safetensors" for k in (10, 20)]
    assert side_by_side(count, TWELVE, tmp_path / "cut", target=tiny.train) == [0] * count
    whole, cut = (weights(load(tmp_path / name)) for name in ("whole", "cut"))
    assert same(whole, cut)
    close(whole, one)
    assert read_log(tmp_path / "cut")["iteration"].tolist() == list(range(5, 41, 5))
    for column, values in read_log(tmp_path / "one").items():  # the averages of all processes
        assert column == "seconds" or read_log(tmp_path / "cut")[column] == pytest.approx(values, rel=1e-4, abs=1e-2)


def newest(folder) -> checkpoint.Checkpoint:
    return checkpoint.newest(folder, checkpoint.settings_of(folder), weights(load(folder)))


def close(found: dict, expected: dict):
    """Not bit for bit: sums are added up in another order. Far less apart than the training has moved them."""
    moved, apart = (sum((w[k] - expected[k]).square().sum() for k in expected).sqrt()
                    for w in (weights(tiny.build()), found))
    assert apart < 1e-3 * moved


@pytest.mark.parametrize("first, second", [(1, 2), (2, 1)])
def test_a_checkpoint_of_one_process_is_one_of_two(first, second, tmp_path):
    for count, done, *stop in ((first, 20, end_after, 20), (second, 40)):
        side_by_side(count, TWELVE, tmp_path / "run", *stop, target=tiny.train)
        assert newest(tmp_path / "run").machine["processes"] == count
        assert newest(tmp_path / "run").iteration == done
    close(weights(load(tmp_path / "run")), weights(run(tmp_path / "one", **TWELVE)))


@pytest.mark.parametrize("options", [{"subsets": [("I", "T")]}, {"subsets": [("I",), ("I", "T")]}])
def test_a_model_with_idle_encoders_trains_on_two_processes(options, tmp_path):
    """MuMo without the ELBOs of single modalities: its other encoders never get a gradient."""
    changes = TWELVE | {"model": "mumo", "options": options, "iterations": 10}
    assert side_by_side(2, changes, tmp_path / "two", target=tiny.train) == [0, 0]
    one = weights(run(tmp_path / "one", **changes))
    two = weights(load(tmp_path / "two", "mumo", **options))
    start_ = weights(tiny.build("mumo"))
    moved, apart = (sum((w[k] - one[k]).square().sum() for k in one).sqrt() for w in (start_, two))
    assert apart < 1e-3 * moved


def test_one_process_of_torchrun_is_the_plain_run(tmp_path):
    assert side_by_side(1, TWELVE, tmp_path / "torchrun", target=tiny.train) == [0]
    plain = start(TWELVE, tmp_path / "plain")
    plain.join()
    a, b = newest(tmp_path / "torchrun"), newest(tmp_path / "plain")
    assert same(a.tensors, b.tensors) and a.machine == b.machine


def check_what_is_shared():
    """In each of several processes."""
    assert distributed.size() == 2 and distributed.rows(8) == slice(4 * distributed.rank(), 4 * distributed.rank() + 4)
    data = distributed.from_first(b"first" * 1000 if distributed.rank() == 0 else b"", torch.device("cpu"))
    assert data == b"first" * 1000
    mean = distributed.average(torch.tensor([1.0, 3.0]) * (distributed.rank() + 1))
    assert mean.tolist() == [1.5, 4.5]
    torch.manual_seed(0)
    mine = distributed.joint_noise(torch.zeros(3, 5))
    torch.manual_seed(0)
    assert torch.equal(mine, torch.randn(6, 5)[3 * distributed.rank():][:3]) and gaussian.noise is torch.randn_like
    with pytest.raises(ValueError, match="batch: found 9, expected a multiple of the number of processes, 2"):
        distributed.rows(9)
    with pytest.raises(ValueError, match="compile: found 2 processes, expected one"):
        distributed.prepared(None, None, None, None, compile=True)
    dist.barrier()


def test_what_processes_share():
    assert side_by_side(2, target=check_what_is_shared) == [0, 0]
    assert distributed.size() == 1 and distributed.rank() == 0 and distributed.rows(9) == slice(0, 9)


def children(pid: int) -> list[int]:
    if Path("/proc/self/stat").exists():
        parents = {int(p.name): _parent(p / "stat") for p in Path("/proc").glob("[0-9]*")}
    else:
        listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        parents = dict(map(int, line.split()) for line in listed.splitlines())
    return [child for child, parent in parents.items() if parent == pid]


def _parent(stat: Path) -> int:
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has just ended
        return 0


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def train_on(file, folder, changes):
    mmvae.fit(tiny.build("vanilla"), Pairs(file), folder, progress=False, **changes)


def test_a_killed_worker_ends_the_run_and_it_resumes(tmp_path):
    """torchrun itself, from the command line: SIGKILL one of two, then the same command again."""
    mmvae.faces.write(tmp_path / "faces.h5", identities=1, test_identities=1, size=16, progress=False)
    changes = dict(batch=8, iterations=300, checkpoint_every=20, log_every=20)

    def torchrun():
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1",
                   f"--master-port={free_port()}", "-m", "mmvae.experiment", "train", "vanilla", str(tmp_path / "faces.h5"),
                   str(tmp_path / "run"), "--device", "cpu", "--threads", "1", "--size", "16", "--weight", "1"]
        command += [word for k in changes for word in (f"--{k.replace('_', '-')}", str(changes[k]))]
        return subprocess.Popen(command, text=True, env=os.environ | LOCAL, stderr=subprocess.PIPE,
                                stdout=subprocess.PIPE)

    process, deadline = torchrun(), time.monotonic() + 60
    while not names(tmp_path / "run") and time.monotonic() < deadline:
        time.sleep(0.01)
    workers = children(process.pid)
    assert len(workers) == 2
    os.kill(max(workers), signal.SIGKILL)
    said = process.communicate(timeout=45)[1]
    assert process.returncode != 0 and "SIGKILL" in said
    assert not any(alive(pid) for pid in workers)
    assert int(names(tmp_path / "run")[-1][11:19]) < 300
    process = torchrun()
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert said.count("vanilla: 300 iterations") == 1  # one of the two speaks
    assert side_by_side(2, tmp_path / "faces.h5", tmp_path / "whole", changes, target=train_on) == [0, 0]
    assert same(*(weights(load(tmp_path / name, "vanilla")) for name in ("run", "whole")))
