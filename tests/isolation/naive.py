"""An installer that believes all that a wheel says: what then happens is what the sandbox lets
happen. It is started as `uv` is."""

import os
import stat
import sys
import tomllib
import zipfile


def put(path, body, mode):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if stat.S_ISLNK(mode):
        os.symlink(body, path)
    elif stat.S_ISFIFO(mode):
        os.mkfifo(path, 0o666)
    elif stat.S_ISCHR(mode):
        os.mknod(path, mode, os.makedev(1, 3))
    else:
        with open(path, "wb") as file:
            file.write(body)
        if mode:
            os.chmod(path, stat.S_IMODE(mode))


def attempt(do, *arguments):
    try:
        do(*arguments)
    except (OSError, ValueError) as error:
        print(error)


def install(file, target):
    with zipfile.ZipFile(file) as archive:
        members = archive.namelist()
        for info in archive.infolist():
            name = info.filename
            first, _, rest = name.partition("/")
            path = rest.partition("/")[2] if first.endswith(".data") else name
            mode = info.external_attr >> 16
            attempt(put, os.path.join(target, path), archive.read(info), mode)
        (record,) = (archive.read(name).decode() for name in members if name.endswith("/RECORD"))
        for line in record.splitlines():
            name = line.rsplit(",", 2)[0].strip('"')
            if name not in members:
                attempt(os.remove, os.path.join(target, name))
        for name in members:
            if name.endswith("/entry_points.txt"):
                for line in archive.read(name).decode().splitlines()[1:]:
                    attempt(put, os.path.join(target, "bin", line.partition(" =")[0]), b"x", 0)


if __name__ == "__main__":
    with open(os.environ["UV_CONFIG_FILE"], "rb") as settings:
        (wheels,) = tomllib.load(settings)["find-links"]
    for each in sorted(os.listdir(wheels)):
        if each.endswith(".whl"):
            install(os.path.join(wheels, each), sys.argv[sys.argv.index("--target") + 1])
