"""What is read of an HDF5 file that somebody else may have written: attributes and arrays of numbers, held against what they
should be before they are read. Links into other files, filters that load code and sizes that only the header has are refused.
"""
import math
import zlib

import h5py
import numpy as np

from .. import strict

CHUNK, RATIO = 2 ** 26, 1032  # bytes of a chunk; how many times shorter zlib makes anything at most
FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}  # no plug-in is loaded


def attribute(f: h5py.File, key: str, form):
    """An attribute of a file, one number or one text, of this form of `mmvae.strict`; else ValueError."""
    of = f.attrs.get_id(key)
    if of.shape != () or of.dtype.kind not in "iufO" or of.dtype.kind == "O" and h5py.check_string_dtype(of.dtype) is None:
        raise ValueError(f"{key}: found {of.dtype} of shape {of.shape}, expected {strict.words(form)}")
    return strict.check(np.asarray(f.attrs[key]).item(), form, key)


def numbers(f: h5py.File, key: str, limit: int, size: int) -> np.ndarray:
    """A data set of a file of `size` bytes, if it is numbers, in this file, all there, and of no more than `limit` bytes, and
    its chunks unpack to these and to no more; else ValueError, before anything large is read."""
    link = f.get(key, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise ValueError(f"{key}: found {type(link).__name__}, expected a data set in this file")
    data = f[key]
    if not isinstance(data, h5py.Dataset):
        raise ValueError(f"{key}: found {type(data).__name__}, expected a data set")
    if data.external or data.is_virtual:
        raise ValueError(f"{key}: found a data set whose values lie in other files, expected them in this one")
    if not data.shape or data.dtype.kind not in "iuf" or data.dtype.itemsize > 8 or not data.size:
        raise ValueError(f"{key}: found {data.dtype} of shape {data.shape}, expected numbers")
    plan = data.id.get_create_plist()
    filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]  # in the order in which they were applied
    if set(filters) - FILTERS or len(set(filters)) < len(filters):
        raise ValueError(f"{key}: found filters {filters}, expected none but {sorted(FILTERS)}, each once")
    chunk = math.prod(data.chunks or ()) * data.dtype.itemsize
    if data.nbytes > limit or chunk > CHUNK:
        raise ValueError(f"{key}: found shape {data.shape} in chunks of {data.chunks}, expected at most {limit:,} "
                         f"bytes in chunks of {CHUNK:,}")
    pieces = math.prod(-(-n // c) for n, c in zip(data.shape, data.chunks)) if data.chunks else 0
    there = min(data.id.get_storage_size(), size) * (RATIO if filters else 1)
    if data.nbytes > there or pieces and data.id.get_num_chunks() != pieces:
        raise ValueError(f"{key}: found shape {data.shape}, more than the file holds; it is truncated or damaged")
    if h5py.h5z.FILTER_DEFLATE in filters:
        _inflates(data, key, chunk, size, filters.index(h5py.h5z.FILTER_DEFLATE))
    return np.ascontiguousarray(data[()], data.dtype.newbyteorder("="))


def _inflates(data: h5py.Dataset, key: str, chunk: int, size: int, place: int):
    """Raises ValueError for a chunk that unpacks to more bytes than it says: HDF5 unpacks to the end, however far that is.
    place: of the packing among the filters; size: bytes of the file."""
    for piece in data.iter_chunks():
        at = tuple(of.start for of in piece)
        stored = data.id.get_chunk_info_by_coord(at)
        if stored.size > size:
            raise ValueError(f"{key}: found a chunk of {stored.size:,} bytes in a file of {size:,}")
        if stored.filter_mask >> place & 1:  # as it is
            continue
        try:
            found = len(zlib.decompressobj().decompress(data.id.read_direct_chunk(at)[1], chunk + 5))
        except zlib.error as e:
            raise ValueError(f"{key}: found a damaged chunk at {at} ({e})") from e
        if found > chunk + 4:  # a sum of four bytes may be packed with it
            raise ValueError(f"{key}: found a chunk at {at} that unpacks to more than the {chunk:,} bytes that it says")
