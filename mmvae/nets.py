"""The encoder and the decoder. Every model in the book uses these two, so models differ only in their wiring.

Both work on a grid of 4x4 patches: most of the arithmetic is in dense layers, which a CPU does at full speed,
and a 3x3 convolution on the patch grid lets neighbours agree on edges.
"""
import torch.nn.functional as F
from torch import Tensor, nn

from .gaussian import Gaussian

PATCH = 4  # pixels a side


def _check_size(size: int):
    if size < 16 or size % 16:
        raise ValueError(f"size: found {size}, expected a multiple of 16 pixels, at least 16")


def _initialise(net: nn.Module):
    """Weights of variance 2 / fan-in, biases zero: He et al. (2015).

    PyTorch's default variance is six times smaller. Through five layers little of z would reach the image, and the
    first thousand iterations would go into turning it up.
    """
    for layer in net.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)


class Encoder(nn.Module):
    """Image -> one diagonal Gaussian per block.

    latents: {block: dimensions}, e.g. {"I": 2, "S": 5}. channels: 1, or 2 for an encoder of the pair.
    forward(image (B, channels, size, size), float in [0, 1]) -> {block: Gaussian (B, dimensions)}.
    """

    def __init__(self, latents: dict[str, int], channels: int = 1, size: int = 64, width: int = 256):
        super().__init__()
        _check_size(size)
        self.latents, self.channels, self.size = dict(latents), channels, size
        cells = (size // PATCH) ** 2
        self.patches = nn.Conv2d(channels, 16, PATCH, stride=PATCH)
        self.hidden1 = nn.Linear(16 * cells, width)
        self.hidden2 = nn.Linear(width, width)
        _initialise(self)  # not the heads below: posteriors start near the prior
        total = sum(latents.values())
        self.mu = nn.Linear(width, total)
        self.logvar = nn.Linear(width, total)

    def forward(self, image: Tensor) -> dict[str, Gaussian]:
        expected = (self.channels, self.size, self.size)
        if tuple(image.shape[1:]) != expected:
            raise ValueError(f"image: found shape {tuple(image.shape)}, expected (B, {str(expected)[1:]}")
        h = F.silu(self.patches(image - 0.5)).flatten(1)  # (B, 16 * cells)
        h = F.silu(self.hidden1(h))  # (B, width)
        h = F.silu(self.hidden2(h))  # (B, width)
        dims = list(self.latents.values())
        mu, logvar = self.mu(h).split(dims, 1), self.logvar(h).split(dims, 1)
        return {block: Gaussian(m, v) for block, m, v in zip(self.latents, mu, logvar)}


class Decoder(nn.Module):
    """Latents -> Bernoulli logits of an image.

    latent: dimensions of z. forward(z (B, latent)) -> logits (B, channels, size, size).
    """

    def __init__(self, latent: int, channels: int = 1, size: int = 64, width: int = 256, features: int = 6):
        super().__init__()
        _check_size(size)
        side = size // PATCH
        self.grid = (features, side, side)
        self.hidden1 = nn.Linear(latent, width)
        self.hidden2 = nn.Linear(width, width)
        self.hidden3 = nn.Linear(width, features * side * side)
        self.smooth = nn.Conv2d(features, 32, 3, padding=1)
        self.patches = nn.Conv2d(32, channels * PATCH**2, 1)
        _initialise(self)

    def forward(self, z: Tensor) -> Tensor:
        h = F.silu(self.hidden1(z))  # (B, width)
        h = F.silu(self.hidden2(h))  # (B, width)
        h = self.hidden3(h).unflatten(1, self.grid)  # (B, features, side, side)
        h = F.silu(self.smooth(F.silu(h)))  # (B, 32, side, side)
        return F.pixel_shuffle(self.patches(h), PATCH)  # (B, channels, size, size)
