"""Execute the notebooks and make the site from them.

python book/build.py execute [--profile cpu]    -> _build/executed/cpu/NAME.ipynb, only what has changed
python book/build.py site [--profile cpu]       -> _build/html (any other profile: _build/html-PROFILE)
python book/build.py pages [--profile cpu]      -> _build/pages, what is published: a site that is whole, and the PDF
python book/build.py serve [--profile cpu]      shows the site in a browser

Killed at any moment and started again, each gives what it would have given: a file is written beside its name and renamed,
a folder is made elsewhere and renamed, and what says that it is up to date is the last thing written into it.
"""

import argparse
import functools
import hashlib
import http.server
import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
import webbrowser
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.metadata import version
from xml.sax.saxutils import escape

import yaml

import colab
from check import ROOT, executed_dir, html_dir, notebooks, problems, read_notebook, toc_entries
from slim import slim_pages
from stage import stage, write_text

# of the bundled MathJax, what a page can ask for
MATHJAX = ("tex-chtml.js", "output/chtml", "input/tex", "ui", "a11y", "sre/mathmaps/en", "sre/mathmaps/base")


def digest(paths, *words, root=ROOT):
    """Hash of some words and of the names and bytes of some files (str, 16 hex digits)."""
    total = hashlib.sha256("\0".join(words).encode())
    for path in paths:
        total.update(path.relative_to(root).as_posix().encode() + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


def notebook_hash(notebook, profile, root=ROOT):
    """What an executed notebook depends on: its source, the profile, the module, its weights, the tested versions."""
    code = sorted((root / "mmvae").rglob("*.py"))
    weights = sorted((root / "mmvae/experiment/published").rglob("*.json"))  # they hold the hashes
    sounds = sorted((root / "mmvae/experiment").glob("*.npz"))
    return digest([notebook, *code, *weights, *sounds, root / "constraints.txt"], profile, root=root)


# ---------------------------------------------------------------- execute


def is_fresh(notebook, profile):
    target, now = executed_dir(profile) / notebook.name, notebook_hash(notebook, profile)
    return target.exists() and read_notebook(target)["metadata"].get("mmvae", {}).get("hash") == now


def run_notebook(notebook, profile, row):
    """Execute one notebook with Papermill, its progress bar on line `row`; returns what failed (str), or "".

    The result is kept only if every cell ran. Runs in a process of its own, in the notebooks' folder.
    """
    import nbformat
    import papermill

    before = notebook_hash(notebook, profile)  # before the run: an edit during it makes the result stale
    limit = 300 if profile == "smoke" else None  # seconds a cell
    bar = {"desc": f"  {notebook.stem}", "unit": "cell", "leave": False, "position": row}
    quiet = ["--log-level=CRITICAL"]  # no lines from the kernel's start and end between the progress bars
    os.chdir(notebook.parent)  # as in Jupyter and nbmake
    os.environ["MMVAE_ASSETS"] = str(executed_dir(profile) / "assets")  # what its widgets need on the static page
    try:
        # The profile travels in MMVAE_PROFILE, not as a parameter: so Papermill adds no cell of its own.
        nb = papermill.execute_notebook(
            notebook, None, progress_bar=bar, execution_timeout=limit, extra_arguments=quiet
        )
    except papermill.PapermillExecutionError as error:
        where = f"cell {error.cell_index + 1}, In [{error.exec_count}]: {error.ename}: {error.evalue}"
        return "\n".join([where, *error.traceback])
    except Exception as error:  # a cell that took too long, a kernel that died
        return f"{type(error).__name__}: {error}"
    run = nb.metadata.papermill
    nb.metadata["mmvae"] = {"hash": before, "profile": profile, "machine": machine(profile)}
    nb.metadata["mmvae"] |= {"end": run.end_time, "seconds": round(run.duration, 1)}
    write_text(executed_dir(profile) / notebook.name, nbformat.writes(nb))
    return ""


def machine(profile):
    import torch

    device = torch.cuda.get_device_name() if profile == "gpu" else f"{os.cpu_count()} CPU cores"
    return f"{device}, {platform.system()} {platform.machine()}, Python {platform.python_version()}"


def execute(profile):
    """Execute what has changed: two notebooks at a time, the comparison last (it reuses the others' runs)."""
    everything = notebooks()
    for path in executed_dir(profile).glob("*.ipynb"):
        if path.name not in {source.name for source in everything}:
            path.unlink()
    stale = [path for path in everything if not is_fresh(path, profile)]
    if not stale:
        print(f"notebooks: all {len(everything)} are up to date in profile {profile}")
        return
    os.environ["MMVAE_PROFILE"] = profile
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for these small nets one thread a notebook is the fastest
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # debugger noise at every kernel start
    import mmvae
    from tqdm.auto import tqdm

    print(f"notebooks: executing {len(stale)} of {len(everything)} in profile {profile}", flush=True)
    _ = mmvae.profile(profile).data_file  # render the data once, before two kernels would
    failures = []
    workers = {"max_workers": min(2, os.cpu_count() or 1), "mp_context": multiprocessing.get_context("spawn")}
    with tqdm(total=len(stale), unit="notebook", desc="notebooks", dynamic_ncols=True) as total:
        for group in ([p for p in stale if p != everything[-1]], [p for p in stale if p == everything[-1]]):
            with ProcessPoolExecutor(**workers) as pool:
                rows = enumerate(group)
                runs = {pool.submit(run_notebook, path, profile, 1 + i % 2): path for i, path in rows}
                for run in as_completed(runs):
                    if wrong := run.result():
                        failures.append(runs[run].name)
                        total.write(f"\nFAILED notebooks/{runs[run].name}: {wrong}\n", file=sys.stderr)
                    total.update()
    if failures:
        sys.exit(f"{len(failures)} notebook(s) failed in profile {profile}: {', '.join(sorted(failures))}")


# ---------------------------------------------------------------- site


def check_jupyter_book():
    """SystemExit, in a sentence, if Jupyter Book is not of version 1: version 2 is another program."""
    found = version("jupyter-book")
    if not found.startswith("1."):
        sys.exit(f"jupyter-book: found {found}, expected 1.x, which reads _config.yml and Sphinx's extensions as this book "
                 "has them; `make env` installs the tested one, and CONTRIBUTING.md says what a move to 2 would take")


def put_in_place(html, out):
    """Folder `html` becomes `out`. What was there is renamed before it is removed, so that `out` is whole or absent."""
    old = html.with_name(f"{html.name}.old")
    shutil.rmtree(old, ignore_errors=True)  # of one that was killed here
    if out.exists():
        out.replace(old)
    html.replace(out)
    shutil.rmtree(old, ignore_errors=True)


def add_for_publishing(html, address):
    """Into folder `html`: what a host and a search engine read. address: where the site will be (str)."""
    (html / ".nojekyll").touch()  # GitHub Pages: take files and folders that begin with _ as they are
    pages = "".join(f"<url><loc>{escape(f'{address}{page}.html')}</loc></url>\n" for page in toc_entries())
    space = "http://www.sitemaps.org/schemas/sitemap/0.9"
    write_text(html / "sitemap.xml", f'<?xml version="1.0" encoding="utf-8"?>\n<urlset xmlns="{space}">\n{pages}</urlset>\n')
    write_text(html / "robots.txt", f"User-agent: *\nAllow: /\nSitemap: {address}sitemap.xml\n")


def site(profile):
    """Build the HTML, warnings being errors, and put it in place only if the build succeeded."""
    check_jupyter_book()
    source, work, out = ROOT / "_build/site" / profile, ROOT / "_build/work" / profile, html_dir(profile)
    shutil.rmtree(work, ignore_errors=True)  # what one that was killed left
    stage(profile, source)
    key = digest(
        [p for p in sorted(source.rglob("*")) if p.is_file()]
        + sorted((ROOT / "mmvae").rglob("*.py"))  # their docstrings are pages
        + [ROOT / "constraints.txt", ROOT / "book/build.py", ROOT / "book/colab.py", ROOT / "book/slim.py", *notebooks()],
        root=ROOT,
    )
    stamp = out / ".site-hash"
    if not (stamp.exists() and stamp.read_text() == key):
        print("site: building", flush=True)
        command = [
            sys.executable,
            "-c",
            "from jupyter_book.cli.main import main; main()",
            "build",
            str(source),
        ]
        flags = ["--path-output", str(work), "--all", "-W", "-n", "--keep-going", "-q"]
        env = {**os.environ, "PYTHONWARNINGS": "ignore"}  # deprecations in the tools' own code
        done = subprocess.run(command + flags, env=env, stdout=subprocess.DEVNULL)  # warnings go to stderr
        if done.returncode or not (work / "_build/html/index.html").exists():
            sys.exit("site: the build failed; every WARNING above counts as an error")
        html = work / "_build" / "html"
        for path in notebooks():  # what the download button gives: the chapter to run, without its outputs
            shutil.copy(path, html / "_sources" / "notebooks" / path.name)
        for name in ("widgets", "pictures"):
            shutil.copytree(source / name, html / name)
        mathjax = html / "_static" / "mathjax"
        for path in mathjax.rglob("*"):  # 24 MB; keep what a page can ask for
            if path.is_file() and not path.relative_to(mathjax).as_posix().startswith(MATHJAX):
                path.unlink()
        config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
        slim_pages(html)
        colab.write(html)
        add_for_publishing(html, config["html"]["baseurl"])
        write_text(html / ".site-hash", key)
        put_in_place(html, out)
        shutil.rmtree(work)
    print(f"site: {out.relative_to(ROOT)}/index.html")


def pages(profile):
    """Copy the site, if it is whole, to _build/pages, and the PDF (`make pdf`) beside it where one was made."""
    if found := problems(profile):
        sys.exit("pages: the site is not whole, nothing is published:\n  " + "\n  ".join(found))
    work, out = ROOT / "_build" / "work" / "pages", ROOT / "_build/pages"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(html_dir(profile), work)
    for path in sorted((ROOT / "_build/pdf").glob("*.pdf")):
        shutil.copy(path, work)
    put_in_place(work, out)
    made = sorted(path for path in out.rglob("*") if path.is_file())
    size, count = sum(path.stat().st_size for path in made) / 2**20, len([p for p in made if p.suffix == ".html"])
    print(f"pages: {count} pages, {len(made)} files, {size:.0f} MB in {out.relative_to(ROOT)}")


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def serve(profile):
    """Serve the site on a free local port until Ctrl-C, and open a browser."""
    if not (html_dir(profile) / "index.html").exists():
        sys.exit(f"{html_dir(profile).relative_to(ROOT)}: no site yet; run `make book`")
    handler = functools.partial(QuietHandler, directory=str(html_dir(profile)))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        address = f"http://127.0.0.1:{server.server_port}/"
        print(f"the book is at {address} (Ctrl-C to stop)", flush=True)
        webbrowser.open(address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=("execute", "site", "pages", "serve"))
    parser.add_argument("--profile", default="cpu", choices=("smoke", "cpu", "gpu"))
    args = parser.parse_args()
    {"execute": execute, "site": site, "pages": pages, "serve": serve}[args.command](args.profile)


if __name__ == "__main__":
    main()
