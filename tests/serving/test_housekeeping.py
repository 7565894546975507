"""Old files are deleted, whatever they are called and however their upload ended."""

import os
import socket
import tempfile
import time
from pathlib import Path

import httpx
import pytest

from llava_aurora.serving.housekeeping import delete_old_files
from llava_aurora.serving.server import ServerSettings, running


def test_old_files_and_empty_folders_are_deleted_and_the_rest_stays(tmp_path):
    for name in ("old/file", "old/kept", "mixed/old", "mixed/new"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for path in tmp_path.rglob("*"):
        if path.name != "new":
            os.utime(path, (0, time.time() - 100))
    delete_old_files(tmp_path, age=50, kept={str(tmp_path / "old/kept")})
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["kept", "new"]


@pytest.mark.parametrize("name", [".", "..", "...", "../../escaped.png", "/etc/escaped.png", "fine.png"])
def test_uploads_of_any_name_stay_in_the_folder_and_are_deleted(site, name):
    content = f"{name} {time.time()}".encode()
    answer = httpx.post(f"{site}gradio_api/upload", files={"files": (name, content)})
    folder = Path(os.environ["GRADIO_TEMP_DIR"])
    uploaded = [path for path in folder.rglob("*") if path.is_file() and path.read_bytes() == content]
    assert uploaded or answer.status_code == 400
    assert not any((place / "escaped.png").exists() for place in (Path("/etc"), folder.parent))
    delete_old_files(folder, age=-1, kept={str(path) for path in folder.rglob("*") if path not in uploaded})
    assert not any(path.exists() for path in uploaded)


def test_a_broken_off_upload_is_deleted_at_the_end(site, aurora, photograph):
    system = Path(tempfile.gettempdir())
    before = set(system.iterdir())
    with running(aurora, ServerSettings(port=0, examples=photograph.parent), name="broken") as address:
        folder, port = Path(os.environ["GRADIO_TEMP_DIR"]), httpx.URL(address).port
        head = (
            "POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 90000\r\n"
            "Content-Type: multipart/form-data; boundary=edge\r\n\r\n"
            '--edge\r\nContent-Disposition: form-data; name="files"; filename="half.png"\r\n\r\n'
        )
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(head.encode() + b"half" * 9000)
            end = time.time() + 20
            while not (found := [path for path in folder.iterdir() if path.name.startswith("tmp")]):
                assert time.time() < end
                time.sleep(0.05)
        assert found[0].is_file()
    assert not folder.exists()
    assert set(system.iterdir()) == before
