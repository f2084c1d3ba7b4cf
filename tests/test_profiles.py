"""profiles.py: what a notebook asks for is made once, kept under a hash, and found again."""
from dataclasses import replace

import pytest
import torch

import mmvae
from mmvae import behaviour
from mmvae.experiment import measure, profiles, recipe, weights
from mmvae.show.views import Faces


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    monkeypatch.setenv("MMVAE_BUILD", str(tmp_path))
    profiles._pairs.cache_clear()
    yield replace(profiles.PROFILES["smoke"], iterations=4, identities=1, test_identities=1, stored_size=16)
    profiles._pairs.cache_clear()


def test_the_name_comes_from_the_argument_then_the_environment_then_cpu(monkeypatch):
    monkeypatch.setenv("MMVAE_PROFILE", "smoke")
    assert mmvae.profile().name == mmvae.profile("smoke").name == "smoke"
    assert mmvae.profile("cpu").name == "cpu"
    monkeypatch.setenv("MMVAE_PROFILE", "")
    assert mmvae.profile().name == "cpu"
    with pytest.raises(ValueError, match='PROFILE: found "laptop", expected one of smoke, cpu, book, gpu'):
        mmvae.profile("laptop")


def test_gpu_without_a_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="needs a CUDA device"):
        mmvae.profile("gpu")


def test_the_book_states_its_profiles():
    smoke, cpu, book, gpu = profiles.PROFILES.values()
    assert (cpu.size, gpu.size, gpu.iterations) == (64, 64, 80_000) and cpu.settings("mumo") == book.settings("mumo")
    assert all(p.identities == 500 and p.test_identities == 200 for p in (book, gpu))
    assert cpu.weight == gpu.weight == 1 and [p.name for p in profiles.PROFILES.values() if p.published] == ["cpu"]
    assert cpu.live["size"] == 32 and cpu.settings("vanilla", **cpu.live).weight == 4
    assert smoke.live == gpu.live == {}  # the run that they have anyway


def test_a_run_is_trained_once_and_then_loaded(tiny, monkeypatch):
    trained = tiny.train("mumo", progress=False)
    monkeypatch.setattr(mmvae.train, "_read", lambda *a: pytest.fail("trained again"))
    loaded = tiny.train("mumo", progress=False)
    assert all(torch.equal(a, b) for a, b in zip(trained.state_dict().values(), loaded.state_dict().values()))
    assert tiny.log("mumo")["iteration"].tolist() == [4]
    assert tiny.measure("mumo")["settings"]["model"] == "mumo"


def test_what_is_published_is_loaded_and_what_is_changed_is_trained(tiny, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(weights, "FOLDER", tmp_path / "none")
        with pytest.raises(FileNotFoundError, match="mumo.json: no such file; `python -m mmvae.experiment publish mumo`"):
            replace(tiny, published=True).train("mumo")
    trained = tiny.train("mumo", progress=False)
    record = weights.publish(tiny.run_dir("mumo"), tiny.pairs("train"), tiny.pairs("test"), 64, tmp_path / "published")
    monkeypatch.setattr(weights, "FOLDER", tmp_path / "published")
    reader = replace(tiny, published=True)
    with monkeypatch.context() as patch:
        patch.setattr(mmvae.models.MultiModalVAE, "loss", lambda *a, **k: pytest.fail("trained"))
        for model in (reader.train("mumo"), reader.train("mumo", seed=0)):
            for ours, theirs in zip(model.state_dict().values(), trained.state_dict().values()):
                assert torch.equal(ours, theirs.half().float())
    assert capsys.readouterr().out.count("mumo: published, ") == 2
    assert {k: v.tolist() for k, v in reader.log("mumo").items()} == record["log"]
    assert reader.measure("mumo", 64) == record
    numbers = measure.numbers(reader.train("mumo"), tiny.pairs("train"), tiny.pairs("test"), tiny.weight, 32)
    assert reader.measure("mumo", 32) == record | numbers
    assert reader.settings("mumo") == recipe.Recipe(**record["settings"])
    reader.train("mumo", progress=False, seed=1)
    assert reader.log("mumo", seed=1)["iteration"].tolist() == [4] and reader.measure("mumo", 32, seed=1)["n"] == 32


def test_a_run_at_another_size_has_pairs_of_that_size(tmp_path, monkeypatch):
    monkeypatch.setenv("MMVAE_BUILD", str(tmp_path))
    profile = replace(profiles.PROFILES["smoke"], iterations=3, size=32, identities=1, test_identities=1)
    model = profile.train("vanilla", progress=False, size=16)
    assert model.modalities["I"].shape == (1, 16, 16)
    assert 16 == profile.pairs("test", size=16).size and profile.pairs("test").size == 32
    assert profile.log("vanilla", size=16)["iteration"].tolist() == [3]
    assert profile.measure("vanilla", 32, size=16)["settings"]["size"] == 16


def test_a_folder_is_of_settings_and_data(tiny):
    first = tiny.run_dir("mumo")
    assert first == tiny.run_dir("mumo")
    others = {tiny.run_dir("mumo", seed=1), tiny.run_dir("poe-v1"), tiny.run_dir("mumo", batch=5),
              replace(tiny, identities=2).run_dir("mumo")}
    assert len(others | {first}) == 5


def test_a_run_of_code_that_computed_something_else_is_refused_with_the_numbers(tiny, monkeypatch):
    tiny.train("mumo", progress=False)
    kl = mmvae.Gaussian.kl
    monkeypatch.setattr(mmvae.Gaussian, "kl", lambda self, other=None: 1.01 * kl(self, other))
    with pytest.raises(ValueError, match=r"holds a run of code that computed something else \(.*I.kl.I: found .*, now "):
        tiny.train("mumo", progress=False)
    monkeypatch.setattr(behaviour, "TOLERANCE", 0.1)
    tiny.train("mumo", progress=False)


def test_the_data_are_rendered_once(tiny, monkeypatch):
    path = tiny.data_file
    monkeypatch.setattr(mmvae.faces, "write", lambda *a, **k: pytest.fail("rendered again"))
    assert tiny.data_file == path and path.exists()
    assert tiny.pairs("train") is tiny.pairs("train")
    assert tiny.pairs("test").split == "test"


def test_only_who_is_shown_is_rendered_and_as_the_file_has_it(tiny, monkeypatch):
    reader = replace(tiny, published=True, identities=10, test_identities=2, size=8)
    shown, test = reader.pairs("train"), reader.pairs("test")
    last = profiles.Shown(reader, "train", 8)
    assert shown is reader.pairs("train") and (shown.shape, len(test)) == ((10, 21, 11, 11), 2 * 21 * 11 * 11)
    seen, render = [], profiles.file.head
    monkeypatch.setattr(profiles, "head", lambda k, *a: seen.append(k) or render(k, *a))
    monkeypatch.setattr(mmvae.faces, "write", lambda *a: pytest.fail("everybody is rendered"))
    pictures = shown.fixed(3), test.fixed(2), shown.at([4, 2, 4], 1, 2, 3), Faces([shown, test]).tiles
    assert set(seen) == {0, 1, 2, 4, 1_000_000, 1_000_001} and not (path := reader.data_path).exists()
    monkeypatch.undo()
    monkeypatch.setenv("MMVAE_BUILD", str(path.parent))
    file = {split: mmvae.faces.Pairs(reader.data_file, split, size=8) for split in ("train", "test")}
    expected = (file["train"].fixed(3), file["test"].fixed(2), file["train"].at([4, 2, 4], 1, 2, 3),
                Faces(list(file.values())).tiles)
    torch.testing.assert_close(pictures, expected, rtol=0, atol=0)
    torch.testing.assert_close(shown.sample(64), file["train"].sample(64), rtol=0, atol=0)  # the same draws: of everybody
    assert shown.fingerprint == file["train"].fingerprint
    for name in ("axes", "factors", "shape", "split", "size", "unit", "device"):
        assert getattr(shown, name) == getattr(file["train"], name)
    torch.testing.assert_close(shown.values, file["train"].values, rtol=0, atol=0)
    torch.testing.assert_close(last[-1], file["train"][-1], rtol=0, atol=0)
    assert len(last[:0][0]["I"]) == 0
