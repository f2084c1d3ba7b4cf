"""What rows are made of: tensors from anything like them, and the items of a Dataset, one by one and several together."""
import math

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .observed import refuse_empty_row


def length(dataset: Dataset) -> int:
    """How many items it has. Raises TypeError if it has no length or no index, ValueError if it is empty."""
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise TypeError(f"dataset: found {type(dataset).__name__}, expected a map-style Dataset, with len(dataset) and "
                        "dataset[i]" + ("; hand over its `.dataset`" if hasattr(dataset, "dataset") else ""))
    if not len(dataset):
        raise ValueError("dataset: found no rows, expected at least one")
    return len(dataset)


def item(dataset: Dataset, i: int) -> tuple[dict, dict]:
    """({modality: tensor}, {factor: tensor}) of one item; refuses, by its number, one that is of another kind."""
    item = dataset[i]
    pair = isinstance(item, tuple | list) and len(item) == 2 and all(isinstance(part, dict) for part in item)
    x, factors = item if pair else (item, {})
    if not isinstance(x, dict) or not x:
        raise TypeError(f"dataset[{i}]: found {type(item).__name__}, expected {{modality: value}}, or that and "
                        "{factor: value}")
    try:
        x = {m: torch.as_tensor(v) for m, v in x.items() if v is not None}
        return x, {f: torch.as_tensor(v) for f, v in factors.items()}
    except (TypeError, ValueError, RuntimeError) as e:
        raise TypeError(f"dataset[{i}]: found what are no numbers, expected tensors, arrays or numbers ({e})") from e


def collate(items: list[tuple[dict, dict]], example: dict[str, Tensor] | None = None) -> tuple[dict, dict, dict]:
    """x, present, factors of some items; zeros, as in `example`, stand for what an item lacks."""
    example = example or {m: v for x, _ in items for m, v in x.items()}
    present = {m: torch.tensor([m in x for x, _ in items]) for m in example}
    try:
        x = {m: torch.stack([x.get(m, torch.zeros_like(v)) for x, _ in items]) for m, v in example.items()}
        factors = {f: torch.stack([factors[f] for _, factors in items]) for f in items[0][1]}
    except (RuntimeError, KeyError) as e:
        raise ValueError(f"dataset: found items that do not fit each other ({e}), expected one shape a modality and the "
                         "same factors in each") from e
    return x, {m: mask for m, mask in present.items() if not mask.all()}, factors


def tensor(name: str, value, dtype: torch.dtype) -> Tensor:
    """A tensor of `dtype`, int64, bool or bytes. Raises TypeError or ValueError for what is none."""
    if not isinstance(value, Tensor | np.ndarray | list | tuple):
        raise TypeError(f"{name}: found {type(value).__name__}, expected a tensor or an array")
    try:
        value = value if isinstance(value, Tensor) else torch.as_tensor(np.ascontiguousarray(value))
    except (TypeError, ValueError) as e:
        raise TypeError(f"{name}: found {type(value).__name__} of what are no numbers, expected numbers ({e})") from e
    if value.is_complex():
        raise TypeError(f"{name}: found {value.dtype}, expected real numbers")
    if value.dim() == 0:
        raise ValueError(f"{name}: found a single number, expected a row for each")
    if value.is_floating_point():
        return value.to(dtype) if value.dtype != dtype else value
    return value if value.dtype in (torch.bool, torch.uint8) else value.to(torch.int64)


def factor(name: str, value, dtype: torch.dtype) -> Tensor:
    """What is known of the rows: (N,), of `dtype` or int64. Raises TypeError or ValueError for what is none."""
    value = tensor(name, value, dtype)
    if value.dim() != 1 or not value.isfinite().all():
        found = "" if value.isfinite().all() else " with NaN"
        raise ValueError(f"{name}: found shape {tuple(value.shape)}{found}, expected a finite number for each row")
    return value if value.is_floating_point() else value.to(torch.int64)


def blanked(x: dict[str, Tensor], masks: dict[str, Tensor]) -> dict[str, Tensor]:
    """x with NaN, or -1, where nothing was observed, which a model refuses; without what no row has."""
    out = {}
    for m, v in x.items():
        mask = masks.get(m)
        if mask is None or mask.any():
            fill = math.nan if v.is_floating_point() else -1
            out[m] = v if mask is None else v.masked_fill(~mask.view(-1, *[1] * (v.dim() - 1)), fill)
    return out


def check_masks(x: dict[str, Tensor], present: dict[str, Tensor], n: int):
    """Raises ValueError for masks that are none of n rows of x, and for a row in which nothing was observed."""
    for m, mask in present.items():
        if m not in x or mask.dtype != torch.bool or mask.dim() != 1:
            raise ValueError(f'present["{m}"]: found {mask.dtype} of shape {tuple(mask.shape)}, expected bool of shape '
                             f"({n},) for one of {tuple(x)}")
    if len(present) == len(x):
        refuse_empty_row(present)
