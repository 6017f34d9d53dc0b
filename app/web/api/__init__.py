"""The JSON API: route table, handlers and the OpenAPI document made from the table."""
