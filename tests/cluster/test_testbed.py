"""The testbed is a real Slurm: it runs jobs, fails as asked, and leaves nothing behind."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slurm.testbed import Cluster, TestbedError, memory, requirements, take_down
from slurm.testbed.daemons import Daemons
from slurm.testbed.layout import Layout

REPOSITORY = Path(__file__).parents[2]
HOG = "x=[]\nimport time\nfor i in range(60): x.append(bytearray(20<<20)); time.sleep(.1)"


def eventually(condition: Callable[[], bool], timeout_s: float = 40) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def submit(cluster: Cluster, *arguments: str) -> str:
    result = cluster.run("sbatch", "--parsable", "--output=/dev/null", *arguments)
    return result.stdout.strip()


def states(cluster: Cluster, job: str) -> dict[str, str]:
    """What squeue says, by job or array task."""
    lines = cluster.run("squeue", "-h", "-r", "-t", "all", "-j", job, "-o", "%i %T").stdout
    return dict(line.split() for line in lines.splitlines())


def wait_for(cluster: Cluster, job: str, *wanted: str) -> None:
    eventually(lambda: set(states(cluster, job).values()) <= set(wanted))


def accounted(cluster: Cluster, job: str) -> list[tuple[str, str]]:
    """What sacct says: the state of every attempt and step, oldest first."""
    cluster.wait_until_accounted()
    lines = cluster.run("sacct", "-n", "-P", "-D", "-j", job, "-o", "jobid,state").stdout
    return [(job, state) for job, _, state in (line.partition("|") for line in lines.splitlines())]


@pytest.fixture(scope="module")
def cluster(real_slurm: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Not the shared one: here accounting and queue are compared job by job, of all jobs."""
    with Cluster(tmp_path_factory.mktemp("testbed")) as running:
        yield running


@pytest.fixture
def bare(real_slurm: None, tmp_path: Path) -> Iterator[Cluster]:
    """The least there is: one node, no accounting, memory limited by polling."""
    with Cluster(
        tmp_path / "bare", accounting=False, nodes=1, max_array_size=11, memory_limits="polling"
    ) as running:
        yield running


class TestJobs:
    def test_one_step_spans_three_nodes_that_know_their_names(self, cluster: Cluster) -> None:
        tell = ("srun", "-N3", "-n3", "bash", "-c", "echo $SLURMD_NODENAME")
        assert set(cluster.run(*tell).stdout.split()) == set(cluster.nodes)

    def test_an_array_runs_and_accounting_knows_each_task(self, cluster: Cluster) -> None:
        job = submit(cluster, "--array=0-5%4", "--wrap", "srun true")
        wait_for(cluster, job, "COMPLETED")
        tasks = {name: state for name, state in accounted(cluster, job) if "." not in name}
        assert tasks == {f"{job}_{i}": "COMPLETED" for i in range(6)}

    def test_accounts_and_qualities_of_service_can_be_made(self, cluster: Cluster) -> None:
        cluster.add_account("lab")
        cluster.add_qos("patient", "MaxJobsPerUser=1")
        job = submit(cluster, "--account=lab", "--qos=patient", "--wrap", "true")
        wait_for(cluster, job, "COMPLETED")
        cluster.wait_until_accounted()
        told = cluster.run("sacct", "-n", "-P", "-X", "-j", job, "-o", "account,qos").stdout
        assert told == "lab|patient\n"

    def test_an_urgent_job_requeues_one_that_is_in_its_way(self, cluster: Cluster) -> None:
        job = submit(cluster, "--array=0-2", "--exclusive", "--wrap", "srun sleep 60")
        wait_for(cluster, job, "RUNNING")
        urgent = submit(cluster, "--partition=urgent", "--wrap", "true")
        wait_for(cluster, urgent, "COMPLETED")
        assert sorted(states(cluster, job).values()) == ["PENDING", "RUNNING", "RUNNING"]
        (victim,) = (task for task, state in states(cluster, job).items() if state == "PENDING")
        assert (victim, "PREEMPTED") in accounted(cluster, victim)
        cluster.start_now(victim)
        wait_for(cluster, victim, "RUNNING")
        cluster.run("scancel", job)
        wait_for(cluster, job, "CANCELLED")

    def test_a_job_over_its_time_is_ended_within_half_a_minute(self, cluster: Cluster) -> None:
        job = submit(cluster, "--time=10", "--wrap", "srun sleep 600")
        wait_for(cluster, job, "RUNNING")
        cluster.expire(job)
        wait_for(cluster, job, "TIMEOUT")
        assert (job, "TIMEOUT") in accounted(cluster, job)

    def test_a_step_over_its_memory_is_ended_and_named(self, cluster: Cluster) -> None:
        command = f"srun {sys.executable} -c {shlex.quote(HOG)}"
        job = submit(cluster, "--mem=200", "--wrap", command)
        wait_for(cluster, job, "FAILED")
        step = dict(accounted(cluster, job))[f"{job}.0"]
        if cluster.memory_limits == "cgroup":
            assert step == "OUT_OF_MEMORY"
        else:
            assert step.startswith("CANCELLED by")


class TestFaults:
    def test_a_running_job_survives_a_restart_of_the_controller(self, cluster: Cluster) -> None:
        job = submit(cluster, "--wrap", "sleep 600")
        wait_for(cluster, job, "RUNNING")
        cluster.stop_controller()
        refused = cluster.run("squeue", check=False)
        assert "Unable to contact slurm controller" in refused.stderr
        cluster.start_controller()
        assert states(cluster, job) == {job: "RUNNING"}
        cluster.run("scancel", job)
        wait_for(cluster, job, "CANCELLED")

    def test_a_job_on_a_failing_node_is_queued_again_and_runs_again(
        self, cluster: Cluster, tmp_path: Path
    ) -> None:
        node, log = cluster.nodes[2], tmp_path / "log"
        script = 'echo attempt ${SLURM_RESTART_COUNT:-0}; [ -n "$SLURM_RESTART_COUNT" ] || sleep 60'
        job = submit(cluster, "-w", node, f"-o{log}", "--open-mode=append", "--wrap", script)
        wait_for(cluster, job, "RUNNING")
        eventually(log.exists)
        cluster.fail_node(node)
        assert states(cluster, job) == {job: "PENDING"}
        cluster.resume_node(node)
        cluster.start_now(job)
        wait_for(cluster, job, "COMPLETED")
        attempts = [state for name, state in accounted(cluster, job) if name == job]
        assert attempts == ["NODE_FAIL", "COMPLETED"]
        assert log.read_text().splitlines()[0] == "attempt 0"
        assert log.read_text().splitlines()[-1] == "attempt 1"

    def test_jobs_run_while_accounting_is_down_and_are_told_afterwards(
        self, cluster: Cluster
    ) -> None:
        cluster.stop_accounting()
        refused = cluster.run("sacct", check=False)
        assert refused.returncode != 0
        assert "Connection refused" in refused.stderr
        job = submit(cluster, "--wrap", "true")
        wait_for(cluster, job, "COMPLETED")
        cluster.start_accounting()
        told = ("sacct", "-n", "-P", "-X", "-j", job, "-o", "jobid,state")
        eventually(lambda: cluster.run(*told).stdout == f"{job}|COMPLETED\n")

    def test_a_node_that_does_not_exist_is_refused_by_name(self, cluster: Cluster) -> None:
        with pytest.raises(TestbedError, match=cluster.nodes[0]):
            cluster.fail_node("n17")


class TestWithoutAccounting:
    def test_sacct_says_so_arrays_are_bounded_and_memory_is_polled(
        self, bare: Cluster, tmp_path: Path
    ) -> None:
        assert "accounting storage is disabled" in bare.run("sacct", check=False).stderr
        with pytest.raises(TestbedError, match="Invalid job array specification"):
            submit(bare, "--array=0-11", "--wrap", "true")
        log = tmp_path / "log"
        command = f"{sys.executable} -c {shlex.quote(HOG)}"
        job = submit(bare, "--mem=200", f"-o{log}", "--wrap", command)
        wait_for(bare, job, "FAILED")
        assert "exceeded memory limit" in log.read_text()


class TestDown:
    def test_running_jobs_end_with_the_cluster_even_detached_ones(
        self, real_slurm: None, tmp_path: Path
    ) -> None:
        directory = tmp_path / "cluster"
        with Cluster(directory, accounting=False, nodes=1) as running:
            job = submit(running, "--wrap", "setsid sleep 600 & srun sleep 600")
            step = submit(running, "--wrap", "srun sleep 600")
            wait_for(running, f"{job},{step}", "RUNNING")
            groups = [memory.memory_cgroup(), running.nodes[0]]
            assert traces(directory)
        assert traces(directory) == []
        if groups[0]:
            assert not Path(groups[0], f"slurm_{groups[1]}").exists()
        assert not take_down(directory)

    def test_a_cluster_ends_when_its_starter_is_killed(
        self, real_slurm: None, tmp_path: Path
    ) -> None:
        directory = tmp_path / "cluster"
        script = (
            "import pathlib, sys, time; from slurm.testbed import Cluster;"
            "Cluster(pathlib.Path(sys.argv[1]), accounting=False, nodes=1).start();"
            "print('up', flush=True); time.sleep(600)"
        )
        command = [sys.executable, "-c", script, str(directory)]
        with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as starter:
            assert starter.stdout is not None
            assert starter.stdout.readline() == b"up\n"
            starter.kill()
        eventually(lambda: traces(directory) == [])

    def test_a_cluster_in_a_long_path_with_blanks_goes_up_and_down_from_the_shell(
        self, real_slurm: None, tmp_path: Path
    ) -> None:
        directory = tmp_path / "a long path" / ("x" * 80)
        testbed = [sys.executable, "-m", "slurm.testbed"]
        up = [*testbed, "up", str(directory), "--no-accounting", "--nodes=1", "--min-job-age=2"]
        told = subprocess.run(up, cwd=REPOSITORY, capture_output=True, text=True, check=True)
        name, _, base = told.stdout.strip().removeprefix("export ").partition("=")
        again = subprocess.run(up, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert (name, again.returncode) == ("SLURM_CONF", 1)
        assert "is up in" in again.stderr
        environment = {**os.environ, name: base}
        hello = ["srun", "echo", "hello"]
        assert subprocess.check_output(hello, env=environment, text=True) == "hello\n"
        subprocess.run([*testbed, "down", str(directory)], cwd=REPOSITORY, check=True)
        assert traces(directory) == []
        assert not Path(base).parent.exists()

    def test_a_process_that_got_a_daemons_id_is_left_alone(self, tmp_path: Path) -> None:
        layout = Layout(tmp_path)
        layout.make_directories()
        with subprocess.Popen(["sleep", "600"]) as bystander:
            record = f'{{"pid": {bystander.pid}, "start_ticks": 1}}'
            layout.daemon_record("slurmctld").write_text(record)
            Daemons(layout).stop("slurmctld")
            assert bystander.poll() is None
            bystander.send_signal(signal.SIGKILL)


class TestRefusals:
    def test_a_machine_without_slurm_is_told_what_to_install(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(requirements, "search_path", lambda: "/nowhere")
        reason = requirements.unavailable_reason(accounting=False)
        assert reason is not None
        assert "needs munged, slurmctld" in reason
        assert reason.endswith(
            "apt-get install --no-install-recommends munge slurm-client slurmctld slurmd"
        )

    def test_a_directory_with_foreign_files_is_refused(
        self, real_slurm: None, tmp_path: Path
    ) -> None:
        (tmp_path / "database").mkdir()
        with pytest.raises(TestbedError, match="is no testbed's"):
            Cluster(tmp_path).start()
        assert (tmp_path / "database").exists()

    def test_options_out_of_range_are_refused_by_name(self, tmp_path: Path) -> None:
        with pytest.raises(TestbedError, match="max_array_size must be at least 2, not 1"):
            Cluster(tmp_path, max_array_size=1)


def traces(directory: Path) -> list[str]:
    """Processes whose command, environment or open files name the directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        try:
            texts = [(process / name).read_bytes() for name in ("cmdline", "environ")]
            texts += [os.fsencode(entry.readlink()) for entry in (process / "fd").iterdir()]
        except OSError:
            continue
        if any(os.fsencode(directory) in text for text in texts):
            found.append(process.name)
    return found
