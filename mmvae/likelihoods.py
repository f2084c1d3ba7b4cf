"""Likelihoods p(x | z): what a decoder's output says of a modality's data. Modules, because a scale may be learnt.

Each has four methods, and so has a reader's own:

    log_prob(output, x) -> (B,)     nats a row, summed over all that a row holds
    mean(output) -> (B, ...)        what is shown of it, and predicted: a picture's brightness, a class's probability
    sample(output, generator)       a draw of x
    check(x, name)                  raises ValueError, in one sentence, for data that it cannot be of
"""
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _rows(values: Tensor) -> Tensor:
    """The sum over all that a row holds: (B, ...) -> (B,)."""
    return values.flatten(1).sum(1) if values.dim() > 1 else values


def _same_shape(output: Tensor | torch.distributions.Distribution, x: Tensor):
    shape = output.shape if isinstance(output, Tensor) else output.batch_shape + output.event_shape
    if shape != x.shape:
        raise ValueError(f"decoder: found an output of shape {tuple(shape)}, expected that of x, {tuple(x.shape)}")


def _check_finite(x: Tensor, name: str, low: float = -math.inf, high: float = math.inf, what: str = "finite numbers"):
    """Floating point, not NaN, within [low, high]."""
    if not x.is_floating_point():
        hint = "; divide bytes by 255" if x.dtype == torch.uint8 else ""
        raise ValueError(f'x["{name}"]: found {x.dtype}, expected floating point{hint}')
    least, most = x.detach().aminmax() if x.numel() else (0.0, 0.0)
    if not (low <= least and most <= high and -math.inf < least and most < math.inf):  # written so that NaN fails too
        found = "NaN" if math.isnan(least) else f"values from {least:.4g} to {most:.4g}"
        raise ValueError(f'x["{name}"]: found {found}, expected {what}')


class Bernoulli(nn.Module):
    """Pixels in [0, 1], independent; output: logits of x's shape. Grey levels are allowed, as in Kingma & Welling (2014),
    appendix C.1; for them log_prob is minus a cross-entropy, not a normalised log-density."""

    def log_prob(self, output: Tensor, x: Tensor) -> Tensor:
        """sum over pixels of x log s(output) + (1 - x) log(1 - s(output)): (B,), nats [eq-vae-bernoulli]."""
        _same_shape(output, x)
        return -_rows(F.binary_cross_entropy_with_logits(output, x, reduction="none"))

    def mean(self, output: Tensor) -> Tensor:
        return output.sigmoid()

    def sample(self, output: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Black or white, 0.0 or 1.0."""
        return torch.bernoulli(output.sigmoid(), generator=generator)

    def check(self, x: Tensor, name: str):
        _check_finite(x, name, 0.0, 1.0, "them within [0, 1]")


class _Scaled(nn.Module):
    """A likelihood with one positive number for the whole modality: learnt by its logarithm, from 1, or given."""

    def __init__(self, scale: float | None = None):
        super().__init__()
        if scale is not None and not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"{type(self).__name__}: found {scale}, expected a positive number, or None to learn it")
        start = torch.tensor(math.log(scale or 1.0))
        self.learnt = nn.Parameter(start) if scale is None else None
        self.register_buffer("given", None if scale is None else start, persistent=False)

    @property
    def log_scale(self) -> Tensor:
        return self.given if self.learnt is None else self.learnt

    @property
    def scale(self) -> Tensor:
        return self.log_scale.exp()

    def mean(self, output: Tensor) -> Tensor:
        return output

    def check(self, x: Tensor, name: str):
        _check_finite(x, name)


class Normal(_Scaled):
    """Real numbers; output: the mean, of x's shape. scale: the standard deviation, of the whole modality; None: learnt,
    which weighs the reconstruction against the KL by itself (Rybkin et al. 2021, sec. 3)."""

    def log_prob(self, output: Tensor, x: Tensor) -> Tensor:
        """log N(x; output, scale^2) summed: (B,), nats."""
        _same_shape(output, x)
        return _rows(-0.5 * (((x - output) / self.scale).square() + math.log(2 * math.pi)) - self.log_scale)

    def sample(self, output: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return output + self.scale * torch.empty_like(output).normal_(generator=generator)


class Laplace(_Scaled):
    """Real numbers with heavier tails; output: the mean, of x's shape. scale: mean absolute deviation; None: learnt."""

    def log_prob(self, output: Tensor, x: Tensor) -> Tensor:
        """-|x - output| / scale - log(2 scale) summed: (B,), nats."""
        _same_shape(output, x)
        return _rows(-(x - output).abs() / self.scale - math.log(2) - self.log_scale)

    def sample(self, output: Tensor, generator: torch.Generator | None = None) -> Tensor:
        u = torch.empty_like(output).uniform_(-1, 1, generator=generator)
        return output - self.scale * u.sign() * (-u.abs()).clamp(min=torch.finfo(u.dtype).eps - 1).log1p()


class NegativeBinomial(_Scaled):
    """Counts, as floating point, with more spread than a Poisson's; output: o, of x's shape, whose softplus is the mean.
    scale: the dispersion r, by which the variance is mean + mean^2 / r; one for the whole modality; None: learnt."""

    def mean(self, output: Tensor) -> Tensor:
        return F.softplus(output)

    def log_prob(self, output: Tensor, x: Tensor) -> Tensor:
        """log of C(x + r - 1, x) (r / (r + m))^r (m / (r + m))^x with m the mean, summed: (B,), nats."""
        _same_shape(output, x)
        r, m = self.scale, self.mean(output).clamp(min=1e-8)
        choose = (x + r).lgamma() - r.lgamma() - (x + 1).lgamma()
        return _rows(choose + r * (self.log_scale - (r + m).log()) + x * (m.log() - (r + m).log()))

    def sample(self, output: Tensor, generator: torch.Generator | None = None) -> Tensor:
        r = self.scale.expand_as(output)  # a Poisson's draw at a Gamma's rate; that one takes no generator but PyTorch's own
        return torch.poisson(torch.distributions.Gamma(r, r / self.mean(output).clamp(min=1e-8)).sample(), generator)

    def check(self, x: Tensor, name: str):
        _check_finite(x, name, 0.0, what="counts, 0 or more")
        if (x != x.round()).any():
            raise ValueError(f'x["{name}"]: found {x[x != x.round()][0].item():.4g}, expected whole numbers')


class Categorical(nn.Module):
    """Class indices, one a row or a sequence of them: int64 (B,) or (B, T); output: logits (B, K) or (B, T, K); K classes."""

    def __init__(self, classes: int):
        super().__init__()
        if classes < 2:
            raise ValueError(f"classes: found {classes}, expected at least 2")
        self.classes = classes

    def log_prob(self, output: Tensor, x: Tensor) -> Tensor:
        """log softmax(output)[x], summed over a sequence: (B,), nats."""
        if tuple(output.shape) != (*x.shape, self.classes):
            raise ValueError(f"decoder: found an output of shape {tuple(output.shape)}, expected {(*x.shape, self.classes)}")
        return _rows(output.log_softmax(-1).gather(-1, x.unsqueeze(-1)).squeeze(-1))

    def mean(self, output: Tensor) -> Tensor:
        """The probability of each class, (B, K) or (B, T, K)."""
        return output.softmax(-1)

    def sample(self, output: Tensor, generator: torch.Generator | None = None) -> Tensor:
        flat = output.flatten(0, -2).softmax(-1)
        return torch.multinomial(flat, 1, generator=generator).view(output.shape[:-1])

    def check(self, x: Tensor, name: str):
        if x.dtype != torch.int64:
            raise ValueError(f'x["{name}"]: found {x.dtype}, expected class indices, int64')
        if x.numel() and not (x.min() >= 0 and x.max() < self.classes):
            raise ValueError(f'x["{name}"]: found classes from {x.min()} to {x.max()}, expected 0 to {self.classes - 1}')


class Own(nn.Module):
    """Of a decoder that returns a `torch.distributions.Distribution` whose batch is the rows. check: finite numbers."""

    def log_prob(self, output: torch.distributions.Distribution, x: Tensor) -> Tensor:
        if not isinstance(output, torch.distributions.Distribution):
            raise ValueError(f"decoder: found an output of type {type(output).__name__}, expected a "
                             "torch.distributions.Distribution, since its Modality names no likelihood")
        _same_shape(output, x)
        return _rows(output.log_prob(x))

    def mean(self, output: torch.distributions.Distribution) -> Tensor:
        return output.probs if isinstance(output, torch.distributions.Categorical) else output.mean

    def sample(self, output: torch.distributions.Distribution, generator: torch.Generator | None = None) -> Tensor:
        return output.sample()  # from PyTorch's own generator: a Distribution takes no other

    def check(self, x: Tensor, name: str):
        if x.is_floating_point():
            _check_finite(x, name)
