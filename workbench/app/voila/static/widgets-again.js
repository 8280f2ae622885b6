// Makes the widgets of a page from the kernel's answer with all states, asks for it again when widgets did not arrive, and
// says in their place what became of them.
//
// Voila's widget manager asks once. After four seconds it takes the answer for lost and asks widget by widget, and while it
// makes the models, changes for those that are not ready find nobody: a picture that was finished in that moment never
// came. Here the answer is taken whenever it comes, and the messages after it wait until its models are made.
(() => {
  const NAME = "sparse-workbench-page";
  const FIRST_PAUSE_MS = 500;
  const LAST_PAUSE_MS = 8000;
  const PATIENCE_MS = 10000;
  const GIVE_UP_MS = 600000;
  const SETTLE_MS = 15000;
  const LOADING = "Loading widget...";
  const places = () => [...document.querySelectorAll("#rendered_cells [data-mime-type*='widget-view'], #rendered_cells .lm-Panel")]
    .filter((node) => node.textContent === LOADING || node.querySelector(":scope > .again"));
  const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

  // A model that cannot be had rejects; one that is only slow must not hold up the others.
  const fails = (manager, id) => Promise.race([
    Promise.resolve().then(() => manager.get_model(id)).then(() => false, () => true),
    pause(SETTLE_MS).then(() => false),
  ]);

  // Models that are not there, or could not be made, each with the promise that failed.
  async function missing(manager) {
    const ids = [...new Set([...window.workbench.models(), ...Object.keys(manager._models)])];
    const lacking = await Promise.all(ids.map(async (id) => {
      const made = manager._models[id];
      return await fails(manager, id) && [[id, made]];
    }));
    return lacking.flatMap((found) => found || []);
  }

  function putBuffers({ states, buffer_paths }, buffers) {
    buffer_paths.forEach(([id, ...path], place) => {
      const name = path.pop();
      const buffer = buffers[place];
      path.reduce((part, key) => part[key], states[id])[name] = ArrayBuffer.isView(buffer)
        ? new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength) : new DataView(buffer);
    });
  }

  async function takeStates(manager, { states }) {
    const known = new Set(Object.keys(states).filter((id) => manager.has_model(id)));
    const comms = await Promise.all(Object.keys(states).map(async (id) => {
      if (known.has(id)) return null;
      manager.kernel._comms.get(id)?.dispose(); // of a model that could not be made: a second opening would be refused
      return manager._create_comm(manager.comm_target_name, id);
    }));
    await Promise.all(Object.entries(states).map(async ([id, { state, ...named }], place) => {
      try {
        if (!known.has(id)) return await manager.new_model({ ...named, model_id: id, comm: comms[place] }, state);
        const model = await manager.get_model(id);
        model.set_state(await model.constructor._deserialize_state(state, manager));
      } catch (error) {
        console.error(error);
      }
    }));
  }

  function takeAnswers(manager) {
    const { kernel } = manager;
    const handle = kernel._handleCommMsg.bind(kernel);
    manager._loadFromKernelModels = async () => { throw new Error("The answer with all states has not come yet."); };
    kernel._handleCommMsg = async (message) => {
      const { comm_id: id, data } = message.content;
      if (data?.method !== "update_states") return handle(message);
      putBuffers(data, message.buffers ?? []);
      await Promise.race([takeStates(manager, data), pause(SETTLE_MS)]); // the kernel's next message waits for this one
      kernel._comms.get(id)?.close();
      manager._restored.emit();
    };
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

  function watch(manager) {
    takeAnswers(manager);
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
        if (!lacking.length) { manager._restored.emit(); continue; } // every model is there, and some place has not drawn it
        for (const [id, made] of lacking) if (manager._models[id] === made) delete manager._models[id]; // else it came meanwhile
        patience *= 2; // a server that is slow today must not be asked faster than it answers
        manager.restoreWidgets();
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
