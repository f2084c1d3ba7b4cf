// Hovers: the terms, equations and papers that a page refers to, shown where it does. sphinx-tippy has collected them; this says
// how they come and go. Esc closes one; the first tap of a finger shows it and the second follows the link; it keeps off controls.
(() => {
  const ids = (tip) => {
    for (const e of tip.querySelectorAll("[id]")) e.removeAttribute("id"); // the page that it was taken from has them
    for (const e of tip.querySelectorAll(".headerlink, .backrefs")) e.remove();
    for (const e of tip.querySelectorAll("[role]")) e.removeAttribute("role");
    const term = tip.querySelector(":scope > dt");
    if (term) { // <dt> and <dd> stand in a list
      const list = document.createElement("dl");
      term.before(list);
      list.append(...tip.querySelectorAll(":scope > dt, :scope > dd"));
    }
  };
  const fit = (tip) => { // a formula wider than the tip is set smaller
    for (const e of tip.querySelectorAll("mjx-container")) {
      const room = tip.clientWidth - 20, wide = e.scrollWidth;
      if (wide > room && room > 0) e.style.fontSize = `${Math.max(45, Math.floor((100 * room) / wide))}%`;
    }
  };
  const covers = (tip) => {
    const a = tip.getBoundingClientRect();
    return [...document.querySelectorAll(".mmvae-widget")].some((e) => {
      const b = e.getBoundingClientRect();
      return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
    });
  };
  const book = {
    name: "book",
    fn(instance) {
      let shown = 0, ready = false;
      const tip = instance.popper.querySelector(".tippy-content");
      const sizes = new ResizeObserver(() => {
        fit(tip);
        instance.popperInstance?.forceUpdate();
        const [side] = (instance.popper.querySelector(".tippy-box").dataset.placement ?? "").split("-");
        if (side && instance.props.placement.startsWith(side) && covers(instance.popper))
          instance.setProps({ placement: side === "top" ? "bottom-start" : "top-start" });
      });
      const escape = (event) => { if (event.key === "Escape") instance.hide(); };
      const tap = (event) => {
        if (!tippy.currentInput.isTouch || (shown && performance.now() - shown > 600)) return;
        event.preventDefault();
        instance.show();
      };
      return {
        onCreate() { instance.reference.addEventListener("click", tap); },
        onDestroy() { instance.reference.removeEventListener("click", tap); },
        onShow() {
          tippy.hideAll({ exclude: instance, duration: 0 });
          if (!ready) ids(tip);
          shown ||= performance.now();
          document.addEventListener("keydown", escape);
        },
        onMount() { // once its formulas are set, which may be later, it has another size
          if (!ready && tip.textContent.includes("\\")) window.MathJax?.typesetPromise?.([tip]);
          ready = true;
          sizes.observe(tip);
        },
        onHide() { shown = 0; sizes.disconnect(); document.removeEventListener("keydown", escape); },
      };
    },
  };
  tippy.setDefaultProps({
    plugins: [book], theme: "book", appendTo: () => document.body, aria: { content: "describedby", expanded: false },
    offset: [0, 6], touch: true, zIndex: 1100, moveTransition: "",
  });
  tippy([]); // from now on it knows a finger from a mouse
  const make = tippy; // a page has a hundred links; each hover is made when it is first asked for
  window.tippy = Object.assign((link, props) => {
    const asks = ["mouseenter", "focus", "touchstart"];
    const begin = ({ type }) => {
      for (const on of asks) link.removeEventListener(on, begin);
      make(link, { ...props, showOnCreate: type !== "touchstart" });
    };
    for (const on of asks) link.addEventListener(on, begin, { passive: true });
  }, make);
})();
