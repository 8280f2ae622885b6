"""The served gallery and dashboards in real Chromium."""

import json
import os
import re
import signal
import time
from itertools import pairwise

import pytest

TINY = [
    {"title": "A tiny dashboard", "description": "One slider.", "papers": ["smash"]},
    "md:# A tiny dashboard\n\nTwice $n$.",
    "# Load the widgets\nimport os\nimport ipywidgets",
    "# Draw a slider\nfrom urllib.parse import parse_qsl\n"
    "from workbench.app.request import query_string\n"
    "asked = dict(parse_qsl(query_string()))\n"
    "slider = ipywidgets.IntSlider(int(asked.get('n', 3)), max=50, description='n')\n"
    "label = ipywidgets.Label(f'kernel {os.getpid()}')\n"
    "slider.observe(lambda change: setattr(label, 'value', f'twice: {2 * change.new}'), 'value')\n"
    "display(ipywidgets.VBox([slider, label]))",
]
SLOW = [
    "md:# A slow dashboard",
    "# Load the widgets\nfrom workbench.app.request import query_string\nquery_string()\nimport ipywidgets, time",
    "# Count for three seconds\ntime.sleep(3)",
    "# Draw a button\ndisplay(ipywidgets.Button(description='Go'))",
]
PLOT = [
    "md:# A plot",
    "import ipywidgets, plotly.graph_objects as go\ndisplay(ipywidgets.Label('plotted'))\ngo.Figure(go.Bar(y=[1, 2]))",
]
BROKEN = ["md:# A broken dashboard", "# Load\nx = 1", "# Draw the matrix\nraise ValueError('n must be below 5; got 7')"]
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def folder(notebook_folder):
    return notebook_folder(
        {"dashboards/tiny": TINY, "dashboards/slow": SLOW, "dashboards/broken": BROKEN, "dashboards/plot": PLOT}
    )


@pytest.fixture(scope="module")
def server(start_server, folder):
    return start_server(folder, "--warm", "tiny")


def kernel_process(page) -> int:
    return int(re.search(r"kernel (\d+)", page.inner_text("#rendered_cells"))[1])


def has_no_sideways_scroll(page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def background(page) -> list[int]:
    return [int(x) for x in re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))[:3]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [{"width": 1280, "height": 900}, PHONE])
def test_gallery_is_accessible_in_every_form(new_page, server, axe, scheme, size):
    page = new_page(color_scheme=scheme, viewport=size)
    page.goto(server.url)
    page.wait_for_selector(".card >> text=A tiny dashboard")
    assert axe(page) == []
    assert has_no_sideways_scroll(page)
    assert (sum(background(page)) < 200) == (scheme == "dark")


def test_gallery_shows_a_paper_with_its_links(page, server):
    page.goto(server.url)
    card = page.locator(".card", has=page.locator("h3", has_text="SMASH"))
    assert "2105.14156" in card.inner_text()
    assert card.locator("a", has_text="A tiny dashboard").get_attribute("href") == "/dashboards/tiny"


def test_gallery_pictures_are_drawn(page, server):
    page.goto(server.url)
    page.wait_for_load_state("networkidle")
    for picture in page.query_selector_all(".card > img"):
        picture.scroll_into_view_if_needed()
        assert page.wait_for_function("picture => picture.complete && picture.naturalWidth > 0", arg=picture)


def test_gallery_search_works_by_keyboard_and_stays_in_the_address(page, server):
    page.goto(server.url)
    everything = page.locator(".card:visible").count()
    page.keyboard.press("/")
    page.keyboard.type("tiny slider")
    assert page.locator(".card:visible").count() == 1
    assert "find=tiny+slider" in page.url
    page.reload()
    assert page.locator(".card:visible").count() == 1
    page.focus("#find-words")
    page.keyboard.press("Escape")
    assert page.locator(".card:visible").count() == everything > 1
    page.select_option("#find-family", "matrix products")
    assert 0 < page.locator(".card:visible").count() < everything


def test_skip_link_leads_to_the_content(page, server):
    page.goto(server.url)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_dashboard_takes_its_state_from_the_address(open_dashboard, folder, axe):
    page = open_dashboard("tiny", "n=17", folder)
    assert page.inner_text(".widget-readout") == "17"
    assert page.title().startswith("A tiny dashboard")
    assert page.locator("mjx-container").count() == 1, "formulas are not drawn offline"
    assert axe(page) == []


def test_kernel_answers_the_slider(open_dashboard, folder):
    page = open_dashboard("tiny", "n=4", folder)
    page.press(".widget-slider [role=slider], .noUi-handle", "ArrowRight")
    page.wait_for_selector("text=twice: 10")


def test_loading_steps_are_named(page, server):
    page.goto(f"{server.url}dashboards/slow", wait_until="commit")
    page.wait_for_selector("#loading-step >> text=Running step 2 of 3: Count for three seconds")
    assert page.locator(".steps li.done").count() >= 2
    page.wait_for_selector(".widget-button")
    assert page.locator("#loading").count() == 0


def test_failing_step_shows_its_name_and_a_request_id_of_the_log(page, server, axe):
    page.watch.allow("dashboards/broken")
    page.goto(f"{server.url}dashboards/broken")
    notice = page.wait_for_selector("[data-failure]").inner_text()
    assert "Step 2 of 2 failed: Draw the matrix" in notice
    assert "n must be below 5; got 7" in notice
    assert re.search(r"Request ([0-9a-f]{8})", notice)[1] in server.log
    assert axe(page) == []


def test_lost_kernel_is_told_and_its_link_restores_the_state(page, server):
    page.watch.allow("/api/kernels/")
    page.goto(f"{server.url}dashboards/tiny?n=21")
    page.wait_for_selector("#rendered_cells .widget-readout >> text=21")
    lost = kernel_process(page)
    page.evaluate("window.dispatchEvent(new CustomEvent('workbench:state', {detail: 'n=22'}))")
    os.kill(lost, signal.SIGKILL)
    link = page.wait_for_selector("#lost:not([hidden]) [data-restore]", timeout=15000)
    link.click()
    page.wait_for_selector("#rendered_cells .widget-readout >> text=22")
    assert kernel_process(page) != lost
    assert page.locator("#lost:visible").count() == 0


def between_kernel_and_page(page, hand_on, *edits):
    """Hand what the kernel sends to ``hand_on(send, message, kind)``, and change the page's script by ``edits``."""

    def connected(client):
        behind = client.connect_to_server()
        client.on_message(behind.send)

        def received(message):
            told = message if isinstance(message, bytes) else message.encode()
            hand_on(client.send, message, "states" if b"update_states" in told else "other")

        behind.on_message(received)

    def script(route):
        text = route.fetch().text()
        for old, new in edits:
            assert old in text
            text = text.replace(old, new)
        route.fulfill(body=text, content_type="text/javascript")

    page.route_web_socket(re.compile("/channels"), connected)
    page.route(re.compile("widgets-again.js"), script)


def slider_answers(page):
    page.press(".noUi-handle", "ArrowRight")
    page.wait_for_selector("text=twice: 14")


@pytest.mark.parametrize("lost", [1, 3])
def test_widgets_that_do_not_arrive_are_asked_for_again(page, server, lost):
    """The first answers with all states are lost."""
    dropped = []

    def hand_on(send, message, kind):
        if kind == "states" and len(dropped) < lost:
            dropped.append(message)
        else:
            send(message)

    between_kernel_and_page(page, hand_on)
    page.goto(f"{server.url}dashboards/tiny?n=6")
    page.wait_for_selector("#rendered_cells .widget-readout >> text=6", timeout=60000)
    assert len(dropped) == lost
    slider_answers(page)


def test_answer_that_comes_late_is_taken_and_its_models_stay_alive(page, server):
    """It comes when the page has noticed that its widgets are missing and is about to ask again."""
    held = []

    def hand_on(send, message, kind):
        if kind == "states" and not held:
            held.append((send, message))
        else:
            send(message)

    between_kernel_and_page(page, hand_on, ("FIRST_PAUSE_MS = 500", "FIRST_PAUSE_MS = 4000"))
    page.goto(f"{server.url}dashboards/tiny?n=6")
    page.wait_for_function("document.querySelector('#rendered_cells')?.innerText.includes('Loading widget')")
    page.wait_for_timeout(7500)  # 4 s until the manager gives up, 2 s until a model is known to be missing
    send, message = held[0]
    send(message)
    page.wait_for_selector("#rendered_cells .widget-readout >> text=6", timeout=2000)
    page.wait_for_timeout(5000)
    slider_answers(page)


def test_change_that_comes_while_models_are_made_is_not_lost(page, server):
    """Their classes take a second to load; the kernel changes one of them meanwhile."""
    answers = []

    def hand_on(send, message, kind):
        if kind == "states":
            answers.append(message)
        if kind != "states" or len(answers) == 1:  # further answers would say 6: the kernel knows of no change
            send(message)
        if answers == [message]:
            send(updated(message, "IntSliderModel", {"value": 7}))

    slow = "manager.loadClass = ((load) => async (...of) => { await pause(1000); return load(...of); })"
    slow += "(manager.loadClass.bind(manager)); takeAnswers(manager);"
    between_kernel_and_page(page, hand_on, ("    takeAnswers(manager);", slow))
    page.goto(f"{server.url}dashboards/tiny?n=6")
    page.wait_for_selector("#rendered_cells .widget-readout >> text=7")


def updated(states: bytes, model: str, change: dict) -> bytes:
    """Return the kernel's message that changes the one widget of class ``model`` in an answer with all states."""
    count = int.from_bytes(states[:8], "little")
    ends = [int.from_bytes(states[8 * i : 8 * i + 8], "little") for i in range(1, count + 1)]
    channel, header, parent, metadata, content = (states[begin:end] for begin, end in pairwise(ends[:6]))
    (widget,) = (name for name, it in json.loads(content)["data"]["states"].items() if it["model_name"] == model)
    data = {"method": "update", "state": change, "buffer_paths": []}
    parts = [channel, header, parent, metadata, json.dumps({"comm_id": widget, "data": data}).encode()]
    offsets = [8 * (len(parts) + 2)]
    for part in parts:
        offsets.append(offsets[-1] + len(part))
    return b"".join(number.to_bytes(8, "little") for number in (len(offsets), *offsets)) + b"".join(parts)


def test_place_of_a_widget_that_does_not_arrive_says_so_and_offers_to_ask_again(page, server):
    state = {"lost": True}

    def between(client):
        behind = client.connect_to_server()
        client.on_message(behind.send)
        behind.on_message(lambda message: None if state["lost"] else client.send(message))

    page.route_web_socket(re.compile("/channels"), between)
    page.goto(f"{server.url}dashboards/tiny?n=6")
    page.wait_for_selector(".again >> text=has not arrived yet", timeout=60000)
    page.evaluate("document.querySelector('.again button').click()")  # by a visitor it may be gone before it is hit
    assert page.locator("text=Loading widget...").count() == 1
    state["lost"] = False
    page.wait_for_selector("#rendered_cells .widget-readout >> text=6", timeout=60000)
    assert page.locator(".again").count() == 0


def test_closed_page_gives_its_kernel_back(page, server, fetch):
    page.goto(f"{server.url}dashboards/tiny")
    page.wait_for_selector("#rendered_cells .widget-readout")
    kernel = json.loads(page.inner_text("#jupyter-config-data"))["kernelId"]
    page.goto("about:blank")
    deadline = time.monotonic() + 10
    while json.loads(fetch(f"{server.url}pool/alive/{kernel}")[2])["alive"] and time.monotonic() < deadline:
        time.sleep(0.2)
    assert json.loads(fetch(f"{server.url}pool/alive/{kernel}")[2]) == {"alive": False}


@pytest.mark.parametrize(
    ("scheme", "query", "dark"),
    [("light", "", False), ("dark", "", True), ("light", "?theme=dark", True), ("dark", "?theme=light", False)],
)
def test_theme_follows_the_address_else_the_system(new_page, server, scheme, query, dark):
    page = new_page(color_scheme=scheme)
    page.goto(f"{server.url}dashboards/tiny{query}")
    page.wait_for_selector("#rendered_cells .widget-readout")
    assert (sum(background(page)) < 200) == dark
    assert page.evaluate("document.body.dataset.jpThemeLight") == str(not dark).lower()
    page.click("[data-theme-toggle]")
    assert (sum(background(page)) < 200) != dark


def test_dashboard_fits_a_phone(new_page, server):
    page = new_page(viewport=PHONE, is_mobile=True, has_touch=True)
    page.goto(f"{server.url}dashboards/tiny")
    page.wait_for_selector("#rendered_cells .widget-readout")
    assert has_no_sideways_scroll(page)


def test_full_room_offers_to_retry(start_server, folder, page, fetch, axe):
    small = start_server(folder, "--capacity", "1", "--warm", "tiny")
    fetch(f"{small.url}dashboards/tiny")
    page.watch.allow("dashboards/tiny")
    page.watch.allow("503")
    page.goto(f"{small.url}dashboards/tiny?n=9")
    assert page.inner_text("h1") == "The server is full"
    left = int(page.inner_text("[data-countdown]"))
    page.wait_for_function("left => Number(document.querySelector('[data-countdown]').textContent) < left", arg=left)
    assert page.get_attribute("a.button", "href") == "/dashboards/tiny?n=9"
    assert axe(page) == []


def test_first_widget_is_painted_within_two_seconds(new_page, server):
    """Two seconds on an idle machine with a warm kernel; a machine busy with other work gets its share of them."""
    times_s = []
    for _ in range(4):
        time.sleep(4)
        limit_s = 2 * max(1, os.getloadavg()[0] / (os.cpu_count() or 1))
        page = new_page()
        begin = time.perf_counter()
        page.goto(f"{server.url}dashboards/tiny", wait_until="commit")
        page.wait_for_selector("#rendered_cells .widget-readout")
        times_s.append(time.perf_counter() - begin)
        page.goto("about:blank")
        if times_s[-1] < limit_s:
            return
    pytest.fail(f"the first widget took {', '.join(f'{t:.1f}' for t in times_s)} s; allowed {limit_s:.1f} s")


def test_page_asks_for_few_files_before_its_first_widget(page, server):
    page.goto(f"{server.url}dashboards/tiny")
    page.wait_for_selector("#rendered_cells .widget-readout")
    pieces = [url for url in page.watch.requests if re.search(r"/\d+\.(voila|[0-9a-f]+)\.js", url)]
    assert pieces == [], "script pieces that page_scripts.voila_pieces should send ahead"
    assert len(page.watch.requests) < 30


def test_plotly_is_loaded_when_something_is_plotted(open_dashboard, folder):
    page = open_dashboard("plot", folder=folder)
    page.wait_for_selector("#rendered_cells .js-plotly-plot .bars")
    assert any("jupyterlab-plotly/static/remoteEntry" in url for url in page.watch.requests)
    page = open_dashboard("tiny", folder=folder)
    last = page.watch.requests[page.watch.requests.index(page.url) :]
    assert not any("jupyterlab-plotly/static/remoteEntry" in url for url in last)
