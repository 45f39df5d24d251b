"""Runs of a few steps, models that need no training, browsers, and clients that are no browsers."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from lumigraph import training
from lumigraph.core import Cameras, Frame, cube
from lumigraph.training import Model
from lumigraph.viewer.views import Shot, Wish


def wait_for(condition: Callable[[], object], seconds: float = 30.0):
    """The first true value of a condition, or a failed test."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError(f"not within {seconds} s")


@pytest.fixture(scope="session")
def nerf_run(tmp_path_factory) -> training.Run:
    config = training.train_config("nerf", "tiny", steps=150, device="cpu")
    return training.train("builtin:object", config, out=tmp_path_factory.mktemp("nerf") / "run")


@pytest.fixture(scope="session")
def splat_run(tmp_path_factory) -> training.Run:
    config = training.train_config("gaussians", "tiny", steps=60, device="cpu")
    return training.train("builtin:object", config, out=tmp_path_factory.mktemp("splats") / "run")


class Painter:
    """A renderer whose pictures tell where and when they were taken.

    Red is the row of the whole picture, green the time, blue the number of pictures so far.
    """

    def __init__(self) -> None:
        self.background = torch.ones(3)
        self.calls: list[tuple[int, int]] = []
        self.seconds_per_pixel = 0.0
        self.fails = False

    def render(self, field, cameras: Cameras, *, normals: bool = False) -> Frame:
        width, height = cameras.size(0)
        self.calls.append((width, height))
        if self.fails:
            raise ValueError("the painter is ill")
        time.sleep(self.seconds_per_pixel * width * height)
        focal, centre = float(cameras.intrinsics[0, 1]), float(cameras.intrinsics[0, 3])
        rows = ((torch.arange(height) + 0.5 - centre) / focal).clamp(-1, 1) / 2 + 0.5
        moment = 0.0 if cameras.times is None else float(cameras.times[0])
        color = torch.zeros(height, width, 3)
        color[..., 0] = rows[:, None]
        color[..., 1] = moment
        opacity = torch.ones(height, width)
        normal = color * 2 - 1 if normals else None
        return Frame(color, opacity, opacity * 2, normal, {"samples": opacity * 3})


class PaintedSource:
    """A source without a field, as fast or slow as a test wants it."""

    title, kind, device, scene = "painted", "painter", "cpu", None
    renders, splats, version = True, False, 0

    def __init__(self, *, timed: bool = False) -> None:
        self.painter = Painter()
        self.model = Model(torch.nn.Identity(), self.painter, torch.device("cpu"))
        self.bounds = cube(torch.zeros(3), 2.0)
        self.up = torch.tensor([0.0, 0.0, 1.0])
        self.moments = torch.linspace(0, 1, 5) if timed else None

    def session(self):
        return nullcontext(self.model)

    def refresh(self) -> bool:
        return False

    def cloud(self, moment=None):
        return None


@pytest.fixture
def painted() -> PaintedSource:
    return PaintedSource()


@pytest.fixture
def painted_in_time() -> PaintedSource:
    return PaintedSource(timed=True)


def shot(x: float = 0.0, width: int = 64, height: int = 48) -> Shot:
    return Shot.of((1, 0, 0, 0), (x, 0, -4), field_of_view=0.8, size=(width, height))


@pytest.fixture
def make_shot():
    return shot


@pytest.fixture
def make_wish():
    return lambda x=0.0, width=64, height=48, **changes: Wish(shot(x, width, height), **changes)


@pytest.fixture
def until():
    return wait_for


class RawClient:
    """What viser's page does on its websocket, without a page."""

    def __init__(self, port: int) -> None:
        import viser
        from websockets.sync.client import connect

        self.socket = connect(
            f"ws://localhost:{port}",
            subprotocols=[f"viser-v{viser.__version__}"],
            origin=f"http://localhost:{port}",
            max_size=None,
            compression=None,
        )
        self.pictures = 0
        self.bytes: bytes | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        import msgspec
        import zstandard

        with contextlib.suppress(Exception):
            for data in self.socket:
                packed = int.from_bytes(data[8:16], "little")
                plain = zstandard.ZstdDecompressor().decompress(data[16 : 16 + packed])
                for message in msgspec.msgpack.decode(plain)["messages"]:
                    if message["type"] == "BackgroundImageMessage" and message["rgb_data"]:
                        self.bytes = message["rgb_data"]
                        self.pictures += 1

    def look(self, x: float = 0.0, size: tuple[int, int] = (64, 48)) -> None:
        """Send the camera."""
        import msgspec
        from viser import _messages

        message = _messages.ViewerCameraMessage(
            wxyz=(1.0, 0.0, 0.0, 0.0),
            position=(x, 0.0, -4.0),
            fov=0.8,
            near=0.01,
            far=100.0,
            image_height=size[1],
            image_width=size[0],
            look_at=(x, 0.0, 0.0),
            up_direction=(0.0, -1.0, 0.0),
        )
        self.send(msgspec.msgpack.encode(message.as_serializable_dict()))

    def send(self, data: bytes | str) -> None:
        self.socket.send(data)

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def raw_client() -> Iterator[Callable[[int], RawClient]]:
    clients: list[RawClient] = []

    def make(port: int) -> RawClient:
        clients.append(RawClient(port))
        return clients[-1]

    yield make
    for client in clients:
        with contextlib.suppress(Exception):
            client.close()


@pytest.fixture
def quad_glb(tmp_path) -> Path:
    """A square of side 2 in the plane z = 0."""
    trimesh = pytest.importorskip("trimesh")
    corners = [[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]
    mesh = trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], process=False)
    mesh.export(tmp_path / "quad.glb")
    return tmp_path / "quad.glb"
