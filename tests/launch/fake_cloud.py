"""A cloud that is played: gcloud and kubectl note what they are asked, and answer from files."""

import os
import shutil
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parents[1] / "golden" / "launch"
VERBS = {
    "tpu_pod": [
        *("create", "install", "data", "run", "watch"),
        *("log", "status", "stop", "resume", "delete"),
    ],
    "gke_jobset": ["data", "apply", "log", "status", "delete"],
}
SETTINGS = {
    "PROJECT": "music",
    "ZONE": "us-west4-a",
    "NAME": "listener",
    "TYPE": "v5litepod-16",
    "BUCKET": "music-bucket",
    "REPOSITORY": "https://example.org/tinymu_jax.git",
    "COMMIT": "0123456789abcdef0123456789abcdef01234567",
    "CONFIG": "configs/sft_tinymu_v5e16.py",
    "DATA": "data/train set/",
    "HELD_OUT": "data/held_out",
    "ENCODER": "weights/encoder.pt",
    "ARGUMENTS": "--init.seed 3",
    "RUN": "second",
    "CONTEXT": "cluster",
    "ACCELERATOR": "tpu-v5-lite-podslice",
    "TOPOLOGY": "4x4",
}
# Says what gcloud says: states in their order, the last one from then on; what workers do likewise.
# A call that is next in `once` fails, and not the second time.
GCLOUD = r"""#!/usr/bin/env bash
printf '%s\n' "$*" >>"$CLOUD/calls"
next() {
  head -n 1 "$CLOUD/$1"
  if [ "$(wc -l <"$CLOUD/$1")" -gt 1 ]; then
    tail -n +2 "$CLOUD/$1" >"$CLOUD/rest" && mv "$CLOUD/rest" "$CLOUD/$1"
  fi
}
once="$(head -n 1 "$CLOUD/once" 2>/dev/null)"
case "$*" in
*"${once:-nothing}"*)
  tail -n +2 "$CLOUD/once" >"$CLOUD/rest" && mv "$CLOUD/rest" "$CLOUD/once"
  echo "ERROR: there is no network" >&2
  exit 1
  ;;
*"queued-resources describe"*)
  state="$(next states)"
  case "$state" in
  NONE) echo "ERROR: NOT_FOUND: Resource was not found" >&2 && exit 1 ;;
  BROKEN) echo "ERROR: there is no network" >&2 && exit 1 ;;
  esac
  echo "$state"
  cat "$CLOUD/notice" >&2 2>/dev/null
  exit 0
  ;;
*"pod_worker.sh state")
  next workers | tr ',' '\n' | awk '{ print "worker " NR - 1 ": " $0 }' | grep -v silent
  ;;
*"pod_worker.sh $(cat "$CLOUD/failing" 2>/dev/null || echo nothing)"*)
  echo "error: no space left on device"
  echo "##### Command execution on worker 2 failed with exit status 1. Continuing." >&2
  exit 1
  ;;
*"storage ls"*) [ -f "$CLOUD/model" ] ;;
esac
"""
KUBECTL = r"""#!/usr/bin/env bash
printf '%s\n' "$*" >>"$CLOUD/kubectl"
case "$*" in *" apply "*) cat >"$CLOUD/applied" ;; esac
"""


def program(path, text):
    path.write_text(text)
    path.chmod(0o755)


class Cloud:
    """A cloud that is played, and the scripts run against it."""

    def __init__(self, folder):
        self.folder = folder
        programs = folder / "bin"
        programs.mkdir()
        program(programs / "gcloud", GCLOUD)
        program(programs / "kubectl", KUBECTL)
        self.environment = {
            **SETTINGS,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(folder),
            "CLOUD": str(folder),
            "POLL_SECONDS": "0.01",
        }
        self.says(states=["ACTIVE"], workers=["running,running"])

    def says(self, **lines):
        for name, texts in lines.items():
            (self.folder / name).write_text("".join(f"{text}\n" for text in texts))

    def run(self, script, *arguments, **settings):
        return subprocess.run(
            ["bash", str(ROOT / "launch" / f"{script}.sh"), *arguments],
            env={**self.environment, **settings},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=240,
        )

    def called(self):
        """Returns what was asked of the cloud, in words, without looking on."""
        words = {
            "queued-resources create": "create",
            "queued-resources delete": "delete",
            "pod_worker.sh install": "install",
            "pod_worker.sh run": "run",
            "pod_worker.sh stop": "stop",
        }
        calls = (self.folder / "calls").read_text().splitlines()
        return [word for call in calls for part, word in words.items() if part in call]


def dry_runs(cloud, script):
    text = ""
    for verb in VERBS[script]:
        done = cloud.run(script, verb, "--dry-run")
        assert (done.returncode, done.stderr) == (0, "")
        text += f"$ launch/{script}.sh {verb} --dry-run\n{done.stdout}\n"
    return text


class Worker:
    """A worker of a slice: a clone in a home of its own, without the cloud's page of itself."""

    def __init__(self, cloud):
        self.cloud = cloud
        self.launch = cloud.folder / "tinymu" / "launch"
        self.launch.mkdir(parents=True)
        shutil.copy(ROOT / "launch" / "pod_worker.sh", self.launch)
        program(cloud.folder / "bin" / "curl", "#!/usr/bin/env bash\necho 3\n")
        program(cloud.folder / "bin" / "setsid", '#!/usr/bin/env bash\nexec "$@"\n')

    def do(self, *arguments, **settings):
        return subprocess.run(
            ["bash", "tinymu/launch/pod_worker.sh", *arguments],
            env={**self.cloud.environment, **settings},
            cwd=self.cloud.folder,
            capture_output=True,
            text=True,
            timeout=240,
        )

    def comes(self, read, expected):
        """Tells whether `read()` comes to hold what is wanted."""
        for _ in range(4800):
            if expected in read():
                return True
            time.sleep(0.05)
        return False

    def state(self):
        return self.do("state").stdout
