"""likelihoods.py against torch.distributions; means, samples and the check of each one's data."""
import pytest
import torch
from torch import distributions as D
from torch.nn.functional import softplus

from mmvae.likelihoods import Bernoulli, Categorical, Laplace, NegativeBinomial, Normal, Own

g = torch.Generator().manual_seed(0)
OUT = torch.randn(6, 2, 3, generator=g, dtype=torch.float64)
REAL = torch.randn(6, 2, 3, generator=g, dtype=torch.float64)
GREY = torch.rand(6, 2, 3, generator=g, dtype=torch.float64)
COUNTS = torch.randint(0, 9, (6, 2, 3), generator=g).double()
CLASSES = torch.randint(0, 3, (6, 2), generator=g)
WORD = torch.randint(0, 3, (6,), generator=g)


def negative_binomial(output, r):
    m = softplus(output)
    return D.NegativeBinomial(torch.tensor(r, dtype=torch.float64), logits=(m / r).log())


CASES = [(Bernoulli(), OUT, GREY, lambda o: D.Bernoulli(logits=o, validate_args=False)),
         (Normal(0.3), OUT, REAL, lambda o: D.Normal(o, 0.3)),
         (Normal(), OUT, REAL, lambda o: D.Normal(o, 1.0)),
         (Laplace(2.5), OUT, REAL, lambda o: D.Laplace(o, 2.5)),
         (Laplace(), OUT, REAL, lambda o: D.Laplace(o, 1.0)),
         (Categorical(3), OUT, CLASSES, lambda o: D.Categorical(logits=o)),
         (Categorical(3), OUT[:, 0], WORD, lambda o: D.Categorical(logits=o)),
         (NegativeBinomial(2.5), OUT, COUNTS, lambda o: negative_binomial(o, 2.5)),
         (NegativeBinomial(), OUT, COUNTS, lambda o: negative_binomial(o, 1.0))]
IDS = [f"{type(c[0]).__name__}-{k}" for k, c in enumerate(CASES)]


@pytest.mark.parametrize("likelihood, output, x, reference", CASES, ids=IDS)
def test_log_prob_is_that_of_torch_distributions(likelihood, output, x, reference):
    expected = reference(output).log_prob(x)
    expected = expected.flatten(1).sum(1) if expected.dim() > 1 else expected
    torch.testing.assert_close(likelihood.double().log_prob(output, x), expected)


@pytest.mark.parametrize("likelihood, output, x, reference", CASES, ids=IDS)
def test_mean_and_samples_are_those_of_torch_distributions(likelihood, output, x, reference):
    p, likelihood = reference(output), likelihood.double()
    mean = p.probs if isinstance(p, D.Categorical) else p.mean
    torch.testing.assert_close(likelihood.mean(output), mean)
    torch.manual_seed(0)
    draws = torch.stack([likelihood.sample(output) for _ in range(4000)])
    assert draws.shape[1:] == x.shape and draws.dtype == x.dtype
    likelihood.check(draws[0], "x")
    if isinstance(p, D.Categorical):
        found = torch.stack([(draws == k).double().mean(0) for k in range(3)], -1)
        torch.testing.assert_close(found, mean, atol=0.04, rtol=0)
    else:
        error = p.variance.sqrt() / 4000 ** 0.5
        assert ((draws.mean(0) - p.mean).abs() < 5 * error).all()
        torch.testing.assert_close(draws.var(0), p.variance, rtol=0.35, atol=0.01)


def test_samples_follow_a_generator():
    for likelihood in (Bernoulli(), Normal(), Laplace(), Categorical(3)):
        a, b = (likelihood.sample(OUT.float(), torch.Generator().manual_seed(5)) for _ in range(2))
        assert torch.equal(a, b)


@pytest.mark.parametrize("make, noise", [(Normal, D.Normal(0.0, 0.2)), (Laplace, D.Laplace(0.0, 0.2))])
def test_a_learnt_scale_finds_the_truth(make, noise):
    torch.manual_seed(0)
    likelihood, x = make(), noise.sample((2000, 4))
    optimiser = torch.optim.Adam(likelihood.parameters(), lr=0.05)
    for _ in range(300):
        optimiser.zero_grad()
        (-likelihood.log_prob(torch.zeros_like(x), x).mean()).backward()
        optimiser.step()
    assert likelihood.scale.item() == pytest.approx(0.2, rel=0.05)
    assert not list(make(0.5).parameters()) and make(0.5).scale.item() == pytest.approx(0.5)


def test_a_learnt_dispersion_finds_the_truth():
    torch.manual_seed(0)
    x = D.NegativeBinomial(torch.tensor(3.0), logits=torch.tensor(1.0)).sample((4000, 2))
    likelihood, output = NegativeBinomial(), torch.zeros(2, requires_grad=True)
    optimiser = torch.optim.LBFGS([output, *likelihood.parameters()], max_iter=60, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = -likelihood.log_prob(output.expand_as(x), x).mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    assert likelihood.scale.item() == pytest.approx(3.0, rel=0.15)
    assert likelihood.mean(output)[0].item() == pytest.approx(3 * 2.71828, rel=0.05)


def test_a_decoder_may_return_a_distribution():
    p = D.Independent(D.StudentT(4.0, OUT), 1)
    torch.testing.assert_close(Own().log_prob(p, REAL), p.log_prob(REAL).sum(1))
    assert torch.equal(Own().mean(p), p.mean) and Own().sample(p).shape == REAL.shape
    with pytest.raises(ValueError, match="decoder: found an output of type Tensor, expected a torch.distributions.Dist"):
        Own().log_prob(OUT, REAL)


NAN = torch.tensor([[0.5, float("nan")]])


@pytest.mark.parametrize("likelihood, x, message", [
    (Bernoulli(), torch.tensor([[0.0, 255.0]]), r'x\["m"\]: found values from 0 to 255, expected them within \[0, 1\]'),
    (Bernoulli(), torch.tensor([[-1.0, 1.0]]), r"found values from -1 to 1, expected them within"),
    (Bernoulli(), NAN, "found NaN, expected them within"),
    (Bernoulli(), torch.zeros(1, 2, dtype=torch.uint8), "found torch.uint8, expected floating point; divide bytes by 255"),
    (Normal(), NAN, "found NaN, expected finite numbers"),
    (Normal(), torch.tensor([[float("inf"), 0.0]]), "found values from 0 to inf, expected finite numbers"),
    (Laplace(), torch.tensor([[1]]), "found torch.int64, expected floating point"),
    (Own(), NAN, "expected finite numbers"),
    (Categorical(3), torch.tensor([0.0, 1.0]), "found torch.float32, expected class indices, int64"),
    (Categorical(3), torch.tensor([0, 3]), "found classes from 0 to 3, expected 0 to 2"),
    (Categorical(3), torch.tensor([-1, 2]), "found classes from -1 to 2, expected 0 to 2"),
    (NegativeBinomial(), torch.tensor([[-1.0, 2.0]]), "found values from -1 to 2, expected counts, 0 or more"),
    (NegativeBinomial(), torch.tensor([[0.5, 2.0]]), "found 0.5, expected whole numbers")])
def test_data_that_it_cannot_be_of_are_refused_in_a_sentence(likelihood, x, message):
    with pytest.raises(ValueError, match=message):
        likelihood.check(x, "m")


@pytest.mark.parametrize("make, message", [
    (lambda: Normal(0.0), "Normal: found 0.0, expected a positive number, or None to learn it"),
    (lambda: Laplace(-1.0), "Laplace: found -1.0"), (lambda: NegativeBinomial(float("nan")), "NegativeBinomial: found nan"),
    (lambda: Categorical(1), "classes: found 1, expected at least 2"),
    (lambda: Normal().log_prob(OUT, OUT[:, :1]), r"decoder: found an output of shape \(6, 2, 3\), expected that of x, "),
    (lambda: Categorical(4).log_prob(OUT, CLASSES), r"found an output of shape \(6, 2, 3\), expected \(6, 2, 4\)")])
def test_what_makes_no_likelihood_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
