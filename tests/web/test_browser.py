"""The page in headless Chromium, on a desk and on a phone."""

import json
import shutil
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]

WAIT = 120


@pytest.fixture
def browser() -> Iterator[Any]:
    """Chromium of the system, driven by Selenium; without either, tests skip."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("Chromium is not installed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)], ids=["desk", "phone"])
def test_a_photograph_is_restored(browser: Any, address: str, tmp_path: Path, width: int, height: int) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    photo = tmp_path / "photo.png"
    Image.effect_noise((60, 40), 60).save(photo)
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(address)

    def appears(selector: str) -> Any:
        return WebDriverWait(browser, WAIT).until(lambda page: page.find_elements("css selector", selector))[0]

    button = appears("#restore")
    appears("input[type=file]").send_keys(str(photo))
    WebDriverWait(browser, WAIT).until(lambda page: "photo" in page.find_element("tag name", "body").text)
    button.click()
    assert "mJ" in appears(".figures").text
    assert "photo_denoised.png (8 bits" in appears("#download").text
    assert len(browser.find_elements("css selector", ".slider-wrap img, .image-container img")) >= 2
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
    (tmp_path / "page.png").write_bytes(b64decode(shot["data"]))  # to be looked at

    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [one["params"]["request"]["url"] for one in sent if one["method"] == "Network.requestWillBeSent"]
    hosts = {urlsplit(url).netloc for url in asked if url.startswith(("http", "ws"))}
    assert hosts == {urlsplit(address).netloc}
