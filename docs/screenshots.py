"""Pictures of a study's page for the documentation: two sizes, light and dark.

Run `python docs/screenshots.py STUDY`, with Chromium installed. The pictures go to `docs/pictures`.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

import nas
from nas.study.page import report

FOLDER = Path(__file__).resolve().parent / "pictures"
PICTURES = {"light": (1280, "light"), "dark": (1280, "dark"), "small": (400, "light")}
HEIGHT = 1000


def main() -> None:
    """Take the pictures, with the knee of the front opened."""
    study, file = nas.open(sys.argv[1]), Path(tempfile.mkdtemp()) / "report.html"
    report([study], file)
    knee = study.pick("knee")["arch_id"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for name, (width, scheme) in PICTURES.items():
            page = browser.new_page(
                viewport={"width": width, "height": HEIGHT},
                color_scheme="dark" if scheme == "dark" else "light",
            )
            page.goto(file.as_uri())
            page.wait_for_selector("#front .scatterlayer .point")
            page.click(f"#members tr[data-arch='{knee}']")
            page.screenshot(path=FOLDER / f"report_{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
