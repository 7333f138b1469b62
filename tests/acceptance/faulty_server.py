"""The service on a disk that does what a file says: `python -m tests.acceptance.faulty_server HOME PORT REDIS_URL CONTROL`.

The file holds nothing, or lines like `sync 5` (fails with errno 5, and what was not synced is lost) and `sync stall 0.5`.
`--lenient` takes the protection away: a failed sync is passed over.
"""

import contextlib
import os
import sys
from pathlib import Path

import uvicorn

from service.app import create_from_settings
from service.settings import Settings
from tests.acceptance.disks import FailingFiles


class ControlledFiles(FailingFiles):
    """Misbehaves as the file says at the moment. A failed sync loses what was not synced, as kernels do."""

    def __init__(self, control: Path, *, lenient: bool) -> None:
        super().__init__()
        self._control, self._lenient = control, lenient
        self._synced: dict[int, int] = {}

    def _pass(self, operation: str) -> None:
        self.heal()
        for line in self._control.read_text().splitlines():
            name, *what = line.split()
            if what[0] == "stall":
                self.stall(name, float(what[1]))
            else:
                self.fail(name, int(what[0]))
        super()._pass(operation)

    def create(self, path: Path) -> int:
        descriptor = super().create(path)
        self._synced[descriptor] = 0
        return descriptor

    def sync(self, descriptor: int) -> None:
        try:
            super().sync(descriptor)
        except OSError:
            # the segment was opened to be written only, and the kernel has dropped its dirty pages
            os.ftruncate(descriptor, self._synced[descriptor])
            if not self._lenient:
                raise
        self._synced[descriptor] = os.fstat(descriptor).st_size


def main(home: str, port: str, redis_url: str, control: str, *flags: str) -> None:
    settings = Settings(home=home, port=int(port), redis_url=redis_url)
    files = ControlledFiles(Path(control), lenient="--lenient" in flags)
    app = create_from_settings(settings, files)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.run(
            app, host=settings.host, port=settings.port, log_config=None, access_log=False, loop="uvloop", http="httptools"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
