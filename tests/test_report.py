"""The benchmarks' tables and figure from made-up records, and the README's tables against the committed ones."""
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
import measure  # noqa: E402
import report  # noqa: E402

RATES = {"plain": [1000.0] * 3, "torchrun, 1 process": [900.0] * 3}
SCALING = {"machine": measure.machine(), "settings": {"rounds": 3}, "exchange_seconds": [0.01] * 3, "pair_bytes": 8192,
           "gradient_bytes": 8_000_000, "rates": {"64": RATES | {"torchrun, 2 processes": [800.0] * 3},
                                                  "1000": RATES | {"torchrun, 2 processes": [1900.0] * 3}}}


def test_time_of_a_step_by_the_formula():
    assert report.step_seconds(SCALING, 1000, 1) == pytest.approx(1.0)
    assert report.step_seconds(SCALING, 1000, 2) == pytest.approx(0.5 + 0.01)
    assert report.step_seconds(SCALING, 1000, 8) == pytest.approx(1 / 8 + 2 * 7 / 8 * 0.01)
    text = report.scaling(SCALING)
    assert "| 1,000 | torchrun, 2 processes | 1,900 | 1,900–1,900 | 1.90 (1.90–1.90) | 95 % | 1.96 |" in text
    assert "8.0 MB" in text and "10.0 ms" in text and "0.80 GB/s" in text and "faster way for 1,000." in text


def test_a_billion_pairs_on_paper():
    text = report.scaling_estimate(SCALING)
    # 10^9 pairs at 1000 a second; 8192 bytes each
    assert "| 1 | 1,000 | 1,000.0 | 12 | 8 | 64 | 64.0 | 12 | 8 |" in text
    # a million steps of 0.5 + 0.01 s; 10^9 / 128 steps of 64 pairs a process, 0.064 + 0.01 s
    assert "| 2 | 1,000 | 510.0 | 5.9 | 16 | 128 | 74.0 | 6.7 | 14 |" in text
    assert "8.2 TB (8,192 bytes a pair)" in text


def quality(ours: list[tuple[float, float]]) -> dict:
    """A made-up record: the common recipe ends at 2,600 after 1,800 s; (seconds, unseen) of our runs."""
    def row(seconds, unseen):
        return {"mark": seconds, "seconds": seconds, "iterations": 100, "unseen": unseen, "seen": unseen + 1}
    return {"machine": measure.machine(), "settings": {"n": 8}, "ours": [row(*run) for run in ours],
            "common": [row(30.0, 3000.0), row(600.0, 2700.0), row(1800.0, 2600.0)]}


@pytest.mark.parametrize("ours, words", [
    ([(15.0, 2650.0), (30.0, 2600.0), (60.0, 2590.0), (900.0, 2595.0)],
     ["2,600.0 nats", "**30.0 CPU seconds, 60 times less**", "the 2 longer runs", "by 5.0 nats at least"]),
    ([(15.0, 2599.0), (60.0, 2601.0)], ["15.0 CPU seconds, 120 times less", "But not every", "2,601.0 after 60 s"]),
    ([(15.0, 2650.0)], ["No run of ours is as good"]),
    ([(900.0, 2590.0)], ["900.0 CPU seconds, 2 times less", "No longer run of ours"]),
])
def test_the_answer_in_words(ours, words):
    text = report.time_to_quality(quality(ours))
    assert all(word in text for word in words)
    assert "| 600 | 600.0 | 100 | 2,700.0 | 2,701.0 |  |  |  |  |" in text


def test_figure_shows_both_recipes_and_how_much_sooner():
    ax, = report.figure(quality([(15.0, 2650.0), (30.0, 2600.0), (900.0, 2595.0)])).axes
    common, ours, level = (line.get_xydata().tolist() for line in ax.lines)
    assert common[-1] == [1800, 2600] and ours == [[15, 2650], [30, 2600], [900, 2595]]
    assert level == [[30, 2600], [1800, 2600]]
    assert [t.get_text() for t in ax.texts] == ["common recipe", "ours", "as good 60 times sooner"]
    report.figure(quality([(15.0, 2650.0)]))  # not as good: nothing to compare, still a figure


def test_figure_of_one_record_has_the_same_bytes(tmp_path):
    report.draw(tmp_path)  # no record: no figure
    assert not list(tmp_path.iterdir())
    (tmp_path / "time_to_quality.json").write_text(json.dumps(quality([(30.0, 2600.0)])))
    svgs = [report.draw(tmp_path) or (tmp_path / "time_to_quality.svg").read_bytes() for _ in range(2)]
    assert svgs[0] == svgs[1] and svgs[0].startswith(b"<?xml")


def test_changes_are_sorted_and_noise_is_named():
    unseen = {"ours": (2600.0, 2602.0), "worse": (2620.0, 2621.0), "better": (2590.0, 2591.0), "same": (2600.5, 2603.5)}
    runs = [{"change": name, "seed": seed, "seconds": 30.0, "iterations": 1000, "unseen": value, "seen": 2500.0}
            for name, values in unseen.items() for seed, value in enumerate(values)]
    text = report.changes({"machine": measure.machine(), "settings": {"seeds": 2}, "runs": runs})
    lines = [line.split(" | ") for line in text.splitlines()[-4:]]
    assert [line[0].strip("| *") for line in lines] == ["better", "ours", "same", "worse"]
    assert [line[-1].strip(" |") for line in lines] == ["−10.5", "", "+1.0 (noise)", "+19.5"]
    assert "ours spreads by 2.0 nats" in text and "**ours** | 30.0 | 1,000 | 2,601.0 | 2.0" in text


def test_readme_has_the_tables_of_the_committed_results():
    text = report.README.read_text()
    assert report.written(text, report.texts()) == text, "run: python benchmarks/report.py"


def test_what_is_not_measured_yet_is_said(tmp_path):
    (tmp_path / "scaling.json").write_text(json.dumps(SCALING))
    found = report.texts(tmp_path)
    assert found["gpu"] == "Not measured yet: `python benchmarks/gpu.py`."
    assert found["changes"] == "Not measured yet: `python benchmarks/time_to_quality.py --changes`."
    assert found["scaling"].count("\n| ") == 2 + 6 and found["machine"].startswith(SCALING["machine"]["device"])


def test_a_text_without_a_place_is_refused():
    old, new = "a\n<!-- x -->\nold\n<!-- end -->\nb", "a\n<!-- x -->\n\\1 new\n<!-- end -->\nb"
    assert report.written(old, {"x": r"\1 new"}) == new
    with pytest.raises(ValueError, match="found 0 places <!-- y -->"):
        report.written("<!-- x -->\n<!-- end -->", {"y": ""})


def test_two_machines_are_told_apart():
    one, other = {"machine": measure.machine()}, {"machine": measure.machine() | {"cores": 999}}
    assert report.machine({"cost": one, "gpu": one}).count("torch") == 1
    assert report.machine({"cost": one, "gpu": other}).splitlines()[1].startswith("- gpu: ")


def test_the_page_in_words_and_rows():
    row = {"own_bytes": 1_340_000, "page_bytes": 1_500_000, "first_seconds": [0.1, 0.2, 0.3],
           "moves": {"mumo": [1.0, 2.0, 3.0], "vanilla": [4.0] * 3}}
    text = report.page({"chromium": "150.0", "settings": {"rounds": 1}, "rows": {"04_mumo": row}})
    assert "at most 1.34 MB" in text and "200 ms later (slowest window 300 ms)" in text and "2.0 to 4.0 ms" in text
    assert "| 04_mumo | 1.34 | 1.50 | 200 | mumo | 2.0 | 2.9 |" in text and "|  |  |  |  | vanilla | 4.0 | 4.0 |" in text
