"""Several processes that receive mail as one service (INBOUND_PROCESSES), each with a spool of its own.

The parent binds the addresses, watches the rule file and answers HTTP; its children accept connections on the same sockets. It hands them
the rules, asks them for their numbers, and starts one anew that ends. A child whose parent is gone ends at once, as in a crash.
"""
