"""Do the modalities that a model makes agree? As classifiers read them, beside chance and the classifiers' own accuracy."""
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..data import Rows
from ..models import MultiModalVAE
from ..nets import CategoryEncoder, ImageEncoder, VectorEncoder
from ..observed import Subset, joined, with_all
from .intervals import wilson

PART = 256  # rows predicted at once


def most_likely(p: Tensor) -> Tensor:
    """The classifier of a modality of classes, whose prediction is their probabilities: (B, K) -> int64 (B,)."""
    return p.argmax(-1)


def _agreement(classes: list[Tensor]) -> dict[str, float]:
    """How often several readings (B,) of a row are one class, and how often they would be if each were shuffled: the mean
    over all shuffles, sum over classes of the product of their shares."""
    count, n = int(torch.stack([c == classes[0] for c in classes]).all(0).sum()), len(classes[0])
    every = torch.cat(classes).unique()
    shares = torch.stack([(c.unsqueeze(1) == every).double().mean(0) for c in classes])  # (readings, classes)
    low, high = wilson(count, n)
    return {"count": count, "n": n, "share": count / n, "low": low, "high": high, "chance": shares.prod(0).sum().item()}


@torch.no_grad()
def coherence(model: MultiModalVAE, classifiers: dict[str, Callable[[Tensor], Tensor]], rows: Rows | None = None,
              factor: str | None = None, n: int = 1024, subsets: Sequence[Subset] = (),
              seed: int = 0) -> dict[str, dict[str, float]]:
    """Joint and cross coherence: Shi et al. (2019), sec. 4.

    "joint": of n draws from the prior, in how many do the classifiers read one class off all modalities? And with rows, for
    each subset A that the model infers from and each other modality m that has a classifier, "A->m", as
    "sound+label->digit": in how many rows is the class of m as it is predicted from A (one draw of z a row) that of
    `factor`? Of n different rows, or all if there are fewer, those in which all of A was observed.
    classifiers: {modality: function}, each from what `model.predict` says of a modality (its likelihood's mean) to the class,
    int64 (B,): see `train_classifier`, and `most_likely` for a modality of classes. Each answer is {"count", "n", "share",
    "low", "high": the 95 % interval of the share, "chance": the share if the classes were shuffled}. Raises ValueError for
    classifiers of unknown modalities and for a factor that is not one of classes.
    """
    if not classifiers or (wrong := [m for m in classifiers if m not in model.modalities]):
        raise ValueError(f"classifiers: found {wrong[0] if classifiers else 'none'!r}, expected some of "
                         f"{tuple(model.modalities)}")
    generator, found, names = torch.Generator().manual_seed(seed), {}, tuple(m for m in model.modalities if m in classifiers)

    def read(parts: list[dict[str, Tensor]], m: str) -> Tensor:
        return torch.cat([classifiers[m](part[m]).cpu() for part in parts])

    if len(names) > 1:
        made = [model.sample(min(PART, n - i), names, generator) for i in range(0, n, PART)]
        found["joint"] = _agreement([read(made, m) for m in names])
    if rows is None:
        return found
    index = torch.randperm(len(rows), generator=generator)[:n].to(rows.device)
    truth = _classes(rows, index, factor)
    for A in subsets or model.seen:
        want, parts, kept = tuple(m for m in names if m not in A), [], []
        for i in index.split(PART) if want else ():
            x, masks = rows.batch(i)
            mask = with_all(A, masks)
            mask = torch.ones(len(i), dtype=torch.bool, device=i.device) if mask is None else mask
            kept.append(mask.cpu())
            if mask.any():
                made = model.predict({m: x[m][mask] for m in A}, want, 1, generator=generator)
                parts.append({m: v[0] for m, v in made.items()})
        for m in want if parts else ():
            found[f"{joined(A)}->{m}"] = _agreement([truth[torch.cat(kept)], read(parts, m)])
    return found


def _classes(rows: Rows, index: Tensor, factor: str | None) -> Tensor:
    """The classes of these rows, int64 (B,)."""
    factors = rows.factors_at(index)
    if factor not in factors or factors[factor].is_floating_point():
        raise ValueError(f"factor: found {factor!r}, expected one of classes, int64, among "
                         f"{tuple(f for f, v in factors.items() if not v.is_floating_point())}")
    return factors[factor].long().cpu()


class Classifier(nn.Module):
    """x (B, ...) -> its class, int64 (B,). net: x -> (B, classes). classes: int64 (classes,), what they are called."""

    def __init__(self, net: nn.Module, classes: Tensor):
        super().__init__()
        self.net = net
        self.register_buffer("classes", classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classes[self.net(x).argmax(1)]


def network(x: Tensor) -> Callable[[int], nn.Module]:
    """What makes the package's encoder of such data from its number of outputs: of pictures (B, C, H, W), of numbers, of
    classes, int64."""
    if not x.is_floating_point():
        return partial(CategoryEncoder, classes=int(x.max()) + 1, shape=tuple(x.shape[1:]))
    if x.dim() == 4:
        return partial(ImageEncoder, channels=x.shape[1], size=tuple(x.shape[2:]))
    return partial(VectorEncoder, shape=tuple(x.shape[1:]))


def train_classifier(train: Rows, test: Rows, modality: str, factor: str, iterations: int = 1000, batch: int = 128,
                     encoder: Callable[[int], nn.Module] | None = None, seed: int = 0,
                     progress: bool = True) -> tuple[Classifier, dict[str, float]]:
    """A `Classifier` of a factor from one modality, and its accuracy on `test`: the ceiling of what coherence it can see.

    encoder: from a number of outputs to a network; default: the package's own for such data. Every other batch of pictures is
    blurred a little, as what a decoder makes is. The accuracy: {"count", "n", "share", "low", "high": its 95 % interval,
    "chance": shuffled}, of all rows of `test` in which the modality was observed. Raises ValueError for an unknown modality,
    or factor of classes.
    """
    generator, every = torch.Generator(train.device).manual_seed(seed), torch.arange(len(train), device=train.device)
    classes, indices = _classes(train, every, factor).unique(return_inverse=True)
    x, masks = train.batch(every[:256])
    if modality not in x:
        raise ValueError(f"modality: found {modality!r}, expected one of {tuple(x)}")
    every = every[_seen(train, every, modality)]
    indices = indices.to(train.device)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = (encoder or network(x[modality]))(len(classes)).to(train.device)
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=0.05, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, iterations, pct_start=0.05)
    for k in tqdm(range(iterations), f"training a classifier of {modality}", disable=not progress):
        i = every[torch.randint(len(every), (batch,), generator=generator, device=train.device)]
        x = train.batch(i)[0][modality]
        if k % 2 and x.dim() == 4 and x.is_floating_point():
            x = F.avg_pool2d(x, 3, 1, 1)
        loss = F.cross_entropy(net(x), indices[i], label_smoothing=0.02)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    classifier = Classifier(net, classes.to(train.device)).eval()
    index = torch.arange(len(test), device=test.device)
    index = index[_seen(test, index, modality)]
    with torch.no_grad():
        read = torch.cat([classifier(test.batch(i)[0][modality]).cpu() for i in index.split(PART)])
    return classifier, _agreement([_classes(test, index, factor), read])


def _seen(rows: Rows, index: Tensor, modality: str) -> Tensor:
    """In which of these rows the modality was observed, bool (B,)."""
    masks = [rows.batch(i)[1].get(modality, torch.ones(len(i), dtype=torch.bool, device=i.device)) for i in index.split(PART)]
    if not (seen := torch.cat(masks)).any():
        raise ValueError(f"rows: found none with {modality!r}, expected some")
    return seen
