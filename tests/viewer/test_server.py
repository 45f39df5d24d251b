"""Who may come in, and that nobody who does can take the server down."""

import socket
import urllib.error
import urllib.request

import pytest

from lumigraph.core.errors import InputError
from lumigraph.viewer import Viewer
from lumigraph.viewer.server import Doorkeeper, bind

pytest.importorskip("viser")

LOCAL = Doorkeeper(8080, None, loopback_only=True)
OPEN = Doorkeeper(8080, "secret", loopback_only=False)
WEBSOCKET = {"Upgrade": "websocket", "Connection": "Upgrade"}


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1:9000", "[::1]:8080", "localhost"])
def test_this_machine_may_look_also_through_a_tunnel_of_another_port(host):
    assert LOCAL.refusal("/", {"Host": host}) is None
    assert LOCAL.refusal("/", {"Host": host, "Origin": f"http://{host}"}) is None


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "evil.example"},
        {"Host": "192.168.0.9:8080"},
        {"Host": 'localhost"; script-src *'},
        {"Host": "localhost:8080", "Origin": "http://evil.example"},
        {"Host": "localhost:8080", "Origin": "http://localhost:3000"},
        {"Host": "localhost:8080", "Origin": "null"},
    ],
)
def test_foreign_pages_and_names_are_refused(headers):
    assert LOCAL.refusal("/", headers)


@pytest.mark.parametrize(
    ("path", "cookie", "welcome"),
    [
        ("/?token=secret", "", True),
        ("/", "lumigraph-8080=secret", True),
        ("/", "other=1; lumigraph-8080=secret", True),
        ("/", "", False),
        ("/?token=", "", False),
        ("/?token=secre", "", False),
        ("/?token=secret2", "lumigraph-8080=x", False),
        ("/", "lumigraph-9999=secret", False),
        ("/?token=%C3%A9", "lumigraph-8080=\u00e9", False),
    ],
)
def test_an_open_server_asks_for_the_token(path, cookie, welcome):
    headers = {"Host": "192.168.0.9:8080", "Cookie": cookie}
    assert (OPEN.refusal(path, headers) is None) == welcome


def status(url: str, **headers: str) -> tuple[int, dict, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def test_the_open_server_serves_nothing_without_the_token(painted):
    with Viewer(painted, host="0.0.0.0", port=0) as viewer:
        plain, with_token = f"http://127.0.0.1:{viewer.port}/", viewer.url
        assert viewer.is_open and "token=" in with_token
        code, _, text = status(plain)
        assert code == 403 and b"token" in text
        assert status(f"{plain}?token=wrong")[0] == 403
        assert status(plain, **WEBSOCKET)[0] == 403
        code, headers, page = status(with_token)
        assert code == 200 and b"<html" in page[:500]
        cookie = headers["Set-Cookie"].partition(";")[0]
        assert "HttpOnly" in headers["Set-Cookie"]
        assert status(plain, Cookie=cookie)[0] == 200


def test_a_token_may_be_asked_for_on_this_machine_too(painted):
    with Viewer(painted, port=0, token="mine") as viewer:
        assert viewer.url.endswith("/?token=mine")
        assert status(viewer.url)[0] == 200
        assert status(f"http://localhost:{viewer.port}/")[0] == 403


def test_pages_forbid_the_browser_to_ask_anyone_else(painted):
    with Viewer(painted, port=0) as viewer:
        assert not viewer.is_open and viewer.token is None
        code, headers, _ = status(viewer.url)
        assert code == 200
        rules = dict(
            rule.strip().split(" ", 1) for rule in headers["Content-Security-Policy"].split(";")
        )
        allowed = {word for words in rules.values() for word in words.split()}
        own = {f"ws://localhost:{viewer.port}", f"wss://localhost:{viewer.port}"}
        assert all(word in own for word in allowed if "://" in word)
        assert "*" not in allowed and "http:" not in allowed
        assert status(viewer.url, Host="evil.example")[0] == 403


def test_a_taken_port_is_an_error_when_asked_for():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(InputError, match=r"port \d+ is taken; choose another with --port"):
            bind("127.0.0.1", other.getsockname()[1])


def test_without_a_wish_another_port_is_found(monkeypatch):
    from lumigraph.viewer import server

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        monkeypatch.setattr(server, "DEFAULT_PORT", other.getsockname()[1])
        with bind("127.0.0.1", None) as found:
            assert found.getsockname()[1] != other.getsockname()[1]


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("127.0.0.1", 70000, "expected 0 to 65535"),
        ("no.such.host.invalid", 0, "unknown"),
        ("203.0.113.7", 0, "203.0.113.7"),
    ],
)
def test_hosts_and_ports_that_cannot_be(host, port, message):
    with pytest.raises(InputError, match=message):
        bind(host, port)


def test_a_port_is_free_again_after_close(painted):
    with Viewer(painted, port=0) as viewer:
        port = viewer.port
    with Viewer(painted, port=port) as viewer:
        assert viewer.port == port


def test_nobody_can_open_a_tunnel_to_the_outside(painted):
    with Viewer(painted, port=0) as viewer:
        assert viewer.server.request_share_url() is None
        assert viewer.server._share_tunnel is None


def packed(value) -> bytes:
    import msgspec

    return msgspec.msgpack.encode(value)


GARBAGE = [
    b"",
    b"\xc1" * 100,
    "text instead of bytes",
    packed(7),
    packed({"type": "NoSuchMessage"}),
    packed({"type": "ViewerCameraMessage"}),
    packed({"type": "ViewerCameraMessage", "wxyz": "abcd", "position": None}),
    packed({"type": "GuiUpdateMessage", "uuid": "x", "updates": {"value": 1}}),
    packed({"type": "FileTransferPart", "transfer_uuid": "x", "part_index": -1, "content": b""}),
    packed({"type": "ShareUrlRequest"}),
    packed(
        {
            "type": "ViewerCameraMessage",
            "wxyz": [float("nan")] * 4,
            "position": [0.0, float("inf"), 0.0],
            "fov": float("nan"),
            "near": 0,
            "far": 0,
            "image_height": -5,
            "image_width": 10**9,
            "look_at": [float("nan")] * 3,
            "up_direction": [0.0, 0.0, 0.0],
        }
    ),
]


@pytest.mark.parametrize("message", GARBAGE, ids=range(len(GARBAGE)))
def test_malformed_messages_harm_nobody_else(painted, raw_client, until, message, capfd):
    with Viewer(painted, port=0) as viewer:
        good, bad = raw_client(viewer.port), raw_client(viewer.port)
        good.look()
        until(lambda: good.pictures)
        bad.send(message)
        before = good.pictures
        good.look(x=1.0)
        until(lambda: good.pictures > before)
        newcomer = raw_client(viewer.port)
        newcomer.look(x=2.0)
        until(lambda: newcomer.pictures)
    assert "Traceback" not in capfd.readouterr().err


def test_bytes_that_are_no_request_harm_nobody(painted, raw_client, until, capfd):
    with Viewer(painted, port=0) as viewer:
        for content in (b"\x00" * 64, b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nHost: ", b""):
            with socket.create_connection(("127.0.0.1", viewer.port)) as connection:
                connection.sendall(content)
        client = raw_client(viewer.port)
        client.look()
        until(lambda: client.pictures)
    assert "Traceback" not in capfd.readouterr().err


def test_twenty_clients_each_with_its_own_camera(painted, raw_client, until):
    import io

    import imageio.v3 as iio

    with Viewer(painted, port=0) as viewer:
        clients = [raw_client(viewer.port) for _ in range(20)]
        for index, client in enumerate(clients):
            client.look(x=float(index), size=(64 + index, 48))
        until(lambda: all(client.pictures for client in clients))
        until(lambda: len(viewer.sessions) == 20)
        places = {float(s.last.wish.shot.camera_to_world[0, 3]) for s in viewer.sessions}
        assert places == {float(index) for index in range(20)}

        def width(client) -> int:
            return iio.imread(io.BytesIO(client.bytes), extension=".jpg").shape[1]

        until(lambda: all(width(c) == 64 + i for i, c in enumerate(clients)))
        for client in clients[:10]:
            client.close()
        until(lambda: len(viewer.sessions) == 10)
        before = [client.pictures for client in clients[10:]]
        for client in clients[10:]:
            client.look(x=50.0)
        until(lambda: all(c.pictures > b for c, b in zip(clients[10:], before, strict=True)))
        assert viewer.loop.view_count == 10


def test_a_client_that_leaves_in_the_middle_of_a_picture(painted, raw_client, until):
    painted.painter.seconds_per_pixel = 1e-5
    with Viewer(painted, port=0) as viewer:
        leaving = raw_client(viewer.port)
        leaving.look(size=(320, 240))
        until(lambda: viewer.sessions and viewer.sessions[0].view.work is not None)
        leaving.close()
        until(lambda: viewer.loop.view_count == 0)
        staying = raw_client(viewer.port)
        staying.look(size=(64, 48))
        until(lambda: staying.pictures)
