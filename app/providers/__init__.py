"""The catalogue of model providers: templates of Dapr components, and the switch from one to another."""
