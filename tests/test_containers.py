"""A container's limits of memory and cores count as the machine's own."""

import os

import psutil
import pytest
import torch

from etadlite.base import containers
from etadlite.base.devices import free_memory, require_memory, resolve_device
from etadlite.base.errors import InputError

GIB = 2**30
# What Linux shows: lines of /proc/self/cgroup, and the folders below /sys/fs/cgroup.
IN_DOCKER = "0::/\n"
OF_SLURM = "0::/system.slice/job_7/step_0/task_0\n"
VERSION_1 = "9:name=systemd:/\n4:memory:/docker/ab:c\n3:cpu,cpuacct:/docker/ab:c\n0::/\n"


@pytest.fixture
def limits(tmp_path, monkeypatch):
    """Returns a function that writes what Linux shows of a process's control groups."""

    def show(own, files):
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            path = tmp_path / "root" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    monkeypatch.setattr(containers, "ROOT", tmp_path / "root")
    monkeypatch.setattr(containers, "OWN", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return show


def memory(folder, limit, used, cached):
    """Files of version 2."""
    stat = f"anon 5\ninactive_file {cached}\nactive_file 9"
    names = {"memory.max": limit, "memory.current": used, "memory.stat": stat}
    return {folder + name: f"{value}\n" for name, value in names.items()}


def test_without_a_limit_the_machine_counts(limits):
    assert containers.memory_left() == float("inf")  # as where Linux is not
    assert containers.usable_cores() == 64
    limits(IN_DOCKER, memory("", "max", GIB, 0) | {"cpu.max": "max 100000\n"})
    assert containers.memory_left() == float("inf")
    assert containers.usable_cores() == 64


def test_files_that_are_only_cached_count_as_free(limits):
    limits(IN_DOCKER, memory("", 4 * GIB, 3 * GIB, GIB // 2))
    assert containers.memory_left() == 1.5 * GIB
    assert free_memory() == 1.5 * GIB


def test_the_narrowest_limit_of_all_groups_above_counts(limits):
    job = memory("system.slice/job_7/", 8 * GIB, 2 * GIB, 0) | {
        "system.slice/job_7/cpu.max": "250000 100000\n"
    }
    own = "system.slice/job_7/step_0/task_0/"
    limits(OF_SLURM, job | memory(own, 7 * GIB, GIB // 2, 0) | {own + "cpu.max": "max 100000\n"})
    assert containers.memory_left() == 6 * GIB
    assert containers.usable_cores() == 3  # 2.5 cores keep three threads busy


def test_the_first_version_of_control_groups_counts_too(limits):
    own = "memory/docker/ab:c/"
    bytes_of = {"memory.limit_in_bytes": 2 * GIB, "memory.usage_in_bytes": GIB}
    files = {own + name: f"{value}\n" for name, value in bytes_of.items()}
    files |= {own + "memory.stat": f"inactive_file 1\ntotal_inactive_file {GIB // 4}\n"}
    files |= {
        "cpu,cpuacct/docker/ab:c/cpu.cfs_quota_us": "50000\n",
        "cpu,cpuacct/docker/ab:c/cpu.cfs_period_us": "100000\n",
        "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
        "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    }
    limits(VERSION_1, files)
    assert containers.memory_left() == 1.25 * GIB
    assert containers.usable_cores() == 1


def test_a_container_sees_its_own_groups_at_the_root(limits):
    # Its path is that of the machine, but only its own folder is there.
    limits("0::/kubepods/pod1/c2\n", memory("", 3 * GIB, GIB, 0) | {"cpu.max": "200000 100000\n"})
    assert containers.memory_left() == 2 * GIB
    assert containers.usable_cores() == 2


def test_a_container_that_holds_more_than_its_limit_has_nothing_left(limits):
    limits(IN_DOCKER, memory("", GIB, 2 * GIB, 0))
    assert free_memory() == 0
    with pytest.raises(InputError, match=r"a file holds text .* but 0\.0 GiB of memory are free"):
        require_memory(1, "a file holds text")


@pytest.mark.parametrize(("asked", "threads"), [(None, 2), ("5", 5)])
def test_threads_follow_the_limit_unless_omp_num_threads_says_how_many(
    limits, monkeypatch, asked, threads
):
    limits(IN_DOCKER, {"cpu.max": "200000 100000\n"})
    if asked:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(5)
        resolve_device("cpu")
        assert torch.get_num_threads() == threads
        torch.set_num_threads(1)
        resolve_device("cpu")
        assert torch.get_num_threads() == 1  # never more than before
    finally:
        torch.set_num_threads(before)


def test_here_no_more_is_free_than_the_machine_has():
    assert 0 < free_memory() <= psutil.virtual_memory().total
    assert 1 <= containers.usable_cores() <= (os.cpu_count() or 1)
