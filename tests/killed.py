"""Kill what writes files before each of its changes, run it again, and compare: python tests/killed.py text|site FOLDER

The site's own code runs, `build.site`; only what takes minutes is replaced, the notebooks, the staging and Sphinx.
"""
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "book"))
import build  # noqa: E402
import stage  # noqa: E402

KILLED = 86  # the exit status of what was
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "shutil.copyfile"}
PAGES = "index.html", "book/intro.html", "_sources/notebooks/x", "_static/mathjax/tex-chtml.js", "_static/mathjax/a.js"


def killed_before(n, work):
    """Run work() in a process that is killed before its n-th change of a file; what it would open to write is left half
    written. False if it ended before that."""
    if process := os.fork():
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        assert code in (0, KILLED), code
        return code == KILLED
    seen, dying = itertools.count(), []

    def hook(event, args):
        writes = event == "open" and isinstance(args[0], str | os.PathLike) and isinstance(args[2], int) and args[2] & 3
        if dying or not (writes or event in CHANGES) or next(seen) < n:
            return
        dying.append(True)
        if writes and Path(args[0]).parent.is_dir():
            Path(args[0]).write_bytes(b"half of wh")
        os._exit(KILLED)

    sys.addaudithook(hook)
    try:
        work()
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        os._exit(1)
    os._exit(0)


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def a_text(folder):
    """How often `write_text` was killed; each time the file is the old one."""
    for n in itertools.count():
        stage.write_text(folder / "a", "old")
        killed = killed_before(n, lambda: stage.write_text(folder / "a", "new"))
        assert (folder / "a").read_text() == ("old" if killed else "new"), n
        if not killed:
            return n


def replaced(folder):
    """Put a small repository, and steps that take no time, in the place of the book's."""
    for name in ("constraints.txt", "book/build.py", "book/colab.py", "book/slim.py", "01_a.ipynb"):
        stage.write_text(folder / name, name)
    stage.write_text(folder / "_config.yml", "html: {baseurl: 'https://some.one/book/'}")

    def words():
        return (folder / "words").read_text()

    def stage_it(profile, target):
        for name in ("widgets/w.js", "pictures/p.png", "book/intro.md"):
            stage.write_text(target / name, words() + name)

    def build_it(command, **options):
        for name in PAGES:
            stage.write_text(folder / "_build" / "work" / "cpu/_build/html" / name, words() + name)
        return subprocess.CompletedProcess(command, 0)

    build.ROOT, build.stage, build.subprocess.run, build.print = folder, stage_it, build_it, lambda *words, **options: None
    build.html_dir, build.notebooks = lambda profile: folder / "_build/html", lambda: [folder / "01_a.ipynb"]
    build.toc_entries, build.check_jupyter_book = lambda: ["book/intro"], lambda: None
    build.colab.write = lambda html: stage.write_text(html / "colab/01_a.ipynb", words())


def a_site(folder):
    """How often `site` was killed; run again, each site is whole, and nothing else is left."""
    replaced(folder)
    site, whole, count = folder / "_build/html", {}, 0

    def made(words):
        stage.write_text(folder / "words", words)
        build.site("cpu")
        return tree(site)

    for words in ("first", "second"):
        whole[words] = made(words)
    assert whole["first"] != whole["second"] and len(whole["first"]) > 8 and "_static/mathjax/a.js" not in whole["first"]
    for before, killed, then in (("", "second", "second"), ("first", "second", "second"), ("first", "second", "first")):
        for n in itertools.count():
            shutil.rmtree(folder / "_build")
            (folder / "_build").mkdir()
            if before:
                made(before)
            stage.write_text(folder / "words", killed)
            if not killed_before(n, lambda: build.site("cpu")):
                break
            assert made(then) == whole[then], (before, then, n)
            left = {path.relative_to(folder / "_build").as_posix() for path in (folder / "_build").rglob("*")} - {"work"}
            assert {name.split("/")[0] for name in left} == {"html", "site"}, (before, then, n, left)
        count += n
    return count


if __name__ == "__main__":
    print(f"killed {dict(text=a_text, site=a_site)[sys.argv[1]](Path(sys.argv[2]))} times")
