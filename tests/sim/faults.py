"""What goes wrong with processes, connections, clocks and disks, and how it is mended.

Each fault is one method named after its kind. It strikes something that is there, plans its own end, and
leaves nothing behind that would not end by itself in a real system too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tests.sim.agents import Agent
    from tests.sim.brokers import Broker
    from tests.sim.clients import Client
    from tests.sim.network import Connection
    from tests.sim.process import Process
    from tests.sim.world import World

JUMPS_S: Final = (-3600.0, -10.0, 10.0, 3600.0)


class Faults:
    """Strikes one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._dice = world.dice

    def strike(self, kind: str) -> None:
        """Let a fault of a kind happen, if there is something for it to happen to."""
        if getattr(self, "_" + kind.replace(" ", "_").replace("-", "_"))():
            self._world.struck(kind)
            if self._world.tracing:
                self._world.note(f"! {kind}")

    # ---- picking

    def _broker(self) -> Broker | None:
        up = [broker for broker in self._world.brokers if broker.up]
        return self._dice.choice(up) if up else None

    def _agent(self) -> Agent | None:
        up = [agent for agent in self._world.agents if agent.up]
        return self._dice.choice(up) if up else None

    def _client(self) -> Client | None:
        up = [client for client in self._world.clients if client.up]
        return self._dice.choice(up) if up else None

    def _connection(self) -> Connection | None:
        found = [
            c for broker in self._world.brokers for port in broker.ports for c in port.connections.values()
        ]
        return self._dice.choice(found) if found else None

    def _again(self, process: Process, most_s: float) -> None:
        self._world.schedule.after(0.05 + most_s * self._dice.random(), process.start)

    # ---- brokers

    def _broker_crash(self) -> bool:
        broker = self._broker()
        if broker is not None:
            broker.crash(silently=self._dice.random() < 0.2)
            self._again(broker, 3.0)
        return broker is not None

    def _broker_disk_lost(self) -> bool:
        broker = self._broker()
        if broker is not None:
            broker.crash()
            broker.disk.__init__()
            self._world.accounts.promised.pop(broker.index, None)
            self._again(broker, 3.0)
        return broker is not None

    def _broker_pause(self) -> bool:
        return self._pause(self._broker())

    def _broker_drain(self) -> bool:
        broker = self._broker()
        if broker is None or broker.paused:
            return False
        broker.stop()
        return True

    def _clock_jump(self) -> bool:
        broker = self._broker()
        if broker is not None:
            broker.wall_offset += self._dice.choice(JUMPS_S)
        return broker is not None

    def _disk_full(self) -> bool:
        disk = self._dice.choice(self._world.brokers).disk
        disk.full = True
        self._world.schedule.after(0.1 + 2 * self._dice.random(), setattr, disk, "full", False)
        return True

    # ---- workers

    def _agent_crash(self) -> bool:
        agent = self._agent()
        if agent is not None:
            agent.crash(silently=self._dice.random() < 0.3)
            self._again(agent, 2.0)
        return agent is not None

    def _agent_pause(self) -> bool:
        return self._pause(self._agent())

    def _agent_drain(self) -> bool:
        agent = self._agent()
        if agent is None or agent.paused:
            return False
        agent.stop(at_once=False)
        return True

    def _agent_leaves_at_once(self) -> bool:
        agent = self._agent()
        if agent is None or agent.paused:
            return False
        agent.stop(at_once=True)
        return True

    def _admin_drain(self) -> bool:
        broker = self._broker()
        if broker is None or broker.paused or not broker.core.members.by_id:
            return False
        broker.core.drain_worker(self._dice.choice(list(broker.core.members.by_id)))
        broker.wake()
        return True

    def _engine_crash(self) -> bool:
        agent = self._agent()
        if agent is None or not agent.engines:
            return False
        self._dice.choice(list(agent.engines.values())).kill("signal 11, SIGSEGV")
        return True

    def _engine_pause(self) -> bool:
        agent = self._agent()
        if agent is None or not agent.engines:
            return False
        engine = self._dice.choice(list(agent.engines.values()))
        engine.paused_until = self._world.schedule.now + 8 * self._dice.random()
        return True

    # ---- clients

    def _client_crash(self) -> bool:
        client = self._client()
        if client is not None:
            client.crash(silently=self._dice.random() < 0.3)
            self._again(client, 2.0)
        return client is not None

    def _client_pause(self) -> bool:
        return self._pause(self._client())

    # ---- the network

    def _cut(self) -> bool:
        connection = self._connection()
        if connection is not None:
            connection.cut()
        return connection is not None

    def _half_open(self) -> bool:
        connection = self._connection()
        if connection is None:
            return False
        ways = self._dice.choice(((True, False), (False, True), (True, True)))
        connection.up.holds |= ways[0]
        connection.down.holds |= ways[1]
        return True

    def _partition(self) -> bool:
        world = self._world
        broker = self._broker()
        process = self._dice.choice([*world.agents, *world.clients])
        if broker is None:
            return False
        until = world.schedule.now + 0.1 + 6 * self._dice.random()
        world.network.parted[process.name, broker.name] = until
        breaks = self._dice.random() < 0.5
        for connection in world.network.connections_of(broker):
            if connection.socket.owner is not process:
                continue
            if breaks:
                # Nobody gets an acknowledgement: the connection ends when the first answer comes back.
                connection.up.holds = connection.down.holds = True
                world.schedule.at(until, connection.cut)
            else:
                # What is sent meanwhile is sent again until it arrives.
                connection.up.last_at = max(connection.up.last_at, until)
                connection.down.last_at = max(connection.down.last_at, until)
        return True

    def _pause(self, process: Process | None) -> bool:
        if process is None or process.paused:
            return False
        process.pause(0.05 + self._dice.choice((0.5, 8.0)) * self._dice.random())
        return True
