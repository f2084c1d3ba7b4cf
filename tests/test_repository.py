"""What stands around the book: workflows, version, container files, article; and that a build can be killed at any moment."""
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import tomllib
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book"))
import build  # noqa: E402
import check  # noqa: E402
import links  # noqa: E402
import release  # noqa: E402
import repo  # noqa: E402

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
TOP = {"book", "notebooks", "mmvae", "tests", "benchmarks", "_config.yml", "_toc.yml", "README.md",  # the book
       "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "LICENSE-text", "Makefile", "SECURITY.md", "conftest.py",
       "constraints.txt", "pyproject.toml"}  # and what a project in Python needs


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


# ---------------------------------------------------------------- killed at any moment

@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
@pytest.mark.parametrize("what, least", [("text", 3), ("site", 100)])
def test_what_is_killed_at_any_moment_and_run_again_is_as_what_was_not(what, least, tmp_path):
    """A file, and a site: on an empty folder, over another site, and over another that is then asked for again."""
    command = [sys.executable, str(ROOT / "tests/killed.py"), what, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(re.search(r"^killed (\d+) times$", done.stdout, re.M)[1]) >= least


def test_an_installation_that_was_killed_is_done_again(tmp_path):
    """A package without INSTALLER is one that pip had not ended: pip shall not take it for whole."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text(text(name))
    python, packages = tmp_path / ".venv/bin/python", tmp_path / ".venv/lib/python3.11/site-packages"
    for name in ("whole-1.dist-info/INSTALLER", "half-1.dist-info/METADATA", "half/a.py"):
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).touch()
    python.parent.mkdir()
    python.write_text('#!/bin/sh\necho "$@" >> asked\n')
    python.chmod(0o755)
    env = {k: v for k, v in os.environ.items() if k not in ("TORCH", "MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    command = ["make", "env", f"PYTHON={sys.executable}"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in packages.iterdir()} == {"whole-1.dist-info", "half"}
    ensured, installed = (tmp_path / "asked").read_text().splitlines()
    assert ensured.startswith("-m ensurepip") and "install" in installed and ".[book,test]" in installed
    again = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert len((tmp_path / "asked").read_text().splitlines()) == 2, again.stdout


# ---------------------------------------------------------------- published

def test_another_jupyter_book_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setattr(build, "version", lambda name: "1.0.4.post1")
    build.check_jupyter_book()
    monkeypatch.setattr(build, "version", lambda name: "2.1.0")
    with pytest.raises(SystemExit, match=r"jupyter-book: found 2\.1\.0, expected 1\.x"):
        build.check_jupyter_book()


def test_the_check_misses_what_a_published_site_needs(tmp_path):
    page = "".join(f'{tag}x">' for tag in check.ON_EVERY_PAGE)
    (tmp_path / "404.html").touch()
    (tmp_path / "a.html").write_text(page)
    build.toc_entries, listed = (lambda: ["a"]), build.toc_entries
    try:
        build.add_for_publishing(tmp_path, "https://some.one/book/")
    finally:
        build.toc_entries = listed
    assert check.published_problems(tmp_path, ["a"]) == []
    assert "<loc>https://some.one/book/a.html</loc>" in (tmp_path / "sitemap.xml").read_text()
    (tmp_path / "a.html").write_text(page.replace("canonical", ""))
    for name in (".nojekyll", "404.html", "sitemap.xml"):
        (tmp_path / name).unlink()
    found = check.published_problems(tmp_path, ["a"])
    assert len(found) == 4 and "a: no <link rel=\"canonical\" href=\"" in found


def test_the_site_is_where_the_repository_says():
    config, address = yaml.safe_load(text("_config.yml")), repo.site(repo.address()) + "/"
    told = config["sphinx"]["config"]
    assert {config["html"]["baseurl"], told["ogp_site_url"]} == {address} and address.endswith(told["notfound_urls_prefix"])
    urls = tomllib.loads(text("pyproject.toml"))["project"]["urls"]
    assert urls["Documentation"] == address and address in text("README.md")


# ---------------------------------------------------------------- workflows and releases

@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_each_step_is_a_target_of_the_makefile(path):
    """Or an action, named by the hash of a commit; and no job has a permission that it does not name."""
    flow = yaml.safe_load(path.read_text())
    assert flow["permissions"] == {}
    for job in flow["jobs"].values():
        assert job["timeout-minutes"] and set(job["permissions"]) and "write-all" not in job["permissions"]
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"])
            else:
                made = re.fullmatch(r'make ([a-z-]+)(?: [A-Z]+="[^"]*")?', step["run"])
                assert made and made[1] in TARGETS or step["run"].startswith("gh release create ")


def test_the_workflows_are_those_that_contributing_names():
    rows = re.findall(r"^\| (\w+) \| [^|]+ \| [^|]+ \|$", text("CONTRIBUTING.md").partition("| workflow |")[2], re.M)
    assert sorted(rows[:len(WORKFLOWS)]) == [path.stem for path in WORKFLOWS]


def test_the_version_stands_in_one_place():
    import mmvae

    project = tomllib.loads(text("pyproject.toml"))
    assert "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "mmvae.__version__"}
    assert release.version() == mmvae.__version__ and release.disagreements() == []
    assert release.disagreements(f"v{mmvae.__version__}") == []
    assert release.disagreements("v9.9.9") == [f"TAG: found v9.9.9, expected v{mmvae.__version__}"]
    dates = re.search(rf"^## \[{mmvae.__version__}\] - (\S+)$", text("CHANGELOG.md"), re.M), text("CITATION.cff")
    assert f'date-released: "{dates[0][1]}"' in dates[1]


def test_the_changelog_has_the_form_of_one():
    log = text("CHANGELOG.md")
    versions = re.findall(r"^## \[([^\]]+)\]( - \d{4}-\d\d-\d\d)?$", log, re.M)
    assert versions[0] == ("Unreleased", "") and all(date for _, date in versions[1:])
    assert set(re.findall(r"^### (.+)$", log, re.M)) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert re.findall(r"^\[([^\]]+)\]: https://", log, re.M) == [version for version, _ in versions]


def test_addresses_are_found_and_asked(tmp_path):
    named = "[a](https://one.test/a_(b)), `https://two.test/x`, https://one.test/a_(b)#c. http://localhost/"
    (tmp_path / "README.md").write_text(named)
    (tmp_path / "book").mkdir()
    (tmp_path / "book/references.bib").write_text("@article{a,\n  doi = {10.1/2},\n}")
    assert set(links.addresses(tmp_path)) == {"https://one.test/a_(b)", "https://two.test/x", "https://doi.org/10.1/2"}

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response({"/there": 200, "/get": 405, "/gone": 404}.get(self.path, 403))
            self.end_headers()

        def do_GET(self):
            self.send_response({"/get": 200, "/gone": 404}.get(self.path, 403))
            self.end_headers()

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here = f"http://127.0.0.1:{server.server_port}"
        found = {path: links.answer(here + path) for path in ("/there", "/get", "/gone", "/shy")}
        server.shutdown()
    assert found["/there"] == found["/get"] == ""
    assert found["/gone"][0] == "gone" and found["/shy"][0] == "unclear"


# ---------------------------------------------------------------- the repository

def test_the_top_level_holds_the_book_and_what_a_project_needs():
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    git = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if git.returncode:
        pytest.skip("not a git checkout")
    found = {line.split("/")[0] for line in git.stdout.splitlines()}
    assert {name for name in found if not name.startswith(".")} == TOP
    for name in ("build/x", "dist/x", "_build/x"):
        assert subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md", ".github/pull_request_template.md"])
def test_what_a_page_names_exists(page):
    prose = text(page)
    assert set(re.findall(r"`make ([a-z-]+)", prose)) | set(re.findall(r"^make ([a-z-]+)", prose, re.M)) <= TARGETS
    files = re.findall(r"`((?:book|tests|mmvae|benchmarks|notebooks|\.github)/[\w./-]+|[A-Z]+\.md)`", prose)
    files += re.findall(rf"\]\({re.escape(repo.address())}/blob/main/([^)\s]+)\)", prose)
    assert [file for file in files if "NN_" not in file and not (ROOT / file).exists()] == []


def test_containers_take_pytorch_for_the_cpu():
    container = json.loads(text(".devcontainer/devcontainer.json"))
    assert container["containerEnv"]["TORCH"] == "cpu" and container["postCreateCommand"].removeprefix("make ") in TARGETS
    assert (ROOT / ".devcontainer" / container["build"]["dockerfile"]).exists()
    assert "--torch-backend cpu" in text(".binder/postBuild") and os.access(ROOT / ".binder/postBuild", os.X_OK)
    assert text(".binder/requirements.txt").split()[-1] == "uv"


def test_the_article_has_the_form_of_the_journal():
    head, body = re.fullmatch(r"---\n(.*?)\n---\n(.*)", text("book/paper/paper.md"), re.S).groups()
    head = yaml.safe_load(head)
    assert {"title", "tags", "authors", "affiliations", "date", "bibliography"} <= set(head)
    assert [author["name"] for author in head["authors"]] == [named_author()]
    sections = re.findall(r"^# (.+)$", body, re.M)
    assert {"Summary", "Statement of need", "Learning objectives", "Content"} <= set(sections)
    assert sections[-1] == "References"
    assert len(body.split()) <= 1000
    keys = set(re.findall(r"^@\w+\{([\w-]+),", text("book/paper/paper.bib"), re.M))
    assert set(re.findall(r"@([\w-]+)", body)) == keys


def named_author():
    """The one author whom the book names."""
    return re.search(r"^authors:\n  - name: (.+)$", text("CITATION.cff"), re.M)[1]
