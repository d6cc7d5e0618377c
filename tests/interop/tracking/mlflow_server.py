"""MLflow's own server on loopback: `python mlflow_server.py DIRECTORY PORT` prints its port.

The application is that of `mlflow server`, from the installed package; it is served by werkzeug,
which starts in half the time of the command, without its workers and jobs.
"""

import os
import sys
from pathlib import Path

directory = Path(sys.argv[1])
os.environ |= {
    "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{directory}/mlflow.db",
    "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
    "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(directory / "artifacts"),
    "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}

from mlflow.server import app  # noqa: E402 - it reads the environment
from werkzeug.serving import make_server  # noqa: E402 - after it

server = make_server("127.0.0.1", int(sys.argv[2]), app, threaded=True)
print(server.port, flush=True)  # noqa: T201 - its only output
server.serve_forever()
