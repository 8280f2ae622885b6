// Caption and paged data table of a view.
let serial = 0;
const copy = Math.random().toString(36).slice(2, 8);  // every widget has its own copy of this module

function render({ model, el }) {
  el.classList.add("wb", "wb-twin");
  const id = `wb-twin-${copy}-${++serial}`;
  el.innerHTML = `
    <p class="wb-caption"></p>
    <button type="button" class="wb-toggle" aria-expanded="false" aria-controls="${id}">Data table</button>
    <div id="${id}" hidden>
      <div class="wb-scroll" tabindex="0" role="region" aria-label="Data table"><table></table></div>
      <div class="wb-row"><button type="button" class="wb-previous">Previous page</button>
        <button type="button" class="wb-next">Next page</button><span class="wb-where" role="status"></span></div>
    </div>`;
  const $ = (name) => el.querySelector(name);
  const body = document.getElementById(id) ?? el.querySelector(`[id="${id}"]`);
  const ask = (page) => model.send({ type: "page", page, open: !body.hidden });

  function draw() {
    $(".wb-caption").textContent = model.get("caption");
    if (body.hidden) return;
    const rows = model.get("rows");
    const isNumber = (text) => /^-?[\d,]+(\.\d+)?(e[+-]?\d+)?$/.test(text);
    const cell = (tag, text) => {
      const node = document.createElement(tag);
      node.textContent = text;
      if (tag === "td" && isNumber(text)) node.className = "wb-number";
      return node;
    };
    const line = (tag, cells) => {
      const row = document.createElement("tr");
      row.append(...cells.map((text) => cell(tag, text)));
      return row;
    };
    const head = document.createElement("thead");
    head.append(line("th", model.get("columns")));
    head.querySelectorAll("th").forEach((th, i) => {
      th.scope = "col";
      if (rows.length && isNumber(rows[0][i])) th.className = "wb-number";
    });
    const content = document.createElement("tbody");
    content.append(...rows.map((row) => line("td", row)));
    $("table").replaceChildren(head, content);
    const first = model.get("page") * model.get("page_rows");
    const total = model.get("total");
    const upto = Math.min(total, first + rows.length);
    $(".wb-where").textContent = total ? `Rows ${first + 1} to ${upto} of ${total.toLocaleString("en-US")}` : "No rows";
    $(".wb-previous").disabled = model.get("page") === 0;
    $(".wb-next").disabled = upto >= total;
  }

  $(".wb-toggle").addEventListener("click", () => {
    body.hidden = !body.hidden;
    $(".wb-toggle").setAttribute("aria-expanded", String(!body.hidden));
    ask(model.get("page"));
  });
  $(".wb-previous").addEventListener("click", () => ask(model.get("page") - 1));
  $(".wb-next").addEventListener("click", () => ask(model.get("page") + 1));
  const watched = ["caption", "rows", "columns", "page", "total"];
  watched.forEach((name) => model.on(`change:${name}`, draw));
  draw();
  return () => watched.forEach((name) => model.off(`change:${name}`, draw));
}

export default { render: hearing(render) };
