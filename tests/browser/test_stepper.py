"""The stepper against a kernel made up in the page, whose pictures come late: no position is lost or asked twice."""

import pytest

from widgets.controls.stepper import Stepper

PLAY_TO_THE_END = """async ([source, loses]) => {
  const code = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const widget = (await import(code)).default;
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
  const data = { label: "Steps", unit: "step", steps: 7, position: 0, sentence: "row 0", answered: 0 };
  const listeners = {};
  const fire = (name, ...values) => (listeners[name] || []).forEach((call) => call(...values));
  const kernel = { position: 0, flow: "row", asked: [], heard: 0 };
  let work = Promise.resolve();
  const show = (question) => {  // pictures arrive later than the kernel is free again
    const state = { position: kernel.position, sentence: `${kernel.flow} ${kernel.position}`, answered: question };
    setTimeout(() => {
      const changed = Object.keys(state).filter((name) => data[name] !== state[name]);
      Object.assign(data, state);
      changed.forEach((name) => fire(`change:${name}`));
    }, 60);
  };
  let answered = 0;
  const receive = (message) => { work = work.then(async () => {
    await wait(40);
    if (message.type === "go" && ++kernel.heard === loses) return;
    if (message.type === "go") kernel.asked.push(kernel.position = message.position);
    else kernel.flow = message.flow;
    show(answered = message.question ?? answered);
  }); };
  const on = (name, call) => (listeners[name] ||= []).push(call);
  const model = { get: (name) => data[name], on, off() {}, send: receive };
  const el = document.body.appendChild(document.createElement("div"));
  widget.render({ model, el });
  const count = () => el.querySelector(".wb-stepper-count").textContent;
  const play = el.querySelector(".wb-stepper-play");
  el.querySelector("select").value = "15";
  play.click();
  while (play.textContent !== "Play") await wait(10);
  receive({ type: "choose", flow: "outer" });
  for (let i = 0; i < 500 && data.sentence !== "outer 7"; i++) await wait(10);
  await wait(200);
  return { kernel: kernel.position, sentence: data.sentence, count: count(), asked: kernel.asked };
}"""


@pytest.mark.parametrize("loses", [0, 2], ids=["every question arrives", "one is lost"])
def test_playing_to_the_end_leaves_the_kernel_at_the_end(page, loses):
    page.goto("about:blank")
    found = page.evaluate(PLAY_TO_THE_END, [str(Stepper._esm), loses])
    assert (found["kernel"], found["sentence"], found["count"]) == (7, "outer 7", "step 7 of 7")
    assert found["asked"] == sorted(set(found["asked"])), "a position was asked twice, or an older one after a newer"
