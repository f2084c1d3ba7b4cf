"""What a reader sees, of any modalities: pictures (labels, picture, tiles), charts, the book's figures (plot, compare),
diagrams of models (drawing, diagram), and what moves (widgets, explorables, pools, spare, trials).
"""
from importlib import import_module

_MODULES = ("charts", "compare", "diagram", "drawing", "explorables", "labels", "page", "picture", "plot", "pools", "spare",
            "tiles", "trials", "views", "widgets")


def __getattr__(name: str):
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module 'mmvae.show' has no attribute '{name}'")
