"""A real browser that watches the page: what its figures hold, what its console says, and how it looks."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]

SOURCES = {
    "loss-training": "value",
    "loss-validation": "value",
    "accuracy-training": "value",
    "speed": "total",
    "layers": "layer",
    "lanes": "stage",
    "plan": "layer",
    "stragglers": "worker",
    "memory": "used",
}
"""The page's data sources, and a column of each."""

_READ = """(sources) => Object.fromEntries(Object.entries(sources).map(([name, column]) => {
    const found = Bokeh.documents.map(d => d.get_model_by_name(name)).find(m => m != null)
    return [name, found == null ? null : Array.from(found.data[column])]
}))"""


@contextmanager
def watched(chromium: str, width: int = 1440, height: int = 1900) -> Iterator[tuple[Page, list[str]]]:
    """Yield a browser's page, and the errors that its console has shown."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page, errors = browser.new_page(viewport={"width": width, "height": height}), []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        try:
            yield page, errors
        finally:
            browser.close()


def read(page: Page) -> dict[str, list]:
    """Return what the page's data sources hold."""
    return page.evaluate(_READ, SOURCES)


def wait_for_data(page: Page) -> dict[str, list]:
    """Return what the sources hold once all of them hold something."""
    page.wait_for_function(f"(sources) => Object.values(({_READ})(sources)).every(v => v != null && v.length > 0)",
                           arg=SOURCES, timeout=60_000)  # fmt: skip
    return read(page)


def keep_picture(page: Page, name: str, folder: Path) -> Path:
    """Save what the page looks like, where DASKCONV_PICTURES says or else in the test's own folder."""
    path = Path(os.environ.get("DASKCONV_PICTURES", folder)) / f"{name}.png"
    page.screenshot(path=path)
    return path
