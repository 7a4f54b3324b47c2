"""Makes `workflows/embedded_case.json` and its picture from the API graph, in a real ComfyUI page.

    python -m tests.host.draw_workflow            # after a change of nodes or graph; needs chromium

The page itself turns the API graph into a drawn one, so that sockets and widgets are what users will have. Places, groups
and notes are given below. The graph is run once, and the picture shows its results.
"""  # fmt: skip

from __future__ import annotations

import asyncio
import base64
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

from tests.host.graphs import shipped
from tests.host.server import PACK, Server

NAME = "embedded_case"
PORT = 9333
WINDOW = (2800, 1500)
CROP = (110, 130, 2600, 1280)
VIEW = (-70, -70, 3320, 1640)
"""Canvas region that the picture shows: x0, y0, x1, y1."""

PLACES: dict[str, tuple[int, int, int, int]] = {
    "1": (-40, 60, 300, 220), "2": (-40, 420, 300, 120), "3": (310, 60, 300, 330), "4": (310, 460, 300, 320),
    "5": (660, 60, 240, 90), "6": (660, 210, 240, 100), "7": (990, 60, 300, 190), "8": (990, 310, 300, 110),
    "9": (990, 480, 300, 110), "10": (990, 650, 300, 110), "11": (1330, 60, 300, 350), "12": (1330, 480, 300, 60),
    "13": (1330, 600, 300, 250), "14": (990, 1000, 300, 60), "15": (990, 1120, 300, 380),
    "16": (1330, 1000, 300, 500), "17": (1760, 60, 320, 330), "18": (2130, 60, 280, 300),
    "19": (2130, 430, 280, 420), "20": (2460, 60, 820, 720), "21": (2460, 840, 820, 330),
}  # fmt: skip
"""Node id -> x, y, width, height."""

GROUPS = [
    ("1  What there is: model and evidence", -70, -30, 1000, 840, "#3f789e"),
    ("2  Stock nodes draw whole faces from it", 970, -30, 690, 900, "#88aa88"),
    ("3  Search with the evidence alone", 970, 910, 690, 620, "#b58b2a"),
    ("4  The case: part by part, until the list is stable", 1730, -30, 1580, 1230, "#a1309b"),
]

NOTES = [
    (
        "Read me", -40, 860, 940, 230,
        "# IdentiFace, embedded model\n\nA blurred photo, a rough sketch and a few words become faces and a list of "
        "candidates. Nothing to download; about a minute on a CPU.\n\n**Your own case**: put *Load Image* in place of "
        "the photo and the drawing of *Example Case*, and *Description* in place of its words. Any of the three may be "
        "missing. **Your own gallery**: *Enrol Faces* in place of *Open Gallery*.",
    ),
    (
        "What the result means", -40, 1150, 940, 170,
        "Everybody here is synthetic: the people of the gallery do not exist. A candidate is **an investigative lead, "
        "not an identification**. FPIR is the share of searches, for people who are not in a gallery of this size, that "
        "reach this score by chance. Generated faces are plausible faces, not photographs.",
    ),
    (
        "Rounds", 1760, 440, 320, 250,
        "*Iterate* unfolds into one **Part Round** per part that the words speak of. Each draws several faces, the "
        "evidence chooses one, the better of old and new stays.\n\nTo choose yourself, use *Part Round* with `pick` in "
        "its place.",
    ),
]  # fmt: skip

BUILD = """(async () => {
  const api = %s, places = %s, groups = %s, notes = %s;
  app.graph.clear();
  await app.loadApiJson(api, 'workflow');
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


async def draw(server: Server, page: Page) -> None:
    api = shipped(NAME)
    await page.call("Page.enable")
    await page.call("Page.navigate", url=server.url)
    while not await page.run(READY):
        await asyncio.sleep(0.5)
    await asyncio.sleep(2)
    parts = (json.dumps(one) for one in (api, PLACES, GROUPS, NOTES))
    graph = json.loads(await page.run(BUILD % tuple(parts)))
    graph["extra"] = {"ds": {"scale": 0.5, "offset": [120, 120]}}

    await page.run(f"app.loadGraphData({json.dumps(graph)})")
    await asyncio.sleep(2)
    back = json.loads(await page.run("(async () => JSON.stringify((await app.graphToPrompt()).output))()"))
    for name, one in api.items():
        for label, value in one["inputs"].items():
            assert back[name]["inputs"].get(label) == value, (name, label, value, back[name]["inputs"])

    await page.run("app.queuePrompt(0)")
    while not server.get("/history"):
        await asyncio.sleep(1)
    outcome = next(iter(server.get("/history").values()))["status"]
    assert outcome["status_str"] == "success", outcome
    await asyncio.sleep(3)
    await page.run(FIT % json.dumps(VIEW))
    await asyncio.sleep(3)
    shot = await page.call("Page.captureScreenshot", format="png")
    picture = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB").crop(CROP)
    picture.thumbnail((2000, 2000))
    picture.save(PACK / "workflows" / f"{NAME}.jpg", quality=85)
    (PACK / "workflows" / f"{NAME}.json").write_text(json.dumps(graph, indent=1) + "\n")


async def main() -> None:
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
                await draw(server, Page(socket))
        finally:
            process.terminate()
            process.wait()
    print(Path("workflows") / f"{NAME}.json")


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
    asyncio.run(main())
