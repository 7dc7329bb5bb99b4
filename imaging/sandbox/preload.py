"""Imported once by the process that workers are forked from, so that they start in milliseconds.

All workers share the imported modules. Several workers decode images in parallel, so threads of the
decoders themselves would only take more memory.
"""

import gc
import os
import signal

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "VIPS_CONCURRENCY"):
    os.environ.setdefault(_name, "1")

import imaging.sources.storage  # noqa: E402
import imaging.worker_tasks  # noqa: E402, F401
import schemas.events  # noqa: E402, F401

# SIGTERM to the whole process group is meant for the parent, which may finish its work first. This
# process ends with its parent.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
gc.collect()
# A garbage collection would write to shared pages, and so copy them for each worker.
gc.freeze()
