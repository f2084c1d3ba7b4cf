"""Chapter 11: what a row with a gap adds, an own likelihood, the slant of an image, and the most that one modality can tell."""
import itertools
import math

import pytest
import torch
from test_chapters import defined_in

import mmvae
from mmvae.observed import all_subsets, joined

CHAPTER = "11_your_own_data"
NAMES = ("image", "sound", "name")


@pytest.mark.parametrize("subsets", [None, [("image",), ("sound",), ("name",), NAMES], [NAMES], [("image", "name"), ("sound",)]])
def test_a_row_adds_the_subsets_cut_down_to_what_was_observed(subsets):
    """eq-own-missing: the chapter's `added` against the terms of the package, for every observed set."""
    added = defined_in(CHAPTER, "rule-table", "added")
    model = mmvae.PoEVAE({"image": mmvae.images(8, private=2), "sound": mmvae.vectors(6, private=2),
                          "name": mmvae.categories(10)}, shared=3, subsets=subsets)
    x = {"image": torch.rand(4, 1, 8, 8), "sound": torch.randn(4, 6), "name": torch.arange(4)}
    for O in all_subsets(NAMES):
        terms = {k.split(".")[0] for k in model.terms({m: x[m] for m in O})} - {"total"}
        assert terms == {joined(B) for B in added(model.subsets, O)}


def test_the_censored_normal_is_a_density_with_the_mean_that_it_says():
    """Mass at zero and density above it sum to one; the mean is that of its draws."""
    likelihood = defined_in(CHAPTER, "own-likelihood", "Censored", math=math)()
    grid = torch.arange(5e-4, 5, 1e-3, dtype=torch.float64).unsqueeze(1)
    for output in (-1.0, -0.2, 0.0, 0.4, 1.5):
        o = torch.full_like(grid, output)
        p = likelihood.log_prob(o, grid).exp() * 1e-3
        zero = likelihood.log_prob(o[:1], grid[:1] * 0).exp().item()
        assert zero == pytest.approx(0.5 * math.erfc(output / (0.3 * math.sqrt(2))), rel=1e-4)
        assert zero + p.sum().item() == pytest.approx(1, abs=1e-4)
        assert likelihood.mean(o[:1]).item() == pytest.approx((p * grid[:, 0]).sum().item(), abs=1e-4)


def test_the_slant_is_that_of_a_leaning_line():
    """Of a stroke whose rows shift to the right by so many pixels a row, going up; less the mean of its digit."""
    slant = defined_in(CHAPTER, "slant", "slant")
    r = torch.arange(8.0)
    lines = [torch.clamp(1 - (r - (3.5 - lean * (r[:, None] - 3.5))).abs(), 0) for lean in (-0.5, 0.0, 0.25)]
    images = torch.stack(lines).unsqueeze(1).repeat(10, 1, 1, 1)  # each digit has all three
    found = slant(images, torch.arange(10).repeat_interleave(3)).view(10, 3)
    torch.testing.assert_close(found[0], torch.tensor([-0.5, 0.0, 0.25]) + 0.25 / 3, atol=0.02, rtol=0)
    assert (found - found[0]).abs().max() < 1e-6


def test_what_one_modality_tells_of_another():
    """eq-own-most: the identity, for finite data and any model of them, and the bound, for modalities that share one of ten
    digits and nothing else."""
    def divergence(p, q, dim=None):
        terms = p * (p / q).log()
        return terms.sum() if dim is None else terms.sum(dim)

    g = torch.Generator().manual_seed(0)
    for sharp in (0.5, 3.0, 30.0):
        of_image, of_sound = (torch.softmax(sharp * torch.randn(10, k, generator=g, dtype=torch.float64), 1) for k in (12, 15))
        truth = of_image.T @ of_sound / 10  # (x_i, x_s), through the digit
        model = torch.softmax(torch.randn(12 * 15, generator=g, dtype=torch.float64), 0).view(12, 15)
        (image, sound), (image_m, sound_m) = ((p.sum(1), p.sum(0)) for p in (truth, model))
        gain = (truth * ((model / image_m[:, None]).log() - sound_m.log())).sum()
        told = divergence(truth, image[:, None] * sound)
        given = (image * divergence(truth / image[:, None], model / image_m[:, None], 1)).sum()
        torch.testing.assert_close(gain, told + divergence(sound, sound_m) - given)
        assert 0 <= told.item() <= math.log(10) + 1e-9
    certain = torch.eye(10, dtype=torch.float64).clamp(min=1e-30) / 10
    assert divergence(certain, certain.sum(1)[:, None] * certain.sum(0)).item() == pytest.approx(math.log(10))


def test_the_sets_of_a_row_are_never_empty_and_never_twice():
    added = defined_in(CHAPTER, "rule-table", "added")
    every = all_subsets(NAMES)
    for subsets in itertools.combinations(every, 3):
        for O in every:
            found = added(subsets, O)
            assert all(found) and len(found) == len(set(found)) and all(set(B) <= set(O) for B in found)
