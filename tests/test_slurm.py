"""The Slurm script, with stand-ins for Slurm: what it starts, and when it requeues."""

import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import REPOSITORY

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Slurm runs on Linux")

SCRIPT = REPOSITORY / "data_scripts" / "train_slurm.sh"
TOOLS = {
    "scontrol": 'if [ "$1" = show ]; then printf "node1\\nnode2\\n"; else echo "$@" >> asked; fi',
    "srun": 'exec "$@"',
    # Like a training: it needs a moment to save its state after TERM, then ends with 143.
    "torchrun": """
trap 'sleep 0.3; touch saved; exit 143' TERM
echo "$OMP_NUM_THREADS $@" > started
case "$*" in *seed=0*) exit 0;; *seed=1*) exit 2;; esac
while true; do sleep 0.05; done
""",
}


@pytest.fixture
def job(tmp_path):
    """A function that starts the script as a job in an empty folder."""
    (tmp_path / "bin").mkdir()
    for name, text in TOOLS.items():
        tool = tmp_path / "bin" / name
        tool.write_text(f"#!/bin/bash\n{text}\n")
        tool.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "77",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_GPUS_ON_NODE": "4",
        "SLURM_CPUS_PER_TASK": "32",
    }
    return lambda *words: subprocess.Popen(
        ["bash", SCRIPT, "anet_tsp", *words], cwd=tmp_path, env=environment
    )


def test_a_signal_saves_the_state_and_puts_the_job_back_into_the_queue(job, tmp_path):
    process = job("--resume", "runs/x")
    while not (tmp_path / "started").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
    assert (tmp_path / "saved").exists()  # it was waited for
    assert (tmp_path / "asked").read_text() == "requeue 77\n"
    started = (tmp_path / "started").read_text()
    assert started.startswith("8 --nnodes=2 --nproc_per_node=4 --max-restarts=3 ")
    assert "--rdzv_endpoint=node1:29500" in started
    # Its own folder, so that it goes on with no other job's run; what the user gives comes last.
    words = "-m etadlite train --out runs/slurm_77 --resume last anet_tsp --resume runs/x\n"
    assert started.endswith(words)


@pytest.mark.parametrize(("seed", "code"), [(0, 0), (1, 2)])
def test_a_training_that_ends_by_itself_is_not_repeated(job, tmp_path, seed, code):
    assert job(f"seed={seed}").wait() == code
    assert not (tmp_path / "asked").exists()


def test_the_job_is_told_before_its_time_is_over():
    options = [line for line in SCRIPT.read_text().splitlines() if line.startswith("#SBATCH")]
    assert "#SBATCH --signal=B:TERM@180" in options  # B: this script, which requeues
    assert "#SBATCH --requeue" in options
