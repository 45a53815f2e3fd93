"""Tree read-ahead on recorded programs: what they still wait for, and what was fetched in vain.

Each program was recorded on the trees of the benchmark (800 files, 80 directories, 12 levels);
one thing after the other, at two round trips each, they wait for 160 to 2,000.  A chain of
twelve listings alone takes 25.
"""

from __future__ import annotations

import pytest

from tests.harness.traces import PROGRAMS
from tests.unit.client.traces import PLACE, Figures, replayed
from tests.unit.client.walks import RTT_S

BOUNDS = {
    # program: round trips waited for, listings, files fetched
    "find": (27, 80, 0),
    "du": (27, 80, 0),
    "ls-R": (28, 80, 0),
    "grep": (24, 200, 800),  # twice, with a pause: the second time every directory is looked at
    "cp": (24, 84, 800),
    "tar": (22, 84, 800),
    "index": (22, 84, 800),
    "rsync": (42, 84, 800),
    "git-status": (68, 176, 815),  # twice; most is for the files of .git, each after the other
    "rm": (20, 84, 0),
    "import": (20, 4, 301),
    "make": (60, 4, 40),
    "grep-cp": (24, 200, 800),
    "cp-grep": (30, 240, 800),
    "find-grep": (42, 200, 800),
}
"""What is reached now, and some room: whoever changes a rule sees what it costs."""


@pytest.mark.parametrize("name", BOUNDS)
def test_a_program_waits_for_little(name):
    figures = replayed(name)
    trips, listings, files = BOUNDS[name]
    assert figures.trips <= trips
    assert figures.listings <= listings
    assert figures.files <= files
    assert figures.waste <= 0.2


TRIPS_AFAR = {
    # at 100 ms, and at 200 ms
    "find": (27, 27),
    "du": (27, 27),
    "ls-R": (29, 29),
    "grep": (40, 45),
    "cp": (42, 47),
    "tar": (34, 36),
    "index": (34, 36),
    "rsync": (48, 48),
    "git-status": (110, 120),
    "rm": (28, 28),
    "import": (24, 27),
    "make": (66, 66),
    "grep-cp": (42, 48),
    "cp-grep": (52, 54),
    "find-grep": (56, 58),
}
"""Round trips waited for over a long line: more than over a short one, because windows open with
each answer, and attributes are too old after few of them."""


@pytest.mark.parametrize("name", TRIPS_AFAR)
def test_a_long_line_takes_few_round_trips_more(name):
    at_100_ms, at_200_ms = TRIPS_AFAR[name]
    assert replayed(name, rtt_s=0.1).trips <= at_100_ms
    assert replayed(name, rtt_s=0.2).trips <= at_200_ms


@pytest.mark.parametrize("rtt_s", [0.005, 0.1, 0.2])
@pytest.mark.parametrize("name", PROGRAMS)
def test_little_is_fetched_in_vain_whatever_the_line(name, rtt_s):
    assert replayed(name, rtt_s=rtt_s).waste <= 0.2


@pytest.mark.parametrize("rtt_s", [RTT_S, 0.1, 0.2])
@pytest.mark.parametrize("name", ["ls", "ls-l"])
def test_a_single_ls_has_nothing_fetched(name, rtt_s):
    figures = replayed(name, rtt_s=rtt_s)
    assert figures == Figures(
        trips=3.0,
        waits=2,
        listings=1,
        lookups=1,
        files=0,
        bytes=figures.bytes,
        unused=0,
    )


def test_every_program_is_there():
    recorded = {path.name.removesuffix(".gz") for path in PLACE.glob("*.gz")} - {"tree.json"}
    assert recorded == set(PROGRAMS) == BOUNDS.keys() | {"ls", "ls-l"}
