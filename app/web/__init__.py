"""The agent over HTTP: a JSON API that is described by the same table that serves it.

route_table.py      the table: method, path, role, models and statuses of each route
handlers.py         what each route does, without a word of Flask
openapi.py          the OpenAPI document, made from the table
api.py              binds the table to Flask: token, tenant, body, query, answer
request_reading.py  request bodies and queries into models; faults by field
problems.py         every error as application/problem+json (RFC 9457)
factory.py          create_app
server.py           the socket: waitress in a background thread
"""
