"""checkpoint.py: a full disk, and a log that is damaged, whole or gone."""
import errno
import os
import resource
from pathlib import Path

import pytest

import tiny
from mmvae import checkpoint, files
from mmvae.train import fit, read_log
from tiny import names, run, same, start, stopped, weights


@pytest.mark.parametrize("call, number", [("fsync", errno.ENOSPC), ("replace", errno.ENOSPC), ("fsync", errno.EIO)])
def test_a_full_disk_leaves_the_last_checkpoint(call, number, tmp_path, monkeypatch):
    stopped(tmp_path, monkeypatch, 15)
    keep = checkpoint.keep

    def full(*args):
        raise OSError(number, os.strerror(number))

    def keep_on_a_full_disk(*args):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, full)
            keep(*args)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "keep", keep_on_a_full_disk)
        with pytest.raises(OSError, match=f"{os.strerror(number)}: could not write checkpoint-00000020.safetensors in "
                                          ".*; the last good checkpoint, checkpoint-00000010.safetensors, is intact"):
            run(tmp_path)
    assert names(tmp_path)[-1] == "checkpoint-00000010.safetensors"
    assert same(weights(run(tmp_path)), weights(run(tmp_path.with_name("whole"))))


def test_a_file_that_may_not_grow_is_a_full_disk(tmp_path):
    """A real one, from the system: no file of the process may pass half the size of a checkpoint."""
    stopper = start({}, tmp_path / "cut", end_after_the_first)
    stopper.join()
    size = (tmp_path / "cut" / "checkpoint-00000010.safetensors").stat().st_size
    process = start({}, tmp_path / "cut", no_larger_than, size // 2, tmp_path / "said")
    process.join()
    assert process.exitcode == 3
    said = (tmp_path / "said").read_text()
    assert f"{os.strerror(errno.EFBIG)}: could not write checkpoint-00000020.safetensors" in said
    assert "the last good checkpoint, checkpoint-00000010.safetensors, is intact" in said
    assert names(tmp_path / "cut")[-1] == "checkpoint-00000010.safetensors"
    for folder in ("cut", "whole"):
        start({}, tmp_path / folder).join()
    assert same(weights(tiny.load(tmp_path / "cut")), weights(tiny.load(tmp_path / "whole")))


def end_after_the_first():
    keep = checkpoint.keep
    checkpoint.keep = lambda folder, new: (keep(folder, new), new.iteration and os._exit(0))


def no_larger_than(size: int, said: Path):
    def fit_in_vain(*args, **kwargs):
        try:
            fit(*args, **kwargs)
        except OSError as e:
            said.write_text(str(e))
            os._exit(3)

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    tiny.fit = fit_in_vain


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_log_that_cannot_be_written_stops_the_run(tmp_path, monkeypatch):
    stopped(tmp_path, monkeypatch)
    log = files.Log(tmp_path / "log.csv", 20, 5)
    log.path = tmp_path / "full" / "log.csv"
    log.path.parent.mkdir()
    log.path.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device: could not write log.csv in .*full"):
        log.write({"iteration": 25, "seconds": 1.0, "total": 3.0})


@pytest.mark.parametrize("damage", [lambda text: text + "25,0.1", lambda text: text + "25,0.1,nonsense\n",
                                    lambda text: text + "\0" * 300, lambda text: text + "30,1.0,1,1\n"])
def test_the_log_is_repaired(damage, tmp_path, monkeypatch):
    stopped(tmp_path / "cut", monkeypatch)
    path = tmp_path / "cut" / "log.csv"
    path.write_text(damage(path.read_text()))
    run(tmp_path / "cut")
    run(tmp_path / "whole")
    logs = [read_log(tmp_path / name) for name in ("cut", "whole")]
    assert all((logs[0][k] == logs[1][k]).all() for k in logs[0] if k != "seconds")


def test_rows_that_are_gone_are_named_and_the_run_goes_on(tmp_path, monkeypatch, capsys):
    stopped(tmp_path, monkeypatch)
    lines = (tmp_path / "log.csv").read_text().splitlines(keepends=True)
    (tmp_path / "log.csv").write_text("".join([*lines[:2], "10,zzz\n", *lines[3:]]))
    with pytest.raises(ValueError, match="line 3 is damaged"):
        read_log(tmp_path)
    run(tmp_path)
    assert "rows between iteration 5 and 20 are damaged or missing" in capsys.readouterr().err
    assert read_log(tmp_path)["iteration"].tolist() == [5, 25, 30, 35, 40]


def test_a_file_that_is_no_log_is_refused(tmp_path, monkeypatch):
    stopped(tmp_path, monkeypatch)
    (tmp_path / "log.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="found columns a, b, expected iteration, seconds"):
        run(tmp_path)
