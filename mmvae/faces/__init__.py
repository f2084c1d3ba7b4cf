"""The experiment's data: heads in any pose under any lamp, the grid of them in a file, and pairs of pictures.

    image = mmvae.faces.render(3, azimuth=20, elevation=-10, light=40)     python -m mmvae.faces faces.h5
    pairs = mmvae.faces.Pairs("faces.h5", split="train")

shape, cloud and renderer make pictures, file and basel read grids of them, pairs draws batches, judge reads factors off
pictures that a model has made.
"""
from . import judge
from .basel import read_basel
from .file import AXES, FACTORS, HOME, Grid, read_faces, write
from .pairs import Pairs
from .renderer import (AZIMUTHS, ELEVATIONS, GENERATOR_VERSION, LIGHTS, SEED, TEST_FROM, clouds, coefficients, grid, render,
                       view)

__all__ = ["AXES", "AZIMUTHS", "ELEVATIONS", "FACTORS", "GENERATOR_VERSION", "Grid", "HOME", "LIGHTS", "Pairs", "SEED",
           "TEST_FROM", "clouds", "coefficients", "grid", "judge", "read_basel", "read_faces", "render", "view", "write"]
