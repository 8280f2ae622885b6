// Around a view's picture: progress, errors, export, copy link; page address (Back is undo) and theme.
const BAR_AFTER_MS = 1000;
const HISTORY_AFTER_MS = 600;
const PICTURES = ".wb-canvas, .wb-plot, .wb-cells, .wb-stepper-sentence, .widget-html";
let serial = 0;
const copy = Math.random().toString(36).slice(2, 8);  // every widget has its own copy of this module

const inVoila = () => document.body.dataset.voila !== undefined || !document.querySelector(".jp-LabShell, .jp-NotebookShell");

function watchTheme(changed) {
  const read = () => {
    const asked = new URLSearchParams(location.search).get("theme");
    const lab = document.body.dataset.jpThemeLight;
    const dark = !inVoila() || !asked ? lab === "false" : asked === "dark";
    const theme = dark ? "dark" : "light";
    document.documentElement.dataset.wbTheme = theme;
    changed(theme);
  };
  read();
  const watcher = new MutationObserver(read);
  watcher.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
  return () => watcher.disconnect();
}

function saveFile(message, buffers) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([buffers[0]], { type: message.mime }));
  link.download = message.filename;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = document.createElement("textarea");
    field.value = text;
    field.setAttribute("aria-hidden", "true");
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
}

function render({ model, el }) {
  el.classList.add("wb", "wb-bar");
  const id = `wb-bar-${copy}-${++serial}`;
  el.innerHTML = `
    <div class="wb-row" role="group" aria-label="Actions">
      <span class="wb-kind"></span>
      <label class="wb-hidden" for="${id}-export">Export format</label>
      <select id="${id}-export" class="wb-export"></select>
      <button type="button" class="wb-download">Export</button>
      <button type="button" class="wb-link">Copy link</button>
      <button type="button" class="wb-python" aria-expanded="false" aria-controls="${id}-code">Python</button>
      <span class="wb-said wb-note" role="status"></span>
    </div>
    <div class="wb-progress" hidden>
      <progress max="1" aria-label="Progress"></progress><span class="wb-step"></span>
      <button type="button" class="wb-cancel">Cancel</button>
    </div>
    <div class="wb-error" role="alert"></div>
    <div class="wb-note wb-remark" role="status"></div>
    <div class="wb-code" id="${id}-code" hidden><pre tabindex="0" aria-label="Python that remakes the picture"></pre>
      <button type="button" class="wb-copy-code">Copy Python</button></div>`;
  const $ = (name) => el.querySelector(name);
  const said = (text) => {
    $(".wb-said").textContent = text;
    clearTimeout(said.timer);
    said.timer = setTimeout(() => { $(".wb-said").textContent = ""; }, 4000);
  };

  const show = {
    title: () => el.setAttribute("aria-label", model.get("title")),
    kind: () => {
      const kind = model.get("kind");
      $(".wb-kind").textContent = kind;
      $(".wb-kind").hidden = !kind;
      $(".wb-kind").title = "How the numbers of this view came about";
    },
    error: () => { $(".wb-error").textContent = model.get("error"); },
    note: () => { $(".wb-remark").textContent = model.get("note"); },
    recipe: () => { $(".wb-code pre").textContent = model.get("recipe"); },
    exports: () => {
      const menu = $(".wb-export");
      const before = menu.value;
      const chosen = menu.selectedIndex > 0; // the first is what nobody chose
      menu.replaceChildren(...model.get("exports").map((label) => new Option(label)));
      if (chosen && model.get("exports").includes(before)) menu.value = before;
    },
    progress: () => {
      const bar = $("progress");
      const done = model.get("progress");
      if (done > 0) bar.value = done; else bar.removeAttribute("value");
      $(".wb-step").textContent = model.get("step");
    },
    stale: () => {
      const [view, part] = [el.closest(".wb-view"), model.get("stale")];
      const within = part === "all" ? view : part && view?.querySelector(`.${part}`);
      view?.querySelectorAll(PICTURES).forEach((picture) => {
        const on = Boolean(within && within.contains(picture));
        picture.classList.toggle("wb-stale", on);
        if (on) picture.setAttribute("aria-busy", "true");
        else if (picture.dataset.pane !== "waiting") picture.removeAttribute("aria-busy");
      });
    },
    busy: () => {
      clearTimeout(show.timer);
      el.dataset.busy = String(model.get("busy"));
      if (model.get("busy")) {
        if (show.waiting) return;
        show.waiting = true;
        show.slow = setTimeout(() => { $(".wb-progress").hidden = false; }, BAR_AFTER_MS);
      } else {
        // A newer request follows within moments while a slider moves: keep the bar's clock running across the gap.
        show.timer = setTimeout(() => {
          clearTimeout(show.slow);
          show.waiting = false;
          $(".wb-progress").hidden = true;
        }, 50);
      }
    },
  };

  // The address holds the state; one history entry per pause in turning knobs, so that Back undoes whole gestures.
  const canPush = inVoila();
  let historyTimer;
  let fromHistory = false;
  const address = () => {
    const url = new URL(location.href);
    if (!canPush) url.search = "";
    for (const key of model.get("owned")) url.searchParams.delete(key);
    for (const [key, value] of new URLSearchParams(model.get("query"))) url.searchParams.set(key, value);
    return url;
  };
  show.query = () => {
    if (!canPush) return;
    clearTimeout(historyTimer);
    historyTimer = setTimeout(() => {
      const url = address();
      if (url.href === location.href) return;
      const settling = fromHistory || !history.state?.workbench;
      history[settling ? "replaceState" : "pushState"]({ workbench: true }, "", url);
      fromHistory = false;
    }, HISTORY_AFTER_MS);
  };
  const back = () => {
    fromHistory = true;
    setTimeout(() => { fromHistory = false; }, 3 * HISTORY_AFTER_MS);
    model.send({ type: "address", query: location.search.slice(1) });
  };
  if (canPush) {
    if (!history.state?.workbench) history.replaceState({ workbench: true }, "");
    addEventListener("popstate", back);
  }

  const link = () => {
    const base = model.get("link_base");
    if (canPush || !base) return canPush ? address().href : "?" + model.get("query");
    const root = JSON.parse(document.querySelector("#jupyter-config-data")?.textContent || "{}").baseUrl || "/";
    return location.origin + root + base.replace(/^\//, "") + "?" + model.get("query");
  };
  $(".wb-link").addEventListener("click", async () => {
    said((await copyText(link())) ? "Link copied." : "The browser refused to copy.");
  });
  $(".wb-copy-code").addEventListener("click", async () => {
    said((await copyText(model.get("recipe"))) ? "Python copied." : "The browser refused to copy.");
  });
  $(".wb-python").addEventListener("click", () => {
    const code = $(".wb-code");
    code.hidden = !code.hidden;
    $(".wb-python").setAttribute("aria-expanded", String(!code.hidden));
  });
  $(".wb-download").addEventListener("click", () => model.send({ type: "export", key: $(".wb-export").value }));
  $(".wb-cancel").addEventListener("click", () => model.send({ type: "cancel" }));
  const receive = (message, buffers) => {
    if (message.type === "download") { saveFile(message, buffers); said(`Saved ${message.filename}.`); }
  };

  const names = ["title", "kind", "error", "note", "recipe", "exports", "progress", "busy", "stale", "query"];
  names.forEach((name) => { model.on(`change:${name}`, show[name]); if (name !== "query") show[name](); });
  model.on("change:step", show.progress);
  model.on("msg:custom", receive);
  const unwatch = watchTheme((theme) => model.send({ type: "page", theme, host: canPush ? "voila" : "lab" }));
  return () => {
    unwatch();
    removeEventListener("popstate", back);
    [historyTimer, show.timer, show.slow, said.timer].forEach(clearTimeout);
    names.forEach((name) => model.off(`change:${name}`, show[name]));
    model.off("change:step", show.progress);
    model.off("msg:custom", receive);
  };
}

export default { render: hearing(render) };
