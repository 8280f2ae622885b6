// A question with a field to answer it in. Python reads the answer and says what to tell of it.
const PATIENCE_MS = 30000;
const LONGEST = 20000;
let serial = 0;
const copy = Math.random().toString(36).slice(2, 8);  // every widget has its own copy of this module

function render({ model, el }) {
  el.classList.add("wb", "wb-answer");
  const id = `wb-answer-${copy}-${++serial}`;
  el.innerHTML = `
    <p class="wb-asked"></p>
    <details class="wb-given"><summary>Your input, as Python</summary><pre tabindex="0"></pre></details>
    <form autocomplete="off">
      <label for="${id}">Your answer</label>
      <textarea id="${id}" maxlength="${LONGEST}" spellcheck="false" aria-describedby="${id}-how"></textarea>
      <p class="wb-note" id="${id}-how"></p>
      <div class="wb-row"><button type="submit" class="wb-check">Check the answer</button>
        <button type="button" class="wb-hint">Hint</button><span class="wb-note wb-wait" role="status"></span></div>
    </form>
    <div class="wb-told" aria-live="polite"></div>`;
  const $ = (name) => el.querySelector(name);
  const field = $("textarea"), buttons = [...el.querySelectorAll("button")];
  let late;

  const wait = (sentence) => {
    clearTimeout(late);
    $(".wb-wait").textContent = sentence;
    buttons.forEach((button) => { button.disabled = Boolean(sentence); });
  };
  const ask = (message) => {
    wait("Checking …");
    late = setTimeout(() => {
      wait("");
      $(".wb-wait").textContent = "No reply has come yet; try again.";
    }, PATIENCE_MS);
    model.send(message);
  };
  const check = () => {
    if (field.value.trim()) ask({ type: "answer", text: field.value }); else field.focus();
  };
  $("form").addEventListener("submit", (event) => { event.preventDefault(); check(); });
  $(".wb-hint").addEventListener("click", () => ask({ type: "hint" }));
  field.addEventListener("keydown", (event) => {
    event.stopPropagation();  // JupyterLab's shortcuts must not take the letters
    if (event.key !== "Enter" || event.shiftKey || (model.get("lines") > 1 && !event.ctrlKey)) return;
    event.preventDefault();
    check();
  });

  function draw() {
    const lines = model.get("lines");
    $(".wb-asked").textContent = model.get("question");
    $(".wb-given").hidden = !model.get("given");
    $(".wb-given pre").textContent = model.get("given");
    $(".wb-note").textContent = model.get("how");
    field.rows = Math.max(1, lines);
    for (const part of [field, $("label"), $(".wb-check")]) part.hidden = !lines;
  }
  function tell() {
    wait("");
    $(".wb-told").innerHTML = model.get("told");  // made by Python, which escapes what was typed
  }
  const watched = ["question", "how", "given", "lines"];
  watched.forEach((name) => model.on(`change:${name}`, draw));
  model.on("change:answered", tell);
  draw();
  tell();
  return () => {
    clearTimeout(late);
    watched.forEach((name) => model.off(`change:${name}`, draw));
    model.off("change:answered", tell);
  };
}

export default { render: hearing(render) };
