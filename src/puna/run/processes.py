"""The processes of one run, where torchrun started several: the first one leads and tells the others.

    torchrun --nproc-per-node 8 -m puna run RECIPE

The first process plans, locks, verifies, and makes the stages that need no other. The others wait for the
stages that all make together, and are told the folders and fingerprints then. They ask a store of torchrun's
from time to time, so a wait may take hours. A process alone has no store, no group, and asks nobody.
"""

import datetime
import json
import os
import time
import uuid
from typing import Any

from puna.errors import UserError
from puna.run.settings import ClusterSettings, MeshSettings

ASK_SECONDS = 0.2  # between two questions to the store
START_SECONDS = 600.0  # in which all processes have to start
LAST_SECONDS = 60.0  # in which the others may take what they were told last


class Processes:
    """This process among those of its run. rank, world: its number among how many, as torchrun counts;
    local_rank, local_world: those of this machine."""

    def __init__(self, rank: int = 0, world: int = 1, local_rank: int = 0, local_world: int = 1) -> None:
        self.rank, self.world, self.local_rank, self.local_world = rank, world, local_rank, local_world
        self._told = 0
        self._store: Any = None

    @classmethod
    def started(cls) -> "Processes":
        """Those of the environment that torchrun makes; one alone without it."""
        world = int(os.environ.get("WORLD_SIZE", "1"))
        if world == 1 or "MASTER_ADDR" not in os.environ:
            return cls()
        rank, local_rank, local_world = (
            int(os.environ.get(name, default))
            for name, default in (("RANK", "0"), ("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", str(world)))
        )
        processes = cls(rank, world, local_rank, local_world)
        from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

        store = TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True",
            timeout=datetime.timedelta(seconds=START_SECONDS),
            wait_for_workers=False,
        )
        # What was told before torchrun started them again is told again.
        processes._store = PrefixStore(processes._attempt(PrefixStore("puna", store)), store)
        return processes

    def _attempt(self, store: Any) -> str:
        """Which start of these processes this is, the same in all.

        torchrun's own count is that of one machine: it grows only where a process failed. So each process
        says a word of its own, and the first one answers it until it is heard. Raises UserError where one
        does not start.
        """
        end, word = time.monotonic() + START_SECONDS, uuid.uuid4().hex
        attempt, missing = "", set(range(1, self.world) if self.rank == 0 else (self.rank,))
        if self.rank == 0:
            attempt = f"attempt-{store.add('attempt', 1)}"
        else:
            store.set(f"word/{self.rank}", word)
        while missing:
            for rank in sorted(missing):
                if not store.check([f"word/{rank}"]):
                    continue
                asked, answer, heard = f"word/{rank}", f"answer/{rank}", f"heard/{rank}"
                told = store.get(answer).decode() if store.check([answer]) else ""
                if self.rank == 0:
                    said = f"{store.get(asked).decode()} {attempt}"
                    if told != said:
                        store.set(answer, said)
                    elif store.check([heard]) and store.get(heard).decode() == said:
                        missing.remove(rank)
                elif told.startswith(word):
                    store.set(heard, told)
                    attempt = told.removeprefix(f"{word} ")
                    missing.remove(rank)
            if missing and time.monotonic() > end:
                who = f"process {min(missing)}" if self.rank == 0 else "the first process"
                raise UserError(f"{who} of this run has not started within {START_SECONDS:g} s")
            time.sleep(self.ask_seconds if missing else 0)
        return attempt

    @property
    def ask_seconds(self) -> float:
        """Between two questions to the store, which answers all processes."""
        return ASK_SECONDS + self.world / 1000

    def tell(self, message: dict[str, Any]) -> None:
        """Tell the other processes something; for the first one."""
        if self._store is not None:
            self._store.set(f"told/{self._told}", json.dumps(message))
            self._told += 1

    def hear(self) -> dict[str, Any]:
        """What the first process tells next, however long that takes. Raises UserError when it is gone."""
        key = f"told/{self._told}"
        try:
            while not self._store.check([key]):
                time.sleep(self.ask_seconds)
            message: dict[str, Any] = json.loads(self._store.get(key))
            self._store.add("heard", 1)
        except RuntimeError as error:
            raise UserError("the first process of this run has ended; it says why") from error
        self._told += 1
        return message

    def store(self) -> Any:
        """The store over a connection of its own, for another thread; None where there is one process."""
        return self._store and self._store.clone()

    def close(self) -> None:
        """Let the others take what they were told, where the store is this process's own."""
        end = time.monotonic() + LAST_SECONDS
        if self._store is not None and self.rank == 0:
            while self._store.add("heard", 0) < self._told * (self.world - 1) and time.monotonic() < end:
                time.sleep(ASK_SECONDS)

    def mesh(self, device: str, cluster: ClusterSettings) -> Any:
        """Join torch's process group; the device mesh of all processes. `leave_group` ends it."""
        import torch
        import torch.distributed as dist
        from torch.distributed.distributed_c10d import PrefixStore, _set_pg_timeout

        if device == "cuda":
            torch.cuda.set_device(self.local_rank)
        time_out = datetime.timedelta(seconds=cluster.time_out_seconds)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo",
            store=PrefixStore("group", self._store),
            rank=self.rank,
            world_size=self.world,
            timeout=time_out,
        )
        names = ("replicate", "shard", "tensor")
        sizes = mesh_sizes(cluster.mesh, self.world)
        mesh = dist.device_mesh.init_device_mesh(device, sizes, mesh_dim_names=names)
        for name in names:
            _set_pg_timeout(time_out, mesh[name].get_group())
        return mesh

    def leave_group(self) -> None:
        """Leave torch's process group, where there is one."""
        if self.world > 1:
            import torch.distributed as dist

            dist.destroy_process_group()


ALONE = Processes()


def mesh_sizes(mesh: MeshSettings, world: int) -> tuple[int, int, int]:
    """(replicate, shard, tensor) of so many processes. Raises UserError where they are not as many."""
    outside = mesh.replicate * mesh.tensor
    shard = world // outside if mesh.shard == "all" else mesh.shard
    if mesh.shard == "all" and outside * shard != world:
        raise UserError(
            f"cluster.mesh: {world} processes, which torchrun started, cannot be divided by replicate x "
            f"tensor = {outside}"
        )
    if outside * shard != world:
        raise UserError(
            f"cluster.mesh: replicate {mesh.replicate} x shard {mesh.shard} x tensor {mesh.tensor} is not "
            f"{world}, the number of processes that torchrun started"
        )
    return mesh.replicate, shard, mesh.tensor
