// Draws a plotly figure. plotly.js comes from plotly's own static extension (JupyterLab and Voila load it anyway);
// only a page without it gets the copy that Python sends.
const MIME = "application/vnd.plotly.v1+json";

async function fromExtension() {
  const container = window._JUPYTERLAB && window._JUPYTERLAB["jupyterlab-plotly"];
  if (!container) return null;
  const { RenderedPlotly } = (await container.get("./mimeExtension"))();
  if (!RenderedPlotly) return null;
  if (!RenderedPlotly.Plotly) {
    const data = { [MIME]: { data: [], layout: {}, config: {} } };
    await new RenderedPlotly({ mimeType: MIME }).createGraph({ data, metadata: {}, setData() {} });
  }
  return RenderedPlotly.Plotly;
}

function fromPython(model) {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => {
      model.off("msg:custom", receive);
      reject(new Error("the plotting library did not arrive"));
    }, 6 * PANE_PATIENCE_MS); // it is five megabytes
    const receive = (message, buffers) => {
      if (message.type !== "plotly") return;
      clearTimeout(late);
      model.off("msg:custom", receive);
      const script = document.createElement("script");
      script.src = URL.createObjectURL(new Blob([buffers[0]], { type: "text/javascript" }));
      script.onload = () => resolve(window.Plotly);
      script.onerror = () => reject(new Error("the plotting library could not be loaded"));
      document.head.append(script);
    };
    model.on("msg:custom", receive);
    model.send({ type: "plotly" });
  });
}

function plotly(model) {
  window.__workbenchPlotly ??= (async () => {
    if (window.Plotly) return window.Plotly;
    return (await fromExtension().catch(() => null)) ?? fromPython(model);
  })();
  window.__workbenchPlotly.catch(() => { window.__workbenchPlotly = undefined; }); // the next picture tries again
  return window.__workbenchPlotly;
}

function render({ model, el }) {
  el.classList.add("wb", "wb-plot");
  const area = document.createElement("div");
  area.className = "wb-plot-area";
  area.setAttribute("role", "img");
  const sentence = document.createElement("p");  // stands where there is nothing to draw
  sentence.className = "wb-note";
  sentence.hidden = true;
  el.append(area, sentence);
  let closed = false;
  let drawing = Promise.resolve();
  const note = paneNote(el, () => draw());

  function draw() {
    drawing = drawing.then(async () => {
      area.setAttribute("aria-label", model.get("alt") || "figure");
      area.style.height = model.get("height") + "px";
      const nothing = !model.get("spec") && model.get("alt");
      sentence.textContent = nothing ? model.get("alt") : "";
      sentence.hidden = !nothing;
      area.hidden = Boolean(nothing);
      if (nothing) {
        note.painted();
        area.dataset.painted = String(1 + Number(area.dataset.painted || 0));
      }
      if (closed || !model.get("spec")) return;
      note.waiting();
      const Plotly = await plotly(model);
      const figure = JSON.parse(model.get("spec"));
      const least = figure.layout.meta?.leastWidth ?? 0;
      area.style.minWidth = `${least}px`;
      if (least) el.tabIndex = 0;  // so that keys can scroll it
      const layout = { ...figure.layout, autosize: true };
      const config = { displaylogo: false, responsive: false, displayModeBar: false, ...figure.config };
      area.covered = null;
      await Plotly.react(area, figure.data, layout, config);
      if (figure.frames) await Plotly.addFrames(area, figure.frames);
      note.painted();
      area.dataset.painted = String(1 + Number(area.dataset.painted || 0));
      if (!area.dataset.listening) {
        area.dataset.listening = "1";
        area.on("plotly_click", (event) => model.send({
          type: "click",
          points: event.points.map((p) => ({ curve: p.curveNumber, index: p.pointIndex ?? p.pointNumber, x: p.x, y: p.y })),
        }));
        area.on("plotly_hover", (event) => preview(Plotly, event.points[0]));
        area.on("plotly_unhover", () => preview(Plotly, null));
      }
    }).catch((error) => note.failed(error));
  }

  // While the pointer is over a point of the curve that layout.meta.preview names, its traces show that point's marks.
  function preview(Plotly, point) {
    const wanted = area.layout.meta?.preview;
    const over = wanted && point && point.curveNumber === wanted.curve;
    if (!over && !area.covered) return;
    if (!over) {
      const { traces, x, y } = area.covered;
      area.covered = null;
      return Plotly.restyle(area, { x, y }, traces);
    }
    const { traces, columns, points } = wanted;
    area.covered ??= { traces, x: traces.map((i) => area.data[i].x), y: traces.map((i) => area.data[i].y) };
    const [x, y] = points[point.y * columns + point.x];
    return Plotly.restyle(area, { x: traces.map(() => x), y: traces.map(() => y) }, traces);
  }

  async function save(message) {
    if (message.type !== "save") return;
    await drawing;
    const Plotly = await plotly(model);
    const size = { width: area.clientWidth || 800, height: area.clientHeight || 360 };
    const url = await Plotly.toImage(area, { format: message.format, ...size, scale: message.format === "png" ? 2 : 1 });
    const blob = message.format === "svg"
      ? new Blob([decodeURIComponent(url.slice(url.indexOf(",") + 1))], { type: "image/svg+xml" })
      : new Blob([Uint8Array.from(atob(url.slice(url.indexOf(",") + 1)), (c) => c.charCodeAt(0))], { type: "image/png" });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = message.filename;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  const size = new ResizeObserver(async () => {
    if (!area.dataset.painted || !area.clientWidth || closed) return;
    (await plotly(model)).Plots.resize(area);
  });
  size.observe(el);
  model.on("change:spec", draw);
  model.on("change:alt", draw);
  model.on("msg:custom", save);
  draw();
  return () => {
    closed = true;
    note.closed();
    size.disconnect();
    model.off("change:spec", draw);
    model.off("change:alt", draw);
    model.off("msg:custom", save);
    if (window.__workbenchPlotly) window.__workbenchPlotly.then((Plotly) => Plotly.purge(area), () => {});
  };
}

export default { render: hearing(render) };
