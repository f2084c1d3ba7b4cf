"""The encoder and the decoder. Every model in the book uses these two, so models differ only in their wiring.

The encoder reads patches of 8x8 pixels, the rest is dense layers, which a CPU computes at full speed. Bigger and deeper
networks draw the training faces more sharply, and faces that they have not seen less well: benchmarks/README.md.
"""
import torch.nn.functional as F
from torch import Tensor, nn

from .gaussian import Gaussian

PATCH = 8  # pixels a side


def _check_size(size: int):
    if size < 16 or size % 16:
        raise ValueError(f"size: found {size}, expected a multiple of 16 pixels, at least 16")


def _initialise(net: nn.Module):
    """Weights of variance 2 / fan-in, biases zero: He et al. (2015).

    PyTorch's default variance is six times smaller. Through the layers little of z would reach the image, and the
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

    def __init__(self, latents: dict[str, int], channels: int = 1, size: int = 64, width: int = 160):
        super().__init__()
        _check_size(size)
        self.latents, self.channels, self.size = dict(latents), channels, size
        self.patches = nn.Conv2d(channels, 24, PATCH, stride=PATCH)
        self.hidden1 = nn.Linear(24 * (size // PATCH) ** 2, width)
        self.hidden2 = nn.Linear(width, width)
        _initialise(self)  # not the heads below: posteriors start near the prior
        total = sum(latents.values())
        self.mu = nn.Linear(width, total)
        self.logvar = nn.Linear(width, total)

    def forward(self, image: Tensor) -> dict[str, Gaussian]:
        expected = (self.channels, self.size, self.size)
        if tuple(image.shape[1:]) != expected:
            raise ValueError(f"image: found shape {tuple(image.shape)}, expected (B, {str(expected)[1:]}")
        h = F.silu(self.patches(image - 0.5)).flatten(1)  # (B, 24 * patches)
        h = F.silu(self.hidden1(h))  # (B, width)
        h = F.silu(self.hidden2(h))  # (B, width)
        dims = list(self.latents.values())
        mu, logvar = self.mu(h).split(dims, 1), self.logvar(h).split(dims, 1)
        return {block: Gaussian(m, v) for block, m, v in zip(self.latents, mu, logvar)}


class Decoder(nn.Module):
    """Latents -> Bernoulli logits of an image, by three dense layers.

    The last one adds up `width` images that it has learnt, so a decoder has few ways of telling one training face
    from the next, and the faces in between stay faces.
    latent: dimensions of z. forward(z (B, latent)) -> logits (B, channels, size, size).
    """

    def __init__(self, latent: int, channels: int = 1, size: int = 64, width: int = 112):
        super().__init__()
        _check_size(size)
        self.shape = (channels, size, size)
        self.hidden1 = nn.Linear(latent, width)
        self.hidden2 = nn.Linear(width, width)
        self.pixels = nn.Linear(width, channels * size * size)
        _initialise(self)

    def forward(self, z: Tensor) -> Tensor:
        h = F.silu(self.hidden1(z))  # (B, width)
        h = F.silu(self.hidden2(h))  # (B, width)
        return self.pixels(h).unflatten(1, self.shape)  # (B, channels, size, size)
