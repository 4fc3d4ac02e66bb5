"""Every metric, with its meaning. Safe with many processes: they share the folder POSTFERRY_METRICS_DIR.

What a process counts is a Counter, Gauge or Histogram and is used where the thing happens. A Figure is read when
somebody scrapes: from the database by the API (api/figures.py), from the host by whoever is asked (relay/scrape.py).
docs/metrics.md tells operators what each is good for; a test holds it against this file.
"""

from __future__ import annotations

from relay import meters
from relay.meters import Bounded, Counter, Figure, Gauge, Histogram
from relay.settings import Settings

MOST_ACCOUNTS = 200  # accounts, and upstreams, with label values of their own in one process; all others are "other"

account_label = Bounded(MOST_ACCOUNTS)
upstream_label = Bounded(MOST_ACCOUNTS)

_QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_TALK = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_TRY = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_LIFE = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 43200, 259200)
_COUNT = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

# -- mail comes in -----------------------------------------------------------------------------------------------------

ACCEPTED = Counter("accepted", "Messages stored and acknowledged", "ingress")
ACCEPT_SECONDS = Histogram("accept_seconds", "From the last byte received to the COMMIT", "ingress", buckets=_QUICK)
REFUSED = Counter("refused", "Submissions refused, by class of reason (its enhanced status code)", "ingress", "reason")
SUPPRESSED = Counter("suppressed", "Recipients skipped at accept, for the account sends to them no longer", "ingress")
AUTH_FAILURES = Counter("auth_failures", "Logins and tokens refused at our doors", "ingress")

# -- and goes out ------------------------------------------------------------------------------------------------------

OUTCOMES = Counter("outcomes", "Tries of a delivery, by what became of them", "account", "outcome")
SETBACKS = Counter("setbacks", "Tries that were not sent, by what the reply meant", "outcome", "category")
ATTEMPT_SECONDS = Histogram("attempt_seconds", "One try, from its first byte to its reply", "outcome", buckets=_TALK)
UPSTREAM_OUTCOMES = Counter("upstream_outcomes", "Tries of a delivery, by upstream", "upstream", "outcome")
UPSTREAM_SECONDS = Histogram("upstream_seconds", "One try, from its first byte to its reply", "upstream", buckets=_TRY)
UPSTREAM_TROUBLES = Counter(
    "upstream_troubles", "Times an upstream was unreachable, refused a login or asked for a rest", "upstream", "kind"
)
TOKENS = Counter("oauth_tokens", "Access tokens asked for: refreshed, refused, or the issuer was away", "outcome")
ACCEPT_TO_SENT_SECONDS = Histogram(
    "accept_to_sent_seconds", "From accept (or the time asked for) to the upstream's 250", buckets=_LIFE
)
HELD = Counter("held", "Deliveries given back by a limit or a paused account, at no attempt", "account")
UNKNOWN = Counter("unknown", "Tries whose reply was lost after the final dot: may arrive twice", "account")
LEASES = Counter("leases", "Leases granted, recovered, reenqueued or lost", "kind")

# -- and is looked at --------------------------------------------------------------------------------------------------

FETCHES = Counter("pixel_fetches", "Pixels fetched, by whether their token was ours", "token")
OPENS = Counter("opens", "Pixel fetches recorded, by who was judged to have made them", "opener")
OPENS_WAITING = Gauge("opens_waiting", "Pixel fetches answered and not recorded yet")

# -- and is reported on ------------------------------------------------------------------------------------------------

MAILBOX_LOOKS = Counter("mailbox_looks", "Looks at accounts' mailboxes for reports: done or failed", "outcome")
MAILBOX_LATE = Histogram("mailbox_late_seconds", "How long a mailbox was due before it was looked at", buckets=_LIFE)
SENT_COPIES = Counter("sent_copies", "Copies of sent mail: done, given up (failed), or to be tried again", "outcome")
MAILBOX_IDLE = Gauge("mailbox_idle", "Mailboxes watched by a connection that stays (IMAP IDLE)")
REPORT_CANDIDATES = Counter("report_candidates", "Mails in mailboxes that were read, since they might be reports")
REPORTS = Counter("reports", "What they were: bounce, complaint, auto-reply or none", "kind")
REPORTS_UNMATCHED = Counter("reports_unmatched", "Bounces and complaints about no mail of their account", "source")
REPORTED = Counter("reported", "Deliveries that bounced or were complained about after being sent", "account", "kind")
BOUNCES = Counter("bounces", "Deliveries that bounced after they were sent, by what the report meant", "category")

PROVIDER_POSTS = Counter("provider_posts", "Webhooks of mail providers, by what they did here", "provider", "effect")

# -- and is told of ----------------------------------------------------------------------------------------------------

WEBHOOKS = Counter("webhooks", "Posts to endpoints, by what became of them: delivered, retried or failed", "outcome")
WEBHOOK_SECONDS = Histogram("webhook_seconds", "One post, from its connection to its answer", "outcome", buckets=_QUICK)

# -- machinery ---------------------------------------------------------------------------------------------------------

CONNECTIONS = Gauge("connections", "Open connections, by role and direction (in, out)", "role", "direction")
COMMIT_SIZE = Histogram("commit_size", "Items that shared one group commit", "kind", buckets=_COUNT)
REDIS_ERRORS = Counter("redis_errors", "Commands that Redis did not answer")
STORE_ERRORS = Counter("store_errors", "Times PostgreSQL could not be reached")
PROCESSES = Gauge("processes", "Processes that are alive", "role")
PROCESS_CPU = Counter("process_cpu_seconds", "Processor time spent, user and system", "role")
PROCESS_RESIDENT = Gauge("process_resident_bytes", "Memory that is resident (Linux)", "role")

# -- read when somebody scrapes: from the database ---------------------------------------------------------------------

QUEUE_DEPTH = Figure(
    "queue_depth", "Deliveries not finished: queued, held, deferred, scheduled or leased", "account", "state"
)
OLDEST_DUE = Figure("oldest_due_seconds", "How long the oldest due delivery has waited, of accounts that may send")
HELD_NOW = Figure("held_deliveries", "Due deliveries that are kept back, by why", "account", "reason")
ACCOUNTS = Figure("accounts", "Accounts, by whether they may send: active, resting, paused or refused", "state")
LIMIT_USED = Figure(
    "limit_used_ratio", "Share of a limit that is used; the fullest accounts alone", "account", "window"
)
WEBHOOK_ENDPOINTS = Figure("webhook_endpoints", "Endpoints: active, failing or disabled", "state")
WEBHOOK_PENDING = Figure(
    "webhook_pending", "Events not yet posted; the endpoints with the most by name", "account", "endpoint"
)
WEBHOOK_OLDEST = Figure(
    "webhook_oldest_seconds", "Age of the oldest event not yet posted, same endpoints", "account", "endpoint"
)
WEBHOOK_FAILING = Figure(
    "webhook_failing_seconds", "How long an endpoint has failed at every try", "account", "endpoint"
)
WEBHOOK_OVERDUE = Figure("webhook_overdue_seconds", "How long the most overdue posting has waited for its try")
SENT_COPIES_WAITING = Figure("sent_copies_waiting", "Copies of sent mail that are owed, or looked at again")
SENT_COPIES_OVERDUE = Figure("sent_copies_overdue_seconds", "How long the most overdue of them has waited")
MAILBOXES = Figure("mailboxes", "Mailboxes that are watched: well, or failing at the last look", "state")
MAILBOX_OVERDUE = Figure("mailbox_overdue_seconds", "How long the most overdue mailbox has waited to be looked at")
STORE_UP = Figure("store_up", "1 while PostgreSQL answers the API that is asked")
DATABASE_SIZE = Figure("database_size_bytes", "The database on its disk, indexes and all")
DATABASE_CONNECTIONS = Figure("database_connections", "Connections to the database, by what they do", "state")
DATABASE_MOST = Figure("database_connections_most", "Connections that the PostgreSQL server takes, over all databases")
DATABASE_TRANSACTION = Figure("database_transaction_seconds", "Age of the oldest transaction that is open")
DATABASE_DEAD = Figure("database_dead_rows", "Rows that vacuum has not yet cleared away", "table")
DATABASE_ROWS = Figure("database_rows", "Rows, as PostgreSQL estimates them", "table")

# -- and from the host -------------------------------------------------------------------------------------------------

DISK_FREE = Figure("disk_free_bytes", "Free bytes of the file system that holds a place: metrics, database", "place")
DISK_TOTAL = Figure("disk_total_bytes", "Size of that file system", "place")
BUILD_INFO = Figure("build_info", "Always 1; the labels say what runs", "version", "python")


def prepare(settings: Settings) -> None:
    """Join the shared folder, if there is one. Call first in a role's main, before its processes are started."""
    meters.join(settings.metrics_dir)
    for family in (REDIS_ERRORS, STORE_ERRORS, REPORT_CANDIDATES, MAILBOX_IDLE):
        family.labels()  # shown as 0: no error yet is a fact too
    for outcome in ("delivered", "retried", "failed"):
        WEBHOOKS.labels(outcome)
    for outcome in ("done", "failed"):
        MAILBOX_LOOKS.labels(outcome)
    for kind in ("bounce", "complaint", "auto-reply", "none"):
        REPORTS.labels(kind)
    for source in ("imap", "mailgun"):
        REPORTS_UNMATCHED.labels(source)
    for outcome in ("done", "failed", "retried"):
        SENT_COPIES.labels(outcome)
    for kind in ("granted", "recovered", "reenqueued", "lost"):
        LEASES.labels(kind)
