// The life of a page: named loading steps, the first paint, and what happens when its kernel is lost.
(() => {
  const { prefix, plotly } = document.currentScript.dataset;
  const element = (id) => document.getElementById(id);
  const UNANSWERED = 3;
  let kernel = null;
  let total = 0;

  const mark = (number, text) => {
    element("loading-step").textContent = text;
    element("loading-bar").value = number;
    for (const item of document.querySelectorAll(".steps [data-step]")) {
      item.classList.toggle("done", Number(item.dataset.step) < number);
      if (Number(item.dataset.step) === number) item.setAttribute("aria-current", "step");
      else item.removeAttribute("aria-current");
    }
  };

  const show = () => {
    element("rendered_cells").classList.remove("waiting");
    element("loading")?.remove();
    window.dispatchEvent(new Event("resize"));
  };

  const tell = (sentence, restore) => {
    const banner = element("lost");
    banner.hidden = !sentence;
    banner.querySelector("span").textContent = sentence;
    banner.querySelector("[data-restore]").hidden = !restore;
    banner.querySelector("[data-restore]").href = location.href;
    document.body.classList.toggle("without-kernel", Boolean(sentence));
  };

  const lost = () => {
    if (!kernel) return;
    kernel = null;
    tell("The kernel of this page is gone: it was idle for long or stopped. What you see stays, but no longer reacts.", true);
  };

  let unanswered = 0;
  const watch = async () => {
    if (!kernel) return;
    try {
      const answer = await fetch(`${prefix}pool/alive/${kernel}`, { cache: "no-store" });
      if (answer.ok) {
        if (!(await answer.json()).alive) return lost();
        if (unanswered >= UNANSWERED) tell("");
        unanswered = 0;
      } else if (++unanswered === UNANSWERED) return lost();
    } catch {
      if (++unanswered === UNANSWERED) tell("The server does not answer. This page asks again every few seconds.");
    }
    setTimeout(watch, 3000);
  };

  // Voila replaces the outputs by what it draws, so their widgets are noted before.
  const models = new Set();
  const noteModels = () => {
    for (const output of document.querySelectorAll("script[type='application/vnd.voila.cell-output+json']")) {
      for (const [, id] of output.textContent.matchAll(/"model_id":\s*"([\w-]+)"/g)) models.add(id);
    }
  };

  window.workbench = {
    plotly,
    models: () => models,
    hasKernel: () => Boolean(kernel),
    waiting(ahead) {
      mark(0, ahead === 1 ? "Waiting: one page starts before this one" : `Waiting: ${ahead} pages start before this one`);
    },
    started(id) { kernel = id; mark(0, "Starting a kernel"); },
    step(next) {
      total = next ? next.of : total;
      if (next) mark(next.number, `Running step ${next.number} of ${next.of}: ${next.label}`);
      else mark(total + 1, "Drawing the page");
    },
    left() { kernel = null; },
    failed() { show(); document.body.classList.add("failed"); },
    finished() { window.cellLoaded = true; if (kernel) setTimeout(watch, 3000); },
  };
  const nameSliders = () => {
    for (const handle of document.querySelectorAll(".widget-slider .noUi-handle:not([aria-label])")) {
      const label = handle.closest(".widget-slider").querySelector(".widget-label");
      handle.setAttribute("aria-label", label?.textContent.trim() || "value");
    }
  };
  document.addEventListener("DOMContentLoaded", () => {
    noteModels();
    new MutationObserver(nameSliders).observe(element("rendered_cells"), { childList: true, subtree: true });
  });

  window.voila_finish = () => { if (window.cellLoaded) show(); };

  window.addEventListener("workbench:state", (event) => {
    const address = new URL(location.href);
    const theme = address.searchParams.get("theme");
    address.search = event.detail;
    if (theme && !address.searchParams.has("theme")) address.searchParams.set("theme", theme);
    history.replaceState(history.state, "", address);
  });
  window.addEventListener("pagehide", (event) => {
    if (kernel && !event.persisted) navigator.sendBeacon(`${prefix}pool/leave/${kernel}`);
  });
  window.addEventListener("pageshow", (event) => { if (event.persisted) watch(); });
})();
