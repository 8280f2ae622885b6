// One native control per knob. While a slider moves, the newest value is sent at most every 60 ms.
const SEND_EVERY_MS = 60;
const PLAY_EVERY_MS = 300;
let serial = 0;
const copy = Math.random().toString(36).slice(2, 8);  // every widget has its own copy of this module

const position = (c, value) => c.scale === "log2" ? Math.log2(value) : c.scale === "log10" ? Math.log10(value) : value;
const valueAt = (c, at) => {
  const value = c.scale === "log2" ? 2 ** at : c.scale === "log10" ? 10 ** at : at;
  if (c.whole) return Math.round(value);
  return Number(value.toPrecision(10));
};
const shown = (c, value) => c.whole ? Number(value).toLocaleString("en-US") : String(Number(Number(value).toPrecision(5)));

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

function render({ model, el }) {
  el.classList.add("wb", "wb-panel");
  el.setAttribute("role", "group");
  el.setAttribute("aria-label", "Controls");
  const setters = new Map();
  const tellers = new Map();
  const timers = new Map();
  const players = new Map();

  function send(key, value) {
    const pending = timers.get(key);
    if (pending) { pending.value = value; return; }
    model.send({ type: "turn", key, value });
    const entry = { value: undefined };
    entry.timer = setTimeout(() => {
      timers.delete(key);
      if (entry.value !== undefined) send(key, entry.value);
    }, SEND_EVERY_MS);
    timers.set(key, entry);
  }

  function stopPlaying(key) {
    const player = players.get(key);
    if (!player) return;
    clearInterval(player.timer);
    player.button.textContent = "Play";
    player.button.setAttribute("aria-pressed", "false");
    players.delete(key);
  }

  function playButton(c, input, read) {
    const button = element("button", { type: "button", "aria-pressed": "false", "aria-label": `Play ${c.label}` }, "Play");
    button.addEventListener("click", () => {
      if (players.has(c.key)) return stopPlaying(c.key);
      if (Number(input.value) >= Number(input.max)) input.value = input.min;
      button.textContent = "Pause";
      button.setAttribute("aria-pressed", "true");
      const timer = setInterval(() => {
        if (Number(input.value) >= Number(input.max)) return stopPlaying(c.key);
        input.value = Number(input.value) + Number(input.step);
        read();
      }, PLAY_EVERY_MS);
      players.set(c.key, { timer, button });
    });
    return button;
  }

  function control(c) {
    const id = `wb-knob-${copy}-${++serial}`;
    const title = [c.help, c.tag && `Source: ${c.tag}.`].filter(Boolean).join(" ");
    const describe = title ? element("span", { id: `${id}-help`, class: "wb-hidden" }, title) : "";
    const common = { id, "aria-describedby": title ? `${id}-help` : null, "data-key": c.key };
    const label = element("label", { for: id }, c.label);
    if (c.tag) label.append(" ", element("span", { class: "wb-tag" }, `(${c.tag})`));
    const box = element("div", { class: "wb-control", title: title || null });
    const value = model.get("values")[c.key] ?? c.default;

    if (c.control === "menu") {
      const menu = element("select", common);
      if (c.choices.some(([, text]) => String(text).length > 18)) box.classList.add("wb-wide");
      c.choices.forEach(([v, text], i) => menu.append(element("option", { value: String(i) }, String(text))));
      const set = (v) => { menu.value = String(c.choices.findIndex(([choice]) => choice === v)); };
      set(value);
      menu.addEventListener("change", () => send(c.key, c.choices[Number(menu.value)][0]));
      setters.set(c.key, set);
      box.append(element("div", { class: "wb-head" }, label), menu, describe);
    } else if (c.control === "box") {
      const input = element("input", { ...common, type: "checkbox" });
      input.checked = Boolean(value);
      input.addEventListener("change", () => send(c.key, input.checked));
      setters.set(c.key, (v) => { input.checked = Boolean(v); });
      box.classList.add("wb-box");
      box.append(input, label, describe);
    } else if (c.control === "slider") {
      const input = element("input", {
        ...common, type: "range", min: position(c, c.low), max: position(c, c.high), step: c.step,
      });
      const output = element("output", { for: id });
      const write = (value) => {
        const text = shown(c, value);
        output.textContent = text;
        input.setAttribute("aria-valuetext", text);
      };
      const set = (v) => { input.value = position(c, Number(v)); write(v); };
      const read = () => {
        const value = valueAt(c, Number(input.value));
        write(value);
        send(c.key, value);
      };
      set(value);
      input.addEventListener("input", read);
      let held = false;
      input.addEventListener("pointerdown", () => { held = true; stopPlaying(c.key); });
      input.addEventListener("change", () => { held = false; });
      setters.set(c.key, (v) => { if (!held && !players.has(c.key)) set(v); });
      const slide = element("div", { class: "wb-slide" }, input);
      if (c.play) slide.append(playButton(c, input, read));
      box.append(element("div", { class: "wb-head" }, label, output), slide, describe);
    } else {
      const number = c.control === "number";
      const input = c.lines > 1 || c.code ? element("textarea", { ...common, rows: c.lines }) : element("input", { ...common, type: number ? "number" : "text", step: number ? c.step : null,
        min: number ? c.low : null, max: number ? c.high : null });
      input.value = value;
      if (c.lines > 1 && !c.code) box.classList.add("wb-wide");
      if (c.code) codeField(c, box, input);
      input.addEventListener("change", () => {
        if (number && input.value === "") { input.value = model.get("values")[c.key]; return; }
        send(c.key, number ? Number(input.value) : input.value);
      });
      setters.set(c.key, (v) => { input.value = v; });
      box.append(element("div", { class: "wb-head" }, label), input, describe);
      if (c.code) explained(c, id, box, input);
    }
    return box;
  }

  // Enter takes the code over, Shift and Enter make a new line.
  function codeField(c, box, input) {
    box.classList.add("wb-code", c.lines > 1 ? "wb-row" : "wb-wide");
    for (const name of ["spellcheck", "autocapitalize", "autocomplete"]) input.setAttribute(name, name === "spellcheck" ? "false" : "off");
    input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      input.dispatchEvent(new Event("change"));
    });
  }

  // Below a field of code: what is wrong or remarkable about it, what it takes, and on demand all that it takes.
  function explained(c, id, box, input) {
    const told = element("p", { class: "wb-told", id: `${id}-told`, role: "status" });
    box.append(told, element("p", { class: "wb-help" }, c.help));
    if (c.more) {
      const lines = c.more.split("\n").map((line) => element("p", {}, line));
      box.append(element("details", {}, element("summary", {}, "All names, signs and functions"), ...lines));
    }
    input.setAttribute("aria-describedby", `${id}-help ${id}-told`);
    const tell = (note) => {
      const [kind, text] = note ?? ["", ""];
      told.textContent = text;
      told.classList.toggle("wb-wrong", kind === "error");
      input.setAttribute("aria-invalid", String(kind === "error"));
    };
    tellers.set(c.key, tell);
    tell(model.get("notes")[c.key]);
  }

  function draw() {
    const focused = el.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    [...players.keys()].forEach(stopPlaying);
    setters.clear();
    tellers.clear();
    el.replaceChildren(...model.get("controls").map(control));
    if (focused) el.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }
  function update() {
    const values = model.get("values");
    for (const [key, set] of setters) if (key in values && !timers.has(key)) set(values[key]);
  }

  function tell() {
    const notes = model.get("notes");
    for (const [key, told] of tellers) told(notes[key]);
  }

  model.on("change:controls", draw);
  model.on("change:notes", tell);
  model.on("change:values", update);
  draw();
  return () => {
    [...players.keys()].forEach(stopPlaying);
    model.off("change:controls", draw);
    model.off("change:notes", tell);
    model.off("change:values", update);
  };
}

export default { render: hearing(render) };
