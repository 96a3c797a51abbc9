"""What the scripts for TPU slices run on a worker: done here, without a slice."""

import signal
import subprocess

import pytest
from fake_cloud import Cloud, Worker, program


@pytest.fixture
def worker(tmp_path):
    return Worker(Cloud(tmp_path))


def test_a_worker_mounts_the_bucket_and_makes_an_environment(worker):
    folder = worker.cloud.folder
    note = '#!/usr/bin/env bash\necho "$(basename "$0") $*" >>"$CLOUD/done"\n'
    program(folder / "bin" / "sudo", '#!/usr/bin/env bash\nexec "$@"\n')
    program(folder / "bin" / "gcsfuse", note)
    program(folder / "bin" / "mountpoint", "#!/usr/bin/env bash\nexit 1\n")
    program(folder / "note", note)
    brings = 'mkdir -p "$HOME/.local/bin" && cp "$CLOUD/note" "$HOME/.local/bin/uv"\n'
    program(folder / "bin" / "python3", note + brings)
    mount = folder / "mount"
    done = worker.do("install", "music-bucket", MOUNT=str(mount))
    assert (done.returncode, done.stdout) == (0, "worker 3: installed\n")
    assert (folder / "done").read_text().splitlines() == [
        f"gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 music-bucket {mount}",
        "python3 -m pip install --quiet --user uv",
        "uv venv --quiet --allow-existing --python 3.12 .venv",
        "uv pip install --quiet --python .venv/bin/python jax[tpu] -e .[buckets]",
    ]
    program(folder / "bin" / "gcsfuse", "#!/usr/bin/env bash\nexit 5\n")
    assert worker.do("install", "music-bucket", MOUNT=str(mount)).returncode == 5


def test_gcsfuse_is_installed_where_there_is_a_command_for_it(worker):
    folder = worker.cloud.folder
    (folder / ".local" / "bin").mkdir(parents=True)
    for name in ("bin/sudo", ".local/bin/uv"):
        program(folder / name, "#!/usr/bin/env bash\n")
    program(folder / "bin" / "mountpoint", "#!/usr/bin/env bash\nexit 1\n")
    missing = worker.do("install", "music-bucket")
    assert missing.returncode == 1
    assert missing.stderr.startswith("error: gcsfuse is missing on this image: set GCSFUSE_INSTALL")
    assert missing.stderr.count("\n") == 1
    program(folder / "there", '#!/usr/bin/env bash\necho "$*" >"$CLOUD/mounted"\n')
    done = worker.do("install", "music-bucket", 'cp "$CLOUD/there" "$CLOUD/bin/gcsfuse"')
    assert (done.returncode, done.stdout) == (0, "worker 3: installed\n")
    assert "music-bucket" in (folder / "mounted").read_text()


def test_what_is_no_verb_of_a_worker_is_refused(worker):
    done = worker.do("fly")
    assert done.returncode == 2
    assert done.stderr.startswith("error: give install")


def test_a_worker_starts_stops_and_tells_how_it_ended(worker):
    assert worker.do("state").stdout == "worker 3: not started\n"
    # Like a training: SIGTERM saves, and the end is a good one.
    command = "trap 'echo saved; exit 0' TERM; echo begun; while true; do sleep 0.05; done"
    assert worker.do("run", "gs://b/logs", "bash", "-c", command).returncode == 0
    log = worker.cloud.folder / "tinymu_job" / "log"
    assert worker.comes(worker.state, "worker 3: running\n")
    assert worker.comes(log.read_text, "begun")
    again = worker.do("run", "gs://b/logs", "true")
    assert again.returncode == 1
    assert "is already running" in again.stderr
    assert worker.do("stop").stdout == "worker 3: ended with code 0\n"
    assert log.read_text() == "begun\nsaved\n"
    calls = worker.cloud.folder / "calls"
    assert worker.comes(
        lambda: calls.read_text() if calls.exists() else "", "tinymu_job/log gs://b/logs/worker-3-"
    )
    assert worker.do("run", "gs://b/logs", "bash", "-c", "exit 7").returncode == 0
    assert worker.comes(worker.state, "worker 3: ended with code 7\n")


SLEEP = """#!/usr/bin/env bash
[ "$1" = 60 ] || exec /bin/sleep "$@"
trap 'echo ended >>"$CLOUD/sleep"; exit' TERM
echo begun >>"$CLOUD/sleep"
for _ in {1..600}; do /bin/sleep 0.05; done
"""


def test_nothing_of_a_run_is_left_at_its_end(worker):
    program(worker.cloud.folder / "bin" / "sleep", SLEEP)
    sleep = worker.cloud.folder / "sleep"
    sleep.touch()
    command = 'until [ -s "$CLOUD/sleep" ]; do sleep 0.05; done; exit 7'
    assert worker.do("run", "gs://b/logs", "bash", "-c", command).returncode == 0
    assert worker.comes(worker.state, "worker 3: ended with code 7\n")
    assert worker.comes(sleep.read_text, "ended")


@pytest.mark.parametrize(
    ("index", "command", "code"),
    [
        ("0", 'mkdir -p "$1/model"; touch "$1/model/config.json"', 0),
        ("0", "echo stopped", 75),
        ("1", "echo stopped", 0),
        ("1", "exit 4", 4),
    ],
)
def test_in_kubernetes_what_is_not_finished_has_failed(worker, index, command, code):
    run = worker.cloud.folder / "run"
    done = worker.do(
        "here", str(run), "bash", "-c", command, "-", str(run), JOB_COMPLETION_INDEX=index
    )
    assert done.returncode == code
    (log,) = (run / "logs").glob(f"worker-{index}-*.log")
    assert log.read_text() == done.stdout


def test_in_kubernetes_a_stop_reaches_the_training(worker):
    run = worker.cloud.folder / "run"
    command = "trap 'echo saved; exit 0' TERM; echo begun; while true; do sleep 0.05; done"
    process = subprocess.Popen(
        ["bash", "tinymu/launch/pod_worker.sh", "here", str(run), "bash", "-c", command],
        env=worker.cloud.environment,
        cwd=worker.cloud.folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=240)[0] == "saved\n"
    assert process.returncode == 75


@pytest.mark.parametrize("code", [0, 7])
def test_in_kubernetes_a_stop_at_the_very_end_hides_no_code(worker, code):
    # The script learns of both at once: the stop, and that the command has ended.
    command = f"kill -STOP $PPID; kill -TERM $PPID; (sleep 0.3; kill -CONT $PPID) & exit {code}"
    done = worker.do("here", str(worker.cloud.folder / "run"), "bash", "-c", command)
    # bash may have lost the code, which counts as a stop.
    assert done.returncode in (code or 75, 75)
