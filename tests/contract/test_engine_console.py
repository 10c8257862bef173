"""The console in a real Chromium: what it shows, what it can do, by keyboard, without network."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import CHROMIUM, Page, open_page
from tests.contract.test_engine_events import broker, receiver, send, trigger
from tests.fakes_engine import Engine, running, service, until

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

GRAPH = {
    "nodes": {
        "root": {
            "routerType": "Sequence",
            "steps": [
                {"serviceUrl": "http://first.default.svc.cluster.local/echo", "name": "one"},
                {"nodeName": "choice", "name": "two", "condition": 'kind=="<b>x</b>"'},
            ],
        },
        "choice": {
            "routerType": "Switch",
            "steps": [
                {
                    "serviceUrl": "http://second.default.svc.cluster.local/echo",
                    "condition": "a==1",
                },
                {"serviceUrl": "http://elsewhere.example.org/", "condition": "a==2"},
            ],
        },
    }
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("console")
    delivery = {"retry": 0}
    (folder / "received.txt.fail").touch()
    objects = [
        service("first", env={"START_DELAY": "0.2"}),
        service("second"),
        service("graph", env={"GRAPH_JSON": json.dumps(GRAPH)}),
        service("broken", command=["python", "-c", "raise SystemExit('<i>no model</i>')"]),
        receiver(folder),
        broker(),
        trigger("wanted", "wanted", delivery=delivery),
    ]
    with running(folder, *objects) as engine:
        engine.call("first", headers={"traceparent": f"00-{'1' * 32}-{'2' * 16}-00"})
        engine.call("broken")
        send(engine, "wanted", "7")
        until(lambda: engine.admin("events")["dead"])
        yield engine


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with open_page() as page:
        yield page


@pytest.fixture
def page(browser: Page, engine: Engine) -> Iterator[Page]:
    browser.messages.clear()
    browser.scheme("light")
    browser.goto(f"http://localhost:{engine.port}/_turnout/")
    browser.until("document.body?.dataset.loaded === 'yes'")
    yield browser
    browser.evaluate("localStorage.clear()")
    assert browser.messages == []


def text(page: Page, selector: str) -> str:
    return str(page.evaluate(f"document.querySelector({json.dumps(selector)}).innerText"))


def test_what_it_shows(page: Page, engine: Engine, tmp_path: Path) -> None:
    services = text(page, "#services-body")
    assert "default/first" in services
    assert "Failing: container user-container exited with code 1" in services
    assert "Asleep" in services
    graph = page.evaluate("document.querySelector('#graphs-body svg').textContent")
    assert "choice" in graph
    assert 'if kind=="<b>x</b>"' in graph  # text, never markup
    assert "not a service of this engine" in graph
    described = page.evaluate("document.querySelector('#graphs-body details').textContent")
    assert "second: 0/0 · Asleep" in described
    requests = text(page, "#requests-body")
    assert "<i>no model</i>" in requests
    assert "503" in requests
    assert "wanted 7" in text(page, "#events-body")
    assert page.screenshot(tmp_path / "light.png").stat().st_size > 20_000
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.scheme("dark")
    assert page.evaluate(background) != light
    page.evaluate("document.getElementById('theme').click()")  # light, whatever the system says
    assert page.evaluate(background) == light


def test_live_counts_and_the_buttons(page: Page, engine: Engine) -> None:
    wake = "document.querySelector('[aria-label=\"Wake default/second\"]')"
    page.evaluate(f"{wake}.focus(); {wake}.click()")
    page.until("document.querySelector('#services-body').innerText.includes('second-00001\\t1/1')")
    assert engine.service("second")["ready"] == 1
    page.until("document.querySelector('[aria-label=\"Sleep default/second\"]') !== null")
    page.evaluate("document.querySelector('[aria-label=\"Sleep default/second\"]').click()")
    until(lambda: engine.service("second")["desired"] == 0)


def test_timeline_of_a_cold_start(page: Page) -> None:
    page.evaluate("document.querySelector('[aria-label$=\"to default/first\"]').click()")
    parts = page.evaluate("document.querySelector('#waterfall table').textContent")
    assert "starting the process" in parts
    assert "answering" in parts
    assert page.evaluate("document.activeElement.dataset.key") == "close"
    page.evaluate("document.activeElement.click()")
    assert page.evaluate("document.getElementById('waterfall').hidden")


def test_sending_json_and_a_picture_by_keyboard(page: Page) -> None:
    page.evaluate(
        "document.getElementById('try-service').value = 'default/first';"
        "document.getElementById('try-path').value = '/echo';"
        "document.getElementById('try-body').value = '{\"instances\": [42]}';"
        "document.querySelector('#try-form .primary').focus()"
    )
    page.press("Enter", 13, "\r")
    page.until("document.getElementById('try-caption').textContent.startsWith('HTTP 200')")
    answer = json.loads(text(page, "#try-output"))
    assert json.loads(answer["body"]) == {"instances": [42]}
    page.evaluate(
        "const data = new DataTransfer(); data.items.add(new File(['pixels'], 'a.png'));"
        "document.getElementById('try-image').files = data.files;"
        "document.getElementById('try-answer').hidden = true;"
        "document.querySelector('#try-form .primary').click()"
    )
    page.until("!document.getElementById('try-answer').hidden")
    answer = json.loads(text(page, "#try-output"))
    assert json.loads(answer["body"]) == {"instances": [{"data": "cGl4ZWxz"}]}


def test_bad_json_is_refused_before_it_is_sent(page: Page) -> None:
    page.evaluate(
        "document.getElementById('try-body').value = '{oops';"
        "document.querySelector('#try-form .primary').click()"
    )
    page.until("document.getElementById('try-state').textContent.includes('not JSON')")


def test_replaying_a_dead_letter(page: Page, engine: Engine) -> None:
    before = engine.admin("events")["stats"]["dead"]
    page.evaluate("document.querySelector('[aria-label^=\"Replay dead letter\"]').click()")
    until(lambda: engine.admin("events")["stats"]["dead"] > before)


def test_every_control_has_a_name_and_is_reached_by_tab(page: Page) -> None:
    unnamed = page.evaluate(
        """[...document.querySelectorAll('button, input, select, textarea, a, svg[role=img]')]
        .filter(e => !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length))
        .map(e => e.outerHTML)"""
    )
    assert unnamed == []
    assert page.evaluate("document.querySelectorAll('h1').length") == 1
    assert page.evaluate("document.documentElement.lang") == "en"
    seen = set()
    for _ in range(12):
        page.press("Tab", 9)
        seen.add(page.evaluate("document.activeElement.outerHTML.slice(0, 60)"))
    assert len(seen) >= 10
    assert any("Skip" in item or "skip" in item for item in seen)


def test_contrast_is_readable_in_both_themes(page: Page) -> None:
    script = """(() => {
      const rgb = (t) => t.match(/[\\d.]+/g).slice(0, 3).map(Number);
      const lum = (c) => { const [r, g, b] = c.map(v => { v /= 255;
        return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
        return .2126 * r + .7152 * g + .0722 * b; };
      const bad = [];
      for (const e of document.querySelectorAll('td, th, h2, p, a, button, label, .chip')) {
        if (!e.offsetParent) continue;
        const clear = (b) => getComputedStyle(b).backgroundColor.endsWith(', 0)');
        let back = e;
        while (back !== document.body && clear(back)) back = back.parentElement;
        const colours = [getComputedStyle(e).color, getComputedStyle(back).backgroundColor];
        const pair = colours.map(rgb).map(lum).sort((a, b) => b - a);
        const ratio = (pair[0] + .05) / (pair[1] + .05);
        if (ratio < 4.5) bad.push([e.outerHTML.slice(0, 80), ratio]);
      }
      return bad;
    })()"""
    for scheme in ("light", "dark"):
        page.scheme(scheme)
        assert page.evaluate(script) == [], scheme
