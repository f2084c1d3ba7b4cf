"""mmvae: variational autoencoders of several modalities; the package under a book about them.

The core is read in an hour, top to bottom, each file importing only from those above it: gaussian, likelihoods, nets, models,
data, train. Beside it stand observed (what is refused, what is missing), together (networks of several modalities), terms
(what may be added to a loss), items and lazy (Datasets), files, strict, checkpoint, behaviour, distributed (what a run
leaves, and how several processes share one) and stacked (many seeds as one run, on a GPU). Four rooms stand on it, each
importing from the core and from those before it: faces (the experiment's heads), evaluate (how a model is judged), show
(what a reader sees), experiment (the book's models, profiles, published weights, results). A name in brackets,
[eq-poe-gaussian], is an equation of the book: book/equations.md has its function and its test.
"""
from importlib import import_module

from .gaussian import Gaussian, Mixture, mixture_of_experts, mixture_of_products, prior, product_of_experts
from .models import MultiModalVAE, MuMoVAE, PoEVAE, VanillaVAE
from .nets import Modality, categories, images, vectors
from .pooling import consensus_of_experts, hoelder_pool, moment_match

__version__ = "0.2.0"
__all__ = ["Gaussian", "MODELS", "Mixture", "Modality", "MuMoVAE", "MultiModalVAE", "PoEVAE", "VanillaVAE", "categories",
           "consensus_of_experts", "fit", "hoelder_pool", "images", "load", "mixture_of_experts", "mixture_of_products",
           "moment_match", "prior", "product_of_experts", "profile", "vectors"]

_ELSEWHERE = {"fit": "train", "MODELS": "experiment.table", "load": "experiment.weights", "profile": "experiment.profiles"}
_MODULES = ("behaviour", "checkpoint", "correlated", "data", "distributed", "evaluate", "experiment", "faces", "files",
            "frontier", "items", "lazy", "later", "likelihoods", "models", "nets", "observed", "pooling", "show", "stacked",
            "strict", "terms", "together", "train")


def __getattr__(name: str):
    """What is not needed to build a model loads when first used: `import mmvae` alone needs neither HDF5 nor plots."""
    if name in _ELSEWHERE:
        return getattr(import_module(f".{_ELSEWHERE[name]}", __name__), name)
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module 'mmvae' has no attribute '{name}'")
