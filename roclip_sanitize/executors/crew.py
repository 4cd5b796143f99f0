"""Workers that each own a part, on actors, any of which may be lost: what Executor.crew is on Ray."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, zip_longest
from typing import Any

import ray

from roclip_sanitize.executors.actors import Lost, Recipe, came_up, fetch, no_retry_left, remove

QUESTIONS_IN_FLIGHT = 4
PATIENCE_SECONDS = 30.0  # for an actor to start, before a neighbour does its part
_NOBODY = object()

_Asked = tuple[Any, list[tuple[Any, Any]]]
"""A question, and of each member who was asked and where the answer will be."""


class RayCrew:
    """Workers that each own a part, spread over actors. The part of a lost one moves to another.

    Args:
        actors: the borrower's list. Lost ones leave it, their replacements join it.
        recipes: of the workers, one for each of the actors.
        start: starts an actor.
        lives: how often a question may be put again to one of them.
    """

    def __init__(
        self, actors: list[Any], recipes: Sequence[Recipe], start: Callable[[], Any], *, lives: int
    ) -> None:
        self._actors, self._recipes, self._start, self._lives = actors, recipes, start, lives
        self._hosts = list(actors)
        pings = [actor.ready.remote() for actor in actors]
        answered, late = ray.wait(pings, num_returns=len(pings), timeout=PATIENCE_SECONDS)
        if not answered:
            return  # no room for anybody: waiting is all there is to do
        for actor, ping in zip(self._hosts, pings, strict=True):
            if ping in late:
                remove(actors, actor)
        for member, ping in enumerate(pings):
            if ping in late:
                self._hosts[member] = self._neighbour()
            elif not came_up(ping):
                self._move(member, self._hosts[member])

    def ask(self, questions: Iterable[Any]) -> Iterator[list[Any]]:
        """See Crew.ask. The first questions are put at once, so that several crews begin together."""
        waiting = iter(questions)
        first = [self._put(question) for question in islice(waiting, QUESTIONS_IN_FLIGHT)]
        return self._answers(deque(first), waiting)

    def _answers(self, running: deque[_Asked], waiting: Iterator[Any]) -> Iterator[list[Any]]:
        while running:
            shared, asked = running.popleft()
            by_actor = [self._answer(member, shared, *told) for member, told in enumerate(asked)]
            running.extend(self._put(question) for question in islice(waiting, 1))
            rounds = zip_longest(*by_actor, fillvalue=_NOBODY)  # members were dealt out in turn
            yield [answer for turn in rounds for answer in turn if answer is not _NOBODY]

    def _put(self, question: Any) -> _Asked:
        shared = ray.put(question)
        hosts = zip(self._hosts, self._recipes, strict=True)
        return shared, [(actor, recipe.put(actor, shared)) for actor, recipe in hosts]

    def _answer(self, member: int, shared: Any, actor: Any, reference: Any) -> Any:
        """What a member answers, wherever it must be built for that."""
        for _ in range(self._lives):
            try:
                return fetch(reference)
            except Lost:
                if self._hosts[member] is actor:  # else an earlier question has found out
                    self._move(member, actor)
            actor = self._hosts[member]
            reference = self._recipes[member].put(actor, shared)
        try:
            return fetch(reference)
        except Lost as error:
            raise no_retry_left(error) from error

    def _move(self, member: int, lost: Any) -> None:
        """Find another host: a new actor if there is room for one, else a neighbour, if there is one."""
        remove(self._actors, lost)
        new = self._start()
        self._actors.append(new)
        answered, _ = ray.wait([new.ready.remote()], timeout=PATIENCE_SECONDS)
        if not answered and len(self._actors) > 1:
            remove(self._actors, new)
            new = self._neighbour()
        self._hosts[member] = new

    def _neighbour(self) -> Any:
        """The actor that has the fewest members."""
        return min(self._actors, key=self._hosts.count)
