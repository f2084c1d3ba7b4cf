"""Every page of the site under axe, in both themes, on a wide screen and on a phone; and what its scripts threw.

python book/accessible.py [--profile cpu] [PAGE ...]      exits 1 and lists what axe found

`make accessible` fetches axe-core from npm, once, into _build/axe. Chromium is the system's. This is no part of `make ci`, which
asks for nothing from outside.
"""
import argparse
import sys

from check import CHROMIUM, FORMULAS, ROOT, chromium, html_dir, toc_entries

AXE = ROOT / "_build/axe/node_modules/axe-core/axe.min.js"
RUN = """axe.run(document, { resultTypes: ["violations"] }).then((found) => found.violations.map((v) =>
    `${v.id} (${v.impact}, ${v.nodes.length}): ${v.nodes[0].html.slice(0, 120)}`))"""
WIDER = "Math.max(0, document.documentElement.scrollWidth - innerWidth)"


def look(browser, page, width, theme):
    """What is wrong with one page (list of str): what axe finds, what its scripts threw, pixels beyond the window."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
    context.add_init_script(f"for (const key of ['mode', 'theme']) localStorage.setItem(key, '{theme}')")
    tab, found = context.new_page(), []
    tab.on("pageerror", lambda error: found.append(f"a script threw: {error}"))
    tab.goto(page.as_uri())
    tab.add_style_tag(content="section { content-visibility: visible !important }")  # all of it, the formulas too
    tab.evaluate(FORMULAS)
    tab.wait_for_timeout(500)  # widgets that are near, boxes that scroll
    tab.add_script_tag(path=AXE)
    found += tab.evaluate(RUN)
    if (wider := tab.evaluate(WIDER)) > 1:  # one is that of a rounded width
        found.append(f"{wider} pixels wider than the window")
    context.close()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="names as in _toc.yml; all where none is named")
    parser.add_argument("--profile", default="cpu")
    args = parser.parse_args()
    if unknown := set(args.pages) - set(toc_entries()):
        parser.error(f"PAGE: found {', '.join(sorted(unknown))}, expected some of {', '.join(toc_entries())}")
    for path, how in ((AXE, "make accessible"), (html_dir(args.profile) / "index.html", "make book")):
        if not path.exists():
            sys.exit(f"{path.relative_to(ROOT)}: not there; make it with: {how}")
    if not CHROMIUM:
        sys.exit("found no Chromium, which opens the pages; install it from the system's packages")
    wrong, pages = 0, args.pages or toc_entries()
    with chromium() as browser:
        for name in pages:
            for width, theme in ((w, t) for w in (1280, 390) for t in ("light", "dark")):
                for what in look(browser, html_dir(args.profile) / f"{name}.html", width, theme):
                    wrong += 1
                    print(f"{name}, {width} px, {theme}: {what}", flush=True)
    if wrong:
        sys.exit(f"accessible: {wrong} findings on {len(pages)} pages")
    print(f"accessible: {len(pages)} pages in two themes at two widths, no violation, no script error, nothing too wide")


if __name__ == "__main__":
    main()
