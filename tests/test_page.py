"""page.py: what the static page computes of a model is what the model computes, for every subset; all else is refused."""
import copy
import types
from functools import partial

import pytest
import torch
from torch import nn

import mmvae
from mmvae import Gaussian, Modality, MuMoVAE, PoEVAE, VanillaVAE, categories, images, mixture_of_experts, vectors
from mmvae.experiment import FIRST
from mmvae.likelihoods import Bernoulli, Laplace, NegativeBinomial, Normal
from mmvae.nets import ImageDecoder, ImageEncoder
from mmvae.show import page, widgets

torch.set_num_threads(1)

MIXED = {"picture": images((10, 20), 3, private=2, likelihood=Normal()), "grey": images(8, private=1),
         "table": vectors((2, 3), private=1, likelihood=Laplace()), "counts": vectors(4, likelihood=NegativeBinomial()),
         "label": categories(5), "word": categories(3, length=4, private=1)}


def data(n=3):
    return {"picture": torch.randn(n, 3, 10, 20), "grey": torch.rand(n, 1, 8, 8), "table": torch.randn(n, 2, 3),
            "counts": torch.randint(0, 50, (n, 4)).float(), "label": torch.randint(5, (n,)), "word": torch.randint(3, (n, 4))}


def lively(model):
    """Untrained encoders say nearly the same of everything: make them say more, and sharper than the prior."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("mu.weight", "logvar.weight")):
                parameter.mul_(4)
            if name.endswith("logvar.bias"):
                parameter.sub_(1)
    return model


def compared(model, x):
    """The page's rule on the full weights against the model: the largest differences of posteriors and of means."""
    seen = [s for s in model.seen if set(s) <= set(x)]
    about, weights = page.rule(model, seen), page.tensors(model)
    given = {m: page._numbers(v, about["make"][m]["classes"]) for m, v in x.items()}
    apart = []
    with torch.no_grad():
        for s in seen:
            truth, found = model.posterior({m: x[m] for m in s}), page.posterior(about, weights, given, s)
            for b, q in found.items():
                apart += [(q.mu - truth[b].mu).abs().max().item() if q.mu.numel() else 0.0,
                          (q.logvar - truth[b].logvar).abs().max().item() if q.mu.numel() else 0.0]
            assert all(not truth[b].mu.any() for b in set(truth) - set(found))  # what the page leaves to the prior
        z = {b: torch.randn(3, dim) for b, dim in model.blocks.items()}
        truth, found = model.means(z), page.means(about, weights, {b: v.double() for b, v in z.items()})
        apart += [(found[m] - v.flatten(1)).abs().max().item() for m, v in truth.items()]
    return max(apart)


@pytest.mark.parametrize("name", [*FIRST, "dmvae"])  # of the others the page says that it does not compute them
def test_the_books_models_are_computed_by_their_own_rule(name):
    torch.manual_seed(0)
    assert compared(lively(mmvae.MODELS[name](size=16)), {m: torch.rand(3, 1, 16, 16) for m in "IT"}) < 1e-4


@pytest.mark.parametrize("make", [partial(VanillaVAE, latent=4), partial(MuMoVAE, shared=3), partial(PoEVAE, shared=3),
                                  partial(PoEVAE, shared=3, single_prior=True)])
@pytest.mark.parametrize("names", [("picture",), ("grey", "table", "label"), ("counts", "word", "picture"), ("label", "word")])
def test_any_modalities_are(make, names):
    torch.manual_seed(0)
    model = lively(make({m: MIXED[m] for m in names}))
    x = {m: data()[m] for m in names}
    assert compared(model, x) < 1e-4
    assert page.own(model) == ""
    assert not widgets.explorer(model, x).needs_kernel


def test_pictures_of_one_size_are_channels_of_one():
    torch.manual_seed(0)
    pair = {"a": images((9, 12), 3, private=1), "b": images((9, 12), 1)}
    x = {"a": torch.rand(3, 3, 9, 12), "b": torch.rand(3, 1, 9, 12)}
    for model in (VanillaVAE(pair, latent=4), MuMoVAE(pair, shared=3)):
        assert compared(lively(model), x) < 1e-4


def test_a_packed_weight_keeps_eight_bits():
    w = {"encoders.a": torch.randn(7, 5), "encoders.b": torch.tensor(3.0)[None]}
    found = page.unpack(page.pack(w))
    for key, value in w.items():
        torch.testing.assert_close(found[key], value, rtol=2**-9 + 2**-11, atol=2**-22)
    torch.testing.assert_close(page.unpack(page.pack(w, 10))["encoders.a"], w["encoders.a"].half().float())


# ---- what the page must not compute

X = {m: torch.rand(2, 1, 16, 16) for m in "IT"}


class Conv(nn.Module):
    """Case 04: an encoder of the reader's own."""

    def __init__(self, outputs):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 8, 4, 4), nn.SiLU(), nn.Flatten(), nn.Linear(128, outputs))

    def forward(self, x):
        return self.net(x)


class Gaussians(nn.Module):
    """As in the case: it returns Gaussians by itself."""

    def __init__(self, block):
        super().__init__()
        self.block, self.net = block, Conv(14)

    def forward(self, x):
        mu, logvar = self.net(x).chunk(2, 1)
        return {self.block: Gaussian(mu[:, :2], logvar[:, :2]), "S": Gaussian(mu[:, 2:], logvar[:, 2:])}


class Moments(PoEVAE):
    """Case 10: fusing of the reader's own, here the moments of a mixture."""

    def fuse(self, experts):
        q = super().fuse(experts)
        if len(experts) == 2:
            a, b = (e["S"] for e in experts.values())
            mu = (a.mu + b.mu) / 2
            q["S"] = Gaussian(mu, ((a.logvar.exp() + a.mu**2 + b.logvar.exp() + b.mu**2) / 2 - mu**2).log())
        return q


class Mixed(PoEVAE):
    def fuse(self, experts):
        return super().fuse(experts) | {"S": mixture_of_experts([q["S"] for q in experts.values()])}


class Twice(PoEVAE):
    def decode(self, z, modalities=None):
        return {m: 2 * v for m, v in super().decode(z, modalities).items()}


class Weighted(PoEVAE):
    """A loss of its own, and the posterior of the package: the page may compute it."""

    def terms(self, *args, **kwargs):
        return super().terms(*args, **kwargs)


class Half(Bernoulli):
    def mean(self, output):
        return 0.5 * super().mean(output)


def made(kind=PoEVAE, **options):
    return kind({m: images(16, private=2, **options) for m in "IT"}, shared=5)


def own_network():
    net = Modality(Conv, partial(ImageDecoder, size=16), Bernoulli(), 2, (1, 16, 16))
    return PoEVAE({"I": net, "T": images(16, private=2)})


def own_encoders():
    model = mmvae.MODELS["poe-v2"](size=16)
    model.encoders = nn.ModuleDict({m: Gaussians(m) for m in "IT"})
    return model


def own_decoder():
    make = lambda latent: nn.Sequential(nn.Linear(latent, 256), nn.Unflatten(1, (1, 16, 16)))  # noqa: E731
    net = Modality(partial(ImageEncoder, size=16), make, Bernoulli(), 2, (1, 16, 16))
    return PoEVAE({"I": net, "T": images(16, private=2)})


class Drawn(nn.Module):
    def __init__(self, latent):
        super().__init__()
        self.net = ImageDecoder(latent, size=16)

    def forward(self, z):
        return torch.distributions.Independent(torch.distributions.Normal(self.net(z), 0.1), 3)


def own_distribution():
    return PoEVAE({m: Modality(partial(ImageEncoder, size=16), Drawn, private=2, shape=(1, 16, 16)) for m in "IT"})


def on_the_instance():
    model = made()
    model.fuse = types.MethodType(PoEVAE.fuse, model)
    return model


def hooked():
    model = made()
    model.encoders["I"].net.hidden1.register_forward_hook(lambda *args: 2 * args[2])
    return model


def rewired():
    """All of it the package's own, and yet another model: the experts have changed places."""
    model = made()
    encoders = copy.deepcopy(model.encoders)
    model.encoders["I"].net, model.encoders["T"].net = encoders["T"].net, encoders["I"].net
    return model


OWN = {"network": (own_network, "own encoder (Conv)"), "encoders": (own_encoders, "own encoder (Gaussians)"),
       "decoder": (own_decoder, "own decoder (Sequential)"), "distribution": (own_distribution, "own likelihood (Own)"),
       "fuse": (partial(made, Moments), "own posterior (Moments.fuse)"),
       "mixture": (partial(made, Mixed), "own posterior (Mixed.fuse)"),
       "decode": (partial(made, Twice), "own decoding (Twice.decode)"),
       "likelihood": (partial(made, likelihood=Half()), "own likelihood (Half)"),
       "instance": (on_the_instance, "own posterior (PoEVAE.fuse)"), "hook": (hooked, "own encoder (Linear)")}


@pytest.mark.parametrize("make, reason", OWN.values(), ids=OWN)
def test_what_is_a_readers_own_moves_in_a_kernel_and_stands_still_on_the_page(make, reason):
    torch.manual_seed(0)
    model = make()
    widget = widgets.explorer(model, X)
    said = f"This model has its {reason}: its sliders move in a notebook, not on this page."
    assert widget.needs_kernel == said and not widget.assets and said in widget.page()
    assert '"state"' not in widget.page() and widget.still._repr_html_().removeprefix("<img ") in widget.page()
    with torch.no_grad():
        q = model.posterior(X)
    torch.testing.assert_close(torch.tensor(widget.latents["S"]), q["S"].mu[0], atol=1e-4, rtol=0)
    sent = []
    widget.send = lambda content, buffers=None: sent.append((content, buffers))
    widget._answer(widget, {"ask": "1", "model": "model", "subset": ["T"], "pair": 1, "factors": {}}, [])
    widget._answer(widget, {"ask": "2", "model": "model", "means": {"I": [widget.latents]}}, [])
    with torch.no_grad():
        alone = model.posterior({"T": X["T"][1:]})
        means = model.means({b: torch.tensor([z]) for b, z in widget.latents.items()})
    torch.testing.assert_close(torch.tensor(sent[0][0]["posterior"]["S"]["mu"]), alone["S"].mu[0], atol=1e-4, rtol=0)
    found = torch.frombuffer(bytearray(sent[1][1][0]), dtype=torch.float32)
    torch.testing.assert_close(found, means["I"].flatten())


def test_a_loss_of_ones_own_is_no_reason():
    assert not widgets.explorer(made(Weighted), X).needs_kernel


def test_networks_that_have_changed_places_are_computed_as_they_stand():
    assert compared(rewired(), X) < 1e-4 and not widgets.explorer(rewired(), X).needs_kernel


@pytest.mark.parametrize("change", ["precisions", "prior", "decoder", "rows"])
def test_a_rule_that_is_not_the_models_is_found_out(change):
    torch.manual_seed(0)
    model = lively(made())
    seen, weights = list(model.seen), page.tensors(model)
    about = page.rule(model, seen)
    given = {m: v.double().flatten(1) for m, v in X.items()}
    with torch.no_grad():
        assert page.differs(model, about, weights, X, given, 1e-3, 1e-3) == ""
        if change == "precisions":
            about["infer"]["I+T"] = ["I"]
        if change == "prior":
            about["single_prior"] = True
        if change == "decoder":
            about["make"]["I"]["mean"] = "same"
        if change == "rows":
            about["make"]["T"]["at"] = "decoders.I"
        assert page.differs(model, about, weights, X, given, 1e-3, 1e-3).startswith(("posterior", "decoding"))


def test_a_gaussians_mean_is_shown_as_it_is():
    """Case 05: a decoder that says 0.2 is shown as 0.2, grey 51."""
    model = made(likelihood=Normal(0.1))
    for decoder in model.decoders.values():
        nn.init.zeros_(decoder.pixels.weight)
        nn.init.constant_(decoder.pixels.bias, 0.2)
    widget = widgets.explorer(model, {m: torch.full((1, 1, 16, 16), 0.2) for m in "IT"})
    about = widget.config["models"]["model"]
    assert about["make"]["I"]["mean"] == "same" and widget.config["modalities"]["I"]["high"] == 1
    weights = {k: v for data in widget.assets.values() for k, v in page.unpack(data).items()}
    z = {b: torch.zeros(1, dim).double() for b, dim in model.blocks.items()}
    torch.testing.assert_close(page.means(about, weights, z)["I"], torch.full((1, 256), 0.2).double(), atol=1e-3, rtol=0)


def test_some_live_and_some_not_share_a_page():
    torch.manual_seed(0)
    widget = widgets.explorer({"mine": made(Moments), "product": made()}, X)
    assert not widget.needs_kernel and widget.config["models"]["mine"]["live"] and not widget.config["models"]["product"]["live"]


def test_weights_beyond_sixteen_bits_are_not_shown_as_others():
    model = made()
    with torch.no_grad():
        model.encoders["I"].net.hidden1.weight.mul_(1e6)
        model.encoders["I"].net.hidden2.weight.mul_(1e-6)
    assert widgets.explorer(model, X).needs_kernel.startswith("This model needs more digits than the page keeps:")
