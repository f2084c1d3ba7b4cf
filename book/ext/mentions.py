"""A chapter's first mention of each term of the glossary is a link to it, as one written by hand: {term}`...`."""
import re

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

EVERYDAY = {"factor", "gap", "missing", "shortcut", "verification"}  # words of plain English too: linked by hand alone
NOT_IN = (nodes.literal, nodes.literal_block, nodes.reference, nodes.title, nodes.math, nodes.math_block, nodes.raw,
          nodes.caption, nodes.legend, nodes.term, nodes.label)


def forms(term: str) -> set[str]:
    """What a text may call a term: itself, its plural, its abbreviation. "mutual information gap (MIG)" has two names."""
    found = set()
    for name in re.findall(r"[^()]+", term):
        head, of, rest = name.strip().partition(" of ")
        plural = f"{head[:-1]}ies" if head.endswith("y") else f"{head}s"
        found |= {head + of + rest, plural + of + rest}
    return found - {""}


def pattern(terms) -> tuple[re.Pattern, dict]:
    """An expression that finds any form of any term, the longest first, and {form in small letters: term}."""
    called = {form.lower(): term for term in terms for form in forms(term)}
    names = "|".join(re.escape(form) for form in sorted(called, key=len, reverse=True))
    return re.compile(rf"(?<![\w-])(?:{names})(?![\w-])".replace(r"\ ", r"\s+"), re.I), called


def hits(text: str, found: tuple[re.Pattern, dict], linked: set) -> list:
    """(start, end, term) of each term in `text` that `linked` has not; it has them then."""
    where = []
    for match in found[0].finditer(text):
        term = found[1][" ".join(match[0].lower().split())]
        if term not in linked:
            linked.add(term)
            where.append((*match.span(), term))
    return where


class First(SphinxPostTransform):
    """In the chapters: links at first mentions. A term linked by hand before its first mention in words needs no second."""

    default_priority = 410

    def run(self, **kwargs):
        if not self.env.docname.startswith("notebooks/"):
            return
        entries = {name: entry for (kind, name), entry in self.env.domains["std"].objects.items() if kind == "term"}
        places = {place.lower(): name for name, (_, place) in entries.items()}
        found, linked = pattern(set(entries) - EVERYDAY), set()
        for node in list(self.document.findall(lambda n: isinstance(n, nodes.Text | nodes.reference))):
            if isinstance(node, nodes.reference):
                linked.add(places.get(node.get("refuri", "").partition("#")[2].lower()))
            elif not inside(node):
                self.link(node, hits(node.astext(), found, linked), entries)

    def link(self, node, where, entries):
        if not where:
            return
        text, parts, done = node.astext(), [], 0
        for start, end, term in where:
            doc, place = entries[term]
            word = nodes.inline("", text[start:end], classes=["xref", "std", "std-term"])
            parts += [nodes.Text(text[done:start]),
                      make_refnode(self.app.builder, self.env.docname, doc, place, word)]
            done = end
        node.parent.replace(node, [*(part for part in parts if part != ""), nodes.Text(text[done:])])


def inside(node) -> bool:
    """Whether a text stands where it shall not be a link: in code, in a formula, in a title, in another link."""
    while node := node.parent:
        if isinstance(node, NOT_IN):
            return True
    return False


def setup(app):
    app.add_post_transform(First)
    return {"parallel_read_safe": True}
