"""How long an analyst waits: from a keystroke to the rendering, from a click to the first answer.

    python benchmarks/studio_latency.py --address http://127.0.0.1:8090 [--keys 60]

Start `llmtagger studio` first, with a server that has answered before (otherwise its start counts).
Keystrokes are timed in the browser, from the key to the change of the rendered prompt.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import statistics
import sys
import time

from playwright.sync_api import sync_playwright

WATCH = """() => {
  window.times = [];
  let at = 0;
  document.querySelector('.cm-content').addEventListener(
    'keydown', () => { at = performance.now(); }, true);
  new MutationObserver(() => {
    if (at) { window.times.push(performance.now() - at); at = 0; }
  }).observe(document.querySelector('.prompt'),
    {subtree: true, childList: true, characterData: true});
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="http://127.0.0.1:8090")
    parser.add_argument("--keys", type=int, default=60)
    chosen = parser.parse_args()
    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page()
        page.goto(f"{chosen.address}/edit?version=tag.v1")
        page.wait_for_selector(".rendered")
        page.locator(".cm-line", has_text="product.title").click()
        page.keyboard.press("End")
        page.evaluate(WATCH)
        for number in range(chosen.keys):
            page.keyboard.type(secrets.choice("abcdefgh"))
            page.wait_for_function("n => window.times.length > n", arg=number)
            time.sleep(0.05)
        times = sorted(page.evaluate("window.times"))
        at = times[min(len(times) - 1, int(0.95 * len(times)))]
        sys.stdout.write(
            f"keystroke to rendering: median {statistics.median(times):.0f} ms, "
            f"95th percentile {at:.0f} ms, {len(times)} keys\n"
        )
        ask = page.get_by_role("button", name="Ask the model")
        ask.click()  # so that the server runs, and the version itself is known
        cancel = page.get_by_role("button", name="Cancel")
        cancel.wait_for(state="visible")
        cancel.wait_for(state="hidden", timeout=600_000)
        # At its start: with what was typed, it is wrapped by now.
        page.locator(".cm-line", has_text="product.title").click(position={"x": 8, "y": 6})
        token = secrets.token_hex(4)  # so that no answer of the draft is known
        page.keyboard.insert_text(f"{token} ")
        page.wait_for_selector(f".rendered:has-text('{token}')")
        answer = page.locator("td:nth-child(3) .cost")
        begun = time.perf_counter()
        ask.click()
        page.wait_for_function("() => !document.querySelector('td:nth-child(3) .cost')")
        answer.first.wait_for(timeout=300_000)
        seconds = time.perf_counter() - begun
        latency = float(answer.first.inner_text().split()[0])
        sys.stdout.write(
            f"click to first answer: {seconds:.2f} s, of which the model took {latency:.2f} s\n"
        )
        browser.close()


if __name__ == "__main__":
    main()
