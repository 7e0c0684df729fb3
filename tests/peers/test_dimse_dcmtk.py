"""DCMTK's tools as senders."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dimse_fakes import CT, TITLE, MemoryReceiver, actor, door
from dimse_peers import same, sample
from negatoscope.errors import OutOfResources
from negatoscope.model.actor import Right

ECHOSCU, STORESCU, DCMSEND = (Path("/usr/bin") / name for name in ("echoscu", "storescu", "dcmsend"))
pytestmark = pytest.mark.skipif(not STORESCU.exists(), reason="DCMTK is not installed (apt install dcmtk)")
IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"


def run(tool: Path, port: str, *arguments: str | Path, title: str = TITLE) -> subprocess.CompletedProcess[str]:
    command = [str(tool), "-v", "-aet", "CT_A", "-aec", title, "127.0.0.1", port, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, errors="replace")


@pytest.mark.parametrize(
    "options",
    [[], ["-ppc", "128"], ["-pts", "38"], ["--repeat", "20"], ["--abort"], ["-pdu", "4096"], ["-pdu", "131072"]],
)
def test_echoscu_is_answered(options: list[str]) -> None:
    with door() as here:
        done = run(ECHOSCU, here.port, *options)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("file", "options", "syntax"),
    [
        ("CT_small.dcm", [], EXPLICIT),
        ("CT_small.dcm", ["-pdu", "4096", "--max-send-pdu", "4096"], EXPLICIT),
        ("CT_small.dcm", ["-pdu", "131072", "--max-send-pdu", "131072"], EXPLICIT),
        ("CT_small.dcm", ["-R", "+C"], EXPLICIT),
        ("MR_small_implicit.dcm", ["-xi"], IMPLICIT),
        ("MR_small_bigendian.dcm", ["-xb"], BIG),
        ("SC_rgb_jpeg_gdcm.dcm", ["-xs"], "1.2.840.10008.1.2.4.70"),
        ("SC_rgb_dcmtk_+eb+cr.dcm", ["-xy"], "1.2.840.10008.1.2.4.50"),
        ("JPGExtended.dcm", ["-xx"], "1.2.840.10008.1.2.4.51"),
        ("MR_small_jp2klossless.dcm", ["-xv"], "1.2.840.10008.1.2.4.90"),
        ("JPEG2000.dcm", ["-xw"], "1.2.840.10008.1.2.4.91"),
        ("MR_small_jpeg_ls_lossless.dcm", ["-xt"], "1.2.840.10008.1.2.4.80"),
        ("JPEGLSNearLossless_16.dcm", ["-xu"], "1.2.840.10008.1.2.4.81"),
        ("MR_small_RLE.dcm", ["-xr"], "1.2.840.10008.1.2.5"),
        ("image_dfl.dcm", ["-xd"], "1.2.840.10008.1.2.1.99"),
    ],
)
def test_storescu_sends_every_transfer_syntax_as_it_is(file: str, options: list[str], syntax: str) -> None:
    with door() as here:
        done = run(STORESCU, here.port, *options, sample(file))
        assert done.returncode == 0, done.stderr
    [kept] = here.receiver.kept
    assert kept.announced.transfer_syntax_uid == syntax
    assert same(kept, sample(file))


MIXED = ["CT_small.dcm", "MR_small.dcm", "rtplan.dcm", "MR_small_RLE.dcm", "JPEG2000.dcm", "MR_small_implicit.dcm"]


@pytest.mark.parametrize("options", [["+ma"], ["-ma"], ["--decompress-never", "--max-send-pdu", "4096"]])
def test_dcmsend_sends_a_mixed_set(options: list[str]) -> None:
    """-ma: one association however many contexts it takes; +ma: as many associations as needed."""
    files = [sample(name) for name in MIXED]
    with door() as here:
        done = run(DCMSEND, here.port, "--no-uid-checks", *options, *files)
        assert done.returncode == 0, done.stderr
    assert {kept.announced.sop_class_uid for kept in here.receiver.kept} >= {CT}
    assert len(here.receiver.kept) == len(files)


def test_a_stranger_and_a_wrong_title_are_rejected_in_dcmtk_s_words() -> None:
    with door(authenticate=lambda title: None) as here:
        assert "Calling AE Title Not Recognized" in run(ECHOSCU, here.port).stderr
        assert "Called AE Title Not Recognized" in run(ECHOSCU, here.port, title="OTHER").stderr


def test_storescu_without_the_right_gets_no_context() -> None:
    with door(authenticate=lambda title: actor(Right.QUERY)) as here:
        done = run(STORESCU, here.port, sample("CT_small.dcm"))
    assert "No Acceptable Presentation Contexts" in done.stderr
    assert here.receiver.kept == []


def test_storescu_sees_the_status_of_a_refusal() -> None:
    def full(step: str, size: int) -> None:
        raise OutOfResources("the reserve is reached")

    with door(MemoryReceiver(full)) as here:
        done = run(STORESCU, here.port, "--no-halt", sample("CT_small.dcm"), sample("MR_small.dcm"))
    assert (done.stdout + done.stderr).count("Refused: OutOfResources") == 2


@pytest.mark.parametrize("options", [["-usr", "user", "-pwd", "secret"], ["-usr", "user", "-pwd", "secret", "-rsp"]])
def test_a_user_identity_reaches_the_policy_and_is_acknowledged_when_asked(options: list[str]) -> None:
    with door() as here:
        done = run(STORESCU, here.port, *options, sample("CT_small.dcm"))
        assert done.returncode == 0, done.stderr
    identity = here.asked[0][3]
    assert identity is not None
    assert (identity.kind, identity.primary, identity.secondary) == (2, b"user", b"secret")
    assert identity.positive_response is ("-rsp" in options)
    assert len(here.receiver.kept) == 1
