"""Rows of any modalities: checked once, kept on the device as one tensor each, drawn by index arithmetic.

`mmvae.fit` takes `Rows`, and anything else that has their `device`, `fingerprint`, `len` and `batch`.
"""
import hashlib
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from .items import blanked, check_masks, collate, factor, item, length, tensor

Batch = tuple[dict[str, Tensor], dict[str, Tensor]]


class Rows:
    """Rows (x_1, ..., x_M), some of whose modalities may not have been observed.

    x: {modality: tensor or array (N, ...)}; float64 becomes `dtype`, integers int64. present: {modality: bool (N,)}, the rows
    in which it was observed; a modality that is not named: all. factors: {name: (N,)}, what is known of the rows; no model
    sees it. images: names of modalities of uint8 that are pictures; they stay bytes and are drawn as byte / 255. seed: of
    the draws. Raises ValueError, in a sentence, for unequal lengths, no row, a row in which nothing was observed, values that
    are not finite, bytes that are not said to be pictures; TypeError for what is neither tensor nor array.
    """

    def __init__(self, x: dict[str, Tensor], present: dict[str, Tensor] | None = None,
                 factors: dict[str, Tensor] | None = None, images: Sequence[str] = (), device: str | torch.device = "cpu",
                 dtype: torch.dtype = torch.float32, seed: int = 0):
        if not isinstance(x, dict) or not x:
            raise TypeError(f"x: found {type(x).__name__}, expected a dictionary of modalities, {{name: (N, ...)}}")
        self.x = {m: tensor(f'x["{m}"]', v, dtype).to(device) for m, v in x.items()}
        self.factors = {f: factor(f'factors["{f}"]', v, dtype).to(device) for f, v in (factors or {}).items()}
        self.present = {m: tensor(f'present["{m}"]', v, dtype).to(device) for m, v in (present or {}).items()}
        self.device, self.dtype, n = torch.device(device), dtype, len(next(iter(self.x.values())))
        self.images = (images,) if isinstance(images, str) and images in x else tuple(images)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        for what, group in (("x", self.x), ("factors", self.factors), ("present", self.present)):
            for name, value in group.items():
                if len(value) != n or not n:
                    raise ValueError(f'{what}["{name}"]: found {len(value)} rows, expected ' + (f"{n}, as of the first "
                                     "modality" if n else "at least one"))
        check_masks(self.x, self.present, n)
        if wrong := set(self.images) - set(x):
            raise ValueError(f"images: found {sorted(wrong)}, expected some of {tuple(x)}")
        for m, value in self.x.items():
            if (value.dtype == torch.uint8) != (m in self.images):
                raise ValueError(f'x["{m}"]: found {value.dtype}, expected ' + ("bytes, as `images` says" if m in self.images
                                 else f'floating point or int64; for pictures in bytes say images=("{m}",)'))
        for m, value in self.observed().items():
            if value.is_floating_point() and not value.isfinite().all():
                raise ValueError(f'x["{m}"]: found NaN or infinite values, expected finite ones, or present["{m}"] False')

    @classmethod
    def of(cls, dataset: Dataset, progress: bool = True, **arguments) -> "Rows":
        """Every row of a map-style `Dataset`, read now; `mmvae.lazy.LazyRows` reads them when they are drawn. Its items are
        {modality: value}, or ({modality: value}, {factor: value}), of tensors, arrays or numbers; a modality that is absent,
        or None, was not observed in that row. Raises TypeError or ValueError, naming the item, for others.
        """
        items = [item(dataset, i) for i in tqdm(range(length(dataset)), "reading the dataset", disable=not progress)]
        return cls(*collate(items), **arguments)

    def __len__(self) -> int:
        return len(next(iter(self.x.values())))

    def batch(self, index: Tensor) -> Batch:
        """The rows at these indices, int64 (B,): ({modality: (B, ...)}, {modality that some row lacks: bool (B,)})."""
        x = {m: v[index].to(self.dtype) / 255 if m in self.images else v[index] for m, v in self.x.items()}
        return x, {m: mask[index] for m, mask in self.present.items()}

    def observed(self) -> dict[str, Tensor]:
        """All that was observed of each modality, but for bytes, {modality: (n, ...)}: what is to be checked once."""
        return {m: v[self.present[m]] if m in self.present else v for m, v in self.x.items() if m not in self.images}

    def factors_at(self, index: Tensor) -> dict[str, Tensor]:
        """What is known of these rows: {factor: (B,)}."""
        return {f: v[index] for f, v in self.factors.items()}

    def draw(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n row numbers, uniform with replacement: int64 (n,). generator: on the rows' device; default: their own."""
        return torch.randint(len(self), (n,), generator=generator or self.generator, device=self.device)

    def __getitem__(self, index) -> Batch:
        """The rows at these indices (an int, a slice, ints or a tensor): ({modality: (B, ...)}, {factor: (B,)}).
        What is missing is NaN, or -1 in a class, which a model refuses: `batch` has its masks."""
        index = torch.arange(len(self), device=self.device)[index].reshape(-1)
        return blanked(*self.batch(index)), self.factors_at(index)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Batch:
        """n rows, drawn uniformly with replacement, as `rows[index]` gives them."""
        return self[self.draw(n, generator)]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that a training run is a function of: data, masks and factors, their names, shapes and types."""
        digest = hashlib.sha256()
        for group in (self.x, self.present, self.factors):
            for name, tensor in group.items():
                digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.contiguous().cpu().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()
