"""The page whose address start() prints, in a real browser."""

import re

from playwright.sync_api import sync_playwright

import daskconv

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def test_the_printed_address_shows_the_workers_in_a_browser(chromium, capsys):
    with daskconv.start(workers=1, threads=1):
        address = re.search(r"page: (http\S+)", capsys.readouterr().out).group(1)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            page = browser.new_page()
            errors = []
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.goto(address)
            page.locator("canvas").first.wait_for(timeout=30_000)  # Bokeh has drawn something
            assert page.title() == "daskconv: training"
            assert not errors
            browser.close()
