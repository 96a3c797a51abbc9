"""What the scripts for TPU slices run on a worker: done here, without a slice."""

import signal
import subprocess

import pytest
from played_cloud import Cloud, Worker, program


@pytest.fixture
def worker(tmp_path):
    return Worker(Cloud(tmp_path))


def test_a_worker_mounts_the_bucket_and_makes_an_environment(worker):
    folder = worker.cloud.folder
    note = '#!/usr/bin/env bash\necho "$(basename "$0") $*" >>"$CLOUD/done"\n'
    program(folder / "bin" / "sudo", '#!/usr/bin/env bash\nexec "$@"\n')
    program(folder / "bin" / "gcsfuse", note)
    program(folder / "bin" / "mountpoint", "#!/usr/bin/env bash\nexit 1\n")
    (folder / ".local" / "bin").mkdir(parents=True)
    program(folder / ".local" / "bin" / "uv", note)
    mount = folder / "mount"
    done = worker.do("install", "music-bucket", MOUNT=str(mount))
    assert (done.returncode, done.stdout) == (0, "worker 3: installed\n")
    assert (folder / "done").read_text().splitlines() == [
        f"gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 music-bucket {mount}",
        "uv venv --quiet --allow-existing --python 3.12 .venv",
        "uv pip install --quiet --python .venv/bin/python jax[tpu] -e .[buckets]",
    ]
    program(folder / "bin" / "gcsfuse", "#!/usr/bin/env bash\nexit 5\n")
    assert worker.do("install", "music-bucket", MOUNT=str(mount)).returncode == 5


def test_what_is_no_verb_of_a_worker_is_refused(worker):
    done = worker.do("fly")
    assert done.returncode == 2
    assert done.stderr.startswith("error: say install")


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
    assert "is running already" in again.stderr
    assert worker.do("stop").stdout == "worker 3: ended with code 0\n"
    assert log.read_text() == "begun\nsaved\n"
    calls = worker.cloud.folder / "calls"
    assert worker.comes(
        lambda: calls.read_text() if calls.exists() else "", "tinymu_job/log gs://b/logs/worker-3-"
    )
    assert worker.do("run", "gs://b/logs", "bash", "-c", "exit 7").returncode == 0
    assert worker.comes(worker.state, "worker 3: ended with code 7\n")


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
    assert process.communicate(timeout=30)[0] == "saved\n"
    assert process.returncode == 75
