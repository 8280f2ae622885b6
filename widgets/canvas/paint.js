// Drawing of the canvas that needs no state of its own; canvas.py puts this file before canvas.js.

// The pixels of a tile, one canvas pixel each.
function paintTile(store, tile, colours) {
  const [h, w] = tile.shape;
  store.width = Math.max(1, w);
  store.height = Math.max(1, h);
  if (!h || !w) return;
  const context = store.getContext("2d");
  const image = context.createImageData(w, h);
  const target = new Uint32Array(image.data.buffer);
  const rgba = new Uint32Array(256);
  for (let i = 0; i < 256; i++)
    rgba[i] = 0xff000000 | (colours[3 * i + 2] << 16) | (colours[3 * i + 1] << 8) | colours[3 * i];
  if (tile.packed) for (let i = 0; i < h * w; i++) target[i] = rgba[(tile.pixels[i >> 3] >> (i & 7)) & 1 ? 255 : 0];
  else for (let i = 0; i < h * w; i++) target[i] = rgba[tile.pixels[i]];
  context.putImageData(image, 0, 0);
}

// Bars of entries per row (axis 0, growing right) or per column (axis 1, growing down): means over each bin, no moire.
function paintStrip(canvas, axis, tile, view, brush, colour) {
  const sums = axis ? tile.columns : tile.rows;
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  const along = axis ? canvas.width : canvas.height, across = axis ? canvas.height : canvas.width;
  const begin = tile.window[2 * axis], extent = tile.window[2 * axis + 1] - begin;
  const edge = (i) => begin + Math.ceil(i * extent / sums.length);
  const each = Array.from(sums, (sum, i) => sum / Math.max(1, edge(i + 1) - edge(i)));
  const most = each.reduce((a, b) => Math.max(a, b), 1e-9);
  const scale = along / (view[2 * axis + 1] - view[2 * axis]);
  const at = (x) => (x - view[2 * axis]) * scale;
  const bar = (a, b, length) => axis ? context.fillRect(a, 0, b - a, length) : context.fillRect(0, a, length, b - a);
  if (brush.length) {
    context.fillStyle = colour("highlight");
    context.globalAlpha = 0.25;
    bar(at(brush[0]), Math.max(at(brush[1]), at(brush[0]) + 2), across);
    context.globalAlpha = 1;
  }
  context.fillStyle = colour("accent");
  for (let i = 0; i < sums.length; i++) {
    if (!sums[i]) continue;
    const a = at(edge(i));
    bar(a, Math.max(a + 1, at(edge(i + 1))), Math.max(1, across * 0.95 * each[i] / most));
  }
}

function paintRamp(canvas, colours) {
  const context = canvas.getContext("2d");
  for (let i = 0; i < canvas.width; i++) {
    const k = 1 + Math.floor(i * 254 / (canvas.width - 1));
    context.fillStyle = `rgb(${colours[3 * k]},${colours[3 * k + 1]},${colours[3 * k + 2]})`;
    context.fillRect(i, 0, 1, canvas.height);
  }
}

// Lines between blocks of `block` rows and columns.
function paintGrid(context, view, block, sy, sx, colour) {
  const { width, height } = context.canvas;
  context.strokeStyle = colour("muted");
  context.globalAlpha = 0.45;
  context.lineWidth = 1;
  context.beginPath();
  for (let r = Math.ceil(view[0] / block) * block; r <= view[1]; r += block) {
    const y = Math.round((r - view[0]) * sy) + 0.5;
    context.moveTo(0, y);
    context.lineTo(width, y);
  }
  for (let c = Math.ceil(view[2] / block) * block; c <= view[3]; c += block) {
    const x = Math.round((c - view[2]) * sx) + 0.5;
    context.moveTo(x, 0);
    context.lineTo(x, height);
  }
  context.stroke();
  context.globalAlpha = 1;
}
