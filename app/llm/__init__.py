"""The only way to a model: the gateway journals each call before and after it goes to Dapr's Conversation API."""
