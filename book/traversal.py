"""Draw the traversal of the README and the welcome page, by the published MMPOE-VAE v2: book/_static/traversal.*"""
from pathlib import Path

import mmvae
from mmvae.show import plot

STATIC = Path(__file__).resolve().parent / "_static"


def main():
    profile = mmvae.profile("cpu")
    film = plot.traversal_gif(profile.train("poe-v2"), profile.pairs().fixed(3)[0])
    for suffix in ("gif", "webp"):  # for the README, and for the welcome page with its two themes
        film.save(STATIC / f"traversal.{suffix}")
    print("wrote book/_static/traversal.gif and .webp")


if __name__ == "__main__":
    main()
