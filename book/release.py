"""What a release needs: one version everywhere, its notes, and a model that answers where only the package is installed.

python book/release.py version [TAG]     exits 1 if TAG, CITATION.cff or CHANGELOG.md say another version than the package
python book/release.py tagged            exits 1 if what is checked out is not what the tag of this version names
python book/release.py notes             prints what CHANGELOG.md says of this version
python book/release.py smoke             with the Python of a bare environment: loads a model, shows it a head
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def version(root=ROOT):
    """The version, from the one place that holds it: mmvae/__init__.py (str)."""
    return re.search(r'^__version__ = "([^"]+)"$', (root / "mmvae/__init__.py").read_text(encoding="utf-8"), re.M)[1]


def notes(root=ROOT):
    """The section of CHANGELOG.md on this version (str), or "" where it has none."""
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    found = re.search(rf"^## \[{re.escape(version(root))}\][^\n]*\n(.*?)(?=^## |^\[[^\]]+\]: |\Z)", text, re.M | re.S)
    return found[1].strip() if found else ""


def disagreements(tag="", root=ROOT):
    """Where another version stands than in the package (list of str). tag: of the release, "v0.2.0", or ""."""
    here = version(root)
    cited = re.search(r"^version: (\S+)$", (root / "CITATION.cff").read_text(encoding="utf-8"), re.M)[1]
    found = [] if cited == here else [f"CITATION.cff: found version {cited}, expected {here}"]
    found += [] if notes(root) else [f"CHANGELOG.md: found no section [{here}]"]
    return found + ([] if tag in ("", f"v{here}") else [f"TAG: found {tag}, expected v{here}"])


def tagged(root=ROOT):
    """"" if the commit that is checked out has the tag of this version, else what is wrong (str). Only such a site is
    published: its Colab copies install the package by that tag."""
    found = subprocess.run(["git", "tag", "--points-at", "HEAD"], cwd=root, capture_output=True, text=True).stdout.split()
    return "" if f"v{version(root)}" in found else (
        f"HEAD: found {', '.join(found) or 'no tag'}, expected v{version(root)}, which the Colab copies install")


def smoke():
    """Load a published model, render a head that it has never seen, infer the latents; prints them."""
    import mmvae
    from mmvae import faces

    if "site-packages" not in mmvae.__file__:
        sys.exit(f"mmvae: found the one in the repository, {mmvae.__file__}, expected the installed one")
    model = mmvae.load("mumo")
    picture = faces.render(identity=1_000_000, azimuth=20.0, elevation=-10.0)
    q = model.posterior({"I": picture[None, None]})
    print(f"mmvae {mmvae.__version__}:", {block: [round(v, 2) for v in g.mu[0].tolist()] for block, g in q.items()})


def main():
    match sys.argv[1:]:
        case ["version", *tag] if len(tag) < 2:
            if wrong := disagreements(*tag):
                sys.exit("\n".join(wrong))
            print(f"version: {version()} in the package, in CITATION.cff and in CHANGELOG.md")
        case ["tagged"]:
            if wrong := tagged():
                sys.exit(wrong)
        case ["notes"]:
            print(notes())
        case ["smoke"]:
            smoke()
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
