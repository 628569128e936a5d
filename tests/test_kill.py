"""Killed, stopped and started twice: every item ends as exactly one record, and no answer is paid for without need.

Only the outside is used: the command as a process, signals, the record files and the provider's ledger. `KILLS` and
`ROUNDS` in the environment set how often the long tests (`-m long`) kill and start.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import write_lines
from kills import CONCURRENCY, FAULTS, Account, Job, Provider, audit, contents, kill_and_resume, until, verified

#: Paid calls wasted by a kill on average, and what the average of a few dozen kills may scatter to.
AVERAGE_WASTE = 0.6
AVERAGE_WASTE_OF_FEW = 1.0
LONG_S = 3600


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[Callable[..., Provider]]:
    """Start simulated providers; they and the commands that use them are gone at the end."""
    with ExitStack() as stack:
        yield lambda *arguments, **faults: stack.enter_context(Provider(tmp_path, *arguments, faults))


def assert_exact(job: Job, *, paid_more: int = 0) -> None:
    """Every item has its one whole record, and the provider's answers are on disk but for so many."""
    stand = job.audit()
    assert (stand.missing, stand.wrong, stand.torn) == ([], [], [])
    assert verified(job.rundir)
    assert sum(answer.status == 200 for answer in job.provider.answers()) <= stand.paid + paid_more


# --- the auditor itself: what it is there to find, it finds -----------------------------------------------------

GOOD = {"id": "a", "provider": {"status": 200}}
FAILED = {"id": "b", "error": {"http_status": 400}}


@pytest.mark.parametrize(
    ("results", "failures", "found"),
    [
        ([GOOD], [FAILED], {}),
        ([GOOD], [], {"missing": ["b"]}),
        ([GOOD, GOOD], [FAILED], {"doubled": ["a"]}),
        ([GOOD], [FAILED, FAILED], {"doubled": ["b"]}),
        ([GOOD, {**GOOD, "id": "b"}], [FAILED], {"both": ["b"]}),
        ([b'{"id": "a"', GOOD], [FAILED], {"damaged": ["results.jsonl:1: no record of this job"]}),
        ([GOOD, {**GOOD, "id": "c"}], [FAILED], {"damaged": ["results.jsonl:2: no record of this job"]}),
        ([GOOD], [FAILED, b""], {"damaged": ["failures.jsonl:2: no record of this job"]}),
    ],
)
def test_the_auditor_finds_what_is_lost_doubled_in_both_files_or_damaged(tmp_path, results, failures, found):
    source = write_lines(tmp_path / "input", {"id": "a"}, {"id": "b"})
    write_lines(tmp_path / "results.jsonl", *results)
    write_lines(tmp_path / "failures.jsonl", *failures)
    stand = audit(source, tmp_path)
    for what in ("missing", "doubled", "both", "damaged", "torn"):
        assert getattr(stand, what) == found.get(what, [])


def test_the_auditor_tells_a_torn_last_line_and_a_line_that_vanished(tmp_path):
    source = write_lines(tmp_path / "input", {"id": "a"}, {"id": "b"})
    write_lines(tmp_path / "results.jsonl", GOOD)
    write_lines(tmp_path / "failures.jsonl", FAILED)
    before = audit(source, tmp_path)
    assert before.vanished(before) == []
    for name in ("results.jsonl", "failures.jsonl"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[:-1])
        after = audit(source, tmp_path)
        assert after.torn == [name]
        assert name in "".join(after.vanished(before))
        (tmp_path / name).write_bytes(whole)


# --- SIGKILL at random moments ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def account(tmp_path_factory) -> Account:
    """Kill a few dozen times; several tests look at what it came to."""
    account = kill_and_resume(tmp_path_factory.mktemp("kills"), 40, seed=1)
    print(account)
    return account


def test_nothing_is_lost_doubled_or_torn_by_kills_at_random_moments(account):
    assert account.is_exact, str(account)
    assert account.kills == 40


def test_the_kills_fell_into_every_part_of_a_life(account):
    assert account.kills_before_a_call, str(account)
    assert len(account.wasted_sending) >= 8, str(account)
    assert account.failing, str(account)


def test_a_kill_wastes_few_calls_and_never_more_than_were_in_flight(account):
    assert account.average <= AVERAGE_WASTE_OF_FEW, str(account)
    assert account.worst <= account.concurrency, str(account)


@pytest.mark.long
@pytest.mark.timeout(LONG_S)
def test_a_thousand_kills_lose_double_and_tear_nothing(tmp_path, capsys):
    kills = int(os.environ.get("KILLS", "1000"))
    account = kill_and_resume(tmp_path, kills, seed=int(os.environ.get("SEED", "1")))
    with capsys.disabled():
        print(f"\n{account}")
    assert account.is_exact, str(account)
    assert account.kills == kills
    assert account.average <= AVERAGE_WASTE, str(account)
    assert account.worst <= account.concurrency, str(account)


def test_failures_written_between_kills_stay_and_are_not_asked_again(tmp_path):
    faults = {"content_filter_400": 0.25, "bad_request": 0.15, "length": 0.15, "http_503": 0.1}
    account = kill_and_resume(tmp_path, 12, seed=2, faults=faults)
    assert account.is_exact, str(account)
    assert account.failing >= 3, str(account)


def test_twenty_kills_within_the_first_second_leave_no_litter_and_do_not_stop_the_progress(provider):
    server = provider("100ms", http_503=0.05, content_filter_400=0.1)
    undisturbed = Job(server, "undisturbed", items=4)
    assert undisturbed.run() in (0, 3)
    job = Job(server, "killed", items=240)
    chance, stand, counts = random.Random(3), job.audit(), []
    for _ in range(20):
        process = job.start()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0, 1))
        process.kill()
        process.wait()
        before, stand = stand, job.audit()
        assert (stand.wrong, stand.vanished(before)) == ([], [])
        assert verified(job.rundir)
        counts.append(len(contents(job.rundir)))
    assert max(counts) <= len(contents(undisturbed.rundir)) + 3  # lock, journal, a file about to replace another
    assert stand.finished, "no progress in 20 starts"
    assert job.run() == 3
    server.settle()
    assert_exact(job, paid_more=20 * CONCURRENCY)
    assert contents(job.rundir).keys() == contents(undisturbed.rundir).keys()


# --- signals that may be handled --------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["term", "int"])
def test_a_signal_lets_the_calls_in_flight_end_and_wastes_none(provider, number, code):
    server = provider("100ms", **FAULTS)
    job = Job(server, "stopped")
    process = job.start()
    until(lambda: job.audit().results)
    until(lambda: server.stats()["in_flight"])
    process.send_signal(number)
    assert process.wait(20) == code
    stats, answers, stand = server.settle(), server.answers(), job.audit()
    assert stats["calls"] == stats["answered"] == len(answers)  # nothing was cut off
    assert sum(answer.status == 200 for answer in answers) == stand.paid
    assert {answer.id for answer in answers if answer.status != 503} == stand.finished
    assert 0 < len(stand.finished) < job.items
    assert (stand.wrong, stand.torn, verified(job.rundir)) == ([], [], True)
    assert job.run() in (0, 3)
    assert job.audit().vanished(stand) == []
    assert {answer.id for answer in server.answers()}.isdisjoint(stand.finished)
    assert (job.audit().missing, job.audit().wrong, job.audit().torn) == ([], [], [])


def test_a_second_interrupt_ends_hanging_calls_at_once_and_what_is_written_is_whole(provider):
    server = provider("20ms", hang=0.2)
    job = Job(server, "hanging")
    process = job.start()
    until(lambda: server.stats()["by_fault"].get("hang") == CONCURRENCY)
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)  # the first one lets them hang on
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert time.monotonic() - began < 3
    stand = job.audit()
    assert (stand.wrong, stand.torn, verified(job.rundir)) == ([], [], True)
    assert 0 < len(stand.finished) < job.items
    assert {answer.id for answer in server.answers()} == stand.finished


# --- several starts at once -------------------------------------------------------------------------------------


def ends(processes: list[subprocess.Popen[bytes]]) -> list[tuple[int, float]]:
    """Wait for all; give the exit code of each and when it ended, the first to end first."""
    ended: dict[int, tuple[int, float]] = {}

    def all_ended() -> bool:
        for process in processes:
            if process.pid not in ended and process.poll() is not None:
                ended[process.pid] = (process.returncode, time.monotonic())
        return len(ended) == len(processes)

    until(all_ended, 60)
    return list(ended.values())


def test_after_a_crash_one_of_two_restarts_works_and_the_other_is_locked_out(provider):
    job = Job(provider("100ms"), "crashed", items=60)
    process = job.start()
    until(lambda: job.audit().results)
    process.kill()
    process.wait()
    assert [code for code, _ in ends([job.start(), job.start()])] == [75, 0]
    assert_exact(job, paid_more=CONCURRENCY)


def three_at_once(server: Provider, name: str) -> float:
    """Start three at once on one run directory; give how long the slower of the two losers took to say so."""
    job = Job(server, name, items=12)
    began = time.monotonic()
    ended = ends([job.start(), job.start(), job.start()])
    assert [code for code, _ in ended] == [75, 75, 0], job.log.read_text()
    assert_exact(job)
    return ended[1][1] - began


def rounds_of_three(server: Provider, rounds: int) -> None:
    took = [three_at_once(server, f"round-{number}") for number in range(rounds)]
    median, most = statistics.median(took), max(took)
    print(f"\n{rounds} rounds of three starts: the losers were out after {median:.2f} s, at most {most:.2f} s")
    assert median < 4
    assert most < 10


def test_of_three_starts_at_once_exactly_one_works(provider):
    rounds_of_three(provider("200ms"), 10)


@pytest.mark.long
@pytest.mark.timeout(LONG_S)
def test_of_three_starts_at_once_exactly_one_works_a_hundred_times(provider, capsys):
    with capsys.disabled():
        rounds_of_three(provider("200ms"), int(os.environ.get("ROUNDS", "100")))
