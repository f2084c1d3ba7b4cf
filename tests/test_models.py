"""models.py: every posterior and loss against the formula written out by hand."""
import inspect

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

import mmvae
import tiny
from mmvae import MODELS, MuMoVAE, PoEVAE, VanillaVAE, categories, images, likelihoods, vectors
from mmvae.experiment import FIRST
from mmvae.nets import ImageDecoder, ImageEncoder

SIZE, BOTH = 16, ("I", "T")
SUBSETS = ("I",), ("T",), BOTH


@pytest.fixture
def x():
    g = torch.Generator().manual_seed(0)
    return {m: torch.rand(6, 1, SIZE, SIZE, generator=g) for m in "IT"}


def make(name, **arguments):
    return tiny.build(name, seed=1, **arguments)


def close(q, mu, logvar):
    torch.testing.assert_close(q.mu, mu)
    torch.testing.assert_close(q.logvar, logvar)


@pytest.mark.parametrize("name", FIRST)  # of the others: tests/test_later.py
def test_the_table_of_models(name, x):
    """Latents, encoders, subsets and parameter sharing as in the book's table."""
    model = make(name)
    blocks = {"vanilla": {"Z": 10}, "wg": {"I": 0, "S": 10, "T": 0}}.get(name.split("-")[0], {"I": 2, "S": 5, "T": 2})
    assert model.blocks == blocks
    assert set(model.encoders) == {"vanilla": {"I+T"}, "mumo": {"I", "T", "I+T"}}.get(name, {"I", "T"})
    assert model.subsets == ((BOTH,) if name in ("vanilla", "poe-v1", "wg-v1") else SUBSETS)
    assert set(model.decoders) == ({"I+T"} if name == "vanilla" else {"I", "T"})
    parameters = [p for p in model.parameters()]
    assert len({p.data_ptr() for p in parameters if p.numel()}) == len([p for p in parameters if p.numel()])
    q = model.posterior(x)
    assert {block: tuple(g.mu.shape) for block, g in q.items()} == {b: (6, dim) for b, dim in blocks.items()}
    logits = model.decode({block: g.sample() for block, g in q.items()})
    assert {m: tuple(image.shape) for m, image in logits.items()} == {m: (6, 1, SIZE, SIZE) for m in "IT"}


@pytest.mark.parametrize("channels, size", [(1, 16), (3, 28), (1, 32), (2, 64), (3, (20, 33)), (1, 3)])
def test_one_encoder_and_one_decoder_for_every_size_and_number_of_channels(channels, size):
    height, width = (size, size) if isinstance(size, int) else size
    assert ImageEncoder(14, channels, size)(torch.rand(3, channels, height, width)).shape == (3, 14)
    assert ImageDecoder(7, channels, size)(torch.randn(3, 7)).shape == (3, channels, height, width)


def test_what_fills_up_the_last_patch_is_grey():
    """A picture of 28 pixels is read as the same one amid grey, of 32."""
    torch.manual_seed(0)
    small, large, x = ImageEncoder(6, 1, 28), ImageEncoder(6, 1, 32), torch.rand(2, 1, 28, 28)
    large.load_state_dict(small.state_dict())
    torch.testing.assert_close(small(x), large(torch.nn.functional.pad(x, (0, 4, 0, 4), value=0.5)))


def test_what_is_beyond_the_picture_is_cut_off():
    torch.manual_seed(0)
    small, large, z = ImageDecoder(6, 2, (28, 17)), ImageDecoder(6, 2, (32, 24)), torch.randn(2, 6)
    large.load_state_dict(small.state_dict())
    torch.testing.assert_close(small(z), large(z)[..., :28, :17])


@torch.no_grad()
def test_a_decoder_draws_alike_at_every_place():
    """What stands one place further right is drawn eight pixels further right, but at the edges."""
    decoder, z = ImageDecoder(3, 1, 40), torch.zeros(1, 3)
    decoder.last.bias.copy_(torch.randn(decoder.last.bias.shape))
    before = decoder(z)
    decoder.last.bias.copy_(decoder.last.bias.unflatten(0, decoder.shape).roll(1, 2).flatten())
    torch.testing.assert_close(decoder(z)[..., 16:32], before[..., 8:24])


def test_the_decoder_is_small_enough_for_a_web_page():
    assert sum(p.numel() for p in ImageDecoder(7, size=64).parameters()) <= 250_000


@pytest.mark.parametrize("name", ["mumo", "poe-v1", "poe-v2", "wg-v1", "wg-v2"])
@pytest.mark.parametrize("subset", ["I", "T"])
def test_an_unobserved_private_block_has_its_prior(name, subset, x):
    model, other = make(name), {"I": "T", "T": "I"}[subset]
    q = model.posterior({subset: x[subset]})
    assert list(q) == ["I", "S", "T"]
    assert (q[other].mu == 0).all() and (q[other].logvar == 0).all()
    expected = model.encoders[subset](x[subset])
    for block in (subset, "S"):
        close(q[block], expected[block].mu, expected[block].logvar)


def test_mumo_joint_posterior_is_its_own_encoder(x):
    model = make("mumo")
    q, expected = model.posterior(x), model.encoders["I+T"](x["I"], x["T"])
    for block in "IST":
        close(q[block], expected[block].mu, expected[block].logvar)


@pytest.mark.parametrize("name", ["poe-v1", "poe-v2", "wg-v2"])
def test_poe_joint_posterior_is_the_product_written_out(name, x):
    model = make(name)
    q, qI, qT = model.posterior(x), model.encoders["I"](x["I"]), model.encoders["T"](x["T"])
    close(q["I"], qI["I"].mu, qI["I"].logvar)
    close(q["T"], qT["T"].mu, qT["T"].logvar)
    lI, lT = 1 / qI["S"].logvar.exp(), 1 / qT["S"].logvar.exp()
    variance = 1 / (1 + lI + lT)
    close(q["S"], variance * (lI * qI["S"].mu + lT * qT["S"].mu), variance.log())


def test_single_prior_multiplies_the_prior_into_a_single_posterior(x):
    model, plain = make("poe-v2", single_prior=True), make("poe-v2")
    expert = plain.posterior({"I": x["I"]})["S"]
    variance = 1 / (1 + 1 / expert.logvar.exp())
    close(model.posterior({"I": x["I"]})["S"], variance * expert.mu / expert.logvar.exp(), variance.log())
    for block in "IST":  # the pair's posterior does not depend on the argument
        close(model.posterior(x)[block], plain.posterior(x)[block].mu, plain.posterior(x)[block].logvar)


def test_reconstruction_is_the_bernoulli_log_likelihood():
    g = torch.Generator().manual_seed(0)
    logits, image = torch.randn(4, 1, 8, 8, generator=g), torch.rand(4, 1, 8, 8, generator=g)
    expected = Bernoulli(logits=logits, validate_args=False).log_prob(image).flatten(1).sum(1)
    torch.testing.assert_close(likelihoods.Bernoulli().log_prob(logits, image), expected)


@pytest.mark.parametrize("weight", [1.0, 4.0])
@pytest.mark.parametrize("name", FIRST)
def test_loss_is_the_sum_of_negative_elbos_written_out(name, weight, x):
    model = make(name)
    torch.manual_seed(7)
    loss = model.loss(x, weight)
    torch.manual_seed(7)
    total = 0.0
    for subset in model.subsets:
        q = model.posteriors(x, (subset,))[subset]
        normals = {b: Normal(g.mu, (0.5 * g.logvar).exp()) for b, g in q.items()}
        z = {b: normal.rsample() for b, normal in normals.items()}
        if name == "vanilla":
            logits = model.decoders["I+T"](z["Z"])
            likelihood = {m: Bernoulli(logits=p, validate_args=False).log_prob(x[m]) for m, p in zip("IT", logits)}
        else:
            decoders = {m: Bernoulli(logits=model.decoders[m](torch.cat([z[m], z["S"]], 1)), validate_args=False)
                        for m in subset}
            likelihood = {m: p.log_prob(x[m]) for m, p in decoders.items()}
        for m in subset:
            reconstruction = -likelihood[m].flatten(1).sum(1).mean()
            torch.testing.assert_close(loss[f"{'+'.join(subset)}.reconstruction.{m}"], reconstruction)
            total = total + weight * reconstruction
        for b, normal in normals.items():
            kl = kl_divergence(normal, Normal(0.0, 1.0)).sum(1).mean()
            torch.testing.assert_close(loss[f"{'+'.join(subset)}.kl.{b}"], kl)
            total = total + kl
    torch.testing.assert_close(loss["total"], total)
    torch.testing.assert_close(loss["total"], -sum(loss[f"{'+'.join(s)}.elbo"] for s in model.subsets))


@pytest.mark.parametrize("v1, v2", [("poe-v1", "poe-v2"), ("wg-v1", "wg-v2")])
def test_v1_and_v2_differ_only_in_the_elbos_they_sum(v1, v2, x):
    first, second = make(v1), make(v2)
    second.load_state_dict(first.state_dict())  # the same networks
    for observed in ({"I": x["I"]}, {"T": x["T"]}, x):
        for block in "IST":
            close(first.posterior(observed)[block], second.posterior(observed)[block].mu,
                  second.posterior(observed)[block].logvar)
    torch.manual_seed(3)
    sum_of_three = first.terms(x, subsets=SUBSETS)
    torch.manual_seed(3)
    assert all(torch.equal(value, sum_of_three[name]) for name, value in second.terms(x).items())
    torch.manual_seed(3)
    joint = second.terms(x, subsets=(BOTH,))
    torch.manual_seed(3)
    assert all(torch.equal(value, joint[name]) for name, value in first.terms(x).items())


@pytest.mark.parametrize("name", ["mumo", "poe-v2", "wg-v2"])
def test_the_partner_changes_nothing_in_the_elbo_of_one_modality(name, x):
    model = make(name)
    torch.manual_seed(5)
    before = model.terms(x)
    torch.manual_seed(5)
    after = model.terms({"I": x["I"], "T": x["T"].flip(0)})
    changed = {term for term in before if not torch.equal(before[term], after[term])}
    assert not any(term.startswith("I.") for term in changed)
    assert any(term.startswith("T.") for term in changed) and any(term.startswith("I+T.") for term in changed)


@pytest.mark.parametrize("name", ["mumo", "poe-v2"])
def test_a_private_block_reaches_only_its_own_picture(name, x):
    model = make(name)
    z = {b: g.mu for b, g in model.posterior(x).items()}
    base, moved = model.decode(z), model.decode(z | {"I": z["I"] + 1})
    assert torch.equal(base["T"], moved["T"]) and not torch.equal(base["I"], moved["I"])


@pytest.mark.parametrize("name", ["mumo", "poe-v2"])
def test_every_parameter_gets_a_gradient(name, x):
    model = make(name)
    model.loss(x)["total"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_terms_are_per_pair_and_losses_their_means(x):
    model = make("mumo")
    torch.manual_seed(2)
    terms = model.terms(x)
    torch.manual_seed(2)
    loss = model.loss(x)
    assert all(value.shape == (6,) for value in terms.values())
    assert all(torch.equal(loss[name], value.mean()) for name, value in terms.items())


def test_public_functions_are_documented():
    for name in mmvae.__all__:
        thing = getattr(mmvae, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert thing.__doc__, name


def test_grey_levels_have_three_likelihoods(x):
    """The same networks: a Bernoulli's logits, a Normal's mean, or a continuous Bernoulli, whose density integrates to 1."""
    for likelihood in ("bernoulli", "normal", "continuous"):
        model = MODELS["poe-v2"](size=SIZE, likelihood=likelihood)
        q = model.posterior(x)
        assert model.loss(x)["total"].isfinite()
        assert model.means({b: g.mu for b, g in q.items()})["I"].shape == x["I"].shape
    z = {b: torch.randn(1, d) for b, d in model.blocks.items()}
    grid = torch.linspace(0, 1, 2001)
    density = torch.stack([model.decode(z)["I"].log_prob(v.expand(1, 1, SIZE, SIZE)).exp()[0, 0, 3, 5] for v in grid])
    assert torch.trapezoid(density, grid).item() == pytest.approx(1, abs=1e-3)
    with pytest.raises(ValueError, match='likelihood: found "gauss", expected one of bernoulli, normal, continuous'):
        MODELS["poe-v2"](likelihood="gauss")
