// A matrix as pixels. Python bins every window anew and sends levels; this file draws, zooms and reads out.
const HOVER_EVERY_MS = 60;
const GRID_FROM_PX = 4;
const ZOOM_STEP = 2;
const STRIP_PX = 44;
const HOW_TO_READ = "Point at the picture, or click it and use the arrow keys, to read entries.";

const number = (x) => Number(x).toLocaleString("en-US", { maximumSignificantDigits: 6 });
const range = ([first, end], word) => end - first === 1 ? `${word} ${first}` : `${word}s ${first}–${end - 1}`;

function render({ model, el }) {
  el.classList.add("wb", "wb-canvas");
  el.innerHTML = `
    <div class="wb-row wb-tools" role="group" aria-label="Zoom"><h3></h3>
      <button type="button" class="wb-in" aria-label="Zoom in" title="Zoom in (+)">+</button>
      <button type="button" class="wb-out" aria-label="Zoom out" title="Zoom out (-)">−</button>
      <button type="button" class="wb-one" title="One pixel or more per entry">1:1</button>
      <button type="button" class="wb-home" title="The whole matrix (Home)">All</button></div>
    <div class="wb-frame"><div class="wb-top" aria-hidden="true"></div><div class="wb-left" aria-hidden="true"></div>
      <div class="wb-main"><canvas class="wb-pixels" tabindex="0" role="application"
        aria-roledescription="matrix picture"></canvas><canvas class="wb-over" aria-hidden="true"></canvas></div>
      <div class="wb-right"><canvas class="wb-strip" aria-hidden="true"></canvas></div>
      <div class="wb-bottom"><canvas class="wb-strip" aria-hidden="true"></canvas></div></div>
    <div class="wb-legend"><span class="wb-scale" title="Colours rise with the square root. Of 512 x 512 equal parts of what is
      in view, or of its positions if they are fewer, the densest ends the scale.">0<canvas width="240" height="10"
      aria-hidden="true"></canvas><span class="wb-most"></span></span><span class="wb-total"></span></div>
    <p class="wb-readout" aria-live="polite"></p>
    <details><summary>How to steer</summary>Click the picture first. Scroll or pinch zooms, dragging moves. Arrow keys
      move the cursor (with Shift ten steps), + and − zoom, Home shows all, Enter picks, Escape lets go. Drag along a
      strip to brush rows or columns; a click there lets go.</details>`;
  const $ = (name) => el.querySelector(name);
  const main = $(".wb-main"), pixels = $(".wb-pixels"), over = $(".wb-over");
  const right = $(".wb-right canvas"), bottom = $(".wb-bottom canvas");
  const store = document.createElement("canvas");
  let view = [...model.get("window")];  // what is on screen; the model follows when a gesture rests
  let tile = null;
  let inFlight = false;
  let wanted = null;
  let cursor = null;
  let hovering = false;
  let serial = 0;
  let closed = false;
  const note = paneNote(el, () => { inFlight = false; ask(); });

  const dark = () => document.documentElement.dataset.wbTheme === "dark";
  const palette = () => {
    const view = model.get("palettes")[dark() ? "dark" : "light"];
    return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  };
  const colour = (name) => getComputedStyle(el).getPropertyValue(`--wb-${name}`).trim();
  const size = () => model.get("size");
  const ratio = () => window.devicePixelRatio || 1;

  // ---- Geometry -------------------------------------------------------------------------------------------------
  function layout() {
    const [m, n] = size();
    const width = main.clientWidth;
    if (!width || !m || !n) return false;
    const height = Math.round(width * Math.min(1.2, Math.max(0.2, m / n)));
    main.style.height = height + "px";
    const [w, h, strip] = [width, height, STRIP_PX].map((side) => Math.round(side * ratio()));
    for (const [node, across, down] of [[pixels, w, h], [over, w, h], [right, strip, h], [bottom, w, strip]]) {
      if (node.width !== across || node.height !== down) { node.width = across; node.height = down; }  // this clears it
    }
    return true;
  }
  function clip(w) {
    const result = [];
    size().forEach((limit, axis) => {
      const extent = Math.min(limit, Math.max(1, Math.round(w[2 * axis + 1] - w[2 * axis])));
      const begin = Math.min(Math.max(0, Math.round(w[2 * axis])), limit - extent);
      result.push(begin, begin + extent);
    });
    return result;
  }
  function place(event) {  // position in the matrix under a pointer, as fractions of rows and columns
    const box = main.getBoundingClientRect();
    const y = Math.min(0.999999, Math.max(0, (event.clientY - box.top) / box.height));
    const x = Math.min(0.999999, Math.max(0, (event.clientX - box.left) / box.width));
    return [view[0] + y * (view[1] - view[0]), view[2] + x * (view[3] - view[2])];
  }
  function binAt(row, column) {  // the pixel of the present tile that holds a position; edges as kernels.raster.bin_edges
    const bins = tile ? tile.shape : [view[1] - view[0], view[3] - view[2]];
    const shown = tile ? tile.window : view;
    return [[row, 0], [column, 1]].flatMap(([at, axis]) => {
      const begin = shown[2 * axis], extent = shown[2 * axis + 1] - begin, count = Math.max(1, bins[axis]);
      const i = Math.min(count - 1, Math.max(0, Math.floor((Math.floor(at) - begin) * count / extent)));
      return [begin + Math.ceil(i * extent / count), begin + Math.ceil((i + 1) * extent / count)];
    });
  }

  // ---- Drawing --------------------------------------------------------------------------------------------------
  function draw() {
    if (!layout()) return;
    const context = pixels.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.fillStyle = colour("plot");
    context.fillRect(0, 0, pixels.width, pixels.height);
    if (tile) {
      const [r0, r1, c0, c1] = tile.window;
      const sy = pixels.height / (view[1] - view[0]), sx = pixels.width / (view[3] - view[2]);
      context.drawImage(store, (c0 - view[2]) * sx, (r0 - view[0]) * sy, (c1 - c0) * sx, (r1 - r0) * sy);
    }
    drawStrips();
    drawOver();
    const ticks = (first, end) => [first, Math.floor((first + end - 1) / 2), end - 1]
      .filter((x, i, all) => all.indexOf(x) === i).map((x) => Object.assign(document.createElement("span"),
        { textContent: number(x) }));
    $(".wb-top").replaceChildren(...ticks(view[2], view[3]));
    $(".wb-left").replaceChildren(...ticks(view[0], view[1]));
    pixels.style.touchAction = view[1] - view[0] === size()[0] && view[3] - view[2] === size()[1] ? "pan-y" : "none";
  }
  function drawStrips() {
    if (!tile) return;
    paintStrip(right, 0, tile, view, model.get("brush_rows"), colour);
    paintStrip(bottom, 1, tile, view, model.get("brush_columns"), colour);
  }
  function drawOver() {
    const context = over.getContext("2d");
    context.clearRect(0, 0, over.width, over.height);
    const sy = over.height / (view[1] - view[0]), sx = over.width / (view[3] - view[2]);
    const y = (row) => (row - view[0]) * sy, x = (column) => (column - view[2]) * sx;
    const block = model.get("block");
    if (block && block * Math.min(sx, sy) >= GRID_FROM_PX * ratio()) paintGrid(context, view, block, sy, sx, colour);
    context.strokeStyle = context.fillStyle = colour("highlight");
    context.lineWidth = Math.max(1.5, 1.5 * ratio());
    for (const [key, axis] of [["brush_rows", 0], ["brush_columns", 1]]) {
      const brush = model.get(key);
      if (!brush.length) continue;
      const [a, b] = axis ? [x(brush[0]), x(brush[1])] : [y(brush[0]), y(brush[1])];
      context.globalAlpha = 0.15;
      if (axis) context.fillRect(a, 0, b - a, over.height); else context.fillRect(0, a, over.width, b - a);
      context.globalAlpha = 1;
    }
    const marks = model.get("marks");
    context.globalAlpha = 0.3;
    for (const row of marks.rows || []) context.fillRect(0, y(row), over.width, Math.max(2, sy));
    for (const column of marks.columns || []) context.fillRect(x(column), 0, Math.max(2, sx), over.height);
    context.globalAlpha = 1;
    for (const [row, column] of marks.cells || []) {
      const w = Math.max(4, sx), h = Math.max(4, sy);
      context.strokeRect(x(column) + (sx - w) / 2, y(row) + (sy - h) / 2, w, h);
    }
    if (cursor) {
      const [r0, r1, c0, c1] = binAt(...cursor);
      const grow = 2 * ratio();
      context.strokeRect(x(c0) - grow, y(r0) - grow, Math.max(2, x(c1) - x(c0)) + 2 * grow,
        Math.max(2, y(r1) - y(r0)) + 2 * grow);
    }
  }
  const scaleTop = () => (model.get("scale_top") || tile.densest) / model.get("each");  // in counts per position
  function recolour() {
    if (!tile) return;
    paintTile(store, tile, palette(), scaleTop());
    draw();
    drawLegend();
  }
  function drawLegend() {
    paintRamp($(".wb-legend canvas"), palette());
    const most = Number((scaleTop() * model.get("each")).toPrecision(3)), note = model.get("scale_note");
    const entries = model.get("unit") === "entries";
    $(".wb-most").textContent = `${most}${entries ? "" : ` ${model.get("unit")}`} per position${note ? `, ${note}` : ""}`;
    $(".wb-scale").hidden = !tile.total;
    $(".wb-total").textContent = tile.total ? `${counted(tile.total)} in view`
      : `There is no ${entries ? "entry" : model.get("unit")} in view, so the picture is empty.`;
  }
  function nothing() {  // a matrix without rows or columns has no picture
    const [m, n] = size(), none = Boolean(model.get("version")) && (!m || !n);
    $(".wb-frame").hidden = $(".wb-scale").hidden = $(".wb-readout").hidden = none;
    if (!none) return false;
    $(".wb-total").textContent = `There is nothing to draw: the matrix has ${m} rows and ${n} columns.`;
    note.painted();
    return true;
  }

  // ---- Tiles: one in flight, then only the newest ----------------------------------------------------------------
  function ask() {
    if (nothing() || !layout()) return;
    wanted = { type: "tile", window: [...view], shape: [pixels.height, pixels.width].map((x) => Math.min(1024, x)) };
    if (!inFlight) sendWanted();
  }
  function sendWanted() {
    inFlight = true;
    note.waiting();
    model.send(wanted);
    wanted = null;
  }
  function receive(message, buffers) {
    if (message.type === "tile") {
      const bytes = (b) => b.buffer.slice(b.byteOffset, b.byteOffset + b.byteLength);
      note.painted();
      tile = { ...message, pixels: new Uint8Array(bytes(buffers[0])), rows: new Uint32Array(bytes(buffers[1])),
        columns: new Uint32Array(bytes(buffers[2])) };
      recolour();
      inFlight = false;
      if (wanted) return sendWanted();
      el.dataset.window = tile.window.join(":");
      el.dataset.painted = String(1 + Number(el.dataset.painted || 0));
    } else if (message.type === "answer" && message.id === serial) {
      $(".wb-readout").setAttribute("aria-live", hovering ? "off" : "polite");
      $(".wb-readout").textContent = sentence(message);
    }
  }
  function counted(n) {
    const unit = model.get("unit");
    return `${number(n * model.get("each"))} ${n === 1 && unit === "entries" ? "entry" : unit}`;
  }
  function sentence(a) {
    const where = `${range(a.rows, "Row")}, ${range(a.columns, "column")}`;
    const was = a.names ? ` (before reordering ${a.names[0]}, ${a.names[1]})` : "";
    const words = a.labels ? ` (${a.labels.map((text) => `“${text.replaceAll("\n", "↵")}”`).join(` ${a.between} `)})` : "";
    const one = a.rows[1] - a.rows[0] === 1 && a.columns[1] - a.columns[0] === 1;
    const what = one && a.count === 1 ? `value ${typeof a.value === "number" ? number(a.value) : a.value}`
      : one && a.count > 1 && model.get("unit") === "entries" ? `value ${typeof a.value === "number" ? number(a.value) : a.value}, ${a.count} entries summed`
      : one && a.value != null ? `value ${number(a.value)}` : one ? "no entry" : counted(a.count);
    const block = a.block ? ` Block (${a.block[0]}, ${a.block[1]}): ${counted(a.block[2])}.` : "";
    return `${where}${was}${words}: ${what}.${block}`;
  }
  let queryTimer = null;
  let queryAt = null;
  function readOut(row, column, fromPointer) {
    hovering = fromPointer;
    queryAt = [row, column];
    if (queryTimer) return;
    const send = () => {
      queryTimer = null;
      if (!queryAt || closed) return;
      model.send({ type: "query", id: ++serial, window: binAt(...queryAt) });
      queryAt = null;
      queryTimer = setTimeout(send, HOVER_EVERY_MS);
    };
    send();
  }

  // ---- Moving about ---------------------------------------------------------------------------------------------
  let settle;
  function look(next, atOnce = false) {
    view = clip(next);
    draw();
    ask();
    clearTimeout(settle);
    settle = setTimeout(() => { model.set("window", [...view]); model.save_changes(); }, atOnce ? 0 : 150);
  }
  function zoom(factor, centre) {
    const [row, column] = centre || [(view[0] + view[1]) / 2, (view[2] + view[3]) / 2];
    const next = [0, 1].flatMap((axis) => {
      const at = axis ? column : row;
      const begin = view[2 * axis], extent = view[2 * axis + 1] - begin;
      const share = (at - begin) / extent;
      const grown = Math.max(1, factor < 1 ? Math.floor(extent * factor) : Math.ceil(extent * factor));
      return [at - share * grown, at - share * grown + grown];
    });
    look(next);
  }
  function oneToOne() {
    const at = cursor || [(view[0] + view[1]) / 2, (view[2] + view[3]) / 2];
    const extent = [Math.min(1024, pixels.height), Math.min(1024, pixels.width)];
    look([at[0] - extent[0] / 2, at[0] + extent[0] / 2, at[1] - extent[1] / 2, at[1] + extent[1] / 2], true);
  }
  const all = () => look([0, size()[0], 0, size()[1]], true);

  $(".wb-in").addEventListener("click", () => zoom(1 / ZOOM_STEP, cursor));
  $(".wb-out").addEventListener("click", () => zoom(ZOOM_STEP, cursor));
  $(".wb-one").addEventListener("click", oneToOne);
  $(".wb-home").addEventListener("click", all);
  pixels.addEventListener("dblclick", (event) => zoom(1 / ZOOM_STEP, place(event)));
  pixels.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && document.activeElement !== pixels) return;  // leave page scrolling alone until clicked
    event.preventDefault();
    zoom(Math.exp(Math.max(-1, Math.min(1, event.deltaY / 300))), place(event));
  }, { passive: false });

  const pointers = new Map();
  let pressed = null;
  pixels.addEventListener("pointerdown", (event) => {
    pixels.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, event);
    pressed = { event, view: [...view], moved: false };
    if (pointers.size === 2) {
      const [a, b] = [...pointers.values()];
      pressed.spread = Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
      pressed.moved = true;
    }
  });
  pixels.addEventListener("pointermove", (event) => {
    if (pointers.has(event.pointerId)) pointers.set(event.pointerId, event);
    if (!pressed || !pointers.size) {
      const [row, column] = place(event);
      return readOut(row, column, true);
    }
    if (pointers.size === 2 && pressed.spread) {
      const [a, b] = [...pointers.values()];
      const spread = Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
      const centre = place({ clientX: (a.clientX + b.clientX) / 2, clientY: (a.clientY + b.clientY) / 2 });
      if (Math.abs(spread / pressed.spread - 1) < 0.05) return;
      zoom(pressed.spread / spread, centre);
      pressed.spread = spread;
      return;
    }
    const box = main.getBoundingClientRect();
    const dy = (event.clientY - pressed.event.clientY) / box.height, dx = (event.clientX - pressed.event.clientX) / box.width;
    if (!pressed.moved && Math.hypot(dy * box.height, dx * box.width) < 4) return;
    pressed.moved = true;
    const v = pressed.view, h = v[1] - v[0], w = v[3] - v[2];
    look([v[0] - dy * h, v[1] - dy * h, v[2] - dx * w, v[3] - dx * w]);
  });
  const released = (event) => {
    pointers.delete(event.pointerId);
    if (pressed && !pressed.moved && event.type === "pointerup") pick(...place(event));
    if (!pointers.size) pressed = null;
  };
  pixels.addEventListener("pointerup", released);
  pixels.addEventListener("pointercancel", released);

  function pick(row, column) {
    pixels.focus();
    cursor = [Math.floor(row), Math.floor(column)];
    drawOver();
    readOut(...cursor, false);
    model.send({ type: "pick", row: cursor[0], column: cursor[1] });
  }
  pixels.addEventListener("keydown", (event) => {
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (steps) {
      if (!cursor) cursor = [Math.floor((view[0] + view[1]) / 2), Math.floor((view[2] + view[3]) / 2)];
      else {
        const bin = binAt(...cursor);
        const by = event.shiftKey ? 10 : 1;
        cursor = cursor.map((at, axis) => {
          if (!steps[axis]) return at;
          const width = Math.max(1, bin[2 * axis + 1] - bin[2 * axis]);
          const next = steps[axis] > 0 ? bin[2 * axis + 1] + (by - 1) * width : bin[2 * axis] - 1 - (by - 1) * width;
          return Math.min(size()[axis] - 1, Math.max(0, next));
        });
      }
      const next = [...view];
      cursor.forEach((at, axis) => {
        const extent = next[2 * axis + 1] - next[2 * axis];
        if (at < next[2 * axis] || at >= next[2 * axis + 1]) {
          next[2 * axis] = at - Math.floor(extent / 2);
          next[2 * axis + 1] = next[2 * axis] + extent;
        }
      });
      if (next.some((x, i) => x !== view[i])) look(next);
      drawOver();
      readOut(...cursor, false);
    } else if (event.key === "+" || event.key === "=") zoom(1 / ZOOM_STEP, cursor);
    else if (event.key === "-") zoom(ZOOM_STEP, cursor);
    else if (event.key === "Home") all();
    else if (event.key === "Enter" && cursor) pick(...cursor);
    else if (event.key === "Escape") {
      cursor = null;
      model.set("brush_rows", []);
      model.set("brush_columns", []);
      model.save_changes();
      drawOver();
    } else return;
    event.preventDefault();
  });

  for (const [canvas, axis, key] of [[right, 0, "brush_rows"], [bottom, 1, "brush_columns"]]) {
    let from = null;
    canvas.addEventListener("pointerdown", (event) => {
      if (!model.get("brushable")) return;
      canvas.setPointerCapture(event.pointerId);
      from = place(event)[axis];
    });
    canvas.addEventListener("pointermove", (event) => {
      if (from === null) return;
      const to = place(event)[axis];
      model.set(key, [Math.floor(Math.min(from, to)), Math.floor(Math.max(from, to)) + 1]);
    });
    canvas.addEventListener("pointerup", (event) => {
      if (from === null) return;
      const box = canvas.getBoundingClientRect();
      const apart = Math.abs(place(event)[axis] - from) / (view[2 * axis + 1] - view[2 * axis]);
      if (apart * (axis ? box.width : box.height) < 3) model.set(key, []);
      from = null;
      model.save_changes();
    });
  }

  // ---- From Python, and the page ---------------------------------------------------------------------------------
  const follow = () => {
    const next = model.get("window");
    if (next.every((x, i) => x === view[i])) return;
    view = [...next];
    draw();
    ask();
  };
  const renew = () => {
    view = [...model.get("window")];
    cursor = null;
    serial++;  // an answer about the picture before comes too late
    $(".wb-readout").textContent = HOW_TO_READ;
    ask();
  };
  const describe = () => {
    pixels.setAttribute("aria-label", model.get("alt") || model.get("title") || "Matrix");
    $("h3").textContent = $("h3").title = model.get("title");
  };
  const redrawOver = () => { drawStrips(); drawOver(); };
  const events = { "change:window": follow, "change:version": renew, "change:alt": describe, "change:title": describe,
    "change:block": redrawOver, "change:marks": redrawOver, "change:brush_rows": redrawOver,
    "change:brush_columns": redrawOver, "change:scale_top": recolour, "change:scale_note": recolour,
    "msg:custom": receive };
  for (const [name, call] of Object.entries(events)) model.on(name, call);
  let width = 0;
  const resized = new ResizeObserver(() => {
    if (main.clientWidth === width) return;
    width = main.clientWidth;
    draw();
    if (size()[0]) ask();
  });
  resized.observe(main);
  const themed = new MutationObserver(recolour);
  themed.observe(document.documentElement, { attributes: true, attributeFilter: ["data-wb-theme"] });
  $(".wb-readout").textContent = HOW_TO_READ;
  describe();
  nothing();
  return () => {
    closed = true;
    note.closed();
    resized.disconnect();
    themed.disconnect();
    [settle, queryTimer].forEach(clearTimeout);
    for (const [name, call] of Object.entries(events)) model.off(name, call);
  };
}

export default { render: hearing(render) };
