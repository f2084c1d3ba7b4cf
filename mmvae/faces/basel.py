"""The renders of the Basel Face Model that the experiment was first run on, for those who hold them."""
import pickle
import pickletools
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import strict
from .file import FACTORS, Grid, existing

PICKLE = 2 ** 16  # bytes of the pickle that says what a tensor is: a few hundred in truth
OLD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # what torch.save began with before its files were zip archives
LENGTHS = dict(zip(FACTORS[1:], (21, 11, 11)))


def read_basel(path: str | Path, neutral_elevation: int = 5, neutral_light: int = 5, degrees: dict | None = None,
               test_identities: int = 10) -> Grid:
    """Read `basel_face_renders.pth`: uint8 (50, 21, 11, 11, H, W) = identity, azimuth, elevation, light.

    The file states no degrees, so the factors' values are their indices, unless `degrees` gives them, e.g.
    {"azimuth": [...]*21, "elevation": [...]*11, "light": [...]*11}. Raises FileNotFoundError, or ValueError for a
    file that is not a tensor (nothing in it is unpickled beyond tensors), is damaged or says that it holds more than it
    does, for a wrong shape or dtype, a neutral index or degrees that are none.
    """
    path = existing(path)
    for name, value in (("neutral_elevation", neutral_elevation), ("neutral_light", neutral_light)):
        strict.check(value, range(LENGTHS[name.removeprefix("neutral_")]), name)
    values = _values(degrees)
    try:
        with open(path, "rb") as f:
            zipped = _plausible(f, path.stat().st_size)
        images = torch.load(path, weights_only=True, map_location="cpu", mmap=zipped)  # what is no zip cannot be mapped
    except Exception as e:  # of a damaged file torch and zipfile raise errors of any kind
        raise ValueError(f"{path}: not a file of torch.save that holds one tensor ({strict.brief(e, plain=True)})") from e
    if type(images) is not Tensor:
        raise ValueError(f"{path}: found {type(images).__name__}, expected one uint8 tensor")
    if images.dim() != 6 or images.shape[1:4] != (21, 11, 11) or images.shape[4] != images.shape[5] or not images.numel():
        raise ValueError(f"{path}: found shape {tuple(images.shape)}, expected (50, 21, 11, 11, 64, 64)")
    if images.dtype != torch.uint8:
        raise ValueError(f"{path}: found {images.dtype}, expected uint8")
    there = images.layout == torch.strided and images.device.type == "cpu" and images.is_contiguous()
    if not there or images.numel() > path.stat().st_size:
        raise ValueError(f"{path}: found {images.numel():,} pixels ({images.layout}, {images.device}) in "
                         f"{path.stat().st_size:,} bytes, expected each of them there")
    try:
        return Grid(images[:, :, :, neutral_light], images[:, :, neutral_elevation], identity=torch.arange(len(images)),
                    **values, test_identities=test_identities, unit="degrees" if degrees else "index")
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from e


def _values(degrees: dict | None) -> dict[str, Tensor]:
    """The factors' values: float32 (n,), indices where no degrees are given."""
    if not isinstance(degrees, dict | None) or set(degrees or {}) - set(LENGTHS):
        raise ValueError(f"degrees: found {strict.brief(degrees)}, expected a dictionary with some of {', '.join(LENGTHS)}")
    found = {}
    for name, n in LENGTHS.items():
        try:
            values = np.asarray((degrees or {}).get(name, range(n)))
            numbers = values.astype(np.float32) if values.dtype.kind in "iuf" else values
        except (ValueError, TypeError, OverflowError, RuntimeError):
            numbers = np.empty(0, object)
        if numbers.shape != (n,) or numbers.dtype != np.float32 or not np.isfinite(numbers).all():
            raise ValueError(f'degrees["{name}"]: found {strict.brief(degrees[name])}, expected {n} finite numbers')
        found[name] = torch.from_numpy(numbers)
    return found


def _plausible(f, size: int) -> bool:
    """Whether this is a zip archive, as torch.save writes. Raises an error for what is neither that nor its old format, is
    damaged, or says that it holds more than it does: before torch allocates what it says."""
    if f.read(len(OLD)) == OLD:
        for _ in range(2):  # the version of the format, and how large numbers are
            pickle_end(f, size)
        pickle_end(f, size)
        return False
    with zipfile.ZipFile(f) as archive:
        names = archive.infolist()
        if any(of.compress_type != zipfile.ZIP_STORED or of.file_size > size for of in names) or archive.testzip():
            raise ValueError("a damaged or compressed archive")
        [pickled] = [of for of in names if of.filename.endswith("/data.pkl")]
        with archive.open(pickled) as of:
            pickle_end(of, size)
    return True


def pickle_end(f, size: int):
    """Read a pickle, without doing what it says, to its end: it must be short, and no number in it larger than the file."""
    start = f.tell()
    for code, value, at in pickletools.genops(f):
        if at - start > PICKLE or isinstance(value, int) and value > size or isinstance(value, str) and len(value) > PICKLE:
            raise ValueError(f"found {strict.brief(value)} in its pickle, more than its {size:,} bytes can hold")
