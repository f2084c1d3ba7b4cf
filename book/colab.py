"""The chapters as Colab and a plain Jupyter show them: in colab/ beside the built site, with no MyST, which only that reads.

python book/colab.py [--profile cpu]        -> _build/html/colab/NAME.ipynb; the badges of the pages open those

Admonitions become quoted blocks, solutions fold, equations and figures have the numbers of the site, and what refers to
another place is a link to it there. The set-up cell installs the release that the chapter was published with.
"""

import argparse
import copy
import html as markup
import json
import re
import sys
from dataclasses import dataclass

import yaml

from check import ROOT, html_dir, notebooks, read_notebook, tags, toc_entries
from repo import address
from stage import write_text

BRANCH = "gh-pages"  # that holds the published site: Colab opens files of a repository, and no others
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
TITLES = {"setup": "Install the package: the release that this chapter was published with", "parameters": "Profile"}
NOTES = ("admonition", "note", "tip", "hint", "important", "warning", "seealso")

LEFT = {  # what only MyST reads, by name; code, in cells, fences or backticks, is not looked at
    "a directive": r"^[ >]*:::|^[ >]*`{3,}\{",
    "a role": r"\{[\w:+-]+\}`",
    "a label": r"^[ >]*\([\w-]+\)=|\$\$[ \t]*\([\w-]+\)",
    "an attribute": r"\]\{[^}\n]*\}|^[ >]*\{[.#][^}\n]*\}$",
    "a substitution": r"\{\{[^}]*\}\}",
    "a comment": r"^%|^\+\+\+",
    "a link within the book": r"\[\]\(|\]\((?!https?:|mailto:|#)[^)]*\)",
}
FENCED = r"^ *(?P<ticks>`{3,})(?!\{)[^`\n]*\n.*?^ *(?P=ticks)`*[ \t]*$"
CODE = rf"(?P<code>{FENCED}|(?<![}}`])(?P<tick>`+)(?!`)(?:(?!\n\n).)+?(?<!`)(?P=tick)(?!`))"
MATH = r"(?P<shown>\$\$(?P<body>.+?)\$\$(?:[ \t]*\((?P<label>[\w-]+)\))?)|(?P<math>(?<![\\$])\$(?!\s)[^$]+?\$)"
ROLE = r"\{(?P<role>[\w:+-]+)\}`(?P<said>[^`]+)`"
LINK = r"(?P<image>!?)\[(?P<text>[^\]\[]*)\](?:\((?P<target>[^)\s]+)\)|\{[^}\n]*\})"
INLINE = re.compile("|".join((CODE, MATH, ROLE, LINK)), re.S | re.M)
BLOCK = re.compile(rf"(?P<code>{FENCED})" r"|^(?P<fence>:{3,}|`{3,})\{(?P<name>[\w:-]+)\}[ \t]*(?P<title>[^\n]*)\n"
                   r"(?P<content>.*?)^(?P=fence)[ \t]*$|^\((?P<target>[\w-]+)\)=[ \t]*\n", re.S | re.M)


@dataclass(frozen=True)
class Book:
    """What chapters refer to. places: {label: (page's address in the site, "4.7", or "" of what has no number)};
    papers: {key: (authors, year)}; chapters: {stem: (number, title)}; site, repository: addresses; release: a tag."""

    places: dict
    papers: dict
    chapters: dict
    site: str
    repository: str
    release: str


def read_book(root=ROOT):
    """The `Book` of the sources in folder `root`."""
    from mmvae import __version__

    site = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))["html"]["baseurl"].rstrip("/")
    stems = [page.removeprefix("notebooks/") for page in toc_entries(root) if page.startswith("notebooks/")]
    chapters, places = {}, {}
    for number, stem in enumerate(stems, 1):
        nb = read_notebook(root / "notebooks" / f"{stem}.ipynb")
        chapters[stem] = number, re.search(r"^# (.+)$", "".join(nb["cells"][0]["source"]), re.M)[1]
        for label, (anchor, shown) in labels(nb, number).items():
            places[label] = f"notebooks/{stem}.html#{anchor.lower()}", shown  # as docutils writes an id
    from pybtex.database import parse_file  # comes with the book, not with the tests

    entries = parse_file(str(root / "book/references.bib")).entries
    papers = {key: (authors(entry), entry.fields["year"]) for key, entry in entries.items()}
    return Book(places, papers, chapters, site, address(root), f"v{__version__}")


def labels(nb, number):
    """{label: (anchor on the page, number as "4.7" or "")} of a chapter: equations, figures, places."""
    found, equations, figures = {}, 0, 0
    for cell in (cell for cell in nb["cells"] if cell["cell_type"] == "markdown"):
        if "caption" in tags(cell):
            figures += 1
            found[cell["metadata"]["name"]] = cell["metadata"]["name"], f"{number}.{figures}"
        text = "".join(cell["source"])
        for label in re.findall(r"\$\$[ \t]*\(([\w-]+)\)", text):
            equations += 1
            found[label] = f"equation-{label}", f"{number}.{equations}"
        found |= {label: (label, "") for label in re.findall(r"^\(([\w-]+)\)=", text, re.M)}
    return found


def authors(entry):
    """Of a paper, as a citation names them: "Wu and Goodman", "Lee et al."."""
    names = [" ".join((*person.prelast_names, *person.last_names)) for person in entry.persons["author"]]
    names = [re.sub(r"[{}]", "", name) for name in names]
    return f"{names[0]} et al." if len(names) > 2 else " and ".join(names)


# ---------------------------------------------------------------- the text of a cell


def converted(text, book, page):
    """A Markdown text without MyST. page: "notebooks/NAME.html", where it stands. ValueError for what has no such form."""

    def block(match):
        if match["code"]:
            return match[0]
        if match["target"]:  # (label)=
            return ""
        name, lines = match["name"], match["content"].split("\n")
        if name not in NOTES:
            raise ValueError(f"found the directive {{{name}}}, expected one of {', '.join(NOTES)}")
        options = []
        while lines and re.match(r":[\w-]+:", lines[0]):
            options.append(lines.pop(0))
        title = inline(match["title"] or name.capitalize(), book, page)
        content = converted("\n".join(lines).strip("\n"), book, page)
        if any("dropdown" in line for line in options):
            return f"<details>\n<summary>{summary(title)}</summary>\n\n{content}\n\n</details>"
        quoted = f"**{title.strip('*')}**\n\n{one_line_math(content)}"
        return "\n".join(f"> {line}".rstrip() for line in quoted.split("\n"))

    return inline(BLOCK.sub(block, text), book, page)


def one_line_math(text):
    """Formulas on one line each: a quotation's `>` would be read as part of them."""
    def joined(match):
        return match[0] if match["code"] else re.sub(r"\s*\n\s*", " ", match[0])

    return re.sub(f"{CODE}|{MATH}", joined, text, flags=re.S | re.M)


def summary(title):
    """A title as HTML, in which Markdown is not read; formulas are."""
    title = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", title)
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", markup.escape(title, quote=False))


def inline(text, book, page):
    """Roles, labels of formulas and links of a text, as what Markdown has."""

    def one(match):
        if match["shown"] and match["label"]:
            return f"$${match['body'].rstrip()} \\tag{{{book.places[match['label']][1]}}}$$"
        if match["role"]:
            said = re.sub(r"\s+", " ", match["said"])
            try:
                return ROLES[match["role"]](said, book)
            except KeyError as error:
                raise ValueError(f"{page}: found {{{match['role']}}}`{said}`; the book has no {error}") from None
        if match["text"] is not None:
            if match["target"] is None:  # [text]{.class}
                return match["text"]
            to = link(match["target"], book, page)
            return f"{match['image']}[{match['text'] or title_of(match['target'], book)}]({to})"
        return match[0]  # code, formulas

    return INLINE.sub(one, text)


def link(target, book, page):
    """The address of what a chapter links to: as it is, or in the site."""
    if re.match(r"https?:|mailto:", target):
        return target
    path, _, anchor = target.partition("#")
    if path in book.places or not path:
        return f"{book.site}/" + book.places.get(path or anchor, (f"{page}#{anchor}",))[0]
    if not re.search(r"\.(ipynb|md)$", path):
        raise ValueError(f"{page}: found a link to {target!r}, expected a chapter, a page, a label or an address")
    folder = page.rpartition("/")[0].split("/")
    while path.startswith("../"):
        path, folder = path.removeprefix("../"), folder[:-1]
    whole = "/".join([*folder, re.sub(r"\.(ipynb|md)$", ".html", path)])
    return f"{book.site}/{whole}" + (f"#{anchor}" if anchor else "")


def title_of(target, book):
    stem = re.sub(r".*/|\.ipynb$", "", target)
    return book.chapters[stem][1] if stem in book.chapters else stem


def refer(form):
    def role(label, book):
        where, number = book.places[label]
        return f"[{form.format(number)}]({book.site}/{where})"
    return role


def cite(form, joint, around):
    def role(keys, book):
        cited = [(*book.papers[key.strip()], key.strip()) for key in keys.split(",")]
        return around.format(joint.join(f"[{form.format(who, year)}]({book.site}/book/references.html#cite-{key})"
                                        for who, year, key in cited))
    return role


def term(said, book):
    shown, _, name = said.partition(" <")
    anchor = (name.rstrip(">") or shown).replace(" ", "-")
    return f"[{shown}]({book.site}/book/notation.html#term-{anchor})"


ROLES = {"eq": refer("({})"), "numref": refer("Fig. {}"), "term": term, "cite:t": cite("{} ({})", ", ", "{}"),
         "cite:p": cite("{}, {}", "; ", "({})"), "math": lambda said, book: f"${said}$"}


def myst(text):
    """What of a Markdown text only MyST reads (list of str, empty if nothing)."""
    text = re.sub(f"{CODE}|{MATH}|{ROLE}", lambda match: "$$" if match["shown"] and not match["label"] else
                  "" if match["code"] or match["math"] else match[0], text, flags=re.S | re.M)
    return [f"{name}: {hit[0].strip()}" for name, pattern in LEFT.items() for hit in re.finditer(pattern, text, re.M)]


# ---------------------------------------------------------------- a notebook


def colab_address(stem, book):
    """Where Colab opens the copy of a chapter."""
    repository = book.repository.replace("https://github.com/", "github/")
    return f"https://colab.research.google.com/{repository}/blob/{BRANCH}/colab/{stem}.ipynb"


def for_colab(nb, stem, book):
    """A chapter's notebook (dict) as Colab shows it. ValueError, which names the cell, for MyST that has no such form."""
    nb, (number, title) = copy.deepcopy(nb), book.chapters[stem]
    page, cells = f"notebooks/{stem}.html", nb["cells"]
    for cell in cells:
        text = "".join(cell["source"])
        try:
            cell["source"] = code(cell, text, book) if cell["cell_type"] == "code" else converted(text, book, page)
        except ValueError as error:
            raise ValueError(f"notebooks/{stem}.ipynb, cell {cell['id']}: {error}") from None
        if "caption" in tags(cell):
            cell["source"] = f"**Fig. {book.places[cell['metadata']['name']][1]}.** {cell['source']}"
    badge = f"[![Open in Colab]({BADGE})]({colab_address(stem, book)})"
    first = re.sub(rf"\[!\[[^\n]*{re.escape(BADGE)}\)\]\([^\n]*\)\n*", "", cells[0]["source"])
    head = f"# {number}. {title}\n\n{badge} · [this chapter, with its pictures, in the book]({book.site}/{page})"
    cells[0]["source"] = first.replace(f"# {title}", head, 1)
    nb["metadata"] = {**nb["metadata"], "colab": {"provenance": [], "toc_visible": True}}
    return nb


def code(cell, text, book):
    """A code cell's source; its metadata fold what the site folds."""
    kinds, meta = tags(cell), cell["metadata"]
    title = next((TITLES[kind] for kind in kinds if kind in TITLES), "")
    if title or {"hide-input", "hide-cell", "solution", "remove-cell", "remove-input"} & set(kinds):
        meta["cellView"], meta["jupyter"] = "form", {**meta.get("jupyter", {}), "source_hidden": True}
    text = text.replace(f"git+{book.repository}", f"git+{book.repository}@{book.release}")
    return f"# @title {title}\n{text}" if title else text


# ---------------------------------------------------------------- beside the site


def wrong(nb, stem, book, html):
    """What a copy says otherwise than the site in folder `html`, or leads to nothing there (list of str)."""
    found, pages = [], {}

    def read(name):
        if name not in pages:
            pages[name] = (html / name).read_text(encoding="utf-8") if (html / name).is_file() else ""
        return pages[name]

    for label, (where, number) in book.places.items():
        page, _, anchor = where.partition("#")
        if number and page == f"notebooks/{stem}.html":
            seen = re.search(rf'id="{re.escape(anchor)}".*?(?:eqno">\(|caption-number">Fig\. )([\d.]+)', read(page), re.S)
            if not seen or seen[1] != number:
                found.append(f"{label} has number {number}, on the site {seen[1] if seen else 'there is none'}")
    text = "\n".join("".join(cell["source"]) for cell in nb["cells"] if cell["cell_type"] == "markdown")
    for page, anchor in sorted(set(re.findall(rf"{re.escape(book.site)}/([\w./-]+\.html)(?:#([\w-]+))?", text))):
        if not read(page) or (anchor and f'id="{anchor}"' not in read(page)):
            found.append(f"links to {page}{anchor and '#'}{anchor}, which is not there")
    return found + [f"holds MyST, {what}" for cell in nb["cells"] if cell["cell_type"] == "markdown"
                    for what in myst("".join(cell["source"]))]


def write(html, root=ROOT):
    """Write html/colab/, and turn the badges of the pages to it. SystemExit, which says where it and the site differ."""
    book, found = read_book(root), []
    for source in notebooks(root):
        nb = for_colab(read_notebook(source), source.stem, book)
        found += [f"colab/{source.name}: {what}" for what in wrong(nb, source.stem, book, html)]
        write_text(html / "colab" / source.name, json.dumps(nb, indent=1, ensure_ascii=False) + "\n")
        page = html / "notebooks" / f"{source.stem}.html"
        text = page.read_text(encoding="utf-8")
        badge = rf'https://colab\.research\.google\.com/[^"\s]*/{source.name}'
        write_text(page, re.sub(badge, colab_address(source.stem, book), text))
    if found:
        sys.exit("the Colab copies and the site differ:\n  " + "\n  ".join(found))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--profile", default="cpu", choices=("smoke", "cpu", "gpu"))
    write(html_dir(parser.parse_args().profile))
