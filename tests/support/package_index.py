"""A package index on loopback, and packages made by hand, so that environments are built for real without a network."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BACKEND = '''
"""A build backend of a few lines: packs the modules that lie beside it."""
import base64, hashlib, os, re, zipfile

def _fields():
    text = open("pyproject.toml", encoding="utf-8").read()
    name, version = (re.search(key + r' *= *"([^"]+)"', text)[1] for key in ("name", "version"))
    found = re.search(r"dependencies *= *\\[(.*?)\\]", text)
    return name, version, re.findall(r'"([^"]+)"', found[1]) if found else []

def get_requires_for_build_wheel(config_settings=None):
    return []

get_requires_for_build_editable = get_requires_for_build_wheel

def build_wheel(folder, config_settings=None, metadata_directory=None):
    name, version, dependencies = _fields()
    open("left-behind-by-the-build", "w").close()
    base = name.replace("-", "_") + "-" + version
    metadata = "Metadata-Version: 2.1\\nName: %s\\nVersion: %s\\n" % (name, version)
    metadata += "".join("Requires-Dist: %s\\n" % item for item in dependencies)
    files = {base + ".dist-info/METADATA": metadata.encode(),
             base + ".dist-info/WHEEL": b"Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"}
    root = "src" if os.path.isdir("src") else "."
    for here, folders, names in os.walk(root):
        folders[:] = [item for item in folders if not item.startswith((".", "_"))]
        for item in names:
            if item.endswith(".py") and item != "backend.py":
                path = os.path.join(here, item)
                files[os.path.relpath(path, root)] = open(path, "rb").read()
    if os.path.exists("GENERATE"):
        files["generated.py"] = b"MADE = True\\n"
    record = ""
    target = os.path.join(folder, base + "-py3-none-any.whl")
    with zipfile.ZipFile(target, "w") as wheel:
        for path, content in sorted(files.items()):
            wheel.writestr(path, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record += "%s,sha256=%s,%d\\n" % (path, digest, len(content))
        wheel.writestr(base + ".dist-info/RECORD", record + base + ".dist-info/RECORD,,\\n")
    return os.path.basename(target)

def build_sdist(folder, config_settings=None):
    raise NotImplementedError
'''


def local_package(
    name: str, modules: Mapping[str, str], *, version: str = "1.0", requires: tuple[str, ...] = ()
) -> dict[str, str]:
    """Files of a package that needs nothing to be built."""
    listed = ", ".join(json.dumps(item) for item in requires)
    project = f'[project]\nname = "{name}"\nversion = "{version}"\ndependencies = [{listed}]\n'
    build = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    return {"pyproject.toml": build + project, "backend.py": BACKEND, **modules}


def wheel(name: str, version: str, modules: Mapping[str, str], requires: tuple[str, ...] = ()) -> tuple[str, bytes]:
    """File name and content of a pure wheel."""
    base = f"{name.replace('-', '_')}-{version}"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + "".join(
        f"Requires-Dist: {item}\n" for item in requires
    )
    files = {
        **{path: text.encode() for path, text in modules.items()},
        f"{base}.dist-info/METADATA": metadata.encode(),
        f"{base}.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record += f"{path},sha256={digest},{len(content)}\n"
        archive.writestr(f"{base}.dist-info/RECORD", f"{record}{base}.dist-info/RECORD,,\n")
    return f"{base}-py3-none-any.whl", packed.getvalue()


def sdist(name: str, version: str, files: Mapping[str, str]) -> tuple[str, bytes]:
    """File name and content of a source distribution."""
    base = f"{name.replace('-', '_')}-{version}"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        for path, text in {**files, "PKG-INFO": metadata}.items():
            member = tarfile.TarInfo(f"{base}/{path}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return f"{base}.tar.gz", packed.getvalue()


class PackageIndex:
    """Serves the JSON form of the simple API (PEP 691, 700).  `upload_times=False` leaves the times out, as some mirrors do."""

    def __init__(self, *, upload_times: bool = True) -> None:
        self.upload_times = upload_times
        self.files: dict[str, tuple[str, bytes, str]] = {}
        self.requests: list[str] = []
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.requests.append(self.path)
                kind, content = index.answer(self.path.split("?")[0])
                self.send_response(200 if content is not None else 404)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content or b"")

            do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/simple"

    def add(self, file: tuple[str, bytes], uploaded: str = "2020-01-01") -> None:
        """Offer a file, uploaded on that day."""
        name, content = file
        project = name.rsplit("-", 4 if name.endswith(".whl") else 1)[0].replace("_", "-").lower()
        self.files[name] = (project, content, f"{uploaded}T00:00:00Z")

    def add_wheel(
        self, name: str, version: str, uploaded: str = "2020-01-01", requires: tuple[str, ...] = (), **modules: str
    ) -> None:
        """Offer a wheel with these modules; without any, one module with the version."""
        content = {f"{module}.py": text for module, text in modules.items()} or {
            f"{name.replace('-', '_')}.py": f"V = {version!r}\n"
        }
        self.add(wheel(name, version, content, requires), uploaded)

    def answer(self, path: str) -> tuple[str, bytes | None]:
        if path.startswith("/files/"):
            found = self.files.get(path.removeprefix("/files/"))
            return "application/octet-stream", found[1] if found else None
        project = path.removeprefix("/simple/").strip("/")
        rows = [self._row(name) for name, (owner, _, _) in self.files.items() if owner == project]
        document = {"meta": {"api-version": "1.1"}, "name": project, "versions": [], "files": rows}
        return "application/vnd.pypi.simple.v1+json", json.dumps(document).encode() if rows else None

    def _row(self, name: str) -> dict[str, object]:
        _, content, uploaded = self.files[name]
        row = {
            "filename": name,
            "url": f"{self.url.removesuffix('/simple')}/files/{name}",
            "hashes": {"sha256": hashlib.sha256(content).hexdigest()},
            "size": len(content),
        }
        return {**row, "upload-time": uploaded} if self.upload_times else row

    def downloads(self) -> list[str]:
        """Names of the files that were fetched."""
        return [path.removeprefix("/files/") for path in self.requests if path.startswith("/files/")]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
