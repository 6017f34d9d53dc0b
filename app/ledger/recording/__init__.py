"""The record of a task, made from Dapr's history and the journal."""
