// What a pane says while its picture is on the way, when it is late, and when it cannot be drawn: never nothing. What is
// late is asked for again every time that patience runs out; what failed is tried again a few times, and by a button.
const PANE_QUIET_MS = 500;
const PANE_PATIENCE_MS = 20000;
const PANE_TRIES = 3;

function paneNote(el, again) {
  const note = document.createElement("p");
  note.className = "wb-pane-note";
  note.setAttribute("role", "status");
  note.hidden = true;
  el.append(note);
  let timers = [];
  let tries = 0;
  const rest = () => {
    timers.forEach(clearTimeout);
    timers = [];
    if (!el.classList.contains("wb-stale")) el.removeAttribute("aria-busy");  // else the view waits for newer settings
  };
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
  const late = () => {
    say("The picture has not arrived yet.", "Ask for it again");
    timers.push(setTimeout(late, PANE_PATIENCE_MS));
    again();
  };
  return {
    waiting() {
      el.dataset.pane = "waiting";
      el.setAttribute("aria-busy", "true");
      if (!timers.length) timers = [setTimeout(say, PANE_QUIET_MS, "The picture is being drawn."), setTimeout(late, PANE_PATIENCE_MS)];
    },
    painted() {
      rest();
      tries = 0;
      note.hidden = true;
      el.dataset.pane = "painted";
    },
    failed(error) {
      el.dataset.pane = "failed";
      rest();
      say(`The picture could not be drawn: ${error?.message ?? error}.`, "Draw it again");
      if (tries++ < PANE_TRIES) timers = [setTimeout(() => { rest(); again(); }, PANE_PATIENCE_MS / 4)];
      console.error("pane", error);
    },
    closed: rest,
  };
}

