"""The API pages: each room's public names stand on its page, with docstrings that say enough and that the page can show."""
import importlib
import inspect
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book" / "ext"))
ROOMS = {"core": "mmvae", **{room: f"mmvae.{room}" for room in ("faces", "evaluate", "show", "experiment")}}
PAGES = {room: (ROOT / "book" / "api" / f"{room}.md").read_text() for room in ROOMS}
INSIDE = {*(f"mmvae.show.{name}" for name in ("alive", "drawing", "known", "page", "views")), "mmvae.experiment.publish"}
# nobody calls into them
SHAPE = re.compile(r"\((?:[A-Za-z]\w*|\.\.\.|\d+|\*\w+)(?:,[^()]*)?\)|\{[^}]+\}")  # (B, D), (n,), {modality: ...}
SAYS = re.compile(SHAPE.pattern + r"|Raises|\b(?:nats|degrees|scalar|bool|float\w*|u?int\d+|arguments? (?:and|as)|see)\b",
                  re.I)


def thing(path: str):
    """What a dotted name names; of a name that is a function's and a module's, the function."""
    found, seen = importlib.import_module("mmvae"), "mmvae"
    for part in path.split(".")[1:]:
        seen += f".{part}"
        if not hasattr(found, part):
            importlib.import_module(seen)
        found = getattr(found, part)
    return found


def members(module, without=()) -> list[str]:
    """What `automodule` shows of a module: __all__, or what is defined in it, has a docstring and no underscore."""
    def own(name):
        value = getattr(module, name)
        return (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == module.__name__ and value.__doc__
    names = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_") and own(n)]
    return [n for n in names if n not in without and not inspect.ismodule(getattr(module, n))]


def shown(room: str) -> list[str]:
    """The dotted names that a page documents, in its order."""
    found = []
    for kind, name, options in re.findall(r"^\.\. auto(\w+):: (\S+)\n((?:   :.*\n)*)", PAGES[room], re.M):
        if kind != "module":
            found.append(name)
        elif ":members:" in options:
            without = re.search(r":exclude-members: (.*)", options)
            module = importlib.import_module(name)
            found += [f"{name}.{n}" for n in members(module, without[1].split(", ") if without else ())]
    return found


def documented() -> list[str]:
    return [name for room in ROOMS for name in shown(room)]


@pytest.mark.parametrize("room", ROOMS)
def test_a_page_is_not_empty_and_says_what_the_room_is_for(room):
    title, words = PAGES[room].split("\n\n")[:2]
    assert title.startswith("# ") and len(words.split()) >= 15 and words.rstrip().endswith(".")
    assert len(shown(room)) >= 5


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_is_on_its_page(room):
    """A constant by its name in the prose; a module by what stands in it."""
    module, page = importlib.import_module(ROOMS[room]), PAGES[room]
    here = [thing(name) for name in shown(room)]
    for name in getattr(module, "__all__", None) or [*getattr(module, "_NAMES", ()), *module._MODULES]:
        value = getattr(module, name)
        if inspect.ismodule(value):
            inside = f":: {value.__name__}" in page or any(other.__module__ == value.__name__ for other in here)
            inside = inside or value.__name__ in INSIDE
            assert inside, f"{room}: nothing of {name}"
        elif inspect.isclass(value) or inspect.isfunction(value):
            assert any(value is other for other in here) or room == "core" and name == "profile", f"{room}: no {name}"
        else:
            assert re.search(rf"[`.]{name}\b", page) or room == "core" and name == "MODELS", f"{room}: no {name}"


def test_each_name_is_on_one_page_once():
    names = documented()
    assert [name for name in set(names) if names.count(name) > 1] == []
    things = [thing(name) for name in names if callable(thing(name))]
    assert len({id(value) for value in things}) == len(things)


@pytest.mark.parametrize("name", documented())
def test_a_docstring_says_enough(name):
    """What it is; and, where it takes or gives tensors, shapes, units or what is raised."""
    value, doc = thing(name), inspect.getdoc(thing(name))
    if not (inspect.isclass(value) or inspect.isroutine(value)):
        return
    assert doc and len(doc) > 10, f"{name}: {doc!r}"
    try:
        signature = str(inspect.signature(value))
    except ValueError:
        return
    texts = doc + "".join(inspect.getdoc(part) or "" for part in vars(value).values() if inspect.isroutine(part)) \
        if inspect.isclass(value) else doc
    if "Tensor" in signature and "Picture" not in signature.split("->")[-1]:
        assert SAYS.search(texts), f"{name}{signature}: neither shape nor unit nor error in {doc!r}"


# ---- the extension of the book that makes pages and links

docutils = pytest.importorskip("docutils.core")
api = pytest.importorskip("api")


def complaints(lines: list[str]) -> str:
    """What docutils has against a text, whose equations are taken as they are."""
    from docutils import io, nodes
    from docutils.parsers.rst import roles

    roles.register_local_role("eq", lambda name, raw, text, *rest, **options: ([nodes.literal(raw, text)], []))
    errors = io.StringOutput(encoding="unicode")
    errors.write = lambda data: said.append(str(data))
    said = []
    docutils.publish_doctree("\n".join(lines), settings_overrides={"warning_stream": errors, "report_level": 1})
    return "".join(said)


@pytest.mark.parametrize("name", documented())
def test_every_docstring_can_be_shown(name):
    value = thing(name)
    docs = [inspect.getdoc(value)] + [inspect.getdoc(getattr(part, "fget", part)) for part in vars(value).values()
                                      if inspect.isfunction(part) or isinstance(part, property)] \
        if inspect.isclass(value) else [inspect.getdoc(value)]
    for doc in filter(None, docs):
        assert not complaints(api.as_rst(doc.splitlines()))


def test_signs_of_a_docstring_mean_themselves():
    assert api.text("net(*x) -> p(x_m | z), see `fit` [eq-a, eq-b].") == \
        r"net(\*x) -> p(x_m \| z), see ``fit`` [eq. :eq:`eq-a`, :eq:`eq-b`]."
    assert api.text('want: names, such as "S". n, seed: numbers') == '``want``: names, such as ``"S"``. ``n, seed``: numbers'
    assert api.as_rst(["One.", "x: (B,).", "Raises it.", "", "    f(x)", "", "Two"]) == \
        ["One.", "", "``x``: (B,).", "", "Raises it.", "", "::", "", "    f(x)", "", "Two", ""]
    assert not complaints(api.as_rst(["a`b`s x_ *y |z| \\", "`code`s", 'f(a="b", c=`d`)(`e`)']))


def test_a_code_span_finds_its_page():
    names = ("mmvae.fit", "mmvae.PoEVAE", "mmvae.MultiModalVAE", "mmvae.MultiModalVAE.loss", "mmvae.data.Rows.sample",
             "mmvae.faces.grid")
    objects = {name: SimpleNamespace(aliased=False) for name in names} | {"mmvae.train.fit": SimpleNamespace(aliased=True)}
    known = api.names(objects)
    expected = {"mmvae.fit(model, rows)": "mmvae.fit", "mmvae.train.fit": "mmvae.fit", "mmvae.models.PoEVAE": "mmvae.PoEVAE",
                "PoEVAE": "mmvae.PoEVAE", "model.loss(x)": "mmvae.MultiModalVAE.loss",
                "rows.sample": "mmvae.data.Rows.sample",
                "MultiModalVAE.loss": "mmvae.MultiModalVAE.loss", "grid": None, "fit": None, "mmvae": None,
                "x = mmvae.fit": None, "mmvae.nothing": None,
                "mmvae.PoEVAE.posteriors": "mmvae.PoEVAE", "mmvae.PoEVAE-like": None}
    assert {code: api.documented(code, objects, known) for code in expected} == expected
