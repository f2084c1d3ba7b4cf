"""The book's models by their names: two pictures of one head, "I" and "T"."""
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch import Tensor
from torch.distributions import ContinuousBernoulli

from ..likelihoods import Bernoulli, Normal, Own
from ..models import MultiModalVAE, MuMoVAE, PoEVAE, VanillaVAE
from ..nets import ImageDecoder, VectorDecoder, images

NAMES = "I", "T"
SUBSETS = ("I",), ("T",), ("I", "T")
LIKELIHOODS = {"bernoulli": Bernoulli, "normal": Normal, "continuous": Own}  # of grey levels: chapter 8 compares them


class Continuous(ImageDecoder):
    """z (B, latent) -> the continuous Bernoulli of a picture: Loaiza-Ganem & Cunningham (2019)."""

    def forward(self, z: Tensor) -> ContinuousBernoulli:
        return ContinuousBernoulli(logits=super().forward(z), validate_args=False)


class DenseSheet(VectorDecoder):
    """z (B, latent) -> the logits of both pictures, drawn by one dense decoder: a list."""

    def forward(self, z: Tensor) -> list[Tensor]:
        return list(super().forward(z).split(1, 1))


def pair(model: type[MultiModalVAE], private: int = 2, size: int = 64, dense: bool = False, likelihood: str = "bernoulli",
         **options) -> MultiModalVAE:
    """A model of two grey pictures of `size` pixels a side. private: dimensions of each private block. dense: decoders
    without convolutions, those of the book's first grid. likelihood: of grey levels, a key of `LIKELIHOODS`. options: further
    arguments of the model, such as shared=3. Raises TypeError for options that it does not have, ValueError for an unknown
    likelihood."""
    if likelihood not in LIKELIHOODS:
        raise ValueError(f'likelihood: found "{likelihood}", expected one of {", ".join(LIKELIHOODS)}')
    picture = images(size, private=private, likelihood=LIKELIHOODS[likelihood]())
    if likelihood == "continuous":
        picture = replace(picture, decoder=partial(Continuous, size=size))
    if dense:
        picture = replace(picture, decoder=partial(VectorDecoder, shape=picture.shape))
    made = model(dict.fromkeys(NAMES, picture), **options)
    if dense and model is VanillaVAE:
        made.decoders["+".join(NAMES)] = DenseSheet(made.blocks["Z"], (len(NAMES), size, size))
    return made


MODELS: dict[str, Callable[..., MultiModalVAE]] = {  # the rows of the book's table: name -> model(size=64, **options)
    "vanilla": partial(pair, VanillaVAE, private=0),
    "mumo": partial(pair, MuMoVAE),
    "poe-v1": partial(pair, PoEVAE, subsets=[NAMES]),
    "poe-v2": partial(pair, PoEVAE),
    "wg-v1": partial(pair, PoEVAE, private=0, shared=10, subsets=[NAMES]),
    "wg-v2": partial(pair, PoEVAE, private=0, shared=10),
}

TITLES = {"vanilla": "Vanilla VAE", "mumo": "MuMo-VAE", "poe-v1": "MMPOE-VAE v1", "poe-v2": "MMPOE-VAE v2",
          "wg-v1": "WG-VAE v1", "wg-v2": "WG-VAE v2"}
SHORT = {model: title.replace("-VAE", "").replace(" VAE", "") for model, title in TITLES.items()}


def __getattr__(name: str):
    """COLOURS: {block: colour} of the book, and grey for what is observed; it needs the room that draws."""
    if name == "COLOURS":
        from ..show.picture import colours
        return colours(("I", "S", "T", "Z", "x"))
    raise AttributeError(f"module 'mmvae.experiment.table' has no attribute '{name}'")
