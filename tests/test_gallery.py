"""Chapter 14: every failure in one form, every wrong piece of code caught by its check, every mend let through."""
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Bernoulli, Normal, kl_divergence

from mmvae import Gaussian, evaluate, product_of_experts

PATH = Path(__file__).resolve().parent.parent / "notebooks" / "14_failure_gallery.ipynb"
CELLS = json.loads(PATH.read_text(encoding="utf-8"))["cells"]
TEXT = ["".join(cell["source"]) for cell in CELLS]
WRONG = {1: ("loss", "nats a row from minus the ELBO"), 2: ("loss_beta", "beta is 78.4"), 3: ("fuse", "nats"),
         4: ("loss_masked", "nats a row"), 5: ("foresight", "the least that is possible")}


@pytest.fixture
def ran(capsys):
    """Runs a cell, by its id, in one namespace; returns the names, and what was printed."""
    names = dict(np=np, torch=torch, F=F, Bernoulli=Bernoulli, Normal=Normal, kl_divergence=kl_divergence, Gaussian=Gaussian,
                 evaluate=evaluate, product_of_experts=product_of_experts)

    def run(*ids):
        for id in ids:
            [text] = ["".join(cell["source"]) for cell in CELLS if cell["id"] == id]
            exec(compile(text, id, "exec"), names)
        return names, capsys.readouterr().out

    return run


@pytest.mark.parametrize("k", WRONG)
def test_a_check_catches_the_fault_and_lets_the_mend_through(ran, k):
    name, says = WRONG[k]
    names, said = ran("held-to", f"bug-{k}", f"bug-{k}-check")
    assert said.startswith("FAILS: ") and says in said and said.count("\n") == 1
    assert names[name].__doc__ and not names["held_to"](names[f"check_{k}"], names[name])
    _, said = ran(f"solution-{k}")  # which asserts that the mend passes
    assert said.endswith("passes\n")


@pytest.mark.parametrize("k", WRONG)
def test_a_wrong_piece_is_short(k):
    [lines] = ["".join(cell["source"]).splitlines() for cell in CELLS if cell["id"] == f"bug-{k}"]
    assert 8 <= len([line for line in lines if line.strip()]) <= 15


def test_the_sign_and_the_means_are_what_the_messages_say(ran):
    """The first is off by twice the KL, and the second has beta = pixels / latents, by hand."""
    names, said = ran("held-to", "bug-1", "bug-1-check")
    off, kl = map(float, re.findall(r"[-+]?\d+\.\d", said))
    assert off == pytest.approx(-2 * kl, abs=0.11)
    names, said = ran("bug-2", "bug-2-check")
    assert float(re.search(r"beta is ([\d.]+);", said)[1]) == pytest.approx(784 / 10, abs=0.1)


def test_every_symptom_leads_to_a_failure_and_every_failure_has_the_form():
    [table] = [text for text in TEXT if "| what you see |" in text]
    led = re.findall(r"^\|.*\]\((gallery-[a-z]+)\) \| `", table, re.M)
    starts = {re.search(r"^\((gallery-[a-z]+)\)=\n## (\d)\. ", text, re.M)[1]: k for k, text in enumerate(TEXT)
              if re.search(r"^\(gallery-[a-z]+\)=\n## \d\. ", text, re.M)}
    assert led == list(starts) and len(led) == 8
    ends = [*list(starts.values())[1:], next(k for k, text in enumerate(TEXT) if ":class: recap" in text)]
    for start, end in zip(starts.values(), ends):
        part = "\n".join(TEXT[start:end])
        assert [part.count(f"**{said}**") for said in ("What you see.", "What it is.", "How to test it.",
                                                      "What cures it.")] == [1, 1, 1, 1]
        assert sum("caption" in cell["metadata"].get("tags", ()) for cell in CELLS[start:end]) == 1
        cure = part[part.index("**What cures it.**"):]
        assert re.search(r"\]\(\d\d_\w+\.ipynb\)", cure)  # the chapter that explains it
        assert re.search(r"\(\d minutes\)", TEXT[start])
