"""What rows are made of: tensors from anything like them, and the items of a Dataset, one by one and several together."""
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset


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
    x = {m: torch.as_tensor(v) for m, v in x.items() if v is not None}
    return x, {f: torch.as_tensor(v) for f, v in factors.items()}


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
    value = torch.as_tensor(np.asarray(value) if isinstance(value, list | tuple) else value)
    if value.dim() == 0:
        raise ValueError(f"{name}: found a single number, expected a row for each")
    if value.is_floating_point():
        return value.to(dtype) if value.dtype != dtype else value
    return value if value.dtype in (torch.bool, torch.uint8) else value.to(torch.int64)


def check_masks(x: dict[str, Tensor], present: dict[str, Tensor], n: int):
    """Raises ValueError for masks that are none of n rows of x, and for a row in which nothing was observed."""
    for m, mask in present.items():
        if m not in x or mask.dtype != torch.bool or mask.dim() != 1:
            raise ValueError(f'present["{m}"]: found {mask.dtype} of shape {tuple(mask.shape)}, expected bool of shape '
                             f"({n},) for one of {tuple(x)}")
    if len(present) == len(x) and not (seen := torch.stack(list(present.values())).any(0)).all():
        raise ValueError(f"present: found nothing observed in row {(~seen).nonzero()[0].item()}, expected at least one "
                         f"of {tuple(x)}")
