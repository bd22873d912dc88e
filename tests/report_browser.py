#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The report in headless Chromium, in TAP: at the width of a phone and of a
desk, light and dark, and on paper.

    report_browser.py LIB [REPORT [PICTURES]]

LIB       tools/lib
REPORT    a folder that `tools/bench --report` has written; without it, one is
          made of sample figures
PICTURES  a folder for the screenshots; without it, they are not kept

Needs chromium, chromium-driver, python3-selenium, python3-pil and
poppler-utils; without them, all is skipped, and the reason says which.
"""

import base64
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SHAPES = {"phone": (375, 812, True), "desk": (1280, 900, False)}
SCHEMES = ("light", "dark")
NAMES = [
    "it makes no request but for itself",
    "nothing is written to the console",
    "it has a title, tables and pictures",
    "it is not wider than the screen, and no cell is a tower",
    "the pictures fit and are of this shape",
    "text is large enough, and stands out from the paper",
    "it is not blank, and not of one colour",
    "the paper has the scheme's brightness",
]
PAPER = ["it prints to several pages with all sections",
         "no table is cut off at the right of the paper"]


def missing():
    """What is not installed, by Debian's names."""
    needs = []
    for command, package in (("chromium", "chromium"),
                             ("chromedriver", "chromium-driver"),
                             ("pdftotext", "poppler-utils")):
        if not shutil.which(command):
            needs.append(package)
    for module, package in (("selenium", "python3-selenium"),
                            ("PIL", "python3-pil"),
                            ("matplotlib", "python3-matplotlib"),
                            ("jinja2", "python3-jinja2")):
        try:
            __import__(module)
        except ImportError:
            needs.append(package)
    return needs


def start(profile):
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--hide-scrollbars",
                     "--disable-gpu", "--disable-dev-shm-usage",
                     "--disable-background-networking", "--no-first-run",
                     "--disable-component-update", f"--user-data-dir={profile}",
                     "--window-size=1280,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs",
                           {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(service=Service(shutil.which("chromedriver")),
                            options=options)


def requests(driver):
    """The URLs asked for since the last call."""
    found = []
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            found.append(message["params"]["request"]["url"])
    return found


# The smallest text that is seen, and the smallest contrast of text with what
# is behind it (WCAG 2: 4.5 for text).
LOOK = """
const luminance = (colour) => {
  const c = colour.match(/[\\d.]+/g).slice(0, 3).map((v) => {
    v /= 255;
    return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2]; };
const transparent = (c) => c === 'transparent' || /, 0\\)$/.test(c);
let size = Infinity, contrast = Infinity, small = '', pale = '';
for (const e of document.querySelectorAll('body *')) {
  const box = e.getBoundingClientRect();
  const own = [...e.childNodes].some(
    (n) => n.nodeType === 3 && n.textContent.trim());
  if (!own || !box.width || !box.height) continue;
  const style = getComputedStyle(e);
  const svg = e.closest('svg');
  let pixels = parseFloat(style.fontSize), colour = style.color;
  if (svg) {
    pixels *= svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
    colour = style.fill; }
  if (pixels < size) { size = pixels; small = e.textContent.trim(); }
  let behind = e;
  while (behind.parentElement &&
         transparent(getComputedStyle(behind).backgroundColor))
    behind = behind.parentElement;
  const [a, b] = [luminance(colour),
                  luminance(getComputedStyle(behind).backgroundColor)];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < contrast) { contrast = ratio; pale = e.textContent.trim(); } }
return {size, small, contrast, pale};
"""


def pixels(png):
    """How many colours there are, how much is not the commonest, and how
    bright that is."""
    from PIL import Image
    image = Image.open(io.BytesIO(png)).convert("RGB")
    counts = image.getcolors(image.width * image.height)
    most, paper = max(counts)
    return (len(counts), 1 - most / (image.width * image.height),
            sum(paper) / 3 / 255)


def examine(driver, url, shape, scheme, pictures):
    """Problems, one list for each of NAMES."""
    width, height, mobile = SHAPES[shape]
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
        "width": width, "height": height, "deviceScaleFactor": 2 if mobile
        else 1, "mobile": mobile})
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [
        {"name": "prefers-color-scheme", "value": scheme}]})
    driver.get("about:blank")
    driver.get_log("browser")
    requests(driver)
    driver.get(url)
    asked = [each for each in requests(driver)
             if each != url and not each.startswith("data:")]
    console = [entry["message"] for entry in driver.get_log("browser")]
    script = driver.execute_script
    content = []
    if "benchmarks" not in driver.title:
        content.append(f"the title is \"{driver.title}\"")
    for what in ("table", "figure svg", "td[data-name]"):
        if not script(f"return document.querySelectorAll('{what}').length"):
            content.append(f"no {what}")
    inside = script("return document.documentElement.scrollWidth")
    wide = [f"{inside} pixels in a window of {width}"] if inside > width \
        else []
    wide += script("""
        return [...document.querySelectorAll('td, th')].filter((e) =>
          e.getBoundingClientRect().height > 110).map((e) =>
          'as high as a tower: ' + e.textContent.trim().slice(0, 40))""")
    # x, right, shape of each drawing that is seen
    drawn = script("""
        return [...document.querySelectorAll('figure svg')].map((e) => {
          const b = e.getBoundingClientRect();
          return [b.width, b.right, e.getAttribute('class')]; })""")
    seen = [each for each in drawn if each[0]]
    wanted = "narrow" if mobile else "wide"
    fits = [f"{each}" for each in seen
            if each[1] > width or each[2] != wanted or each[0] < 250]
    if len(seen) * 2 != len(drawn):
        fits.append(f"{len(seen)} of {len(drawn)} drawings are seen")
    look = script(LOOK)
    text = []
    if look["size"] < 9:
        text.append(f"{look['size']:.1f} pixels: {look['small'][:60]}")
    if look["contrast"] < 4.5:
        text.append(f"contrast {look['contrast']:.1f}: {look['pale'][:60]}")
    page_height = min(script("return document.documentElement.scrollHeight"),
                      8000)
    png = base64.b64decode(driver.execute_cdp_cmd("Page.captureScreenshot", {
        "captureBeyondViewport": True, "clip": {
            "x": 0, "y": 0, "width": width, "height": page_height,
            "scale": 1}})["data"])
    if pictures:
        Path(pictures, f"{shape}-{scheme}.png").write_bytes(png)
    colours, inked, brightness = pixels(png)
    blank = [] if colours > 50 and inked > 0.02 else [
        f"{colours} colours, {inked:.1%} not the commonest"]
    bright = [] if (brightness > 0.9) == (scheme == "light") and (
        brightness < 0.2) == (scheme == "dark") else [
            f"brightness {brightness:.2f}"]
    return [asked, console, content, wide, fits, text, blank, bright]


def on_paper(driver, url, pictures):
    """Problems, one list for each of PAPER."""
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {
        "media": "print", "features": [
            {"name": "prefers-color-scheme", "value": "dark"}]})
    driver.get(url)
    titles = driver.execute_script("return [...document.querySelectorAll("
                                   "'h2')].map((e) => e.textContent)")
    # The paper's width within the margins: 297 - 24 mm, at 96 to the inch.
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
        "width": 1032, "height": 700, "deviceScaleFactor": 1,
        "mobile": False})
    broad = driver.execute_script("""
        return [...document.querySelectorAll('table')].map((e) =>
          Math.round(e.getBoundingClientRect().width))""")
    cut = [f"a table of {each} pixels on 1032" for each in broad
           if each > 1032]
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    pdf = base64.b64decode(driver.execute_cdp_cmd(
        "Page.printToPDF", {"preferCSSPageSize": True,
                            "printBackground": True})["data"])
    if pictures:
        Path(pictures, "paper.pdf").write_bytes(pdf)
    text = subprocess.run(["pdftotext", "-", "-"], input=pdf,
                          stdout=subprocess.PIPE, check=True).stdout.decode()
    said = re.sub(r"\s+", " ", text)
    bad = [f"not on paper: {title}" for title in titles if title not in said]
    if text.count("\f") < 2:
        bad.append(f"{text.count(chr(12))} page")
    return [bad, cut]


def main(lib, report=None, pictures=None):
    total = len(NAMES) * len(SHAPES) * len(SCHEMES) + len(PAPER)
    needs = missing()
    if needs:
        print("TAP version 13\n1..1\nok 1 - the report in a browser # SKIP "
              "needs " + ", ".join(needs))
        return 0
    print(f"TAP version 13\n1..{total}", flush=True)
    failed = number = 0
    with tempfile.TemporaryDirectory() as folder:
        if not report:
            sys.path[:0] = [lib, str(Path(__file__).resolve().parent)]
            sys.dont_write_bytecode = True
            import bench_report
            import bench_sample
            report = str(Path(folder, "report"))
            bench_report.prepare(report)
            bench_report.write(bench_sample.data(), report)
        url = Path(report, "index.html").resolve().as_uri()
        driver = start(str(Path(folder, "profile")))
        try:
            results = []
            for shape in SHAPES:
                for scheme in SCHEMES:
                    found = examine(driver, url, shape, scheme, pictures)
                    results += [(f"{shape}, {scheme}: {name}", problems)
                                for name, problems in zip(NAMES, found)]
            results += zip(PAPER, on_paper(driver, url, pictures))
        finally:
            driver.quit()
    for name, problems in results:
        number += 1
        failed += bool(problems)
        print(f"{'not ok' if problems else 'ok'} {number} - {name}")
        for problem in problems:
            print(f"# {problem}")
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3, 4):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
