"""Several processes that compute one thing together, each with a part of the photos, by torch.distributed: gloo between
processors, NCCL between GPUs.

A rank is one of them. All ranks have the same weights, the same state and the same clock at every step; each computes
on its part of a step, and what follows from all parts is made known to all. With one rank nothing is exchanged, and
whatever is asked here is answered from what that rank has.

Rows of a tensor that lie on different ranks are brought together by a sum with zeros, which changes no bit of them and
takes parts of any sizes.
"""

import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.nn  # imported later, its functions would keep the group, as a default of theirs

from pipeline.blocks import parts
from pipeline.errors import UserError
from pipeline.launch import Launch, read_launch
from pipeline.memory import is_out_of_memory

PATIENCE = timedelta(hours=2)  # while one rank packs photos. One that dies is noticed at once.
BUCKET = 2**23  # numbers that are exchanged at a time: enough to fill a network, little beside the gradient

Made = TypeVar("Made")


class RankLost(UserError):
    """Another rank has failed, was killed, or cannot be reached."""


@dataclass(frozen=True)
class Ranks:
    """Which of `num_ranks` ranks this one is, and on its machine which of `num_local`. Rank 0 is the main one: it alone
    prints and writes. Everything that exchanges something has to be called by all ranks, in the same order.
    """

    rank: int = 0
    num_ranks: int = 1
    local_rank: int = 0
    num_local: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def part(self, total: int, *, unit: int = 1) -> slice:
        """This rank's part of `total` things that lie in a row, whole blocks of `unit` where it is more than one."""
        own = parts(-(-total // unit), self.num_ranks)[self.rank]
        return slice(min(own.start * unit, total), min(own.stop * unit, total))

    def all_reduce(self, tensors: Sequence[torch.Tensor]):
        """Replaces each by its sum over the ranks, some 8 million numbers at a time."""
        if self.num_ranks == 1:
            return
        pending = []
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.detach().reshape(-1) for tensor in bucket])
            with _lost_named():
                pending.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
        with _lost_named():
            for _, _, work in pending:
                work.wait()
        for bucket, flat, _ in pending:
            for tensor, found in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
                tensor.detach().copy_(found.view_as(tensor))

    def broadcast(self, tensors: Sequence[torch.Tensor]):
        """Replaces each by that of the main rank."""
        if self.num_ranks > 1:
            with _lost_named():
                for tensor in tensors:
                    own = tensor.detach().contiguous()
                    dist.broadcast(own, 0)
                    tensor.detach().copy_(own)

    def gather_rows(self, own: torch.Tensor, rows: slice, total: int) -> torch.Tensor:
        """(total, …) of all ranks, of which this one has `own`, (B, …), at `rows`."""
        if self.num_ranks == 1:
            return own
        found = own.new_zeros((total, *own.shape[1:]))
        found[rows] = own
        with _lost_named():
            dist.all_reduce(found)
        return found

    def gather_arrays(self, own: np.ndarray, rows: slice, total: int) -> np.ndarray:
        """The same for arrays of numbers or of bool."""
        if self.num_ranks == 1:
            return own
        plain = own.astype(np.uint8) if own.dtype == bool else own
        return self.gather_rows(torch.from_numpy(plain), rows, total).numpy().astype(own.dtype, copy=False)

    def all_max(self, *numbers: float) -> list[float]:
        """Of each number the highest that any rank has."""
        if self.num_ranks == 1:
            return list(numbers)
        found = torch.tensor(numbers, dtype=torch.float64)
        with _lost_named():
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return found.tolist()

    def broadcast_numbers(self, *numbers: float) -> list[float]:
        """The numbers that the main rank has."""
        if self.num_ranks == 1:
            return list(numbers)
        found = torch.tensor(numbers, dtype=torch.float64)
        with _lost_named():
            dist.broadcast(found, 0)
        return found.tolist()

    def broadcast_text(self, make: Callable[[], str]) -> str:
        """What the main rank makes, while the others wait for it."""
        made = make().encode() if self.is_main else b""
        if self.num_ranks == 1:
            return made.decode()
        (length,) = self.broadcast_numbers(len(made))
        if not length:
            return ""
        text = (
            torch.tensor(list(made), dtype=torch.uint8) if self.is_main else torch.zeros(int(length), dtype=torch.uint8)
        )
        with _lost_named():
            dist.broadcast(text, 0)
        return bytes(text.tolist()).decode()

    def in_turn(self, make: Callable[[], Made]) -> Made:
        """What each rank makes, the first of each machine before the others: what it leaves in the cache, they find."""
        if self.local_rank > 0:
            self.barrier()
            return make()
        try:
            return make()
        finally:
            self.barrier()

    def barrier(self):
        """Until all ranks have come so far."""
        self.all_max(0)

    def __str__(self) -> str:
        machines = self.num_ranks // self.num_local
        return f"{self.num_ranks} processes" + (f" on {machines} machines" if machines > 1 else "")


ALONE = Ranks()


def current_ranks() -> Ranks:
    """The ranks within `connected`, and one rank outside it."""
    if not (dist.is_available() and dist.is_initialized()):
        return ALONE
    launch = read_launch()
    return Ranks(dist.get_rank(), dist.get_world_size(), launch.local_rank, launch.num_local)


@contextmanager
def connected(launch: Launch) -> Iterator[None]:
    """Within it the processes of a launch are connected. When any of them fails, the first one says why, and the others
    end without a word, as do all but the main one when they are told to stop.
    """
    store = _connect(launch)
    try:
        yield
        current_ranks().barrier()  # the store goes with the process that holds it
    except KeyboardInterrupt as stop:
        if launch.is_main and not _num_failures(store):
            raise
        sys.exit(getattr(stop, "status", 130))
    except Exception as error:
        if _num_failures(store, more=1) > 1:
            sys.exit(1)
        if isinstance(error, UserError) and not launch.is_main:
            raise UserError(f"process {launch.rank} of {launch.num_ranks}: {error}") from error
        raise
    # The group's threads end with it, if nobody else keeps it: one that lets go of a tensor while the interpreter ends
    # aborts the process. Not after a failure: what lets the others know is that this process has ended.
    dist.destroy_process_group()


def _connect(launch):
    """The store that all processes share. Raises UserError where they do not find one another."""
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    try:
        shared, rank, count = next(dist.rendezvous("env://", timeout=PATIENCE))
        store = _unwritten(shared, rank, count)
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=PATIENCE)
        dist.all_reduce(torch.zeros(1))  # one that had nothing to do would be gone before the others have found it
    except RuntimeError as error:  # that of the store and of the network among them
        raise RankLost(
            f"the {launch.num_ranks} processes do not find one another: {_first_line(error)}; see that torchrun's "
            "--rdzv-endpoint or --master-addr can be reached from each machine, and set GLOO_SOCKET_IFNAME"
        ) from error
    return store


def _unwritten(store, rank, count):
    """A part of the store that only these processes write to. torchrun may give those that it starts anew the store of
    the ones before them, in which these have left addresses that lead nowhere, and that they have failed.

    Rank 0 draws a name and tells it to each that asks by a name of its own, until all have said that they know it: what
    lies in the store from before is asked by none of them.
    """
    own, end = secrets.token_hex(8), time.monotonic() + PATIENCE.total_seconds()
    if rank > 0:
        store.set(f"asks/{rank}", own)
        _wait_until(lambda: store.check([f"told/{own}"]), end)
        name = store.get(f"told/{own}").decode()
        store.set(f"{name}/knows/{rank}", own)
        return dist.PrefixStore(name, store)
    for other in range(1, count):

        def knows(asks=f"asks/{other}", known=f"{own}/knows/{other}"):
            if store.check([asks]):
                store.set(f"told/{store.get(asks).decode()}", own)
            return store.check([known])

        _wait_until(knows, end)
    return dist.PrefixStore(own, store)


def _wait_until(holds: Callable[[], bool], end: float):
    """Asks again and again, so that a signal is noticed meanwhile."""
    while not holds():
        if time.monotonic() > end:
            raise RuntimeError("they have not all come")
        time.sleep(0.05)


def _num_failures(store: Any, *, more: int = 0) -> int:
    """How many processes have failed, with this one where it is one `more`."""
    try:
        return store.add("failures", more)
    except RuntimeError:  # it has gone with the process that held it
        return more


@contextmanager
def _lost_named() -> Iterator[None]:
    """Raises RankLost where torch says that an exchange has failed, but not for want of memory."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise RankLost(
            f"another process has failed, was killed, or cannot be reached ({_first_line(error)}); torchrun says which"
        ) from error


def _first_line(error):
    return str(error).strip().splitlines()[0][:200]


def _buckets(tensors):
    """Tensors of one type and device each, in order, as long as they are no more than BUCKET numbers."""
    bucket: list[torch.Tensor] = []
    for tensor in tensors:
        if bucket and (
            sum(other.numel() for other in bucket) + tensor.numel() > BUCKET
            or (tensor.dtype, tensor.device) != (bucket[0].dtype, bucket[0].device)
        ):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket
