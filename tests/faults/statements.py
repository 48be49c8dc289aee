"""Lists the faults that qworker survives: one statement per line, each proved by the tests marked with its number.

L: the lease; C: the concurrency; D: max_attempts; G: the grace; poll_max: the setting.
"""

from typing import Final

STATEMENTS: Final[dict[str, dict[int, str]]] = {
    "A worker process": {
        1: "One of 3 workers is killed at random, again and again: nothing lost, no unexplained duplicate, nothing "
        "poisoned; each interrupted job starts again within L + 2 s.",
        2: "Killed at each fault point: every job is executed once or twice.",
        3: "A job that exits, segfaults or is OOM-killed is poisoned after D deliveries; its 100 neighbours finish.",
        4: "A handler raises MemoryError, RecursionError, SystemExit, KeyboardInterrupt, CancelledError: one failed "
        "attempt.",
        5: "SIGTERM with four 10 s jobs: no get after 100 ms, all finish, exit code 0, no duplicate.",
        6: "SIGTERM with a 60 s handler: released at G, exit by G + 2 s, started elsewhere within 2 s, no attempt "
        "spent.",
        7: "SIGTERM with 32 leased and not started: all visible within 2 s, no attempt spent.",
        8: "Five signals in 500 ms: no deadlock; the second releases at once.",
        9: "A handler swallows CancelledError, or blocks in C: the process ends by G + 4 s, and the job runs again.",
        10: "A handler forks: the child neither renews nor deletes.",
        11: "Frozen for 3 L, then continued: at most 2 executions; the stale worker deletes nothing that it lost.",
        12: "A million jobs, a tenth of them raising: memory grows by less than 10 MB, files and threads stay flat.",
    },
    "The lease": {
        13: "A handler of 10 L: one execution, renewed each time with the newest receipt.",
        14: "A renewal is answered with 503 twice, then accepted: one execution.",
        15: "Renewals fail for longer than L: handler cancelled, lease_lost set, the process lives, at most 2 "
        "executions.",
        16: "404 MessageNotFound and 400 PopReceiptMismatch mean the same: no renewal after one.",
        17: "A renewal that was applied, its answer lost: at most 2 executions, nothing deleted with an old receipt.",
        18: "A handler returns while its renewal is under way: no delete fails.",
        19: "An async handler sleeps or computes for 3 L without await: no lease lost, and the log names its task.",
        20: "The wall clock jumps by 10 min, either way: no effect on leases.",
        21: "32 messages, C = 1, 1 s each, L = 6 s: each executed once.",
    },
    "Broker and network": {
        22: "503 and 500 on everything for 60 s: no exit, a bounded rate of requests, resumes within poll_max + 4 s, "
        "nothing lost.",
        23: "Retry-After: 7: the next request comes 7 s later.",
        24: "The answer to a get is dropped or cut at half, 50 times: nothing lost, nothing poisoned.",
        25: "The answer to a put is dropped, 100 times: success or EnqueueUncertain with the job id; 1 or 2 copies, "
        "never 0 after success.",
        26: "A delete that was applied, its answer lost: counts as done, one execution.",
        27: "A queue is deleted while a worker runs, then created again: the worker resumes within 5 s of its return.",
        28: "Requests are accepted and never answered: a get is given up within 10 s, a renewal within L/6.",
        29: "401 and 403: at most one request in 5 s, one log line in 30 s, running handlers finish; recovers when the "
        "right comes back.",
        30: "An idle connection closed by the server: the next call succeeds, no second put.",
        31: "Answers at 5 kB/s: slower, no lease lost.",
        32: "Throttled at 100 requests/s: throughput settles near the limit, nothing lost, no lease lost.",
    },
    "Bad input": {
        33: "One bad message among 32: 31 run, the bad one is poisoned on its first delivery with the reason.",
        34: "An unknown task: reappears with backoff, poisoned at D.",
        35: "Arguments with control characters, noncharacters, emoji: identical after the round trip; a lone surrogate "
        "is an error at enqueue.",
        36: "65,536 bytes as sent: accepted. 65,537: refused before the network, both sizes in the error.",
        37: "JSON 100,000 levels deep, an integer of 5,000 digits, NaN, duplicate keys: rejected in < 50 ms, the "
        "worker lives.",
        38: "Newlines, ANSI codes, JSON in names, arguments, exceptions: one log line each, fields of at most 2 KB.",
        39: "An XML answer with entities (billion laughs): refused, less than 100 MB more memory.",
    },
    "The poison queue": {
        40: "Killed between poison put and delete: 1 or 2 copies, never 0.",
        41: "The poison queue answers 403 or 503: the original is kept and reappears; other jobs flow.",
        42: "A body of exactly 64 KiB: moved unmodified; the text about its failure is shortened instead.",
        43: "1,000 always-failing and 1,000 good jobs: the good ones keep at least half of the "
        "throughput that they have alone.",
        44: "Two replays of a poison queue at once, one killed: every job survives.",
    },
    "SQLite": {
        45: "A producer killed in mid-call: every id that enqueue returned is there; integrity_check is ok.",
        46: "The disk is full: enqueue raises, no partial row; resumes when there is room.",
        47: "Another process holds the write lock for 10 s: waits, loses nothing.",
        48: "4 workers, 10,000 jobs, no faults: each executed exactly once.",
        49: "A corrupt or truncated file: exit code 78 with one line; the file is not changed.",
        50: "The wall clock goes forward or back by 1 h: at most C duplicates a worker; recovery still by L + 2 s.",
        51: "A reader holds a snapshot for 5 min: the write-ahead log stays bounded afterwards.",
    },
    "Security": {
        52: "No pickle, eval or YAML load anywhere; a task named os.system is only an unknown task.",
        53: "A canary in key, SAS and arguments: not once in DEBUG logs, tracebacks, reprs or the command's output.",
        54: "A SAS with the least permissions works for producer and worker; without update, the worker names the "
        "right.",
    },
}
