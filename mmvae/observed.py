"""What was observed: which data a model refuses, in a sentence; and which rows give which subset of the modalities."""
import math
from collections.abc import Sequence
from dataclasses import fields
from itertools import combinations
from numbers import Integral, Real

import torch
from torch import Tensor

from .gaussian import Gaussian, Mixture

Subset = tuple[str, ...]
Data = dict[str, Tensor]
TAKEN = "S", "Z", "cross", "all-from-one", "auxiliary", "total"  # names of blocks and of terms
METHODS = "log_prob", "mean", "sample", "check"  # of a likelihood


def all_subsets(names: Sequence[str]) -> tuple[Subset, ...]:
    """Every non-empty subset, small ones first: (("I",), ("T",), ("I", "T"))."""
    return tuple(s for size in range(1, len(names) + 1) for s in combinations(names, size))


def joined(subset: Subset) -> str:
    """Its name: "I+T"."""
    return "+".join(subset)


def names_of(model, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The modalities that are asked for, default all; a string is one name, or several of one letter; or ValueError."""
    names = tuple(model.modalities)
    wanted = names if wanted is None else (wanted,) if isinstance(wanted, str) and wanted in names else tuple(wanted)
    if wrong := [m for m in wanted if m not in names]:
        raise ValueError(f"modalities: found {wrong[0]!r}, expected some of {names}")
    return wanted


def check_weight(model, weight: float | dict[str, float]):
    """Raises ValueError for a weight that is no finite number, and for one of an unknown modality."""
    for m, value in (weight if isinstance(weight, dict) else {None: weight}).items():
        if m is not None and m not in model.modalities:
            raise ValueError(f"weight: found modality {m!r}, expected some of {tuple(model.modalities)}")
        if not isinstance(value, Real) or not 0 <= value < math.inf:
            raise ValueError(f"weight: found {value!r}, expected 0 or a positive number")


def number(name: str, value, least: int | None = None, whole: bool = False) -> int | float:
    """A finite number, as Python's own: at least so large, or, without `least`, positive. Raises ValueError for others."""
    fine = isinstance(value, Integral if whole else Real) and not isinstance(value, bool) and math.isfinite(value)
    if not fine or (value <= 0 if least is None else value < least):
        what = "a positive number" if least is None else "0 or a positive number"
        what = f"a whole number, at least {least}" if whole else what
        raise ValueError(f"{name}: found {value!r}, expected {what}")
    return int(value) if whole else value if isinstance(value, int) else float(value)


def log_prob(model, m: str, output, x: Tensor) -> Tensor:
    """log p(x_m | z), (B,), nats. Raises ValueError for a likelihood that says something else than a number a row."""
    value = model.likelihood(m).log_prob(output, x)
    if value.shape != x.shape[:1]:
        raise ValueError(f'likelihood of "{m}": found log_prob of shape {tuple(value.shape)}, expected ({x.shape[0]},)')
    return value


def check_modality(modality):
    """Raises TypeError or ValueError for a `Modality` whose parts are not what they should be."""
    for part in ("encoder", "decoder"):
        make = getattr(modality, part)
        if not callable(make) or isinstance(make, torch.nn.Module):
            raise TypeError(f"{part}: found {type(make).__name__}, expected a function that makes the network from its "
                            "number of outputs (encoder) or of latents (decoder)")
    if missing := [name for name in METHODS if not callable(getattr(modality.likelihood, name, None))]:
        raise TypeError(f"likelihood: found {type(modality.likelihood).__name__} without {', '.join(missing)}, expected "
                        f"an object with {', '.join(METHODS)}")
    if not isinstance(modality.private, Integral) or modality.private < 0:
        raise ValueError(f"private: found {modality.private!r}, expected 0 or a positive whole number")
    shape = modality.shape
    if shape is not None and not (isinstance(shape, tuple) and all(isinstance(n, Integral) and n > 0 for n in shape)):
        raise ValueError(f"shape: found {shape!r}, expected a tuple of whole numbers, that of one row, such as (1, 28, 28)")


def check_modalities(who: str, modalities, kind: type, latents: dict[str, int]):
    """Raises TypeError or ValueError for what makes no model: no modalities, names that are taken, no latents."""
    if not isinstance(modalities, dict) or not all(isinstance(m, kind) for m in modalities.values()):
        raise TypeError(f'{who}: found modalities {modalities!r}, expected {{name: Modality}}, as in {who}({{"picture": '
                        'mmvae.images(64, private=2)}, ...)')
    if wrong := [m for m in modalities if not isinstance(m, str) or not m or m in TAKEN or set(m) & set('.+,"\n\r')
                 or hasattr(torch.nn.ModuleDict(), m)]:
        raise ValueError(f"{who}: found a modality named {wrong[0]!r}, expected a name without dot, plus, comma, quote and "
                         f"line end, none of {', '.join(TAKEN)} and of what PyTorch's modules have, as type and values")
    if not modalities:
        raise ValueError(f"{who}: found no modalities, expected at least one")
    for block, dim in latents.items():
        if not isinstance(dim, Integral) or dim < 0 or not sum(latents.values()):
            raise ValueError(f"{who}: found {dim!r} latents in block {block}, expected a whole number, at least 1")


def subsets_of(names: Sequence[str], subsets) -> tuple[Subset, ...]:
    """Each of the subsets in the order of the names. Raises ValueError for what are none of them."""
    kind = list | tuple | set
    fine = isinstance(subsets, kind) and len(subsets) and all(isinstance(s, kind) for s in subsets)
    if not fine or any(not s or set(s) - set(names) or len(set(s)) < len(s) for s in subsets):
        raise ValueError(f"subsets: found {subsets!r}, expected non-empty tuples of {tuple(names)}, such as "
                         f"{(tuple(names)[:1], tuple(names))}")
    return tuple(dict.fromkeys(tuple(m for m in names if m in s) for s in subsets))


def with_all(subset: Subset, masks: Data) -> Tensor | None:
    """The rows in which all of a subset was observed, bool (B,); None: every row."""
    found = [masks[m] for m in subset if m in masks]
    return torch.stack(found).all(0) if found else None


def refuse_empty_row(masks: Data):
    """Raises ValueError for a row in which none of these modalities, which are all that there are, was observed."""
    seen = torch.stack(list(masks.values())).any(0)
    if not seen.all():
        raise ValueError(f"present: found nothing observed in row {(~seen).nonzero()[0].item()}, expected at least one of "
                         f"{tuple(masks)}")


def check(model, x: Data, present: dict[str, Tensor] | None = None, values: bool = True) -> tuple[Data, Data]:
    """x in the model's order with zeros where nothing was observed, and the masks of what was: ({m: (B, ...)},
    {m: bool (B,)}, of the modalities in `present` alone).

    Raises ValueError, in a sentence that names the modality, what was found and what was expected, for: NaN or
    infinite values and others that the likelihood does not take, a wrong shape, dtype or device, an empty batch,
    unequal batches, an unknown modality, a row in which nothing was observed; TypeError for what is no tensor.
    values: whether to look at them, for which a GPU has to wait.
    """
    names, present = tuple(model.modalities), dict(present or {})
    values = values and not torch.compiler.is_compiling()
    if not isinstance(x, dict) or not x or set(x) - set(names):
        found = f"modalities {sorted(map(str, x))}" if isinstance(x, dict) else type(x).__name__
        raise ValueError(f"x: found {found}, expected a dictionary with some of {names}")
    if wrong := set(present) - set(x):
        raise ValueError(f"present: found {sorted(map(str, wrong))}, expected modalities of x, {tuple(x)}")
    out, masks, like = {}, {}, model.like
    for m in (m for m in names if m in x):
        batch = next(iter(out.values())).shape[:1] if out else None
        _check_tensor(m, x[m], batch, model.modalities[m].shape, like)
        out[m] = x[m]
        if present.get(m) is not None:
            masks[m] = mask = torch.as_tensor(present[m], device=x[m].device)
            if mask.dtype != torch.bool or mask.shape != x[m].shape[:1]:
                raise ValueError(f'present["{m}"]: found {mask.dtype} of shape {tuple(mask.shape)}, expected torch.bool of '
                                 f"shape {tuple(x[m].shape[:1])}")
            out[m] = torch.where(mask.view(-1, *[1] * (x[m].dim() - 1)), x[m], torch.zeros_like(x[m]))
        if values:
            model.likelihood(m).check(out[m] if m not in masks else out[m][masks[m]], m)
    if values and len(masks) == len(out):
        refuse_empty_row(masks)
    return out, masks


def _check_tensor(m: str, value, batch: torch.Size | None, shape: tuple[int, ...] | None, like: Tensor):
    """Its type, shape, dtype and device; batch: of the others."""
    if not isinstance(value, Tensor):
        raise TypeError(f'x["{m}"]: found {type(value).__name__}, expected a torch.Tensor; torch.as_tensor makes one')
    if value.dim() == 0 or shape is not None and value.shape[1:] != shape:
        expected = ", ".join(map(str, ("B", *(shape or ()))))
        raise ValueError(f'x["{m}"]: found shape {tuple(value.shape)}, expected ({expected}{"" if shape else ","})')
    if value.shape[0] == 0:
        raise ValueError(f'x["{m}"]: found an empty batch, expected at least one row')
    if batch is not None and value.shape[:1] != batch:
        raise ValueError(f'x["{m}"]: found a batch of {value.shape[0]}, expected {batch[0]}, as of the others')
    if value.is_floating_point() and value.dtype != like.dtype:
        raise ValueError(f'x["{m}"]: found {value.dtype}, expected {like.dtype}, as the model\'s weights are')
    if value.device != like.device:
        raise ValueError(f'x["{m}"]: found it on {value.device}, expected {like.device}, where the model is')


def cases(model, x: Data, masks: Data, subsets: Sequence[Subset]) -> list[tuple[Subset, Tensor | None]]:
    """[(subset B, its rows)]: the rows whose observed set O has B = A ∩ O for one of these subsets A; None: all rows
    [eq-own-missing].

    Which rows these are is never read from the device. Raises ValueError for a B that the model has no posterior of.
    """
    wholes = list(dict.fromkeys(tuple(m for m in A if m in x) for A in subsets))
    every = dict.fromkeys(wholes) | dict.fromkeys(tuple(m for m in A if m not in gone) for A in wholes
                                                  for gone in all_subsets([m for m in A if m in masks]))
    found = []
    for B in [A for A in every if A]:
        refuse_unseen(model, B)
        found.append((B, _rows(B, wholes, masks) if masks else None))
    return found


def refuse_unseen(model, subset: Subset):
    """Raises ValueError for a subset that the model has no posterior of."""
    if not model.can_see(subset):
        raise ValueError(f"x: found rows of {{{', '.join(subset)}}} alone, expected all of {tuple(model.modalities)}: "
                         f"{type(model).__name__} has no posterior of fewer")


def _rows(B: Subset, wholes: list[Subset], masks: Data) -> Tensor | None:
    """The rows in which B is all that was observed of one of the `wholes`; None: all rows."""
    found = torch.zeros_like(next(iter(masks.values())))
    for A in (A for A in wholes if set(B) <= set(A) and set(A) - set(B) <= set(masks)):
        wanted = [masks[m] for m in B if m in masks] + [~masks[m] for m in A if m not in B]
        if not wanted:
            return None
        found = found | torch.stack(wanted).all(0)
    return found


def choose(cases: list[tuple[Tensor | None, Gaussian | Mixture]]) -> Gaussian | Mixture:
    """One posterior from several, each of its own rows: [(rows bool (B,) or None, posterior (B, D))]."""
    (_, q), *rest = cases
    for rows, other in rest:
        if isinstance(q, Gaussian) and isinstance(other, Gaussian):
            both = [(getattr(other, f.name), getattr(q, f.name)) for f in fields(q)]
            q = type(q)(*(torch.where(rows.view(-1, *[1] * (a.dim() - 1)), a, b) for a, b in both))
            continue
        a, b = (Mixture((g,), torch.ones_like(g.mu[:, :1])) if isinstance(g, Gaussian) else g for g in (q, other))
        q = Mixture((*a.parts, *b.parts), torch.cat([a.weights * ~rows.unsqueeze(1), b.weights * rows.unsqueeze(1)], 1))
    return q
