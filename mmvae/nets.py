"""Networks: the book's, for pictures of any size, vectors and classes; and `Modality`, by which anybody's take their place.

A picture is read and drawn in patches of 8x8 pixels, the rest is dense layers; what else was tried: benchmarks/README.md.
"""
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from numbers import Integral

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .gaussian import Gaussian, bounded
from .likelihoods import Bernoulli, Categorical, NegativeBinomial, Normal, Own
from .observed import check_modality

PATCH = 8  # pixels a side
WIDTH = 160  # of an encoder's hidden layers; also how many features a modality brings to an encoder of several
WIDE, NARROW, PLACE = 192, 112, 16  # of a picture's decoder, and of another; features of a place on a picture's grid


@dataclass(frozen=True)
class Modality:
    """One modality: how it is read, how it is made, what its data are.

    encoder(outputs) -> a module x (B, ...) -> (B, outputs). decoder(latent) -> a module z (B, latent) -> the parameters of
    p(x | z), or a `torch.distributions.Distribution`. likelihood: of `mmvae.likelihoods`, or any object with the same four
    methods. private: dimensions of its private block. shape: of one row of x, if it is to be checked and drawn.
    Raises TypeError for what cannot be called and for a likelihood without these methods, ValueError for private < 0.
    """
    encoder: Callable[[int], nn.Module]
    decoder: Callable[[int], nn.Module]
    likelihood: object = field(default_factory=Own)
    private: int = 0
    shape: tuple[int, ...] | None = None

    def __post_init__(self):
        check_modality(self)


def images(size: int | tuple[int, int], channels: int = 1, private: int = 0, likelihood: object = None) -> Modality:
    """Pictures: float (B, channels, H, W), in [0, 1] with the default, Bernoulli. size: pixels a side, or (H, W)."""
    height, width = (size, size) if isinstance(size, Integral) else size
    if min(height, width, channels) < 1:
        raise ValueError(f"images: found size {size} with {channels} channels, expected at least 1 of each")
    kind = {"channels": channels, "size": (height, width)}
    like = Bernoulli() if likelihood is None else likelihood
    return Modality(partial(ImageEncoder, **kind), partial(ImageDecoder, **kind), like, private, (channels, height, width))


def vectors(size: int | tuple[int, ...], private: int = 0, likelihood: object = None) -> Modality:
    """Numbers: float (B, size), or (B, *size). Default likelihood: Normal with a learnt scale.

    For `NegativeBinomial` the encoder reads log(1 + x), as is usual for counts.
    """
    shape = (size,) if isinstance(size, Integral) else tuple(size)
    if not shape or min(shape) < 1:
        raise ValueError(f"vectors: found size {size}, expected a positive number, or several")
    likelihood = Normal() if likelihood is None else likelihood
    encoder = partial(VectorEncoder, shape=shape, counts=isinstance(likelihood, NegativeBinomial))
    return Modality(encoder, partial(VectorDecoder, shape=shape), likelihood, private, shape)


def categories(classes: int, private: int = 0, length: int | None = None) -> Modality:
    """Class indices: int64 (B,), or sequences of them, (B, length)."""
    shape = () if length is None else (length,)
    return Modality(partial(CategoryEncoder, classes=classes, shape=shape), partial(VectorDecoder, shape=(*shape, classes)),
                    Categorical(classes), private, shape)


def _initialise(net: nn.Module):
    """Weights of variance 2 / fan-in, biases zero: He et al. (2015). By PyTorch's default little of z reaches the picture."""
    for layer in net.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)


class Heads(nn.Module):
    """The end of an encoder: means, and log-variances. Not initialised as the rest is: posteriors start near the prior."""
    def add_heads(self, width: int, outputs: int):
        _initialise(self)
        self.mu = nn.Linear(width, outputs // 2)
        self.logvar = nn.Linear(width, outputs - outputs // 2)

    def heads(self, h: Tensor) -> Tensor:
        return torch.cat([self.mu(h), self.logvar(h)], 1)  # (B, outputs)


class ImageEncoder(Heads):
    """Pictures (B, C, H, W) -> (B, outputs). Several of one size are read as the channels of one. What is beyond the last
    whole patch is filled up with grey."""

    def __init__(self, outputs: int, channels: int = 1, size: int | tuple[int, int] = 64, width: int = WIDTH):
        super().__init__()
        height, across = self.size = (size, size) if isinstance(size, int) else tuple(size)
        self.channels, self.pad = channels, (0, -across % PATCH, 0, -height % PATCH)
        self.patches = nn.Conv2d(channels, 24, PATCH, stride=PATCH)
        self.hidden1 = nn.Linear(24 * math.ceil(height / PATCH) * math.ceil(across / PATCH), width)
        self.hidden2 = nn.Linear(width, width)
        self.add_heads(width, outputs)

    def forward(self, *images: Tensor) -> Tensor:
        image = images[0] if len(images) == 1 else torch.cat(images, 1)
        if tuple(image.shape[1:]) != (self.channels, *self.size):
            raise ValueError(f"image: found shape {tuple(image.shape)}, expected (B, {self.channels}, "
                             f"{self.size[0]}, {self.size[1]})")
        image = F.pad(image - 0.5, self.pad) if any(self.pad) else image - 0.5
        h = F.silu(self.hidden1(F.silu(self.patches(image)).flatten(1)))  # (B, width)
        return self.heads(F.silu(self.hidden2(h)))  # (B, outputs)


class VectorEncoder(Heads):
    """Numbers (B, *shape) -> (B, outputs). counts: read log(1 + x)."""

    def __init__(self, outputs: int, shape: tuple[int, ...], counts: bool = False, width: int = WIDTH):
        super().__init__()
        self.counts = counts
        self.hidden1 = nn.Linear(math.prod(shape), width)
        self.hidden2 = nn.Linear(width, width)
        self.add_heads(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        h = F.silu(self.hidden1((x.log1p() if self.counts else x).flatten(1)))  # (B, width)
        return self.heads(F.silu(self.hidden2(h)))  # (B, outputs)


class CategoryEncoder(VectorEncoder):
    """Class indices (B, *shape), int64 -> (B, outputs): one number for each class."""

    def __init__(self, outputs: int, classes: int, shape: tuple[int, ...] = (), width: int = WIDTH):
        super().__init__(outputs, (*shape, classes), width=width)
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.one_hot(x, self.classes).to(self.mu.weight.dtype))


class VectorDecoder(nn.Module):
    """z (B, latent) -> (B, *shape), by three dense layers."""

    def __init__(self, latent: int, shape: tuple[int, ...], width: int = NARROW):
        super().__init__()
        self.shape = tuple(shape)
        self.hidden1 = nn.Linear(latent, width)
        self.hidden2 = nn.Linear(width, width)
        self.last = nn.Linear(width, math.prod(shape))
        _initialise(self)

    def forward(self, z: Tensor) -> Tensor:
        h = F.silu(self.hidden2(F.silu(self.hidden1(z))))  # (B, width)
        return self.last(h).unflatten(1, self.shape)  # (B, *shape)


class ImageDecoder(VectorDecoder):
    """z (B, latent) -> logits of a picture, or its means, (B, channels, H, W). Dense layers say what stands at each place of
    a grid, one every 8 pixels; a convolution lets neighbours agree, and 8x8 pixels are drawn there: alike at every place."""

    def __init__(self, latent: int, channels: int = 1, size: int | tuple[int, int] = 64, width: int = WIDE):
        self.size = height, across = (size, size) if isinstance(size, int) else tuple(size)
        super().__init__(latent, (PLACE, math.ceil(height / PATCH), math.ceil(across / PATCH)), width)
        self.mix = nn.Conv2d(PLACE, 2 * PLACE, 3, padding=1)
        self.pixels = nn.Conv2d(2 * PLACE, channels * PATCH ** 2, 1)
        _initialise(self)

    def forward(self, z: Tensor) -> Tensor:
        h = F.silu(self.mix(F.silu(super().forward(z))))  # (B, 2 * PLACE, rows, columns)
        return F.pixel_shuffle(self.pixels(h), PATCH)[..., :self.size[0], :self.size[1]]


class Encoder(nn.Module):
    """The posterior of some blocks from what a network reads: {block: Gaussian (B, dimensions)}.

    blocks: {block: dimensions}. net(*x) -> (B, outputs): means, then log-variances, each in the order of `blocks`; ValueError
    if outputs is not twice the sum of their dimensions.
    """

    def __init__(self, blocks: dict[str, int], net: nn.Module):
        super().__init__()
        self.blocks, self.net = dict(blocks), net

    def forward(self, *x: Tensor) -> dict[str, Gaussian]:
        out, dims = self.net(*x), list(self.blocks.values())
        if out.dim() != 2 or out.shape[1] != 2 * sum(dims):
            raise ValueError(f"encoder of {', '.join(self.blocks)}: found an output of shape {tuple(out.shape)}, expected "
                             f"(B, {2 * sum(dims)}), a mean and a log-variance for each latent of {self.blocks}")
        mu, logvar = out.chunk(2, 1)
        return {block: Gaussian(m, v) for block, m, v in zip(self.blocks, mu.split(dims, 1), bounded(logvar).split(dims, 1))}
