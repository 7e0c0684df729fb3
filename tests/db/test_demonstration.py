"""A demonstration is a folder of its own: its accounts without password never reach a real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from negatoscope.bootstrap import core
from negatoscope.demonstration import fill
from negatoscope.errors import PreconditionFailed
from negatoscope.settings import Settings
from negatoscope.sharing import COMMAND_LINE


def test_a_folder_with_real_establishments_never_becomes_a_demonstration(tmp_path: Path, database_url: str) -> None:
    with core(Settings(data=tmp_path), database_url, connections=4) as built:
        built.accounts.add_establishment("REAL", "Real", "2.25.42", by=COMMAND_LINE)
        with pytest.raises(PreconditionFailed):
            fill(built, lambda line: None)
        assert not built.accounts.is_demonstration()


def test_filling_twice_adds_nothing_the_second_time(tmp_path: Path, database_url: str) -> None:
    said: list[str] = []
    with core(Settings(data=tmp_path, reserve_bytes=0), database_url, connections=4) as built:
        fill(built, said.append)
        users = len(built.accounts.users(by=COMMAND_LINE))
        fill(built, said.append)
        assert len(built.accounts.users(by=COMMAND_LINE)) == users > 5
    assert "created" in said[-2] or "created" in "".join(said)
    assert "created" not in said[-1]
    assert "already-stored" in said[-1]
