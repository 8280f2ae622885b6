// Stands in for plotly's extension until something is plotted: its five megabytes then do not delay the first widget.
(() => {
  const NAME = "jupyterlab-plotly";
  const MIME = "application/vnd.plotly.v1+json";
  let scope = null;
  let real = null;
  let asked = 0;

  function load() {
    real ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = window.workbench.plotly;
      script.onerror = (error) => { real = null; reject(error); }; // the next picture tries again
      script.onload = async () => {
        const container = window._JUPYTERLAB[NAME];
        await container.init(scope);
        resolve(container.get("./mimeExtension"));
      };
      document.head.append(script);
    });
    return real;
  }

  async function renderers() {
    const module = (await load())();
    return [module.default].flat().find((extension) => extension.rendererFactory.mimeTypes.includes(MIME));
  }

  async function standIn() {
    const { Widget } = (await Object.values(scope["@lumino/widgets"])[0].get())();
    class Later extends Widget {
      constructor(options) {
        super();
        this.options = options;
      }
      async renderModel(model) {
        if (!this.inner) {
          this.inner = (await renderers()).rendererFactory.createRenderer(this.options);
          Widget.attach(this.inner, this.node);
        }
        model.setData ??= () => {}; // Voila hands over plain data, plotly wants to leave a picture in it
        await this.inner.renderModel(model);
      }
      dispose() {
        this.inner?.dispose();
        super.dispose();
      }
    }
    const rendererFactory = { safe: true, mimeTypes: [MIME], createRenderer: (options) => new Later(options) };
    const plugin = { id: `${NAME}:factory`, rendererFactory, rank: 0, dataType: "json" };
    return () => ({ __esModule: true, default: plugin });
  }

  (window._JUPYTERLAB ??= {})[NAME] = {
    init: (given) => { scope = given; },
    // The page itself asks first and gets the stand-in; whoever asks later wants to plot.
    get: () => (asked++ ? load() : standIn()),
  };
})();
