"""Pairs of images: read the grid of rendered heads, check it, keep it on the device, draw batches.

A pair shares identity and pose azimuth; the elevation belongs to I alone, the light to T alone. Nothing is stored
twice: I is a grid over (identity, azimuth, elevation), T over (identity, azimuth, light), and a pair is one cell of
each. Images stay uint8; a batch is index arithmetic and one gather per modality.
"""
import hashlib
import pickle
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

FACTORS = ("identity", "azimuth", "elevation", "light")
AXES = {"I": ("identity", "azimuth", "elevation"), "T": ("identity", "azimuth", "light")}


@dataclass(frozen=True)
class Grid:
    """Images of both modalities over their factors, and the factors' values.

    I: uint8 (N, A, E, H, W), T: uint8 (N, A, L, H, W). identity: int (N,); azimuth (A,), elevation (E,), light (L,):
    float, in `unit` ("degrees", or "index" where degrees are not known). test_identities: how many of the last
    identities are held out.
    """
    I: Tensor  # noqa: E741  (the modality's name in the book)
    T: Tensor
    identity: Tensor
    azimuth: Tensor
    elevation: Tensor
    light: Tensor
    test_identities: int = 10
    unit: str = "degrees"


def read_faces(path: str | Path) -> Grid:
    """Read the HDF5 file that `python -m mmvae.faces` writes.

    Raises FileNotFoundError, or ValueError naming the file, the key, what was found and what was expected: not HDF5,
    truncated, a missing data set, wrong shape or dtype, float images outside [0, 1] or NaN.
    """
    path = _existing(path)
    if not h5py.is_hdf5(path):
        raise ValueError(f"{path}: not an HDF5 file; expected what `python -m mmvae.faces {path}` writes")
    try:
        with h5py.File(path) as f:
            missing = [k for k in ("I", "T", *FACTORS) if k not in f]
            if missing:
                raise ValueError(f"{path}: data sets {missing} are missing; found {sorted(f)}")
            arrays = {k: f[k][:] for k in ("I", "T", *FACTORS)}
            test = int(f.attrs.get("test_identities", 10))
    except OSError as e:
        raise ValueError(f"{path}: truncated or damaged HDF5 file ({e})") from e
    for m, axes in AXES.items():
        lengths = tuple(len(arrays[k]) for k in axes)
        found = arrays[m].shape
        if len(found) != 5 or found[:3] != lengths or found[3] != found[4]:
            raise ValueError(f'{path}: "{m}" has shape {found}, expected {lengths} + (H, H) from {", ".join(axes)}')
        arrays[m] = _as_uint8(arrays[m], f'{path}: "{m}"')
    values = {k: torch.from_numpy(arrays[k]).float() for k in FACTORS[1:]}
    return Grid(arrays["I"], arrays["T"], torch.from_numpy(arrays["identity"]).long(), **values, test_identities=test)


def read_basel(path: str | Path, neutral_elevation: int = 5, neutral_light: int = 5, degrees: dict | None = None,
               test_identities: int = 10) -> Grid:
    """Read `basel_face_renders.pth`: uint8 (50, 21, 11, 11, H, W) = identity, azimuth, elevation, light.

    The file states no degrees, so the factors' values are their indices, unless `degrees` gives them, e.g.
    {"azimuth": [...]*21, "elevation": [...]*11, "light": [...]*11}. Raises FileNotFoundError, or ValueError for a
    file that is not a tensor (nothing in it is unpickled beyond tensors), for a wrong shape or dtype.
    """
    path = _existing(path)
    try:
        images = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as e:
        try:  # files from before torch 1.6 are not zip archives and cannot be mapped
            images = torch.load(path, weights_only=True, map_location="cpu")
        except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError):
            raise ValueError(f"{path}: not a file of torch.save that holds one tensor ({e})") from e
    if not isinstance(images, Tensor):
        raise ValueError(f"{path}: found {type(images).__name__}, expected one uint8 tensor")
    if images.dim() != 6 or images.shape[1:4] != (21, 11, 11) or images.shape[4] != images.shape[5]:
        raise ValueError(f"{path}: found shape {tuple(images.shape)}, expected (50, 21, 11, 11, 64, 64)")
    values = {}
    for axis, (name, n) in enumerate(zip(FACTORS[1:], images.shape[1:4]), 1):
        values[name] = torch.as_tensor((degrees or {}).get(name, range(n)), dtype=torch.float32)
        if len(values[name]) != n:
            raise ValueError(f'degrees["{name}"]: found {len(values[name])} values, expected {n}, as axis {axis} has')
    modalities = {"I": images[:, :, :, neutral_light], "T": images[:, :, neutral_elevation]}
    return Grid(**{m: _as_uint8(image, str(path)) for m, image in modalities.items()}, **values,
                identity=torch.arange(len(images)), test_identities=test_identities,
                unit="degrees" if degrees else "index")


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; `python -m mmvae.faces {path.name}` renders one")
    return path


def _as_uint8(images: np.ndarray | Tensor, where: str) -> Tensor:
    """uint8 as it is; float in [0, 1] to 256 grey levels."""
    images = torch.as_tensor(images)
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise ValueError(f"{where} has dtype {images.dtype}, expected uint8, or float in [0, 1]")
    low, high = images.aminmax()
    if not (low >= 0 and high <= 1):  # written so that NaN fails too
        raise ValueError(f"{where} has float values from {low:.4g} to {high:.4g}, expected them within [0, 1]")
    return (images * 255).round().to(torch.uint8)


def _shrink(images: Tensor, size: int) -> Tensor:
    """Average pooling of uint8 (..., H, H) to (..., size, size)."""
    side = images.shape[-1]
    if size < 1 or side % size:
        raise ValueError(f"size: found {size}, expected a divisor of {side}, the side of the stored images")
    if side == size:
        return images
    small = [F.avg_pool2d(part.float(), side // size).round().to(torch.uint8) for part in images.flatten(0, 1)]
    return torch.stack(small).unflatten(0, images.shape[:2])


class Pairs:
    """Pairs (x_I, x_T) of one head, on the device.

    source: the path of an HDF5 file of `python -m mmvae.faces`, or a `Grid`. split: "train", or "test": identities
    that training never sees. size: pixels a side, a divisor of the stored ones. seed: of `sample`'s own generator.
    identities: only the first so many of the split. Raises ValueError for an unknown split or size, and when the split
    has no identity, or fewer than asked for; see also `read_faces`.
    """

    def __init__(self, source: str | Path | Grid, split: str = "train", device: str | torch.device = "cpu",
                 size: int | None = None, seed: int = 0, identities: int | None = None):
        grid = source if isinstance(source, Grid) else read_faces(source)
        name = "Grid" if isinstance(source, Grid) else str(source)
        if split not in ("train", "test"):
            raise ValueError(f'split: found "{split}", expected "train" or "test"')
        n, test = len(grid.identity), grid.test_identities
        keep = slice(0, n - test) if split == "train" else slice(max(n - test, 0), n)
        if test < 0 or not len(grid.identity[keep]):
            raise ValueError(f'{name}: no identities left in split "{split}": {n} in all, {test} of them held out')
        if identities is not None:
            if not 1 <= identities <= keep.stop - keep.start:
                raise ValueError(f'identities: found {identities}, expected 1 to {keep.stop - keep.start}, as many as '
                                 f'split "{split}" of {name} has')
            keep = slice(keep.start, keep.start + identities)
        size = size or grid.I.shape[-1]
        self.images = {m: _shrink(getattr(grid, m)[keep], size).contiguous().to(device) for m in "IT"}
        self.values = {k: getattr(grid, k).to(device) for k in FACTORS} | {"identity": grid.identity[keep].to(device)}
        self.split, self.size, self.unit, self.device = split, size, grid.unit, torch.device(device)
        self.shape = tuple(len(self.values[k]) for k in FACTORS)  # (identities, azimuths, elevations, lights)
        self.generator = torch.Generator(self.device).manual_seed(seed)

    @classmethod
    def from_basel(cls, path: str | Path, split: str = "train", device: str | torch.device = "cpu",
                   size: int | None = None, seed: int = 0, **basel) -> "Pairs":
        """Pairs from `basel_face_renders.pth`; further arguments go to `read_basel`."""
        return cls(read_basel(path, **basel), split, device, size, seed)

    def __len__(self) -> int:
        """The number of distinct pairs."""
        return int(np.prod(self.shape))

    def at(self, identity, azimuth, elevation, light) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The pairs at these grid indices (ints or int tensors (B,)): images and factors as in `sample`.

        identity counts within the split, from 0.
        """
        index = [torch.as_tensor(i, device=self.device).reshape(-1) for i in (identity, azimuth, elevation, light)]
        n, a, e, l = torch.broadcast_tensors(*index)
        x = {"I": self.images["I"][n, a, e], "T": self.images["T"][n, a, l]}  # (B, H, W) uint8
        x = {m: image.unsqueeze(1).float() / 255 for m, image in x.items()}  # (B, 1, H, W)
        return x, {k: self.values[k][i] for k, i in zip(FACTORS, (n, a, e, l))}

    def sample(self, batch: int, generator: torch.Generator | None = None):
        """A batch of pairs, drawn uniformly with replacement.

        Returns x = {"I": (batch, 1, H, W), "T": same}, float in [0, 1], and factors = {"identity": int (batch,),
        "azimuth", "elevation", "light": float (batch,), in `unit`}. The elevation is that of x_I (x_T's is neutral),
        the light that of x_T (x_I's is neutral). generator: on the pairs' device; default: their own, seeded.
        """
        cell = torch.randint(len(self), (batch,), generator=generator or self.generator, device=self.device)
        return self.at(*torch.unravel_index(cell, self.shape))

    def fixed(self, n: int = 3):
        """The book's fixed pairs, the same in every chapter: n identities at different poses and lights."""
        k = torch.arange(n)
        ids, azimuths, elevations, lights = self.shape
        return self.at(k % ids, (azimuths // 2 + 4 * (k % 3 - 1)) % azimuths, (elevations // 4 + 4 * k) % elevations,
                       (3 * lights // 4 - 3 * k) % lights)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the images and the factors' values: what a training run is a function of."""
        digest = hashlib.sha256(f"{self.split} {self.unit}".encode())
        for tensor in (*self.images.values(), *self.values.values()):
            digest.update(str(tuple(tensor.shape)).encode() + tensor.cpu().numpy().tobytes())
        return digest.hexdigest()
