"""A job that says what it has opened and then waits to be attacked: job.py FOLDER TLS."""

import dataclasses
import json
import sys
import time
from pathlib import Path

import dask

import daskconv
from daskconv.launch.sockets import job_sockets
from daskconv.run.launcher import launcher_ranks


def main() -> None:
    folder, tls = Path(sys.argv[1]), sys.argv[2] == "tls"
    with daskconv.start(**({} if launcher_ranks() else {"workers": 2}), threads=1, tls=tls) as client:
        info = client.scheduler_info(n_workers=-1)
        told = {
            "sockets": [dataclasses.asdict(entry) | {"reach": entry.reach} for entry in job_sockets(client)],
            "dask": [info["address"], *info["workers"]],
            "result": client.submit(sum, [1, 2, 3]).result(),
            "sampled": list(client.run(dask.config.get, "distributed.worker.profile.enabled").values()),
        }
        (folder / "part").write_text(json.dumps(told))
        (folder / "part").rename(folder / "job.json")
        while not (folder / "done").exists():
            time.sleep(0.05)


if __name__ == "__main__":
    main()
