"""Image names, layers, archives, the store, the node's table and the registry client.

Over 500 lines because an image passes through all of them: archives made for one are read by the next.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.cri.v1 import cri_pb2 as cri
from runtime.faults import BadConfig, PullDenied, PullUnknown, PullUnreachable, RuntimeFault
from runtime.images import archive, busybox
from runtime.images import store as store_module
from runtime.images.puller import NOTE, Puller, plan_credentials
from runtime.images.reference import normalize
from runtime.images.registry import Credentials, Registry, fetch, parse_challenge
from runtime.images.store import ContentStore
from runtime.images.table import ImageTable
from runtime.images.unpack import LayerError, split, unpack

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="sets owners and devices")
DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("busybox", "docker.io/library/busybox:latest", id="short"),
        pytest.param("user/app:v1", "docker.io/user/app:v1", id="hub-user"),
        pytest.param("docker.io/busybox", "docker.io/library/busybox:latest", id="hub-explicit"),
        pytest.param("index.docker.io/library/a", "docker.io/library/a:latest", id="hub-old-name"),
        pytest.param("localhost:5000/a/b:x", "localhost:5000/a/b:x", id="port"),
        pytest.param("localhost/a", "localhost/a:latest", id="localhost"),
        pytest.param("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9", id="registry"),
        pytest.param(f"a@{DIGEST}", f"docker.io/library/a@{DIGEST}", id="digest"),
        pytest.param(f"r.io/a:t@{DIGEST}", f"r.io/a:t@{DIGEST}", id="tag-and-digest"),
    ],
)
def test_normalize(name: str, expected: str) -> None:
    assert str(normalize(name)) == expected


@pytest.mark.parametrize(
    "name", ["", "Upper", "a b", "a:", "a@sha256:123", "http://a/b", "a//b", "/a", "a:ta g", "-a", "r.io/"]
)
def test_bad_names(name: str) -> None:
    with pytest.raises(BadConfig, match="invalid reference format"):
        normalize(name)


@given(st.text(max_size=60))
def test_any_text_is_a_name_or_refused(text: str) -> None:
    try:
        once = str(normalize(text))
    except BadConfig:
        return
    assert str(normalize(once)) == once


# layers


def make_tar(*entries: tuple[str, dict[str, Any]], zipped: bool = False) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as made:
        for name, options in entries:
            data = options.pop("data", b"")
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            for key, value in options.items():
                setattr(entry, key, value)
            made.addfile(entry, io.BytesIO(data))
    return gzip.compress(buffer.getvalue()) if zipped else buffer.getvalue()


def unpack_bytes(folder: Path, raw: bytes) -> Path:
    (folder / "layer").write_bytes(raw)
    unpack(str(folder / "layer"), str(folder / "out"))
    return folder / "out"


@root_only
def test_layer_with_everything(tmp_path: Path) -> None:
    raw = make_tar(
        ("./d", {"type": tarfile.DIRTYPE, "mode": 0o555, "mtime": 1000}),
        ("d/file", {"data": b"x", "mode": 0o4755, "uid": 5, "gid": 6, "mtime": 2000}),
        ("d/link", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        ("hard", {"type": tarfile.LNKTYPE, "linkname": "d/file"}),
        ("new/deep/file", {"data": b"y"}),
        ("fifo", {"type": tarfile.FIFOTYPE}),
        ("dev", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}),
        ("gone/.wh.victim", {}),
        ("opaque/.wh..wh..opq", {}),
        zipped=True,
    )
    out = unpack_bytes(tmp_path, raw)
    status = (out / "d/file").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime) == (0o4755, 5, 6, 2000)
    assert (out / "d").stat().st_mtime == 1000
    assert (out / "d/link").readlink() == Path("/etc/passwd")
    assert (out / "hard").stat().st_ino == status.st_ino
    assert (out / "new/deep/file").read_bytes() == b"y"
    assert (out / "gone/victim").lstat().st_rdev == 0
    assert stat.S_ISCHR((out / "gone/victim").lstat().st_mode)
    assert os.getxattr(out / "opaque", "trusted.overlay.opaque") == b"y"
    assert (out / "dev").stat().st_rdev == os.makedev(1, 3)
    digest = unpack(str(tmp_path / "layer"), str(tmp_path / "again"))
    assert digest == "sha256:" + hashlib.sha256(gzip.decompress(raw)).hexdigest()


@root_only
@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([("../evil", {"data": b"x"})], id="dots"),
        pytest.param([("a/../../evil", {"data": b"x"})], id="dots-inside"),
        pytest.param(
            [("l", {"type": tarfile.SYMTYPE, "linkname": "/tmp"}), ("l/evil", {"data": b"x"})], id="through-a-link"
        ),
        pytest.param(
            [("l", {"type": tarfile.SYMTYPE, "linkname": ".."}), ("l/x/evil", {"data": b"x"})], id="through-up-link"
        ),
        pytest.param([("h", {"type": tarfile.LNKTYPE, "linkname": "../../etc/passwd"})], id="hard-link-out"),
        pytest.param(
            [
                ("l", {"type": tarfile.SYMTYPE, "linkname": "/etc"}),
                ("h", {"type": tarfile.LNKTYPE, "linkname": "l/passwd"}),
            ],
            id="hard-link-through-a-link",
        ),
    ],
)
def test_no_way_out_of_a_layer(tmp_path: Path, entries: list[tuple[str, dict[str, Any]]]) -> None:
    with pytest.raises(LayerError):
        unpack_bytes(tmp_path, make_tar(*[(name, dict(options)) for name, options in entries]))
    assert not (tmp_path / "evil").exists()


@root_only
@pytest.mark.parametrize("kind", [pytest.param(tarfile.SYMTYPE, id="link"), pytest.param(tarfile.REGTYPE, id="file")])
def test_a_folder_replaced_later_lends_its_mode_to_nothing(tmp_path: Path, kind: bytes) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o700)
    raw = make_tar(
        ("d", {"type": tarfile.DIRTYPE, "mode": 0o777}),
        ("d", {"type": kind, "mode": 0o600, **({"linkname": str(outside)} if kind == tarfile.SYMTYPE else {})}),
    )
    out = unpack_bytes(tmp_path, raw)
    assert outside.stat().st_mode & 0o777 == 0o700
    assert kind == tarfile.SYMTYPE or (out / "d").stat().st_mode & 0o777 == 0o600


def test_a_damaged_stream_is_the_layers_fault(tmp_path: Path) -> None:
    raw = bytearray(make_tar(("f", {"data": os.urandom(1 << 16).hex().encode()}), zipped=True))
    raw[20000:20100] = b"\xff" * 100
    with pytest.raises(LayerError):
        unpack_bytes(tmp_path, bytes(raw))


@root_only
def test_absolute_names_stay_inside_and_files_replace_links(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("untouched")
    out = unpack_bytes(
        tmp_path,
        make_tar(
            ("/abs", {"data": b"in"}),
            ("l", {"type": tarfile.SYMTYPE, "linkname": str(target)}),
            ("l", {"data": b"file"}),
            ("t", {"type": tarfile.DIRTYPE}),
            ("t/x", {"data": b"1"}),
            ("t", {"data": b"now a file"}),
        ),
    )
    assert (out / "abs").read_bytes() == b"in"
    assert (out / "l").read_bytes() == b"file"
    assert (out / "t").read_bytes() == b"now a file"
    assert target.read_text() == "untouched"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        pytest.param(b"\x28\xb5\x2f\xfdxxxx", "zstd", id="zstd"),
        pytest.param(b"\xfd7zXZ\x00", "not supported", id="xz"),
        pytest.param(b"\x1f\x8bgarbage", "damaged", id="broken-gzip"),
        pytest.param(b"garbage" * 200, "damaged", id="no-tar"),
    ],
)
def test_unusable_layers(tmp_path: Path, raw: bytes, text: str) -> None:
    with pytest.raises(LayerError, match=text):
        unpack_bytes(tmp_path, raw)


@given(st.text(alphabet="ab./", max_size=20))
def test_split_never_points_up(name: str) -> None:
    try:
        parts = split(name)
    except LayerError:
        assert ".." in name
        return
    assert not {"..", ".", ""} & set(parts)


# archives and the store


def sha(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def make_image(text: str = "hello", zipped: bool = False) -> tuple[bytes, bytes, bytes]:
    """(config, layer blob, manifest)."""
    plain = make_tar(("file", {"data": text.encode()}))
    layer = gzip.compress(plain, mtime=0) if zipped else plain
    config = json.dumps(
        {
            "architecture": archive.ARCHITECTURE,
            "os": "linux",
            "config": {"Cmd": ["run"], "Env": ["A=1"], "User": "5", "StopSignal": "SIGINT"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha(plain)}"]},
        }
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"digest": f"sha256:{sha(config)}", "size": len(config)},
            "layers": [{"digest": f"sha256:{sha(layer)}", "size": len(layer)}],
        }
    ).encode()
    return config, layer, manifest


def docker_archive(name: str = "app:v1") -> bytes:
    config, layer, _ = make_image()
    listing = json.dumps([{"Config": "c.json", "RepoTags": [name], "Layers": ["l/layer.tar"]}]).encode()
    return make_tar(
        ("c.json", {"data": config}), ("l/layer.tar", {"data": layer}), ("manifest.json", {"data": listing})
    )


def oci_archive(name: str = "registry.example/app:v2", *, nested: bool = False) -> bytes:
    config, layer, manifest = make_image("other", zipped=True)
    entries = [(f"blobs/sha256/{sha(raw)}", {"data": raw}) for raw in (config, layer, manifest)]
    described: dict[str, Any] = {
        "digest": f"sha256:{sha(manifest)}",
        "platform": {"architecture": archive.ARCHITECTURE},
    }
    if nested:
        alien = {"digest": f"sha256:{'0' * 64}", "platform": {"architecture": "vax", "os": "linux"}}
        inner = json.dumps({"manifests": [alien, described]}).encode()
        entries.append((f"blobs/sha256/{sha(inner)}", {"data": inner}))
        described = {"digest": f"sha256:{sha(inner)}"}
    described["annotations"] = {"org.opencontainers.image.ref.name": name}
    index = json.dumps({"schemaVersion": 2, "manifests": [described]}).encode()
    return make_tar(("index.json", {"data": index}), ("oci-layout", {"data": b"{}"}), *entries)


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "store")


@root_only
@pytest.mark.parametrize(
    ("raw", "name"),
    [
        pytest.param(docker_archive(), "docker.io/library/app:v1", id="docker-save"),
        pytest.param(gzip.compress(docker_archive()), "docker.io/library/app:v1", id="docker-save-gzipped"),
        pytest.param(oci_archive(), "registry.example/app:v2", id="oci"),
        pytest.param(oci_archive(nested=True), "registry.example/app:v2", id="oci-index-in-index"),
    ],
)
def test_load(store: ContentStore, tmp_path: Path, raw: bytes, name: str) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(raw)
    found = archive.load(store, path)
    assert [each.names for each in found] == [[name]]
    image = store.image(found[0].image.id)
    assert (image.config.cmd, image.config.user, image.config.stop_signal) == (["run"], "5", "SIGINT")
    assert (Path(store.lowers(image)[0]) / "file").is_file()
    table = ImageTable(store, tmp_path / "images.json", "n1")
    known = table.find(name)
    assert known is not None
    assert known.loaded
    assert known.tags == [name]
    assert not list((store.root / "tmp").iterdir())


@root_only
def test_large_layers_are_unpacked_by_a_process(
    store: ContentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "IN_PROCESS_LIMIT", 0)
    path = tmp_path / "image.tar"
    path.write_bytes(docker_archive())
    found = archive.load(store, path)
    assert (Path(store.lowers(found[0].image)[0]) / "file").read_text() == "hello"
    config, _, _ = make_image("never stored")
    evil = store.put_blob(io.BytesIO(make_tar(("../x", {"data": b"y"}))))
    with pytest.raises(RuntimeFault, match="escapes the layer"):
        store.add_image(config, [evil])


@root_only
def test_unnamed_image_takes_the_given_name(store: ContentStore, tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(oci_archive(name="latest"))
    assert archive.load(store, path, "mine:1")[0].names == ["docker.io/library/mine:1"]


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"nonsense", id="no-tar"),
        pytest.param(make_tar(("x", {"data": b"y"})), id="no-image"),
        pytest.param(make_tar(("manifest.json", {"data": b"{"})), id="broken-json"),
        pytest.param(make_tar(("manifest.json", {"data": b'[{"Config": "no"}]'})), id="missing-config"),
        pytest.param(make_tar(("index.json", {"data": b"[]"})), id="wrong-shape"),
        pytest.param(
            make_tar(("index.json", {"data": json.dumps({"manifests": [{"digest": DIGEST}]}).encode()})), id="no-blob"
        ),
        pytest.param(make_tar(("index.json", {"data": b'{"manifests": [{"digest": "../../x"}]}'})), id="bad-digest"),
        pytest.param(gzip.compress(docker_archive())[:-20], id="cut-gzip"),
    ],
)
def test_bad_archives_are_refused(store: ContentStore, tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(raw)
    with pytest.raises(BadConfig):
        archive.load(store, path)
    with pytest.raises(BadConfig, match="cannot read"):
        archive.load(store, tmp_path / "nothing")


@root_only
def test_builtin_busybox(store: ContentStore) -> None:
    if busybox.find_busybox() is None:
        pytest.skip("no busybox")
    first = busybox.ensure(store)
    assert first is not None
    assert busybox.ensure(store) == first
    folder = Path(store.lowers(first)[0])
    assert (folder / "bin/sh").readlink() == Path("busybox")
    assert "nobody" in (folder / "etc/passwd").read_text()


@root_only
def test_parallel_loads_share_a_store(store: ContentStore, tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(docker_archive())
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: archive.load(ContentStore(store.root), path), range(16)))
    assert len({each[0].image.id for each in found}) == 1
    assert len(list((store.root / "layers").iterdir())) == 1


@root_only
def test_removal_keeps_what_others_need(store: ContentStore, tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(docker_archive())
    image = archive.load(store, path)[0].image
    one = ImageTable(store, tmp_path / "one.json", "one")
    two = ImageTable(store, tmp_path / "two.json", "two")
    one.remove("app:v1")
    assert one.find("app:v1") is None
    assert two.find("app:v1") is not None
    assert one.find_loaded("app:v1") == image
    one.satisfied(image, NOTE)
    again = one.find("app:v1")
    assert again is not None
    assert again.note == NOTE
    pulled_config, layer, _ = make_image("pulled")
    store.put_blob(io.BytesIO(pulled_config))
    pulled = store.add_image(pulled_config, [store.put_blob(io.BytesIO(layer))])
    one.pulled("r.io/p:1", DIGEST, pulled)
    two.pulled("r.io/p:1", DIGEST, pulled)
    assert (found := one.find(f"r.io/p@{DIGEST}")) is not None
    assert found.tags == ["r.io/p:1"]
    one.remove("r.io/p:1")
    assert pulled.id in store.ids()
    two.remove(pulled.id)
    assert pulled.id not in store.ids()
    assert len(list((store.root / "layers").iterdir())) == 1
    assert ImageTable(store, tmp_path / "two.json", "two").find("r.io/p:1") is None


# registries


class FakeRegistry(BaseHTTPRequestHandler):
    """A registry with one repository; `auth` demands a token got with user:secret."""

    auth = False
    blobs: dict[str, bytes]
    manifests: dict[str, bytes]

    def log_message(self, format: str, *args: Any) -> None: ...

    def do_GET(self) -> None:
        parts = self.path.split("/")
        if self.path.startswith("/token"):
            fine = self.headers.get("Authorization") == "Basic dXNlcjpzZWNyZXQ="
            self.answer(200 if fine else 401, b'{"token": "good"}')
        elif self.auth and self.headers.get("Authorization") != "Bearer good":
            realm = f"http://127.0.0.1:{self.connection.getsockname()[1]}/token"
            self.answer(401, b"", {"WWW-Authenticate": f'Bearer realm="{realm}",service="s"'})
        elif parts[-2] == "manifests" and parts[-1] in self.manifests:
            self.answer(200, self.manifests[parts[-1]])
        elif parts[-2] == "blobs" and parts[-1] in self.blobs:
            self.answer(200, self.blobs[parts[-1]])
        else:
            self.answer(404, b"{}")

    def answer(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def registry() -> Iterator[tuple[type[FakeRegistry], str]]:
    config, layer, manifest = make_image("pulled", zipped=True)
    alien = {"digest": DIGEST, "platform": {"architecture": "vax", "os": "linux"}}
    fits = {"digest": f"sha256:{sha(manifest)}", "platform": {"architecture": archive.ARCHITECTURE, "os": "linux"}}
    index = json.dumps({"schemaVersion": 2, "manifests": [alien, fits]}).encode()

    class Handler(FakeRegistry):
        blobs = {f"sha256:{sha(raw)}": raw for raw in (config, layer)}  # noqa: RUF012
        manifests = {"v1": index, f"sha256:{sha(manifest)}": manifest, "vax": b'{"manifests": []}', "odd": b"[]"}  # noqa: RUF012

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Handler, f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def pull(host: str, store: ContentStore, tag: str = "v1", credentials: Credentials | None = None) -> str:
    made = Registry(normalize(f"{host}/app:{tag}"), credentials or Credentials())
    return fetch(made, store)[1].id


@root_only
def test_pull_picks_the_platform(registry: tuple[type[FakeRegistry], str], store: ContentStore) -> None:
    identity = pull(registry[1], store)
    assert (Path(store.lowers(store.image(identity))[0]) / "file").read_text() == "pulled"
    assert pull(registry[1], store) == identity


@root_only
def test_pull_with_token(registry: tuple[type[FakeRegistry], str], store: ContentStore) -> None:
    registry[0].auth = True
    with pytest.raises(PullDenied, match="pull access denied"):
        pull(registry[1], store)
    with pytest.raises(PullDenied):
        pull(registry[1], store, credentials=Credentials("user", "wrong"))
    assert pull(registry[1], store, credentials=Credentials("user", "secret"))


@pytest.mark.parametrize(
    ("tag", "error", "text"),
    [
        pytest.param("v9", PullUnknown, "not found", id="unknown-tag"),
        pytest.param("vax", BadConfig, "no match for platform", id="no-platform"),
        pytest.param("odd", RuntimeFault, "not an object", id="nonsense"),
    ],
)
def test_pull_failures(
    registry: tuple[type[FakeRegistry], str], store: ContentStore, tag: str, error: type[RuntimeFault], text: str
) -> None:
    with pytest.raises(error, match=text):
        pull(registry[1], store, tag)


def test_damaged_content_is_refused(registry: tuple[type[FakeRegistry], str], store: ContentStore) -> None:
    handler = registry[0]
    handler.blobs = {digest: raw + b"!" for digest, raw in handler.blobs.items()}
    with pytest.raises(RuntimeFault, match="digest mismatch"):
        pull(registry[1], store)
    assert not list((store.root / "blobs/sha256").iterdir())


@root_only
async def test_unreachable_registry_is_answered_from_what_was_loaded(store: ContentStore, tmp_path: Path) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(docker_archive("127.0.0.1:9/app:v1"))
    loaded = archive.load(store, path)[0].image
    table = ImageTable(store, tmp_path / "images.json", "n1")
    puller = Puller(table)
    try:
        assert await puller.pull("127.0.0.1:9/app:v1", cri.AuthConfig()) == loaded.id
        known = table.find("127.0.0.1:9/app:v1")
        assert known is not None
        assert known.note == NOTE
        with pytest.raises(PullUnreachable, match=r'image "127.0.0.1:9/other:latest".*[Rr]efused'):
            await puller.pull("127.0.0.1:9/other", cri.AuthConfig())
    finally:
        puller.close()


@root_only
async def test_pull_into_the_table(
    registry: tuple[type[FakeRegistry], str], store: ContentStore, tmp_path: Path
) -> None:
    table = ImageTable(store, tmp_path / "images.json", "n1")
    puller = Puller(table)
    try:
        identity = await puller.pull(f"{registry[1]}/app:v1", cri.AuthConfig())
    finally:
        puller.close()
    known = table.find(f"{registry[1]}/app:v1")
    assert known is not None
    assert known.record.id == identity
    assert known.digests[0].startswith(f"{registry[1]}/app@sha256:")
    assert not known.loaded


@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        pytest.param(cri.AuthConfig(), Credentials(), id="none"),
        pytest.param(cri.AuthConfig(username="u", password="p"), Credentials("u", "p"), id="plain"),
        pytest.param(cri.AuthConfig(auth="dTpwOnE="), Credentials("u", "p:q"), id="encoded"),
        pytest.param(cri.AuthConfig(auth="%%%"), Credentials(), id="nonsense"),
        pytest.param(cri.AuthConfig(registry_token="t"), Credentials(registry_token="t"), id="token"),
    ],
)
def test_credentials(auth: cri.AuthConfig, expected: Credentials) -> None:
    assert plan_credentials(auth) == expected


def test_challenge() -> None:
    assert parse_challenge('Bearer realm="https://a/t",service="s"') == (
        "bearer", {"realm": "https://a/t", "service": "s"},
    )  # fmt: skip
    assert parse_challenge("") == ("", {})
