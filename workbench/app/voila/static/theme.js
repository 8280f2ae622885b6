// Light or dark: what the address asks for, else what was chosen here before, else what the system prefers.
(() => {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const asked = () => new URLSearchParams(location.search).get("theme");
  const stored = () => { try { return localStorage.getItem("workbench-theme"); } catch { return null; } };
  const wanted = () => [asked(), stored()].find((t) => t === "dark" || t === "light") ?? (system.matches ? "dark" : "light");

  const apply = (theme) => {
    document.documentElement.dataset.theme = theme;
    document.documentElement.style.colorScheme = theme;
    for (const sheet of document.querySelectorAll("link[data-theme]")) {
      sheet.media = sheet.dataset.theme === theme ? "all" : "not all";
    }
    if (!document.body) return;
    document.body.dataset.jpThemeLight = String(theme === "light");
    document.body.dataset.jpThemeName = theme === "light" ? "JupyterLab Light" : "JupyterLab Dark";
    for (const button of document.querySelectorAll("[data-theme-toggle]")) {
      button.hidden = false;
      button.textContent = theme === "light" ? "Dark theme" : "Light theme";
    }
  };

  const choose = (theme) => {
    try { localStorage.setItem("workbench-theme", theme); } catch { /* private mode: the choice lasts for this page */ }
    const address = new URL(location.href);
    if (address.searchParams.has("theme")) {
      address.searchParams.set("theme", theme);
      history.replaceState(history.state, "", address);
    }
    apply(theme);
  };

  apply(wanted());
  document.addEventListener("DOMContentLoaded", () => apply(wanted()));
  new MutationObserver((_, observer) => { if (document.body) { apply(wanted()); observer.disconnect(); } })
    .observe(document.documentElement, { childList: true });
  system.addEventListener("change", () => apply(wanted()));
  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-theme-toggle]")) {
      choose(document.documentElement.dataset.theme === "light" ? "dark" : "light");
    }
  });
})();
