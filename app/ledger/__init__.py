"""The SQL tables: what the durable history must not hold, and all that finance reads.

store/      tables, migrations, the one writer; what is written as it happens: tickets, decisions, model calls
recording/  the record of a task, made from Dapr's history and the journal
reading/    records, sums and figures for readers
audit/      the ledger against histories and refund books, and its rebuilding
"""
