"""The explorables, without a browser: their numbers against quadrature and torch.distributions, and their traits."""
import io
import json
import math
import re
import shutil
import subprocess

import pytest
import torch
from PIL import Image
from torch import distributions as D

import browser
from mmvae import Gaussian, MODELS, MultiModalVAE, categories, images, product_of_experts
from mmvae.experiment.explorables import faces
from mmvae.likelihoods import Normal
from mmvae.show import explorables, widgets
from mmvae.show.explorables import DRAWS, EVERY, PRESETS, PRIOR, START, WIDTHS, combine, density, rate_distortion, rates
from mmvae.faces import Grid, Pairs

torch.set_num_threads(1)


def pairs():
    """Random pictures on a tiny grid: 2 people, 4 azimuths, 6 elevations, 5 lights; none held out."""
    g = torch.Generator().manual_seed(0)
    images = {m: torch.randint(0, 256, (2, 4, n, 16, 16), generator=g, dtype=torch.uint8) for m, n in (("I", 6), ("T", 5))}
    angles = dict(azimuth=torch.arange(4.0), elevation=torch.arange(6.0), light=torch.arange(5.0))
    return Pairs(Grid(**images, **angles, identity=torch.arange(2), test_identities=0))

VALUES = [*({"I": a, "T": b, "p": PRIOR} for a, b in (START, *PRESETS.values())), {"I": [2.0, 0.3], "T": [-2.5, 2.0], "p": [1.0, 0.6]}]
Z = torch.linspace(-30, 30, 240_001, dtype=torch.float64)


def moments(curve):
    """Mean and standard deviation of an unnormalised density on the grid Z."""
    curve = curve / curve.sum()
    mean = (curve * Z).sum()
    return mean.item(), (curve * (Z - mean) ** 2).sum().sqrt().item()


# Experts

@pytest.mark.parametrize("prior", [True, False])
@pytest.mark.parametrize("values", VALUES)
def test_combinations_are_those_of_curves_multiplied_and_added_on_a_grid(values, prior):
    made = combine(values, prior)
    q = {name: D.Normal(*map(torch.tensor, pair)).log_prob(Z).exp() for name, pair in values.items()}
    p = q["p"] if prior else torch.ones_like(Z)
    products = [p * q["I"], p * q["T"], p * q["I"] * q["T"]] + [p] * prior
    curves = {"product": p * q["I"] * q["T"], "mixture": q["I"] + q["T"], "subsets": sum(c / c.sum() for c in products)}
    for name, curve in curves.items():
        assert (made[name]["mean"], made[name]["sd"]) == pytest.approx(moments(curve), abs=1e-5)
        curve = curve / curve.sum() / (Z[1] - Z[0])
        torch.testing.assert_close(density(made[name]["parts"], Z), curve, atol=1e-6, rtol=1e-4)
        assert sum(weight for weight, _, _ in made[name]["parts"]) == pytest.approx(1)
    precision = {name: values[name][1] ** -2 for name in made["product"]["shares"]}
    assert made["product"]["shares"] == pytest.approx({k: v / sum(precision.values()) for k, v in precision.items()})
    assert set(precision) == set("ITp" if prior else "IT")


def test_a_density_is_that_of_torchs_mixture():
    weight, mean, sd = torch.tensor(combine(VALUES[0])["subsets"]["parts"], dtype=torch.float64).T
    mixture = D.MixtureSameFamily(D.Categorical(weight), D.Normal(mean, sd))
    torch.testing.assert_close(density(combine(VALUES[0])["subsets"]["parts"], Z), mixture.log_prob(Z).exp())


def test_with_the_standard_prior_the_product_is_the_models():
    experts = [Gaussian(torch.tensor([[m]]), torch.tensor([[2 * math.log(sd)]])) for m, sd in START]
    q, made = product_of_experts(experts), combine(VALUES[0])["product"]
    assert (made["mean"], made["sd"]) == pytest.approx((q.mu.item(), q.precision.item() ** -0.5), rel=1e-5)


def test_the_sharper_expert_has_the_veto():
    means = []
    for i in (-3.0, 0.0, 3.0):  # whatever expert I says
        product = combine({"I": [i, 0.7], "T": [1.8, 0.01], "p": [0.0, 1.0]})["product"]
        assert product["shares"]["T"] > 0.999
        means.append(product["mean"])
    assert means == pytest.approx([1.8] * 3, abs=2e-3)
    far, near = (combine({"I": [-a, 0.5], "T": [a, 0.5], "p": [0.0, 1.0]}) for a in (3, 0))
    assert far["product"]["sd"] == near["product"]["sd"]  # disagreement makes a product no wider,
    assert far["mixture"]["sd"] > 3 > near["mixture"]["sd"]  # and a mixture it does


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
def test_the_page_computes_the_same():
    code = "".join((widgets.JS / f"{name}.js").read_text() for name in ("common", "draw", "explorables"))
    code += f"""const out = {json.dumps(VALUES)}.flatMap((values) => [true, false].map((prior) => {{
      const {{ shares, ...made }} = combine(values, prior), at = (parts) => [-1, 0, 0.7].map((z) => density(parts, z));
      const numbers = from(Object.keys(made), (k) => [...meanAndSd(made[k]), ...at(made[k])]);
      return [shares, numbers, verdict(values, {{ shares, ...made }})];
    }}));
    console.log(JSON.stringify(out));"""
    found = iter(json.loads(subprocess.run(["node", "-e", code], capture_output=True, check=True, timeout=60).stdout))
    for values in VALUES:
        for prior in (True, False):
            (shares, numbers, words), made = next(found), combine(values, prior)
            assert shares == pytest.approx(made["product"]["shares"])
            for name, m in made.items():
                at = density(m["parts"], torch.tensor([-1, 0, 0.7], dtype=torch.float64)).tolist()
                assert numbers[name] == pytest.approx([m["mean"], m["sd"], *at], rel=1e-9, abs=1e-12)
            first = max(shares, key=shares.get)
            said = {"I": "Expert I holds", "T": "Expert T holds", "p": "The prior holds"}[first]
            assert (f"{said} {100 * shares[first]:.0f}\N{NO-BREAK SPACE}%" in words) == (shares[first] >= 0.75)


# Rate and distortion

class Linear(MultiModalVAE):
    """One latent, logits linear in it, a posterior that is given: all is known by quadrature."""
    q = Gaussian(torch.tensor([[0.4], [-1.0]]), torch.tensor([[-2.0], [-1.0]]))
    slope = torch.linspace(-2, 2, 256).view(1, 1, 16, 16)

    def __init__(self):
        super().__init__({"I": images(16)}, blocks={"Z": 1})

    def posteriors(self, x, subsets):
        return {s: {"Z": self.q} for s in subsets}

    def decode(self, z, modalities=None):
        return {"I": z["Z"][:, :, None, None] * self.slope + 0.3}


@pytest.fixture
def x():
    g = torch.Generator().manual_seed(0)
    return {m: torch.rand(2, 1, 16, 16, generator=g) for m in "IT"}


def model(name, **options):
    torch.manual_seed(0)
    made = MODELS[name](size=16, **options)
    with torch.no_grad():  # untrained encoders say nearly the same of every image: make them say more
        for parameter in made.encoders.parameters():
            parameter.mul_(1.5)
    return made


def test_rate_is_the_kl_of_the_widened_posterior(x):
    m = model("mumo")
    rate, *_ = rates(m, x, samples=6)
    q, prior = m.posterior(x), D.Normal(0.0, 1.0)
    for k in (0, 24, 48):
        wide = {b: D.Normal(g.mu, WIDTHS[k] * (0.5 * g.logvar).exp()) for b, g in q.items()}
        torch.testing.assert_close(rate[k], sum(D.kl_divergence(d, prior).sum(1) for d in wide.values()))
    variance = torch.cat([g.logvar.exp() for g in q.values()], 1)
    least = (variance.shape[1] / variance.sum(1)).sqrt()  # dR/ds = 0
    nearest = (torch.tensor(WIDTHS)[:, None] / least).log().abs().argmin(0)
    assert ((rate.argmin(0) - nearest).abs() <= 1).all()


def test_distortion_is_the_integral_over_the_posterior(x):
    one, z = {"I": x["I"]}, torch.linspace(-12, 12, 4001)
    _, distortion, floor, _ = rates(Linear(), one, widths=(0.125, 1.0, 4.0), samples=4096)
    for b in range(2):
        logits, image = Linear().decode({"Z": z[:, None]})["I"], x["I"][b].expand(len(z), -1, -1, -1)
        error = torch.nn.functional.binary_cross_entropy_with_logits(logits, image, reduction="none").flatten(1).sum(1)
        for k, s in enumerate((0.125, 1.0, 4.0)):
            q = D.Normal(Linear.q.mu[b, 0], s * (0.5 * Linear.q.logvar[b, 0]).exp())
            weight = q.log_prob(z).exp()
            assert distortion[k, b].item() == pytest.approx(((weight * error).sum() / weight.sum()).item(), rel=0.02)
    assert (distortion > floor).all()


def test_the_curve_of_convex_errors_rises_with_the_width(x):
    """A pair of opposite draws makes it so for any noise, not only on average."""
    _, distortion, _, _ = rates(Linear(), {"I": x["I"]}, samples=6)
    assert (distortion.diff(dim=0) > 0).all()


def test_at_its_own_width_rate_plus_distortion_is_the_negative_elbo(x):
    m = model("mumo")
    rate, distortion, _, _ = rates(m, x, widths=(1.0,), samples=2000)
    with torch.no_grad():
        elbo = torch.stack([m.terms(x)["I+T.elbo"] for _ in range(300)])
    error = (elbo.std(0) / 300**0.5).max().item()
    torch.testing.assert_close(rate[0] + distortion[0], -elbo.mean(0), atol=5 * error, rtol=0)


def test_the_floor_is_the_error_of_a_decoder_that_knows_the_image(x):
    _, _, floor, _ = rates(Linear(), {"I": x["I"]}, widths=(1.0,), samples=6)
    expected = torch.nn.functional.binary_cross_entropy(x["I"], x["I"], reduction="none").flatten(1).sum(1)
    torch.testing.assert_close(floor, expected)


def test_of_one_modality_the_other_private_block_is_left_out(x):
    m, one = model("mumo"), {"I": x["I"]}
    rate, distortion, _, _ = rates(m, one, widths=(0.5, 4.0), samples=6)
    q = m.posterior(one)
    wide = [Gaussian(q[b].mu, q[b].logvar + 2 * math.log(4)) for b in "IS"]
    torch.testing.assert_close(rate[1], sum(g.kl() for g in wide))
    assert rates(m, x, widths=(0.5,), samples=6)[1].shape == distortion[:1].shape


def test_of_a_gaussian_likelihood_the_floor_is_its_mode(x):
    m = MultiModalVAE.__new__(Linear)
    Linear.__init__(m)
    like = Normal(0.5)
    m.likelihoods["I"] = like
    _, distortion, floor, decoded = rates(m, {"I": x["I"]}, widths=(1.0,), samples=6)
    torch.testing.assert_close(floor, -like.log_prob(x["I"], x["I"]))
    assert (distortion > floor).all() and decoded["I"].shape == (1, DRAWS, 2, 1, 16, 16)


def test_the_page_has_the_tables_and_finds_the_pictures(x):
    m = model("vanilla")
    widget = rate_distortion(m, x, beta=2.0, samples=6)
    rate, distortion, floor, decoded = rates(m, x, samples=6)
    for k, curve in enumerate(widget.config["images"]):
        torch.testing.assert_close(torch.tensor(curve["rate"]), rate[:, k], atol=1e-3, rtol=0)
        torch.testing.assert_close(torch.tensor(curve["distortion"]) + curve["floor"], distortion[:, k], atol=0.02, rtol=0)
    assert widget.config["widths"] == list(WIDTHS) and WIDTHS[0] == 1 / 8 and WIDTHS[-1] == 8 and 1 in WIDTHS
    assert len(json.dumps(widget.config)) < 4000 and widget.beta == 2

    def tile(width, i, j, k):  # as js/explorables.js counts: i = 0 the image, else a sample; modality j, image k
        return tiles(widget, 16)[((width * DRAWS + i if i else 0) * 2 + j) * 2 + k]

    for j, modality in enumerate("IT"):
        for k in range(2):
            assert (tile(0, 0, j, k) - x[modality][k, 0]).abs().mean() < 0.08  # WebP is not exact, least of all on noise
            assert (tile(6, 2, j, k) - decoded[modality][6 * EVERY, 1, k, 0]).abs().mean() < 0.08
    assert len({round(tile(w, 1, 0, 0).std().item(), 3) for w in (0, 6, 12)}) == 3


def tiles(widget, size):
    """The images of its sheet, (N, size, size) in [0, 1]."""
    (data,) = widget.assets.values()
    sheet = Image.open(io.BytesIO(data)).convert("L")
    grey = torch.tensor(list(sheet.tobytes())).view(sheet.height, sheet.width) / 255
    return grey.unfold(0, size, size).unfold(1, size, size).flatten(0, 1)


def test_of_three_experts_there_are_eight_products():
    values = {"a": [0.0, 1.0], "b": [1.0, 0.5], "c": [-1.0, 2.0], "p": [0.0, 1.0]}
    made, widget = combine(values), explorables.experts(values)
    assert len(made["subsets"]["parts"]) == 8 and len(combine(values, False)["subsets"]["parts"]) == 7
    assert made["product"]["sd"] ** -2 == pytest.approx(1 + 4 + 0.25 + 1) and set(made["product"]["shares"]) == set("abcp")
    assert widget.config["presets"] == {} and set(widget.config["colours"]) == {*"abc", "product"}


# Faces

def test_the_sheet_has_each_pair_where_the_page_looks_for_it():
    data = pairs()
    widget = faces(data)
    n = {f: len(words) for f, words in widget.config["factors"].items()}
    assert n == {"identity": 2, "azimuth": 4, "elevation": 6, "light": 5}
    sheet = tiles(widget, 16)
    for i, a, e, light in ((0, 0, 0, 0), (1, 3, 5, 4), (1, 2, 1, 3)):
        cell = i * n["azimuth"] + a
        x, _ = data.at(i, a, e, light)
        found = {"I": sheet[cell * n["elevation"] + e], "T": sheet[8 * n["elevation"] + cell * n["light"] + light]}
        assert all((found[m] - x[m][0, 0]).abs().mean() < 0.08 for m in "IT")


# What they share

@pytest.fixture(params=["experts", "rate", "faces"])
def widget(request, x):
    made = {"experts": lambda: explorables.experts(names=("I", "T")), "rate": lambda: rate_distortion(Linear(), {"I": x["I"]}, samples=6),
            "faces": lambda: faces(pairs())}
    return made[request.param]()


MOVES = {"experts": {"values": {"I": [1.0, 0.5], "T": [0.0, 0.1], "p": [0.0, 2.0]}, "prior": False},
         "rate": {"image": 1, "width": 2.0, "beta": 0.5},
         "faces": {"factors": {"identity": 1, "azimuth": 0, "elevation": 2, "light": 4}}}


def test_traits_go_there_and_back(widget):
    seen = []
    widget.on_change(seen.append)
    for name, value in MOVES[widget.kind].items():  # as the kernel sets them when the page has moved
        widget.set_state({name: json.loads(json.dumps(value))})
    assert seen[-1] == MOVES[widget.kind] and len(seen) == len(MOVES[widget.kind])
    assert {name: widget.get_state()[name] for name in seen[-1]} == seen[-1]


def test_the_page_has_the_state_and_the_still_picture(widget):
    page = widget.page()
    (text,) = re.findall(r'<script type="application/json">(.*?)</script>', page, re.S)
    told = json.loads(text)
    assert told["kind"] == widget.kind and set(told["state"]) == {"config", *MOVES[widget.kind]}
    assert told["state"]["config"] == json.loads(json.dumps(widget.config))
    assert ("<svg" in page or "<img" in page) and "<figcaption>" in page and widget.still.alt in page.replace("&#x27;", "'")
    assert f"renderers.{widget.kind}" in widget._esm and "const renderers = { faces, experts, rate };" in widget._esm
    if sprites := widget.config.get("sprites"):
        assert sprites in widget.assets


BAD = {"experts": [("values", {"I": [0, 1], "T": [0, 1]}), ("values", {"I": [0, 1], "T": [0, 0], "p": [0, 1]}),
                   ("values", {"I": [math.nan, 1], "T": [0, 1], "p": [0, 1]})],
       "rate": [("image", 2), ("width", 0.0), ("beta", math.inf)],
       "faces": [("factors", {"identity": 2, "azimuth": 0, "elevation": 0, "light": 0}), ("factors", {"identity": 0})]}


def test_a_trait_refuses_what_makes_no_sense(widget):
    for name, value in BAD[widget.kind]:
        before = getattr(widget, name)
        with pytest.raises(ValueError, match=name):
            setattr(widget, name, value)
        assert getattr(widget, name) == before


def test_a_kind_of_posterior_or_likelihood_that_has_no_plane_is_refused(x):
    class Words(Linear):
        def __init__(self):
            MultiModalVAE.__init__(self, {"I": categories(4)}, blocks={"Z": 1})

    with pytest.raises(ValueError, match="expected pictures"):
        rates(Words(), {"I": torch.tensor([1, 2])}, samples=6)


def test_bad_arguments_are_named(x):
    one = {"I": x["I"]}
    for call, message in (
            (lambda: explorables.experts({"I": [0, 1]}), "values: found"),
            (lambda: combine({"I": [0, 1], "T": [0, -1], "p": [0, 1]}), r'values\["T"\]'),
            (lambda: rates(Linear(), {}), "x: found"), (lambda: rates(Linear(), {"I": 2 * x["I"]}), r'x\["I"\]: found values'),
            (lambda: rates(Linear(), {"I": x["I"][:0]}), "x: found"),
            (lambda: rates(Linear(), one, samples=7), "samples: found 7"),
            (lambda: rates(Linear(), one, samples=4), "samples: found 4"),
            (lambda: rates(Linear(), one, widths=(1.0, 0.0), samples=6), "widths: found 0.0"),
            (lambda: rate_distortion(Linear(), one, beta=-1.0, samples=6), "beta: found -1.0"),
            (lambda: rate_distortion(Linear(), {"I": x["I"][..., :8, :8]}), r"found shape \(2, 1, 8, 8\)"),
            (lambda: rate_distortion(Linear(), {"I": x["I"][..., :8]}), "expected grey squares"),
            (lambda: faces(), "0 Pairs")):
        with pytest.raises(ValueError, match=message):
            call()


# In a browser


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    x = pairs().fixed(2)[0]
    made = [faces(pairs()), explorables.experts(names=("I", "T")), rate_distortion(MODELS["mumo"](size=16), x)]
    return browser.write(tmp_path_factory.mktemp("page"), *made)


@pytest.fixture
def tab(page):
    with browser.browser() as running:
        tab = browser.opened(running, page, viewport={"width": 360, "height": 740})
        for widget in tab.query_selector_all(".mmvae-widget"):
            widget.scroll_into_view_if_needed()
            tab.wait_for_function("w => w.classList.contains('alive')", arg=widget)
        yield tab
        assert not tab.errors and all(url.startswith(("file:", "data:", "blob:")) for url in tab.asked)
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360


def ticked(tab):
    """The tasks that are done."""
    return set(tab.evaluate("[...document.querySelectorAll('.tasks .done')].map((line) => line.dataset.task)"))


@browser.needs_chromium
def test_in_the_page_each_factor_moves_its_own_pictures(tab):
    canvases = [f"figure:nth-child({k}) canvas" for k in (1, 2)]  # x_I, x_T
    assert not ticked(tab) and tab.locator(".tasks li").count() == 9  # three widgets, three tasks each
    for factor, expected in (("elevation", [True, False]), ("light", [False, True]), ("azimuth", [True, True])):
        before = [browser.pixels(tab, canvas) for canvas in canvases]
        browser.slide(tab, factor, 1 if tab.eval_on_selector(f"[data-slider={factor}]", "s => s.value") != "1" else 0)
        assert [(a != browser.pixels(tab, c)).any() for a, c in zip(before, canvases)] == expected, factor
    assert ticked(tab) == {"I", "T", "both"}


@browser.needs_chromium
def test_in_the_page_an_overconfident_expert_has_the_veto(tab):
    words = tab.locator(".words", has_text="product").first
    tab.get_by_text("agree", exact=True).click()
    assert "No expert decides alone" in words.inner_text()
    tab.focus("[data-slider=sdT]")
    tab.keyboard.press("Home")  # the least standard deviation, 0.1
    assert re.search(r"Expert T holds \d+\s% of the precision: the product follows it", words.inner_text())
    assert ticked(tab) == {"holds"}
    tab.locator(".knob").nth(2).scroll_into_view_if_needed()
    knob = tab.locator(".knob").nth(2).bounding_box()  # expert I's: dragged across, its mean
    before = tab.eval_on_selector("[data-slider=meanI]", "s => +s.value")
    tab.mouse.move(knob["x"] + knob["width"] / 2, knob["y"] + knob["height"] / 2)
    tab.mouse.down()
    tab.mouse.move(knob["x"] - 40, knob["y"] + knob["height"] / 2, steps=4)
    tab.mouse.up()
    assert tab.eval_on_selector("[data-slider=meanI]", "s => +s.value") < before


@browser.needs_chromium
def test_in_the_page_a_dearer_rate_buys_a_wider_posterior(tab):
    best = []
    for log_beta in (-4, 0, 4):
        browser.slide(tab, "beta", log_beta)
        tab.get_by_text("go to the cheapest width").click()
        best.append(tab.eval_on_selector("[data-slider=width]", "s => +s.value"))
    assert best == sorted(best) and ticked(tab) >= {"price", "least"}


HEARD = """async ([esm, config, state, png]) => {  // a module as a front end loads it; a kernel tells what a callback printed
    const listeners = {}, { default: widget } = await import(URL.createObjectURL(new Blob([esm], { type: "text/javascript" })));
    const el = document.body.appendChild(document.createElement("div"));
    const model = { get: (name) => ({ config, ...state })[name], set() {}, save_changes() {},
        on(event, listener) { (listeners[event] ??= []).push(listener) } };
    const send = (message) => listeners["msg:custom"].forEach((listener) => listener(message, []));
    await widget.render({ model, el });
    const before = el.lastElementChild.hidden;
    for (let k = 0; k < 30; k++) send({ told: `line ${k}\\n`, pictures: [] });
    send({ told: "<b>text</b>\\n", pictures: [png] });
    send({ asset: "another", error: "of another kind" });
    const area = el.lastElementChild;
    return [before, area.hidden, area.textContent, area.querySelectorAll("b").length, area.querySelector("img").src] }"""


@browser.needs_chromium
def test_each_module_is_one_that_a_front_end_can_load():
    """ES modules are strict: what the page's script forgives, such as two functions of one name, fails there."""
    esm = [widgets.module(kind) + "export default {};" for kind in widgets.MODULES]
    load = "(all) => Promise.all(all.map((esm) => import(URL.createObjectURL(new Blob([esm], { type: 'text/javascript' })))))"
    with browser.browser() as running:
        running.new_page().evaluate(load, esm)


@browser.needs_chromium
def test_what_a_callback_prints_is_shown_under_the_widget():
    widget = explorables.experts()
    state = {"values": widget.values, "prior": widget.prior}
    with browser.browser() as running:
        tab = running.new_page()
        tab.set_content("<body></body>")
        found = tab.evaluate(HEARD, [widget._esm, widget.config, state, "iVBORw0KGgo="])
    before, hidden, text, bold, picture = found
    lines = text.splitlines()
    assert before and not hidden and lines[-1] == "<b>text</b>" and not bold  # text, never markup
    assert lines[0] == "line 19" and len(lines) == 12 and picture == "data:image/png;base64,iVBORw0KGgo="
