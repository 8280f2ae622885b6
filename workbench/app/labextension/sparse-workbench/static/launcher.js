// Launcher cards for the dashboards. A federated JupyterLab extension written by hand: it takes JupyterLab's own
// modules from the shared scope, so there is nothing to bundle and nothing to rebuild.
(() => {
  let scope = null;

  async function shared(name) {
    const versions = Object.values(scope[name]);
    return (await (versions.find((version) => version.loaded) ?? versions[0]).get())();
  }

  function theme() {
    return document.body.dataset.jpThemeLight === "false" ? "dark" : "light";
  }

  async function makePlugin() {
    const [{ ILauncher }, { Widget }, { LabIcon }, { PageConfig }, { ICommandPalette }] = await Promise.all(
      ["@jupyterlab/launcher", "@lumino/widgets", "@jupyterlab/ui-components", "@jupyterlab/coreutils", "@jupyterlab/apputils"].map(shared),
    );

    async function activate(app, launcher, palette) {
      const root = PageConfig.getBaseUrl() + "voila/";
      const answer = await fetch(root + "notebooks.json");
      if (!answer.ok) return;
      const { icon, cards } = await answer.json();
      const style = document.createElement("style");
      style.textContent = `.jp-Launcher-content { display: flex; flex-direction: column; }
        .jp-Launcher-section:has([data-category="Sparse Workbench"]) { order: -1; }`;
      document.head.append(style);
      const labIcon = new LabIcon({ name: "sparse-workbench:icon", svgstr: icon });
      const category = "Sparse Workbench";
      cards.forEach((card, rank) => {
        const command = `workbench:open:${card.address || "gallery"}`;
        app.commands.addCommand(command, {
          label: card.title,
          caption: card.description || card.title,
          icon: labIcon,
          execute: () => {
            const frame = document.createElement("iframe");
            frame.src = `${root}${card.address}?theme=${theme()}`;
            frame.title = card.title;
            frame.style.cssText = "border: 0; width: 100%; height: 100%";
            const panel = new Widget({ node: frame });
            panel.id = `workbench-${Math.random().toString(36).slice(2)}`;
            panel.title.label = card.title;
            panel.title.icon = labIcon;
            panel.title.closable = true;
            app.shell.add(panel, "main");
            app.shell.activateById(panel.id);
          },
        });
        launcher.add({ command, category, rank });
        palette?.addItem({ command, category });
      });
    }

    return {
      id: "sparse-workbench:launcher",
      description: "Opens the dashboards from the launcher.",
      autoStart: true,
      requires: [ILauncher],
      optional: [ICommandPalette],
      activate: (app, launcher, palette) => { activate(app, launcher, palette).catch(console.error); },
    };
  }

  (window._JUPYTERLAB ??= {})["sparse-workbench"] = {
    init: (given) => { scope = given; },
    get: async () => {
      const plugin = await makePlugin();
      return () => ({ __esModule: true, default: plugin });
    },
  };
})();
