"""Background jobs on Azure Storage Queue, and on an SQLite file with the same semantics."""
