"""Programs of Debian's that some tests use, which `make test` installs where it may."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, async_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

# Only a person's machine may lack them: elsewhere a test that did not run would go unnoticed.
_LENIENT = not os.environ.get("CI")
needs_browser = pytest.mark.skipif(_LENIENT and CHROMIUM is None, reason="no Chromium on the PATH")
needs_kcat = pytest.mark.skipif(
    _LENIENT and shutil.which("kcat") is None, reason="no kcat on the PATH"
)


@asynccontextmanager
async def running_browser() -> AsyncIterator[Browser]:
    """Headless Chromium while the block runs."""
    if CHROMIUM is None:
        pytest.fail("there is no Chromium on the PATH")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        await browser.close()
