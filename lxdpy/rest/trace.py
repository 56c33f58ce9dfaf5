"""What the running task is about: set by the plumbing, shown in every line of the log."""

from contextvars import ContextVar

REQUEST: ContextVar[str] = ContextVar("request", default="")
OPERATION: ContextVar[str] = ContextVar("operation", default="")
INSTANCE: ContextVar[str] = ContextVar("instance", default="")
