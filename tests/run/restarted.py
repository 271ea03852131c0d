"""One process of several that torchrun starts again, told by the first one, whose first start fails. Run
by test_processes under torchrun.

python -m tests.run.restarted FOLDER
"""

import sys
from pathlib import Path

from puna.run.processes import Processes


def main() -> None:
    folder = Path(sys.argv[1])
    processes = Processes.started()
    if processes.rank == 0:
        first = not (folder / "begun").exists()
        (folder / "begun").touch()
        processes.tell({"start": 1 if first else 2})
        if first:
            while not (folder / "heard-1").exists():
                pass
            sys.exit(3)
        processes.close()
        return
    message = processes.hear()
    (folder / f"heard-{message['start']}").touch()
    if message["start"] == 1:
        processes.hear()


if __name__ == "__main__":
    main()
