"""The JSON API: the table of its routes, what each does, and the document that is made from the table."""
