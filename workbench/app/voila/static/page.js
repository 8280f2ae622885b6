// The life of a page: named loading steps, the first paint, and what happens when its kernel is lost.
(() => {
  const { prefix, plotly } = document.currentScript.dataset;
  const element = (id) => document.getElementById(id);
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

  const lost = () => {
    if (!kernel) return;
    kernel = null;
    const banner = element("lost");
    banner.querySelector("[data-restore]").href = location.href;
    banner.hidden = false;
    document.body.classList.add("without-kernel");
  };

  const watch = async () => {
    if (!kernel) return;
    try {
      const answer = await fetch(`${prefix}pool/alive/${kernel}`, { cache: "no-store" });
      if (!answer.ok || !(await answer.json()).alive) return lost();
    } catch {
      return lost();
    }
    setTimeout(watch, 3000);
  };

  window.workbench = {
    plotly,
    started(id) { kernel = id; },
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
