// A row of buttons; as tabs, one is always chosen and the arrow keys move the choice.
function render({ model, el }) {
  el.classList.add("wb", "wb-choices");
  const row = document.createElement("div");
  const text = document.createElement("p");
  text.setAttribute("role", "status");
  el.append(row, text);
  const tabs = model.get("form") === "tabs";
  row.className = tabs ? "wb-row wb-tabs" : "wb-row";
  row.setAttribute("role", tabs ? "tablist" : "group");

  function choose(key, focus) {
    model.send({ type: "choose", key });
    if (focus) row.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus();
  }
  function draw() {
    row.setAttribute("aria-label", model.get("label"));
    row.replaceChildren(...model.get("options").map(([key, label]) => {
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.key = key;
      button.textContent = label;
      if (tabs) button.setAttribute("role", "tab");
      button.addEventListener("click", () => choose(key, false));
      return button;
    }));
    mark();
  }
  function mark() {
    const selected = model.get("selected");
    row.querySelectorAll("button").forEach((button) => {
      const on = button.dataset.key === selected;
      button.setAttribute(tabs ? "aria-selected" : "aria-pressed", String(on));
      if (tabs) button.tabIndex = on ? 0 : -1;
    });
    const said = model.get("text");
    if (!said && text.textContent) text.style.minHeight = `${text.offsetHeight}px`;  // what is below keeps its place
    else if (said) text.style.minHeight = "";
    text.textContent = said;
    text.hidden = !said && !text.style.minHeight;
  }
  row.addEventListener("keydown", (event) => {
    if (!tabs) return;
    const keys = model.get("options").map(([key]) => key);
    const at = keys.indexOf(model.get("selected"));
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: keys.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    choose(keys[(to + keys.length) % keys.length], true);
  });
  model.on("change:options", draw);
  model.on("change:label", draw);
  model.on("change:selected", mark);
  model.on("change:text", mark);
  draw();
  return () => {
    model.off("change:options", draw);
    model.off("change:label", draw);
    model.off("change:selected", mark);
    model.off("change:text", mark);
  };
}

export default { render: hearing(render) };
