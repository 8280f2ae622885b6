"""Opens many pages at the same moment in real Chromium, beside busy cores, and says what each visitor saw and when.

    python tests/browser/load.py --visitors 30 --busy 2

Every page must end with its pictures, or with the page that says that the server is full, or with the page of a step
that failed. One line a visitor, then a summary; the exit code is 1 if a page stayed empty. The loading page is timed by
a plain HTTP client of its own, beside the browser: thirty pages in one browser wait for that browser too.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.browser.chromium import CHROMIUM_ARGUMENTS, find_chromium, start_process  # noqa: E402

PAGES = ("dashboards/sparsity_patterns", "dashboards/attention_masks", "dashboards/spgemm_traffic")
STATE = """() => {
  if (document.querySelector("[data-countdown]")) return "full";
  if (document.querySelector("[data-failure], .notice")) return "failed";
  if (document.getElementById("loading")) return "";
  const shown = [...document.querySelectorAll("[data-pane]")].filter((pane) => pane.clientHeight);
  const text = document.querySelector("#rendered_cells")?.innerText ?? "";
  if (/Error displaying widget|Loading widget/.test(text)) return "";
  return shown.length && shown.every((pane) => pane.dataset.pane === "painted") ? "pictures" : "";
}"""

PAINTED = """() => new Promise((resolve) => {
  const first = () => performance.getEntriesByName("first-contentful-paint")[0];
  const look = () => first() ? resolve(first().startTime / 1000) : setTimeout(look, 50);
  look();
})"""

SAID = """() => JSON.stringify({
  panes: [...document.querySelectorAll("[data-pane]")]
    .map((pane) => [pane.className, pane.dataset.pane, pane.clientHeight]),
  notes: [...document.querySelectorAll(".wb-pane-note, .again, #lost, .wb-error, #loading-step")]
    .map((note) => note.textContent).filter(Boolean),
  end: document.body?.innerText.slice(-200),
})"""


@dataclass
class Visit:
    """What one visitor saw: ``outcome`` is pictures, full, failed or empty; times in seconds after the request.

    ``loading_s`` is when the browser painted the loading page, by its own clock.
    """

    page: str
    outcome: str = "empty"
    loading_s: float = float("nan")
    outcome_s: float = float("nan")
    errors: tuple[str, ...] = ()


async def visit(browser, url: str, page_path: str, patience_s: float) -> Visit:
    found = Visit(page_path)
    context = await browser.new_context(viewport={"width": 1280, "height": 900})
    page = await context.new_page()
    page.set_default_timeout(patience_s * 1000)
    errors = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    begin = time.perf_counter()
    try:
        await page.goto(url + page_path, wait_until="commit")
        await page.wait_for_selector("#loading-step, .notice, #rendered_cells")
        found.loading_s = await page.evaluate(PAINTED)
        outcome = await page.wait_for_function(STATE, polling=250, timeout=patience_s * 1000)
        found.outcome, found.outcome_s = await outcome.json_value(), time.perf_counter() - begin
    except Exception as error:
        errors.append(f"{type(error).__name__}: {str(error).splitlines()[0]}")
        errors.append(f"the page says: {await page.evaluate(SAID)}")
    found.errors = tuple(errors)
    found.context = context
    return found


async def first_bytes(url: str, page_path: str) -> float:
    """Return the seconds until a plain client has the loading page with the name of its first step."""
    host, _, port = url.removeprefix("http://").strip("/").partition(":")
    begin = time.perf_counter()
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET /{page_path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    seen = b""
    while b'id="loading-step"' not in seen and b"data-countdown" not in seen:
        piece = await reader.read(65536)
        if not piece:
            break
        seen += piece
    taken = time.perf_counter() - begin
    writer.close()
    return taken


async def visit_all(url: str, pages: list[str], patience_s: float) -> list[Visit]:
    """Open all pages at once in one browser; they stay open until the last one has settled."""
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_ARGUMENTS)
        visits = await asyncio.gather(*(visit(browser, url, page, patience_s) for page in pages))
        await browser.close()
    return visits


def burn(cores: int) -> list[subprocess.Popen]:
    """Keep cores busy with processes that never wait; the caller ends them."""
    return [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def measure(visitors: int, busy: int, pages=PAGES, patience_s: float = 300, options=(), tell=lambda line: None):
    """Start a server and the burners, let the visitors come, return their visits and the loading times."""
    server = start_process([sys.executable, "-m", "workbench.app.serve", "--port", "0", *options], "Serving")
    burners = []
    try:
        time.sleep(8)  # the kernels started ahead
        burners = burn(busy)
        wanted = [pages[i % len(pages)] for i in range(visitors)]
        visits = asyncio.run(visit_all(server.url, wanted, patience_s))
        for found in visits:
            tell(
                f"{found.page:32} {found.outcome:9} loading {found.loading_s:5.1f} s, settled {found.outcome_s:6.1f} s"
            )
            if found.outcome == "empty":
                for error in found.errors:
                    tell(f"    {error[:1500]}")
        time.sleep(5)  # the browser is gone and its places are free

        async def ask():
            return await asyncio.gather(*(first_bytes(server.url, page) for page in wanted))

        return visits, asyncio.run(ask()), server.log
    finally:
        for burner in burners:
            burner.kill()
        server.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visitors", type=int, default=30)
    parser.add_argument("--busy", type=int, default=os.cpu_count(), help="cores kept busy by something else")
    parser.add_argument("--page", action="append", help="page such as papers/smash; may be repeated")
    parser.add_argument("--patience", type=float, default=400, help="seconds until a page counts as empty")
    parser.add_argument("--capacity", type=int, default=40, help="places of the server")
    chosen = parser.parse_args()

    def tell(line):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    visits, loading, _ = measure(
        chosen.visitors, chosen.busy, chosen.page or PAGES, chosen.patience, ["--capacity", str(chosen.capacity)], tell
    )
    counts = Counter(found.outcome for found in visits)
    tell(f"outcomes: {dict(counts)}")
    for name, values in (
        ("loading page, plain client", loading),
        ("loading page, in the browser", [found.loading_s for found in visits]),
        ("pictures, in the browser", [found.outcome_s for found in visits]),
    ):
        tell(f"{name}: median {percentile(values, 0.5):.2f} s, p95 {percentile(values, 0.95):.2f} s")
    return 1 if counts["empty"] else 0


if __name__ == "__main__":
    sys.exit(main())
