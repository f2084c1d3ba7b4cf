"""Rows of which some have lost modalities: what is left of other rows where few show everything."""
import hashlib
from functools import cached_property

import torch
from torch import Tensor

from .data import Batch, Rows
from .observed import number


class Incomplete:
    """Other rows, some of which have lost all of their modalities but one: what a model learns from such rows.

    rows: `Rows`, or what has their methods. share: of rows that lose some, from 0 to 1, on average. Which they are, and
    the modality that each keeps, all equally likely, is drawn once, with this seed. A row in which that one was not observed
    stays as it is. Raises ValueError for another share, and for rows of one modality.
    """

    def __init__(self, rows: Rows, share: float = 0.5, seed: int = 0):
        self.rows, self.share, self.seed = rows, float(number("share", share, 0)), number("seed", seed, 0, whole=True)
        self.device = rows.device
        self.lazy = getattr(rows, "lazy", False)
        if share > 1:
            raise ValueError(f"share: found {share}, expected a number from 0 to 1")
        self.names = tuple(rows.batch(torch.zeros(1, dtype=torch.int64, device=rows.device))[0])
        if len(self.names) < 2:
            raise ValueError(f"rows: found the modality {self.names} alone, expected two or more: one has to stay")
        generator = torch.Generator().manual_seed(seed)
        kept = torch.randint(len(self.names), (len(rows),), generator=generator, dtype=torch.int16)
        whole = torch.rand(len(rows), generator=generator) >= share
        self.kept = kept.masked_fill(whole, -1).to(rows.device)  # (N,): which modality; -1: all

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, index: Tensor) -> Batch:
        """The rows at these indices, int64 (B,): ({modality: (B, ...)}, {modality: bool (B,)}, whether it was observed)."""
        (x, present), kept = self.rows.batch(index), self.kept[index]
        every = torch.ones_like(kept, dtype=torch.bool)
        there = torch.stack([present.get(m, every) for m in self.names])
        alone = torch.stack([kept == k for k in range(len(self.names))]) & there  # (M, B)
        there = torch.where(alone.any(0), alone, there)
        return x, dict(zip(self.names, there))

    def factors_at(self, index: Tensor) -> dict[str, Tensor]:
        """What is known of these rows: {factor: (B,)}."""
        return self.rows.factors_at(index)

    def draw(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """As `rows.draw`."""
        return self.rows.draw(n, generator)

    def observed(self) -> dict[str, Tensor]:
        """As `rows.observed`: what was lost is checked too."""
        return getattr(self.rows, "observed", dict)()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that a training run is a function of."""
        return hashlib.sha256(f"{self.rows.fingerprint} {self.share} {self.seed}".encode()).hexdigest()
