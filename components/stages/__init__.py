"""One short module a stage of dvc.yaml: read inputs, call the parts, write outputs.

A stage spends its first seconds importing libraries; Ctrl-C in that time shall end it as quietly as later on.
"""

import sys
from types import TracebackType


def _quiet_interrupt(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.exit(130)
    sys.__excepthook__(kind, error, trace)


sys.excepthook = _quiet_interrupt
