"""Digits: a handwritten image (scikit-learn), the word spoken (`spoken.py`), and its name, as triples of one digit.

    x, factors = digits.triples("train")     IPython.display.Audio(digits.wav(x["sound"][0, 0]))

The digit is what the three share. The hand belongs to the image alone; voice, speed and pitch to the sound alone.
"""
import functools
import io
import wave as waves
import zipfile

import numpy as np

from . import spoken

PATH = spoken.PATH
NAMES = spoken.WORDS
# scikit-learn's images are one list of some 130 digits written 14 times over, it seems by a hand at a time
TEST_IMAGES = 382  # the last three times
TEST_SPEAKERS = ("m3", "m7", "f4")  # espeak-ng's throats, in all accents, that training never hears
SOUNDS = 4  # different ones to each image
BUZZ = 110  # Hz, at which `audible` lets the vocal cords swing
_WINDOW, _HOP, _SIZE = 256, 64, 512  # samples, of its Fourier transforms


@functools.lru_cache(maxsize=1)
def sounds():
    """The file of `python -m mmvae.experiment.spoken`, {name: array}; `spectra` uint8 (N, bands, frames).

    Raises FileNotFoundError, or ValueError naming the file and what is wrong with it.
    """
    if not PATH.is_file():
        raise FileNotFoundError(f"{PATH}: no such file; `python -m mmvae.experiment.spoken` makes it with espeak-ng")
    try:
        with np.load(PATH, allow_pickle=False) as f:
            arrays = {k: f[k] for k in f.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as e:
        raise ValueError(f"{PATH}: truncated or damaged npz file ({e})") from e
    expected = {"spectra", "digit", "voice", "voices", "pitch", "speed", "levels"}
    if missing := sorted(expected - arrays.keys()):
        raise ValueError(f"{PATH}: arrays {missing} are missing; found {sorted(arrays)}")
    return arrays


def triples(split="train", seed=0):
    """Images each with SOUNDS different sounds of their digit: (x, factors), dicts of tensors with N rows each.

    x: image float32 (N, 1, 8, 8) and sound float32 (N, 1, bands, frames), in [0, 1]; name int64 (N,), the digit.
    factors: digit int64, voice int64 (index of sounds()["voices"]), speed float32 (words a minute), pitch float32
    (espeak-ng's, 0 to 99; what it means in Hz is up to the voice), all (N,). "test" has images, hands and voices
    that "train" has not; the seed chooses the sounds. ValueError for another split.
    """
    import torch
    from sklearn.datasets import load_digits
    if split not in ("train", "test"):
        raise ValueError(f'split: found {split!r}, expected "train" or "test"')
    images, digit = load_digits(return_X_y=True)
    rows = slice(-TEST_IMAGES, None) if split == "test" else slice(-TEST_IMAGES)
    images, digit = images[rows].astype(np.float32) / 16, digit[rows]
    file, rng = sounds(), np.random.default_rng([seed, split == "test"])
    unheard = np.array([v.split("+")[-1] in TEST_SPEAKERS for v in file["voices"]])[file["voice"]]
    choice = [np.flatnonzero((file["digit"] == d) & (unheard == (split == "test"))) for d in range(len(NAMES))]
    sound = np.concatenate([rng.choice(choice[d], SOUNDS, replace=False) for d in digit])
    spectra = file["spectra"][sound, None].astype(np.float32) / np.float32(file["levels"])
    digit = torch.from_numpy(np.repeat(digit, SOUNDS)).long()
    x = {"image": torch.from_numpy(np.repeat(images, SOUNDS, 0).reshape(-1, 1, 8, 8)),
         "sound": torch.from_numpy(spectra), "name": digit}
    factors = {"digit": digit.clone(), "voice": torch.from_numpy(file["voice"][sound]).long(),
               "speed": torch.from_numpy(file["speed"][sound]).float(),
               "pitch": torch.from_numpy(file["pitch"][sound]).float()}
    return x, factors


def audible(spectrum, seconds=None):
    """Sound with this spectrogram, real or decoded: (wave float32 (samples,) in [-1, 1], rate int, samples a second).

    spectrum: (bands, frames) in [0, 1], array or tensor; what is outside is clipped. The sound ends with the word,
    or is stretched to `seconds` for all frames. Bands and frames are too coarse to hold a voice, so a buzz (a hiss,
    where the high bands are the louder) is given their shape, then Griffin & Lim's iterations make it consistent.
    ValueError for another shape, NaN, or a length that is not positive.
    """
    if hasattr(spectrum, "detach"):
        spectrum = spectrum.detach().cpu().numpy()
    spectrum = np.clip(np.asarray(spectrum, dtype=np.float64), 0, 1)
    if spectrum.shape != (spoken.BANDS, spoken.FRAMES) or np.isnan(spectrum).any():
        raise ValueError(f"spectrum: found shape {spectrum.shape} with {np.isnan(spectrum).sum()} NaN, "
                         f"expected ({spoken.BANDS}, {spoken.FRAMES}) of numbers")
    heard = np.flatnonzero(spectrum.max(0) > 0.1)
    if seconds is None:
        samples, step = (heard[-1] + 2 if len(heard) else 1) * spoken.HOP, spoken.HOP
    elif seconds > 0:
        samples, step = round(seconds * spoken.RATE), seconds * spoken.RATE / spoken.FRAMES
    else:
        raise ValueError(f"seconds: found {seconds!r}, expected a positive number")
    if not len(heard):
        return np.zeros(samples, np.float32), spoken.RATE

    count = samples // _HOP + 1
    bins = np.fft.rfftfreq(_SIZE, 1 / spoken.RATE)
    level = np.where(spectrum > 0, spectrum * spoken.RANGE - spoken.RANGE, -spoken.RANGE - 30)  # 0 is silence
    when = np.arange(count) * _HOP / step
    level = np.stack([np.interp(when, np.arange(spoken.FRAMES), band) for band in level])  # (bands, count)
    centres = spoken.filters()[1]
    level = np.stack([np.interp(spoken.mel(bins), centres, frame) for frame in level.T])  # (count, bins)
    level[:, bins < spoken.LOW / 2] = -200

    rng = np.random.default_rng(0)
    phase = np.cumsum(np.linspace(1.15, 0.85, samples) * BUZZ / spoken.RATE)
    buzz = np.diff(np.floor(phase), prepend=0) * np.sqrt(spoken.RATE / BUZZ)
    hiss = rng.standard_normal(samples)
    power = 10 ** (level / 10)
    voiced = power[:, bins < 1000].max(1) > power[:, bins > 2500].max(1)
    source = np.where(voiced[:, None], _stft(buzz), _stft(hiss))
    magnitude = 10 ** (level / 20) * np.abs(source)
    phases = source / np.maximum(np.abs(source), 1e-9)
    for _ in range(32):
        again = _stft(_istft(magnitude * phases, samples))
        phases = again / np.maximum(np.abs(again), 1e-9)
    wave = _istft(magnitude * phases, samples)
    return (wave / max(np.abs(wave).max(), 1e-9) * 0.95).astype(np.float32), spoken.RATE


def _stft(wave):
    """complex (samples // _HOP + 1, _SIZE // 2 + 1)."""
    padded = np.pad(wave, (_WINDOW // 2, _WINDOW))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP][:len(wave) // _HOP + 1]
    return np.fft.rfft(frames * np.hanning(_WINDOW), _SIZE)


def _istft(spectrum, samples):
    """The wave (samples,) whose `_stft` is closest to the spectrum."""
    window = np.hanning(_WINDOW)
    frames = np.fft.irfft(spectrum, _SIZE)[:, :_WINDOW] * window
    wave, weight = np.zeros((2, samples + 2 * _WINDOW))
    for i, frame in enumerate(frames):
        wave[i * _HOP:i * _HOP + _WINDOW] += frame
        weight[i * _HOP:i * _HOP + _WINDOW] += window ** 2
    return (wave / np.maximum(weight, 1e-3))[_WINDOW // 2:][:samples]


def wav(spectrum, seconds=None):
    """`audible` as the bytes of a WAV file, mono, 8 bits a sample, for an <audio> element or IPython's Audio."""
    wave, rate = audible(spectrum, seconds)
    file = io.BytesIO()
    with waves.open(file, "wb") as f:
        f.setnchannels(1), f.setsampwidth(1), f.setframerate(rate)
        f.writeframes(np.round(wave * 127 + 128).astype(np.uint8).tobytes())
    return file.getvalue()
