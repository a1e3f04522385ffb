"""dibs: a work queue for Python that keeps its promises."""

from dibs.app import Dibs
from dibs.backoff import Backoff
from dibs.current import CurrentJob, current_job
from dibs.errors import (
    AccessRefused,
    AppNotFound,
    BadArguments,
    BadName,
    BadOption,
    BadTask,
    BadURL,
    BrokerBusy,
    BrokerError,
    BrokerUnavailable,
    DibsError,
    HandoverUncertain,
    JobExists,
    MessageTooLarge,
    QueueMismatch,
    ReceiptLost,
    StoreGone,
    StoreUnusable,
    UnknownQueue,
    UnknownTask,
    UsageError,
)
from dibs.job import Job, Prepared
from dibs.message import Message
from dibs.outcome import Bury, Dead, Done, JobTimeout, Outcome, Released, Retry, RetryIn
from dibs.task import Task

__all__ = [
    "AccessRefused",
    "AppNotFound",
    "Backoff",
    "BadArguments",
    "BadName",
    "BadOption",
    "BadTask",
    "BadURL",
    "BrokerBusy",
    "BrokerError",
    "BrokerUnavailable",
    "Bury",
    "CurrentJob",
    "Dead",
    "Dibs",
    "DibsError",
    "Done",
    "HandoverUncertain",
    "Job",
    "JobExists",
    "JobTimeout",
    "Message",
    "MessageTooLarge",
    "Outcome",
    "Prepared",
    "QueueMismatch",
    "ReceiptLost",
    "Released",
    "Retry",
    "RetryIn",
    "StoreGone",
    "StoreUnusable",
    "Task",
    "UnknownQueue",
    "UnknownTask",
    "UsageError",
    "current_job",
]
