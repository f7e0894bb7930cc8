# SPDX-License-Identifier: Apache-2.0
"""Log the renewals of the session in the run that needs it."""

from __future__ import annotations

import logging
import threading

from dagster import DagsterLogManager

from dagster_intergiro.words import in_dagsters_words

SESSION_LOGGER = "intergiro_provider.session"


class RunLogHandler(logging.Handler):
    """Forwards records of the session's logger to the log of a run.

    :param log: the run's.
    """

    def __init__(self, log: DagsterLogManager) -> None:
        super().__init__()
        self._log = log
        self._pass_on = threading.local()

    def attach(self) -> None:
        """Start; set the logger's level to INFO, unless it has one."""
        logger = logging.getLogger(SESSION_LOGGER)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)
        logger.addHandler(self)

    def detach(self) -> None:
        """End."""
        logging.getLogger(SESSION_LOGGER).removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record's message in the run."""
        if getattr(self._pass_on, "busy", False):  # Dagster's storage logs by this thread, too
            return
        self._pass_on.busy = True
        try:
            self._log.log(record.levelno, in_dagsters_words(record.getMessage()))
        except Exception:
            self.handleError(record)
        finally:
            self._pass_on.busy = False
