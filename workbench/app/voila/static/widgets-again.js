// Asks the kernel again for widgets that did not arrive, and says in their place what became of them.
//
// A change that the kernel sends between its answer with all states and the making of a model finds nobody, and is lost:
// a picture that was finished in that moment never came. Such changes are kept, and handed over when the model is there.
// Voila's widget manager asks once. A model that does not come, or whose child does not come, leaves "model not found" for
// good. This extension of the page has every place wait instead, looks at what arrived, and asks again.
(() => {
  const NAME = "sparse-workbench-page";
  const FIRST_PAUSE_MS = 500;
  const LAST_PAUSE_MS = 8000;
  const PATIENCE_MS = 10000;
  const GIVE_UP_MS = 600000;
  const SETTLE_MS = 15000;
  const ASK_ALL_AFTER_MS = [10000, 20000, 40000];
  const LOADING = "Loading widget...";
  const places = () => [...document.querySelectorAll("#rendered_cells [data-mime-type*='widget-view'], #rendered_cells .lm-Panel")]
    .filter((node) => node.textContent === LOADING || node.querySelector(":scope > .again"));
  const drawn = () => [...document.querySelectorAll(".wb-canvas, .wb-plot, .wb-cells")]
    .every((pane) => !pane.clientHeight || pane.dataset.pane === "painted");
  const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

  // A model that cannot be had rejects; one that is only slow must not hold up the others.
  const fails = (manager, id) => Promise.race([
    Promise.resolve().then(() => manager.get_model(id)).then(() => false, () => true),
    pause(SETTLE_MS).then(() => false),
  ]);

  async function missing(manager) {
    const ids = [...new Set([...window.workbench.models(), ...Object.keys(manager._models)])];
    const failed = await Promise.all(ids.map((id) => fails(manager, id)));
    return ids.filter((_, place) => failed[place]);
  }

  function offerAgain(ask) {
    for (const node of places()) {
      if (node.querySelector(":scope > .again")) continue;
      const told = document.createElement("p");
      told.className = "again";
      told.textContent = "This part of the page has not arrived yet. ";
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = "Ask for it again";
      button.addEventListener("click", () => { node.textContent = LOADING; ask(); });
      told.append(button);
      node.replaceChildren(told);
    }
  }

  function keepEarlyChanges(manager) {
    const { kernel } = manager;
    const handle = kernel._handleCommMsg.bind(kernel);
    const early = new Map(); // model -> changes in the order in which they came
    kernel._handleCommMsg = async (message) => {
      const { comm_id: id, data } = message.content;
      if (data?.method === "update_states") early.clear(); // they are in these states
      if (data?.method !== "update" || (!early.has(id) && kernel._comms.get(id)?.onMsg)) return handle(message);
      early.set(id, [...(early.get(id) ?? []), message]);
    };
    const register = manager.register_model.bind(manager);
    manager.register_model = (id, made) => {
      register(id, made);
      made.then(async () => {
        for (let next; (next = early.get(id)?.shift());) await handle(next);
        early.delete(id);
      }, () => {});
    };
  }

  function watch(manager) {
    keepEarlyChanges(manager);
    Object.defineProperty(manager, "restoredStatus", { get: () => false }); // places wait for `restored` instead of giving up
    let rounds = 0;
    const settle = async () => {
      const round = ++rounds;
      const begin = performance.now();
      let patience = PATIENCE_MS;
      for (let wait = FIRST_PAUSE_MS; performance.now() - begin < GIVE_UP_MS; wait = Math.min(2 * wait, LAST_PAUSE_MS)) {
        const asked = performance.now();
        while (manager._kernelRestoreInProgress && performance.now() - asked < patience) await pause(100);
        const lacking = await missing(manager);
        if (round !== rounds || !window.workbench.hasKernel()) return;
        if (!lacking.length && !places().length) break;
        if (performance.now() - begin > PATIENCE_MS) offerAgain(settle);
        await pause(wait);
        for (const id of lacking) delete manager._models[id];
        for (const [id, comm] of [...manager.kernel._comms]) {
          if (!(id in manager._models)) comm.dispose(); // without a model, and a second opening would be refused
        }
        patience *= 2; // a server that is slow today must not be asked faster than it answers
        manager.restoreWidgets();
      }
      for (const wait of ASK_ALL_AFTER_MS) {
        await pause(wait);
        if (round !== rounds || !window.workbench.hasKernel() || drawn()) return;
        manager.restoreWidgets(); // a pane that was told nothing at all gets the present state of its model
      }
    };
    settle();
  }

  const plugin = {
    id: `${NAME}:widgets-again`,
    autoStart: true,
    activate: (app) => { app.widgetManagerPromise.promise.then((manager) => manager && watch(manager)); },
  };
  (window._JUPYTERLAB ??= {})[NAME] = {
    init: () => {},
    get: async () => () => ({ __esModule: true, default: plugin }),
  };
})();
