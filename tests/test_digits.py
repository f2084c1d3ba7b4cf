import io
import wave as waves

import numpy as np
import pytest
import torch

from mmvae.experiment import digits, spoken

BANDS, FRAMES = spoken.BANDS, spoken.FRAMES


@pytest.fixture(scope="module")
def file():
    return digits.sounds()


@pytest.fixture(scope="module")
def splits():
    return {split: digits.triples(split) for split in ("train", "test")}


def spectrum(file, i):
    return file["spectra"][i].astype(np.float32) / float(file["levels"])


def likeness(a, b):
    return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]


# ---- the file

def test_the_file_is_small_and_is_what_it_says(file):
    assert spoken.PATH.stat().st_size <= 300_000
    n = len(file["digit"])
    assert 900 <= n <= 1500
    assert file["spectra"].shape == (n, BANDS, FRAMES) and file["spectra"].dtype == np.uint8
    assert file["spectra"].min() == 0 and (file["spectra"].max((1, 2)) == file["levels"]).all()
    for name in ("digit", "voice", "pitch", "speed"):
        assert file[name].shape == (n,) and file[name].dtype == np.uint8
    for name in ("rate", "window", "hop", "low", "high", "range", "levels"):
        assert file[name] == getattr(spoken, name.upper())
    assert file["voices"].tolist() == [f"{a}+{s}" for a in spoken.ACCENTS for s in spoken.SPEAKERS]
    for name, (low, high) in (("pitch", spoken.PITCHES), ("speed", spoken.SPEEDS)):
        assert low <= file[name].min() < file[name].max() <= high


def test_every_voice_says_every_digit_equally_often(file):
    counts = np.zeros((len(file["voices"]), 10), int)
    np.add.at(counts, (file["voice"], file["digit"]), 1)
    assert (counts == spoken.TAKES).all()


def test_a_word_starts_at_once_and_a_slow_one_is_longer(file):
    loud = file["spectra"].max(1) > 0
    assert loud[:, :2].any(1).all()
    length = FRAMES - loud[:, ::-1].argmax(1)
    assert length.min() >= 6
    for digit in range(10):
        of_it = file["digit"] == digit
        assert np.corrcoef(file["speed"][of_it], length[of_it])[0, 1] < -0.5


def test_the_nearest_sound_by_another_voice_is_the_same_digit(file):
    flat = file["spectra"].reshape(len(file["digit"]), -1).astype(np.float32)
    for parts, held in ((1, digits.TEST_SPEAKERS), (0, spoken.ACCENTS[-1:])):  # other throats, another accent
        away = np.array([v.split("+")[parts] in held for v in file["voices"]])[file["voice"]]
        test, train = flat[away], flat[~away]
        nearest = ((train ** 2).sum(1) - 2 * test @ train.T).argmin(1)
        assert (file["digit"][~away][nearest] == file["digit"][away]).mean() > 0.9


@pytest.mark.parametrize("content, message", [(b"no zip", "truncated or damaged"), (b"", "truncated"),
                                              (spoken.PATH.read_bytes()[:9000], "truncated"), (None, "no such file")])
def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch, content, message):
    path = tmp_path / "broken.npz"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(digits, "PATH", path)
    with pytest.raises((FileNotFoundError, ValueError), match=f"broken.npz: .*{message}"):
        digits.sounds.__wrapped__()


def test_an_array_that_is_missing_is_named(tmp_path, monkeypatch):
    np.savez(tmp_path / "part.npz", spectra=np.zeros(3))
    monkeypatch.setattr(digits, "PATH", tmp_path / "part.npz")
    with pytest.raises(ValueError, match="part.npz: arrays .*'levels'.* are missing"):
        digits.sounds.__wrapped__()


def test_espeak_says_it_again(file):
    try:
        installed = spoken.version()
    except RuntimeError as e:
        pytest.skip(str(e))
    if installed != file["espeak"]:
        pytest.skip(f"espeak-ng {installed}, the file is of {file['espeak']}")
    for i in np.flatnonzero(file["digit"] == 7)[:3 * len(file["voices"]):29]:
        said = spoken.say(spoken.WORDS[7], str(file["voices"][file["voice"][i]]), file["pitch"][i], file["speed"][i])
        again = spoken.spectrogram(said).astype(int)
        assert np.abs(again - file["spectra"][i]).max() <= 1  # a level, where another processor rounds otherwise


def test_without_espeak_one_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="espeak-ng is not installed"):
        spoken.write(tmp_path / "spoken.npz", progress=False)
    assert not list(tmp_path.iterdir())


def test_a_file_beyond_the_limit_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(spoken, "synthesise", lambda progress: {"spectra": np.arange(9)})
    monkeypatch.setattr(spoken, "LIMIT", 100)
    with pytest.raises(ValueError, match="expected at most 100"):
        spoken.write(tmp_path / "spoken.npz", progress=False)
    assert not list(tmp_path.iterdir())


# ---- triples

@pytest.mark.parametrize("split", ["train", "test"])
def test_triples_have_these_shapes_types_and_ranges(splits, split):
    x, factors = splits[split]
    n = digits.SOUNDS * (digits.TEST_IMAGES if split == "test" else 1797 - digits.TEST_IMAGES)
    assert {k: (tuple(v.shape), v.dtype) for k, v in x.items()} == {
        "image": ((n, 1, 8, 8), torch.float32), "sound": ((n, 1, BANDS, FRAMES), torch.float32),
        "name": ((n,), torch.int64)}
    assert {k: v.dtype for k, v in factors.items()} == {
        "digit": torch.int64, "voice": torch.int64, "speed": torch.float32, "pitch": torch.float32}
    assert all(v.shape == (n,) for v in factors.values())
    for k in ("image", "sound"):
        assert x[k].min() == 0 and x[k].max() == 1
    assert torch.equal(x["name"], factors["digit"]) and x["name"].unique().tolist() == list(range(10))


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_three_of_a_row_are_of_one_digit(splits, file, split):
    from sklearn.datasets import load_digits
    x, factors = splits[split]
    written = {(row / 16).astype(np.float32).tobytes(): d for row, d in zip(*load_digits(return_X_y=True))}
    said = {(s.astype(np.float32) / np.float32(file["levels"])).tobytes(): (d, v, w, p) for s, d, v, w, p in zip(
        *(file[k] for k in ("spectra", "digit", "voice", "speed", "pitch")))}
    for i in range(0, len(x["name"]), 7):
        assert written[x["image"][i].numpy().tobytes()] == x["name"][i]
        found = said[x["sound"][i].numpy().tobytes()]
        assert found == tuple(factors[k][i] for k in ("digit", "voice", "speed", "pitch"))


def test_an_image_meets_different_sounds(splits):
    x, _ = splits["train"]
    for i in range(0, 400, digits.SOUNDS):
        assert (x["image"][i] == x["image"][i:i + digits.SOUNDS]).all()
        assert len(x["sound"][i:i + digits.SOUNDS].flatten(1).unique(dim=0)) == digits.SOUNDS


def test_training_sees_no_image_and_hears_no_throat_of_the_test(splits, file):
    (a, fa), (b, fb) = splits["train"], splits["test"]
    for k in ("image", "sound"):
        assert not {v.numpy().tobytes() for v in a[k]} & {v.numpy().tobytes() for v in b[k]}
    throats = [{v.split("+")[1] for v in file["voices"][f["voice"].numpy()]} for f in (fa, fb)]
    assert throats[1] == set(digits.TEST_SPEAKERS) and throats[0] == set(spoken.SPEAKERS) - throats[1]


def test_the_seed_chooses_the_sounds_and_nothing_else(splits):
    x, factors = splits["test"]
    again, other = digits.triples("test"), digits.triples("test", seed=1)
    assert all(torch.equal(x[k], again[0][k]) for k in x) and all(torch.equal(factors[k], again[1][k]) for k in factors)
    assert torch.equal(x["image"], other[0]["image"]) and not torch.equal(x["sound"], other[0]["sound"])


def test_another_split_is_refused():
    with pytest.raises(ValueError, match="""split: found 'valid', expected "train" or "test\""""):
        digits.triples("valid")


# ---- sound

def test_what_is_heard_has_the_spectrogram(file):
    matches = []
    for digit in range(10):
        for i in np.flatnonzero(file["digit"] == digit)[[0, 70]]:
            wave, rate = digits.audible(spectrum(file, i))
            assert wave.dtype == np.float32 and wave.ndim == 1 and rate == spoken.RATE
            assert np.abs(wave).max() <= 1 and np.isfinite(wave).all() and len(wave) <= FRAMES * spoken.HOP + spoken.HOP
            matches.append(likeness(spoken.spectrogram(wave.astype(float)), file["spectra"][i]))
    assert min(matches) > 0.85 and np.mean(matches) > 0.95


def test_it_takes_a_decoders_tensor_and_stretches(file):
    decoded = torch.from_numpy(spectrum(file, 0)).requires_grad_()
    assert np.array_equal(digits.audible(decoded)[0], digits.audible(spectrum(file, 0))[0])
    for seconds in (0.3, 1.5):
        wave, rate = digits.audible(decoded + 0.01, seconds)
        assert len(wave) == round(seconds * rate)


@pytest.mark.parametrize("level", [0, 1, 5, -5])
def test_silence_and_noise_are_sounds_too(level):
    wave, _ = digits.audible(np.full((BANDS, FRAMES), level))
    assert np.isfinite(wave).all() and np.abs(wave).max() <= 1 and (level > 0) == (np.abs(wave).max() > 0.1)


@pytest.mark.parametrize("wrong, seconds, message", [
    (np.zeros((3, 4)), None, r"spectrum: found shape \(3, 4\)"),
    (np.full((BANDS, FRAMES), np.nan), None, f"with {BANDS * FRAMES} NaN"),
    (np.zeros((BANDS, FRAMES)), 0, "seconds: found 0, expected a positive")])
def test_what_is_no_spectrogram_is_refused(wrong, seconds, message):
    with pytest.raises(ValueError, match=message):
        digits.audible(wrong, seconds)


def test_a_wav_is_one(file):
    content = digits.wav(spectrum(file, 5))
    assert 2_000 < len(content) < 12_000
    with waves.open(io.BytesIO(content)) as f:
        assert (f.getnchannels(), f.getsampwidth(), f.getframerate()) == (1, 1, spoken.RATE)
        samples = np.frombuffer(f.readframes(f.getnframes()), np.uint8)
    assert len(samples) == len(digits.audible(spectrum(file, 5))[0]) and np.ptp(samples) > 100
