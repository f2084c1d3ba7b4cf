"""Pairs of pictures: a grid on the device, of which batches are drawn by index arithmetic.

`Pairs` is what `mmvae.fit` and `mmvae.evaluate` take, like `mmvae.data.Rows`. Pictures stay bytes; a batch is one gather
per modality.
"""
import hashlib
import math
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .basel import read_basel
from .file import Grid, read_faces


def shrink(images: Tensor, size: int) -> Tensor:
    """Average pooling of uint8 (..., H, H) to (..., size, size)."""
    side = images.shape[-1]
    if size < 1 or side % size:
        raise ValueError(f"size: found {size}, expected a divisor of {side}, the side of the stored images")
    if side == size:
        return images
    small = [F.avg_pool2d(part.float(), side // size).round().to(torch.uint8) for part in images.flatten(0, 1)]
    return torch.stack(small).unflatten(0, images.shape[:2])


class Pairs:
    """Pairs (x_I, x_T) of one head, on the device: row k is a cell of the grid over all factors.

    source: the path of an HDF5 file of `python -m mmvae.faces`, or a `Grid`. split: "train", or "test": identities
    that training never sees. size: pixels a side, a divisor of the stored ones. seed: of `sample`'s own generator.
    identities: only the first so many of the split. Raises ValueError for an unknown split or size, and when the split
    has no identity, or fewer than asked for; see also `read_faces` and `Grid`.

    shape: how many values each of `factors` has; axes: which of them each modality has; values: {factor: (n,)};
    images: {modality: uint8 (..., size, size)}.
    """

    def __init__(self, source: str | Path | Grid, split: str = "train", device: str | torch.device = "cpu",
                 size: int | None = None, seed: int = 0, identities: int | None = None):
        grid = source if isinstance(source, Grid) else read_faces(source)
        name = "Grid" if isinstance(source, Grid) else str(source)
        if split not in ("train", "test"):
            raise ValueError(f'split: found "{split}", expected "train" or "test"')
        values, first = {f: getattr(grid, f) for f in grid.factors}, grid.first
        n, test = len(values[first]), grid.test_identities
        keep = slice(0, n - test) if split == "train" else slice(n - test, n)
        if keep.start == keep.stop:
            raise ValueError(f'{name}: no identities left in split "{split}": {n} in all, {test} of them held out')
        if identities is not None:
            if not 1 <= identities <= keep.stop - keep.start:
                raise ValueError(f'identities: found {identities}, expected 1 to {keep.stop - keep.start}, as many as '
                                 f'split "{split}" of {name} has')
            keep = slice(keep.start, keep.start + identities)
        self.axes, self.factors, size = grid.axes, grid.factors, size or grid.I.shape[-1]
        self.images = {m: shrink(getattr(grid, m)[keep], size).contiguous().to(device) for m in self.axes}
        self.values = {f: (v[keep] if f == first else v).to(device) for f, v in values.items()}
        self.split, self.size, self.unit, self.device = split, size, grid.unit, torch.device(device)
        self.shape = tuple(len(v) for v in self.values.values())  # of heads: (identities, azimuths, elevations, lights)
        self.generator = torch.Generator(self.device).manual_seed(seed)

    @classmethod
    def from_basel(cls, path: str | Path, split: str = "train", device: str | torch.device = "cpu",
                   size: int | None = None, seed: int = 0, **basel) -> "Pairs":
        """Pairs from `basel_face_renders.pth`; further arguments go to `read_basel`."""
        return cls(read_basel(path, **basel), split, device, size, seed)

    def __len__(self) -> int:
        """The number of distinct pairs."""
        return math.prod(self.shape)

    # ---- the protocol of `mmvae.data.Rows`

    def cells(self, index: Tensor) -> tuple[Tensor, ...]:
        """The grid indices of these rows, one tensor (B,) a factor; the last factor varies fastest."""
        found = []
        for n in reversed(self.shape):  # as torch.unravel_index, which a GPU has to be waited for
            found.insert(0, index % n)
            index = index // n
        return tuple(found)

    def batch(self, index: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The rows at these indices, int64 (B,): ({modality: float (B, 1, H, W) in [0, 1]}, {}: nothing is missing)."""
        return self._pictures(dict(zip(self.factors, self.cells(index)))), {}

    def factors_at(self, index: Tensor) -> dict[str, Tensor]:
        """What is known of these rows: {factor: (B,)}; the identity int64."""
        return {f: self.values[f][i] for f, i in zip(self.factors, self.cells(index))}

    def half_at(self, index: Tensor) -> Tensor:
        """Whether these rows are of the first half, every other value of the second factor, the azimuth: bool (B,).

        What no split has in common with another, as identities, is probed by half of the rows and scored on the other.
        """
        return self.cells(index)[1] % 2 == 0

    def draw(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n row numbers, uniform with replacement: int64 (n,). generator: on any device, on the CPU for the same rows
        everywhere; default: their own."""
        generator = generator or self.generator
        return torch.randint(len(self), (n,), generator=generator, device=generator.device).to(self.device)

    def __getitem__(self, index) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The rows at these indices (an int, a slice, ints or a tensor): images and factors as in `sample`."""
        index = torch.arange(len(self), device=self.device)[index].reshape(-1)
        return self.batch(index)[0], self.factors_at(index)

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """A batch of n pairs, drawn uniformly with replacement.

        Returns x = {"I": (n, 1, H, W), "T": same}, float in [0, 1], and factors = {"identity": int (n,), "azimuth",
        "elevation", "light": float (n,), in `unit`}. The elevation is that of x_I (x_T's is neutral), the light that of
        x_T (x_I's is neutral). generator: as of `draw`.
        """
        return self[self.draw(n, generator)]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the images and the factors' values: what a training run is a function of."""
        digest = hashlib.sha256(f"{self.split} {self.unit}".encode())
        for tensor in (*self.images.values(), *self.values.values()):
            digest.update(str(tuple(tensor.shape)).encode() + tensor.cpu().numpy().tobytes())
        return digest.hexdigest()

    # ---- cells of the grid

    def at(self, *index, **named) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The pairs at these grid indices, ints or int tensors (B,), one a factor: at(identity, azimuth, elevation, light),
        also by name. identity counts within the split, from 0. Images and factors as in `sample`."""
        given = dict(zip(self.factors, index)) | named
        if len(index) + len(named) != len(self.factors) or set(given) != set(self.factors):
            raise TypeError(f"at: found {len(index)} indices and {sorted(named)}, expected one for each of {self.factors}")
        flat = [torch.as_tensor(given[f], device=self.device).reshape(-1) for f in self.factors]
        cell = dict(zip(self.factors, torch.broadcast_tensors(*flat)))
        return self._pictures(cell), {f: self.values[f][i] for f, i in cell.items()}

    def fixed(self, n: int = 3) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The book's fixed pairs, the same in every chapter: n identities at different poses and lights."""
        k, (first, *others) = torch.arange(n), self.factors
        cell = {first: k % self.shape[0]}
        for f, length in zip(others, self.shape[1:]):
            shared, own = f in self.axes["I"] and f in self.axes["T"], f in self.axes["I"]
            cell[f] = ((length // 2 + 4 * (k % 3 - 1)) if shared else
                       (length // 4 + 4 * k) if own else (3 * length // 4 - 3 * k)) % length
        return self.at(**cell)

    def _pictures(self, cell: dict[str, Tensor]) -> dict[str, Tensor]:
        """{modality: float (B, 1, H, W)} at {factor: index (B,)}."""
        found = {m: self.images[m][tuple(cell[f] for f in axes)] for m, axes in self.axes.items()}  # (B, H, W) uint8
        return {m: image.unsqueeze(1).float() / 255 for m, image in found.items()}
