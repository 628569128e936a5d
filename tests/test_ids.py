"""The index of ids: it behaves as a dict from id to first line does, in a fraction of the memory."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from batchrun.ids import IdIndex, digest

ANY_TEXT = st.text(st.characters())  # surrogates and NUL included
ADDITIONS = st.lists(st.tuples(ANY_TEXT | st.sampled_from(["1", "01", "", "a", "A"]), st.integers(0, 2**40 - 1)))


@given(ADDITIONS)
def test_the_index_gives_what_a_dict_of_first_lines_gives(additions):
    index, expected = IdIndex(), {}
    for item_id, line in additions:
        assert index.add(digest(item_id), line) == expected.get(item_id)
        expected.setdefault(item_id, line)
        assert len(index) == len(expected)
    assert {item_id: index.get(digest(item_id)) for item_id in expected} == expected


@given(ADDITIONS, ANY_TEXT)
def test_an_id_that_was_not_added_is_not_in_the_index(additions, other):
    index = IdIndex()
    for item_id, line in additions:
        index.add(digest(item_id), line)
    assert (index.get(digest(other)) is not None) == (other in {item_id for item_id, _ in additions})


@given(ADDITIONS)
def test_what_is_put_last_is_what_the_index_gives(additions):
    index, expected = IdIndex(), {}
    for item_id, line in additions:
        assert index.put(digest(item_id), line) == expected.get(item_id)
        expected[item_id] = line
    assert {item_id: index.get(digest(item_id)) for item_id in expected} == expected
    assert len(index) == len(expected)


MILLION = """
from pathlib import Path
from batchrun.ids import IdIndex, digest

def resident():
    return 4096 * int(Path("/proc/self/statm").read_text().split()[1])

before = resident()
index = IdIndex()
for number in range(1_000_000):
    index.add(digest(f"request-{number:012}"), number)
print(resident() - before)
assert len(index) == 1_000_000
for number in range(0, 1_000_000, 97):
    assert index.add(digest(f"request-{number:012}"), 0) == number
    assert index.get(digest(f"request-{number}")) is None
"""


def test_a_million_ids_take_less_than_40_bytes_each_and_all_are_found():
    process = subprocess.run([sys.executable, "-c", MILLION], capture_output=True, text=True, check=False)
    assert process.stderr == ""
    assert 0 < int(process.stdout) < 40 * 1_000_000
