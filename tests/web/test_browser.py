"""The page in headless Chromium: on a desk and on a phone, in light and dark, by mouse and by keyboard alone."""

import json
import re
import shutil
from base64 import b64decode
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from tests.restoration.test_batch import model
from tests.web.conftest import free_port, offers

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]

WAIT = 120
ELSEWHERE = "evil.example"
SIZES = {"desk": (1280, 900), "tablet": (768, 1024), "phone": (390, 844)}
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


class Page:
    """A browser, and what tests do with it."""

    def __init__(self, driver: Any, folder: Path) -> None:
        self.driver, self.folder = driver, folder
        self.run: Callable[..., Any] = driver.execute_script

    def open(self, address: str, size: str = "desk", *, ratio: float = 1, dark: bool = False) -> None:
        width, height = SIZES[size]
        metrics = {"width": width, "height": height, "deviceScaleFactor": ratio, "mobile": width < 600}
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get(f"{address}/icon.svg")
        self.run("sessionStorage.clear()")  # as in a new tab, which does not go on with the photographs of another test
        self.driver.get(address)
        self.until(lambda: self.all("[name=task]"))

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def until(self, condition: Callable[[], Any]) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, WAIT, 0.1).until(lambda _: condition())

    def choose(self, *photos: Path) -> None:
        self.one("#files").send_keys("\n".join(map(str, photos)))
        self.until(lambda: set(self.names()) >= {photo.name for photo in photos})

    def names(self) -> list[str]:
        return list(self.run("return [...document.querySelectorAll('#queue .name')].map((name) => name.textContent)"))

    def restored(self, count: int = 1) -> None:
        """Press the button, and wait until so many photographs are done and the one that is seen is there."""
        self.one("#restore").click()
        self.until(lambda: len(self.all("#queue li.done")) == count)
        self.seen()

    def seen(self) -> None:
        script = "return [...document.querySelectorAll('.layer .whole')].map((i) => i.complete && i.naturalWidth > 0)"
        self.until(lambda: self.run(script) == [True, True])

    def keys(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def focused(self) -> str:
        return str(self.run("return document.activeElement.id || document.activeElement.textContent.trim()"))

    def pixels(self, name: str = "viewer") -> Any:
        """What is seen of an element, as values of 0..255."""
        self.run("document.getElementById(arguments[0]).scrollIntoView({block: 'center'})", name)
        path = self.folder / f"{name}.png"
        path.write_bytes(self.one(f"#{name}").screenshot_as_png)
        return np.asarray(Image.open(path).convert("RGB")).astype(float)

    def shot(self, name: str) -> None:
        """A picture of the whole page, to be looked at."""
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
        (self.folder / f"{name}.png").write_bytes(b64decode(shot["data"]))

    def check(self) -> None:
        """Ask axe for contrasts, labels, roles and all else that it knows; nothing may be beyond the edge either."""
        spec = find_spec("axe_playwright_python")
        if spec is None or spec.submodule_search_locations is None:
            pytest.skip("axe is not installed: make test-web")
        script = next(Path(spec.submodule_search_locations[0]).rglob("axe.min.js")).read_text(encoding="utf-8")
        found = self.driver.execute_async_script(
            f"{script}; axe.run(document, {{runOnly: arguments[0]}}).then(arguments[1])", RULES
        )
        assert len(found["passes"]) > 15  # it did look
        violations = [(one["id"], [node["target"] for node in one["nodes"]]) for one in found["violations"]]
        assert violations == []
        width = self.run("return document.documentElement.clientWidth")
        assert self.run("return document.documentElement.scrollWidth") <= width
        beyond = """return [...document.querySelectorAll('button, a, input, select, summary, output')]
            .filter((e) => e.id !== 'cut' && e.checkVisibility())
            .filter((e) => { const r = e.getBoundingClientRect(); return r.left < 0 || r.right > innerWidth + 0.5; })
            .map((e) => e.outerHTML)"""
        assert self.run(beyond) == []


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    """Chromium of the system, driven by Selenium; without either, tests skip."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("Chromium is not installed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    rebound = f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1"  # as an attacker's name server would answer
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", rebound):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    browser.set_script_timeout(WAIT)
    yield browser
    browser.quit()


@pytest.fixture
def page(driver: Any, tmp_path: Path) -> Iterator[Page]:
    """A page in which no script fails, and which asks no other host for anything."""
    for log in ("browser", "performance"):
        driver.get_log(log)  # of the test before
    yield Page(driver, tmp_path)
    # what the server refuses is logged as an error too, and said on the page
    errors = [entry["message"] for entry in driver.get_log("browser") if entry["source"] != "network"]
    assert errors == []
    sent = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [one["params"]["request"]["url"] for one in sent if one["method"] == "Network.requestWillBeSent"]
    hosts = {urlsplit(url).hostname for url in asked if url.startswith(("http", "ws"))}
    assert hosts <= {"127.0.0.1"}


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.effect_noise((60, 40), 60).save(path)
    return path


@pytest.fixture(scope="module")
def roomy(tiny_model: Path, tiny_dehazer: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a page that takes photographs of any usual size."""
    port = free_port()
    with offers(tiny_model, tiny_dehazer, "--port", port, folder=tmp_path_factory.mktemp("roomy")) as server:
        assert server.stdout is not None
        assert str(port) in server.stdout.readline()
        yield f"http://127.0.0.1:{port}"
        server.terminate()


@pytest.fixture
def harmless(tmp_path: Path) -> Iterator[str]:
    """Address of a page whose network finds nothing."""
    port = free_port()
    with offers(model(tmp_path / "harmless", 1e-5), "--port", port, folder=tmp_path) as server:
        assert server.stdout is not None
        assert str(port) in server.stdout.readline()
        yield f"http://127.0.0.1:{port}"
        server.terminate()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_a_photograph_is_restored(page: Page, address: str, photo: Path, size: str, dark: bool) -> None:
    page.open(address, size, dark=dark)
    page.check()
    page.choose(photo)
    page.check()
    page.restored()
    assert re.match(r"Noise about \d+ levels.*; removed\. Done in \d", page.one("#status").text)
    assert page.one("#queue .done .what").get_attribute("textContent").startswith("noise about ")
    assert page.one("#download").get_attribute("download") == "photo_denoised.png"
    assert not page.one("#how").get_attribute("open")  # what is spiking about it is for those who ask
    page.shot("closed")
    page.check()
    page.one("#how summary").click()
    page.one("#more summary").click()
    assert "mJ" in page.one("#figures").text
    assert "levels of 255, root of the mean square" in page.one("#figures").text
    assert len(page.all("#rates tr")) > 1
    page.check()
    page.shot("open")


def test_the_two_sides_and_the_strength(page: Page, roomy: str, tmp_path: Path) -> None:
    path = tmp_path / "wide.png"
    noise = np.random.default_rng(0).integers(0, 256, (240, 400), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    page.open(roomy)
    page.choose(path)
    page.restored()
    page.run("for (const e of document.querySelectorAll('.tag')) e.style.visibility = 'hidden'")

    def set_to(slider: str, value: int) -> Any:
        page.run(
            "const e = document.getElementById(arguments[0]); e.value = arguments[1]; "
            "e.dispatchEvent(new Event('input')); e.dispatchEvent(new Event('change'))",
            slider,
            value,
        )
        return page.pixels()

    before, after = set_to("cut", 100)[60:180, 60:340], set_to("cut", 0)[60:180, 60:340]
    assert np.abs(before[..., 0] - noise[60:180, 60:340]).max() <= 1
    assert np.abs(before - after).mean() > 10
    half = set_to("cut", 50)[60:180, 60:340]
    np.testing.assert_array_equal(half[:, :110], before[:, :110])
    np.testing.assert_array_equal(half[:, 170:], after[:, 170:])
    set_to("cut", 0)
    mixed = set_to("strength", 30)[60:180, 60:340]
    assert np.abs(mixed - (before + 0.3 * (after - before))).max() <= 2  # as the file has it, but for rounding
    assert page.one("#strength-text").text == "30 %"
    assert page.one("#download").get_attribute("href").endswith("/result?strength=0.30")
    assert page.one("#queue .done a").get_attribute("href").endswith("/result?strength=0.30")
    assert len(page.all("#queue li.done")) == 1  # no new run
    assert "levels; 30 % of it removed. Done in" in page.one("#status").text


def test_a_photograph_in_which_nothing_is_found(page: Page, photo: Path, harmless: str) -> None:
    """It is said, the strength has nothing to set, and the download is the photograph itself."""
    page.open(harmless, "phone")
    page.choose(photo)
    page.restored()
    assert page.one("#status").text.startswith("No noise found; the file is copied as it is. Done in ")
    assert not page.one("#strength").is_displayed()
    assert page.one("#download").is_displayed()
    link = page.one("#download").get_attribute("href")
    read = """const [link, done] = arguments;
        fetch(link).then((answer) => answer.arrayBuffer()).then((bytes) => done([...new Uint8Array(bytes)]))"""
    assert bytes(page.driver.execute_async_script(read, link)) == photo.read_bytes()
    page.check()


@pytest.mark.parametrize(("size", "ratio"), [("desk", 1), ("phone", 2)])
def test_at_100_percent_pixels_are_those_of_the_photograph(
    page: Page, roomy: str, tmp_path: Path, size: str, ratio: float
) -> None:
    path = tmp_path / "large.png"
    noise = np.random.default_rng(0).integers(0, 256, (400, 2100, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, compress_level=1)
    page.open(roomy, size, ratio=ratio)
    page.choose(path)
    page.restored()
    fit = page.run("return document.getElementById('stage').clientWidth")
    page.run("document.querySelector('[name=zoom][value=full]').click()")
    assert fit < page.run("return document.getElementById('stage').clientWidth") == 2100 / ratio
    page.run(
        "document.getElementById('cut').value = 100; document.getElementById('cut').dispatchEvent(new Event('input'))"
    )
    page.run("document.getElementById('pane').scrollTo(100, 0)")
    seen = """const box = document.getElementById('pane').getBoundingClientRect();
        return [...document.querySelectorAll('#before .tile')].filter((tile) => {
            const t = tile.getBoundingClientRect();
            return t.right > box.left && t.left < box.right && t.bottom > box.top && t.top < box.bottom;
        }).map((tile) => tile.complete && tile.naturalWidth > 0)"""
    page.until(lambda: page.run(seen) and all(page.run(seen)))
    left, top = (
        int(ratio * page.run(f"return document.getElementById('pane').scroll{side}")) for side in ("Left", "Top")
    )
    assert (left, top) == (100 * ratio, 0)
    shown = page.pixels("pane")[80:200, 150:400]
    expected = noise[top + 80 : top + 200, left + 150 : left + 400]
    assert np.abs(shown - expected).max() <= 1
    page.check()


def test_by_keyboard_alone(page: Page, address: str) -> None:
    from selenium.webdriver.common.keys import Keys

    page.open(address)
    page.keys(Keys.TAB)
    assert page.focused() == "files"
    page.keys(Keys.TAB)
    assert page.focused() == "Noisy cat"
    page.keys(Keys.TAB)
    page.keys(Keys.ENTER)  # the hazy one
    page.until(lambda: page.names() == ["hazy.jpg"])
    assert page.run("return document.querySelector('[name=task]:checked').value") == "dehaze"
    page.keys(Keys.TAB)
    page.keys(Keys.ARROW_LEFT)  # the radio buttons: noise, then haze again
    page.keys(Keys.ARROW_RIGHT)
    page.keys(Keys.TAB)
    assert page.focused() == "restore"
    page.keys(Keys.ENTER)
    page.until(lambda: page.all("#queue li.failed"))  # of more pixels than this server takes
    assert page.one("#failure").text.startswith("hazy.jpg: 640 x 427 are")


def test_sliders_by_keyboard(page: Page, roomy: str) -> None:
    from selenium.webdriver.common.keys import Keys

    page.open(roomy, "phone")
    page.all(".example")[1].click()
    page.until(lambda: page.names() == ["hazy.jpg"])
    page.restored()
    page.run("document.getElementById('pane').focus()")
    page.keys(Keys.TAB)
    assert page.focused() == "cut"
    page.keys(Keys.HOME, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert page.one("#cut").get_attribute("aria-valuetext") == "2 % before, 98 % after"
    page.keys(Keys.TAB, Keys.ARROW_RIGHT)
    assert page.run("return document.getElementById('viewer').classList.contains('full')")
    page.keys(Keys.TAB)
    assert page.focused() == "strength"
    page.keys(Keys.ARROW_LEFT)
    assert page.one("#strength-text").text == "99 %"
    page.keys(Keys.TAB)
    assert page.focused() == "download"
    page.run("document.getElementById('pane').focus({preventScroll: true})")
    before = page.run("return document.getElementById('pane').scrollLeft")
    page.keys(Keys.ARROW_RIGHT)
    page.until(lambda: page.run("return document.getElementById('pane').scrollLeft") > before)


def test_a_queue_of_photographs(page: Page, address: str, tmp_path: Path) -> None:
    good = [tmp_path / f"photo{i}.png" for i in range(3)]
    for i, path in enumerate(good):
        Image.effect_noise((30 + i, 20), 60).save(path)
    torn = tmp_path / "<i>torn.png"
    torn.write_bytes(good[0].read_bytes()[:-50])
    long = tmp_path / "long.png"
    long.write_bytes(good[0].read_bytes() + bytes(2**20))
    page.open(address, "phone")
    page.choose(good[0], torn, long, *good[1:])
    assert page.one("#restore").text == "Restore 5 photographs"
    page.restored(3)
    page.until(lambda: len(page.all("#queue li.failed")) == 2)
    said = [entry.text for entry in page.all("#queue li.failed .what")]
    assert "damaged PNG" in said[0]
    assert "1.0 MB; at most 1 can be sent" in said[1]
    page.all("#queue .show")[1].click()
    assert page.one("#failure").is_displayed()
    assert page.one("#failure").text.startswith("<i>torn.png:")
    page.until(lambda: not page.one("#empty").is_displayed())  # nothing else is promised
    page.check()
    page.run("scrollTo(0, 0)")
    page.all("#queue .show")[4].click()
    page.until(lambda: page.one("#download").is_displayed())
    page.seen()
    # it lies below the list: on a phone out of sight, if the page stayed where it was
    page.until(
        lambda: page.run("return document.getElementById('viewer').getBoundingClientRect().bottom <= innerHeight")
    )
    assert not page.one("#failure").is_displayed()
    assert page.one("#download").get_attribute("download") == "photo2_denoised.png"
    assert page.one("#restore").text == "Restore 2 photographs"  # those that failed, again
    for _ in range(5):
        page.one("#queue [aria-label^=Remove]").click()
    assert not page.one("#photographs").is_displayed()
    assert page.one("#empty").is_displayed()


def test_each_example_gets_what_it_is_an_example_of(page: Page, roomy: str) -> None:
    page.open(roomy)
    for i, example in enumerate(page.all(".example")):
        example.click()
        page.until(lambda i=i: len(page.names()) == i + 1)
    page.restored(2)
    assert page.names() == ["noisy.jpg", "hazy.jpg"]
    ends = [link.get_attribute("download") for link in page.all("#queue .done a")]
    assert ends == ["noisy_denoised.jpg", "hazy_dehazed.jpg"]


def test_what_is_wrong_is_said_where_it_is(page: Page, address: str, photo: Path) -> None:
    page.open(address)
    page.one("#restore").click()
    assert page.one("#complaint").text.startswith("Choose a photograph first")
    page.check()
    page.choose(photo)
    assert page.one("#complaint").text == ""
    page.one("#more summary").click()
    page.one("#time_steps").send_keys("99")
    page.one("#restore").click()
    page.until(lambda: page.one("#failure").is_displayed())
    assert "99 time steps were asked for; expected a whole number up to 5" in page.one("#failure").text
    page.one("#time_steps").clear()
    page.one("#time_steps").send_keys("2")
    page.restored()
    page.one("#how summary").click()
    assert "T = 2" in page.one("#figures").text


def test_a_format_that_browsers_do_not_know(page: Page, address: str, tmp_path: Path) -> None:
    path = tmp_path / "deep.tif"
    Image.effect_noise((60, 40), 60).save(path)
    page.open(address)
    page.choose(path)
    page.until(lambda: "deep.tif can be shown once it is restored" in page.one("#empty").text)
    page.restored()
    assert not page.one("#empty").is_displayed()
    assert page.one("#download").get_attribute("download") == "deep_denoised.tif"


def test_fingers_choose_and_a_mouse_drops(page: Page, address: str) -> None:
    said = "return document.querySelector('.drop label').innerText.replace(/\\s+/g, ' ').trim()"
    page.open(address)
    assert page.run(said) == "Drop photographs here or choose files"
    try:
        page.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
        page.open(address, "phone")
        assert page.run(said) == "Choose photographs"
        page.check()
    finally:
        page.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})


def test_photographs_are_dropped(page: Page, address: str, photo: Path) -> None:
    page.open(address)
    page.run(
        """const [bytes] = arguments, transfer = new DataTransfer();
        transfer.items.add(new File([new Uint8Array(bytes)], "dropped.png"));
        document.body.dispatchEvent(new DragEvent("dragover", {bubbles: true, dataTransfer: transfer}));
        document.body.dispatchEvent(new DragEvent("drop", {bubbles: true, dataTransfer: transfer}));""",
        list(photo.read_bytes()),
    )
    assert page.names() == ["dropped.png"]
    page.restored()
    assert page.one("#download").get_attribute("download") == "dropped_denoised.png"


def test_a_server_that_is_gone(page: Page, tiny_model: Path, photo: Path, tmp_path: Path) -> None:
    port = free_port()
    with offers(tiny_model, "--port", port, folder=tmp_path) as server:
        assert server.stdout is not None
        assert server.stdout.readline()
        page.open(f"http://127.0.0.1:{port}")
        page.choose(photo)
        server.terminate()
        assert server.wait(WAIT) == 0
    page.one("#restore").click()
    page.until(lambda: page.one("#failure").is_displayed())
    assert "photo.png: the server does not answer" in page.one("#failure").text


# What the page asks about a photograph that it has sent gets no answer, as on a phone that just woke.
DEAF = """
const own = window.fetch;
window.deaf = true;
window.fetch = (path, options) => window.deaf && String(path).startsWith("/v1/photos/")
    ? Promise.reject(new TypeError("no network")) : own(path, options);
"""


def test_a_network_that_is_away_for_a_while(page: Page, address: str, photo: Path) -> None:
    page.open(address, "phone")
    page.choose(photo)
    page.run(DEAF)
    page.one("#restore").click()
    page.until(lambda: "the server does not answer" in page.one("#progress-text").text)
    assert not page.one("#failure").is_displayed()
    page.run("window.deaf = false")
    page.until(lambda: page.all("#queue li.done"))
    page.seen()


def test_a_page_that_is_loaded_anew_goes_on(page: Page, address: str, tmp_path: Path) -> None:
    names = ["one.png", "two.png"]
    for name in names:
        Image.effect_noise((60, 40), 60).save(tmp_path / name)
    page.open(address, "phone")
    page.choose(*(tmp_path / name for name in names))
    page.run(DEAF)
    page.one("#restore").click()
    page.until(lambda: "the server does not answer" in page.one("#progress-text").text)  # of the first, which is sent
    page.driver.refresh()
    page.until(lambda: page.all("#queue li.done"))
    page.seen()
    assert page.names() == ["one.png"]
    assert page.one("#complaint").text == "The page was loaded anew. Not yet sent, so choose again: two.png."
    assert page.one("#download").get_attribute("download") == "one_denoised.png"
    page.one("#restore").click()
    page.until(lambda: "choose it again" in page.one("#complaint").text)
    assert page.all("#queue li.done")
    page.check()
    page.run("document.querySelector('#queue li button.small').click()")
    page.driver.refresh()
    page.until(lambda: page.all("[name=task]"))
    assert page.names() == []


ATTACK = """
const [address, done] = arguments, body = new Blob(["a photograph"], {type: "image/png"}), form = new FormData();
form.append("photo", body, "photo.png");
const attempts = [
    ["read", "/v1/", {}], ["read the page", "/", {}], ["with cookies", "/v1/", {credentials: "include"}],
    ["a photograph", "/v1/photos", {method: "POST", body}],
    ["unseen", "/v1/photos", {method: "POST", mode: "no-cors", body}],
    ["a form", "/v1/photos", {method: "POST", mode: "no-cors", body: form}],
    ["a text", "/v1/photos", {method: "POST", mode: "no-cors", body: "a photograph"}],
    ["delete", "/v1/photos/x", {method: "DELETE"}],
];
const image = new Promise((go) => {
    const one = new Image();
    one.onload = () => go(["image", "seen"]);
    one.onerror = () => go(["image", "refused"]);
    one.src = `${address}/examples/noisy.jpg`;
});
Promise.all([image, ...attempts.map(([name, path, options]) => fetch(address + path, options).then(
    (answer) => [name, answer.type === "opaque" ? "unread" : "read"], () => [name, "refused"]))]).then(done);
"""


def test_sites_that_are_not_the_page(driver: Any, tiny_model: Path, tmp_path: Path) -> None:
    """DNS rebinding, and what another site's page can ask for, by a browser that does as browsers do."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<title>elsewhere</title>")

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    port = free_port()
    with (
        offers(tiny_model, "--port", port, folder=tmp_path) as server,
        ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as site,
    ):
        Thread(target=site.serve_forever, daemon=True).start()
        try:
            assert server.stdout is not None
            assert str(port) in server.stdout.readline()
            driver.get(f"http://{ELSEWHERE}:{port}/")
            assert "under a name that it does not know" in driver.find_element("tag name", "body").text
            for host in (ELSEWHERE, "localhost", "127.0.0.1"):  # another site; another port of this machine
                driver.get(f"http://{host}:{site.server_port}/")
                assert driver.title == "elsewhere"
                found = dict(driver.execute_async_script(ATTACK, f"http://127.0.0.1:{port}"))
                assert len(found) == 9
                assert set(found.values()) == {"refused"}
            assert not list(tmp_path.glob("spikingir-*/photo-*"))
        finally:
            site.shutdown()
            server.terminate()
