"""npm dcmjs-dimse as a workstation: a stack that shares no code with the others."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.data import get_testdata_file

from dimse_archive import READER, TITLE, Archive, archive
from negatoscope.db import EmbeddedPostgreSQL

MODULES = Path(os.environ.get("NEGATOSCOPE_NODE_MODULES", Path(__file__).parents[2] / "node_modules"))
pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not (MODULES / "dcmjs-dimse").exists(),
    reason="npm dcmjs-dimse is not installed (tools/peers.py)",
)

SCRIPT = """
const { Client, requests, responses, constants } = require('dcmjs-dimse');
const [port, called, calling, kind, study] = process.argv.slice(1);
const client = new Client();
const heard = { statuses: [], found: [], stored: [] };
const request = kind === 'find'
  ? requests.CFindRequest.createStudyFindRequest({ StudyInstanceUID: study, PatientName: '', PatientID: '' })
  : requests.CGetRequest.createStudyGetRequest(study);
request.on('response', (response) => {
  heard.statuses.push(response.getStatus());
  if (response.hasDataset()) heard.found.push(response.getDataset().getElements());
});
client.on('cStoreRequest', (asked, callback) => {
  heard.stored.push(asked.getDataset().getElements().SOPInstanceUID);
  const response = responses.CStoreResponse.fromRequest(asked);
  response.setStatus(constants.Status.Success);
  callback(response);
});
client.on('networkError', (error) => { console.error(String(error)); process.exit(2); });
client.on('closed', () => { console.log(JSON.stringify(heard)); process.exit(0); });
client.addRequest(request);
client.send('127.0.0.1', Number(port), calling, called);
"""


@pytest.fixture(scope="module")
def here(postgresql: EmbeddedPostgreSQL) -> Iterator[Archive]:
    with archive(postgresql) as made:
        made.keep_file(str(get_testdata_file("CT_small.dcm")), StudyInstanceUID="2.25.41", SOPInstanceUID="2.25.41.1")
        yield made


def run(here: Archive, kind: str, study: str) -> dict[str, Any]:
    done = subprocess.run(
        ["node", "-e", SCRIPT, here.port, TITLE, READER, kind, study],
        env={**os.environ, "NODE_PATH": str(MODULES)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    heard: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return heard


def test_dcmjs_finds_a_study(here: Archive) -> None:
    heard = run(here, "find", "2.25.41")
    assert heard["statuses"][-1] == 0
    [study] = heard["found"]
    assert study["PatientID"] == "1CT1"
    assert study["StudyInstanceUID"] == "2.25.41"


def test_dcmjs_gets_a_study(here: Archive) -> None:
    heard = run(here, "get", "2.25.41")
    assert heard["statuses"][-1] == 0
    assert heard["stored"] == ["2.25.41.1"]
