"""Makes the record of a task from Dapr's history and the journal, and saves it."""
