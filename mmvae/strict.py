"""What comes from outside is of a stated form, or refused in one sentence: files, JSON, safetensors, command lines.

A form is a type (`int` and `float` are no booleans, `float` is also a whole number, `complex` any number, of those that JSON
has, also NaN and infinite ones), `range(low, end)`, whole numbers,
`number(low, high)`, `None`, `[form]`, a list of such, `{str: form}`, a dictionary with any keys, `{"a": form, "b?": form}`,
one with exactly these, of which "b" may be missing, or `(form, form)`, any of these.
"""
import argparse
import json
import math
import os
import stat
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

MIB, DEPTH, DIGITS = 2 ** 20, 32, 19  # how deep JSON may be nested, and of how many digits a whole number may be
HEADER = 16 * MIB  # of a safetensors file
DTYPES = "F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"  # the tensors that are read
KINDS = {stat.S_ISDIR: "a folder", stat.S_ISLNK: "a link", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket",
         stat.S_ISCHR: "a device", stat.S_ISBLK: "a device"}


# ---- files

def kind(mode: int) -> str:
    """What `os.stat` found, in words; "" for a regular file."""
    return next((word for test, word in KINDS.items() if test(mode)), "")


def regular(path: str | Path, limit: int | None = None) -> int:
    """The size of a regular file, or of what a link leads to, bytes. Raises FileNotFoundError, and ValueError for a folder, a
    pipe or a device, on which a reader would wait for ever, and for one of more than `limit` bytes."""
    try:
        found = os.stat(path)
    except ValueError as e:  # a name with a null byte
        raise FileNotFoundError(f"{path!r}: no such file ({e})") from e
    if what := kind(found.st_mode):
        raise ValueError(f"{path}: found {what}, expected a regular file")
    if limit is not None and found.st_size > limit:
        raise ValueError(f"{path}: found {found.st_size:,} bytes, expected at most {limit:,}")
    return found.st_size


def replaceable(path: str | Path):
    """Raises FileExistsError for what a file must not be put in the place of: a folder, a link, a pipe, a device; and
    FileNotFoundError if there is no folder to write it in."""
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: found no folder {path.parent}, expected one to write in")
    try:
        what = kind(os.lstat(path).st_mode)
    except FileNotFoundError:
        return
    if what:
        raise FileExistsError(f"{path}: found {what}, expected a regular file to replace, or none")


def read(path: str | Path, limit: int, begins=None) -> bytes:
    """The content of a regular file of at most `limit` bytes; raises as `regular`. begins(head, size) may refuse it by its
    first bytes, before the rest is read."""
    regular(path, limit)
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb") as f:
        found = os.fstat(f.fileno())
        if kind(found.st_mode) or found.st_size > limit:
            raise ValueError(f"{path}: was replaced while it was read")
        if begins:
            begins(f.read(8 + HEADER), found.st_size)
            f.seek(0)
        data = f.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{path}: found more than {limit:,} bytes, expected at most so many")
    return data


# ---- JSON

def loads(text: str | bytes, finite: bool = True):
    """JSON whose every key is there once, whose numbers are finite, unless that is not asked for, and whole ones of at most
    19 digits, nested at most 32 deep, in UTF-8; or ValueError."""
    try:
        value = json.loads(text.decode() if isinstance(text, bytes) else text, object_pairs_hook=_once, parse_int=_whole,
                           **dict.fromkeys(("parse_float", "parse_constant"), _finite if finite else float))
    except RecursionError:
        value = [None]
        level, depth = [], DEPTH + 1
    else:
        level, depth = [value], 0
    while level and depth <= DEPTH:
        level = [v for of in level if isinstance(of, dict | list) for v in (of.values() if isinstance(of, dict) else of)]
        depth += 1
    if depth > DEPTH:
        raise ValueError(f"found JSON nested more than {DEPTH} deep, expected less")
    return value


def _once(pairs: list) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [k for k, _ in pairs]
        raise ValueError(f"found {brief(next(k for k in names if names.count(k) > 1))} twice, expected each key once")
    return found


def _whole(digits: str) -> int:
    if len(digits.lstrip("-")) > DIGITS:
        raise ValueError(f"found a number of {len(digits)} digits, expected at most {DIGITS}")
    return int(digits)


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"found {brief(text, plain=True)}, expected a finite number")
    return value


def brief(value, plain: bool = False, width: int = 60) -> str:
    """A value in one short line."""
    text = " ".join((str(value) if plain else repr(value)).split())
    return text if len(text) <= width else f"{text[:width - 4]} ..."


def number(low: float = -math.inf, high: float = math.inf) -> slice:
    """The form of a finite number in these bounds."""
    return slice(low, high)


def check(value, form, name: str = ""):
    """The value, if it is of this form; else ValueError, which names what in it is not, what was found and expected."""
    where = f"{name}: " if name else ""
    if isinstance(form, tuple) and isinstance(value, dict):  # of two dictionaries the nearer one says what is wrong
        near = [of for of in form if isinstance(of, dict)]
        form = max(near, key=lambda of: sum(k in of or f"{k}?" in of for k in value)) if near else form
    if isinstance(form, dict) and isinstance(value, dict):
        if str in form:
            form = dict.fromkeys(value, form[str])
        names = {k.removesuffix("?"): k for k in form}
        missing, more = [k for k, of in names.items() if k == of and k not in value], [k for k in value if k not in names]
        wrong = [f"{', '.join(missing)} missing"] if missing else []
        wrong += [f"found {brief(more[0])}, expected none but {brief(', '.join(names), plain=True)}"] if more else []
        if wrong:
            raise ValueError(f"{where}{'; '.join(wrong)}")
        for k, v in value.items():
            check(v, form[names[k]], f"{name}.{k}" if name else k)
    elif isinstance(form, list) and isinstance(value, list):
        for i, v in enumerate(value):
            check(v, form[0], f"{name}[{i}]")
    elif not fits(value, form):
        raise ValueError(f"{where}found {brief(value)}, expected {words(form)}")
    return value


def fits(value, form) -> bool:
    """Whether the value is of this form."""
    if isinstance(form, tuple):
        return any(fits(value, of) for of in form)
    if isinstance(form, dict | list):
        try:
            return isinstance(value, type(form)) and check(value, form) is value
        except ValueError:
            return False
    if isinstance(form, range):
        return type(value) is int and value in form
    if form is complex:
        return type(value) in (int, float)
    if form is float or isinstance(form, slice):
        fine = type(value) in (int, float) and abs(value) < math.inf
        return fine and (form is float or form.start <= value <= form.stop)
    return value is None if form is None else type(value) is form


def words(form) -> str:
    """A form in words."""
    if isinstance(form, tuple):
        return " or ".join(map(words, form))
    if isinstance(form, range):
        return f"a whole number from {form.start} to {form.stop - 1}"
    if isinstance(form, slice):
        bounds = f"from {form.start:g} to {form.stop:g}" if form.stop < math.inf else f"of at least {form.start:g}"
        return f"a finite number {bounds}"
    if isinstance(form, dict | list):
        return "a dictionary" if isinstance(form, dict) else f"a list of {words(form[0])}"
    return {float: "a finite number", complex: "a number", int: "a whole number", str: "a text", bool: "true or false",
            dict: "a dictionary", list: "a list", None: "null"}[form]


# ---- safetensors

def begins(head: bytes, size: int) -> dict[str, str]:
    """The metadata of a safetensors file of so many bytes, by its first bytes; ValueError for what is none, for tensors of
    other kinds than `DTYPES`, and for a file that is not as long as its header says."""
    length = int.from_bytes(head[:8], "little")
    if size < 8 or length > min(HEADER, size - 8):
        raise ValueError(f"found {size:,} bytes that begin otherwise, expected a safetensors file")
    header = check(loads(head[8:8 + length]), {str: dict})
    meta, end = check(header.pop("__metadata__", {}), {str: str}, "__metadata__"), 0
    for name, of in header.items():
        of = check(of, {"dtype": str, "shape": [range(2 ** 40)], "data_offsets": [range(2 ** 40)]}, name)
        if of["dtype"] not in DTYPES:
            raise ValueError(f"{name}: found {brief(of['dtype'])}, expected one of {', '.join(DTYPES)}")
        end = max(end, *of["data_offsets"], 0)
    if 8 + length + end != size:
        raise ValueError(f"found {size:,} bytes, expected {8 + length + end:,}, as its header says")
    return meta


def tensors(data: bytes) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata and the tensors of a safetensors file; ValueError for what is none."""
    meta = begins(data[:8 + HEADER], len(data))
    try:
        return meta, load(data)
    except (SafetensorError, ValueError, TypeError, RuntimeError, KeyError) as e:
        raise ValueError(f"found a damaged safetensors file ({e})") from e


def same_kind(found: dict[str, Tensor], expected: dict[str, torch.dtype]):
    """Raises ValueError for a tensor of another dtype than expected, and for one with values that are not finite."""
    for name, values in found.items():
        if values.dtype != expected[name]:
            raise ValueError(f"{name}: found {values.dtype}, expected {expected[name]}")
        if not values.isfinite().all():
            raise ValueError(f"{name}: found NaN or infinite values, expected finite ones")


# ---- command lines

THREADS = 4 * max(16, os.cpu_count() or 1)  # how many a process may have


class Parser(argparse.ArgumentParser):
    """One line for what is wrong with an argument, and exit code 2."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")


def argument(form):
    """A `type` of `add_argument`: a number of this form, or JSON."""
    def kind(text: str):
        try:
            value = float(text) if isinstance(form, slice) else loads(text) if form is dict else int(text)
        except ValueError:
            value = text
        if not fits(value, form):
            raise argparse.ArgumentTypeError(f"found {brief(text, plain=True)}, expected {words(form)}")
        return value

    return kind


def whole(low: int, high: int):
    """A `type` of `add_argument`: a whole number from low to high."""
    return argument(range(low, high + 1))


def device(text: str) -> str:
    """A `type` of `add_argument`: a device that is there."""
    count = torch.cuda.device_count()
    names = ["cpu", *["cuda"][:count], *(f"cuda:{k}" for k in range(count))]
    if text not in names:
        raise argparse.ArgumentTypeError(f"found {brief(text, plain=True)}, expected one of those "
                                         f"that are here: {', '.join(names)}")
    return text


def out(text: str) -> Path:
    """A `type` of `add_argument`: a file that can be written, by its name; see `replaceable`."""
    try:
        replaceable(text)
    except (OSError, ValueError) as e:
        raise argparse.ArgumentTypeError(brief(e, plain=True, width=200)) from e
    return Path(text)


def out_folder(text: str) -> Path:
    """A `type` of `add_argument`: a folder that is there or can be made."""
    path = Path(text)
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as e:
        raise argparse.ArgumentTypeError(f"found {brief(text)}, expected a folder ({brief(e, plain=True)})") from e
    found = next(p for p in (path.absolute(), *path.absolute().parents) if os.path.lexists(p))
    if not found.is_dir():
        raise argparse.ArgumentTypeError(f"found {brief(text, plain=True)}, where {found} is no folder, expected one")
    return path
