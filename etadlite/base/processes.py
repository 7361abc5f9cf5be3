"""Processes that help another one."""

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """End this process when the one that started it has ended, even if that one was killed."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
