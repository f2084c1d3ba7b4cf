// What is wider than the page scrolls in its own box: such a box says so at its edge, and the keyboard can reach it.
(() => {
  const BOXES = "mjx-container[display=true], .pst-scrollable-table-container, div.cell_output, div.cell_output .output, pre, "
    + "div.cell_output :is(.mmvae-picture, figure)";
  const look = (boxes) => { // first all is read, then all is written: one layout for a page
    const found = [...new Set(boxes)].map((e) => [e, e.scrollWidth > e.clientWidth + 1 && /auto|scroll/.test(getComputedStyle(e).overflowX),
      e.scrollLeft + e.clientWidth >= e.scrollWidth - 2]);
    for (const [e, wide, end] of found) {
      if (wide && !e.hasAttribute("tabindex")) e.tabIndex = 0;
      if (wide && e.localName !== "figure" && !e.hasAttribute("role")) e.setAttribute("role", "group");
      if (wide && !e.hasAttribute("aria-label")) e.setAttribute("aria-label", "scrolls sideways");
      if (wide || e.classList.contains("wide")) { e.classList.toggle("wide", wide); e.classList.toggle("at-end", end); }
    }
  };
  const sizes = new ResizeObserver((entries) => look(entries.map(({ target }) => target.closest(BOXES)).filter(Boolean)));
  const all = (root) => { for (const e of root.querySelectorAll(BOXES)) { sizes.observe(e); sizes.observe(e.firstElementChild ?? e); } };
  const begin = () => {
    const article = document.querySelector("article.bd-article");
    if (!article) return;
    all(article);
    article.addEventListener("scroll", ({ target }) => { if (target.classList?.contains("wide")) look([target]); }, true);
    new MutationObserver((changes) => {
      for (const { target, addedNodes } of changes)
        for (const e of addedNodes) if (e.localName === "mjx-container" && e.getAttribute("display")) sizes.observe(e);
    }).observe(article, { childList: true, subtree: true });
  };
  document.readyState === "loading" ? document.addEventListener("DOMContentLoaded", begin) : begin();
})();
