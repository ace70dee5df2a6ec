"""Are the pictures in the documentation those that the simulator draws, and do they show what is said of them?"""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from tests.pictures import FOLDER, PICTURES, SHED, run
from threadpool_db.picture import STYLE


@pytest.mark.parametrize("name", PICTURES)
def test_the_committed_picture_is_what_is_drawn_now(name: str) -> None:
    drawn = PICTURES[name]()
    assert (FOLDER / name).read_text(encoding="utf-8") == drawn, "python -m tests.pictures draws them anew"


def test_every_picture_is_in_a_document_and_every_document_has_its_pictures() -> None:
    shown = set()
    for document in FOLDER.parent.glob("*.md"):
        shown |= set(re.findall(r"\]\(pictures/([\w-]+\.svg)\)", document.read_text()))
    assert shown == {file.name for file in FOLDER.iterdir()}


@pytest.mark.parametrize("file", sorted(FOLDER.iterdir()), ids=lambda file: file.name)
def test_a_picture_is_well_formed_and_can_be_seen_on_a_dark_page(file) -> None:
    text = file.read_text()
    assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    assert STYLE in text


def test_shedding_serves_all_of_a_burst_that_a_short_deadline_refuses() -> None:
    load = {"rate": 200, "burst": 150, "burst_at": 2, "duration": 6}
    short, shed = run("", timeout=0.1, **load), run("", timeout=1, **load, **SHED)
    assert short.outcome.many("late") == 110, "docs/load.md says so"
    assert short.outcome.waits()[-1] <= 0.1
    assert shed.outcome.many("served") == len(shed.outcome.came) and shed.outcome.waits()[-1] < 0.6
