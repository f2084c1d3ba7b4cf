"""Set the repository's address everywhere: badges, setup cells, configuration, citation; and with it the site's.

    python book/repo.py https://github.com/owner/name

The one place that holds it is [project.urls] Repository in pyproject.toml; every other copy is rewritten. The site is where
GitHub Pages puts it, https://owner.github.io/name/.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = (
    "pyproject.toml",
    "_config.yml",
    "CITATION.cff",
    "README.md",
    "notebooks/*.ipynb",
    "book/**/*.md",
    "mmvae/**/*.py",
    "*.md",
    ".github/**/*.md",
    ".github/**/*.yml",
    ".devcontainer/*",
    ".binder/*",
)


def address(root=ROOT):
    """The repository's address, e.g. https://github.com/owner/name (str)."""
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"][
        "Repository"
    ]


def site(url):
    """Where GitHub Pages puts the site of a repository: https://owner.github.io/name (str)."""
    owner, name = url.removeprefix("https://github.com/").split("/")
    return f"https://{owner}.github.io/{name}"


def set_address(url, root=ROOT):
    """Rewrite the address in all of FILES; returns the paths that changed. ValueError if not on GitHub."""
    url = url.strip().removesuffix("/").removesuffix(".git")
    if not re.fullmatch(r"https://github\.com/[\w-]+/[\w.-]+", url):
        raise ValueError(
            f"URL: found {url!r}, expected https://github.com/owner/name (Colab opens only GitHub)"
        )
    old = address(root)
    # Colab's own links hold "github/owner/name"; everything else holds the whole address.
    pairs = [
        (old, url),
        (old.replace("https://github.com/", "github/"), url.replace("https://github.com/", "github/")),
        (old.replace("https://github.com/", "gh/"), url.replace("https://github.com/", "gh/")),  # Binder's
        (site(old), site(url)),
        *((f"{before}{old.rpartition('/')[2]}", f"{before}{url.rpartition('/')[2]}")
          for before in (" && cd ", "notfound_urls_prefix: /")),
    ]
    changed = []
    for path in sorted({path for pattern in FILES for path in root.glob(pattern) if path.is_file()}):
        text = new = path.read_text(encoding="utf-8")
        for before, after in pairs:
            new = re.sub(re.escape(before) + r"(?![\w-])", lambda _, after=after: after, new)
        if new != text:
            partial = path.with_name(path.name + ".part")
            partial.write_text(new, encoding="utf-8")
            partial.replace(path)
            changed.append(path)
    return changed


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        paths = set_address(sys.argv[1])
    except ValueError as error:
        sys.exit(str(error))
    print(f"repository: {address()}", *(f"  {path.relative_to(ROOT)}" for path in paths), sep="\n")
