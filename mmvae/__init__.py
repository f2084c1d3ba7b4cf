"""mmvae: the small module under the book on multi-modal variational autoencoders. Read it in an hour.

Top to bottom, each file importing only from those above it: gaussian, nets, models (the VAEs); heads, faces, data
(the experiment); checkpoint, distributed, train, weights; likelihood, probes, synthesis, evaluate (how a model is judged);
oracle (a model whose answers are known); picture, charts, plot, diagram, compare, widgets, explorables (what a reader
sees); profiles, results.
A name in brackets, [eq-poe-gaussian], is an equation of the book: book/equations.md has its function and its test.
"""
from importlib import import_module

from .gaussian import Gaussian, prior, product_of_experts
from .models import MODELS, MuMoVAE, PoEVAE, VanillaVAE

__version__ = "0.1.0"
__all__ = ["Gaussian", "prior", "product_of_experts", "MODELS", "MuMoVAE", "PoEVAE", "VanillaVAE", "load", "profile"]

_LATER = ("heads", "faces", "data", "checkpoint", "distributed", "train", "weights", "likelihood", "probes", "synthesis",
          "evaluate", "oracle", "picture", "charts", "plot", "diagram", "compare", "widgets", "explorables", "profiles",
          "results")


def __getattr__(name: str):
    """Submodules load when first used: `import mmvae` alone needs neither HDF5 nor a plotting library."""
    if name == "profile":
        return import_module(".profiles", __name__).profile
    if name == "load":
        return import_module(".weights", __name__).load
    if name in _LATER:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module 'mmvae' has no attribute '{name}'")
