"""Studies of the grid on small pictures, which are cheap: which further term of the loss (`mmvae.terms`) asks for the
partition, and at what price; "full", what becomes of sorted latents without the diagonal; and "field", every model of
`table.MODELS` beside the others.

Pictures of half the size have a quarter of the pixels: their likelihood has weight 4, which gives a picture the nats that one
of 64x64 has.

"asks": each term by its weight, beside the plain loss, where shared latents are spare (8) and where none is (5); in small
pictures, which are cheap. "asks-weights": the pilot that chooses these weights, with seeds of its own, on people who are in
no test: it learns from the first 400 of those to learn from, and is measured on the other 100. "asks-limits": the term
dropped after a third of the training, private blocks that are too small, and half of the rows with one picture alone.
"""
from collections.abc import Iterator

from .. import evaluate
from ..faces import HOME
from ..terms import ADDED
from . import table

MODELS, SPARE, EXACT = ("mumo", "poe-v2"), 8, 5  # shared latents
SMALL = {"size": 32, "weight": 4.0}
DROPPED = 1000  # iterations after which a term is
CANDIDATES = 0.3, 1.0, 3.0, 10.0, 50.0
WEIGHTS = {"cross": 1.0, "gap": 3.0, "contrast": 50.0, "retain": 10.0, "all-from-one": 1.0, "auxiliary": 1.0}
# Whether a term asks for the partition, written before the first run of "asks": it does if and only if it makes what one
# modality says of z_S answer for what the other says; one that only demands that a code can be decoded or recovered does not.
PREDICTED = {"cross": True, "gap": True, "contrast": True, "retain": False, "all-from-one": False, "auxiliary": False}
PILOT = "asks-weights"
LEARN, CHOICE = 400, 100  # people of the pilot


def asks(people: int) -> Iterator[tuple]:
    """(study, variant, model, seeds, people, changes of the recipe) of both: see `grid`. The pilot's variants are "gap, 3",
    those of its terms "gap, 8", and of none "plain, 8"."""
    for term in ADDED:
        for weight in CANDIDATES:
            for model in MODELS:
                changes = SMALL | {"options": {"shared": SPARE}, "extra": {term: weight}}
                yield PILOT, f"{term}, {weight:g}", model, range(10, 12), LEARN, changes
    for shared, seeds in ((SPARE, 10), (EXACT, 5)):
        for term in ("plain", *ADDED) if shared == SPARE else ADDED:  # plain with 5 is a run of "field"
            extra = {term: WEIGHTS[term]} if term in ADDED else None
            for model in MODELS:
                changes = SMALL | {"options": {"shared": shared}, "extra": extra}
                yield "asks", f"{term}, {shared}", model, range(seeds), people, changes
    for term in ("gap", "contrast"):  # dropped after a third, and private blocks of one latent, where two are used
        for variant, options, until in (("dropped", {}, DROPPED), ("private 1", {"private": 1}, None)):
            for model in MODELS:
                yield "asks-limits", f"{term}, {variant}", model, range(3), people, SMALL | {
                    "options": {"shared": SPARE} | options, "extra": {term: WEIGHTS[term]}, "extra_until": until}
    for term in ("plain", "gap", "contrast"):  # half of the rows show one picture alone
        for model in MODELS:
            yield "asks-limits", f"{term}, missing", model, range(3), people, SMALL | {
                "options": {"shared": SPARE}, "extra": {term: WEIGHTS[term]} if term in ADDED else None, "missing": 0.5}


def full(people: int, iterations: int) -> Iterator[tuple]:
    """(study, variant, model, seeds, people, changes of the recipe) of "full": all latents shared, the prior inside, and
    experts with a full covariance beside diagonal ones. Chapter 10 says what the theory predicts of them."""
    for changes, size, seeds in ((SMALL, 32, 10), ({}, 64, 3)):
        for variant, model, options in (("covariance", "wg-v2-full", {}), ("inside", "wg-v2", {"single_prior": True})):
            yield "full", f"{variant}, {size}", model, range(seeds), people, changes | {
                "iterations": iterations, "options": options}


def field(people: int) -> Iterator[tuple]:
    """(study, variant, model, seeds, people, changes of the recipe) of "field": every model of the book, the newest too, with
    the same networks, latents in all, data and steps. Chapters 12 and 13 read it."""
    for model in table.MODELS:
        if model != "wg-v2-full":  # it has a study of its own
            yield "field", "plain", model, range(10), people, SMALL


def chosen(runs: list[dict]) -> dict[str, float]:
    """{term: the weight that found the partition most often, of equal ones that with the smallest mean leak} among the
    records of the pilot, which `results.runs(study=PILOT)` reads. Until there are any, `WEIGHTS` are those of a trial."""
    found: dict[str, dict[float, list]] = {}
    for run in runs:
        (term, weight), = run["settings"]["extra"].items()
        found.setdefault(term, {}).setdefault(weight, []).append(evaluate.partition(run["probes"], HOME))

    def worth(of: list[dict]) -> tuple[float, float]:
        return sum(p["found"] for p in of) / len(of), -sum(p["leak"] for p in of) / len(of)

    return {term: max(sorted(weights), key=lambda w: worth(weights[w])) for term, weights in found.items()}
