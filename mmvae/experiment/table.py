"""The book's models by their names: two pictures of one head, "I" and "T"."""
from collections.abc import Callable
from functools import partial

from ..models import MultiModalVAE, MuMoVAE, PoEVAE, VanillaVAE
from ..nets import images

NAMES = "I", "T"
SUBSETS = ("I",), ("T",), ("I", "T")


def pair(model: type[MultiModalVAE], private: int = 2, size: int = 64, **options) -> MultiModalVAE:
    """A model of two grey pictures of `size` pixels a side. private: dimensions of each private block. options: further
    arguments of the model, such as shared=3. Raises TypeError for options that it does not have."""
    return model({m: images(size, private=private) for m in NAMES}, **options)


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
