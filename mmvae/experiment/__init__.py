"""What only the book's experiment needs: its models by name, profiles, published weights, the grid and its results."""
from importlib import import_module

_NAMES = {"MODELS": "table", "FIRST": "table", "TITLES": "table", "SHORT": "table", "COLOURS": "table", "NAMES": "table",
          "SUBSETS": "table", "Recipe": "recipe", "profile": "profiles"}
_MODULES = ("annealed", "dials", "digits", "explorables", "field", "figures", "grid", "measure", "pictograms", "prints",
            "profiles", "publish", "recipe", "results", "roles", "spoken", "stacks", "studies", "table", "weights")


def __getattr__(name: str):
    """Each loads when first used: `mmvae.MODELS` needs no plots, and a reader who loads weights no grid."""
    if name in _NAMES:
        return getattr(import_module(f".{_NAMES[name]}", __name__), name)
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module 'mmvae.experiment' has no attribute '{name}'")
