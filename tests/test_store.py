from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from conftest import environment, records, write_lines
from scripted import Call, Script, Scripted, Wait, always, completion, http, ok

from batchrun import Endpoint, Job, Limits, Retry, Summary, run
from batchrun.ids import digest
from batchrun.store import RunDirectory, StoreError

FILES = ("results.jsonl", "failures.jsonl")


def answer(call: Call) -> list[bytes]:
    """Answer well, but for prompts that begin with an x."""
    return [http(400, {"error": {"message": "no"}}) if call.prompt.startswith("x") else ok()]


@pytest.fixture
def serve() -> Iterator[Callable[[Script], Scripted]]:
    with ExitStack() as stack:
        yield lambda script: stack.enter_context(Scripted(script))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def items(tmp_path: Path, good: int = 2, bad: int = 2) -> Path:
    names = [f"a{n}" for n in range(good)] + [f"x{n}" for n in range(bad)]
    return write_lines(tmp_path / "in.jsonl", *({"id": name, "prompt": name} for name in names))


def go(server: Scripted, path: Path, out: Path) -> Summary:
    endpoint = Endpoint(server.base_url, "m-1")
    return run(
        Job((str(path),), out, endpoint=endpoint, limits=Limits(1), retry=Retry(wait_initial=0.01, wait_max=0.01))
    )


def command(server: Scripted, path: Path, out: Path, *flags: object) -> list[str]:
    return ["run", "-i", str(path), "-o", str(out), "--base-url", server.base_url, "-m", "m-1", *map(str, flags)]


def ids(out: Path) -> list[list[str]]:
    return [sorted(record["id"] for record in records(out / name)) for name in FILES]


ALL = [["a0", "a1"], ["x0", "x1"]]

# --- torn tails -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_a_last_line_torn_at_any_byte_is_cut_off(name: str, tmp_path: Path, out: Path, serve: Any) -> None:
    go(serve(answer), items(tmp_path), out)
    path = out / name
    whole = path.read_bytes()
    before, last = whole.splitlines(keepends=True)
    lost = digest(json.loads(last)["id"])
    for length in range(len(last)):
        path.write_bytes(before + last[:length])
        folder = RunDirectory(out)
        finished = folder.index.find(lost) != 0
        counts = (folder.results, folder.failures)
        folder.close()
        assert not finished, f"torn after {length} bytes"
        assert sorted(counts) == [1, 2]
        assert path.read_bytes() == before


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [0, 1, 0.3, 0.7, -2, -1])
def test_the_item_of_a_torn_line_runs_once_more(keep: float, name: str, tmp_path: Path, out: Path, serve: Any) -> None:
    source = items(tmp_path)
    go(serve(answer), source, out)
    path = out / name
    before, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(before + last[: int(len(last) * keep) if 0 < keep < 1 else int(keep)])
    server = serve(answer)
    summary = go(server, source, out)
    assert [call.prompt for call in server.calls] == [json.loads(last)["id"]]
    assert ids(out) == ALL
    assert path.read_bytes().startswith(before)
    assert (summary.results, summary.failures, summary.pending) == (2, 2, 0)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "tail", [b"\0" * 4096, b"junk\n", b"junk", b'{"id": 5}\n', b"{}\n", b"[]\n", b"\n", b"\xff\xfe", b'{"id":"a9"']
)
def test_a_tail_that_is_no_record_is_cut_off(tail: bytes, name: str, tmp_path: Path, out: Path, serve: Any) -> None:
    source = items(tmp_path)
    go(serve(answer), source, out)
    whole = (out / name).read_bytes()
    (out / name).write_bytes(whole + tail)
    server = serve(answer)
    go(server, source, out)
    assert server.calls == []
    assert (out / name).read_bytes() == whole


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [b"junk", b"", b"\0\0\0", b'{"id":"a0","line":1', b'{"id":7}'])
def test_damage_in_the_middle_is_refused_with_its_line(
    damage: bytes, name: str, tmp_path: Path, out: Path, serve: Any, batchrun: Any
) -> None:
    source = items(tmp_path)
    go(serve(answer), source, out)
    first, second = (out / name).read_bytes().splitlines(keepends=True)
    damaged = first + damage + b"\n" + second
    (out / name).write_bytes(damaged)
    server = serve(answer)
    ended = batchrun(*command(server, source, out))
    assert (ended.code, server.calls) == (2, [])
    assert f"{name}:2:" in ended.err
    assert (out / name).read_bytes() == damaged


def test_a_doubled_result_is_refused_with_its_line(tmp_path: Path, out: Path, serve: Any, batchrun: Any) -> None:
    source = items(tmp_path)
    go(serve(answer), source, out)
    doubled = (out / "results.jsonl").read_bytes() + (out / "results.jsonl").read_bytes().splitlines(keepends=True)[1]
    (out / "results.jsonl").write_bytes(doubled)
    server = serve(answer)
    ended = batchrun(*command(server, source, out))
    assert (ended.code, server.calls) == (2, [])
    assert "results.jsonl:3:" in ended.err
    assert (out / "results.jsonl").read_bytes() == doubled


@pytest.mark.parametrize(
    "extra",
    [b"1e400", b"9" * 25, b"9" * 6000, b"[" * 1000 + b"]" * 1000, b'"\\u0000"'],
    ids=["1e400", "25 digits", "6000 digits", "deep", "NUL"],
)
def test_records_with_anything_in_their_body_are_read_again(
    extra: bytes, tmp_path: Path, out: Path, serve: Any
) -> None:
    body = json.dumps(completion()).encode()[:-1] + b',"x":' + extra + b"}"
    refusal = b'{"error":{"message":"no","x":' + extra + b"}}"
    server = serve(lambda call: [http(200, body) if call.prompt[0] == "a" else http(400, refusal)])
    source = items(tmp_path)
    go(server, source, out)
    assert len(server.calls) == 4
    written = [(out / name).read_bytes() for name in FILES]
    assert [data.count(extra) for data in written] == [2, 2]
    summary = go(server, source, out)
    assert len(server.calls) == 4
    assert (summary.results, summary.failures, summary.pending) == (2, 2, 0)
    assert summary.failures_by_kind == {"bad_request": 2}
    assert [(out / name).read_bytes() for name in FILES] == written


# --- others at the files ----------------------------------------------------------------------------------------


def delete(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    os.truncate(path, 10)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b'{"id":"foreign"}\n')


def rotate(path: Path) -> None:
    path.rename(path.with_suffix(".1"))


def replace(path: Path) -> None:
    shutil.copy(path, path.with_suffix(".2"))
    path.with_suffix(".2").rename(path)


def move_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


@pytest.mark.parametrize("tamper", [delete, truncate, append, rotate, replace, move_folder])
def test_a_results_file_that_is_not_as_it_was_left_stops_the_run(
    tamper: Callable[[Path], None], tmp_path: Path, out: Path, serve: Any, batchrun: Any
) -> None:
    path = out / "results.jsonl"
    done: list[int] = []

    def script(call: Call) -> list[Any]:
        if not done and path.exists() and path.stat().st_size:
            tamper(path)
            done.append(call.number)
        return [Wait(0.005), ok()]

    server = serve(script)
    source = items(tmp_path, good=2000, bad=0)
    ended = batchrun(*command(server, source, out, "--concurrency", 4))
    assert ended.code == 1
    assert "results.jsonl" in ended.err
    assert "Traceback" not in ended.err
    assert len(done) == 1
    assert len(server.calls) < 1500


@pytest.mark.parametrize("what", ["folder is a file", "below a file", "below proc", "directory", "symlink", "FIFO"])
def test_an_output_that_cannot_be_written_is_refused_before_anything_is_sent(
    what: str, tmp_path: Path, out: Path, serve: Any, batchrun: Any
) -> None:
    results = out / "results.jsonl"
    (tmp_path / "file").write_text("untouched")
    if what == "folder is a file":
        out = tmp_path / "file"
    elif what == "below a file":
        out = tmp_path / "file" / "out"
    elif what == "below proc":
        out = Path("/proc/out")
    else:
        out.mkdir()
    if what == "directory":
        results.mkdir()
    elif what == "symlink":
        results.symlink_to(tmp_path / "file")
    elif what == "FIFO":
        os.mkfifo(results)
    server = serve(answer)
    ended = batchrun(*command(server, items(tmp_path), out))
    assert (ended.code, server.connections) == (2, 0)
    assert str(out) in ended.err
    assert "Traceback" not in ended.err
    assert (tmp_path / "file").read_text() == "untouched"


def test_a_run_directory_that_another_run_holds_is_left_alone(
    tmp_path: Path, out: Path, serve: Any, batchrun: Any
) -> None:
    server = serve(answer)
    holder = RunDirectory(out)
    try:
        ended = batchrun(*command(server, items(tmp_path), out))
    finally:
        holder.close()
    assert (ended.code, server.connections) == (75, 0)
    assert str(os.getpid()) in ended.err


# --- a full disk ------------------------------------------------------------------------------------------------

#: Runs the command twice on a file system of its own, which is larger the second time, and keeps what it found.
ON_A_SMALL_DISK = """
mount -t tmpfs -o size=128k tmpfs "$1" || exit 77
copy="$2"; small="$1"; shift 2
"$@"; echo $? > "$copy/first-code"; cp -r "$small/out" "$copy/first"
mount -o remount,size=16m "$small" || exit 78
"$@"; echo $? > "$copy/second-code"; cp -r "$small/out" "$copy/second"
"""


def test_a_full_disk_stops_the_run_and_more_room_lets_it_go_on(tmp_path: Path, serve: Any) -> None:
    if not shutil.which("unshare"):
        pytest.skip("unshare is missing: no file system of the test's own")
    small, copy = tmp_path / "small", tmp_path / "copy"
    small.mkdir()
    copy.mkdir()
    server = serve(always(ok()))
    arguments = command(server, items(tmp_path, good=300, bad=0), small / "out")
    ended = subprocess.run(
        ["unshare", "-m", "sh", "-c", ON_A_SMALL_DISK, "sh", small, copy, sys.executable, "-m", "batchrun", *arguments],
        capture_output=True, env=environment(), check=False, timeout=60,
    )  # fmt: skip
    if not (copy / "first-code").exists():
        pytest.skip(f"no file system could be mounted: {ended.stderr.decode().strip()[:200]}")
    assert (copy / "first-code").read_text() == "1\n"
    assert b"errno 28" in ended.stderr
    first = records(copy / "first" / "results.jsonl")
    assert 0 < len(first) < 300
    assert (copy / "second-code").read_text() == "0\n"
    second = records(copy / "second" / "results.jsonl")
    assert sorted(record["id"] for record in second) == sorted(f"a{n}" for n in range(300))
    assert second[: len(first)] == first
    answered = {call.prompt for call in server.calls if len(server.of(call.prompt)) > 1}
    assert not answered & {record["id"] for record in first}, "what was written is not asked again"


def test_a_file_size_limit_leaves_whole_lines(tmp_path: Path, out: Path, serve: Any) -> None:
    server = serve(always(ok()))
    arguments = command(server, items(tmp_path, good=300, bad=0), out)
    limited = ["sh", "-c", 'ulimit -f 64; exec "$@"', "sh", sys.executable, "-m", "batchrun", *arguments]
    ended = subprocess.run(limited, capture_output=True, env=environment(), check=False, timeout=60)
    assert ended.returncode == 1, ended.stderr
    assert b"errno 27" in ended.stderr
    whole = len(records(out / "results.jsonl"))
    assert whole < 300
    server = serve(always(ok()))
    assert go(server, tmp_path / "in.jsonl", out).results == 300
    assert len(server.calls) == 300 - whole


# --- modes, manifest --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_everything_written_is_private_whatever_the_umask(umask: int, tmp_path: Path, out: Path, serve: Any) -> None:
    seen: dict[str, int] = {}

    def script(call: Call) -> list[bytes]:
        seen.update({path.name: stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()})
        return answer(call)

    source = items(tmp_path)
    server = serve(script)
    before = os.umask(umask)
    try:
        go(server, source, out)
    finally:
        os.umask(before)
    seen.update({path.name: stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()})
    assert {"results.jsonl", "failures.jsonl", "run.json"} <= set(seen)
    assert set(seen.values()) == {0o600}
    assert stat.S_IMODE(out.stat().st_mode) == 0o700


def test_a_reader_of_the_manifest_never_sees_half_of_it(out: Path) -> None:
    folder = RunDirectory(out)
    folder.save_manifest({"number": -1})
    over = threading.Event()
    seen: list[int] = []

    def poll() -> None:
        while not over.is_set():
            seen.append(json.loads((out / "run.json").read_bytes())["number"])

    reader = threading.Thread(target=poll)
    reader.start()
    for number in range(300):
        folder.save_manifest({"number": number, "padding": "x" * 100_000})
    over.set()
    reader.join()
    folder.close()
    assert len(set(seen)) > 10
    assert seen == sorted(seen)
    assert {path.name for path in out.iterdir()} == {"results.jsonl", "failures.jsonl", "run.json"}


def test_nothing_left_to_do_changes_no_byte(tmp_path: Path, out: Path, serve: Any) -> None:
    source = items(tmp_path)
    go(serve(answer), source, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    server = serve(answer)
    go(server, source, out)
    assert server.connections == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_file_that_cannot_be_appended_to_says_so(out: Path) -> None:
    folder = RunDirectory(out)
    folder.close()
    (out / "failures.jsonl").unlink()
    (out / "failures.jsonl").symlink_to("/dev/null")
    with pytest.raises(StoreError, match=r"failures\.jsonl"):
        RunDirectory(out)


def test_a_manifest_that_cannot_be_replaced_stops_the_run_before_anything_is_sent(
    tmp_path: Path, out: Path, serve: Any, batchrun: Any
) -> None:
    server = serve(answer)
    (out / "run.json" / "in-the-way").mkdir(parents=True)
    done = batchrun(*command(server, items(tmp_path), out))
    assert done.code == 2
    assert "run.json" in done.err
    assert "Traceback" not in done.err
    assert not server.calls
