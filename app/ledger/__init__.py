"""The ledger: the SQL tables for texts that Dapr's history must not hold, and for everything that finance reads.

store/      tables, migrations, the writer; rows written as things happen: tickets, decisions, model calls
recording/  makes a task's record from Dapr's history and the journal
reading/    queries for records, sums and figures
audit/      compares the ledger with histories and refund books, and rebuilds it
"""
