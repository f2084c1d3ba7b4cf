"""The renders of the Basel Face Model that the experiment was first run on, for those who hold them."""
import pickle
from pathlib import Path

import torch
from torch import Tensor

from .file import FACTORS, Grid, existing


def read_basel(path: str | Path, neutral_elevation: int = 5, neutral_light: int = 5, degrees: dict | None = None,
               test_identities: int = 10) -> Grid:
    """Read `basel_face_renders.pth`: uint8 (50, 21, 11, 11, H, W) = identity, azimuth, elevation, light.

    The file states no degrees, so the factors' values are their indices, unless `degrees` gives them, e.g.
    {"azimuth": [...]*21, "elevation": [...]*11, "light": [...]*11}. Raises FileNotFoundError, or ValueError for a
    file that is not a tensor (nothing in it is unpickled beyond tensors), for a wrong shape or dtype.
    """
    path = existing(path)
    try:
        images = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as e:
        try:  # files from before torch 1.6 are not zip archives and cannot be mapped
            images = torch.load(path, weights_only=True, map_location="cpu")
        except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError):
            raise ValueError(f"{path}: not a file of torch.save that holds one tensor ({e})") from e
    if not isinstance(images, Tensor):
        raise ValueError(f"{path}: found {type(images).__name__}, expected one uint8 tensor")
    if images.dim() != 6 or images.shape[1:4] != (21, 11, 11) or images.shape[4] != images.shape[5]:
        raise ValueError(f"{path}: found shape {tuple(images.shape)}, expected (50, 21, 11, 11, 64, 64)")
    values = {}
    for axis, (name, n) in enumerate(zip(FACTORS[1:], images.shape[1:4]), 1):
        values[name] = torch.as_tensor((degrees or {}).get(name, range(n)), dtype=torch.float32)
        if len(values[name]) != n:
            raise ValueError(f'degrees["{name}"]: found {len(values[name])} values, expected {n}, as axis {axis} has')
    try:
        return Grid(images[:, :, :, neutral_light], images[:, :, neutral_elevation], identity=torch.arange(len(images)),
                    **values, test_identities=test_identities, unit="degrees" if degrees else "index")
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from e
