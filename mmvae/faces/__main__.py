"""python -m mmvae.faces PATH: render the experiment's data file."""
from .. import strict
from .file import write
from .renderer import LIMITS, SEED


def main(argv: list[str] | None = None):
    parser = strict.Parser(prog="python -m mmvae.faces", description="Render the heads.")
    parser.add_argument("path", type=strict.out, help="the HDF5 file to write")
    for name, default in (("identities", 50), ("test_identities", 10), ("size", 64), ("seed", SEED), ("jobs", None)):
        help = "processes that render; default: one a core, for eight heads or more each" if name == "jobs" else None
        parser.add_argument("--" + name.replace("_", "-"), type=strict.whole(*LIMITS[name]), default=default, help=help)
    parser.add_argument("--device", type=strict.device, default="cpu", help='what renders; "cuda" takes one process')
    args = parser.parse_args(argv)
    try:
        write(**vars(args))
    except ValueError as e:
        parser.error(str(e))
    except OSError as e:  # a full disk, say
        parser.exit(1, f"{args.path}: could not be written ({strict.brief(e, plain=True)})\n")


if __name__ == "__main__":
    main()
