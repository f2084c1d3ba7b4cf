"""Rows that are read when they are drawn, and what `fit` makes of what it is given."""
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .data import Batch, Rows
from .items import collate, item, length


class LazyRows(Rows):
    """Rows of a `Dataset` as of `Rows.of`, which is too large to keep, or makes each item anew.

    workers: threads that read a batch side by side; what is drawn depends on the seed alone, not on them. missing: the
    modalities that an item may lack; default: those that one of the first 64 lacks. fingerprint: what stands for the data,
    since nobody reads all of them; default: the hash of those 64 and of their number. arguments: `images` and `dtype` of
    `Rows`. Raises what `Rows.of` does, and ValueError for an item that lacks what it may not.
    """

    lazy = True

    def __init__(self, dataset: Dataset, workers: int = 0, missing: Sequence[str] | None = None,
                 device: str | torch.device = "cpu", seed: int = 0, fingerprint: str | None = None, **arguments):
        self.dataset, self.arguments, self.device = dataset, arguments, torch.device(device)
        self.pool = ThreadPoolExecutor(workers) if workers else None
        self.generator = torch.Generator(self.device).manual_seed(seed)
        items = self._items(range(min(64, length(dataset))))
        x, lacking, _ = collate(items)
        self.example = {m: torch.zeros_like(v[0]) for m, v in x.items()}
        self.missing = set(lacking if missing is None else missing)
        if wrong := self.missing - set(self.example):
            raise ValueError(f"missing: found {sorted(wrong)}, expected some of {tuple(self.example)}, which the first "
                             f"{len(items)} items have; put an item that has it among them")
        first = Rows(*collate(items), device=device, **arguments)
        self.fingerprint = fingerprint or hashlib.sha256(f"{len(dataset)} {first.fingerprint}".encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.dataset)

    def _items(self, index) -> list[tuple[dict, dict]]:
        return list((self.pool.map if self.pool else map)(lambda i: item(self.dataset, i), index))

    def _read(self, index: Tensor) -> Rows:
        items = self._items(index.tolist())
        for i, (x, _) in zip(index.tolist(), items):
            if wrong := set(x) - set(self.example):
                raise ValueError(f"dataset[{i}]: found {sorted(wrong)}, expected some of {tuple(self.example)}, which the "
                                 "first items have; put an item that has it among the first 64")
            if wrong := set(self.example) - set(x) - self.missing:
                raise ValueError(f"dataset[{i}]: found none of {sorted(wrong)}, expected it, since the first items have it; "
                                 f"say missing={sorted(self.missing | wrong)}")
        x, present, factors = collate(items, self.example)
        every = torch.ones(len(items), dtype=torch.bool)
        masks = {m: present.get(m, every) for m in x if m in self.missing}
        return Rows(x, masks, factors, device=self.device, **self.arguments)

    def observed(self) -> dict[str, Tensor]:
        """Nothing, since nobody reads all of them: each batch is checked when it is drawn."""
        return {}

    def batch(self, index: Tensor) -> Batch:
        rows = self._read(index)
        return rows.batch(torch.arange(len(rows), device=self.device))

    def factors_at(self, index: Tensor) -> dict[str, Tensor]:
        return self._read(index).factors


def as_rows(rows, progress: bool = True) -> Rows:
    """What a training takes: rows as they are, a `Dataset` read. Raises TypeError, with what to do, for anything else."""
    if isinstance(rows, DataLoader):
        raise TypeError("rows: found a DataLoader, expected its dataset: mmvae.data.Rows.of(loader.dataset)")
    rows = Rows.of(rows, progress=progress) if isinstance(rows, Dataset) else rows
    if missing := [name for name in ("batch", "fingerprint", "device", "__len__") if not hasattr(rows, name)]:
        raise TypeError(f"rows: found {type(rows).__name__} without {', '.join(missing)}, expected mmvae.data.Rows")
    return rows
