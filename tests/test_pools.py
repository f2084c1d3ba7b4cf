"""The dial from product to mixture: its numbers against quadrature and matrices, in Python and on the page."""
import json
import math
import shutil
import subprocess

import pytest
import torch
from torch import distributions as D

import browser
from mmvae import Gaussian, consensus_of_experts, hoelder_pool
from mmvae.show import pools, widgets

VALUES = [{"I": list(a), "T": list(b)} for a, b in (pools.START, *pools.PRESETS.values())]


def gaussian(pair):
    return Gaussian(*torch.tensor([[[pair[0]]], [[2 * math.log(pair[1])]]], dtype=torch.float64))


@pytest.mark.parametrize("values", VALUES)
def test_the_dial_passes_the_geometric_mean_the_pool_and_the_mixture(values):
    experts = [gaussian(v) for v in values.values()]
    normals = [D.Normal(*torch.tensor(v, dtype=torch.float64)) for v in values.values()]
    z, half = pools.power_mean(values, 0.5)
    torch.testing.assert_close(half, hoelder_pool(experts).log_prob(z.view(-1, 1, 1))[:, 0].exp(), rtol=1e-6, atol=1e-9)
    mixture = sum(q.log_prob(z).exp() for q in normals) / 2
    torch.testing.assert_close(pools.power_mean(values, 1.0)[1], mixture, rtol=1e-6, atol=1e-9)
    root = (0.5 * sum(q.log_prob(z) for q in normals)).exp()
    torch.testing.assert_close(pools.power_mean(values, 0.0)[1], root / torch.trapezoid(root, z), rtol=1e-6, atol=1e-9)
    near, end = (pools.power_mean(values, alpha)[1] for alpha in (2e-3, 0.0))
    torch.testing.assert_close(near, end, rtol=0, atol=0.02)  # no step


@pytest.mark.parametrize("values", VALUES)
def test_the_table_is_that_of_quadrature_and_of_the_joint_normal(values):
    """The exact posterior: z ~ N(0, 1) and two pictures x_m = z + noise, conditioned by matrices on those of the experts."""
    (a, s), (b, t) = values.values()
    noise = torch.tensor([1 / (s ** -2 - 1), 1 / (t ** -2 - 1)], dtype=torch.float64)  # so that q_m has the deviation s
    x = torch.tensor([a, b], dtype=torch.float64) * (1 + noise)
    for m, (mean, sd) in enumerate(values.values()):  # each expert is exact, given its picture alone
        assert (x[m] / (1 + noise[m])).item() == pytest.approx(mean)
        assert (1 - 1 / (1 + noise[m])).sqrt().item() == pytest.approx(sd)
    gain = torch.ones(2, dtype=torch.float64) @ torch.linalg.inv(torch.ones(2, 2, dtype=torch.float64) + torch.diag(noise))
    mean, sd = (gain @ x).item(), (1 - gain.sum()).sqrt().item()
    z = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    exact = D.Normal(torch.tensor(mean, dtype=torch.float64), sd)
    for alpha, rho in ((0.25, 0.0), (0.5, 0.5), (1.0, 0.9)):
        found = pools.summary(values, alpha, rho)
        assert found["exact"] == pytest.approx((mean, sd, 0.0))
        q = [D.Normal(*torch.tensor(v, dtype=torch.float64)).log_prob(z) for v in values.values()]
        log = torch.logaddexp(alpha * q[0], alpha * q[1]) / alpha
        log = log - torch.trapezoid(log.exp(), z).log()
        m = torch.trapezoid(log.exp() * z, z)
        far = torch.trapezoid(exact.log_prob(z).exp() * (exact.log_prob(z) - log), z)
        spread = torch.trapezoid(log.exp() * (z - m) ** 2, z).sqrt()
        assert found["pool"] == pytest.approx((m.item(), spread.item(), far.item()), abs=1e-4)
        both = consensus_of_experts([gaussian(v) for v in values.values()], rho)
        other = D.Normal(both.mu.item(), math.exp(0.5 * both.logvar.item()))
        assert found["consensus"] == pytest.approx((other.loc.item(), other.scale.item(), D.kl_divergence(
            D.Normal(mean, sd), other).item()), abs=1e-4)


@pytest.mark.parametrize("values", VALUES)
def test_at_the_calibrated_correlation_the_consensus_is_as_sure_as_the_exact_posterior(values):
    rho = pools.calibrated(values)
    precision = sum(sd ** -2 for _, sd in values.values()) - 1
    assert 0 < rho < 0.95
    assert consensus_of_experts([gaussian(v) for v in values.values()], rho).precision.item() == pytest.approx(precision)


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
def test_the_page_computes_the_same():
    code = "".join((widgets.JS / f"{name}.js").read_text() for name in widgets.SCRIPTS["explorables"])
    at = [(alpha, rho) for alpha in (0, 0.25, 0.5, 1) for rho in (0, 0.5, 0.9)]
    code += f"""const all = {json.dumps([list(v.values()) for v in VALUES])}, at = {json.dumps(at)};
      const grid = {{ reach: {pools.REACH}, steps: {pools.STEPS} }};
      console.log(JSON.stringify(all.flatMap((experts) => at.map(([alpha, rho]) =>
        [pooled(experts, alpha, rho, grid).table, calibrated(experts)]))));"""
    done = subprocess.run(["node", "-e", code], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = iter(json.loads(done.stdout))
    for values in VALUES:
        for alpha, rho in at:
            table, star = next(found)
            assert star == pytest.approx(pools.calibrated(values))
            for name, row in pools.summary(values, alpha, rho).items():
                assert table[name] == pytest.approx(row, rel=1e-6, abs=1e-6)


def test_traits_and_refusals():
    widget, seen = pools.pools(names=("I", "T")), []
    widget.on_change(seen.append)
    widget.alpha = 1.0
    widget.set_state({"values": {"I": [0.0, 0.3], "T": [1.0, 0.2]}})
    assert seen[-1] == {"values": {"I": [0.0, 0.3], "T": [1.0, 0.2]}, "alpha": 1.0, "rho": 0.5}
    for name, value in (("alpha", 1.1), ("rho", 0.99), ("rho", math.nan), ("values", {"I": [0, 1.5], "T": [0, 0.5]}),
                        ("values", {"I": [0, 0.5]}), ("values", {"a": [0, 0.5], "b": [0, 0.5]})):
        with pytest.raises(ValueError, match=f"{name}.*: found"):
            setattr(widget, name, value)
    with pytest.raises(ValueError, match="values: found .*, expected .* of two experts"):
        pools.pools({"a": [0, 0.5]})
    page = widget.page()
    assert "<figcaption>" in page and "power mean at alpha = 0.5" in page and browser.state(page)["kind"] == "pools"


@browser.needs_chromium
@pytest.mark.parametrize("theme, width", [("light", 800), ("dark", 390)])
def test_in_the_page_the_dial_goes_from_one_opinion_to_both(tmp_path, theme, width):
    page = browser.write(tmp_path, pools.pools(names=("I", "T")), theme=theme)
    with browser.browser() as running:
        tab = browser.opened(running, page, viewport={"width": width, "height": 900})
        says, button = tab.locator(".words"), lambda name: tab.get_by_role("button", name=name, exact=True)
        button("disagree").click()
        button("geometric mean").click()
        assert says.inner_text().startswith("It is one Gaussian between the two, less sure than the exact posterior (sd 0.45")
        button("mixture").click()
        assert says.inner_text().startswith("It keeps both opinions, less sure than the exact posterior (sd 1.66, exact")
        button("Hellinger").click()
        assert tab.eval_on_selector("[data-slider=alpha]", "s => s.value") == "0.5"
        button("as sure as the exact one").click()
        assert "is as sure as the exact one" in says.inner_text()
        tab.screenshot(path=tmp_path / "page.png", full_page=True)
        button("one is far surer").click()
        browser.slide(tab, "rho", 0.9)
        assert "one expert's weight is negative" in says.inner_text()
        button("disagree").click()
        button("product").click()
        assert "The consensus at ρ = 0.00 is surer than the exact one" in says.inner_text()
        assert not tab.errors and tab.evaluate("document.documentElement.scrollWidth") <= width
