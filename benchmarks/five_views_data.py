"""Five views of a digit: PolyMNIST's recipe (Sutter et al. 2021) from scikit-learn's digits, and PolyMNIST's own folders.

    python benchmarks/five_views_data.py FILE.png      (a sheet of training rows, a column each)

A digit of 8x8 grey levels is enlarged to 28x28 and moved a little, and its colours are those of a texture, inverted. Each
view has a texture of its own, with a slant, a place, a scale and colours of its own in every picture, and another example of
the digit. Examples are split before they are paired, the same in every view: what tests was in no view of a training row.
"""
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from mmvae.data import Rows
from mmvae.experiment.digits import TEST_IMAGES

VIEWS = "m0", "m1", "m2", "m3", "m4"
SIZE = 28  # pixels a side
ROWS = {"train": 6000, "test": 1000}
COLOURS = {  # of each view's texture: from, to; none is near middle grey, or the inverted digit could not be read
    "m0": ((0.06, 0.04, 0.28), (0.16, 0.30, 0.42)), "m1": ((0.98, 0.88, 0.62), (0.72, 0.68, 0.90)),
    "m2": ((0.02, 0.16, 0.08), (0.30, 0.38, 0.12)), "m3": ((1.00, 0.74, 0.62), (0.76, 0.96, 0.92)),
    "m4": ((0.34, 0.04, 0.06), (0.12, 0.02, 0.26))}
JITTER = 0.06  # standard deviation of a texture's colours from picture to picture


def textures(view: str, n: int, rng: np.random.Generator) -> np.ndarray:
    """n patches of a view's texture, (n, 3, 28, 28) in [0, 1]: stripes, checks, clouds, cells or rings in two colours."""
    u, v = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    one = (n, 1, 1)
    slant, shift = rng.uniform(0, np.pi, one), rng.uniform(0, 2 * np.pi, (2, *one))
    a, b = u * np.cos(slant) + v * np.sin(slant), v * np.cos(slant) - u * np.sin(slant)
    rate = 2 * np.pi / rng.uniform(6, 9, one)  # a period of 6 to 9 pixels
    if view == "m0":
        t = 0.5 + 0.5 * np.sin(rate * a + shift[0])
    elif view == "m1":
        t = 0.5 + 0.5 * np.tanh(4 * np.sin(0.6 * rate * a + shift[0]) * np.sin(0.6 * rate * b + shift[1]))
    elif view == "m2":
        coarse = (torch.from_numpy(rng.standard_normal((n, 1, k, k))) for k in (4, 9))
        smooth = [F.interpolate(c, size=SIZE, mode="bicubic", align_corners=True)[:, 0].numpy() for c in coarse]
        t = 1 / (1 + np.exp(-1.5 * smooth[0] - 0.8 * smooth[1]))
    elif view == "m3":
        seeds = rng.uniform(-2, SIZE + 2, (14, 2, *one))
        t = np.clip(np.min([np.hypot(u - x, v - y) for x, y in seeds], axis=0) / 6, 0, 1)
    else:
        centre = rng.uniform(-4, SIZE + 4, (2, *one))
        t = 0.5 + 0.5 * np.sin(1.2 * rate * np.hypot(u - centre[0], v - centre[1]) + shift[0])
    low, high = (np.reshape(c, (1, 3, 1, 1)) + JITTER * rng.standard_normal((n, 3, 1, 1)) for c in COLOURS[view])
    return np.clip(low + t[:, None] * (high - low), 0, 1)


def written(digits: np.ndarray, background: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Digits (n, 8, 8) in [0, 1], enlarged and moved by up to 2 pixels, in the inverted colours of (n, 3, 28, 28): uint8."""
    large = F.interpolate(torch.from_numpy(digits)[:, None], size=24, mode="bicubic", align_corners=False)[:, 0].numpy()
    ink = np.zeros((len(digits), SIZE, SIZE))
    for k, (down, across) in enumerate(rng.integers(0, SIZE - 24 + 1, (len(digits), 2))):
        ink[k, down:down + 24, across:across + 24] = large[k]
    ink = 1 / (1 + np.exp(-12 * (ink - 0.45)))[:, None]  # as sharp as a digit of 28 pixels is
    return np.round(255 * (background + ink * (1 - 2 * background))).astype(np.uint8)


def examples(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Which of scikit-learn's digits are of a split, int64 (N,), and what they are, (N,): the last, by other hands, test."""
    from sklearn.datasets import load_digits
    digit = load_digits().target
    every = np.arange(len(digit))
    chosen = every[-TEST_IMAGES:] if split == "test" else every[:-TEST_IMAGES]
    return chosen, digit[chosen]


def pairing(split: str, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows of examples of one digit, another in each view: their numbers (n, 5), and the digits (n,), as many of each."""
    chosen, digit = examples(split)
    labels = rng.permutation(np.arange(n) % 10)
    rows = np.stack([rng.choice(chosen[digit == d], len(VIEWS), replace=False) for d in labels])
    return rows, labels


def made(split: str, n: int | None = None, seed: int = 0) -> Rows:
    """n rows of five views (default: `ROWS`), bytes (n, 3, 28, 28), with the factor "digit". Raises ValueError for a split
    other than "train" and "test"."""
    from sklearn.datasets import load_digits
    if split not in ROWS:
        raise ValueError(f'split: found {split!r}, expected "train" or "test"')
    rng, images = np.random.default_rng([seed, split == "test"]), load_digits().images / 16
    rows, digit = pairing(split, ROWS[split] if n is None else n, rng)
    x = {m: written(images[rows[:, k]], textures(m, len(rows), rng), rng) for k, m in enumerate(VIEWS)}
    return Rows({m: torch.from_numpy(v) for m, v in x.items()}, factors={"digit": torch.from_numpy(digit)}, images=VIEWS)


def split_folder(folder: Path, split: str) -> Path:
    """The folder with m0 ... m4 of a split: `folder`/train, or in the MMNIST or PolyMNIST of the published archive."""
    inside = [folder, *(folder / name for name in ("MMNIST", "PolyMNIST", "PolyMNIST/MMNIST"))]
    found = [place / split for place in inside if (place / split).is_dir()]
    if not found:
        raise ValueError(f"--polymnist: found no folder {split} in {folder}, expected train and test, with m0 to m4 in each")
    return found[0]


def polymnist(folder: str | Path, split: str) -> Rows:
    """PolyMNIST, as the archive of Sutter et al. (2021) has it: SPLIT/m0/INDEX.LABEL.png ... SPLIT/m4/INDEX.LABEL.png, where
    one name is one row. Raises ValueError, in a sentence, for a folder that lacks a view or a row of one, for a file of
    another name, and for a picture of another size."""
    import matplotlib.image
    place = split_folder(Path(folder), split)
    names = {m: {path.name for path in (place / m).glob("*.png")} for m in VIEWS}
    every = sorted(set().union(*names.values()))
    if not every:
        raise ValueError(f"--polymnist: found no INDEX.LABEL.png in {place / VIEWS[0]}, expected the pictures of PolyMNIST")
    for m in VIEWS:
        if lacking := sorted(set(every) - names[m]):
            raise ValueError(f"--polymnist: found {len(names[m])} pictures in {place / m}, expected {len(every)}, among them "
                             f"{lacking[0]}, which another view has")
    parts = [name.split(".") for name in every]
    if wrong := [n for n, p in zip(every, parts) if len(p) != 3 or not p[0].isdigit() or p[1] not in set("0123456789")]:
        raise ValueError(f"--polymnist: found {wrong[0]} in {place / VIEWS[0]}, expected INDEX.LABEL.png, such as 12.3.png")
    x = {m: torch.empty(len(every), 3, SIZE, SIZE, dtype=torch.uint8) for m in VIEWS}
    for m in VIEWS:
        for k, name in enumerate(every):
            picture = matplotlib.image.imread(place / m / name)  # (H, W, 3 or 4) in [0, 1]
            if picture.shape[:2] != (SIZE, SIZE) or picture.ndim != 3:
                raise ValueError(f"--polymnist: found {place / m / name} of shape {picture.shape}, expected (28, 28, 3)")
            x[m][k] = torch.from_numpy(np.round(255 * picture[..., :3]).astype(np.uint8)).permute(2, 0, 1)
    return Rows(x, factors={"digit": torch.tensor([int(p[1]) for p in parts])}, images=VIEWS)


def sheet(rows: Rows, path: str | Path, columns: int = 12):
    """A picture of the first rows, a column each and a view below another, magnified three times."""
    import matplotlib.image
    grid = torch.cat([torch.cat(list(rows.x[m][:columns]), 2) for m in VIEWS], 1)  # (3, 5 * 28, columns * 28)
    grid = grid.repeat_interleave(3, 1).repeat_interleave(3, 2).permute(1, 2, 0)
    matplotlib.image.imsave(path, np.ascontiguousarray(grid.numpy()))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("python benchmarks/five_views_data.py FILE.png: found no file, expected the name of the sheet to write")
    sheet(made("train", 24), sys.argv[1])
