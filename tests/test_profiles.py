"""profiles.py: what a notebook asks for is made once, kept under a hash, and found again."""
from dataclasses import replace

import pytest
import torch

import mmvae
from mmvae import profiles


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
    with pytest.raises(ValueError, match='PROFILE: found "laptop", expected one of smoke, cpu, gpu'):
        mmvae.profile("laptop")


def test_gpu_without_a_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="needs a CUDA device"):
        mmvae.profile("gpu")


def test_the_book_states_its_profiles():
    cpu, gpu = profiles.PROFILES["cpu"], profiles.PROFILES["gpu"]
    assert (cpu.size, gpu.size, gpu.iterations) == (32, 64, 80_000)
    assert profiles.PROFILES["cpu"].weight == 4


def test_a_run_is_trained_once_and_then_loaded(tiny, monkeypatch):
    trained = tiny.train("mumo", progress=False)
    monkeypatch.setattr(mmvae.models.MultiModalVAE, "loss", lambda *a: pytest.fail("trained again"))
    loaded = tiny.train("mumo", progress=False)
    assert all(torch.equal(a, b) for a, b in zip(trained.state_dict().values(), loaded.state_dict().values()))
    assert tiny.log("mumo")["iteration"].tolist() == [4]
    assert tiny.measure("mumo")["settings"]["model"] == "mumo"


def test_the_hash_depends_on_settings_data_and_code(tiny, monkeypatch):
    first = tiny.run_dir("mumo")
    assert first == tiny.run_dir("mumo")
    others = {tiny.run_dir("mumo", seed=1), tiny.run_dir("poe-v1"), tiny.run_dir("mumo", batch=5),
              replace(tiny, identities=2).run_dir("mumo")}
    monkeypatch.setitem(profiles.SOURCE, mmvae.models, b"# changed")
    others.add(tiny.run_dir("mumo"))
    assert len(others | {first}) == 6


def test_the_data_are_rendered_once(tiny, monkeypatch):
    path = tiny.data_file
    monkeypatch.setattr(mmvae.faces, "write", lambda *a: pytest.fail("rendered again"))
    assert tiny.data_file == path and path.exists()
    assert tiny.pairs("train") is tiny.pairs("train")
    assert tiny.pairs("test").split == "test"
