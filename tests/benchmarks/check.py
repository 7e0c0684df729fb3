"""Before anything is timed: what was sent is what is served, byte for byte, and both find the same."""

from __future__ import annotations

import hashlib
import json

from benchmarks.clients import ClientFailed, Target
from benchmarks.data import DataSet, uid_of_run
from negatoscope.dicom.part10 import read_file_meta

PARTS = 'multipart/related; type="application/dicom"; transfer-syntax=*'


def served(target: Target, data: DataSet, run: int) -> str:
    """Retrieve every object of ``run`` by WADO-RS series and compare its data set; how many were the same."""
    expected = {
        sending.sop: hashlib.sha256(b"".join(sending.data_set_pieces())).digest() for sending in data.sendings(run)
    }
    same = 0
    for study, series in sorted({(item.study, item.series) for item in data.items}):
        path = f"/studies/{uid_of_run(study, run)}/series/{uid_of_run(series, run)}"
        reply = target.open().get(target.root + path, PARTS, keep=True)
        if reply.status != 200:
            raise ClientFailed(f"{path}: status {reply.status}")
        boundary = reply.headers["content-type"].split("boundary=")[1].split(";")[0].strip('"').encode()
        for part in reply.body.split(b"--" + boundary)[1:-1]:
            file = part[part.index(b"\r\n\r\n") + 4 :].removesuffix(b"\r\n")
            meta, data_set = read_file_meta(file[:4096])
            digest = expected.pop(meta.sop_instance_uid, None)
            if digest is None:
                raise ClientFailed("an object was served that was not sent")
            same += hashlib.sha256(file[data_set:]).digest() == digest
    if expected:
        raise ClientFailed(f"{len(expected)} of {len(data.items)} objects were not served")
    return f"{same} of {len(data.items)} byte for byte"


def matches(target: Target, query: str) -> int:
    """How many studies a QIDO-RS query finds."""
    reply = target.open().get(f"{target.root}/studies?{query}", "application/dicom+json", keep=True)
    return len(json.loads(reply.body)) if reply.status == 200 else 0
