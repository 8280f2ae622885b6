// Paints one byte a cell, frames the current ones, writes values where there is room, and reads cells aloud.
const rgb = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));

function render({ model, el }) {
  el.classList.add("wb", "wb-cells");
  el.innerHTML = `<div class="wb-cells-title"></div>
    <div class="wb-cells-area"><canvas tabindex="0" role="img"></canvas></div>
    <div class="wb-cells-legend wb-note"></div><div class="wb-cells-said wb-note" role="status"></div>`;
  const [canvas, area] = [el.querySelector("canvas"), el.querySelector(".wb-cells-area")];
  const [legend, said] = [el.querySelector(".wb-cells-legend"), el.querySelector(".wb-cells-said")];
  const tile = document.createElement("canvas");
  let cursor = null;
  let pointer = null;
  let scale = 1;
  let legendText = "";
  const note = paneNote(el, () => attempt());

  function bytes(picture) {
    const view = picture.cells;
    return new Uint8Array(view.buffer ?? view, view.byteOffset ?? 0, view.byteLength);
  }
  function attempt() {
    try { paint(); note.painted(); } catch (error) { note.failed(error); }
  }
  function paint() {
    const picture = model.get("picture");
    el.querySelector(".wb-cells-title").textContent = model.get("title");
    canvas.setAttribute("aria-label", model.get("alt") || model.get("title") || "Picture");
    canvas.hidden = !picture.width || !picture.height;
    if (canvas.hidden) {
      const [m, n] = picture.shape ?? [];
      legend.textContent = picture.shape ? `There is nothing to draw: the matrix has ${m} rows and ${n} columns.` : "";
      legendText = said.textContent = "";
      return;
    }
    const { width, height } = picture;
    const cells = bytes(picture);
    const room = Math.max(60, Math.min(area.clientWidth || 320, 460));
    const density = window.devicePixelRatio || 1;
    scale = Math.min(room / width, room / height);
    if (scale > 1.5) scale = Math.floor(scale * density) / density;
    const colours = picture.palette.map(rgb);
    tile.width = width;
    tile.height = height;
    const data = new ImageData(width, height);
    for (let p = 0; p < cells.length; p++) {
      const [r, g, b] = colours[cells[p]];
      data.data.set([r, g, b, 255], 4 * p);
    }
    tile.getContext("2d").putImageData(data, 0, 0);
    canvas.style.width = `${width * scale}px`;
    canvas.style.height = `${height * scale}px`;
    canvas.width = Math.round(width * scale * density);
    canvas.height = Math.round(height * scale * density);
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = scale < 1;
    context.drawImage(tile, 0, 0, canvas.width, canvas.height);
    context.scale(canvas.width / width, canvas.height / height);
    const pixel = 1 / scale;
    if (scale >= 6) {
      context.strokeStyle = getComputedStyle(el).getPropertyValue("--wb-line") || "#ccc";
      context.lineWidth = 0.5 * pixel;
      context.beginPath();
      for (let x = 0; x <= width; x++) { context.moveTo(x, 0); context.lineTo(x, height); }
      for (let y = 0; y <= height; y++) { context.moveTo(0, y); context.lineTo(width, y); }
      context.stroke();
    }
    context.strokeStyle = picture.frameColour;
    context.lineWidth = (scale >= 6 ? 2.5 : 2) * pixel;
    const grow = scale >= 6 ? 0 : (8 * pixel - 1) / 2;
    for (const [r, c] of picture.frames) context.strokeRect(c - grow, r - grow, 1 + 2 * grow, 1 + 2 * grow);
    if (scale >= 15) {
      context.textAlign = "center";
      context.textBaseline = "middle";
      for (const [r, c, text] of picture.texts) {
        const size = Math.min(0.55, 1.5 / Math.max(text.length, 1)) * Math.min(1, 60 / scale);
        if (size * scale < 9) continue;
        context.font = `${size}px sans-serif`;
        const [red, green, blue] = colours[cells[r * width + c]];
        context.fillStyle = 0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#000000" : "#ffffff";
        context.fillText(text, c + 0.5, r + 0.52);
      }
    }
    if (cursor) {
      context.setLineDash([3 * pixel, 2 * pixel]);
      context.strokeStyle = getComputedStyle(el).getPropertyValue("--wb-ink") || "#000";
      context.strokeRect(cursor[1] - grow, cursor[0] - grow, 1 + 2 * grow, 1 + 2 * grow);
    }
    const present = picture.names.map((name, i) => [name, picture.palette[i]]).filter(([name]) => name);
    const wanted = JSON.stringify(present);
    if (wanted !== legendText) {
      legendText = wanted;
      legend.replaceChildren(...present.map(([name, colour]) => {
        const entry = document.createElement("span");
        const swatch = document.createElement("i");
        swatch.style.background = colour;
        entry.append(swatch, name);
        return entry;
      }));
    }
    canvas.dataset.columns = String(width);
    const at = pointer ? under(pointer) : cursor;  // what is read out belongs to this picture, not to the one before
    if (at) read(...at); else said.textContent = "";
    el.dataset.painted = String(1 + Number(el.dataset.painted || 0));
  }

  function read(row, column) {
    const picture = model.get("picture");
    const [h, w] = [picture.height, picture.width];
    if (row < 0 || column < 0 || row >= h || column >= w) { said.textContent = ""; return; }
    const range = (at, cells, count, what) => {
      const [first, last] = [Math.floor(at * count / cells), Math.ceil((at + 1) * count / cells) - 1];
      return first >= last ? `${what} ${first}` : `${what}s ${first} to ${last}`;
    };
    const name = picture.names[bytes(picture)[row * w + column]] || "empty";
    const text = picture.texts.find(([r, c]) => r === row && c === column);
    said.textContent = `${range(row, h, picture.shape[0], picture.axes[0])}, `
      + `${range(column, w, picture.shape[1], picture.axes[1])}: ${name}${text ? `, ${text[2]}` : ""}`;
  }
  const under = ({ clientY, clientX }) => {
    const box = canvas.getBoundingClientRect();
    return [Math.floor((clientY - box.top) / scale), Math.floor((clientX - box.left) / scale)];
  };
  canvas.addEventListener("pointermove", (event) => { pointer = event; read(...under(event)); });
  canvas.addEventListener("pointerleave", () => { pointer = null; said.textContent = ""; });
  canvas.addEventListener("keydown", (event) => {
    const by = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    const picture = model.get("picture");
    if (!by || !picture.width) return;
    event.preventDefault();
    const [r, c] = cursor ?? [-by[0], -by[1]];
    cursor = [
      Math.max(0, Math.min(picture.height - 1, r + by[0])), Math.max(0, Math.min(picture.width - 1, c + by[1])),
    ];
    attempt();
  });
  canvas.addEventListener("blur", () => { cursor = null; attempt(); });

  let seen = 0;
  const size = new ResizeObserver(() => {
    if (area.clientWidth && area.clientWidth !== seen) { seen = area.clientWidth; attempt(); }
  });
  size.observe(area);
  const names = ["picture", "title", "alt"];
  let queued = false;
  const repaint = () => {
    if (queued) return;
    queued = true;
    queueMicrotask(() => { queued = false; attempt(); });
  };
  names.forEach((name) => model.on(`change:${name}`, repaint));
  attempt();
  return () => {
    note.closed();
    size.disconnect();
    names.forEach((name) => model.off(`change:${name}`, repaint));
  };
}

export default { render: hearing(render) };
