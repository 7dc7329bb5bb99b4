"""Imported once by the process that workers are forked from, so that they start in milliseconds.

The imported modules are shared by all workers. There are as many workers as images to decode at the
same time; threads of the decoders' own would only take more memory.
"""

import gc
import os
import signal

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "VIPS_CONCURRENCY"):
    os.environ.setdefault(_name, "1")

import imaging.sources.storage  # noqa: E402
import imaging.worker_tasks  # noqa: E402, F401
import schemas.events  # noqa: E402, F401

# SIGTERM to the whole process group is for the parent, which may want to finish its work. This
# process ends when no parent is left.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
gc.collect()
# A garbage collection would write to shared pages, and so copy them for each worker.
gc.freeze()
