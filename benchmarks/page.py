"""The explorer on the book's pages, in headless Chromium: bytes before its first picture, that picture, a slider's move.

    make book && python benchmarks/page.py        (about 2 minutes; Chromium from the system's packages)

Bytes are those of what Chromium asks for until the first picture stands, each file compressed by gzip as a server does
it: the explorer's own (its script and weights), and the whole page's with its figures. The first picture's time begins
when the last of the explorer's bytes has arrived. A move is a slider's `input` event, from its dispatch until the
networks are computed and the canvases painted. One window, the machine's cores.

Writes benchmarks/results/page.json; `python benchmarks/report.py` puts it into the README.
"""
import argparse
import functools
import gzip
import http.server
import os
import sys
import threading
from pathlib import Path
from urllib.parse import urlparse

import measure
import report
from tqdm.auto import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book"))
from check import CHROMIUM, chromium  # noqa: E402

WATCH = """new MutationObserver(() => { if (!window.aliveAt && document.querySelector(".mmvae-widget.alive [data-made]"))
    window.aliveAt = performance.now() }).observe(document, { subtree: true, attributes: true, childList: true })"""
BEGIN = """[...document.querySelectorAll(".mmvae-widget")].find((w) => w.textContent.includes('"kind": "explorer"'))
    .scrollIntoView()"""
FIRST = """() => { const own = performance.getEntriesByType("resource").filter((e) => e.name.includes("/widgets/")
    && e.responseEnd < window.aliveAt); return window.aliveAt - Math.max(...own.map((e) => e.responseEnd)) }"""
BEFORE = """() => [location.href, ...performance.getEntriesByType("resource").filter((e) => e.startTime < window.aliveAt)
    .map((e) => e.name)]"""
MOVES = """([rounds, only]) => { const times = [];
    const sliders = [...document.querySelectorAll("input[data-slider]")].filter((s) =>
        new RegExp(only).test(s.dataset.slider) && !s.disabled);
    for (let r = 0; r < rounds; r++) for (const s of sliders) {
        const started = performance.now(); s.value = 2 * Math.sin(r + 1); s.dispatchEvent(new Event("input"));
        times.push(performance.now() - started) }
    return times }"""
LATENTS = "^[ISTZ][0-9]+$"


def serve(folder: Path):
    """A server of this folder on a free port."""
    handler = functools.partial(type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *a: None}),
                                directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def compressed(folder: Path, urls: list[str]) -> int:
    """Bytes of these files, each by gzip as a server sends them; what is compressed already grows by little."""
    paths = {folder / urlparse(url).path.lstrip("/") for url in urls if url.startswith("http")}
    return sum(len(gzip.compress(path.read_bytes(), 6)) for path in paths if path.is_file())


def opened(browser, address: str):
    """A new window on this page, scrolled to its explorer, once that has drawn."""
    tab = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    tab.add_init_script(WATCH)
    tab.goto(address)
    tab.evaluate(BEGIN)
    tab.wait_for_function("window.aliveAt", timeout=60_000)
    return tab


def look(browser, folder: Path, address: str, rounds: int, windows: int) -> dict:
    """One chapter: bytes, the first picture's seconds in each of some windows, and ms of every move of every model."""
    firsts = []
    for _ in range(windows):
        tab = opened(browser, address)
        firsts.append(round(tab.evaluate(FIRST) / 1000, 4))
        before = tab.evaluate(BEFORE)  # what is fetched while idle comes after
        if len(firsts) < windows:
            tab.context.close()
    own = [url for url in before if "/widgets/" in url]
    row = {"own_bytes": compressed(folder, own), "page_bytes": compressed(folder, before), "first_seconds": firsts, "moves": {}}
    names = tab.evaluate("[...document.querySelectorAll('.mmvae select option')].map((o) => o.value)") or [""]
    for name in names:
        if name:
            tab.select_option(".mmvae select", name)
        tab.wait_for_timeout(1500)
        row["moves"][name] = [round(ms, 2) for ms in tab.evaluate(MOVES, [rounds, LATENTS])]
        if tab.query_selector("[data-switch=T]:enabled"):
            tab.uncheck("[data-switch=T]")
            tab.wait_for_timeout(1500)
            row["moves"][f"{name}, xT not observed"] = [round(ms, 2) for ms in tab.evaluate(MOVES, [rounds, "^S[0-9]+$"])]
            tab.check("[data-switch=T]")
    tab.context.close()
    return row


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--site", type=Path, default=ROOT / "_build/html", help="a built site")
    parser.add_argument("--rounds", type=int, default=20, help="moves of each slider")
    parser.add_argument("--windows", type=int, default=9, help="in which the first picture is timed")
    parser.add_argument("--out", type=Path, default=measure.RESULTS, help="folder for page.json")
    args = parser.parse_args(argv)
    if not CHROMIUM:
        parser.exit(1, "page.py needs Chromium, from the system's packages; nothing was measured\n")
    if not (args.site / "index.html").exists():
        parser.exit(1, f"{args.site}: no site; run `make book`\n")
    chapters = sorted(p for p in (args.site / "notebooks").glob("*.html") if '"kind": "explorer"' in p.read_text())
    server = serve(args.site)
    with chromium() as browser:
        rows = {path.stem: look(browser, args.site, f"http://127.0.0.1:{server.server_port}/notebooks/{path.name}",
                                args.rounds, args.windows) for path in tqdm(chapters, unit="chapter")}
        version = browser.version
    server.shutdown()
    record = {"machine": measure.machine() | {"threads": os.cpu_count()}, "chromium": version, "rows": rows,
              "settings": {"rounds": args.rounds, "windows": args.windows}}
    measure.save("page", record, args.out)
    print(report.page(record))


if __name__ == "__main__":
    sys.exit(main())
