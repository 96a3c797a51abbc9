"""A run on a TPU slice that nobody looks after: `tpu_pod.sh watch`, and a cloud that is played."""

import pytest
from fake_cloud import Cloud


@pytest.fixture
def cloud(tmp_path):
    return Cloud(tmp_path)


def test_watch_goes_on_after_a_preemption(cloud):
    (cloud.folder / "model").touch()
    cloud.says(
        states=[
            *("ACTIVE", "ACTIVE", "SUSPENDING", "SUSPENDED"),
            *("WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"),
        ],
        # The second look comes when the slice is going: the processes have been stopped.
        workers=[
            *("running,running", "ended with code 0,ended with code 143"),
            *("running,running", "ended with code 0,running"),
            "ended with code 0,ended with code 0",
        ],
    )
    done = cloud.run("tpu_pod", "watch")
    assert done.returncode == 0, done.stderr
    assert cloud.called() == ["delete", "create", "install", "run"]
    assert "listener is SUSPENDED: requesting it again; the run will resume" in done.stdout
    assert "the run is done; its model is gs://music-bucket/runs/second/model" in done.stdout


def test_watch_tries_again_what_fails_after_a_preemption(cloud):
    (cloud.folder / "model").touch()
    cloud.says(
        # The state where a try begins, and what `create` sees in it.
        states=["SUSPENDED", "SUSPENDED", "NONE", "FAILED", "FAILED", "ACTIVE", "ACTIVE"],
        once=["resources delete", "resources create", "worker.sh install", "worker.sh run"],
        workers=["ended with code 0,ended with code 0"],
    )
    done = cloud.run("tpu_pod", "watch")
    assert done.returncode == 0, done.stderr
    assert cloud.called() == [
        *("delete", "delete", "create", "create", "delete", "create", "install"),
        *("stop", "install", "run", "stop", "install", "run"),
    ]
    assert done.stdout.count("requesting it again") == 6
    assert "listener is ACTIVE, the run: not begun, tried again" in done.stdout
    assert "the run is done" in done.stdout


def test_watch_keeps_no_slice_on_which_the_run_cannot_begin(cloud):
    cloud.says(states=["SUSPENDED", "ACTIVE"], failing=["install"])
    done = cloud.run("tpu_pod", "watch")
    assert done.returncode == 1
    assert cloud.called() == ["delete", "create", "install"] + ["stop", "install"] * 10
    assert done.stderr.splitlines()[-1] == "error: the run could not begin; see the lines above"


def test_watch_says_which_worker_failed(cloud):
    cloud.says(workers=["running,running,running", "running,ended with code 1,running"])
    done = cloud.run("tpu_pod", "watch")
    assert done.returncode == 1
    assert done.stderr.startswith("error: the run failed on worker 1; see ")
    assert cloud.called() == []


def test_watch_ends_where_the_run_was_stopped_or_nobody_answers(cloud):
    cloud.says(workers=["ended with code 0,ended with code 0"])
    stopped = cloud.run("tpu_pod", "watch")
    assert stopped.returncode == 1
    assert "stopped before its end" in stopped.stderr
    cloud.says(workers=["silent"])
    silent = cloud.run("tpu_pod", "watch")
    assert silent.returncode == 1
    assert "have not answered" in silent.stderr
    cloud.says(states=["NONE"])
    none = cloud.run("tpu_pod", "watch")
    assert none.returncode == 1
    assert "there is no listener" in none.stderr
