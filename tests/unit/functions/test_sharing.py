"""Who accepts the next connection: the board of several workers, and one acceptor over it."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from functions.sharing import PATIENCE_S, Acceptor, Board
from tests.fakes_functions import until

DEADLINE_S = 20.0


@pytest.mark.parametrize(
    ("own", "others", "patience"),
    [
        ((True, 0), [(True, 0)], 0.0),
        ((True, 1), [(True, 1)], 0.0),
        ((True, 2), [(True, 1), (True, 5)], PATIENCE_S),
        ((True, 2), [(False, 0), (False, 0)], 0.0),
        ((True, 2), [(False, 0), (True, 2)], 0.0),
        ((False, 0), [(True, 9)], None),
        ((False, 0), [(False, 0)], 0.0),
    ],
)
def test_a_connection_is_left_to_who_is_better_off(
    own: tuple[bool, int], others: list[tuple[bool, int]], patience: float | None
) -> None:
    for slot in range(len(others) + 1):
        board = Board(len(others) + 1)
        entries = list(others)
        entries.insert(slot, own)
        for at, entry in enumerate(entries):
            board.write(at, *entry)
        assert board.patience(slot) == patience


def test_a_worker_that_is_gone_is_waited_for_by_nobody() -> None:
    board = Board(2)
    board.write(0, False, 0)
    board.write(1, True, 0)
    assert board.patience(0) is None
    board.clear(1)
    assert board.patience(0) == 0.0


def on_a_listener(
    test: Callable[[socket.socket, Board, Callable[[int, bool], Acceptor]], Awaitable[None]],
    taken: dict[int, list[socket.socket]],
) -> None:
    """Run `test` with a listener and a way to make acceptors, which fill `taken`."""

    async def run() -> None:
        board = Board(2)
        acceptors = []

        def make(slot: int, ready: bool) -> Acceptor:
            taken[slot] = []

            async def adopt(connection: socket.socket) -> None:
                taken[slot].append(connection)

            acceptors.append(
                Acceptor(
                    listener,
                    board,
                    slot,
                    ready=lambda: ready,
                    connections=lambda: len(taken[slot]),
                    adopt=adopt,
                )
            )
            return acceptors[-1]

        with socket.create_server(("127.0.0.1", 0)) as listener:
            try:
                await test(listener, board, make)
            finally:
                for acceptor in acceptors:
                    acceptor.close()
                for connection in (c for connections in taken.values() for c in connections):
                    connection.close()

    asyncio.run(run())


def test_a_worker_that_is_not_ready_leaves_all_to_its_sibling() -> None:
    taken: dict[int, list[socket.socket]] = {}

    async def test(
        listener: socket.socket, board: Board, make: Callable[[int, bool], Acceptor]
    ) -> None:
        board.write(1, True, 100)  # a ready sibling in another process
        own = make(0, False)
        with socket.create_connection(listener.getsockname()):
            await asyncio.sleep(0.2)
            assert taken[0] == []
            board.clear(1)  # it dies: now somebody has to say that nothing is ready
            await until(lambda: taken[0])
        own.close()

    on_a_listener(test, taken)


def test_a_sibling_that_does_not_come_is_not_waited_for_long() -> None:
    taken: dict[int, list[socket.socket]] = {}

    async def test(
        listener: socket.socket, board: Board, make: Callable[[int, bool], Acceptor]
    ) -> None:
        board.write(1, True, 0)  # better off, but stuck
        make(0, True)
        for count in range(1, 4):
            with socket.create_connection(listener.getsockname()):
                await until(lambda count=count: len(taken[0]) == count)

    on_a_listener(test, taken)
