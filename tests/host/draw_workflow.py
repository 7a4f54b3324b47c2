"""Makes `workflows/NAME.json` and its picture from the API graph of `drawn/NAME.py`, in a real ComfyUI page.

    python -m tests.host.draw_workflow [NAME ...]     # after a change of nodes or graph; needs chromium

The page itself turns the API graph into a drawn one, so that sockets and widgets are what users will have. A workflow whose
files come with the pack is run once, and the picture shows its results.
"""  # fmt: skip

from __future__ import annotations

import asyncio
import base64
import importlib
import io
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import aiohttp
from PIL import Image

from tests.host.server import PACK, Server

PORT = 9333
WINDOW = (2800, 1500)
CROP = (110, 130, 2600, 1280)
"""Of a screenshot of that window: the canvas without what surrounds it."""
GAP, TOP, PAD = 60, 60, 30
"""Pixels between columns of a workflow that is laid out by columns, above them, and around them in a group."""

BUILD = """(async () => {
  const api = %s, given = %s, columns = %s, spans = %s, notes = %s, [gap, top, pad] = %s;
  app.graph.clear();
  await app.loadApiJson(api, 'workflow');
  const places = { ...given }, edges = [];
  let left = 0, low = 0;
  for (const column of columns) {
    const sizes = column.map((id) => app.graph.getNodeById(+id)).map((node) => {
      const [w, h] = node.computeSize();
      return [w, Math.max(h, 300 * /Preview|Sheet/.test(node.type))];
    });
    const width = Math.max(260, ...sizes.map((size) => size[0]));
    let y = top;
    column.forEach((id, i) => {
      places[id] = [left, y, width, sizes[i][1]];
      y += sizes[i][1] + gap;
    });
    edges.push([left, left + width]);
    low = Math.max(low, y - gap);
    left += width + gap;
  }
  const groups = spans.map((span) => span.length > 4 ? span : [
    span[0], edges[span[1]][0] - pad / 2, top - 3 * pad, edges[span[2]][1] - edges[span[1]][0] + pad,
    low - top + 4 * pad, span[3],
  ]);
  for (const [id, [x, y, w, h]] of Object.entries(places)) {
    const node = app.graph.getNodeById(+id);
    node.pos = [x, y];
    node.setSize([w, h]);
    if (api[id]._meta) node.title = api[id]._meta.title;
    for (const one of node.widgets || []) if (one.name === 'control_after_generate') one.value = 'fixed';
  }
  for (const [title, x, y, w, h, color] of groups) {
    const group = new LiteGraph.LGraphGroup(title);
    Object.assign(group, { pos: [x, y], size: [w, h], color, font_size: 28 });
    app.graph.add(group);
  }
  for (const [title, x, y, w, h, text] of notes) {
    const note = LiteGraph.createNode('MarkdownNote');
    Object.assign(note, { pos: [x, y], title, color: '#432', bgcolor: '#653' });
    app.graph.add(note);
    note.setSize([w, h]);
    note.widgets[0].value = text;
  }
  return JSON.stringify(app.graph.serialize());
})()"""

FIT = """(() => {
  const [x0, y0, x1, y1] = %s, view = app.canvas, left = 70, top = 60;
  const w = view.canvas.clientWidth - left - 30, h = view.canvas.clientHeight - top - 30;
  const scale = Math.min(w / (x1 - x0), h / (y1 - y0));
  view.ds.scale = scale;
  view.ds.offset = [left / scale - x0, top / scale - y0];
  view.setDirty(true, true);
})()"""

READY = "!!(window.app?.graph && LiteGraph.registered_node_types['IdentiFaceIterate'])"


class Page:
    """One browser page, by DevTools messages."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket, self.count = socket, 0

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.count += 1
        await self.socket.send_json({"id": self.count, "method": method, "params": params})
        while True:
            answer = json.loads((await self.socket.receive()).data)
            if answer.get("id") == self.count:
                return dict(answer.get("result", answer))

    async def run(self, script: str) -> Any:
        answer = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"])[:2000])
        return answer["result"].get("value")


async def draw(server: Server, page: Page, name: str) -> None:
    plan = importlib.import_module(f"tests.host.drawn.{name}")
    await page.call("Page.enable")
    await page.call("Page.navigate", url=server.url)
    while not await page.run(READY):
        await asyncio.sleep(0.5)
    await asyncio.sleep(2)
    columns = getattr(plan, "COLUMNS", [])
    given = (plan.GRAPH, getattr(plan, "PLACES", {}), columns, plan.GROUPS, plan.NOTES, [GAP, TOP, PAD])
    graph = json.loads(await page.run(BUILD % tuple(json.dumps(one) for one in given)))
    graph["extra"] = {"ds": {"scale": 0.5, "offset": [120, 120]}}

    await page.run(f"app.loadGraphData({json.dumps(graph)})")
    await asyncio.sleep(2)
    back = json.loads(await page.run("(async () => JSON.stringify((await app.graphToPrompt()).output))()"))
    for node, one in plan.GRAPH.items():
        for label, value in one["inputs"].items():
            assert back[node]["inputs"].get(label) == value, (node, label, value, back[node]["inputs"])

    if plan.RUNS:
        before = set(server.get("/history"))
        await page.run("app.queuePrompt(0)")
        while not (ended := set(server.get("/history")) - before):
            await asyncio.sleep(1)
        outcome = server.get("/history")[ended.pop()]["status"]
        assert outcome["status_str"] == "success", outcome
        await asyncio.sleep(3)
    await page.run("document.querySelectorAll('.p-dialog-close-button').forEach((one) => one.click())")
    await page.run(FIT % json.dumps(plan.VIEW))
    await asyncio.sleep(3)
    shot = await page.call("Page.captureScreenshot", format="png")
    picture = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB").crop(CROP)
    picture.thumbnail((2000, 2000))
    picture.save(PACK / "workflows" / f"{name}.jpg", quality=85)
    (PACK / "workflows" / f"{name}.json").write_text(json.dumps(graph, indent=1) + "\n")


async def main(names: list[str]) -> None:
    browser = next(
        (found for found in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if found),
        None,
    )
    if browser is None:
        sys.exit("a Chromium browser is wanted: install chromium")
    with Server() as server, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        server.post("/settings", {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False})
        flags = [
            "--headless=new", "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--hide-scrollbars",
            f"--remote-debugging-port={PORT}", f"--user-data-dir={profile}", f"--window-size={WINDOW[0]},{WINDOW[1]}",
        ]  # fmt: skip
        process = subprocess.Popen([browser, *flags, "about:blank"], stderr=subprocess.DEVNULL)
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(await debugger(session), max_msg_size=0) as socket,
            ):
                for name in names:
                    await draw(server, Page(socket), name)
                    print(Path("workflows") / f"{name}.json")
        finally:
            process.terminate()
            process.wait()


async def debugger(session: aiohttp.ClientSession) -> str:
    for _ in range(120):
        try:
            async with session.get(f"http://127.0.0.1:{PORT}/json") as answer:
                return str(
                    next(tab for tab in await answer.json() if tab["type"] == "page")["webSocketDebuggerUrl"]
                )
        except (aiohttp.ClientError, StopIteration):
            await asyncio.sleep(0.5)
    raise RuntimeError("the browser did not open its debugging port")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or ["embedded_case"]))
