"""Are the addresses that the book names still there?

python book/links.py     asks for each once (some minutes), prints what is gone, and exits 1 if something is

Gone is what answers "not found" or "gone", and a host that does not exist; a host that refuses (403, 429), is slow or has an
error of its own is named, but nothing is concluded from it. Standard library only.
"""

import json
import re
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("*.md", "book/*.md", "book/api/*.md", "book/paper/*", "book/references.bib", "benchmarks/*.md", "notebooks/*.ipynb",
         "CITATION.cff", ".github/**/*.md")
ADDRESS = re.compile(r"https?://(?:[^\s<>\"'`{}|\\^\])(]|\([^\s()]*\))+")  # brackets only in pairs
BROWSER = {"User-Agent": "Mozilla/5.0 (links of a book, weekly)"}


def text_of(path):
    """A page as text; of a notebook the Markdown cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    return "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")


def addresses(root=ROOT):
    """{address: the pages that name it}, DOIs of the bibliographies included; the book's own site and examples are not."""
    found = {}
    for path in sorted({path for pattern in PAGES for path in root.glob(pattern) if path.is_file()}):
        text = text_of(path)
        named = [address.rstrip(".,;:!?") for address in ADDRESS.findall(text)]
        named += [f"https://doi.org/{doi}" for doi in re.findall(r"^\s*doi\s*=\s*[{\"]([^}\"]+)", text, re.M)]
        for address in named:
            if not re.match(r"https?://(?:127\.|localhost|[^/]*example\b|github\.com/owner/|owner\.github)", address):
                found.setdefault(address.partition("#")[0], []).append(path.relative_to(root).as_posix())
    return found


def answer(address, timeout=20.0):
    """What is wrong with an address: "" or ("gone", why) or ("unclear", why)."""
    for method in ("HEAD", "GET"):  # some hosts answer only the second
        try:
            with urllib.request.urlopen(urllib.request.Request(address, headers=BROWSER, method=method), timeout=timeout):
                return ""
        except urllib.error.HTTPError as error:
            wrong = ("gone" if error.code in (404, 410) else "unclear", f"{error.code} {error.reason}")
        except urllib.error.URLError as error:
            gone = "Name or service not known" in str(error) or "nodename nor servname" in str(error)
            wrong = ("gone" if gone else "unclear", str(error.reason))
        except (OSError, ValueError) as error:
            wrong = ("unclear", str(error))
    return wrong


def main():
    named = addresses()
    with ThreadPoolExecutor(8) as pool:
        wrong = {address: found for address, found in zip(named, pool.map(answer, named)) if found}
    if len(wrong) == len(named):
        sys.exit(f"links: not one of {len(named)} addresses answers; is there a network here?")
    for kind in ("unclear", "gone"):
        for address, (_, why) in ((a, w) for a, w in wrong.items() if w[0] == kind):
            print(f"{kind}: {address} ({why}), in {', '.join(sorted(set(named[address])))}")
    gone = sum(kind == "gone" for kind, _ in wrong.values())
    print(f"links: {len(named)} addresses, {len(named) - len(wrong)} there, {len(wrong) - gone} unclear, {gone} gone")
    sys.exit(gone > 0)


if __name__ == "__main__":
    main()
