"""widgets.py, without a browser: what the page is told, what the assets hold, what is refused."""
import base64
import gzip
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load
from torch import nn

from browser import state
from mmvae import widgets
from mmvae.data import Pairs
from mmvae.faces import write
from mmvae.models import MODELS
from mmvae.nets import Decoder, Encoder

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "faces.h5"
    write(path, identities=4, test_identities=2, size=16, progress=False)
    return [Pairs(path), Pairs(path, "test")]


def make(name, data, **options):
    torch.manual_seed(0)
    model = MODELS[name](size=16)
    x, factors = data[0].fixed(3)
    return model, x, widgets.explorer({name: model}, x, factors, data, **options)


def unpacked(data: bytes) -> dict:
    """As js/explorer.js reads it: low bytes, then high bytes, of fp16."""
    return {k: v.movedim(0, -1).contiguous().view(torch.float16).squeeze(-1).float()
            for k, v in load(gzip.decompress(data)).items()}


@pytest.mark.parametrize("name", MODELS)
def test_the_assets_are_the_models_networks(name, data):
    model, _, widget = make(name, data)
    about = widget.config["models"][name]
    found = unpacked(widget.assets[about["encoders"]]) | unpacked(widget.assets[about["decoders"]])
    expected = model.state_dict()
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].shape == value.shape
        torch.testing.assert_close(found[key], value, rtol=2**-9 + 2**-11, atol=2**-22)  # 8 bits kept, from fp16
    assert about["sees"] == list(model.encoders) and about["blocks"] == model.blocks


def test_an_asset_has_the_name_of_its_bytes(data):
    one, two = (make("mumo", data)[2] for _ in range(2))
    assert one.assets == two.assets  # the same model: one download for all pages
    assert make("poe-v2", data)[2].config["sprites"] == one.config["sprites"]


def test_the_presets_start_at_their_posterior_means(data):
    model, x, widget = make("mumo", data)
    with torch.no_grad():
        q = model.posterior(x)
    for k, start in enumerate(widget.config["models"]["mumo"]["start"]):
        for b in model.blocks:
            np.testing.assert_allclose(start[b]["mu"], q[b].mu[k], atol=1e-4)
            np.testing.assert_allclose(start[b]["logvar"], q[b].logvar[k], atol=1e-4)
    assert widget.latents == {b: v["mu"] for b, v in widget.config["models"]["mumo"]["start"][0].items()}
    strip = Image.open(io.BytesIO(base64.b64decode(widget.config["inputs"].partition(",")[2])))
    expected = (255 * torch.cat([x["I"], x["T"]])).round().to(torch.uint8)[:, 0]
    assert np.array_equal(np.concatenate(list(expected.numpy()), 1), np.array(strip))


def test_the_sheet_of_faces_is_the_grid_in_the_order_of_the_page(data):
    _, _, widget = make("mumo", data)
    sheet = np.array(Image.open(io.BytesIO(widget.assets[widget.config["sprites"]])).convert("L")).astype(int)
    words = widget.config["factors"]
    assert words["identity"] == ["1", "2", "3", "4 new", "5 new"] and len(words["light"]) == 11
    assert words["azimuth"][0] == "\N{MINUS SIGN}90°" and words["elevation"][-1] == "+30°"
    n, a, e, l = 3, 7, 4, 9  # "4 new" is the first of the test split
    cell = n * len(words["azimuth"]) + a
    for m, k, truth in (("I", cell * len(words["elevation"]) + e, data[1].at(0, 2 * a, 2 * e, 0)[0]["I"]),
                        ("T", 5 * 11 * 6 + cell * 11 + l, data[1].at(0, 2 * a, 0, l)[0]["T"])):
        row, column = divmod(k, 32)
        tile = sheet[16 * row:16 * row + 16, 16 * column:16 * column + 16]
        assert np.abs(tile - 255 * truth[0, 0].numpy()).mean() < 6, m  # WebP of quality 90
    for k, at in enumerate(widget.config["pairs"]):
        assert at["identity"] == k and set(at) == {"identity", "azimuth", "elevation", "light"}


def test_python_moves_the_latents_and_hears_of_it(data):
    _, _, widget = make("mumo", data)
    heard = []
    widget.on_change(heard.append)
    z = {"I": [1.0, 0.0], "S": [0.0] * 5, "T": [0.0, 2.0]}
    widget.latents = z
    assert heard == [z] and widget.latents == z
    widget.set_state({"latents": z | {"I": [0.5, 0.5]}})  # what a message of the page does
    assert heard[-1]["I"] == [0.5, 0.5]


def test_a_kernel_answers_with_an_asset_or_says_that_there_is_none(data, monkeypatch):
    _, _, widget = make("mumo", data)
    sent, name = [], widget.config["sprites"]
    monkeypatch.setattr(widget, "send", lambda content, buffers=None: sent.append((content, buffers)))
    widget._answer(widget, {"need": name}, [])
    widget._answer(widget, {"need": "nonsense"}, [])
    assert sent == [({"asset": name}, [widget.assets[name]]), ({"asset": "nonsense", "error": "no asset nonsense"}, [])]


def test_the_page_carries_the_state_and_the_still_picture_and_no_weights(data):
    _, _, widget = make("mumo", data)
    page = widget._repr_mimebundle_()[0]["text/html"]
    found = state(page)
    assert found["kind"] == "explorer" and found["state"]["latents"] == widget.latents
    assert set(found["state"]) == {"config", "model", "pair", "observed", "factors", "latents"}
    assert 'class="mmvae-picture' in page and "<figcaption>" in page and 'alt="Traversal of one pair' in page
    assert len(json.dumps(found)) < 20_000
    assert set(widget.get_state()) >= {"_esm", "latents"} and not any(
        isinstance(value, bytes) for value in widget.get_state().values())


def test_its_assets_are_left_where_the_build_asks(data, tmp_path, monkeypatch):
    monkeypatch.setenv("MMVAE_ASSETS", str(tmp_path / "assets"))
    _, _, widget = make("mumo", data)
    assert {path.stem for path in (tmp_path / "assets").iterdir()} == set(widget.assets)
    name = widget.config["sprites"]
    text = (tmp_path / f"assets/{name}.js").read_text()
    assert text == f'mmvaeAsset("{name}","{base64.b64encode(widget.assets[name]).decode()}");\n'


class OneModality:
    """A reader's own: one image, one block, the book's networks."""
    size, blocks = 16, {"Z": 3}

    def __init__(self):
        self.encoders = nn.ModuleDict({"I": Encoder({"Z": 3}, size=16)})
        self.decoders = nn.ModuleDict({"I": Decoder(3, size=16)})

    def posterior(self, x):
        return self.encoders["I"](x["I"])


def test_a_model_of_ones_own_goes_in(data):
    widget = widgets.explorer(OneModality(), {"I": data[0].fixed(2)[0]["I"]})
    assert widget.config["modalities"] == "I" and widget.config["factors"] == {} and not widget.config["sprites"]
    assert widget.observed == "I" and list(widget.latents) == ["Z"] and len(widget.config["pairs"]) == 2


def test_what_cannot_be_shown_is_refused(data):
    x, factors = data[0].fixed(3)
    model = MODELS["mumo"](size=16)
    with pytest.raises(ValueError, match="explorer: found 0 models"):
        widgets.explorer({}, x)
    with pytest.raises(ValueError, match="expected some pairs"):
        widgets.explorer(model, {"I": x["I"][:0]})
    with pytest.raises(ValueError, match=r'explorer: x\["I"\] has 32 pixels a side, "model" expects 16'):
        widgets.explorer(model, {m: torch.zeros(1, 1, 32, 32) for m in "IT"})
    with pytest.raises(ValueError, match="found faces, but not the factors of x"):
        widgets.explorer(model, x, faces=data)
    other = SimpleNamespace(size=16, blocks={"Z": 3}, encoders=nn.ModuleDict({"I": nn.Linear(2, 2)}), decoders={})
    with pytest.raises(TypeError, match='encoders of "model": found Linear I, expected mmvae.nets.Encoder'):
        widgets.explorer(other, x)
