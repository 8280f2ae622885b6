// A position in a sequence. The next position leaves only once Python has answered the last one: no queue, no lag. An
// answer is the number of the question in the same update as the position, so nothing overtakes it; while a question is
// open, positions from Python are those of earlier ones and not followed. A question without an answer is put again.
const ASK_AGAIN_MS = 3000;
const SPEEDS = [1, 4, 15, 60];
let serial = 0;
const copy = Math.random().toString(36).slice(2, 8);  // every widget has its own copy of this module

function render({ model, el }) {
  el.classList.add("wb", "wb-stepper");
  const id = `wb-stepper-${copy}-${++serial}`;
  el.setAttribute("role", "group");
  el.innerHTML = `
    <div class="wb-stepper-bar">
      <span class="wb-row wb-stepper-buttons">
        <button type="button" data-go="first" aria-label="First step" title="First step (Home)">|&lt;</button>
        <button type="button" data-go="back" aria-label="Step back" title="Step back (arrow left)">&lt;</button>
        <button type="button" class="wb-stepper-play" aria-pressed="false">Play</button>
        <button type="button" data-go="forward" aria-label="Step forward" title="Step forward (arrow right)">&gt;</button>
        <button type="button" data-go="last" aria-label="Last step" title="Last step (End)">&gt;|</button>
      </span>
      <input type="range" min="0" step="1" id="${id}" />
      <label class="wb-stepper-count" for="${id}"></label>
      <label class="wb-stepper-speed">Speed <select>${SPEEDS.map((s) => `<option value="${s}">${s} a second</option>`).join("")}
      </select></label>
    </div>
    <p class="wb-stepper-sentence" role="status"></p>`;
  const slider = el.querySelector("input");
  const play = el.querySelector(".wb-stepper-play");
  const speed = el.querySelector("select");
  const sentence = el.querySelector(".wb-stepper-sentence");
  let target = model.get("position");
  let known = target;  // the position that Python shows, as far as we have heard
  let asked = 0;  // number of the open question, 0 for none
  let questions = Math.floor(Math.random() * 2 ** 30);  // another view of the same model has others
  let again = null;
  let timer = null;
  speed.value = "4";

  function write() {
    const [steps, unit] = [model.get("steps"), model.get("unit")];
    const text = `${unit} ${target.toLocaleString("en-US")} of ${steps.toLocaleString("en-US")}`;
    slider.max = String(steps);
    slider.value = String(target);
    slider.setAttribute("aria-valuetext", text);
    el.querySelector(".wb-stepper-count").textContent = text;
  }
  function send() {
    if (asked || target === known) return;
    asked = ++questions;
    model.send({ type: "go", position: target, question: asked });
    clearTimeout(again);
    again = setTimeout(() => { asked = 0; send(); }, ASK_AGAIN_MS);
  }
  function go(position) {
    target = Math.max(0, Math.min(model.get("steps"), position));
    write();
    send();
  }
  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
    play.setAttribute("aria-pressed", "false");
    sentence.setAttribute("aria-live", "polite");
  }
  function start() {
    if (target >= model.get("steps")) go(0);
    clearInterval(timer);
    play.textContent = "Pause";
    play.setAttribute("aria-pressed", "true");
    sentence.setAttribute("aria-live", "off");
    timer = setInterval(() => {
      if (target >= model.get("steps")) return stop();
      go(target + 1);
    }, 1000 / Number(speed.value));
  }
  play.addEventListener("click", () => (timer === null ? start() : stop()));
  speed.addEventListener("change", () => { if (timer !== null) start(); });
  slider.addEventListener("input", () => { stop(); go(Number(slider.value)); });
  const moves = {
    first: () => go(0),
    back: () => go(target - 1),
    forward: () => go(target + 1),
    last: () => go(model.get("steps")),
  };
  el.querySelectorAll("[data-go]").forEach((button) => button.addEventListener("click", () => {
    stop();
    moves[button.dataset.go]();
  }));
  el.addEventListener("keydown", (event) => {
    if (event.target === speed || event.ctrlKey || event.metaKey || event.altKey) return;
    const by = event.shiftKey ? 10 : 1;
    const moved = {
      ArrowRight: () => go(target + by),
      ArrowUp: () => go(target + by),
      ArrowLeft: () => go(target - by),
      ArrowDown: () => go(target - by),
      Home: moves.first,
      End: moves.last,
    }[event.key];
    if (!moved) return;
    event.preventDefault();
    event.stopPropagation();
    stop();
    moved();
  });

  function follow() {
    el.setAttribute("aria-label", model.get("label"));
    sentence.textContent = model.get("sentence");
    if (asked && model.get("answered") === asked) {
      clearTimeout(again);
      asked = 0;
      known = model.get("position");
    } else if (!asked) {
      known = target = model.get("position");
    }
    target = Math.min(target, model.get("steps"));
    write();
    send();
  }
  const watched = ["label", "unit", "steps", "position", "sentence", "answered"];
  watched.forEach((name) => model.on(`change:${name}`, follow));
  follow();
  return () => {
    clearInterval(timer);
    clearTimeout(again);
    watched.forEach((name) => model.off(`change:${name}`, follow));
  };
}

export default { render: hearing(render) };
