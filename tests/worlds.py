"""Models and data of other worlds than the book's: mixed likelihoods, two and three modalities, own networks, own rules."""
import torch
from torch import nn

import mmvae
from mmvae import MODELS, Modality, categories, images, later, mixture_of_experts, vectors
from mmvae.correlated import FullPoEVAE
from mmvae.data import Rows
from mmvae.evaluate import oracle
from mmvae.likelihoods import Laplace, NegativeBinomial, Normal
from mmvae.models import MultiModalVAE, decoders_of, encoder_of

N = 24


class Convolutional(nn.Module):
    """A reader's own encoder."""

    def __init__(self, outputs):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.SiLU(), nn.Flatten(), nn.LazyLinear(outputs))
        self.net(torch.zeros(1, 3, 28, 28))

    def forward(self, x):
        return self.net(x)


class Student(nn.Module):
    """A decoder that returns a distribution."""

    def __init__(self, latent):
        super().__init__()
        self.net = nn.Linear(latent, 5)

    def forward(self, z):
        return torch.distributions.StudentT(5.0, self.net(z))


class MixtureVAE(MultiModalVAE):
    """A model that the package does not have: the shared posterior is the mixture of the experts."""

    def __init__(self, modalities, shared=4):
        super().__init__(modalities, shared)
        self.encoders = nn.ModuleDict({m: encoder_of(self, (m,)) for m in modalities})
        self.decoders = decoders_of(self)

    def posteriors(self, x, subsets):
        experts = {m: self.encoders[m](x[m]) for m in x}
        return {s: self.fuse({m: experts[m] for m in s}) for s in subsets}

    def fuse(self, experts):
        private = {m: q[m] for m, q in experts.items()}
        return private | {"S": mixture_of_experts([q["S"] for q in experts.values()])}

    fuse.sign = "+"


def pair():
    """Pictures of 16 pixels, as in the book."""
    return {m: images(16, private=2) for m in "IT"}


def two():
    """A colour picture of 28 pixels and counts."""
    return {"picture": images(28, channels=3, private=2), "genes": vectors(6, private=1, likelihood=NegativeBinomial())}


def three():
    """Of three kinds: numbers with a learnt scale, a class, a sequence of classes."""
    return {"sound": vectors((2, 5), private=3, likelihood=Laplace()), "label": categories(4), "word": categories(3, 1, length=5)}


def own():
    """Own network and a learnt scale; own decoder that returns a distribution; a class."""
    return {"photo": Modality(Convolutional, lambda latent: mmvae.nets.ImageDecoder(latent, 3, 28), Normal(), private=2),
            "odd": Modality(lambda outputs: nn.Sequential(nn.Linear(5, outputs)), Student, private=1),
            "label": categories(4)}


WORLDS = {"pair": pair, "two": two, "three": three, "own": own}
CLASSES = {"vanilla": mmvae.VanillaVAE, "mumo": mmvae.MuMoVAE, "poe": mmvae.PoEVAE, "mixture": MixtureVAE,
           "full": FullPoEVAE}
LATER = {"mmvae": later.MMVAE, "mopoe": later.MoPoE, "dmvae": later.DMVAE, "mmvae+": later.MMVAEPlus, "mvtcae": later.MVTCAE,
         "jmvae": later.JMVAE}


def build(kind, world, seed=0):
    torch.manual_seed(seed)
    if world == "pair" and kind in MODELS and kind not in CLASSES:
        return MODELS[kind](size=16)
    return (CLASSES | LATER)[kind](WORLDS[world]())


def data(world, n=N, seed=0):
    """{modality: n rows} of a world, as tensors."""
    g = torch.Generator().manual_seed(seed)
    makers = {"I": lambda: torch.rand(n, 1, 16, 16, generator=g), "T": lambda: torch.rand(n, 1, 16, 16, generator=g),
              "picture": lambda: torch.rand(n, 3, 28, 28, generator=g), "photo": lambda: torch.rand(n, 3, 28, 28, generator=g),
              "genes": lambda: torch.randint(0, 50, (n, 6), generator=g).float(),
              "sound": lambda: torch.randn(n, 2, 5, generator=g), "odd": lambda: torch.randn(n, 5, generator=g),
              "label": lambda: torch.randint(0, 4, (n,), generator=g), "word": lambda: torch.randint(0, 3, (n, 5), generator=g)}
    return {m: makers[m]() for m in WORLDS[world]()}


def exports(model, x, more):
    """The means given x {modality: (B, ...)}, exported with a free batch, are those of `more` too, of another batch."""
    names = list(x)

    class Means(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, *values):
            q = self.model.posterior(dict(zip(names, values)))
            return self.model.means({block: g.mu for block, g in q.items()})

    x, more, batch = tuple(x.values()), tuple(more[m] for m in names), torch.export.Dim("B", min=2)
    exported = torch.export.export(Means(), x, dynamic_shapes={"values": tuple({0: batch} for _ in x)}).module()
    for found, expected in zip(exported(*more).values(), Means()(*more).values()):
        torch.testing.assert_close(found, expected)


def rows(world, gaps=False, n=N):
    """`Rows` of a world, with two factors; gaps: every modality but the first lacks in some rows."""
    x, g = data(world, n), torch.Generator().manual_seed(1)
    present = {m: torch.arange(n) % (k + 2) > 0 for k, m in enumerate(list(x)[1:])} if gaps else {}
    factors = {"kind": torch.arange(n) % 3, "angle": torch.rand(n, generator=g)}
    return Rows(x, present, factors)


def fit_exactly(model, x, parameters=None, iterations=400):
    """Maximise the sum of the model's ELBOs, over z exactly; returns that sum, nats a row."""
    optimiser = torch.optim.LBFGS(list(parameters or model.parameters()), max_iter=iterations, history_size=50,
                                  tolerance_grad=1e-9, tolerance_change=1e-13, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        total = -sum(elbo.mean() for elbo in oracle.exact_elbos(model, x).values())
        total.backward()
        return total

    optimiser.step(loss)
    return -loss().item()
