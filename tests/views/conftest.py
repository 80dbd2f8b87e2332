"""A real browser, without a network, to look at pages with."""

import json
import re
import shutil
import subprocess
from html import unescape

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_ASK = """
<script>
window.addEventListener("error", e => window.failed = [...(window.failed || []), e.message]);
const _error = console.error;
console.error = (...all) => { window.failed = [...(window.failed || []), all.join(" ")]; };
</script>
"""
_ANSWER = """
<script>
setTimeout(async () => {
  const wait = ms => new Promise(done => setTimeout(done, ms));
  let answer;
  try { answer = await (async () => { ASKED })(); } catch (e) { answer = "failed: " + e; }
  const out = document.createElement("pre");
  out.id = "answer";
  out.textContent = JSON.stringify({
    answer, errors: window.failed || [],
    requests: performance.getEntriesByType("resource").map(e => e.name),
  });
  document.body.append(out);
}, 1500);
</script>
"""


@pytest.fixture
def browse(tmp_path):
    """Open a page and run some JavaScript in it; what it returns, errors, and what was asked for.

    Skipped where there is no Chromium.
    """
    browser = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip("needs Chromium")

    def open_page(page, asked, *, size=(1000, 800)):
        text = page.read_text(encoding="utf-8")
        copy = tmp_path / f"opened-{page.name}"
        head = re.sub(r"(<head[^>]*>)", lambda found: found[1] + _ASK, text, count=1)
        answer = _ANSWER.replace("ASKED", asked)
        copy.write_text(head.replace("</body>", f"{answer}</body>"), encoding="utf-8")
        run = subprocess.run(
            [
                browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-extensions",
                f"--user-data-dir={tmp_path / 'profile'}",
                "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=15000",
                f"--window-size={size[0]},{size[1]}", "--dump-dom", copy.as_uri(),
            ],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        found = re.search(r'<pre id="answer">(.*?)</pre>', run.stdout, re.DOTALL)
        assert found is not None, run.stderr[-2000:]
        return json.loads(unescape(found[1]))

    return open_page
