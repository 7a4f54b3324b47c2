"""A real ComfyUI server on the CPU with this pack linked in: start it, queue graphs, follow its socket."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

PACK = Path(__file__).resolve().parents[2]
Graph = dict[str, dict[str, Any]]


def comfy_root() -> Path | None:
    """The ComfyUI checkout: COMFYUI_PATH when that is set, else ~/ComfyUI; None when there is none."""
    root = Path(os.environ.get("COMFYUI_PATH") or Path.home() / "ComfyUI").expanduser()
    return root if (root / "main.py").is_file() else None


def comfy_python(root: Path) -> str:
    """What can run it: IDENTIFACE_COMFY_PYTHON, ~/comfy-env, a venv in the checkout, else this one."""
    named = os.environ.get("IDENTIFACE_COMFY_PYTHON")
    if named:
        return named
    for home in (Path.home() / "comfy-env", root / ".venv", root / "venv"):
        for python in (home / "bin" / "python", home / "Scripts" / "python.exe"):
            if python.is_file():
                return str(python)
    return sys.executable


def why_not() -> str | None:
    """Why no server can be started here, or None when one can."""
    root = comfy_root()
    if root is None:
        return "no ComfyUI checkout: set COMFYUI_PATH, or put one at ~/ComfyUI"
    python = comfy_python(root)
    # Imported in ComfyUI's order and place, since a torchvision that does not load stops the server.
    probe = subprocess.run(
        [python, "-c", "import torch, torchvision, safetensors, aiohttp, yaml, diffusers, faiss"],
        capture_output=True,
        text=True,
        check=False,
    )
    if probe.returncode:
        last = (probe.stderr.strip().splitlines() or ["no message"])[-1]
        return f"{python} cannot run ComfyUI and this pack: {last} (set IDENTIFACE_COMFY_PYTHON)"
    return None


@dataclass
class Run:
    """What one queued graph did, by node id; expanded children appear under their own ids."""

    status: str = ""
    ran: list[str] = field(default_factory=list)
    cached: list[str] = field(default_factory=list)
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    error: dict[str, Any] = field(default_factory=dict)
    previews: int = 0
    seconds: float = 0.0

    @property
    def message(self) -> str:
        return str(self.error.get("exception_message", "")).strip()


class Rejected(Exception):
    """The server refused a graph; `errors` is its answer."""

    def __init__(self, errors: dict[str, Any]) -> None:
        super().__init__(json.dumps(errors)[:2000])
        self.errors = errors


class Server:
    """One ComfyUI process with its own folders; `with Server() as server:`."""

    def __init__(self, extra_packs: dict[str, Path] | None = None) -> None:
        root = comfy_root()
        assert root is not None
        self.root = root
        self._folder = tempfile.TemporaryDirectory(prefix="identiface-host-")
        self.base = Path(self._folder.name)
        for name in ("custom_nodes", "input", "output", "user", "models", "temp"):
            (self.base / name).mkdir()
        for name, folder in {"identiface": PACK, **(extra_packs or {})}.items():
            (self.base / "custom_nodes" / name).symlink_to(folder, target_is_directory=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = self.base / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, seconds: float = 600.0) -> None:
        command = [
            comfy_python(self.root),
            "main.py",
            "--cpu",
            "--listen",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--disable-auto-launch",
            "--disable-api-nodes",
            "--base-directory",
            str(self.base),
            "--database-url",
            f"sqlite:///{self.base / 'user' / 'comfyui.db'}",
            "--preview-method",
            "latent2rgb",
        ]
        # One thread: on shared cores more threads only wait for each other. Nothing may be fetched.
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
            "HF_HUB_OFFLINE": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        environment.pop("PYTHONPATH", None)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.root,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"ComfyUI stopped while starting:\n{self.tail()}")
            try:
                self.get("/system_stats", timeout=5)
                return
            except (OSError, ValueError):
                time.sleep(0.5)
        log = self.tail()
        self.stop()
        raise RuntimeError(f"ComfyUI did not answer within {seconds:.0f} s:\n{log}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        self._folder.cleanup()

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    def resident(self) -> float:
        """MiB of memory that the server holds; the test is skipped where /proc does not tell."""
        status = Path(f"/proc/{self.pid}/status")
        if not status.exists():
            pytest.skip("resident memory is read from /proc")
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    def tail(self, lines: int = 60) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def fetch(self, path: str, timeout: float = 60) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=timeout) as answer:
            return bytes(answer.read())

    def get(self, path: str, timeout: float = 60) -> Any:
        return json.loads(self.fetch(path, timeout))

    def post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self.url + path,
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise Rejected(json.loads(error.read() or b"{}")) from error
        return json.loads(text) if text else {}

    def run(self, graph: Graph, *, seconds: float = 900.0, interrupt: bool = False) -> Run:
        """Queue `graph` and follow it to its end; `interrupt`: stop it at its first step."""
        return asyncio.run(self._run(graph, seconds, interrupt))

    async def _run(self, graph: Graph, seconds: float, interrupt: bool) -> Run:
        client, run, begun = uuid.uuid4().hex, Run(), time.monotonic()
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(
                f"{self.url}/ws?clientId={client}",
                max_msg_size=0,
            ) as ws,
        ):
            queued = await asyncio.to_thread(self.post, "/prompt", {"prompt": graph, "client_id": client})
            prompt = queued["prompt_id"]
            while not run.status:
                left = begun + seconds - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"the graph did not end within {seconds:.0f} s:\n{self.tail()}")
                message = await ws.receive(timeout=left)
                if message.type is aiohttp.WSMsgType.BINARY:
                    run.previews += 1
                elif message.type is aiohttp.WSMsgType.TEXT:
                    event = json.loads(message.data)
                    if event.get("data", {}).get("prompt_id", prompt) == prompt:
                        _note(run, event["type"], event.get("data", {}))
                        if interrupt and event["type"] == "progress":
                            await asyncio.to_thread(self.post, "/interrupt", {})
                            interrupt = False
                else:
                    raise RuntimeError(f"the web socket closed early ({message.type}):\n{self.tail()}")
        run.seconds = time.monotonic() - begun
        return run

    def queue_empties(self, seconds: float = 60.0) -> bool:
        """Whether nothing is queued or running any more, soon; the host tells of an end before it clears the queue."""
        deadline = time.monotonic() + seconds
        while any(self.get("/queue").values()):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def image(self, reference: dict[str, str]) -> bytes:
        """The bytes of an image named by a node's ui output."""
        query = "&".join(
            f"{key}={urllib.request.quote(reference[key])}" for key in ("filename", "subfolder", "type")
        )
        return self.fetch(f"/view?{query}")


def _note(run: Run, kind: str, data: dict[str, Any]) -> None:
    if kind == "executing" and data.get("node"):
        run.ran.append(data["node"])
    elif kind == "execution_cached":
        run.cached.extend(data.get("nodes", []))
    elif kind == "executed":
        run.outputs[data["node"]] = data.get("output") or {}
    elif kind in ("execution_success", "execution_error", "execution_interrupted"):
        run.status = kind.removeprefix("execution_")
        run.error = data if kind == "execution_error" else {}
