from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nas.core.errors import ConfigError, DataError
from nas.data import fashion_mnist
from nas.data.fashion_mnist import MD5, SYSTEM_FOLDER, FashionMnist, cache_folder, fetch

# Seconds since 1970 that the headers of the published gzip files carry.
PUBLISHED_AT = {"train": 1504176606, "t10k": 1504176627}


@pytest.fixture
def no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty cache and system folders."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fashion_mnist, "SYSTEM_FOLDER", tmp_path / "system")
    return tmp_path


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send requests to a port on which nothing listens."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """A web server over a folder."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """Keep the output of the tests clean."""

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}", folder
        web.shutdown()
        thread.join()


def idx(values: np.ndarray, magic: int | None = None) -> bytes:
    magic = 0x0800 + values.ndim if magic is None else magic
    return struct.pack(f">{1 + values.ndim}I", magic, *values.shape) + values.tobytes()


def write(folder: Path, **contents: bytes) -> Path:
    """Write four gzip files, each a correct one unless given."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in {"train": 60_000, "t10k": 10_000}.items():
        images = contents.get(f"{part}_images", b"")
        labels = np.repeat(np.arange(10, dtype=np.uint8), count // 10)
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(images)
        content = contents.get(f"{part}_labels", gzip.compress(idx(labels), 1))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(content)
    return folder


def published(name: str) -> bytes:
    """Return a published file, from the system's copy without name and time in its header."""
    copy = SYSTEM_FOLDER / name
    if not copy.is_file():
        pytest.skip(f"{copy} is not here (Debian package dataset-fashion-mnist)")
    content = copy.read_bytes()
    header = b"\x1f\x8b\x08\x08" + struct.pack("<I", PUBLISHED_AT[name.split("-")[0]])
    return header + content[8:10] + copy.stem.encode() + b"\0" + content[10:]


# --- Published facts -----------------------------------------------------------------------------


def test_published_facts() -> None:
    dataset = FashionMnist(download=False)
    try:
        search, test = dataset.search_splits(), dataset.test_split()
    except DataError as error:
        pytest.skip(f"Fashion-MNIST is not here, `make data` fetches it: {error}")
    official_train = np.concatenate([search.train.targets, search.validation.targets])
    assert np.bincount(official_train).tolist() == [6_000] * 10
    assert np.bincount(search.validation.targets).tolist() == [1_000] * 10
    assert np.bincount(test.targets).tolist() == [1_000] * 10
    assert search.input_shape == (1, 28, 28)
    assert search.task.class_names[0] == "T-shirt/top"
    assert search.task.class_names[9] == "Ankle boot"
    # The first test image is the well-known ankle boot; test images keep their official order.
    assert test.targets[:5].tolist() == [9, 2, 1, 1, 6]
    # Mean grey value of the official train images, 0.2860 in every tutorial.
    pixels = np.concatenate([search.train.pixels, search.validation.pixels])
    assert pixels.mean() / 255 == pytest.approx(0.2860, abs=5e-5)


@pytest.mark.parametrize("name", MD5)
def test_system_files_are_the_published_ones(name: str) -> None:
    assert hashlib.md5(published(name), usedforsecurity=False).hexdigest() == MD5[name]


# --- Where the files are looked for --------------------------------------------------------------


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/hwnas/fashion-mnist")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache/hwnas/fashion-mnist"


def test_missing_names_every_place_and_the_command(no_files: Path) -> None:
    with pytest.raises(DataError) as caught:
        FashionMnist(download=False).search_splits()
    message = str(caught.value)
    assert str(no_files / "cache/hwnas/fashion-mnist") in message
    assert str(no_files / "system") in message
    assert "make data" in message
    assert "\n" not in message


def test_missing_in_a_given_path_looks_nowhere_else(no_files: Path) -> None:
    dataset = FashionMnist(path=str(no_files / "mine"), download=False)
    for load in (dataset.search_splits, dataset.test_split):
        with pytest.raises(DataError, match=r"mine, expected .*make data"):
            load()


def test_offline_download_names_every_place_and_the_command(
    no_files: Path, no_network: None
) -> None:
    with pytest.raises(DataError) as caught:
        FashionMnist().test_split()
    message = str(caught.value)
    assert str(no_files / "cache") in message
    assert str(no_files / "system") in message
    assert "cannot be downloaded" in message
    assert "make data" in message


def test_given_path_comes_first_then_cache_then_system(no_files: Path) -> None:
    system = write(no_files / "system")
    assert FashionMnist()._folder() == system
    cache = write(cache_folder())
    assert FashionMnist()._folder() == cache
    mine = write(no_files / "mine")
    assert FashionMnist(path=str(mine))._folder() == mine


@pytest.mark.parametrize("size", [0, 9, 59_991])
def test_validation_size_out_of_range(size: int) -> None:
    with pytest.raises(ConfigError, match=rf"data\.validation_size: got {size}"):
        FashionMnist(validation_size=size)


# --- Download ------------------------------------------------------------------------------------


def test_fetch_downloads_and_checks_the_published_files(
    no_files: Path, server: tuple[str, Path]
) -> None:
    address, served = server
    for name in MD5:
        (served / name).write_bytes(published(name))
    folder = fetch(address=address)
    assert folder == cache_folder()
    assert sorted(file.name for file in folder.iterdir()) == sorted(MD5)
    assert len(FashionMnist(download=False).test_split()) == 10_000
    # What is there and intact is not fetched again: the server has nothing any more.
    for name in MD5:
        (served / name).unlink()
    assert fetch(address=address) == folder
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"t10k-labels.*cannot be downloaded"):
        fetch(address=address)


def test_fetch_refuses_other_content_and_leaves_nothing(
    tmp_path: Path, server: tuple[str, Path]
) -> None:
    address, served = server
    for name in MD5:
        (served / name).write_bytes(b"something else")
    with pytest.raises(DataError, match=r"train-images.*got a file with MD5 .*expected 8d4fb7"):
        fetch(tmp_path / "target", address)
    assert not (tmp_path / "target").exists()


# --- Broken files --------------------------------------------------------------------------------

IMAGES = np.zeros((3, 28, 28), dtype=np.uint8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no gzip at all", "Not a gzipped file"),
        (gzip.compress(idx(IMAGES))[:-20], "expected an intact gzip file"),
        (gzip.compress(b""), "got IDX header , expected 00000803"),
        (gzip.compress(idx(IMAGES, 0x0801)), "got IDX header 00000801.*, expected 00000803"),
        (
            gzip.compress(idx(IMAGES)),
            "header 0000080300000003.*, expected 0000080300002710",
        ),
        (
            gzip.compress(struct.pack(">4I", 0x0803, 10_000, 28, 28) + bytes(100)),
            "got 100 values, expected 7840000",
        ),
    ],
    ids=["text", "cut", "empty", "kind", "count", "values"],
)
def test_broken_images_name_file_got_and_expected(
    tmp_path: Path, content: bytes, message: str
) -> None:
    folder = write(tmp_path, t10k_images=content)
    with pytest.raises(DataError, match=f"t10k-images-idx3-ubyte.gz: .*{message}"):
        FashionMnist(path=str(folder)).test_split()


def test_another_data_set_of_the_same_form_is_refused(tmp_path: Path) -> None:
    images = gzip.compress(idx(np.zeros((10_000, 28, 28), dtype=np.uint8)), 1)
    labels = np.repeat(np.arange(10, dtype=np.uint8), 1_000)
    labels[0] = 7
    folder = write(tmp_path, t10k_images=images, t10k_labels=gzip.compress(idx(labels)))
    with pytest.raises(DataError, match=r"t10k-labels.*\[999, 1000.*this is not Fashion-MNIST"):
        FashionMnist(path=str(folder)).test_split()


def test_search_splits_leave_the_test_files_closed(tmp_path: Path) -> None:
    images = gzip.compress(idx(np.zeros((60_000, 28, 28), dtype=np.uint8)), 1)
    broken = {"t10k_images": b"broken", "t10k_labels": b"broken"}
    folder = write(tmp_path, train_images=images, **broken)
    search = FashionMnist(path=str(folder)).search_splits()
    assert (len(search.train), len(search.validation)) == (50_000, 10_000)
