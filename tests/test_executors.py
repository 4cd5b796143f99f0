"""One contract, every executor; and what only Ray can do: survive a worker that dies."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from roclip_sanitize.errors import ConfigError, MismatchError, ShardUnreadable, WorkerLost
from roclip_sanitize.executors import open_executor
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.executors.local import LocalExecutor


@pytest.fixture(scope="module", params=["local", pytest.param("ray", marks=pytest.mark.slow)])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    if request.param == "local":
        yield LocalExecutor()
        return
    import ray

    yield open_executor("ray", workers=2)
    ray.shutdown()


class Squarer:
    """Squares what it is given; thirteen is unlucky, and zero divides."""

    def __call__(self, task: int) -> int:
        if task == 13:
            raise ShardUnreadable("thirteen.tar is empty (0 bytes)")
        if task == 0:
            raise ZeroDivisionError("nought")
        return task * task


class Unbuildable:
    def __init__(self) -> None:
        raise ConfigError("no such model")

    def __call__(self, task: int) -> int:
        return task


class Counter:
    """Numbers its calls: one worker is built once, not once per task."""

    def __init__(self) -> None:
        self._calls = 0

    def __call__(self, task: int) -> int:
        self._calls += 1
        return self._calls


# map


def test_every_task_gives_one_result(executor: Executor) -> None:
    assert sorted(executor.map(Squarer, range(1, 12))) == [n * n for n in range(1, 12)]


def test_no_task_builds_no_worker(executor: Executor) -> None:
    assert list(executor.map(Unbuildable, [])) == []


def test_tasks_are_pulled_lazily(executor: Executor) -> None:
    pulled = list[int]()

    def endless() -> Iterator[int]:
        for number in itertools.count(1):
            pulled.append(number)
            yield 3

    results = executor.map(Squarer, endless())
    assert list(itertools.islice(results, 5)) == [9] * 5
    assert len(pulled) <= 5 + 2 * executor.size


def test_a_worker_is_built_once(executor: Executor) -> None:
    calls = list(executor.map(Counter, range(12)))
    assert max(calls) >= 12 / executor.size
    assert calls.count(1) <= executor.size


def test_each_map_builds_its_own_workers(executor: Executor) -> None:
    assert [min(executor.map(Counter, range(2))) for _ in range(2)] == [1, 1]


@pytest.mark.parametrize(
    ("task", "error", "message"),
    [(13, ShardUnreadable, r"^thirteen\.tar is empty"), (0, ZeroDivisionError, "nought")],
)
def test_a_workers_error_arrives_as_it_was_raised(
    executor: Executor, task: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        list(executor.map(Squarer, [1, 2, task, 3]))
    assert list(executor.map(Squarer, [2])) == [4]  # and the executor is none the worse


def test_a_worker_that_cannot_be_built_says_why(executor: Executor) -> None:
    with pytest.raises(ConfigError, match=r"^no such model$"):
        list(executor.map(Unbuildable, [1]))


# crew


class Owner:
    """Owns a number, and multiplies by it."""

    def __init__(self, own: int) -> None:
        self._own = own

    def __call__(self, question: int) -> int:
        if question < 0:
            raise MismatchError("below zero")
        return self._own * question


def owners(count: int) -> Sequence[Callable[[], Owner]]:
    return [partial(Owner, number) for number in range(1, count + 1)]


@pytest.mark.parametrize("members", [1, 2, 5])
def test_every_member_answers_in_order(executor: Executor, members: int) -> None:
    """Five are more than there are workers."""
    with executor.crew(owners(members)) as crew:
        answers = list(crew.ask(range(20)))
        assert answers == [[own * question for own in range(1, members + 1)] for question in range(20)]
        assert list(crew.ask([])) == []
        assert list(crew.ask([7])) == [[7 * own for own in range(1, members + 1)]]


def test_questions_are_pulled_lazily(executor: Executor) -> None:
    with executor.crew(owners(2)) as crew:
        assert list(itertools.islice(crew.ask(itertools.count()), 3)) == [[0, 0], [1, 2], [2, 4]]


def test_a_members_error_arrives_as_it_was_raised(executor: Executor) -> None:
    with pytest.raises(MismatchError, match=r"^below zero$"), executor.crew(owners(2)) as crew:
        list(crew.ask([1, -1]))


# gang


class SignsIn:
    """Leaves a file that says which rank it was, of how many."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, rank: int, size: int) -> None:
        (self._folder / f"{rank} of {size}").touch()


def refuse(rank: int, size: int) -> None:
    raise MismatchError("the weights do not fit")


def test_a_gang_has_every_rank(executor: Executor, tmp_path: Path) -> None:
    folder = tmp_path / "seen"
    folder.mkdir()
    executor.gang(SignsIn(folder), folder=str(tmp_path / "state"))
    seen = {path.name for path in folder.iterdir()}
    assert seen == {f"{rank} of {executor.size}" for rank in range(executor.size)}


def write_beside(task: Path) -> Path:
    task.write_text("here")
    return task.absolute()


def test_a_relative_path_means_the_same_to_driver_worker_and_rank(
    executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("seen").mkdir()
    executor.gang(SignsIn(Path("seen")), folder=str(tmp_path / "state"), ranks=1)
    assert [path.name for path in (tmp_path / "seen").iterdir()] == ["0 of 1"]
    assert list(executor.map(lambda: write_beside, [Path("mine")])) == [tmp_path / "mine"]


def test_what_a_member_raises_on_purpose_arrives_as_itself(executor: Executor, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match=r"^the weights do not fit$"):
        executor.gang(refuse, folder=str(tmp_path), restarts=0)


# Which executor


def test_executors_are_opened_by_name() -> None:
    assert open_executor("local", workers=3).size == 1
    with pytest.raises(ConfigError, match="executor is 'dask', wanted one of ray, local"):
        open_executor("dask")
    with pytest.raises(ConfigError, match="workers is -1"):
        open_executor("local", workers=-1)


# Death


class DiesOnce:
    """Is killed by its first task, and by no other."""

    def __init__(self, flag: Path) -> None:
        self._flag = flag

    def __call__(self, task: int) -> int:
        if not self._flag.exists():
            self._flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return task * task


def die(task: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return task


def make_die() -> Callable[[int], int]:
    return die


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["ray"], indirect=True)
def test_a_worker_that_is_killed_starts_again_and_loses_no_task(executor: Executor, tmp_path: Path) -> None:
    results = executor.map(partial(DiesOnce, tmp_path / "flag"), range(8))
    assert sorted(results) == [n * n for n in range(8)]
    assert (tmp_path / "flag").exists()


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["ray"], indirect=True)
def test_a_task_that_always_kills_is_given_up(executor: Executor) -> None:
    with pytest.raises(WorkerLost, match="a worker died and its task has no retry left: ") as caught:
        list(executor.map(make_die, [1]))
    assert str(caught.value).isprintable()
    assert list(executor.map(Squarer, [2])) == [4]


@pytest.mark.parametrize(
    ("nodes", "workers", "each"),
    [
        ((2,), 1, 2),
        ((2,), 2, 1),
        ((1, 1, 1), 1, 1),  # three cores, but none of three on one node
        ((3, 3), 2, 3),
        ((3, 3), 3, 1),  # of two cores each, only two workers would fit
        ((8, 4), 3, 4),
        ((2,), 5, 1),
    ],
)
def test_every_worker_fits_on_a_node(nodes: tuple[int, ...], workers: int, each: int) -> None:
    from roclip_sanitize.executors.cluster import cores_each

    assert cores_each(nodes, workers) == each


def test_workers_beside_a_gang_give_their_cores_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from roclip_sanitize.executors import cluster

    monkeypatch.setattr(cluster, "_connect", lambda: None)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 4})
    monkeypatch.setattr("ray.nodes", lambda: [{"Resources": {"CPU": 4}, "Alive": True}])
    executor = cluster.RayExecutor(2)
    for _ in range(5):  # as many trainings, one after the other
        with executor.aside(3) as others:
            assert others.size == 3
            with pytest.raises(ConfigError, match="1 workers beside the ranks leave none of 1 cores"):
                executor.aside(1).__enter__()
