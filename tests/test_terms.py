"""terms.py: each further term of the loss by loops over rows and pairs, what it does about gaps, what it refuses; and that
training takes it everywhere: resumed, compiled, stacked, on several processes, from a recipe."""
import json
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Bernoulli, Normal, kl_divergence

import mmvae
import tiny
from mmvae import distributed, gaussian, stacked, terms, train
from mmvae.data import Rows
from mmvae.experiment import grid
from mmvae.experiment.__main__ import main as command
from mmvae.experiment.recipe import Recipe
from mmvae.stacked import Stack
from mmvae.train import Settings, read_log
from tiny import noiseless, same, stop_at, weights

TERMS = tuple(terms.ADDED)
ALL = dict(zip(TERMS, (0.5, 1.0, 3.0, 2.0, 0.25, 0.75)))
NAMES = {"cross": {"reconstruction.I", "reconstruction.T"}, "gap": {"I", "T"}, "contrast": {"S"},
         "retain": {"I.S", "I.I", "T.S", "T.T"}, "all-from-one": {"reconstruction.I", "reconstruction.T"},
         "auxiliary": {"reconstruction.I", "reconstruction.T"}}
MASKS = {"I": torch.tensor([1, 1, 0, 1, 0, 1, 1], dtype=torch.bool), "T": torch.tensor([1, 0, 1, 1, 1, 0, 1], dtype=torch.bool)}
ROWS = len(MASKS["I"])


@pytest.fixture
def x():
    g = torch.Generator().manual_seed(0)
    return {m: torch.rand(ROWS, 1, 16, 16, generator=g) for m in "IT"}


def make(name="poe-v2"):
    """A model whose posteriors say something, and whose auxiliary prior is not the prior."""
    model = terms.prepare(tiny.build(name, seed=1), ALL)
    with torch.no_grad():
        model.auxiliary.copy_(torch.linspace(-1, 1, len(model.auxiliary)))
        for k, p in model.named_parameters():
            if k.endswith("mu.weight"):
                p.mul_(5)
    return model


def of(model, name, x, masks=None) -> dict:
    """The values of one term, (B,) each."""
    x, masks = model.check(x, masks)
    return terms.ADDED[name](model, x, model.posteriors(x, terms.needed(model, x, masks, {name: 1.0})), masks)


@pytest.fixture
def drawn(monkeypatch):
    """Every noise that is drawn, in its order."""
    found, draw = [], gaussian.noise
    monkeypatch.setattr(gaussian, "noise", lambda like: found.append(draw(like)) or found[-1])
    return found


# ---------------------------------------------------------------- by brute force


def nce(anchors, others, rows) -> dict[int, float]:
    """{row: its loss}, by loops; anchors, others: {row: vector}."""
    centre = [sum(of[i] for i in rows) / len(rows) for of in (anchors, others)]
    found = {}
    for i in rows:
        cosines = [F.cosine_similarity(anchors[i] - centre[0], others[j] - centre[1], 0).item() / 0.1 for j in rows]
        found[i] = math.log(sum(map(math.exp, cosines))) - cosines[list(rows).index(i)]
    return found


def assert_rows(values, expected: dict[int, float]):
    torch.testing.assert_close(values.detach(), torch.tensor([expected.get(i, 0.0) for i in range(len(values))]),
                               rtol=2e-4, atol=2e-4)


def seen(m, masks) -> list[int]:
    return [i for i in range(ROWS) if m not in masks or masks[m][i]]


def normal(q, i) -> Normal:
    return Normal(q.mu[i].detach(), (0.5 * q.logvar[i]).exp().detach())


@pytest.mark.parametrize("masks", [{}, MASKS, {"T": MASKS["T"]}], ids=["whole", "gaps", "one"])
@pytest.mark.parametrize("name", ["mumo", "poe-v1", "poe-v2", "wg-v2"])
def test_gap_is_the_divergence_of_what_one_says_from_what_all_say(name, masks, x):
    model = make(name)
    q = model.posteriors(x, [("I",), ("T",), ("I", "T")])
    found = of(model, "gap", x, masks)
    for m in "IT":
        both = set(seen("I", masks)) & set(seen("T", masks))
        assert_rows(found[m], {i: kl_divergence(normal(q["I", "T"]["S"], i), normal(q[m,]["S"], i)).sum().item() for i in both})


@pytest.mark.parametrize("masks", [{}, MASKS, {"I": MASKS["I"]}], ids=["whole", "gaps", "one"])
@pytest.mark.parametrize("name", ["mumo", "poe-v2", "wg-v2"])
def test_contrast_by_loops(name, masks, x):
    model = make(name)
    q = model.posteriors(x, [("I",), ("T",)])
    means = {m: dict(enumerate(q[m,]["S"].mu.detach())) for m in "IT"}
    both = [i for i in seen("I", masks) if i in seen("T", masks)]
    there, back = nce(means["I"], means["T"], both), nce(means["T"], means["I"], both)
    assert_rows(of(model, "contrast", x, masks)["S"], {i: (there[i] + back[i]) / 2 for i in both})


@pytest.mark.parametrize("masks", [{}, MASKS], ids=["whole", "gaps"])
@pytest.mark.parametrize("name", ["mumo", "poe-v2"])
def test_retain_by_loops(name, masks, x, drawn):
    model = make(name)
    found = of(model, "retain", x, masks)
    encode = {m: (lambda v, m=m: model.posteriors({m: v.unsqueeze(0)}, [(m,)])[m,]) for m in "IT"}
    for m, noise in zip("IT", zip(drawn[::2], drawn[1::2])):
        rows, read = seen(m, masks), {}
        own = {i: encode[m](x[m][i]) for i in rows}
        z = {i: {b: normal(own[i][b], 0).mean + normal(own[i][b], 0).stddev * eps[i] for b, eps in zip(("S", m), noise)}
             for i in rows}
        for i, after in zip(rows, rows[1:] + rows[:1]):
            logits = model.decoders[m](torch.cat([z[after][m], z[i]["S"]]).unsqueeze(0))
            read[i] = after, encode[m](Bernoulli(logits=logits[0]).probs)
        assert_rows(found[f"{m}.S"], nce({i: q["S"].mu[0] for i, (_, q) in read.items()},
                                         {i: q["S"].mu[0] for i, q in own.items()}, rows))
        assert_rows(found[f"{m}.{m}"], nce({i: q[m].mu[0] for i, (_, q) in read.items()},
                                           {i: own[after][m].mu[0] for i, (after, _) in read.items()}, rows))


@pytest.mark.parametrize("masks", [{}, MASKS], ids=["whole", "gaps"])
@pytest.mark.parametrize("term", ["cross", "all-from-one", "auxiliary"])
def test_reconstructions_from_the_other_modality_by_loops(term, masks, x, drawn):
    model = make()
    found = of(model, term, x, masks)
    q = model.posteriors(x, [("I",), ("T",)])
    scale = dict(zip("IT", (0.5 * model.auxiliary.detach()).exp().split(2)))
    for k, (m, other) in enumerate(("IT", "TI")):
        expected = {}
        for i in set(seen("I", masks)) & set(seen("T", masks)):
            private = {"cross": normal(q[m,][m], i), "all-from-one": Normal(torch.zeros(2), 1.0),
                       "auxiliary": Normal(torch.zeros(2), scale[m])}[term]
            shared = normal(q[other,]["S"], i)
            z = [p.mean + p.stddev * drawn[2 * k + j][i] for j, p in enumerate((private, shared))]
            p = Bernoulli(logits=model.decoders[m](torch.cat(z).unsqueeze(0))[0], validate_args=False)
            expected[i] = -p.log_prob(x[m][i]).sum().item()
        assert_rows(found[f"reconstruction.{m}"], expected)


def three():
    torch.manual_seed(0)
    model = mmvae.PoEVAE({"a": mmvae.vectors(3, 1), "b": mmvae.vectors(4, 2), "c": mmvae.vectors(5)}, shared=2)
    g = torch.Generator().manual_seed(1)
    x = {m: torch.randn(ROWS, of.shape[0], generator=g) for m, of in model.modalities.items()}
    return model, x, {"a": MASKS["I"], "c": MASKS["T"]}


def test_of_three_modalities():
    """gap: to the posterior of those that were observed. contrast: the mean over six ordered pairs. retain: no private block,
    no question about it."""
    model, x, masks = three()
    gap, contrast, retain = (of(model, name, x, masks) for name in ("gap", "contrast", "retain"))
    expected, pairs = {m: {} for m in x}, {}
    for i in range(ROWS):
        there = tuple(m for m in x if m not in masks or masks[m][i])
        q = model.posteriors({m: x[m][i:i + 1] for m in there}, [there, *((m,) for m in there)])
        for m in there if len(there) > 1 else ():
            expected[m][i] = kl_divergence(normal(q[there]["S"], 0), normal(q[m,]["S"], 0)).sum().item()
    q = {m: dict(enumerate(of["S"].mu.detach())) for (m,), of in model.posteriors(x, [(m,) for m in x]).items()}
    for m in x:
        assert_rows(gap[m], expected[m])
        for o in (o for o in x if o != m):
            for i, value in nce(q[m], q[o], [i for i in seen(m, masks) if i in seen(o, masks)]).items():
                pairs[i] = pairs.get(i, 0) + value / 6
    assert_rows(contrast["S"], pairs)
    assert set(retain) == {"a.S", "a.a", "b.S", "b.b", "c.S"}
    found = terms.following(ROWS, masks["a"], torch.device("cpu")).tolist()
    assert [found[i] for i in (0, 1, 3, 5, 6)] == [1, 3, 5, 6, 0]


def test_info_nce_of_what_tells_nothing_and_of_what_tells_all():
    torch.testing.assert_close(terms.info_nce(torch.zeros(8, 3), torch.randn(8, 3)), torch.full((8,), math.log(8)))
    far = torch.eye(8)
    assert terms.info_nce(far, far).max() < 1e-3 and terms.info_nce(far[:1], far[:1]).item() == 0
    assert torch.equal(terms.info_nce(far, far, torch.zeros(8, dtype=torch.bool)), torch.zeros(8))


# ---------------------------------------------------------------- in a loss


@pytest.mark.parametrize("name", ["mumo", "poe-v1", "poe-v2", "wg-v2"])
@pytest.mark.parametrize("term", TERMS)
def test_a_term_is_named_and_added_by_its_weight(term, name, x):
    """What reconstructs, by the weight of the likelihood too; at 0 it is only watched."""
    model, found = make(name), {}
    for weight in (None, 0.0, 2.0):
        torch.manual_seed(3)
        found[weight] = model.terms(x, 4.0, extra=None if weight is None else {term: weight}, present=MASKS)
    names = {f"{term}.{k}" for k in NAMES[term] if name != "wg-v2" or k not in ("I.I", "T.T")}
    factor = 2 * (4 if "reconstruction" in next(iter(names)) else 1)
    for weight in (0.0, 2.0):
        assert set(found[weight]) == set(found[None]) | names
        assert all(torch.equal(found[weight][k], v) for k, v in found[None].items() if k != "total")
    torch.testing.assert_close(found[2.0]["total"], found[None]["total"] + factor * sum(found[2.0][k] for k in names))
    assert torch.equal(found[0.0]["total"], found[None]["total"])
    assert not any(found[0.0][k].requires_grad for k in names) and all(found[2.0][k].requires_grad for k in names)
    torch.manual_seed(3)
    loss = model.loss(x, 4.0, MASKS, extra={term: 2.0})
    assert all(torch.equal(loss[k], v.mean()) for k, v in found[2.0].items())


@pytest.mark.parametrize("name", ["mumo", "poe-v2"])
def test_cross_by_its_own_argument_and_among_the_terms_is_one(name, x):
    model, found = make(name), []
    for arguments in ({"cross": 0.5}, {"extra": {"cross": 0.5}}):
        torch.manual_seed(3)
        found.append(model.loss(x, 4.0, MASKS, **arguments))
        found[-1] |= dict(enumerate(torch.autograd.grad(found[-1]["total"], list(model.parameters()), allow_unused=True)))
    assert list(found[0]) == list(found[1])
    assert all(a is b or torch.equal(a, b) for a, b in zip(*(of.values() for of in found)))


def test_several_terms_are_added_in_one_order(x):
    model, found = make(), []
    for extra in (ALL, dict(reversed(ALL.items()))):
        torch.manual_seed(3)
        found.append(model.loss(x, extra=extra))
    assert list(found[0]) == list(found[1]) and all(torch.equal(found[0][k], found[1][k]) for k in found[0])
    parts = sum(ALL[k.split(".")[0]] * v for k, v in found[0].items() if k.split(".")[0] in ALL)
    torch.testing.assert_close(found[0]["total"], parts - sum(v for k, v in found[0].items() if k.endswith(".elbo")))
    assert list(Settings(extra=dict(reversed(ALL.items()))).extra) == list(TERMS)


@pytest.mark.parametrize("there", [None, torch.tensor([1, 1, 0, 1, 0, 1], dtype=torch.bool)])
def test_the_gradient_of_info_nce(there):
    a, b = (torch.randn(6, 3, dtype=torch.double, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda a, b: terms.info_nce(a, b, there), (a, b))


@pytest.mark.parametrize("term", TERMS)
def test_the_gradient_of_a_term_along_any_direction_is_its_difference(term, x):
    model = make().double()
    x, parameters = {m: v.double() for m, v in x.items()}, list(model.parameters())
    g = torch.Generator().manual_seed(2)
    direction = [torch.randn(p.shape, generator=g, dtype=torch.double) for p in parameters]

    def value():
        torch.manual_seed(5)
        return sum(v.mean() for v in of(model, term, x, MASKS).values())

    gradient = torch.autograd.grad(value(), parameters, allow_unused=True)
    slope, values = sum((g * d).sum().item() for g, d in zip(gradient, direction) if g is not None), []
    with torch.no_grad():
        for step in (1e-6, -2e-6):
            for p, d in zip(parameters, direction):
                p.add_(step * d)
            values.append(value().item())
    assert slope == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4, abs=1e-6) and slope != 0


# ---------------------------------------------------------------- what is missing


@pytest.mark.parametrize("name", ["mumo", "poe-v2"])
@pytest.mark.parametrize("term", TERMS)
def test_a_mask_is_deleting_the_rows(term, name, x):
    """A row that lacks what the term needs adds 0, and the others what they add without it."""
    model = make(name)
    with noiseless():
        found = of(model, term, x, MASKS)
        for key, values in found.items():
            needs = [key.split(".")[0]] if term == "retain" else "IT"
            rows = torch.stack([MASKS[m] for m in needs]).all(0)
            whole = of(model, term, {m: v[rows] for m, v in x.items()})[key]
            torch.testing.assert_close(values[rows], whole, rtol=1e-4, atol=1e-4)
            assert (values[~rows] == 0).all()


@pytest.mark.parametrize("term", TERMS)
def test_what_stands_where_nothing_was_observed_changes_no_bit(term, x):
    model, found = make(), []
    for blank in (0.0, math.nan):
        there = {m: v.masked_fill(~MASKS[m].view(-1, 1, 1, 1), blank).requires_grad_() for m, v in x.items()}
        torch.manual_seed(3)
        loss = model.loss(there, present=MASKS, extra={term: 2.0})
        gradients = torch.autograd.grad(loss["total"], [*model.parameters(), *there.values()], allow_unused=True)
        found.append([*loss.values(), *(g for g in gradients if g is not None)])
        for m, gradient in zip(there, gradients[-2:]):
            assert (gradient[~MASKS[m]] == 0).all() and gradient.isfinite().all()
    assert all(torch.equal(a, b) for a, b in zip(*found))


@pytest.mark.parametrize("term", TERMS)
def test_rows_none_of_which_has_both_add_nothing(term, x):
    model = make()
    half = torch.arange(ROWS) % 2 == 0
    loss = model.loss(x, present={"I": half, "T": ~half}, extra={term: 1.0})
    loss["total"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert term == "retain" or all(v == 0 for k, v in loss.items() if k.startswith(term))
    alone = model.loss({"I": x["I"]}, extra={term: 1.0})
    assert term == "retain" or all(v == 0 for k, v in alone.items() if k.startswith(term))


# ---------------------------------------------------------------- what is refused


def refusals():
    vector = mmvae.vectors(3, 1)
    pair, one = mmvae.PoEVAE({"a": vector, "b": vector}), mmvae.PoEVAE({"a": vector})
    classes = mmvae.PoEVAE({"a": vector, "label": mmvae.categories(4)})
    weight = r'expected 0 or a positive number$'
    known = "gap, contrast, retain, all-from-one, auxiliary, cross"
    return [(pair, {"gapp": 1.0}, f"^extra: found term 'gapp', expected some of {known}$"),
            (pair, ["gap"], rf"^extra: found \['gap'\], expected {{term: weight}}, of {known}$"),
            (pair, {"gap": -1.0}, rf'^extra\["gap"\]: found -1.0, {weight}'),
            (pair, {"contrast": math.inf}, rf'^extra\["contrast"\]: found inf, {weight}'),
            (pair, {"retain": math.nan}, rf'^extra\["retain"\]: found nan, {weight}'),
            (pair, {"cross": "1"}, rf"""^extra\["cross"\]: found '1', {weight}"""),
            (pair, {"cross": True}, rf'^extra\["cross"\]: found True, {weight}'),
            (tiny.build("vanilla"), {"gap": 1.0}, '^extra: found "gap" for VanillaVAE without shared latents, expected a model '
                                                  "with a block S$"),
            (one, {"retain": 1.0}, """^extra: found "retain" for PoEVAE of one modality, 'a', expected at least two$"""),
            (pair, {"auxiliary": 1.0}, '^extra: found "auxiliary" for PoEVAE without a prior to learn, expected one that '
                                       "mmvae.terms.prepare gave it before its optimiser was made$"),
            (classes, {"retain": 1.0}, r'^extra: found "retain" with modality "label", whose means are torch.float32 \(5, 4\) and '
                                       r"its data torch.int64 \(5,\), expected means that can be encoded as data$")]


@pytest.mark.parametrize("k", range(11))
def test_it_is_refused_in_a_sentence(k, tmp_path):
    model, extra, message = refusals()[k]
    x = {m: torch.rand(5, *of.shape) if m != "label" else torch.zeros(5, dtype=torch.int64) for m, of in model.modalities.items()}
    with pytest.raises(ValueError, match=message):
        model.loss(x, extra=extra)
    if k not in (9, 10):  # training gives the first its prior; the second is known when it is computed
        with pytest.raises(ValueError, match=message):
            mmvae.fit(model, Rows(x), tmp_path / "run", extra=extra, iterations=1)
        assert not (tmp_path / "run").exists()


def test_settings_refuse_what_they_cannot_be():
    with pytest.raises(ValueError, match="cross: found 1.0 and 2.0 in extra, expected one of the two"):
        Settings(cross=1.0, extra={"cross": 2.0})
    for wrong in (-1, 2.5, True):
        with pytest.raises(ValueError, match="extra_until: found .*, expected a whole number, at least 0"):
            Settings(extra={"gap": 1.0}, extra_until=wrong)
    with pytest.raises(ValueError, match="cross: found 0.0 and 1.0 in extra"):
        tiny.build().loss(tiny.rows().sample(4)[0], cross=0.0, extra={"cross": 1.0})
    with pytest.raises(ValueError, match='extra: found "gap" for VanillaVAE without shared latents'):
        Recipe("vanilla", extra={"gap": 1.0}).build()
    for name in ("all-from-one", "auxiliary"):
        with pytest.raises(ValueError, match=f"found a modality named '{name}'"):
            mmvae.PoEVAE({name: mmvae.vectors(3)})


# ---------------------------------------------------------------- in a run


def test_the_schedule():
    s = Settings(extra={"gap": 2, "cross": 0.5}, extra_until=10)
    assert [s.added_at(i) for i in (0, 9)] == 2 * [{"cross": None, "extra": {"gap": 2, "cross": 0.5}}]
    assert s.added_at(10) == {"cross": None, "extra": {"gap": 0.0, "cross": 0.0}}
    assert Settings(extra={}, cross=0.5, extra_until=3).added_at(5) == {"cross": 0.5, "extra": None}
    assert Settings(extra={"gap": 1.0}).added_at(79_999)["extra"] == {"gap": 1.0}


@pytest.mark.parametrize("iteration", [13, 27])
def test_a_run_with_all_of_them_resumes_bit_for_bit(iteration, tmp_path, monkeypatch):
    """Stopped while they are added, and after; its log names them, and its folder loads into a model built as it was."""
    settings = dict(extra=ALL, extra_until=20, data=gaps())
    whole = tiny.run(tmp_path / "whole", **settings)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, iteration)
        tiny.run(tmp_path / "cut", **settings)
    assert same(weights(tiny.run(tmp_path / "cut", **settings)), weights(whole))
    log = read_log(tmp_path / "cut")
    assert {f"{term}.{k}" for term in TERMS for k in NAMES[term]} < set(log)
    added = log["total"] + sum(log[k] for k in log if k.endswith(".elbo"))
    parts = sum(ALL[k.split(".")[0]] * log[k] for k in log if k.split(".")[0] in ALL)
    assert (added / parts).tolist() == pytest.approx([1.0] * 4 + [0.0] * 4, abs=1e-4)
    assert whole.auxiliary.abs().min() > 0 and same(weights(tiny.load(tmp_path / "whole")), weights(whole))
    with pytest.raises(ValueError, match="extra: found .*, asked for None"):
        tiny.run(tmp_path / "whole")


def gaps() -> Rows:
    full = tiny.rows()
    g = torch.Generator().manual_seed(4)
    return Rows(full.x, {"I": torch.rand(len(full), generator=g) < 0.7}, images="IT")


@pytest.mark.parametrize("model", ["mumo", "wg-v2"])
def test_other_models_train_with_all_of_them(model, tmp_path):
    tiny.run(tmp_path, model=model, extra=ALL, iterations=10)
    log = read_log(tmp_path)
    assert log["total"][-1] < log["total"][0] and all(map(math.isfinite, log["contrast.S"]))


def test_a_compiled_run_is_an_eager_one(tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "COMPILER", {"backend": "aot_eager"})
    monkeypatch.setattr(distributed.shutil, "which", lambda name: name)
    changes = dict(extra=ALL, extra_until=6, iterations=10, data=gaps())
    eager, compiled = (tiny.run(tmp_path / str(c), compile=c, **changes) for c in (False, True))
    for a, b in zip(eager.parameters(), compiled.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name, extra, until, missing", [
    ("poe-v2", ALL, None, False), ("mumo", ALL, None, True), ("poe-v2", {"gap": 2.0, "retain": 1.0}, 2, True)])
def test_a_stack_computes_what_each_computes_alone(name, extra, until, missing, monkeypatch):
    monkeypatch.setattr(stacked, "CHUNK", 10)
    rows, seeds = gaps() if missing else tiny.rows(), (0, 3)
    of = [Settings(batch=8, iterations=10, seed=k, extra=extra, extra_until=until) for k in seeds]
    models = [terms.prepare(tiny.build(name, k), extra) for k in seeds]
    stack = Stack(models, of, rows)
    begun = stack.weights.detach().clone()
    stack.index.random_(0, len(rows), generator=stack.generator)
    stack.noise.normal_(generator=stack.generator)
    stack.rates.copy_(torch.tensor([of[0].rate(i) for i in range(10)]))
    for i in range(4):
        stack._iteration(**of[0].added_at(i))
    for k, model in enumerate(models):
        optimiser = train.optimiser_of(model.train(), of[k])
        for i in range(4):
            x, present = rows.batch(stack.index[i, k])
            with stacked._Noise(stack.noise[i, k]).instead():
                found = train.update(model, optimiser, x, of[k], i, present)
            torch.testing.assert_close(dict(zip(stack.terms, stack.found[i, :, k])), found,
                                           **({"rtol": 5e-4, "atol": 1e-3} if i else {"rtol": 5e-5, "atol": 5e-4}))
        vector = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
        apart, way = (vector - weights.detach() for weights in (stack.weights[k], begun[k]))
        assert apart.norm() < 0.02 * way.norm()  # Adam makes a step of a gradient that is rounding alone, too


def test_a_stack_without_a_prior_to_learn_says_so():
    with pytest.raises(ValueError, match='extra: found "auxiliary" for PoEVAE without a prior to learn'):
        Stack([tiny.build()], [Settings(batch=8, extra={"auxiliary": 1.0})], tiny.rows())


def test_on_several_processes(tmp_path):
    """Each compares its own rows; all else is that of one process. What learns while a term is added alone may stop."""
    changes = dict(extra=ALL, extra_until=3, iterations=6, checkpoint_every=6, log_every=1)
    assert tiny.side_by_side(2, changes, tmp_path / "two", target=tiny.train) == [0, 0]
    tiny.run(tmp_path / "one", **changes)
    two, one = (read_log(tmp_path / name) for name in ("two", "one"))
    assert set(two) == set(one)
    for k in ("gap.I", "all-from-one.reconstruction.T", "auxiliary.reconstruction.I", "I+T.elbo"):
        assert two[k][0] == pytest.approx(one[k][0], rel=1e-4)
    assert two["contrast.S"][0] != pytest.approx(one["contrast.S"][0], rel=1e-3)  # among 4 rows, not 8
    assert all(map(math.isfinite, two["total"]))


# ---------------------------------------------------------------- in records


def test_records_from_before_there_were_terms_are_those_of_today(tmp_path):
    recipe = Recipe("poe-v2", size=16, iterations=4, batch=8)
    assert not {"extra", "extra_until"} & {*recipe.settings, *json.loads(recipe.key)}
    tiny.run(tmp_path)  # as a folder of before says it
    path = tmp_path / "settings.json"
    old = json.loads(path.read_text())
    for k in ("extra", "extra_until"):
        assert old["settings"].pop(k) is None
    path.write_text(json.dumps(old))
    assert same(weights(tiny.run(tmp_path)), weights(tiny.load(tmp_path)))


@pytest.mark.parametrize("extra, message", [
    ('{"gapp": 1.0}', "--extra: found term 'gapp', expected some of gap, contrast"),
    ('{"gap": -1}', '--extra["gap"]: found -1, expected 0 or a positive number'),
    ("gap", "--extra: found gap, expected a dictionary"),
    ('{"gap": 1.0}', '--extra: found "gap" for VanillaVAE without shared latents')])
def test_the_command_line_refuses_it_in_a_line(extra, message, capsys):
    with pytest.raises(SystemExit):
        command(["train", "vanilla", "none.h5", "none", "--extra", extra])
    assert message in capsys.readouterr().err


def test_a_recipe_with_terms(tmp_path):
    recipe = Recipe("poe-v2", size=16, iterations=4, batch=8, extra={"auxiliary": 1, "gap": 2.0}, extra_until=2)
    assert recipe.settings["extra"] == {"gap": 2.0, "auxiliary": 1} and Recipe.from_key(recipe.key) == recipe
    assert replace(recipe, extra={}).settings == Recipe("poe-v2", size=16, iterations=4, batch=8).settings | {"extra_until": 2}
    model = recipe.fit(tiny.rows(), tmp_path / "run", progress=False)
    assert same(weights(mmvae.load(tmp_path / "run")), weights(model)) and "auxiliary" in model.state_dict()
    assert Recipe.of(json.loads((tmp_path / "run" / "settings.json").read_text())) == recipe
    about = grid.Run("asks", "gap", recipe).about["settings"]
    assert about == json.loads(json.dumps(recipe.settings)) and Recipe(**about) == recipe
