"""The benchmarks' arithmetic by hand, and each script at a tiny size."""
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence

import mmvae
from mmvae import gaussian, stacked
from mmvae.experiment import weights
from mmvae.experiment.recipe import Recipe
from mmvae.experiment.table import pair
from mmvae.faces import Grid, Pairs
from mmvae.train import read_log

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
import browser  # noqa: E402
import core  # noqa: E402
import cost  # noqa: E402
import gpu  # noqa: E402
import measure  # noqa: E402
import page  # noqa: E402
import report  # noqa: E402
import scaling  # noqa: E402
import steps  # noqa: E402
import terms  # noqa: E402
import throughput  # noqa: E402
import time_to_quality  # noqa: E402

TINY = Recipe("poe-v2", size=16, batch=4, iterations=20, log_every=10, warmup=5)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def no_noise(monkeypatch):
    monkeypatch.setattr(gaussian, "noise", torch.zeros_like)


def random_images(size: int, identities: int = 3) -> Pairs:
    """Pairs of noise, all of them for training."""
    g = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (identities, 4, 5, size, size), generator=g, dtype=torch.uint8) for _ in "IT"]
    return Pairs(Grid(*images, identity=torch.arange(identities), azimuth=torch.arange(4.0), elevation=torch.arange(5.0),
                      light=torch.arange(5.0), test_identities=0))


# measure


def test_rounds_alternate_their_order_and_the_first_is_not_kept(monkeypatch):
    clock, order = [0.0], []
    monkeypatch.setattr(measure.time, "process_time", lambda: clock[0])

    def arm(name, seconds):
        def run():
            order.append(name)
            clock[0] += seconds
        return run

    rates = measure.interleave({"a": (arm("a", 2), 10), "b": (arm("b", 4), 10), "c": (arm("c", 5), 10)}, rounds=3)
    assert "".join(order) == "cba" "abc" "cba" "abc"
    assert rates == {"a": [5.0] * 3, "b": [2.5] * 3, "c": [2.0] * 3}


def test_operations_of_one_layer_by_hand():
    layer, x = torch.nn.Linear(5, 7), torch.randn(3, 5)
    product = 2 * 3 * 5 * 7  # forward; as much again for the gradient of the weights, and for that of x if asked
    assert measure.flops(lambda: layer(x)) == product
    assert measure.flops(lambda: layer(x).sum().backward()) == 2 * product
    assert measure.flops(lambda: layer(x.requires_grad_()).sum().backward()) == 3 * product


def test_the_step_that_is_timed_trains():
    pairs, model = random_images(16), TINY.build()
    draw, step = measure.trainer(model, pairs, TINY)
    x = draw()
    losses = [step(x)["total"].item() for _ in range(40)]
    assert x["I"].shape == (4, 1, 16, 16) and np.mean(losses[-5:]) < 0.9 * losses[0]


def test_noise_has_the_shape_of_the_heads():
    pairs = measure.random_pairs(16, 2)
    assert pairs.shape == (2, 21, 11, 11)
    assert {m: tuple(image.shape) for m, image in pairs.images.items()} == dict.fromkeys("IT", (2, 21, 11, 16, 16))


# throughput


def test_objective_of_dmvae_against_its_sum_written_out(no_noise):
    model, x = pair(throughput.DMVAE, size=16).eval(), random_images(16).sample(6)[0]
    with torch.no_grad():
        q = {m: model.encoders[m](x[m]) for m in "IT"}
        found = model.terms(x, weight=3.0)["total"]
        expected, prior = torch.zeros(6), Normal(0.0, 1.0)
        for experts in ("I", "T", "IT"):  # by their letters
            precision = (len(experts) > 1) + sum((-q[m]["S"].logvar).exp() for m in experts)  # the pair's has the prior
            mu = sum((-q[m]["S"].logvar).exp() * q[m]["S"].mu for m in experts) / precision
            expected += kl_divergence(Normal(mu, precision.rsqrt()), prior).sum(1)
            for m in "IT":
                private = q[m][m]
                expected += kl_divergence(Normal(private.mu, (0.5 * private.logvar).exp()), prior).sum(1)
                image = model.decoders[m](torch.cat([private.mu, mu], 1)).sigmoid()
                expected += 3 * F.binary_cross_entropy(image, x[m], reduction="none").sum((1, 2, 3))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


@pytest.fixture
def theirs(monkeypatch):
    """In place of multivae, which tests do not install: our own loss behind the names that `compare` calls."""
    def trainer(ours, x, recipe, adam, folder):
        return SimpleNamespace(model=ours, train_step=lambda epoch: ours.loss(x)["total"].backward())
    fake = SimpleNamespace(trainer=trainer, loss=lambda trainer, x: trainer.model.loss(x)["total"])
    monkeypatch.setitem(sys.modules, "theirs", fake)
    monkeypatch.setattr(throughput, "SIDE", 32)
    return fake


def test_throughput_of_all_arms(theirs):
    record = json.loads(json.dumps(throughput.compare(TINY, steps=2, rounds=2, identities=2)))
    assert set(record["rates"]) == {*record["arms"], "matrix product"} and len(record["arms"]) == 8
    assert all(len(rates) == 2 and min(rates) > 0 for rates in record["rates"].values())
    record["rates"] |= {"MVAE, ours": [100.0, 120.0], "MVAE, multivae, fused Adam": [50.0, 80.0],
                        "matrix product": [1e10, 1e10]}
    record["flops_per_pair"]["MVAE, ours"] = 5e6
    text = report.throughput(record)
    assert "| MVAE, multivae, fused Adam | 4 | 4 | 65 | 58–72 | 1.69 (1.62–1.88) |" in text
    assert "; 1.69 × MVAE, multivae, fused Adam;" in text and "A step of ours reaches " in text
    assert "| MVAE, ours | 5.0 | 0.6 | 6 % (5–6) |" in text


def test_another_objective_is_not_timed(theirs):
    theirs.loss = lambda trainer, x: 1.001 * trainer.model.loss(x)["total"]
    with pytest.raises(AssertionError, match="not close"):
        throughput.compare(TINY, steps=2, rounds=1, identities=2)


# cost


def test_cost_of_each_configuration():
    base = {"model": "mumo", "batch": 4, "size": 16, "identities": 2}
    varied = {"batch": (4, 8), "size": (16, 32), "identities": (2, 20), "model": ("mumo", "vanilla")}
    record = json.loads(json.dumps(cost.cost(base, varied, rounds=2, seconds=0.01)))
    rows = record["rows"]
    assert len(rows) == 5  # the base occurs four times and is measured once
    flops = {name: row["flops_per_pair"] for name, row in rows.items()}
    assert flops[report.label(base)] == flops[report.label(base | {"batch": 8})]
    assert flops[report.label(base)] < flops[report.label(base | {"size": 32})]
    assert rows[report.label(base)]["data_bytes"] == 2 * (2 * 21 * 11 * 16 * 16)
    for name, row in rows.items():
        row["pairs_per_second"] = [300.0, 400.0] if "identities 20" in name else [400.0, 400.0]
    text = report.cost(record)
    assert text.count("| 1.00 |") == 7 and "from identities 2 to 20 × 0.88 (0.81–0.94)" in text


# steps


def test_a_step_of_each_model_is_timed_in_turns_and_the_stored_record_has_every_model(one_thread):
    found = steps.steps(16, 4, 2, 1, ("poe-v1", "mmvae+"))
    assert {name: len(of) for name, of in found["seconds"].items()} == {"poe-v1": 2, "mmvae+": 2}
    assert min(min(of) for of in found["seconds"].values()) > 0
    stored = json.loads((weights.FOLDER / "steps.json").read_text())
    assert list(stored["seconds"]) == list(mmvae.MODELS) and stored["machine"]["threads"] == 1
    assert {name: sum(p.numel() for p in mmvae.MODELS[name](size=32).parameters())
            for name in ("vanilla", "jmvae")}.items() <= stored["parameters"].items()


# terms


def test_the_time_of_a_step_with_each_term_beside_the_plain_one(capsys, one_thread):
    terms.main(["--size", "16", "--batch", "4", "--rounds", "2", "--steps", "1"])
    printed = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [name for name, *_ in printed] == ["plain", *mmvae.terms.ADDED] and printed[0][2] == "1.00"
    assert terms.ratios({"plain": [4.0, 6.0, 5.0], "gap": [2.0, 4.0, 2.0]}) == {
        "plain": (1.0, 1.0, 1.0), "gap": (2.5, 1.5, 2.5)}


# gpu


def test_the_trainings_of_the_gpu_benchmark(monkeypatch):
    monkeypatch.setattr(mmvae.distributed, "COMPILER", {"backend": "eager"})  # traces, and compiles nothing
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    for module, name, value in ((gpu, "SEEDS", 3), (stacked, "CHUNK", 10)):
        monkeypatch.setattr(module, name, value)
    pairs = random_images(16)
    record = json.loads(json.dumps(gpu.compare(pairs, pairs, TINY, gpu.ARMS, n=8)))
    assert before == (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32)
    eager, compiled = record["rows"]["fp32, eager"], record["rows"]["fp32, compiled"]
    assert list(record["rows"])[-1] == "fp32, 3 seeds as one, each" and record["rows"]["fp32, 3 seeds as one, each"]["seconds"] > 0
    assert eager["unseen"] == pytest.approx(compiled["unseen"], rel=1e-3) and eager["seconds"] > 0
    record["rows"] = {"fp32, eager": {"seconds": 90.0, "first_row_seconds": 0.5, "unseen": 2600.0, "seen": 2500.0},
                      "tf32, compiled": {"seconds": 45.0, "first_row_seconds": 9.0, "unseen": 2599.5, "seen": 2501.0}}
    assert "| tf32, compiled | 45.0 | 9.0 | 2.00 | 2,599.5 | −0.5 | 2,501.0 |" in report.gpu(record)
    assert "20 iterations take 45.0 s at best (tf32, compiled), and 90.0 s in the plain loop" in report.gpu(record)


def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stopped:
        gpu.main([])
    assert stopped.value.code == 1 and "needs a CUDA device" in capsys.readouterr().err


# scaling


def test_a_rate_leaves_the_first_row_out(tmp_path):
    (tmp_path / "log.csv").write_text("iteration,seconds,total\n10,5.00,1\n20,6.00,1\n30,7.00,1\n40,9.00,1\n")
    assert scaling.rate(read_log(tmp_path), batch=64) == 64 * 30 / 4
    with pytest.raises(ValueError, match="found 1 rows within 0.00 s"):
        scaling.rate({"iteration": np.array([10]), "seconds": np.array([5.0])}, 64)


def test_python_is_run_on_one_thread_and_its_failure_is_told():
    assert scaling.python("-c", "import os; print(os.environ['OMP_NUM_THREADS'])", processes=0) == "1\n"
    with pytest.raises(RuntimeError, match="exit status 3(.|\n)*no such thing"):
        scaling.python("-c", "import sys; print('no such thing', file=sys.stderr); sys.exit(3)", processes=0)


def test_an_exchange_takes_time_and_ends(monkeypatch):
    for key, value in {"RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": tiny.free_port()}.items():
        monkeypatch.setenv(key, str(value))
    assert 0 < scaling.exchange(1000, repeats=3) < 1 and not torch.distributed.is_initialized()


def test_every_way_to_train_is_run_in_every_round(tmp_path, monkeypatch, one_thread):
    data, said = tmp_path / "noise.h5", []
    pairs = random_images(16)
    with h5py.File(data, "w") as f:
        f.attrs["test_identities"] = 0
        for name, tensor in (pairs.images | pairs.values).items():
            f[name] = tensor.numpy()

    def python(*arguments, processes):  # the training command, in this process
        said.append((arguments[0], processes))
        if arguments[0] == "-m":
            from mmvae.experiment.__main__ import main

            main([str(a) for a in arguments[2:]])
        return "0.002\n"

    monkeypatch.setattr(scaling, "python", python)
    monkeypatch.setattr(scaling, "rate", lambda log, batch: float(batch * len(log["iteration"])))  # a clock is coarser
    record = json.loads(json.dumps(scaling.scaling(data, (4, 8), rounds=2, rows=3, seconds=0.02, size=16)))
    assert [count for word, count in said if word == "-m"] == [0, 1, 2, 0, 1, 2, 2, 1, 0, 2, 1, 0]
    assert record["exchange_seconds"] == [0.002] * 2 and record["pair_bytes"] == 2 * 16 * 16
    assert record["rates"] == {"4": dict.fromkeys(scaling.PROCESSES, [12.0] * 2),
                               "8": dict.fromkeys(scaling.PROCESSES, [24.0] * 2)}
    assert record["gradient_bytes"] == 4 * sum(p.numel() for p in mmvae.MODELS["mumo"](size=16).parameters())


# core

def test_a_version_takes_its_turns_beside_itself(capsys):
    """The same code on both sides; the other side's way of calling a version is the one that its `Settings` asks for."""
    arguments = ["--other", str(core.ROOT), "--models", "poe-v1", "vanilla", "--rounds", "2", "--seconds", "0.02"]
    assert core.main([*arguments, "--size", "16", "--batch", "4", "--least", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["model", "poe-v1", "vanilla"]
    assert all(0.1 < float(line.split()[3]) < 10 for line in lines[1:])


def test_a_ratio_by_hand_and_a_slower_version_is_told(monkeypatch, capsys):
    rates = {"here": [90.0, 100.0, 80.0], "other": [100.0, 100.0, 100.0]}
    assert core.ratio(rates) == pytest.approx((0.9, 0.85, 0.95)) and core.ratio({"here": [3.0], "other": [2.0]}) == (1.5,) * 3
    monkeypatch.setattr(core, "compare", lambda *arguments: {"mumo": rates, "wg-v1": rates | {"here": rates["other"]}})
    assert core.main(["--other", str(core.ROOT)]) == 1
    mumo, wg = capsys.readouterr().out.splitlines()[1:]
    assert mumo.endswith("0.900 (0.850-0.950) low") and wg.endswith("1.000 (1.000-1.000)")


def test_a_folder_without_the_package_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        core.main(["--other", str(tmp_path)])
    assert "expected the folder of a checkout" in capsys.readouterr().err


# time to quality


def test_both_recipes_in_turns(one_thread):
    pairs, saved = random_images(64), []
    record = time_to_quality.compare(pairs, pairs, (0.05,), (0.1,), 0.05, 8, lambda r: saved.append(json.dumps(r)))
    assert json.loads(saved[-1]) == json.loads(json.dumps(record)) and len(saved) == 2
    common, ours = record["common"][0], record["ours"][0]
    assert common["mark"] == 0.05 and common["seconds"] >= 0.05 and common["iterations"] >= 1
    assert ours["mark"] == 0.1 and ours["unseen"] == ours["seen"]  # the same pairs here
    assert "CPU seconds" in report.time_to_quality(record)


def test_every_change_makes_a_step(one_thread):
    pairs = random_images(64)
    found = time_to_quality.changes(pairs, Recipe("mumo", batch=8))
    for name, (recipe, arguments) in found.items():
        if name != "torch.compile":  # minutes of a compiler
            run = time_to_quality.changed(pairs, recipe, **arguments)
            before = [p.detach().clone() for p in run.model.parameters()]
            run.step(0)
            assert any(not torch.equal(a, b) for a, b in zip(before, run.model.parameters())), name


def test_one_pass_through_a_decoder_gives_the_same_loss(no_noise):
    model, x = mmvae.MODELS["mumo"](size=16), random_images(16).sample(5)[0]
    expected = model.loss(x, 2.0)["total"]
    torch.testing.assert_close(time_to_quality.merged(model).loss(x, 2.0)["total"], expected)


# page


@browser.needs_chromium
def test_page_measures_bytes_the_first_picture_and_every_move(tmp_path):
    g = torch.Generator().manual_seed(0)
    x = {m: torch.rand(2, 1, 16, 16, generator=g) for m in "IT"}
    widget = mmvae.show.widgets.explorer({name: mmvae.MODELS[name](size=16) for name in ("mumo", "vanilla")}, x)
    browser.write(tmp_path / "notebooks", widget, name="01_a.html")
    (tmp_path / "index.html").write_text("a book")
    page.main(["--site", str(tmp_path), "--rounds", "2", "--windows", "2", "--out", str(tmp_path)])
    record = json.loads((tmp_path / "page.json").read_text())
    row = record["rows"]["01_a"]
    assets = [widget.config["models"]["mumo"]["decoders"], "widgets"]
    files = [(tmp_path / f"notebooks/widgets/{name}.js").stat().st_size for name in assets]
    assert 0.2 * sum(files) < row["own_bytes"] < sum(files) and row["page_bytes"] > row["own_bytes"]
    assert len(row["first_seconds"]) == 2 and all(0 < s < 30 for s in row["first_seconds"])
    assert {name: len(times) for name, times in row["moves"].items()} == {
        "mumo": 18, "mumo, xT not observed": 10, "vanilla": 20}
    assert all(ms >= 0 for times in row["moves"].values() for ms in times)


def test_what_was_compiled_before_the_clock_starts_anew():
    used, fresh = (Recipe("mumo", size=16, seed=seed).build() for seed in (1, 2))
    assert time_to_quality.renewed(used, fresh) is used
    assert all(torch.equal(a, b) for a, b in zip(used.parameters(), fresh.parameters()))
