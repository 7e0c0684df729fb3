"""npm dcmjs-dimse as sender: a stack that shares no code with the others."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dimse_fakes import TITLE, door
from dimse_peers import read_back, sample

MODULES = Path(os.environ.get("NEGATOSCOPE_NODE_MODULES", Path(__file__).parents[2] / "node_modules"))
pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not (MODULES / "dcmjs-dimse").exists(),
    reason="npm dcmjs-dimse is not installed (tools/peers.py)",
)

SCRIPT = """
const { Client, requests } = require('dcmjs-dimse');
const [port, called, file] = process.argv.slice(1);
const client = new Client();
const answers = [];
for (const request of [new requests.CEchoRequest(), new requests.CStoreRequest(file)]) {
  request.on('response', (response) => answers.push(response.getStatus()));
  client.addRequest(request);
}
client.on('networkError', (error) => { console.error(String(error)); process.exit(2); });
client.on('associationRejected', (result) => { console.log(JSON.stringify({ rejected: result })); });
client.on('closed', () => { console.log(JSON.stringify({ answers })); process.exit(0); });
client.send('127.0.0.1', Number(port), 'CT_A', called);
"""


def run(port: str, called: str) -> list[dict[str, object]]:
    done = subprocess.run(
        ["node", "-e", SCRIPT, port, called, str(sample("CT_small.dcm"))],
        env={**os.environ, "NODE_PATH": str(MODULES)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_dcmjs_echoes_and_stores() -> None:
    with door() as here:
        said = run(here.port, TITLE)
    assert said[-1] == {"answers": [0, 0]}
    [kept] = here.receiver.kept
    assert len(read_back(kept).PixelData) == 128 * 128 * 2


def test_dcmjs_understands_a_rejection() -> None:
    with door() as here:
        said = run(here.port, "OTHER")
    assert said[0] == {"rejected": {"result": 1, "source": 1, "reason": 7}}
    assert here.receiver.kept == []
