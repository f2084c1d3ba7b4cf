"""The experiment's data file, and `Grid`: pictures over the factors that made them, checked.

A pair shares identity and azimuth of the pose; the elevation belongs to I alone, the light to T alone. Nothing is stored
twice: I is a grid over (identity, azimuth, elevation), T over (identity, azimuth, light), and a pair is one cell of each.
"""
import collections
import contextlib
import json
import multiprocessing
import os
import pathlib
import signal
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from hashlib import sha256

import h5py
import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from .. import strict
from . import hdf5, renderer
from .renderer import AZIMUTHS, ELEVATIONS, GENERATOR_VERSION, LIGHTS, SEED, TEST_FROM, check, clouds

FACTORS = ("identity", "azimuth", "elevation", "light")
AXES = {"I": ("identity", "azimuth", "elevation"), "T": ("identity", "azimuth", "light")}
HOME = {"elevation": "I", "light": "T", "azimuth": "S"}  # the block that should hold each factor in degrees


class Grid:
    """Pictures of two modalities over the factors that made them: Grid(I, T, identity=..., azimuth=..., elevation=...,
    light=...), or factors of any other names, Grid(I, T, digit=..., angle=..., ink=..., paper=...).

    I, T: arrays or tensors with a dimension for each of the modality's factors, then (H, H): bytes, or floats in [0, 1],
    which become 256 greys. factors: {name: (n,)}, whole numbers (a kind) or floats (a quantity, in `unit`). The last but
    one belongs to I alone, the last to T alone, all before to both; axes, {"I": names, "T": names}, says so if it is
    otherwise. The first is whole numbers, and what is held out: its last `test_identities` values are the test split.

    Raises TypeError for what is neither tensor nor array, ValueError, in a sentence, for bytes and floats of another range,
    lengths that do not fit the pictures, and more values held out than there are.
    """

    def __init__(self, I: Tensor, T: Tensor, *, axes: dict[str, tuple[str, ...]] | None = None,  # noqa: E741
                 test_identities: int = 10, unit: str = "degrees", **factors: Tensor):
        names = FACTORS if set(factors) == set(FACTORS) else tuple(factors)
        if axes is None and len(names) < 3:
            raise ValueError(f"factors: found {names}, expected at least three: what both share, I's own, T's own")
        self.axes = axes = {m: tuple(of) for m, of in (axes or {"I": names[:-1], "T": (*names[:-2], names[-1])}).items()}
        self.test_identities, self.unit = test_identities, unit
        if set(axes) != {"I", "T"} or axes["I"][:1] != axes["T"][:1] or set(axes["I"] + axes["T"]) != set(names):
            raise ValueError(f'axes: found {axes}, expected {{"I": names, "T": names}} of {names}, the same first in both')
        for name in self.factors:
            setattr(self, name, _values(name, factors[name], kind=name == self.first))
        for m, images in (("I", I), ("T", T)):
            setattr(self, m, _as_uint8(images, m))
            found, lengths = tuple(getattr(self, m).shape), tuple(len(getattr(self, f)) for f in axes[m])
            if found[:-2] != lengths or found[-1] != found[-2]:
                raise ValueError(f"{m}: found shape {found}, expected {lengths} + (H, H), the lengths of "
                                 f"{', '.join(axes[m])}")
        n = len(getattr(self, self.first))
        if isinstance(test_identities, bool) or not isinstance(test_identities, int) or not 0 <= test_identities <= n:
            raise ValueError(f"test_identities: found {test_identities}, expected 0 to {n}, as many as there are of "
                             f"{self.first}")
        if not isinstance(unit, str) or not unit:
            raise ValueError(f'unit: found {unit!r}, expected a word such as "degrees", or "index"')

    @property
    def factors(self) -> tuple[str, ...]:
        """Their names: I's, then T's own."""
        return tuple(dict.fromkeys(self.axes["I"] + self.axes["T"]))

    @property
    def first(self) -> str:
        """The name of the factor that is held out."""
        return self.axes["I"][0]


def _values(name: str, values, kind: bool) -> Tensor:
    """A factor's values, int64 or float32 (n,). kind: whole numbers, each once."""
    values = _tensor(name, values)
    if values.dim() != 1 or not len(values) or values.dtype == torch.bool or values.is_complex():
        raise ValueError(f"{name}: found {values.dtype} of shape {tuple(values.shape)}, expected numbers of shape (n,)")
    if kind and values.is_floating_point():
        raise ValueError(f"{name}: found {values.dtype}, expected whole numbers, since it is held out by its values")
    if kind and len(values.unique()) < len(values):
        raise ValueError(f"{name}: found some values twice, expected each once, so that no split has what another has")
    if not values.isfinite().all():
        raise ValueError(f"{name}: found NaN or infinite values, expected finite ones")
    return values.float() if values.is_floating_point() else values.long()


def _tensor(name: str, values) -> Tensor:
    if not isinstance(values, Tensor | np.ndarray):
        raise TypeError(f"{name}: found {type(values).__name__}, expected a tensor or an array")
    return torch.as_tensor(values)


def _as_uint8(images: np.ndarray | Tensor, where: str) -> Tensor:
    """uint8 as it is; float in [0, 1] to 256 grey levels."""
    images = _tensor(where, images)
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise ValueError(f"{where}: found {images.dtype}, expected uint8, or float in [0, 1]")
    low, high = images.aminmax() if images.numel() else (0.0, 0.0)
    if not (low >= 0 and high <= 1):  # written so that NaN fails too
        raise ValueError(f"{where}: found float values from {low:.4g} to {high:.4g}, expected them within [0, 1]")
    return (images * 255).round().to(torch.uint8)


# ---- the file

LIMITS = {"I": 2 ** 35, "T": 2 ** 35} | dict.fromkeys(FACTORS, 2 ** 23)  # bytes that a data set may say that it holds
FORMAT, BEFORE = "mmvae-faces, with sha256", "mmvae-faces"  # now, and before a file said the digest of its content
ATTRIBUTES = {k: range(2 ** 63) for k in ("generator_version", "seed", "size", "identities", "test_identities")} | {
    "cpu_seconds": strict.number(0), "format": str, "sha256": str}


def existing(path: str | pathlib.Path) -> pathlib.Path:
    if not (path := pathlib.Path(path)).exists():
        raise FileNotFoundError(f"{path}: no such file; `python -m mmvae.faces {path.name}` renders one")
    strict.regular(path)
    return path


def read_faces(path: str | pathlib.Path) -> Grid:
    """Read the HDF5 file that `python -m mmvae.faces` writes, or wrote before it had a digest.

    Raises FileNotFoundError, or ValueError naming the file, the key, what was found and what was expected: not HDF5,
    truncated, a data set that is missing, is none, lies in another file, is not as long as it says or larger than `LIMITS`,
    a content that is not that of its SHA-256, and whatever `Grid` refuses.
    """
    path = existing(path)
    if not h5py.is_hdf5(path):
        raise ValueError(f"{path}: not an HDF5 file; expected what `python -m mmvae.faces {path}` writes")
    try:
        with h5py.File(path, "r") as f:
            missing = [k for k in ("I", "T", *FACTORS) if k not in f.keys()]
            if missing:
                raise ValueError(f"data sets {missing} are missing; found {strict.brief(sorted(f), plain=True)}")
            said = {k: hdf5.attribute(f, k, ATTRIBUTES[k]) for k in ATTRIBUTES if k in f.attrs}
            arrays = {k: hdf5.numbers(f, k, LIMITS[k], path.stat().st_size) for k in ("I", "T", *FACTORS)}
            arrays |= {k: _signed(arrays[k]) for k in FACTORS if arrays[k].dtype.kind == "u"}
        if said.get("format", BEFORE) not in (FORMAT, BEFORE):
            raise ValueError(f'format: found {strict.brief(said["format"])}, expected "{FORMAT}"')
        found, digests = said.pop("sha256", None), [sha256(arrays[k]).hexdigest() for k in "IT"]
        if (found or said.get("format") == FORMAT) and found != content(said, arrays, digests):
            raise ValueError("damaged: its content is not that of its SHA-256")
        arrays |= {k: arrays[k].astype(np.float32) for k in FACTORS[1:]}
        return Grid(**arrays, test_identities=said.get("test_identities", 10))
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from e
    except (OSError, RuntimeError, LookupError, TypeError, AttributeError, OverflowError, MemoryError) as e:
        raise ValueError(f"{path}: truncated or damaged HDF5 file ({strict.brief(e, plain=True)})") from e


def _signed(values: np.ndarray) -> np.ndarray:
    """Whole numbers without a sign as int64, or, if one is too large, as floats, which are no identity."""
    return values.astype(np.int64 if values.max() < 2 ** 63 else np.float64)


def content(said: dict, arrays: dict[str, np.ndarray], pictures: list[str]) -> str:
    """The SHA-256 of a file: of its attributes, its factors' values, and the digests of its pictures I and T."""
    kept = [f"{k} {arrays[k].dtype} {arrays[k].shape} {sha256(arrays[k]).hexdigest()}" for k in FACTORS]
    return sha256(json.dumps([said, kept, pictures], sort_keys=True).encode()).hexdigest()


def write(path, identities=50, test_identities=10, size=64, seed=SEED, progress=True, jobs=None, device="cpu"):
    """Render the experiment's grid into an HDF5 file.

    "I" (N, 21, 11, size, size) uint8 over [identity, azimuth, elevation], the light at 0; "T" likewise over
    [identity, azimuth, light], the elevation at 0; N = identities + test_identities. The first are people 0, 1, ...; the
    last, the test split, are people TEST_FROM, TEST_FROM + 1, ..., whatever the number to learn from. The axes are
    dimension scales, in degrees; Fletcher's sums guard each chunk and a SHA-256 the whole. The file appears under its name
    only when complete.

    jobs: processes that render, which changes no byte; default: one a core, but no more than one for every eight heads;
    1 is this process, and so it is on another device than the CPU. More need `if __name__ == "__main__":` in a script.
    Raises ValueError, FileNotFoundError or FileExistsError for an argument that is out of range or a path that is no regular
    file; what fails in a process is raised here, and so is a full disk, as OSError.
    """
    check(identities=identities, test_identities=test_identities, size=size, seed=seed, jobs=1 if jobs is None else jobs)
    path, count, start, seconds = pathlib.Path(path), identities + test_identities, time.process_time(), 0.0
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path: expected a folder that exists, found none at {path.parent}")
    strict.replaceable(path)
    here = torch.device(device).type == "cpu"
    if not here and jobs not in (None, 1):
        raise ValueError(f"jobs: expected 1 on device {device}, found {jobs}")
    jobs = min(jobs or count // 8 or 1, count, jobs or os.cpu_count() or 1) if here else 1
    people = np.r_[0:identities, TEST_FROM:TEST_FROM + test_identities]
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".", suffix=".part")
    os.close(handle)
    try:
        with h5py.File(part, "w") as file:
            axes = dict(identity=people, azimuth=AZIMUTHS, elevation=ELEVATIONS, light=LIGHTS)
            for name, values in axes.items():
                file.create_dataset(name, data=values, fletcher32=True).make_scale(name)
            for name, axis in (("I", "elevation"), ("T", "light")):
                shape = (count, len(AZIMUTHS), len(axes[axis]), size, size)
                data = file.create_dataset(name, shape, "uint8", chunks=(1, 1, *shape[2:]), fletcher32=True,
                                           compression="gzip", compression_opts=2, shuffle=True)
                for dim, label in zip(data.dims, ("identity", "azimuth", axis, "row", "column")):
                    dim.label = label
                    if label in axes:
                        dim.attach_scale(file[label])
            digests = sha256(), sha256()
            with contextlib.closing(heads(people.tolist(), seed, size, device, jobs)) as found:
                for k, (*pictures, spent) in enumerate(tqdm(found, "rendering heads", count, disable=not progress)):
                    for name, digest, images in zip("IT", digests, pictures):
                        file[name][k] = images = np.ascontiguousarray(images, np.uint8)
                        digest.update(images)
                    seconds += spent if jobs > 1 else 0.0
            said = dict(format=FORMAT, generator_version=GENERATOR_VERSION, seed=int(seed), size=int(size),
                        identities=int(identities), test_identities=int(test_identities),
                        cpu_seconds=time.process_time() - start + seconds)
            file.attrs.update(said, sha256=content(said, axes, [digest.hexdigest() for digest in digests]))
        os.chmod(part, 0o644)  # mkstemp's files are for their owner alone
        os.replace(part, path)
    finally:
        pathlib.Path(part).unlink(missing_ok=True)


def head(person, seed, size, device="cpu"):
    """One person's pictures I and T, as `renderer.grid` returns them, and the CPU seconds they took; on one thread."""
    start, threads = time.process_time(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return *renderer.grid(*clouds(person, seed, size, device), size), time.process_time() - start
    finally:
        torch.set_num_threads(threads)


def heads(people, seed, size, device, jobs):
    """`head` of each of these people, in their order, by so many processes: a generator. Closing it ends the processes."""
    if jobs == 1:
        yield from (head(person, seed, size, device) for person in people)
        return
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=begin)
    waiting = collections.deque()
    try:
        for person in people:
            waiting.append(pool.submit(head, person, seed, size))
            if len(waiting) > 2 * jobs:  # what is done waits here to be written: not all of it at once
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def begin():
    """Of each process that works for another: it leaves Ctrl-C to its parent, and ends when that is gone, in whatever way."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
