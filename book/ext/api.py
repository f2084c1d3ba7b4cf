"""The package in the book: docstrings as they are written become pages, and every public name in the prose a link to its own.

A docstring is plain text: paragraphs, `code` in single backticks, [eq-...] for an equation of the book, and what is
indented is shown as it stands. So no sign in it means more than itself.
"""
import importlib
import re

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
OWN = {"model": "mmvae.MultiModalVAE", "rows": "mmvae.data.Rows", "pairs": "mmvae.faces.Pairs"}  # what chapters call theirs


def as_rst(lines: list[str]) -> list[str]:
    """A docstring of the house as reStructuredText."""
    found, begins = [], re.compile(r"(?<=[.;]\n)(?=Raises |Returns |[a-z_]\w*(?:, [a-z_]\w*)*: )")
    for block in re.split(r"\n(?:[ \t]*\n)+", begins.sub("\n", "\n".join(lines).rstrip())):
        literal = block.startswith("    ")
        found += ["::", "", *block.splitlines(), ""] if literal else [text(" ".join(block.split())), ""]
    return found


def text(paragraph: str) -> str:
    """A paragraph of prose: arguments, code, strings and equations as what they are, all other signs as themselves."""
    paragraph = re.sub(r"(^|[.;] )([a-z_]\w*(?:, [a-z_]\w*)*):(?= )", r"\1`\2`:", paragraph)
    parts = re.split(r"(`[^`]+`|\[eq-[\w\-, ]+\]|\"[^\" ]*\")", paragraph)
    for k, part in enumerate(parts):
        if part.startswith("[eq-"):
            parts[k] = "[eq. " + ", ".join(f":eq:`{label}`" for label in part[1:-1].split(", ")) + "]"
        elif k % 2:
            parts[k] = "``" + part.strip("`") + "``"
        else:
            parts[k] = re.sub(r"([\\*|`]|_(?!\w))", r"\\\1", part)
        if k % 2:  # what reStructuredText wants around such a piece, where the sentence has none
            parts[k] = "\\ " * (parts[k - 1][-1:] not in ("", *" ([{<-/:'")) + parts[k]
            parts[k] += "\\ " * (parts[k + 1][:1] not in ("", *" )]}>-/:.,;!?'"))
    return "".join(parts)


def process_docstring(app, what, name, thing, options, lines):
    lines[:] = as_rst(lines)


def process_signature(app, what, name, thing, options, signature, returns):
    """What Sphinx cannot read, or nobody needs to: a default that is made anew each time, arguments that are none."""
    none, signature = "(*args: ~typing.Any, **kwargs: ~typing.Any)", (signature or "").replace("<factory>", "...")
    return signature.replace(none, "()") or None, returns


def identity(path: str) -> tuple[str, str] | None:
    """Where what a dotted name names was defined, (module, qualified name); None if there is no such thing."""
    module, _, rest = path.partition(".")
    try:
        thing = importlib.import_module(module)
        for part in rest.split(".") if rest else ():
            thing = getattr(thing, part)
    except (ImportError, AttributeError):
        return None
    where = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    return where if all(isinstance(part, str) for part in where) and where[0].startswith("mmvae") else None


def names(objects: dict) -> dict:
    """By what else a documented name may be called: where it was defined, and its end, where that is no other's too."""
    known, ends = {}, {}
    for name in (name for name, entry in objects.items() if not entry.aliased):
        if where := identity(name):
            known.setdefault(where, name)
        parts = name.split(".")
        for k in range(1, len(parts)):
            ends.setdefault(".".join(parts[k:]), []).append(name)
    words = {end: found[0] for end, found in ends.items() if len(found) == 1}
    return known | {end: name for end, name in words.items() if "." in end or "_" in end or end[0].isupper()}


def documented(code: str, objects: dict, known: dict) -> str | None:
    """The name on an API page that a piece of code leads to: "mmvae.fit(...)", "Gaussian.sample", "model.posterior"."""
    match = NAME.match(code)
    if not match or code[match.end():match.end() + 1] not in ("", "(", "["):
        return None
    name, (head, _, rest) = match[0], match[0].partition(".")
    if rest and head in OWN:
        name = f"{OWN[head]}.{rest}"
    if name in objects and not objects[name].aliased:
        return name
    if not name.startswith("mmvae."):
        return known.get(name)
    where = identity(name)
    return known.get(where) or (where and documented(name.rpartition(".")[0], objects, known))  # a method: its class


class Link(SphinxPostTransform):
    """Code in the prose that is a public name of the package, as it is imported or called, links to its page."""

    default_priority = 400

    def run(self, **kwargs):
        objects = self.env.domains["py"].objects
        for node in list(self.document.findall(nodes.literal)):
            inside = node.parent
            while not isinstance(inside, nodes.reference | nodes.title | nodes.document | type(None)):
                inside = inside.parent
            if isinstance(inside, nodes.document) and (name := documented(node.astext(), objects, self.app.mmvae_names)):
                entry = objects[name]
                node.replace_self(make_refnode(self.app.builder, self.env.docname, entry.docname, entry.node_id,
                                               node.deepcopy(), name))


def collect_names(app, env):
    app.mmvae_names = names(env.domains["py"].objects)


def setup(app):
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", process_docstring)
    app.connect("autodoc-process-signature", process_signature)
    app.connect("env-check-consistency", collect_names)  # all pages are read, none is written
    app.add_post_transform(Link)
    return {"parallel_read_safe": True}
