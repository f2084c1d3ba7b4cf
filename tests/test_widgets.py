"""widgets.py, without a browser: what the page is told, what the assets hold, what is refused."""
import base64
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from browser import state
from mmvae import MODELS, PoEVAE, VanillaVAE, categories, images, vectors
from mmvae.experiment import FIRST
from mmvae.faces import Pairs, write
from mmvae.likelihoods import Normal
from mmvae.nets import Encoder, ImageEncoder
from mmvae.show import explorables, page, widgets

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


@pytest.mark.parametrize("name", [*FIRST, "dmvae"])  # of the others the page has pictures
def test_the_assets_are_the_models_networks(name, data):
    model, _, widget = make(name, data)
    about = widget.config["models"][name]
    found = page.unpack(widget.assets[about["encoders"]]) | page.unpack(widget.assets[about["decoders"]])
    expected = model.state_dict()
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].shape == value.shape
        torch.testing.assert_close(found[key], value, rtol=2**-9 + 2**-11, atol=2**-22)  # 8 bits kept, from fp16
    assert set(about["readers"]) == set(model.encoders) and about["blocks"] == model.blocks and not about["live"]
    assert list(about["infer"]) == ["+".join(s) for s in model.seen]


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
    for m in "IT":
        strip = Image.open(io.BytesIO(base64.b64decode(widget.config["given"][m]["png"].partition(",")[2])))
        assert np.array_equal(np.concatenate(list((255 * x[m]).round().to(torch.uint8)[:, 0].numpy()), 1), np.array(strip))


def test_the_sheet_of_faces_is_the_grid_in_the_order_of_the_page(data):
    _, _, widget = make("mumo", data)
    sheet = np.array(Image.open(io.BytesIO(widget.assets[widget.config["sprites"]])).convert("L")).astype(int)
    words = widget.config["factors"]
    assert words["identity"] == ["1", "2", "3", "4 new", "5 new"] and len(words["light"]) == 11
    assert words["azimuth"][0] == "\N{MINUS SIGN}90°" and words["elevation"][-1] == "+30°"
    assert len(words["elevation"]) == 11 and widget.config["axes"]["I"] == ["identity", "azimuth", "elevation"]
    assert widget.config["owners"] == {"identity": "S", "azimuth": "S", "elevation": "I", "light": "T"}
    n, a, e, l = 3, 7, 4, 9  # "4 new" is the first of the test split
    cell = n * len(words["azimuth"]) + a
    for m, k, truth in (("I", cell * len(words["elevation"]) + e, data[1].at(0, 2 * a, e, 0)[0]["I"]),
                        ("T", 5 * 11 * 11 + cell * 11 + l, data[1].at(0, 2 * a, 0, l)[0]["T"])):
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
    for wrong in ({"I": [0.0, 0.0]}, z | {"S": [0.0]}, z | {"I": [float("nan"), 0.0]}, z | {"T": [0.0, float("inf")]}):
        with pytest.raises(ValueError, match="latents"):
            widget.latents = wrong


def test_what_a_callback_prints_stands_under_the_widget_when_the_page_moved_it(data, monkeypatch, capsys):
    _, _, widget = make("mumo", data)
    sent = []
    monkeypatch.setattr(widget, "send", lambda content, buffers=None: sent.append(content))
    monkeypatch.setattr(widget, "send_state", lambda *a, **k: None)
    widget.on_change(print)
    z = {"I": [1.0, 0.0], "S": [0.0] * 5, "T": [0.0, 2.0]}
    widget.latents = z  # from a cell: into its own output
    assert capsys.readouterr().out == f"{z}\n" and not sent
    z = z | {"I": [0.5, 0.5]}
    widget.set_state({"latents": z})  # from the page
    assert sent == [{"told": f"{z}\n", "pictures": []}] and not capsys.readouterr().out
    widget.on_change(lambda latents: latents["nothing"])
    widget.set_state({"latents": z | {"I": [0.0, 0.0]}})
    assert len(sent) == 3 and sent[2]["told"].rstrip().endswith("KeyError: 'nothing'")
    with pytest.raises(KeyError):  # in a cell it is the cell's
        widget.latents = z
    experts = explorables.experts()
    monkeypatch.setattr(experts, "send", lambda content, buffers=None: sent.append(content))
    experts.on_change(lambda found: print(found["prior"]))
    experts.set_state({"prior": not experts.prior})
    assert sent[-1]["told"] == f"{experts.prior}\n"


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
    assert len(json.dumps(found)) < 30_000
    assert set(widget.get_state()) >= {"_esm", "latents"} and not any(
        isinstance(value, bytes) for value in widget.get_state().values())


def test_its_assets_are_left_where_the_build_asks(data, tmp_path, monkeypatch):
    monkeypatch.setenv("MMVAE_ASSETS", str(tmp_path / "assets"))
    _, _, widget = make("mumo", data)
    assert {path.stem for path in (tmp_path / "assets").iterdir()} == set(widget.assets)
    name = widget.config["sprites"]
    text = (tmp_path / f"assets/{name}.js").read_text()
    assert text == f'mmvaeAsset("{name}","{base64.b64encode(widget.assets[name]).decode()}");\n'


# ---- any model

def three(**options):
    torch.manual_seed(1)
    model = PoEVAE({"picture": images((10, 20), 3, private=2, likelihood=Normal()), "table": vectors(5, private=1),
                    "label": categories(4)}, shared=3, **options)
    return model, {"picture": torch.randn(2, 3, 10, 20), "table": 3 * torch.randn(2, 5), "label": torch.tensor([3, 0])}


def test_each_modality_is_shown_as_what_it_is():
    model, x = three()
    widget = widgets.explorer(model, x, classes={"label": ["a", "b", "c", "<d>"]})
    views = widget.config["modalities"]
    assert [v["kind"] for v in views.values()] == ["picture", "numbers", "classes"]
    assert views["picture"]["size"] == [10, 20] and views["picture"]["channels"] == 3
    assert views["picture"]["low"] == pytest.approx(x["picture"].min().item(), rel=1e-5)
    assert not views["table"]["curve"] and views["label"]["names"][-1] == "<d>"
    assert widget.config["given"]["label"]["rows"] == [[0, 0, 0, 1], [1, 0, 0, 0]]
    np.testing.assert_allclose(widget.config["given"]["table"]["rows"], x["table"], rtol=1e-5)
    assert widget.config["noun"] == "triple" and widget.observed == "picture+table+label"
    assert len(widget.config["models"]["model"]["infer"]) == 7
    assert "<d>" in widget.page() and json.loads(json.dumps(state(widget.page()), allow_nan=False))
    colours = widget.config["colours"]
    assert len({tuple(c) for c in colours.values()}) == len(colours) == 4


def test_some_of_the_modalities_are_enough_where_the_model_can_see_them():
    model, x = three()
    widget = widgets.explorer(model, {"label": x["label"], "table": x["table"]})
    assert widget.observed == "table+label" and list(widget.config["models"]["model"]["infer"]) == ["table", "label", "table+label"]
    assert list(widget.config["modalities"]) == ["picture", "table", "label"] and list(widget.config["given"]) == ["table", "label"]
    with pytest.raises(ValueError, match="VanillaVAE has no posterior of fewer"):
        widgets.explorer(MODELS["vanilla"](size=16), {"I": torch.rand(1, 1, 16, 16)})


def test_chapter_2s_two_networks_are_a_model_of_one_picture(data):
    model = VanillaVAE({"I": images(16)}, latent=3)
    model.encoders["I"] = Encoder({"Z": 3}, ImageEncoder(6, size=16))
    widget = widgets.explorer(model, {"I": data[0].fixed(2)[0]["I"]})
    assert list(widget.config["given"]) == ["I"] and widget.config["factors"] == {} and not widget.config["sprites"]
    assert widget.observed == "I" and list(widget.latents) == ["Z"] and len(widget.config["pairs"]) == 2
    assert widget.config["noun"] == "image" and not widget.needs_kernel


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_models_of_another_precision(data, dtype):
    model, (x, _) = MODELS["poe-v2"](size=16).to(dtype), data[0].fixed(2)
    widget = widgets.explorer(model, x)  # x is taken to where the model is
    assert not widget.needs_kernel and {t.dtype for t in page.unpack(next(iter(widget.assets.values()))).values()} == {torch.float32}


def test_sounds_are_assets_and_small():
    model, x = three()
    widget = widgets.explorer(model, x, listen={"table": lambda v: b"RIFF" + bytes(v.shape)})
    assert [widget.assets[name] for name in widget.config["clips"]["table"]] == 2 * [b"RIFF\5"]
    with pytest.raises(ValueError, match=r'listen\["table"\]: found 20,000 bytes, expected at most 12,000'):
        widgets.explorer(model, x, listen={"table": lambda v: bytes(20_000)})
    with pytest.raises(ValueError, match="listen: found .'nonsense'., expected some of"):
        widgets.explorer(model, x, listen={"nonsense": bytes})


def answered(widget, monkeypatch, **message):
    """What a kernel answers to a message of the page: (content, buffers)."""
    sent = []
    monkeypatch.setattr(widget, "send", lambda content, buffers=None: sent.append((content, buffers)))
    widget._answer(widget, {"ask": "1", "model": "model", **message}, [])
    (found,) = sent
    assert found[0]["answer"] == "1"
    return found


def test_a_kernel_answers_for_any_model(data, monkeypatch):
    model, x = three()
    widget = widgets.explorer(model, x, listen={"table": lambda v: str(tuple(v.shape)).encode()})
    q = model.posterior({"table": x["table"][1:], "label": x["label"][1:]})
    found, _ = answered(widget, monkeypatch, subset=["table", "label"], pair=1, factors={})
    for b, g in q.items():
        np.testing.assert_allclose(found["posterior"][b]["mu"], g.mu[0].detach(), atol=1e-4)
        np.testing.assert_allclose(found["posterior"][b]["logvar"], g.logvar[0].detach(), atol=1e-4)
    z = {b: [0.5] * dim for b, dim in model.blocks.items()}
    found, buffers = answered(widget, monkeypatch, means={"label": [z, z], "picture": [z]})
    means = model.means({b: torch.tensor([v]) for b, v in z.items()})
    np.testing.assert_allclose(np.frombuffer(buffers[0], np.float32).reshape(2, 4)[1], means["label"][0].detach(), atol=1e-6)
    np.testing.assert_allclose(np.frombuffer(buffers[1], np.float32), means["picture"].detach().flatten(), atol=1e-6)
    assert found["means"] == ["label", "picture"]
    assert answered(widget, monkeypatch, listen="table", values=[0.0] * 5)[1] == [b"(5,)"]
    found, _ = answered(widget, monkeypatch, means={"label": [{"S": [0.0]}]})
    assert found["error"].startswith("KeyError")


def test_a_kernel_takes_what_it_sees_from_the_grid_of_faces(data, monkeypatch):
    model, _, widget = make("mumo", data)
    widget.models["model"] = model
    at = {"identity": 3, "azimuth": 7, "elevation": 4, "light": 9}
    found, _ = answered(widget, monkeypatch, subset=["I"], pair=-1, factors=at)
    q = model.posterior({"I": data[1].at(0, 14, 4, 0)[0]["I"]})
    np.testing.assert_allclose(found["posterior"]["I"]["mu"], q["I"].mu[0].detach(), atol=1e-4)


def test_what_cannot_be_shown_is_refused(data):
    x, factors = data[0].fixed(3)
    model = MODELS["mumo"](size=16)
    nan = MODELS["mumo"](size=16)
    torch.nn.init.constant_(nan.encoders["I+T"].net.mu.bias, float("nan"))
    for models, data_, message, options in (
            ({}, x, "explorer: found 0 models", {}),
            (model, {"I": x["I"][:0]}, "expected some rows", {}),
            (model, {m: torch.zeros(1, 1, 32, 32) for m in "IT"}, r'x\["I"\]: found shape \(1, 1, 32, 32\)', {}),
            (model, x | {"I": x["I"] * float("nan")}, r'x\["I"\]: found NaN', {}),
            (nan, x, 'explorer: "model": posterior: found nan in block I, expected finite numbers', {}),
            ({"a": model, "b": three()[0]}, x, 'explorer: "b" has modalities', {}),
            (model, x, r'classes\["I"\]: found 2 names, expected none', {"classes": {"I": ["a", "b"]}}),
            (model, x, "found faces, but not the factors of x", {"faces": data})):
        with pytest.raises(ValueError, match=message):
            widgets.explorer(models, data_, **options)
    with pytest.raises(TypeError, match='explorer: "model" is a Linear without modalities, blocks'):
        widgets.explorer(torch.nn.Linear(2, 2), x)
