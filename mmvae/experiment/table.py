"""The book's models by their names: two pictures of one head, "I" and "T"."""
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch import Tensor
from torch.distributions import ContinuousBernoulli

from .. import frontier, later
from ..correlated import FullPoEVAE
from ..likelihoods import Bernoulli, Normal, Own
from ..models import MultiModalVAE, MuMoVAE, PoEVAE, VanillaVAE
from ..nets import ImageDecoder, images

NAMES = "I", "T"
SUBSETS = ("I",), ("T",), ("I", "T")
LIKELIHOODS = {"bernoulli": Bernoulli, "normal": Normal, "continuous": Own}  # of grey levels: chapter 8 compares them


class Continuous(ImageDecoder):
    """z (B, latent) -> the continuous Bernoulli of a picture: Loaiza-Ganem & Cunningham (2019)."""

    def forward(self, z: Tensor) -> ContinuousBernoulli:
        return ContinuousBernoulli(logits=super().forward(z), validate_args=False)


def pair(model: type[MultiModalVAE], private: int = 2, size: int = 64, likelihood: str = "bernoulli",
         **options) -> MultiModalVAE:
    """A model of two grey pictures of `size` pixels a side. private: dimensions of each private block. likelihood: of
    grey levels, a key of `LIKELIHOODS`. options: further arguments of the model, such as shared=3. Raises TypeError for
    options that it does not have, ValueError for an unknown likelihood."""
    if likelihood not in LIKELIHOODS:
        raise ValueError(f'likelihood: found "{likelihood}", expected one of {", ".join(LIKELIHOODS)}')
    picture = images(size, private=private, likelihood=LIKELIHOODS[likelihood]())
    if likelihood == "continuous":
        picture = replace(picture, decoder=partial(Continuous, size=size))
    return model(dict.fromkeys(NAMES, picture), **options)


MODELS: dict[str, Callable[..., MultiModalVAE]] = {  # the rows of the book's table: name -> model(size=64, **options)
    "vanilla": partial(pair, VanillaVAE, private=0),
    "mumo": partial(pair, MuMoVAE),
    "poe-v1": partial(pair, PoEVAE, subsets=[NAMES]),
    "poe-v2": partial(pair, PoEVAE),
    "wg-v1": partial(pair, PoEVAE, private=0, shared=10, subsets=[NAMES]),
    "wg-v2": partial(pair, PoEVAE, private=0, shared=10),
    "mmvae": partial(pair, later.MMVAE, private=0, shared=10),
    "mopoe": partial(pair, later.MoPoE, private=0, shared=10),
    "dmvae": partial(pair, later.DMVAE),
    "mmvae+": partial(pair, later.MMVAEPlus),
    "mvtcae": partial(pair, later.MVTCAE, private=0, shared=10),
    "jmvae": partial(pair, later.JMVAE, private=0, shared=10),
    "wg-v2-full": partial(pair, FullPoEVAE, private=0, shared=10),
    "mmvm": partial(pair, frontier.MMVMVAE, private=0, shared=10, prior=True),  # else there is nothing to draw from
    "code": partial(pair, frontier.CoDEVAE),
    "helvae": partial(pair, frontier.HELVAE, private=0, shared=10),
    "hoelder": partial(pair, frontier.HoelderVAE),
    "idmvae": partial(pair, frontier.IDMVAE),
}
FIRST = "vanilla", "mumo", "poe-v1", "poe-v2", "wg-v1", "wg-v2"  # the experiment's own: all of chapters 1 to 11

TITLES = {"vanilla": "Vanilla VAE", "mumo": "MuMo-VAE", "poe-v1": "MMPOE-VAE v1", "poe-v2": "MMPOE-VAE v2",
          "wg-v1": "WG-VAE v1", "wg-v2": "WG-VAE v2", "mmvae": "MMVAE", "mopoe": "MoPoE-VAE", "dmvae": "DMVAE",
          "mmvae+": "MMVAE+", "mvtcae": "MVTCAE", "jmvae": "JMVAE-kl",
          "wg-v2-full": "WG-VAE v2, full covariance", "mmvm": "MMVM-VAE", "code": "CoDE-VAE", "helvae": "HELVAE",
          "hoelder": "Hölder-VAE", "idmvae": "IDMVAE"}
SHORT = {model: title.replace("-VAE", "").replace(" VAE", "") for model, title in TITLES.items()}


def __getattr__(name: str):
    """COLOURS: {block: colour} of the book, and grey for what is observed; it needs the room that draws."""
    if name == "COLOURS":
        from ..show.picture import colours
        return colours(("I", "S", "T", "Z", "x"))
    raise AttributeError(f"module 'mmvae.experiment.table' has no attribute '{name}'")
