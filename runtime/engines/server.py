"""A client of a model server, NVIDIA Triton Inference Server: the server steps, and keeps each camera's state.

A request carries one picture at the model's size, and its answer the predicted pictures, all as bytes. Whatever goes
wrong between here and the server costs a camera its state, but never ends its run: the next request that gets through
starts a new sequence. Until then, each prediction is a copy of the newest frame, and is counted.
"""

from __future__ import annotations

import logging
import os
import random
import re
import secrets
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framecast.camera import Image
from framecast.clock import SYSTEM, Clock
from framecast.errors import ArtifactError, EngineError, first_line
from framecast.graph.manifest import Manifest
from framecast.graph.repository import PROTOCOL
from framecast.runtime.convert import Tensor, to_model_size
from framecast.runtime.engines.engine import Engine, Moment, State
from framecast.runtime.engines.server_address import ServerAddress, order

TIMEOUT = 2.0  # seconds that an answer may take
OPENING = 10.0  # seconds that the first answer may take, while the server warms up
RETRY = 1.0  # seconds between two tries to reach a server that was lost
LONGEST = 16.0  # the same, at most, after it was late several times: it may be overloaded
LEAVING = 1.0  # seconds for the server to be told that a camera has left
TOKEN = "FRAMECAST_SERVER_TOKEN"  # noqa: S105 (the name of a variable)
_HERE = re.compile(r"(127(\.\d{1,3}){3}|localhost|\[::1\]):\d+")  # this machine
_START_MISSING = "must specify the start flag"  # the server's words for a sequence that it does not know
# What a client itself did wrong. Everything else may pass.
_FATAL = ("INVALID_ARGUMENT", "UNIMPLEMENTED", "UNAUTHENTICATED", "PERMISSION_DENIED")
_CHANNEL = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # each client its own connection
)

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Sequence:
    """A camera's stream on a server.

    Attributes:
        number: the correlation id, random, so that no two clients share one.
        hosts: the servers in the order in which this sequence tries them.
        started: whether a server has its state.
        at: that server. The next stream goes to the first one again, so that a server that is back gets its cameras.
    """

    number: int
    hosts: list[str]
    started: bool = False
    at: str = ""


@dataclass(eq=False)
class ServerState(State):
    """A state that lies on a server. Only the newest state of a sequence can be stepped.

    Attributes:
        sequence: the camera's stream.
        shown: the predicted pictures, uint8 [N, h, w, 3] BGR, or None if the server has not answered.
        finite: whether they are finite.
        pending: for a model of motion: the picture waits to be sent with the first moment that is asked for.
    """

    sequence: _Sequence = field(default_factory=lambda: _Sequence(0, []))
    shown: NDArray[np.uint8] | None = None
    finite: bool = True
    pending: bool = False

    def reset(self) -> None:
        """See :meth:`State.reset`."""
        self.sequence.started = False
        self.shown, self.pending = None, False


class ServerEngine(Engine):
    """See :class:`Engine`. It takes pictures only, and predicts as far ahead as the server's model does.

    With several servers, each sequence goes to one of them, chosen by its id; if that fails, to the next one.

    Args:
        address: the model's.
        timeout: seconds that an answer may take.
        clock: measures the time between tries.

    Attributes:
        lost: how often a camera lost its state, because the server or the connection failed.
        unanswered: steps without an answer.

    Raises:
        EngineError: the client is not installed, no server answers, or it has no such model.
        ArtifactError: the server's model is not one of framecast's, or of another version.
    """

    name = "server"
    batches = False  # the server batches by itself
    light = True  # so each camera has its own connection, and waits for no other one's answer

    def __init__(self, address: ServerAddress, *, timeout: float = TIMEOUT, clock: Clock = SYSTEM) -> None:
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # else it prints what our errors say as well
        try:
            import tritonclient.grpc
        except ImportError as error:
            raise EngineError(
                f"the client of a model server cannot be loaded ({first_line(error)}): pip install 'framecast[server]'"
            ) from error
        self._grpc: Any = tritonclient.grpc
        self._address, self._timeout, self._clock = address, timeout, clock
        self._clients: dict[str, Any] = {}
        self._live: weakref.WeakSet[_Sequence] = weakref.WeakSet()
        self._down: dict[str, float] = {}  # servers that were lost, and when to ask again
        self._late: Counter[str] = Counter()  # how often each was late without an answer in between
        self._closed = False
        self._headers = None
        if token := os.environ.get(TOKEN):
            if not re.fullmatch(r"[!-~]+", token):
                raise EngineError(f"cannot send {TOKEN}: it has a space, a line end, or a letter that is not ASCII")
            if not address.tls and not all(map(_HERE.fullmatch, address.hosts)):
                raise EngineError(f"cannot send {TOKEN} where others can read it: end the address in ?tls, or unset it")
            self._headers = {"authorization": f"Bearer {token}"}
        self.device = ",".join(address.hosts)
        self.lost = self.unanswered = self.epoch = 0
        failure: EngineError | None = None
        found: Manifest | None = None
        for host in address.hosts:
            try:
                found = found or self._introduce(host, OPENING)
            except EngineError as error:  # noqa: PERF203 (a few hosts)
                failure = error
        if found is None:
            self.close()
            raise failure or EngineError("no server")
        self.manifest = found

    @property
    def faults(self) -> Mapping[str, int]:
        """See :attr:`Engine.faults`."""
        return {"unanswered": self.unanswered, "states_lost": self.lost}

    def new_state(self, batch: int = 1) -> ServerState:
        """See :meth:`Engine.new_state`. One row each: a server batches by itself."""
        if batch != 1:
            raise EngineError(f"a model server takes one camera per state, not {batch}: it batches by itself")
        number = 1 + secrets.randbelow((1 << 63) - 1)
        nothing = Moment({})
        state = ServerState({}, np.empty((1, 0), np.float32), nothing, (nothing,), (), {})
        state.sequence = _Sequence(number, order(self._address.hosts, number))
        return state

    def reset(self, state: State, rows: Sequence[int] | None = None) -> None:
        """See :meth:`Engine.reset`."""
        if rows is None or len(rows):
            state.reset()

    def take(self, images: Sequence[Image], state: State) -> None:
        """See :meth:`Engine.take`."""
        state.seen = [to_model_size(image, self.manifest) for image in images]

    def run(self, state_in: State, state_out: State) -> None:
        """See :meth:`Engine.run`. A model of motion's picture is sent with the first moment that is asked for."""
        assert isinstance(state_in, ServerState)  # noqa: S101 (this engine made both)
        assert isinstance(state_out, ServerState)  # noqa: S101
        if state_in is state_out:
            raise EngineError("a step cannot read and write the same state: pass two")
        if state_in.pending:
            self._answer(state_in)  # no moments: one that nobody asked for would change the next step
        state_out.sequence, state_out.shown = state_in.sequence, None
        state_out.pending = True
        if self.manifest.renders == "steps":
            self._answer(state_out)

    def render(self, state: State, ahead: Sequence[int]) -> list[list[Image] | None]:
        """See :meth:`Engine.render`; without an answer, copies of the newest frame."""
        assert isinstance(state, ServerState)  # noqa: S101 (this engine made it)
        if state.shown is None:
            return [[state.seen[0] for _ in ahead]]
        return [[state.shown[k - 1] for k in ahead] if state.finite else None]

    def render_at(self, state: State, ahead: Sequence[float]) -> list[list[Image]]:
        """See :meth:`Engine.render_at`; without an answer, copies of the newest frame."""
        assert isinstance(state, ServerState)  # noqa: S101 (this engine made it)
        self._answer(state, ahead)
        return [[state.seen[0] for _ in ahead] if state.shown is None else list(state.shown)]

    def step(self, frame: Tensor, state_in: State, state_out: State) -> Tensor:
        """Not supported: only pictures travel.

        Raises:
            EngineError: always.
        """
        ahead = self.manifest.outputs
        raise EngineError(
            f"the server's {self.manifest.config} takes pictures, and predicts {ahead} step{'s' * (ahead > 1)} ahead: "
            "look less far ahead, or export it again with more --steps"
        )

    def feed_back(self, source: State, k: int, state_in: State, state_out: State) -> None:
        """Not supported; see :meth:`step`."""
        self.step(source.prediction, state_in, state_out)

    def close(self) -> None:
        """See :meth:`Engine.close`. It tells the servers that the cameras have left, if they answer at once."""
        self._closed = True
        clients, self._clients = self._clients, {}
        for sequence in list(self._live):
            if sequence.started and self.trouble is None and sequence.at in clients:
                try:
                    self._ask(clients[sequence.at], sequence.number, self._blank, [0.0], end=True, limit=LEAVING)
                except self._grpc.InferenceServerException as error:
                    _log.info("the server was not told that a camera has left: %s", first_line(error))
        for client in clients.values():
            client.close()

    @property
    def _blank(self) -> Image:
        width, height = self.manifest.size
        return np.zeros((height, width, 3), np.uint8)

    def _client(self, host: str) -> Any:
        if self._closed:
            raise EngineError(f"{self.manifest.config} is closed: load it again")
        if host not in self._clients:
            # ssl uses gRPC's own roots, or those of GRPC_DEFAULT_SSL_ROOTS_FILE_PATH.
            self._clients[host] = self._grpc.InferenceServerClient(host, ssl=self._address.tls, channel_args=_CHANNEL)
        return self._clients[host]

    def _introduce(self, host: str, limit: float) -> Manifest:
        """Get the manifest from a server, and warm the model up. Each answer may take ``limit`` seconds."""
        address, about = self._address, {"client_timeout": limit, "headers": self._headers}
        try:
            client = self._client(host)
            self.version = str(client.get_server_metadata(**about).version)
            answer = client.get_model_config(address.model, address.version, **about)
            parameters = {key: one.string_value for key, one in answer.config.parameters.items()}
            manifest = _manifest(parameters, f"{address.model} on {host}")
            self.manifest = manifest
            self._ask(client, secrets.randbelow(1 << 62) + 1, self._blank, [0.1], start=True, end=True, limit=limit)
        except self._grpc.InferenceServerException as error:
            raise EngineError(self._reason(host, error)) from error
        return manifest

    def _reason(self, host: str, error: Any) -> str:
        """Why a server did not answer, and what to do."""
        status, said, model = str(error.status() or ""), first_line(error), self._address.model
        if "unknown model" in said or "NOT_FOUND" in status:
            return f"the server at {host} has no model {model}: load it there, or name one that it has ({said})"
        if "not ready" in said:
            return f"the model {model} on {host} is not ready: look at the server's log ({said})"
        if "CERTIFICATE_VERIFY_FAILED" in said:
            return (
                f"cannot trust the model server at {host}: its certificate is from an unknown authority; name a file "
                "with it in GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"
            )
        if "UNAUTHENTICATED" in status or "PERMISSION_DENIED" in status:
            return f"the model server at {host} lets only holders of a token in: set {TOKEN}, or check it ({said})"
        if "UNIMPLEMENTED" in status and "http2 header" in said:  # of a web server
            return f"what answers at {host} is no model server: check host and gRPC port ({said})"
        if "UNAVAILABLE" in status:
            return f"cannot reach a model server at {host}: start it, or check host and gRPC port ({said})"
        if "DEADLINE_EXCEEDED" in status:
            return (
                f"the model server at {host} does not answer in time: check host and port, and whether it is "
                f"overloaded or has all its cameras ({said})"
            )
        return f"the model server at {host} refuses {model}: {said} (export the model again, or update framecast)"

    def _answer(self, state: ServerState, ahead: Sequence[float] = ()) -> None:
        """Get a state's pictures from the server. If it does not answer, they are None, and the state is lost."""
        sequence, now = state.sequence, self._clock.now()
        fresh, state.pending, state.shown = state.pending, False, None
        if not fresh and not sequence.started:
            return  # the picture was lost, and with it all its moments
        hosts = [sequence.at] if sequence.started else sequence.hosts
        host = next((host for host in hosts if self._down.get(host, now) <= now), None)
        if host is None:
            self.unanswered += 1
            return
        elapsed = self.since(state) if fresh else -1.0
        image = state.seen[0] if fresh else np.zeros((1, 1, 3), np.uint8)
        try:
            client = self._client(host)
            if host in self._down and self._introduce(host, self._timeout) != self.manifest:
                raise EngineError(f"the model {self._address.model} on {host} has changed: run again")
            try:
                result = self._ask(client, sequence.number, image, ahead, elapsed, start=not sequence.started)
            except self._grpc.InferenceServerException as error:
                if _START_MISSING not in str(error).lower() or not fresh:
                    raise
                self._lose(sequence)  # it was silent for too long, or the server was restarted between two frames
                result = self._ask(client, sequence.number, image, ahead, elapsed, start=True)
        except (self._grpc.InferenceServerException, EngineError) as error:
            self._fail(sequence, host, error)
            return
        self._down.pop(host, None)
        del self._late[host]
        sequence.started, sequence.at, self.trouble = True, host, None
        self._live.add(sequence)
        state.shown, state.finite = result

    def _fail(self, sequence: _Sequence, host: str, error: Exception) -> None:
        """Note that a server has not answered. Raises EngineError if it never will."""
        if isinstance(error, EngineError) and not isinstance(error.__cause__, self._grpc.InferenceServerException):
            raise error
        cause: Any = error.__cause__ if isinstance(error, EngineError) else error
        lost = _START_MISSING in str(cause).lower()
        if any(word in str(cause.status()) for word in _FATAL) and not lost:
            raise EngineError(self._reason(host, cause)) from error
        if sequence.started:
            self._lose(sequence)
        self.unanswered += 1
        self.trouble = self._reason(host, cause)
        self._late[host] += "DEADLINE_EXCEEDED" in str(cause.status())
        pause = min(LONGEST, RETRY * 2 ** max(0, self._late[host] - 1))
        # At random, so that the cameras of a site do not all return at the same moment.
        self._down[host] = self._clock.now() + (pause if pause == RETRY else random.uniform(pause / 2, pause))  # noqa: S311
        if (client := self._clients.pop(host, None)) is not None:
            client.close()  # a new connection is tried at once, an old one only after a pause of its own

    def _lose(self, sequence: _Sequence) -> None:
        sequence.started = False
        self.lost += 1
        self.epoch += 1

    def _ask(
        self,
        client: Any,
        number: int,
        image: Image,
        ahead: Sequence[float],
        elapsed: float = 0.0,
        *,
        start: bool = False,
        end: bool = False,
        limit: float | None = None,
    ) -> tuple[NDArray[np.uint8], bool]:
        """One request: the pictures that the server predicts, uint8 [N, h, w, 3], and whether they are finite."""
        tensors: dict[str, NDArray[Any]] = {"image": image[None]}
        if self.manifest.renders == "moments":
            tensors |= {"elapsed": np.array([[elapsed]], np.float64), "ahead": np.array([[*ahead]], np.float64)}
        inputs = []
        for name, tensor in tensors.items():
            given = self._grpc.InferInput(name, tensor.shape, "UINT8" if tensor.dtype == np.uint8 else "FP64")
            given.set_data_from_numpy(np.ascontiguousarray(tensor))
            inputs.append(given)
        result = client.infer(
            self._address.model,
            inputs,
            self._address.version,
            sequence_id=number,
            sequence_start=start,
            sequence_end=end,
            client_timeout=limit or self._timeout,
            headers=self._headers,
        )
        shown, finite = result.as_numpy("shown"), result.as_numpy("finite")
        count = len(ahead) if self.manifest.renders == "moments" else self.manifest.outputs
        if shown is None or finite is None or shown.shape != (1, count, *self._blank.shape) or finite.shape != (1, 1):
            raise EngineError(f"the model {self._address.model} answers in another shape: export it again")
        return shown[0], bool(finite[0, 0])


def _manifest(parameters: Mapping[str, str], where: str) -> Manifest:
    """The manifest in a model's configuration, without the parts that stay on the server.

    Raises:
        ArtifactError: there is none, or the server's model speaks another protocol.
    """
    if "framecast" not in parameters:
        raise ArtifactError(f"{where} is not a framecast model: make it with 'framecast export-server'")
    if (spoken := parameters.get("framecast_protocol")) != str(PROTOCOL):
        raise ArtifactError(
            f"{where} speaks protocol {spoken}, this framecast {PROTOCOL}: export the model again with this version"
        )
    try:
        manifest = Manifest.from_json(parameters["framecast"])
    except ArtifactError as error:
        raise ArtifactError(f"{where}: {error}") from error
    return replace(manifest, state=(), fields={}, precomputed={})
