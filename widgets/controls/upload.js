// A file field: checks the size first, then sends the file in pieces that fit any websocket.
const PIECE = 1 << 20;
let serial = 0;
const copy = Math.random().toString(36).slice(2, 8);  // every widget has its own copy of this module

function render({ model, el }) {
  el.classList.add("wb");
  const id = `wb-upload-${copy}-${++serial}`;
  el.innerHTML = `<div class="wb-row" style="padding:4px"><label for="${id}"></label><input type="file" id="${id}">
    <span class="wb-note" role="status"></span></div>`;
  const input = el.querySelector("input"), note = el.querySelector(".wb-note");
  el.querySelector("label").textContent = model.get("label");
  input.accept = model.get("accept");
  const refused = () => { if (model.get("refused")) note.textContent = model.get("refused"); };
  model.on("change:refused", refused);
  input.addEventListener("change", async () => {
    const file = input.files[0];
    if (!file) return;
    const limit = model.get("limit_bytes");
    if (file.size > limit) {
      note.textContent = `${file.name} has ${(file.size / 1e6).toFixed(1)} MB; the limit is ${limit / 1e6} MB.`;
      return;
    }
    const bytes = await file.arrayBuffer();
    for (let at = 0; at === 0 || at < bytes.byteLength; at += PIECE) {
      const piece = bytes.slice(at, at + PIECE);
      model.send({ type: "piece", name: file.name, at, size: bytes.byteLength }, undefined, [piece]);
    }
    note.textContent = `${file.name} sent.`;
    input.value = "";
  });
  return () => model.off("change:refused", refused);
}

export default { render: hearing(render) };
