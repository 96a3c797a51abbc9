"""The scripts for TPU slices: what they would run, and whole runs against a cloud that is played.

The dry runs are stored in golden/launch; after a change that is meant they are written anew by
`PYTHONPATH=tests python tests/launch/test_tpu_pods.py`, and read.
"""

import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml
from fake_cloud import GOLDEN, ROOT, SETTINGS, VERBS, Cloud, dry_runs

from tinymu_jax.cli.train import read_run


@pytest.fixture
def cloud(tmp_path):
    return Cloud(tmp_path)


@pytest.mark.parametrize("script", VERBS)
def test_dry_runs_are_the_stored_ones(cloud, script):
    assert dry_runs(cloud, script) == (GOLDEN / f"{script}.txt").read_text()
    assert not (cloud.folder / "calls").exists()
    assert not (cloud.folder / "kubectl").exists()


def test_scripts_pass_shellcheck():
    shellcheck = shutil.which("shellcheck") or str(Path(sys.executable).parent / "shellcheck")
    scripts = sorted([*ROOT.glob("launch/*.sh"), *ROOT.glob("launch/*.sbatch")])
    command = [shellcheck, "--external-sources"]
    done = subprocess.run(
        [*command, *map(str, scripts)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("script", "verb", "name"),
    [
        ("tpu_pod", "create", "PROJECT"),
        ("tpu_pod", "create", "TYPE"),
        ("tpu_pod", "install", "COMMIT"),
        ("tpu_pod", "run", "BUCKET"),
        ("tpu_pod", "watch", "CONFIG"),
        ("tpu_pod", "delete", "NAME"),
        ("gke_jobset", "apply", "TOPOLOGY"),
        ("gke_jobset", "log", "CONTEXT"),
        ("gke_jobset", "data", "DATA"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_values_that_are_missing_are_named(cloud, script, verb, name, dry):
    done = cloud.run(script, verb, *dry, **{name: ""})
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"error: {name} has no value; set it at the top of launch/{script}.sh, or in the "
        "environment\n"
    )
    assert not (cloud.folder / "calls").exists()


@pytest.mark.parametrize("script", VERBS)
def test_what_is_no_verb_is_refused_and_help_has_all_verbs(cloud, script):
    for arguments in (["fly"], ["--fly"], [], ["log", "status"]):
        done = cloud.run(script, *arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
    assert "fly: unknown verb" in cloud.run(script, "fly").stderr
    page = cloud.run(script, "--help").stdout
    assert all(f"launch/{script}.sh {verb}" in page for verb in VERBS[script])
    assert "set -euo" not in page.splitlines()


def test_images_go_with_the_types(cloud):
    for kind, image in [
        ("v5litepod-4", "v2-alpha-tpuv5-lite"),
        ("v5p-1024", "v2-alpha-tpuv5"),
        ("v6e-16", "v2-alpha-tpuv6e"),
        ("v4-32", "tpu-ubuntu2204-base"),
    ]:
        shown = cloud.run("tpu_pod", "create", "--dry-run", TYPE=kind, SPOT="no").stdout
        assert f" --runtime-version={image} " in shown
        assert "--spot" not in shown
    named = cloud.run("tpu_pod", "create", "--dry-run", RUNTIME="my-image").stdout
    assert " --runtime-version=my-image " in named
    unknown = cloud.run("tpu_pod", "create", "--dry-run", TYPE="v99-4")
    assert unknown.returncode == 2
    assert "RUNTIME is empty and TYPE v99-4 is unknown" in unknown.stderr


def test_create_waits_until_the_slice_is_there(cloud):
    waiting = "WAITING_FOR_RESOURCES"
    cloud.says(states=[waiting, waiting, "BROKEN", "PROVISIONING", "ACTIVE"])
    done = cloud.run("tpu_pod", "create")
    assert done.returncode == 0, done.stderr
    states = [line.split()[-1] for line in done.stdout.splitlines()]
    assert states == [waiting, "UNKNOWN", "PROVISIONING", "ACTIVE"]
    assert "there is no network" in done.stderr


@pytest.mark.parametrize("state", ["FAILED", "SUSPENDED", "NONE"])
def test_create_gives_up_where_the_slice_will_not_come(cloud, state):
    cloud.says(states=["WAITING_FOR_RESOURCES", state])
    done = cloud.run("tpu_pod", "create")
    assert done.returncode == 1
    assert f"listener is {state}" in done.stderr


@pytest.mark.parametrize("verb", VERBS["tpu_pod"])
def test_every_verb_runs_through(cloud, verb):
    (cloud.folder / "model").touch()
    cloud.says(workers=["ended with code 0,ended with code 0"])
    done = cloud.run("tpu_pod", verb)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_notice_is_no_state(cloud):
    cloud.says(notice=["Updates are available for some components."])
    (cloud.folder / "model").touch()
    cloud.says(workers=["ended with code 0"])
    done = cloud.run("tpu_pod", "watch")
    assert done.returncode == 0, done.stderr
    assert "listener is ACTIVE, the run: done" in done.stdout


def test_the_command_that_installs_gcsfuse_goes_to_the_workers(cloud):
    shown = cloud.run("tpu_pod", "install", "--dry-run", GCSFUSE_INSTALL="sudo install it").stdout
    there = shlex.split(shown)[-1].removeprefix("--command=")
    assert shlex.split(there)[-3:] == ["install", "music-bucket", "sudo install it"]


def test_status_asks_the_workers_where_there_are_any(cloud):
    assert "worker 1: running" in cloud.run("tpu_pod", "status").stdout
    cloud.says(states=["SUSPENDED"])
    done = cloud.run("tpu_pod", "status")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "SUSPENDED\nworkers are reachable once it is ACTIVE\n"


@pytest.mark.parametrize("verb", ["install", "run"])
def test_a_failing_worker_is_named(cloud, verb):
    cloud.says(failing=[verb])
    done = cloud.run("tpu_pod", verb)
    assert done.returncode == 1
    assert "no space left on device" in done.stdout
    assert done.stderr == f"error: {verb} failed on worker 2; the lines above say why\n"


def test_resume_does_what_the_state_asks_for(cloud):
    cloud.says(failing=["install"], states=["SUSPENDED", "ACTIVE"])
    broken = cloud.run("tpu_pod", "resume")
    assert broken.returncode == 1
    assert cloud.called() == ["delete", "create", "install"]
    (cloud.folder / "failing").unlink()
    for state, calls in [("NONE", ["create", "install", "run"]), ("ACTIVE", ["install", "run"])]:
        (cloud.folder / "calls").unlink()
        cloud.says(states=[state, "ACTIVE"])
        assert cloud.run("tpu_pod", "resume").returncode == 0
        assert cloud.called() == calls
    cloud.says(states=["PROVISIONING"])
    early = cloud.run("tpu_pod", "resume")
    assert early.returncode == 1
    assert "listener is PROVISIONING" in early.stderr


def test_jobset_asks_for_the_slice_and_starts_anew(cloud):
    assert cloud.run("gke_jobset", "apply").returncode == 0
    page = yaml.safe_load((cloud.folder / "applied").read_text())
    assert page == yaml.safe_load(cloud.run("gke_jobset", "apply", "--dry-run").stdout)
    assert (page["apiVersion"], page["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert page["spec"]["network"] == {"enableDNSHostnames": True, "subdomain": "listener"}
    policy = page["spec"]["failurePolicy"]
    assert policy["maxRestarts"] == 10
    assert policy["rules"][0]["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    job = page["spec"]["replicatedJobs"][0]["template"]["spec"]
    # 16 chips of 4 a machine.
    assert (job["parallelism"], job["completions"], job["backoffLimit"]) == (4, 4, 0)
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x4",
        "cloud.google.com/gke-spot": "true",
    }
    container = pod["containers"][0]
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert pod["volumes"][0]["csi"]["volumeAttributes"]["bucketName"] == "music-bucket"
    script = container["args"][0]
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    assert SETTINGS["COMMIT"] in script
    assert "--data.train 'gs://music-bucket/data/train set'" in script


def test_jobset_counts_machines_and_refuses_what_does_not_divide(cloud):
    shown = cloud.run("gke_jobset", "apply", "--dry-run", TOPOLOGY="8x8x8", SPOT="no").stdout
    page = yaml.safe_load(shown)
    job = page["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["parallelism"] == 128
    assert "cloud.google.com/gke-spot" not in job["template"]["spec"]["nodeSelector"]
    for settings in ({"TOPOLOGY": "16"}, {"TOPOLOGY": "3x3"}, {"CHIPS": "0"}):
        done = cloud.run("gke_jobset", "apply", **settings)
        assert done.returncode == 2
        assert next(iter(settings)) in done.stderr
        assert not (cloud.folder / "applied").exists()


@pytest.mark.parametrize("verb", VERBS["gke_jobset"])
def test_every_verb_of_the_jobset_runs_through(cloud, verb):
    done = cloud.run("gke_jobset", verb)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("command", "config"), [("train", "sft_tinymu_v5e16"), ("pretrain", "pretrain_music")]
)
def test_the_command_is_one_that_the_package_understands(cloud, command, config):
    config = str(ROOT / "configs" / f"{config}.py")
    shown = cloud.run("gke_jobset", "apply", "--dry-run", COMMAND=command, CONFIG=config).stdout
    job = yaml.safe_load(shown)["spec"]["replicatedJobs"][0]["template"]["spec"]
    last = job["template"]["spec"]["containers"][0]["args"][0].splitlines()[-1]
    words = shlex.split(last)
    words = words[words.index("tinymu") + 1 :]
    read = read_run(words[0], words[1:])
    run = read.run_config
    assert (words[0], read.resume) == (command, True)
    assert (run.output, run.checkpoints) == (
        "/mnt/tinymu/runs/second",
        "gs://music-bucket/runs/second/checkpoints",
    )
    assert (run.data.train, run.data.validation) == (
        "gs://music-bucket/data/train set",
        "gs://music-bucket/data/held_out",
    )
    assert (run.init.encoder, run.init.seed) == ("/mnt/tinymu/start/encoder.pt", 3)


if __name__ == "__main__":
    for script in VERBS:
        with tempfile.TemporaryDirectory() as folder:
            (GOLDEN / f"{script}.txt").write_text(dry_runs(Cloud(Path(folder)), script))
