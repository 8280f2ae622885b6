// Drawing of the canvas that needs no state of its own; canvas.py puts this file before canvas.js.

// The pixels of a tile, one canvas pixel each. Levels are relative to the tile's densest pixel, colours to `top`, the
// density that ends the scale: so another scale needs no other tile.
function paintTile(store, tile, colours, top) {
  const [h, w] = tile.shape;
  store.width = Math.max(1, w);
  store.height = Math.max(1, h);
  if (!h || !w) return;
  const context = store.getContext("2d");
  const image = context.createImageData(w, h);
  const target = new Uint32Array(image.data.buffer);
  const rgba = new Uint32Array(256);
  const gain = top > 0 ? Math.sqrt(tile.top / top) : 1;
  for (let level = 0; level < 256; level++) {
    const i = level && 1 + Math.min(254, Math.round((level - 1) * gain));
    rgba[level] = 0xff000000 | (colours[3 * i + 2] << 16) | (colours[3 * i + 1] << 8) | colours[3 * i];
  }
  if (tile.packed) for (let i = 0; i < h * w; i++) target[i] = rgba[(tile.pixels[i >> 3] >> (i & 7)) & 1 ? 255 : 0];
  else for (let i = 0; i < h * w; i++) target[i] = rgba[tile.pixels[i]];
  context.putImageData(image, 0, 0);
}

// Bars of entries per row (axis 0, growing right) or per column (axis 1, growing down), one for every pixel along the
// strip: whole pixels, and means over the rows below each, so that rows that are equal make a strip that is flat.
function paintStrip(canvas, axis, tile, view, brush, colour) {
  const sums = axis ? tile.columns : tile.rows;
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  const along = axis ? canvas.width : canvas.height, across = axis ? canvas.height : canvas.width;
  const begin = tile.window[2 * axis], extent = tile.window[2 * axis + 1] - begin;
  const seen = view[2 * axis + 1] - view[2 * axis];
  const bar = (at, thick, length) => axis ? context.fillRect(at, 0, thick, length) : context.fillRect(0, at, length, thick);
  if (brush.length) {
    const [from, to] = brush.map((x) => Math.round((x - view[2 * axis]) * along / seen));
    context.fillStyle = colour("highlight");
    context.globalAlpha = 0.25;
    bar(from, Math.max(to - from, 2), across);
    context.globalAlpha = 1;
  }
  const means = stripMeans(sums, extent, along, (pixel) => (view[2 * axis] - begin + pixel * seen / along) / extent);
  const most = means.reduce((a, b) => Math.max(a, b), 0), longest = Math.floor(across * 0.95);
  context.fillStyle = colour("accent");
  means.forEach((mean, pixel) => {
    if (mean > 0) bar(pixel, 1, Math.max(1, Math.round(longest * mean / most)));
  });
}

// Mean per row under each of `pixels` pixels, 0 outside the tile. `share(pixel)` is where the pixel begins, from 0 to 1
// of the tile's `extent` rows; a pixel shows the bins that begin in it, or the one that it lies in.
function stripMeans(sums, extent, pixels, share) {
  const bins = sums.length, means = new Float64Array(pixels);
  const edge = (i) => Math.ceil(i * extent / bins);
  const bin = (x) => Math.min(bins, Math.max(0, x));
  for (let pixel = 0; pixel < pixels; pixel++) {
    const middle = share(pixel + 0.5) * bins;
    if (middle < 0 || middle >= bins) continue;
    let first = bin(Math.round(share(pixel) * bins)), end = bin(Math.round(share(pixel + 1) * bins));
    if (end <= first) { first = Math.floor(middle); end = first + 1; }
    let sum = 0;
    for (let i = first; i < end; i++) sum += sums[i];
    means[pixel] = sum / Math.max(1, edge(end) - edge(first));
  }
  return means;
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
