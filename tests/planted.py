"""Images that state their own factors, and models made by hand from them: what a measurement says of these is known."""
import torch
from torch import nn

from mmvae import Gaussian, MultiModalVAE, images
from mmvae.faces import FACTORS, Grid, Pairs

SHAPE, NEUTRAL = (6, 8, 5, 5), 2  # identities, azimuths, elevations, lights; the neutral index of the last two
UNSEEN = 3  # identities


def grid() -> Grid:
    """Pixel (0, k) is 30 times the index of factor k; the factor that a modality lacks is neutral."""
    n, a, e, l = SHAPE
    values = dict(identity=torch.arange(n), azimuth=torch.linspace(-90, 90, a), elevation=torch.linspace(-30, 30, e),
                  light=torch.linspace(-80, 80, l))
    pictures = {}
    for m, third in (("I", 2), ("T", 3)):
        index = torch.meshgrid(*(torch.arange(SHAPE[k]) for k in (0, 1, third)), indexing="ij")
        pictures[m] = torch.zeros(*index[0].shape, 16, 16, dtype=torch.uint8)
        pictures[m][..., 0, 2:4] = 30 * NEUTRAL
        for k, i in zip((0, 1, third), index):
            pictures[m][..., 0, k] = (30 * i).to(torch.uint8)
    return Grid(**pictures, **values, test_identities=UNSEEN)


def splits() -> tuple[Pairs, Pairs]:
    return Pairs(grid()), Pairs(grid(), "test")


def indices(image):
    """What an image states: (B, 4), in the order of `FACTORS`."""
    return image[:, 0, 0, :4] * 8.5


def certain(mu, logvar=-6.0):
    return Gaussian(mu, torch.full_like(mu, logvar))


class Planted(MultiModalVAE):
    """A model without weights: `posteriors` asks `read`, {modality: images (B, 1, 16, 16)} -> {block: Gaussian}."""

    def __init__(self, private, shared=2, **more):
        super().__init__({m: images(16, private=n) for m, n in zip("IT", private)}, shared, **more)

    def posteriors(self, x, subsets):
        return {s: self.read({m: x[m] for m in s}) for s in subsets}


class Oracle(Planted):
    """A 'model' whose blocks hold just the factors they should: zI elevation, zT light, zS identity and azimuth.

    The second latent of I has collapsed; its tiny mean would tell azimuth to a careless probe.
    """

    def __init__(self):
        super().__init__((2, 1))

    def read(self, x):
        like = next(iter(x.values()))
        i, zeros = {m: indices(image) - 2 for m, image in x.items()}, like.new_zeros(len(like), 1)
        shared = next(iter(i.values()))[:, :2]
        I = certain(i["I"][:, 2:3]) if "I" in i else Gaussian(zeros, zeros)  # noqa: E741
        T = certain(i["T"][:, 3:]) if "T" in i else Gaussian(zeros, zeros)
        I = Gaussian(torch.cat([I.mu, 1e-3 * shared[:, 1:]], 1), torch.cat([I.logvar, zeros], 1))  # noqa: E741
        return {"I": I, "S": certain(shared), "T": T}


class Codes(Planted):
    """A 'model' of one block: its means are `code` of the pair's four indices (B, 4). It decodes nothing but grey."""

    def __init__(self, code):
        super().__init__((0, 0), blocks={"Z": code(torch.zeros(1, 4)).shape[1]}, subsets=[("I", "T")])
        self.code = code

    def can_see(self, subset):
        return subset == ("I", "T")

    def read(self, x):
        i = indices(x["I"])
        return {"Z": certain(self.code(torch.cat([i[:, :3], indices(x["T"])[:, 3:]], 1)))}

    def decode(self, z, modalities=None):
        return {m: torch.zeros(len(z["Z"]), 1, 16, 16) for m in modalities or self.modalities}


class Reader(nn.Module):
    """A read-out that makes no error on these images, and interpolates between them."""

    def forward(self, image):
        i, g = indices(image), grid()
        angles = {k: getattr(g, k)[0] + i[:, c] * (getattr(g, k)[1] - getattr(g, k)[0]) for c, k in enumerate(FACTORS) if c}
        return angles | {"identity": -(i[:, :1] - torch.arange(SHAPE[0])).square()}


class Perfect(Planted):
    """Looks each image up by its latents, whose quantiles are the factors: a draw from the prior is a uniform one.

    zI is elevation, zT light, zS identity and azimuth, as in the book. posterior_of: changes {block: Gaussian}.
    """

    def __init__(self, posterior_of=lambda q: q):
        super().__init__((1, 1))
        self.grid, self.posterior_of = grid(), posterior_of

    def read(self, x):
        quantile = {m: torch.special.ndtri((indices(image) + 0.5) / torch.tensor(SHAPE)) for m, image in x.items()}
        like = next(iter(quantile.values()))
        zeros = torch.zeros_like(like[:, :1])
        q = {"I": certain(quantile["I"][:, 2:3], -20.0) if "I" in x else Gaussian(zeros, zeros),
             "S": certain(like[:, :2], -20.0),
             "T": certain(quantile["T"][:, 3:], -20.0) if "T" in x else Gaussian(zeros, zeros)}
        return self.posterior_of(q)

    def decode(self, z, modalities=None):
        def at(latent, n):
            return (torch.special.ndtr(latent) * n).long().clamp(0, n - 1)

        person, azimuth = at(z["S"][:, 0], SHAPE[0]), at(z["S"][:, 1], SHAPE[1])
        return {m: torch.logit(getattr(self.grid, m)[person, azimuth, at(z[m][:, 0], 5)].unsqueeze(1) / 255, eps=1e-6)
                for m in modalities or self.modalities}
