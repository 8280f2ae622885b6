// What a pane says while its picture is on the way, when it does not come, and when it cannot be drawn: never nothing.
const PANE_QUIET_MS = 500;
const PANE_PATIENCE_MS = 20000;

function paneNote(el, again) {
  const note = document.createElement("p");
  note.className = "wb-pane-note";
  note.setAttribute("role", "status");
  note.hidden = true;
  el.append(note);
  let timers = [];
  const rest = () => { timers.forEach(clearTimeout); timers = []; };
  const say = (sentence, label) => {
    note.textContent = sentence;
    note.hidden = false;
    if (!label) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label;
    button.addEventListener("click", () => { note.hidden = true; again(); });
    note.append(" ", button);
  };
  return {
    waiting() {
      if (timers.length) return;
      timers = [
        setTimeout(say, PANE_QUIET_MS, "The picture is being drawn."),
        setTimeout(say, PANE_PATIENCE_MS, "The picture has not arrived yet.", "Ask for it again"),
      ];
      el.dataset.pane = "waiting";
    },
    painted() {
      rest();
      note.hidden = true;
      el.dataset.pane = "painted";
    },
    failed(error) {
      rest();
      el.dataset.pane = "failed";
      say(`The picture could not be drawn: ${error?.message ?? error}.`, "Draw it again");
      console.error("pane", error);
    },
    closed: rest,
  };
}

