"""python -m mmvae.faces PATH: render the experiment's data file."""
import argparse

from .file import write
from .renderer import SEED


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(prog="python -m mmvae.faces", description="Render the heads.")
    parser.add_argument("path", help="the HDF5 file to write")
    for name, default in (("identities", 50), ("test-identities", 10), ("size", 64), ("seed", SEED)):
        parser.add_argument("--" + name, type=int, default=default)
    parser.add_argument("--jobs", type=int, help="processes that render; default: one a core, for eight heads or more each")
    parser.add_argument("--device", default="cpu", help='what renders; "cuda" takes one process')
    write(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
