"""Every JSON record that is read, though rightly signed: a value of another kind at any place, a key more or less, a number
that is none or a key that is there twice ends in one sentence that names the file."""
import json
import math
import shutil
from pathlib import Path

import pytest

import tiny
from mmvae import checkpoint, strict
from mmvae.experiment import field, results, roles, weights

FOLDER, RUNS = weights.FOLDER, results.RUNS
ODD = {"?": None}  # of no form: no dictionary has such a value
RECORDS = {  # name: (the file that is there, the folder's variable that leads to it, how it is read)
    "run": (RUNS / "mumo-main-plain-0.json", None, results.record),
    "run, all measures": (RUNS / "wg-v2-main-plain-1.json", None, results.record),
    "prints": (next((RUNS / "measured").glob("*.json")), (results, "RUNS", 1),
               lambda path: results.prints_of.__wrapped__(path.stem)),
    "published numbers": (results.FILE, (results, "FILE", -1), lambda path: results.published()),
    "published model": (FOLDER / "vanilla.json", (weights, "FOLDER", 0), lambda path: weights.info("vanilla")),
    "roles": (roles.FILE, None, roles.record.__wrapped__),
    "steps": (FOLDER / "steps.json", (weights, "FOLDER", 0), lambda path: field.timed()),
    "settings": (None, None, lambda path: checkpoint.settings_of(path.parent)),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    tiny.run(folder)
    return folder / "settings.json"


@pytest.fixture(params=RECORDS)
def kept(request, tmp_path, monkeypatch, trained):
    """A copy of a record, its reader, and how to write another content, signed, into its place."""
    source, leads, read = RECORDS[request.param]
    source = source or trained
    path = tmp_path / "measured" / source.name if request.param == "prints" else tmp_path / source.name
    path.parent.mkdir(exist_ok=True)
    shutil.copy(source, path)
    if leads:
        module, name, up = leads
        monkeypatch.setattr(module, name, path if up < 0 else path.parents[up])
    record = json.loads(path.read_text())

    def write(record: dict, text=lambda text: text):
        record = record | ({"digest": weights.digest_of(record)} if "digest" in record else {})
        path.write_text(text(json.dumps(record)))

    return path, record, read, write


def refused(path: Path, read) -> str:
    """The sentence with which a reader refuses this file."""
    with pytest.raises(ValueError) as error:
        read(path)
    said = str(error.value)
    assert "\n" not in said and path.name in said and "damaged" in said and len(said) < 700, said
    return said


def places(value, at=()):
    """Where something stands in a record, from the inside: of a list its first and last element, of a long dictionary within
    it, whose values are alike, its first two and its last."""
    inside = [*value.items()] if isinstance(value, dict) else [*enumerate(value)] if isinstance(value, list) else []
    if isinstance(value, list) or at and len(inside) > 17:
        inside = inside[:1] + inside[1:2] * isinstance(value, dict) + inside[1:][-1:]
    for key, of in inside:
        yield from places(of, (*at, key))
        yield (*at, key), of


def changed(record, at: tuple, to):
    """A copy of a record in which this stands at that place; to: a function of what stands there."""
    key, *rest = at
    copy = dict(record) if isinstance(record, dict) else list(record)
    copy[key] = changed(copy[key], rest, to) if rest else to(copy[key])
    return copy


def test_each_record_is_of_its_form(kept):
    path, record, read, write = kept
    read(path)
    write(record)
    assert {k: v for k, v in read(path).items() if k != "digest"} == {k: v for k, v in record.items() if k != "digest"}


def test_a_value_of_another_kind_is_refused_wherever_it_stands(kept):
    path, record, read, write = kept
    tried = 0
    for at, value in places({k: v for k, v in record.items() if k != "digest"}):
        others = [ODD, [ODD]] if at[0] == "machine" or "options" in at else [ODD, [ODD], True] if isinstance(
            value, str) else [ODD, [ODD], "1"] if type(value) in (int, float) else [ODD, [ODD], "1", 1j.imag]
        for other in others:
            if other == 1.0 and isinstance(value, list) and "experts" in at:
                continue  # of one latent or of each
            write(changed(record, at, lambda _: other))
            try:
                refused(path, read)
            except BaseException as error:
                raise AssertionError(f"{at}: {strict.brief(value)} became {other}") from error
            tried += 1
    assert tried > 20


def test_a_key_more_or_less_is_refused(kept):
    path, record, read, write = kept
    for key in record:
        write({k: v for k, v in record.items() if k != key})
        if key not in ("machine", *(k.removesuffix("?") for k in results.MORE)) and path.parent.name != "measured":
            assert "missing" in refused(path, read)
    write(record | {"more": 1})
    refused(path, read)
    for at, value in places(record):
        if isinstance(value, dict):
            write(changed(record, at, lambda of: of | {"more": ODD}))
            refused(path, read)


def test_a_number_that_is_none_and_a_key_that_is_there_twice_are_refused(kept):
    path, record, read, write = kept
    numbers = [at for at, value in places(record) if type(value) in (int, float)]
    for at in [at for at in numbers if at[0] != "behaviour" or path.name != "settings.json"][:40]:
        for none in (math.nan, math.inf, 10 ** 30):
            write(changed(record, at, lambda _: none))
            refused(path, read)
    first = next(iter(record))
    write(record, lambda text: text.replace("{", f'{{"{first}": 0, ', 1))
    assert "twice" in refused(path, read)
    write(record, lambda text: text[:-2])
    refused(path, read)
